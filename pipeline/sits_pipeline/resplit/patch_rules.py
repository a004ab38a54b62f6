"""The split of each patch of a set, by the ways there are: shares, folds, years, a table, or all in one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import NO_DAY, Split
from sits_catalog.region import SplitRule
from sits_pipeline.resplit.groups import PatchSplits, groups_of, near_pairs, share_out
from sits_pipeline.resplit.plan import SplitName

__all__ = ["by_rule", "by_year", "outlines_of"]

_WORDS = {code.name.lower(): int(code) for code in Split if code is not Split.BUFFER}
_SHOWN = 3

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import


def outlines_of(table: Table) -> NDArray[np.object_]:
    """Outlines in lon/lat; None where they are unknown."""
    return np.asarray(shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object)), dtype=object).reshape(-1)


def by_rule(table: Table, rule: SplitRule, names: Mapping[int, str] | None = None) -> PatchSplits:
    """The split of each patch of `patches.parquet` by a rule; a rule's file is a table of name and split.

    Patches whose outlines come nearer than the rule's buffer to each other share a split, but for a table's, which is
    taken as it is. Notes call classes by their `names`. Raises ValueError or FileNotFoundError for a table that does
    not name every patch, and ValueError for a size of blocks, which patches have none of.
    """
    if rule.block_m != SplitRule().block_m:
        raise ValueError(
            f"a set of patches is split by patch, and not by blocks of {rule.block_m} m; leave --block out"
        )
    if rule.whole is not None:
        return PatchSplits(split=np.full(table.num_rows, _WORDS[rule.whole], np.uint8), fold=None, notes=())
    if rule.file is not None:
        return _by_table(table, rule.file)
    outlines = outlines_of(table)
    group = groups_of(table.num_rows, near_pairs(outlines, rule.buffer_m))
    classes, pixels = _pixels(table)
    found = share_out(group, pixels, rule, classes=classes, names=names)
    unknown = int(shapely.is_missing(outlines).sum())
    notes = (f"the place of {unknown} patches is unknown, so that nobody can say which lie side by side",)
    return PatchSplits(split=found.split, fold=found.fold, notes=found.notes + (notes if unknown else ()))


def _pixels(table: Table) -> tuple[list[int], NDArray[np.float64]]:
    """Classes, and pixels of each in each patch, (patch, class); background and ignore are none."""
    if "crop_counts" not in table.schema.names:
        return [], np.zeros((table.num_rows, 0))
    rows = [dict(counts or ()) for counts in table["crop_counts"].to_pylist()]
    classes = sorted({crop for row in rows for crop in row if 0 < crop < 65535})
    pixels = np.array([[row.get(crop, 0) for crop in classes] for row in rows], dtype=float)
    return classes, pixels.reshape(len(rows), len(classes))


def by_year(days: NDArray[np.int32], names: list[str], years: Mapping[int, SplitName]) -> PatchSplits:
    """The split of the year that a patch's last day, of `days` (patch, time), lies in.

    Raises ValueError where a year is not named, or a patch has no day.
    """
    split = np.zeros(len(days), np.uint8)
    for patch, own in enumerate(days):
        there = own[own != NO_DAY]
        last = None if not len(there) else date(1970, 1, 1) + timedelta(days=int(there.max()))
        if last is None or last.year not in years:
            when = "has no day" if last is None else f"ends on {last}, and {last.year} is in no split"
            raise ValueError(f"patch {names[patch]} {when}; name the year of every patch, as in train=2018")
        split[patch] = _WORDS[years[last.year]]
    return PatchSplits(split=split, fold=None, notes=())


def _by_table(table: Table, path: str) -> PatchSplits:
    rows = _rows(path)
    names = [str(name) for name in table["name"].to_pylist()]
    ids = [str(name) for name in table["id"].to_pylist()]
    given: dict[str, str] = {}
    for name, word in rows:
        if word not in _WORDS:
            raise ValueError(f"{path}: split says train, validation, test or none; {name} says {word!r}")
        if given.setdefault(name, word) != word:
            raise ValueError(f"{path}: {name} is {given[name]} and {word}; a patch is in one split")
    missing = [own for own, other in zip(names, ids, strict=True) if own not in given and other not in given]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ValueError(f"{path} does not name {', '.join(missing[:_SHOWN])}{more}; name every patch (none: no split)")
    words = [given.get(own, given.get(other, "none")) for own, other in zip(names, ids, strict=True)]
    return PatchSplits(split=np.array([_WORDS[word] for word in words], np.uint8), fold=None, notes=())


def _rows(path: str) -> list[tuple[str, str]]:
    """Name and split of each row of a CSV or Parquet file."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no table of splits at {path}: there is no such file")
    if file.suffix.lower() in (".parquet", ".geoparquet", ".pq"):
        import pyarrow.parquet as pq

        found = pq.read_table(file).to_pydict()
    else:
        reader = csv.DictReader(io.StringIO(file.read_text("utf-8-sig")))
        rows = list(reader)
        found = {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    if not {"name", "split"} <= found.keys():
        raise ValueError(f"{path} needs the columns name and split; it has {', '.join(found) or 'none'}")
    words = [("" if word is None else str(word).strip().lower()) or "none" for word in found["split"]]
    return list(zip(map(str, found["name"]), words, strict=True))
