"""Taxonomies from tables in formats of others, known by their header: EuroCrops, Swiss land use (LNF), lists of codes.

None of these tables is shipped: they are read from the user's own copy.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sits_catalog.crop_tree import CropNode, CropTree
from sits_catalog.cube import IGNORE
from sits_catalog.taxonomy import CropClass, Taxonomy, check_cell, check_rows, distinct_colour, parse_taxonomy

__all__ = ["UNDERSTOOD", "read_taxonomy"]

UNDERSTOOD = (
    "a taxonomy has the column code; a EuroCrops mapping has HCAT3_code with original_code or original_name; "
    "a table of Swiss land use has LNF_Code or lnf_codes; a list of codes has original_code and original_name"
)
"""The tables that can be read, by their columns."""

_TIER = re.compile(r"(?:([1-9])(?:st|nd|rd|th)_tier(?:_eng|_new)?|tier_([1-9]))", re.IGNORECASE)
"""Columns of a hierarchy in tables of LNF; those ending in _DE repeat it in German, those in _old are another one."""
_SHOWN = 5
_LONGEST_NUMBER = 20
"""Digits that national codes are filled up to with zeros."""

type _Row = Mapping[str, str]


@dataclass(frozen=True)
class _Table:
    """A table of another's, its columns by their names in small letters."""

    columns: tuple[str, ...]
    rows: tuple[_Row, ...]
    id: str
    name: str
    """What errors call the file."""


def read_taxonomy(text: str, *, id: str, name: str, tree: CropTree) -> Taxonomy:  # noqa: A002  # the field's own name
    """The taxonomy of a CSV text in our own format or one of `UNDERSTOOD`; `name` is what errors call the file.

    Raises ValueError for a header that is none of them, and as `parse_taxonomy` does.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    check_rows(lines, name)
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    header = [column.strip().lower() for column in next(csv.reader([first], delimiter=_delimiter(first)), [])]
    if not header or "code" in header:
        return parse_taxonomy(text, id=id, name=name)
    reader = _reader(header)
    if reader is None:
        raise ValueError(f"{name}: no table of crops has the columns {', '.join(header[:8])}; {UNDERSTOOD}")
    return reader(_Table(tuple(header), tuple(_rows(lines, name)), id, name), tree)


def _reader(header: Sequence[str]) -> Callable[[_Table, CropTree], Taxonomy] | None:
    """What reads a table with these columns; None where nothing does."""
    if "hcat3_code" in header and ("original_code" in header or _names(header)):
        return _eurocrops
    if "lnf_code" in header or "lnf_codes" in header:
        return _land_use
    return _list_of_codes if "original_code" in header and _names(header) else None


def _delimiter(header: str) -> str:
    return ";" if ";" in header else ","


def _rows(lines: Sequence[str], name: str) -> Iterator[_Row]:
    """The rows as mappings, cells without blanks around them; rows without any text are left out."""
    start = next(number for number, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    reader = csv.reader(lines[start:], delimiter=_delimiter(lines[start]), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader)]
        for cells in reader:
            if len(cells) > len(header):
                raise ValueError(
                    f"{name}:{start + reader.line_num}: {len(cells)} cells, but the header names {len(header)} columns"
                )
            for cell in cells:
                check_cell(cell, f"{name}:{start + reader.line_num}")
            if any(cell.strip() for cell in cells):
                padded = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
                yield dict(zip(header, padded, strict=True))
    except csv.Error as error:
        raise ValueError(f"{name}:{start + reader.line_num}: this is not CSV: {error}") from error


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    """Those of original names; tables of German states have two."""
    return tuple(column for column in columns if column.startswith("original_name"))


# EuroCrops


def _eurocrops(table: _Table, tree: CropTree) -> Taxonomy:
    """National codes to classes of HCAT, each with its name, colour and index in `hcat3`.

    The code of a row is `original_code` or, where it has none, its name. Names are codes as well, where all rows of a
    name are one class: some national files have the name alone. So are numbers with zeros before them, up to the
    longest, where the table has lost them: national files write 001, the table 1. A row without either is a further
    crop of the row above, a mixture: its first crop is taken, and the notes say so.
    """
    classes: dict[str, CropClass] = {}
    codes: dict[str, str] = {}
    aliases: dict[str, set[str]] = {}
    notes: dict[str, None] = {}
    mixed: dict[str, None] = {}
    code = ""
    for row in table.rows:
        names = [row[column] for column in _names(table.columns) if row[column]]
        above, code = code, row.get("original_code", "") or next(iter(names), "")
        if not code:
            code = above
            mixed[code] = None
            continue
        crop = _hcat_class(row, tree, code, notes)
        if crop is None:
            continue
        if codes.setdefault(code, crop.code) != crop.code:
            raise ValueError(
                f"{table.name}: the code {code!r} is {codes[code]} in one row and {crop.code} in another; keep one row"
            )
        classes[crop.code] = crop
        for alias in names:
            aliases.setdefault(alias, set()).add(crop.code)
    if not classes:
        raise ValueError(f"{table.name}: no row has both a code and an HCAT code")
    meant = {alias: next(iter(crops)) for alias, crops in aliases.items() if len(crops) == 1}
    if mixed:
        notes[f"codes of several crops, of which the first is taken: {_some(list(mixed))}"] = None
    notes |= dict.fromkeys(_ambiguous(alias for alias, crops in aliases.items() if len(crops) > 1))
    ordered = sorted(classes.values(), key=lambda crop: crop.index)
    index = {crop.code: crop.index for crop in ordered}
    own = {crop.hcat: crop.index for crop in ordered if crop.hcat is not None}
    known = {code: index[crop] for code, crop in {**meant, **_padded(codes), **codes}.items()}
    return Taxonomy(
        id=table.id,
        classes=tuple(ordered),
        codes={**own, **known},
        title=f"Codes of {table.id} to HCAT 3",
        attribution="EuroCrops (Schneider et al. 2023), CC BY-SA 4.0",
        notes=tuple(notes),
    )


def _ambiguous(names: Iterable[str]) -> Iterator[str]:
    """A sentence on the names that are no codes, if any."""
    several = sorted(names)
    if several:
        yield f"names that stand for several classes and are no codes: {_some(several)}"


def _padded(codes: Mapping[str, str]) -> dict[str, str]:
    """The numbers among the codes with zeros before them, up to the longest; none where the table writes zeros."""
    numbers = [code for code in codes if code.isdecimal()]
    if any(code.startswith("0") and code != "0" for code in numbers):
        return {}
    longest = min(max(map(len, numbers), default=0), _LONGEST_NUMBER)
    return {code.zfill(width): codes[code] for code in numbers for width in range(len(code) + 1, longest + 1)}


def _hcat_class(row: _Row, tree: CropTree, code: str, notes: dict[str, None]) -> CropClass | None:
    """The class of a row: its HCAT code says which; where HCAT 3 has no such code, its name, else the node above.

    Where code and name are two nodes of HCAT 3 nothing says which is meant: it is their nearest common ancestor.
    """
    hcat = row["hcat3_code"]
    if not hcat:
        notes[f"rows without an HCAT code, which leave their code unknown: {code}"] = None
        return None
    if not re.fullmatch(r"\d{10}", hcat):
        raise ValueError(f"the HCAT code of {code!r} should have ten digits, got {hcat!r}")
    if hcat in tree.nodes:
        return _agreed(tree.nodes[hcat], row.get("hcat3_name", ""), tree, code, notes).crop
    node = tree.known(row.get("hcat3_name", ""))
    how = "its name"
    if node is None:
        path = tree.path(hcat)
        if not path:
            raise ValueError(f"HCAT 3 has no class {hcat} (code {code!r}) and none above it")
        node, how = path[0], "the nearest above"
    notes[f"code {code}: HCAT 3 has no {hcat}; taken by {how} as {node.crop.code} ({node.crop.hcat})"] = None
    return node.crop


def _agreed(node: CropNode, name: str, tree: CropTree, code: str, notes: dict[str, None]) -> CropNode:
    """The node of a row's HCAT code, or what it shares with the node that the row names, where that is another one."""
    other = tree.known(name)
    if other is None:
        return node  # a name that is no node's, such as one spelt differently, says nothing against the code
    if other.crop.hcat == node.crop.hcat:
        return node
    above = {step.crop.hcat for step in tree.path(str(other.crop.hcat))}
    shared = next((step for step in tree.path(str(node.crop.hcat)) if step.crop.hcat in above), None)
    said = f"its HCAT code is {_shown(node)} and its HCAT name {_shown(other)}"
    if shared is None:
        raise ValueError(f"the code {code!r} contradicts itself, {said}, which share no class; correct the row")
    notes[f"code {code}: {said}; taken as what both lie in, {_shown(shared)}"] = None
    return shared


def _shown(node: CropNode) -> str:
    return f"{node.crop.code} ({node.crop.hcat})"


# Swiss land use


def _land_use(table: _Table, _: CropTree) -> Taxonomy:
    """LNF codes to the finest tier of the table's hierarchy, or each a class of its own where it has none.

    A class of its own has its LNF code as index, so that tables of different years agree.
    """
    tiers = sorted((column for column in table.columns if _TIER.fullmatch(column)), key=_tier)
    single = "lnf_code" if "lnf_code" in table.columns else None
    members: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for row in table.rows:
        codes = [row[single]] if single is not None else _numbers(row["lnf_codes"], table.name)
        path = [row[tier] for tier in tiers if row[tier]]
        for code in codes:
            crop = "/".join(path) if path else code
            members.setdefault(crop, []).append(code)
            names[crop] = path[-1] if path else _own_name(row, code)
    twice = [code for code, times in Counter(code for codes in members.values() for code in codes).items() if times > 1]
    if twice or not members or "" in members:
        wrong = f"the code {twice[0]} stands twice" if twice else "a row has no LNF code" if members else "no rows"
        raise ValueError(f"{table.name}: {wrong}; each LNF code should have one row")
    own = not tiers and all(code.isdecimal() and 1 <= int(code) < IGNORE for code in members)
    indexes = [int(code) for code in members] if own else range(1, len(members) + 1)
    return _taxonomy(
        table,
        {crop: (index, names[crop], codes) for index, (crop, codes) in zip(indexes, members.items(), strict=True)},
        title="Swiss land use (LNF)",
        attribution=f"Codes: Swiss Federal Office for Agriculture; grouping: the authors of {table.name}"
        if tiers
        else "Codes: Swiss Federal Office for Agriculture",
    )


def _tier(column: str) -> int:
    found = _TIER.fullmatch(column)
    assert found is not None
    return int(found[1] or found[2])


def _numbers(text: str, name: str) -> list[str]:
    """The codes of a cell such as [601, 602]."""
    try:
        return [str(int(number)) for number in json.loads(text)]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: lnf_codes should look like [601, 602], got {text[:80]!r}") from error


def _own_name(row: _Row, code: str) -> str:
    columns = ("raw_eng", "nutzung_de", "raw_de", "nutzung_fr", "nutzung_it")
    return next((row[column] for column in columns if row.get(column)), code)


# Lists of codes


def _list_of_codes(table: _Table, _: CropTree) -> Taxonomy:
    """Each code a class of its own, by its English name where there is one; codes without a name are left out.

    Original names are codes as well, where a name is one class. A code of several names is no code, and its names are
    classes.
    """
    originals = _names(table.columns)
    columns = [*(column for column in ("translated_name", "name_en") if column in table.columns), *originals]
    meant: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row["original_code"] and row[originals[0]]:
            meant.setdefault(row["original_code"], {})[row[originals[0]]] = None
    vague = [code for code, names in meant.items() if len(names) > 1]
    classes: dict[str, tuple[int, str, list[str]]] = {}
    owners: dict[str, set[str]] = {}
    for row in table.rows:
        code, name = row["original_code"], row[originals[0]]
        if code and name:
            crop = name if code in vague else code
            shown = next(row[column] for column in columns if row[column])
            classes.setdefault(crop, (len(classes) + 1, shown, [crop]))
            owners.setdefault(name, set()).add(crop)
    if not classes:
        raise ValueError(f"{table.name}: no row has both a code and a name")
    for name, crops in owners.items():
        if len(crops) == 1 and name not in classes:
            classes[next(iter(crops))][2].append(name)
    notes = [f"codes of several names, which are no codes: {_some(vague)}"] if vague else []
    notes += _ambiguous(name for name, crops in owners.items() if len(crops) > 1)
    return replace(_taxonomy(table, classes, title=f"Codes of {table.id}", attribution=""), notes=tuple(notes))


def _taxonomy(
    table: _Table, classes: Mapping[str, tuple[int, str, Iterable[str]]], *, title: str, attribution: str
) -> Taxonomy:
    """Classes by their code, each with index, name and source codes."""
    return Taxonomy(
        id=table.id,
        classes=tuple(
            CropClass(index=index, code=code, name=name, colour=distinct_colour(index))
            for code, (index, name, _) in classes.items()
        ),
        codes={code: index for index, _, codes in classes.values() for code in codes},
        title=title,
        attribution=attribution,
    )


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
