"""What the tables of a dataset tell the catalogue: parcels and splits with their ground, and where scenes came from."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from sits_catalog.catalogue.dataset import DatasetFiles
from sits_catalog.wkb import read_wkb

__all__ = ["MAX_OUTLINES", "SplitShare", "Tables", "read_tables"]

JsonObject = dict[str, Any]
_Shapes = Any
"""An array of shapely geometries; shapely is imported where it is used."""

MAX_OUTLINES = 3000
"""Parcels or patches that are drawn of a dataset; the largest come first."""
_STEP_DEG = 1e-5
"""Outlines are whole numbers of this: 1.1 m of latitude."""
_DETAIL = 1500
"""An outline is simplified to the extent of all of them divided by this."""
_MAX_PARTS = 20_000
"""Of the ground of a split; a coarser one would be ground of other splits too."""
_DECIMALS = 6
_Grounds = dict[str, "JsonObject | int"]
"""By split: GeoJSON, or the number of parts where these are too many."""
_SPLITS = ("train", "validation", "test", "buffer", "none")


@dataclass(frozen=True, kw_only=True)
class SplitShare:
    """What belongs to a split."""

    name: str
    """train, validation, test, buffer or none."""
    parcels: int | None
    """None where the dataset has no parcels."""
    pixels: int | None
    """Pixels that parcels have won; for patches, pixels with a class other than background."""
    patches: int | None
    """None in the profile `region`."""
    geometry: JsonObject | None
    """GeoJSON in lon/lat of its chips or patches; None where their place is unknown, or in too many parts."""
    n_parts: int | None = None
    """Number of parts of the ground where these are too many for a geometry."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All of it."""

    splits: tuple[SplitShare, ...] = ()
    """In the order train, validation, test, buffer, none; only those that occur; empty without splits."""
    folds: dict[int, int] = field(default_factory=dict)
    """Number of patches or parcels a fold."""
    parcels: dict[int, int] = field(default_factory=dict)
    """Number of parcels a class."""
    outlines: JsonObject = field(default_factory=dict)
    """What the page draws: kind, total, origin, step, and rows of class, split and rings, the largest first."""
    sources: JsonObject = field(default_factory=dict)
    """Source items by provider and by status."""


def read_tables(files: DatasetFiles, profile: str) -> Tables:
    """Read `parcels.parquet` and `chips.parquet`, or `patches.parquet`; and `sources.parquet` where there is one.

    Raises FileNotFoundError where the index of a set of patches is missing, ValueError for a table that cannot be
    understood, OSError where a store refuses us.
    """
    import pyarrow as pa

    try:
        found = _of_patches(files) if profile == "patches" else _of_region(files)
        return Tables(**found, sources=_sources(files))
    except (pa.ArrowException, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"a table of {files.location} is not as the contract says: {error}") from error


# Region


def _of_region(files: DatasetFiles) -> JsonObject:
    found: JsonObject = {}
    grounds = _split_grounds(files) if files.has("chips.parquet") else {}
    if not files.has("parcels.parquet"):
        return found
    with files.open("parcels.parquet") as file:
        table = _table(file, ["crop_type", "n_pixels", "split", "area_ha"], optional=["fold"])
        rows = table.to_pydict()
    parcels, pixels = Counter(rows["split"]), Counter[str]()
    for split, n_pixels in zip(rows["split"], rows["n_pixels"], strict=True):
        pixels[split] += n_pixels
    if grounds or set(parcels) - {"none"}:
        found["splits"] = tuple(
            SplitShare(name=name, parcels=parcels[name], pixels=pixels[name], patches=None, **_ground(grounds, name))
            for name in _SPLITS
            if name in parcels or (name in grounds and name != "none")
        )
    found["parcels"] = dict(Counter(rows["crop_type"]))
    found["folds"] = _folds(rows)
    largest = sorted(range(len(rows["split"])), key=lambda row: -rows["area_ha"][row])[:MAX_OUTLINES]
    with files.open("parcels.parquet") as file:
        shapes, crs = _geometries(file, largest)
    facts = [(rows["crop_type"][row], rows["split"][row]) for row in largest]
    found["outlines"] = _outlines("parcels", _to_lonlat(shapes, crs), facts, len(rows["split"]))
    return found


def _folds(rows: JsonObject) -> dict[int, int]:
    return dict(sorted(Counter(fold for fold in rows.get("fold", ()) if fold is not None).items()))


def _split_grounds(files: DatasetFiles) -> _Grounds:
    """GeoJSON in lon/lat of the grid chips of each split; a grid chip lies in one split."""
    with files.open("chips.parquet") as file:
        rows = _table(file, ["kind", "split"]).to_pydict()
        wanted = [row for row, kind in enumerate(rows["kind"]) if kind == "grid" and rows["split"][row] != "none"]
        file.seek(0)
        shapes, crs = _geometries(file, wanted)
    return _grounds([rows["split"][row] for row in wanted], _to_lonlat(shapes, crs))


def _grounds(splits: Sequence[str], shapes: _Shapes) -> _Grounds:
    import shapely

    members: dict[str, list[Any]] = defaultdict(list)
    for split, shape in zip(splits, shapes, strict=True):
        if shape is not None:
            members[split].append(shape)
    grounds: _Grounds = {}
    for split, parts in members.items():
        ground = shapely.union_all(parts)
        n_parts = len(shapely.get_parts(ground))
        if n_parts > _MAX_PARTS:
            grounds[split] = n_parts
            continue
        ground = shapely.set_precision(ground, 10.0**-_DECIMALS)
        grounds[split] = json.loads(shapely.to_geojson(ground))
    return grounds


def _ground(grounds: _Grounds, name: str) -> JsonObject:
    """Fields of the share of a split."""
    ground = grounds.get(name)
    return {"geometry": None, "n_parts": ground} if isinstance(ground, int) else {"geometry": ground}


# Patches


def _of_patches(files: DatasetFiles) -> JsonObject:
    with files.open("patches.parquet") as file:
        rows = _table(file, ["patch"], optional=["split", "fold", "crop_counts"]).to_pydict()
    n = len(rows["patch"])
    with files.open("patches.parquet") as file:
        shapes, crs = _geometries(file, range(n))
    shapes = _to_lonlat(shapes, crs)
    splits = [split or "none" for split in rows.get("split", [None] * n)]
    counts = [dict(found or ()) for found in rows.get("crop_counts", [None] * n)]
    facts = [(_most(found), split) for found, split in zip(counts, splits, strict=True)]
    return {
        "splits": _patch_splits(splits, counts, shapes),
        "folds": _folds(rows),
        "outlines": _outlines("patches", shapes[:MAX_OUTLINES], facts[:MAX_OUTLINES], n),
    }


def _patch_splits(splits: Sequence[str], counts: Sequence[dict[int, int]], shapes: _Shapes) -> tuple[SplitShare, ...]:
    number, pixels = Counter(splits), Counter[str]()
    if set(number) <= {"none"}:
        return ()
    for split, found in zip(splits, counts, strict=True):
        pixels[split] += sum(n for index, n in found.items() if index not in (0, 65535))
    grounds = _grounds(splits, shapes)
    return tuple(
        SplitShare(
            name=name, parcels=None, pixels=pixels[name], patches=number[name],
            **_ground({} if name == "none" else grounds, name),
        )
        for name in _SPLITS
        if name in number
    )  # fmt: skip


def _most(counts: dict[int, int]) -> int | None:
    """The class with most pixels, background and ignored ones aside."""
    crops = {index: n for index, n in counts.items() if index not in (0, 65535)}
    return max(crops, key=lambda index: (crops[index], -index)) if crops else None


# Sources


def _sources(files: DatasetFiles) -> JsonObject:
    if not files.has("sources.parquet"):
        return {}
    with files.open("sources.parquet") as file:
        rows = _table(file, ["status"], optional=["provider"]).to_pydict()
    providers = sorted({name for name in rows.get("provider", ()) if name})
    return {"providers": providers, "items": dict(sorted(Counter(map(str, rows["status"])).items()))}


# Parquet


def _table(file: IO[bytes], columns: Sequence[str], optional: Sequence[str] = ()) -> Any:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    there = set(opened.schema_arrow.names)
    missing = [name for name in columns if name not in there]
    if missing:
        raise ValueError(f"a table has no column {missing[0]}, which the contract asks for")
    return opened.read(columns=[*columns, *(name for name in optional if name in there)])


def _geometries(file: IO[bytes], rows: Sequence[int]) -> tuple[_Shapes, Any]:
    """Shapes of some rows in their order, and their CRS; a part of the file is in memory at a time."""
    import numpy as np
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    wanted, first, found = np.asarray(rows, np.int64), 0, {}
    for batch in opened.iter_batches(columns=["geometry"], batch_size=65536):
        for row in wanted[(wanted >= first) & (wanted < first + batch.num_rows)]:
            found[int(row)] = batch.column(0)[int(row) - first].as_py()
        first += batch.num_rows
    shapes = read_wkb([found[int(row)] for row in wanted])
    geo = json.loads((opened.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    return shapes, geo.get("columns", {}).get("geometry", {}).get("crs")


def _to_lonlat(shapes: _Shapes, crs: Any) -> _Shapes:
    """Shapes in lon/lat; a GeoParquet column without a CRS is in lon/lat already."""
    if crs is None or not len(shapes):
        return shapes
    import shapely
    from pyproj import CRS, Transformer

    source = CRS.from_user_input(crs)
    if source.to_epsg() == 4326 or source.to_authority() == ("OGC", "CRS84"):
        return shapes
    transformer = Transformer.from_crs(source, 4326, always_xy=True)
    return shapely.transform(shapes, lambda xy: _stacked(transformer.transform(xy[:, 0], xy[:, 1])))


def _stacked(columns: tuple[Any, Any]) -> Any:
    import numpy as np

    return np.column_stack(columns)


# Drawings


def _outlines(kind: str, shapes: _Shapes, facts: Sequence[tuple[int | None, str]], total: int) -> JsonObject:
    """Rows [class, split, ring, ...] for the page; a ring is whole numbers: its first corner, then steps."""
    import numpy as np
    import shapely

    known = np.array([shape is not None and not shape.is_empty for shape in shapes], bool)
    if not known.any():
        return {}
    west, south, east, north = (float(value) for value in shapely.total_bounds(shapes[known]))
    drawn = shapely.simplify(shapes, max((east - west) / _DETAIL, (north - south) / _DETAIL, _STEP_DEG))
    # Many of a class become one drawing, in which rings of one sense add up and holes are of the other.
    drawn = shapely.orient_polygons(drawn)
    whole = _numbers((west, south))
    rows = [
        [crop, split, *(ring for part in shapely.get_parts(shape) for ring in _rings(part, whole))]
        for (crop, split), shape, is_known in zip(facts, drawn, known, strict=True)
        if is_known
    ]
    return {"kind": kind, "total": total, "origin": [west, south], "step": _STEP_DEG, "rows": rows}


def _numbers(origin: tuple[float, float]) -> Callable[[Any], list[int]]:
    import numpy as np

    def numbers(ring: Any) -> list[int]:
        corners = np.rint((np.asarray(ring.coords)[:-1, :2] - origin) / _STEP_DEG).astype(np.int64)
        steps = np.diff(corners, axis=0, prepend=[[0, 0]])
        return [int(value) for value in steps.ravel()]

    return numbers


def _rings(part: Any, numbers: Callable[[Any], list[int]]) -> Iterator[list[int]]:
    if part.geom_type == "Polygon" and not part.is_empty:
        yield numbers(part.exterior)
        for hole in part.interiors:
            yield numbers(hole)
