"""Datasets of either profile as a row of small views, read a part of about one shard at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import ARRAYS, BACKGROUND, IGNORE, LABEL_ARRAYS, NO_DAY, PIXEL_M, Quality, Split
from sits_pipeline.folder import Folder
from sits_pipeline.store import CubeLayout, read_attributes, read_layout, read_window
from sits_pipeline.store.patches import PatchLayout, read_patch_layout, read_patches
from sits_pipeline.values import JsonObject, Window

__all__ = ["SplitName", "View", "ViewFacts", "Views", "check_complete", "open_views"]

SplitName = Literal["none", "train", "validation", "test"]

_EPOCH = date(1970, 1, 1)
_BLOCK_PX = 512
_IMAGES = ("reflectance", "quality")
_USED: dict[int, SplitName] = {Split.TRAIN: "train", Split.VALIDATION: "validation", Split.TEST: "test"}


@dataclass(frozen=True, kw_only=True)
class ViewFacts:
    """What is true of all views of a dataset."""

    name: str
    """Of the dataset."""
    bands: tuple[str, ...]
    side: tuple[int, int]
    """Height and width of a view in pixels."""
    labels: tuple[str, ...]
    """Label arrays that views have; empty for a dataset without labels."""
    classes: tuple[JsonObject, ...]
    """Rows {index, code, name, ...} of the class table, by index."""
    has_splits: bool
    has_folds: bool
    """Whether a patch has a fold of its own."""
    imported: str | None
    """Format of the original, for a dataset that was imported."""
    whole: bool
    """Whether a view is a whole patch of the dataset, not a window cut from something larger."""
    attributes: JsonObject
    """`sits_cube`."""

    @property
    def chronology(self) -> str | None:
        """What became of the original's dates; None for a dataset that was built."""
        found = (self.attributes.get("imported") or {}).get("chronology")
        return None if found is None else str(found)


@dataclass(frozen=True, kw_only=True)
class View:
    """A small square of a dataset through time, with its labels."""

    name: str
    number: int
    """Row of the patch in the dataset, or running number of the window on the grid."""
    part: int
    """Position of the window in its patch, row by row; 0 where the view is all of it, or of a region."""
    days: NDArray[np.int32]
    """(time,) days since 1970-01-01, ascending."""
    order: NDArray[np.int32]
    """(time,) position of each frame in the original; 0, 1, ... in a dataset that was built."""
    reflectance: NDArray[np.uint16]
    """(time, band, y, x), 0 where not observed."""
    quality: NDArray[np.uint8]
    """(time, y, x)"""
    labels: Mapping[str, NDArray[Any]]
    """(y, x) each; pixels of the split's buffer are IGNORE."""
    split: SplitName = "none"
    fold: int | None = None
    epsg: int | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    outline: shapely.Geometry | None = None
    """In lon/lat."""
    original: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""
    """Why the view should not be used; empty: it may be."""

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(time, y, x)"""
        return (self.quality & Quality.OBSERVED) > 0

    @property
    def unread(self) -> NDArray[np.bool_]:
        """(time, y, x), where files could not be read, so that nobody knows whether there was an observation."""
        return (self.quality & Quality.UNREAD) > 0


class Views(Protocol):
    """The views of a dataset, in parts that fit into memory."""

    @property
    def facts(self) -> ViewFacts:
        """What is true of all of them."""
        ...

    @property
    def n_parts(self) -> int:
        """How many times `read` can be asked."""
        ...

    def read(self, part: int) -> Iterator[View]:
        """The views of a part; those that should not be used say why and may lack pixels."""
        ...


def open_views(folder: Folder, *, side: int | None, training: bool, incomplete: bool) -> Views:
    """The views of a dataset: windows of `side` pixels, or, for None, patches as they are.

    `training`: windows of a region lie in one split, and labels in its buffer are IGNORE. `incomplete`: take a dataset
    of which parts could not be read as well. Raises FileNotFoundError where there is no dataset,
    ValueError for one that is not complete or not finished, whose patches are smaller than `side`, for a region without
    `side`, and for windows that are no part of a layout and larger than the region.
    """
    attributes = read_attributes(folder)
    if attributes is not None:
        _check_finished(folder, attributes)
        check_complete(folder, attributes, incomplete=incomplete)
    if attributes is not None and attributes.get("profile") == "patches":
        return _PatchViews.open(folder, side, training=training)
    layout = read_layout(folder)
    if side is None or side < 1:
        raise ValueError(f"a region is exported in windows of a whole number of pixels, got {side}; give --side")
    height, width = (int(size) for size in layout.geobox.shape)
    # The layouts of published sets have one size, and pad a region that is smaller.
    if not training and side > max(height, width):
        raise ValueError(
            f"{folder.location} has {height} x {width} px; windows of {side} px are larger than all of it: give a "
            f"--side of at most {max(height, width)}"
        )
    return _RegionViews(folder, layout, side, training)


def check_complete(folder: Folder, attributes: JsonObject, *, incomplete: bool) -> None:
    """Raises ValueError for a dataset that is not complete, unless `incomplete`."""
    if attributes.get("complete") or incomplete:
        return
    again = "import" if attributes.get("profile") == "patches" else "build"
    raise ValueError(
        f"{folder.location} is not complete: parts of it could not be read yet; {again} it again, or ask for "
        "--incomplete to take those parts as not observed"
    )


def _check_finished(folder: Folder, attributes: JsonObject) -> None:
    """Raises ValueError where there is no index yet: it is written at the end, and nobody knows the splits before."""
    patches = attributes.get("profile") == "patches"
    index = "patches.parquet" if patches else "chips.parquet"
    wanted = patches or (not attributes.get("complete") and read_layout(folder).has_labels)
    if wanted and not folder.exists(index):
        raise ValueError(
            f"{folder.location} was not finished: it has no {index}; run the command that began it again, which goes "
            "on where it stopped"
        )


# Profile `patches`


@dataclass(frozen=True)
class _Row:
    """A patch in the index."""

    name: str
    order: NDArray[np.int32]
    split: SplitName
    fold: int | None
    epsg: int | None
    transform: tuple[float, ...] | None
    outline: shapely.Geometry | None
    original: Mapping[str, Any]


@dataclass(frozen=True)
class _PatchViews:
    folder: Folder
    layout: PatchLayout
    rows: tuple[_Row, ...]
    side: int | None
    training: bool

    @classmethod
    def open(cls, folder: Folder, side: int | None, *, training: bool) -> _PatchViews:
        """The patches of a store and its index."""
        layout = read_patch_layout(folder)
        if side is not None and side > min(layout.height, layout.width):
            raise ValueError(
                f"{folder.location} has patches of {layout.height} x {layout.width} px; windows of {side} px cannot be "
                "cut from them"
            )
        return cls(folder, layout, _rows(folder, layout), side, training)

    @cached_property
    def facts(self) -> ViewFacts:
        """What is true of all patches."""
        layout = self.layout
        size = (layout.height, layout.width) if self.side is None else (self.side, self.side)
        imported = layout.attributes.get("imported")
        return ViewFacts(
            name=str(layout.attributes.get("region")),
            bands=layout.bands,
            side=size,
            labels=tuple(name for name in layout.labels if name != "split" or not self.training),
            classes=_by_index(layout.classes),
            has_splits=any(row.split != "none" for row in self.rows),
            has_folds=any(row.fold is not None for row in self.rows),
            imported=None if imported is None else str(imported["format"]),
            whole=size == (layout.height, layout.width),
            attributes=layout.attributes,
        )

    @property
    def n_parts(self) -> int:
        return -(-self.layout.n_patches // self.layout.shard)

    def read(self, part: int) -> Iterator[View]:
        facts, layout = self.facts, self.layout
        which = slice(part * layout.shard, min((part + 1) * layout.shard, layout.n_patches))
        names = ("reflectance", "quality", *facts.labels)
        values = {name: read_patches(self.folder, name, which) for name in names}
        for position, number in enumerate(range(which.start, which.stop)):
            yield from self._views(number, {name: array[position] for name, array in values.items()}, facts)

    def _views(self, number: int, values: Mapping[str, NDArray[Any]], facts: ViewFacts) -> Iterator[View]:
        row, days, (height, width) = self.rows[number], self.layout.days[number], facts.side
        days = days[days != NO_DAY]
        corners = [
            (top, left)
            for top in range(0, self.layout.height - height + 1, height)
            for left in range(0, self.layout.width - width + 1, width)
        ]
        for part, (top, left) in enumerate(corners):
            cut = {name: array[..., top : top + height, left : left + width] for name, array in values.items()}
            transform = None if row.transform is None else _moved(row.transform, top, left)
            yield View(
                name=row.name if facts.whole else f"{row.name}_{part}",
                number=number,
                part=part,
                days=days,
                order=row.order,
                reflectance=cut["reflectance"][: len(days)],
                quality=cut["quality"][: len(days)],
                labels={name: cut[name] for name in facts.labels},
                split=row.split,
                fold=row.fold,
                epsg=row.epsg,
                transform=transform,
                outline=row.outline
                if facts.whole or transform is None or row.epsg is None
                else _outline(transform, row.epsg, facts.side),
                original=row.original,
                left_out="" if len(days) else "no dates",
            )


def _rows(folder: Folder, layout: PatchLayout) -> tuple[_Row, ...]:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(folder.read("patches.parquet")))
    wanted = ("id", "order", "split", "fold", "epsg", "transform", "geometry", "original")
    rows = table.select([name for name in wanted if name in table.column_names]).to_pylist()
    if len(rows) != layout.n_patches:
        raise ValueError(
            f"{folder.location}: patches.parquet has {len(rows)} rows, the store {layout.n_patches} patches"
        )
    return tuple(_row(row, layout.days[number]) for number, row in enumerate(rows))


def _row(row: Mapping[str, Any], days: NDArray[np.int32]) -> _Row:
    n_dates = int((days != NO_DAY).sum())
    order = row.get("order")
    return _Row(
        name=str(row["id"]),
        order=np.arange(n_dates, dtype=np.int32) if order is None else np.asarray(order, np.int32),
        split=row.get("split") or "none",
        fold=row.get("fold"),
        epsg=row.get("epsg"),
        transform=None if row.get("transform") is None else tuple(row["transform"]),
        outline=None if row.get("geometry") is None else shapely.from_wkb(row["geometry"]),
        original=json.loads(row.get("original") or "{}"),
    )


# Profile `region`


@dataclass(frozen=True)
class _RegionViews:
    """Windows on the grid of a region from its upper left corner on; one that the edge cuts is padded."""

    folder: Folder
    layout: CubeLayout
    side: int
    training: bool

    @cached_property
    def facts(self) -> ViewFacts:
        """What is true of all windows."""
        names = tuple(name for name in LABEL_ARRAYS if name != "split" or not self.training)
        labels = names if self.layout.has_labels else ()
        return ViewFacts(
            name=str(self.layout.attributes.get("region", "region")),
            bands=self.layout.bands,
            side=(self.side, self.side),
            labels=labels,
            classes=_by_index(self.layout.classes),
            has_splits=self._has_splits(),
            has_folds=False,
            imported=None,
            whole=False,
            attributes=self.layout.attributes,
        )

    def _has_splits(self) -> bool:
        """By `chips.parquet`, which says it of every chip, since the configuration may be of an earlier split."""
        import pyarrow.parquet as pq

        if not self.layout.has_labels or not self.folder.exists("chips.parquet"):
            return False
        chips = pq.read_table(io.BytesIO(self.folder.read("chips.parquet")), columns=["split"])
        return bool(set(chips.column("split").unique().to_pylist()) & set(_USED.values()))

    @property
    def _step(self) -> int:
        """Pixels along a part: whole windows, about a shard."""
        return max(1, min(_BLOCK_PX, self.layout.shard) // self.side) * self.side

    @property
    def _shape(self) -> tuple[int, int]:
        height, width = (int(size) for size in self.layout.geobox.shape)
        return -(-height // self._step), -(-width // self._step)

    @property
    def n_parts(self) -> int:
        rows, columns = self._shape
        return rows * columns

    def read(self, part: int) -> Iterator[View]:
        facts, step = self.facts, self._step
        top, left = (index * step for index in divmod(part, self._shape[1]))
        height, width = (int(size) for size in self.layout.geobox.shape)
        block = Window(row=top, column=left, height=min(step, height - top), width=min(step, width - left))
        names = (*facts.labels, *(("split",) if facts.labels and "split" not in facts.labels else ()))
        labels = {name: read_window(self.folder, name, block, dates=None) for name in names}
        images: dict[str, NDArray[Any]] = {}
        for row in range(0, block.height, self.side):
            for column in range(0, block.width, self.side):
                at = Window(row=row, column=column, height=self.side, width=self.side)
                found = {name: _cut(name, array, at) for name, array in labels.items()}
                split, reason = self._use(found, facts)
                if not reason:
                    if not images:
                        images = {n: read_window(self.folder, n, block, dates=None) for n in _IMAGES}
                    found |= {name: _cut(name, array, at) for name, array in images.items()}
                yield self._view(top + row, left + column, found, split, reason)

    def _use(self, labels: Mapping[str, NDArray[Any]], facts: ViewFacts) -> tuple[SplitName, str]:
        """The split of a window, and why it cannot be used; empty: it can."""
        if not facts.labels:
            return "none", ""
        split, reason = _split_of(labels["split"]) if facts.has_splits else ("none", "")
        if reason and self.training:
            return split, reason
        crop_type = self._crop_type(labels)
        return split, "" if _has_class(crop_type) else "no labelled parcel"

    def _crop_type(self, labels: Mapping[str, NDArray[Any]]) -> NDArray[np.uint16]:
        """(y, x) classes; for training those in the buffer between splits are IGNORE."""
        if not self.training or "split" not in labels:
            return labels["crop_type"]
        return np.where(labels["split"] == Split.BUFFER, np.uint16(IGNORE), labels["crop_type"])

    def _view(self, top: int, left: int, found: Mapping[str, NDArray[Any]], split: SplitName, reason: str) -> View:
        days = np.array([(day - _EPOCH).days for day in self.layout.days], np.int32)
        transform = _moved(tuple(self.layout.geobox.affine[:6]), top, left)
        none = np.zeros((len(days), len(self.layout.bands), 0, 0), np.uint16)
        labels = {name: found[name] for name in self.facts.labels}
        if "crop_type" in found:
            labels["crop_type"] = self._crop_type(found)
        across = -(-int(self.layout.geobox.shape[1]) // self.side)
        return View(
            name=f"r{top:05d}_c{left:05d}",
            number=top // self.side * across + left // self.side,
            part=0,
            days=days,
            order=np.arange(len(days), dtype=np.int32),
            reflectance=found.get("reflectance", none),
            quality=found.get("quality", none[:, 0].astype(np.uint8)),
            labels=labels,
            split=split,
            epsg=self.layout.epsg,
            transform=transform,
            outline=_outline(transform, self.layout.epsg, (self.side, self.side)),
            left_out=reason,
        )


def _cut(name: str, array: NDArray[Any], window: Window) -> NDArray[Any]:
    """A window of an array; beyond the edge of the cube, its fill value."""
    piece = array[..., window.rows, window.columns]
    sizes = zip((window.height, window.width), piece.shape[-2:], strict=True)
    missing = [(0, 0)] * (piece.ndim - 2) + [(0, wanted - size) for wanted, size in sizes]
    return np.pad(piece, missing, constant_values=ARRAYS[name].fill) if any(map(any, missing)) else piece


def _split_of(split: NDArray[np.uint8]) -> tuple[SplitName, str]:
    """The split of a window's ground, and why it cannot be used: a window lies in blocks of one split."""
    found = [_USED[int(code)] for code in np.unique(split) if int(code) in _USED]
    if len(found) > 1:
        return "none", "ground of two splits"
    return (found[0], "") if found else ("none", "ground of no split")


def _has_class(crop_type: NDArray[np.uint16]) -> bool:
    return bool(((crop_type != BACKGROUND) & (crop_type != IGNORE)).any())


def _moved(transform: tuple[float, ...], row: int, column: int) -> tuple[float, float, float, float, float, float]:
    """The affine of a window of something that has this affine."""
    a, b, c, d, e, f = (float(value) for value in transform[:6])
    return a, b, c + a * column + b * row, d, e, f + d * column + e * row


def _outline(transform: tuple[float, ...], epsg: int, size: tuple[int, int]) -> shapely.Geometry:
    from sits_pipeline.plan.lattice import to_lonlat

    left, top = transform[2], transform[5]
    return to_lonlat(shapely.box(left, top - size[0] * PIXEL_M, left + size[1] * PIXEL_M, top), epsg)


def _by_index(classes: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    return tuple(sorted(classes, key=lambda row: int(row["index"])))
