"""A crop taxonomy: from a source's crop codes to the classes of a label raster.

The file of a taxonomy is a CSV (UTF-8, comma or semicolon) with one row a source code:

| column | meaning |
|---|---|
| `code` | the crop code as the parcels have it, compared as text; needed, and every row another |
| `class` | the code of the class it belongs to; empty or left out: the code is a class of its own |
| `name` | name of the class; default: its code |
| `hcat` | ten-digit HCAT code of the class; where one class alone has it, it is read as a source code as well |
| `colour` | `#rrggbb` of the class; default: a colour by its index |
| `index` | value of the class in `crop_type`, 1..65534, given for all classes or for none; default: 1, 2, ... by row |
| `ignore` | `yes`: a known code that makes no class; its pixels are IGNORE |

Columns of a class are read from its first row that fills them. Lines `# title: ...` and `# attribution: ...`
may stand before the header. A code that no row names is unknown: it is listed, and IGNORE, never background.
"""

from __future__ import annotations

import colorsys
import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sits_catalog.cube import IGNORE

__all__ = ["CropClass", "Taxonomy", "check_cell", "check_rows", "distinct_colour", "parse_taxonomy"]

_LONGEST_CODE, _LONGEST_CELL, _MOST_ROWS = 300, 4000, 200_000
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and halves of surrogates."""
_COLUMNS = ("code", "class", "name", "hcat", "colour", "index", "ignore")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_HCAT = re.compile(r"\d{10}")
_YES_OR_NO = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}


@dataclass(frozen=True, kw_only=True)
class CropClass:
    """One class of a label raster."""

    index: int
    """Value in `crop_type`: 1..65534."""
    code: str
    name: str
    hcat: str | None = None
    """Ten-digit HCAT code."""
    colour: str = "#999999"

    def __post_init__(self) -> None:
        if not 1 <= self.index < IGNORE:
            raise ValueError(f"the index of class {self.code!r} must lie in 1..{IGNORE - 1}, got {self.index}")
        if not _COLOUR.fullmatch(self.colour):
            raise ValueError(f"the colour of class {self.code!r} should look like #1a2b3c, got {self.colour!r}")
        if self.hcat is not None and not _HCAT.fullmatch(self.hcat):
            raise ValueError(f"the HCAT code of class {self.code!r} should have ten digits, got {self.hcat!r}")


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Classes, and which source code belongs to which."""

    id: str
    classes: tuple[CropClass, ...]
    codes: Mapping[str, int] = field(default_factory=dict)
    """Source code (as string) to class index."""
    ignore: frozenset[str] = frozenset()
    """Source codes that are known but make no class: their pixels are IGNORE."""
    title: str = ""
    attribution: str = ""
    notes: tuple[str, ...] = ()
    """What was left out or could not be had when it was made, in sentences."""

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for crop in self.classes:
            if crop.index in seen:
                raise ValueError(f"classes {seen[crop.index]!r} and {crop.code!r} share the index {crop.index}")
            seen[crop.index] = crop.code
        if len(set(seen.values())) != len(seen):
            raise ValueError(f"taxonomy {self.id!r} has two classes of one code")

    @classmethod
    def from_codes(cls, codes: Iterable[str | None]) -> Taxonomy:
        """One class a distinct code, in sorted order: what a cube without a taxonomy gets.

        >>> Taxonomy.from_codes(["b", None, "a", "b"]).codes
        {'a': 1, 'b': 2}
        """
        distinct = sorted({code for code in codes if code is not None})
        if len(distinct) >= IGNORE:
            raise ValueError(
                f"{len(distinct)} distinct crop codes are more than the {IGNORE - 1} classes of a cube; "
                "is the column of crop codes really the column of parcel keys?"
            )
        long = next((code for code in distinct if len(code) > _LONGEST_CODE), None)
        if long is not None:
            raise ValueError(
                f"a crop code has {len(long)} characters ({long[:40]!r}, ...), more than {_LONGEST_CODE}; is the "
                "column of crop codes another one?"
            )
        classes = tuple(
            CropClass(index=index, code=code, name=code, colour=distinct_colour(index))
            for index, code in enumerate(distinct, start=1)
        )
        return cls(id="codes", classes=classes, codes={crop.code: crop.index for crop in classes})

    def classify(self, code: str | None) -> int:
        """Class index of a source code; IGNORE where it is missing, unknown or in the ignore set."""
        if code is None or code in self.ignore:
            return IGNORE
        return self.codes.get(code, IGNORE)

    def unknown_codes(self, codes: Iterable[str | None]) -> tuple[str, ...]:
        """The codes, sorted and each once, that are neither a class's nor in the ignore set; None is no code."""
        return tuple(sorted({code for code in codes if code is not None} - self.codes.keys() - self.ignore))


def distinct_colour(index: int) -> str:
    """`#rrggbb` of a class that names none: hues by the golden angle, in rings of lightness and saturation."""
    hue = (index * 0.6180339887498949) % 1
    lightness = (0.42, 0.60, 0.32, 0.72, 0.51)[index % 5]
    saturation = (0.85, 0.45, 0.65)[index // 5 % 3]
    return "#" + "".join(f"{round(part * 255):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))


@dataclass(frozen=True)
class _Row:
    place: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")

    @property
    def crop(self) -> str:
        return self["class"] or self["code"]


def parse_taxonomy(text: str, *, id: str, name: str) -> Taxonomy:  # noqa: A002  # the field's own name
    """The taxonomy of a CSV text in the format above; `name` is what errors call the file. Raises ValueError."""
    lines = text.removeprefix("\ufeff").splitlines()
    check_rows(lines, name)
    start = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    head = dict(_head(lines[:start]))
    rows = _read_rows(lines, start, name)
    members: dict[str, list[_Row]] = {}
    for row in rows:
        if not _ignored(row):
            members.setdefault(row.crop, []).append(row)
    if not members:
        raise ValueError(f"{name}: no row makes a class")
    classes = tuple(_classes(members, name))
    codes = {row["code"]: crop.index for crop in classes for row in members[crop.code]}
    ignore = frozenset(row["code"] for row in rows if _ignored(row))
    return Taxonomy(
        id=id,
        classes=classes,
        codes={**_hcat_codes(classes, ignore), **codes},
        ignore=ignore,
        title=head.get("title", ""),
        attribution=head.get("attribution", ""),
    )


def _head(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What comments say of a taxonomy: `# title: ...`, `# attribution: ...`."""
    for line in lines:
        key, _, said = line.removeprefix("#").partition(":")
        if key.strip() in ("title", "attribution") and said.strip():
            check_cell(said, f"the {key.strip()}")
            yield key.strip(), said.strip()


def check_cell(text: str, where: str) -> None:
    """Raise ValueError for a cell that is no code, name or the like: too long, or with control characters."""
    if len(text) > _LONGEST_CELL:
        raise ValueError(f"{where}: a cell has {len(text)} characters, more than {_LONGEST_CELL}: {text[:40]!r}, ...")
    found = _UNSEEN.search(text)
    if found is not None:
        raise ValueError(f"{where}: the character U+{ord(found[0]):04X}, which nobody sees, is not allowed in a cell")


def check_rows(lines: Sequence[str], name: str) -> None:
    """Raise ValueError for a table with more lines than codes of any source."""
    if len(lines) > _MOST_ROWS:
        raise ValueError(f"{name}: a table of crops has at most {_MOST_ROWS} lines; this one has {len(lines)}")


def _read_rows(lines: list[str], start: int, name: str) -> list[_Row]:
    if start == len(lines):
        raise ValueError(f"{name}: the file is empty; the first line should name the columns {', '.join(_COLUMNS)}")
    delimiter = ";" if ";" in lines[start] else ","
    reader = csv.reader(lines[start:], delimiter=delimiter, strict=True)
    try:
        header = [column.strip() for column in next(reader)]
        _check_header(header, f"{name}:{start + 1}")
        rows = [_row(header, cells, f"{name}:{start + reader.line_num}") for cells in reader if any(cells)]
    except csv.Error as error:
        raise ValueError(f"{name}:{start + reader.line_num}: this is not CSV: {error}") from error
    first: dict[str, str] = {}
    for row in rows:
        if row["code"] in first:
            raise ValueError(f"{row.place}: the code {row['code']!r} stands twice (first: {first[row['code']]})")
        first[row["code"]] = row.place
    return rows


def _check_header(header: list[str], place: str) -> None:
    unknown = [column for column in header if column not in _COLUMNS]
    if unknown or "code" not in header or len(set(header)) != len(header):
        problem = f"unknown column {unknown[0]!r}" if unknown else "the column 'code' is missing or a column repeats"
        raise ValueError(f"{place}: {problem}; a taxonomy has the columns {', '.join(_COLUMNS)}")


def _row(header: list[str], cells: list[str], place: str) -> _Row:
    if len(cells) != len(header):
        raise ValueError(f"{place}: {len(cells)} cells, but the header names {len(header)} columns")
    for cell in cells:
        check_cell(cell, place)
    row = _Row(place, {column: cell.strip() for column, cell in zip(header, cells, strict=True)})
    if not row["code"]:
        raise ValueError(f"{place}: the code is empty")
    if row["ignore"].lower() not in _YES_OR_NO:
        raise ValueError(f"{place}: ignore should be yes or no, got {row['ignore']!r}")
    if _ignored(row) and row["class"]:
        raise ValueError(f"{place}: the code {row['code']!r} is ignored, so it cannot belong to class {row['class']!r}")
    return row


def _ignored(row: _Row) -> bool:
    return _YES_OR_NO[row["ignore"].lower()]


def _classes(members: Mapping[str, list[_Row]], name: str) -> Iterator[CropClass]:
    numbered = [bool(_filled(rows, "index")) for rows in members.values()]
    if any(numbered) and not all(numbered):
        bare = next(code for code, rows in members.items() if not _filled(rows, "index"))
        raise ValueError(f"{name}: class {bare!r} has no index, but others have; give all classes one, or none")
    for position, (code, rows) in enumerate(members.items(), start=1):
        given = _filled(rows, "index") or str(position)
        if not re.fullmatch(r"\d{1,9}", given):
            raise ValueError(f"{rows[0].place}: the index of class {code!r} should be a whole number, got {given!r}")
        try:
            yield CropClass(
                index=int(given),
                code=code,
                name=_filled(rows, "name") or code,
                hcat=_filled(rows, "hcat") or None,
                colour=(_filled(rows, "colour") or distinct_colour(int(given))).lower(),
            )
        except ValueError as error:
            raise ValueError(f"{rows[0].place}: {error}") from error


def _filled(rows: list[_Row], column: str) -> str:
    """What the rows of a class say in a column: they may leave it empty but not differ."""
    said = [row for row in rows if row[column]]
    if not said:
        return ""
    for row in said[1:]:
        if row[column] != said[0][column]:
            raise ValueError(
                f"{row.place}: {column} of class {row.crop!r} is {row[column]!r}, but {said[0][column]!r} at "
                f"{said[0].place}"
            )
    return said[0][column]


def _hcat_codes(classes: Iterable[CropClass], ignore: frozenset[str]) -> dict[str, int]:
    """HCAT codes as source codes, where one class alone has them."""
    owners: dict[str, list[int]] = {}
    for crop in classes:
        if crop.hcat is not None and crop.hcat not in ignore:
            owners.setdefault(crop.hcat, []).append(crop.index)
    return {hcat: indexes[0] for hcat, indexes in owners.items() if len(indexes) == 1}
