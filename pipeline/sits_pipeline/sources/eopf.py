"""Pixels of ESA's EOPF products, a Zarr array a band, on their own grid: the DN as stored, never decoded.

Their arrays carry CF attributes (scale_factor 0.0001, add_offset -0.1) with which a reader makes reflectance of DN.
Here the offset is taken out once, by the step that does it for every provider: the attributes are only held against
the rule of the item's processing baseline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from sits_catalog.addresses import published_text, without_secrets
from sits_catalog.sentinel2 import Scl
from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.eopf_files import AXES, GroupFiles, split_address
from sits_pipeline.sources.eopf_grid import Transform, check_offset, grid_of_coordinates, stated_epsg, stated_grid
from sits_pipeline.sources.eopf_holes import Hole, holds, holes_amid_data, meets_footprint
from sits_pipeline.sources.eopf_sizes import ChunkCheck, check_sizes, chunk_check
from sits_pipeline.sources.rasters import Nesting, nest, read_padded, window_around
from sits_pipeline.sources.remote import Opener
from sits_pipeline.steps.audit import MIN_PIXELS
from sits_pipeline.values import AuditSample, BandWindow, Raster, ReadFailure, Scene, epsg_of, shape_of

__all__ = ["read_product", "sample_product"]

_SAMPLE_SIDE = 128
"""Samples along a side of each of the nine chunks that the audit may look at."""
_ENOUGH = 4 * MIN_PIXELS
"""Pixels of vegetation after which it looks at no further chunk."""


def read_product(scene: Scene, geobox: GeoBox, bands: Sequence[str], *, pad: int, opener: Opener | None) -> Raster:
    """A window a band around `geobox`, and SCL where the scene has one; what cannot be read is a ReadFailure.

    Each asset is the address of an array. A chunk that the product does not hold is 0, as the format has it, unless
    the rest of the product, or the scene's footprint, says that there are data; one that cannot be read fails its band.
    Raises ServiceDown.
    """
    windows: dict[str, BandWindow] = {}
    errors: dict[str, str] = {}
    holes: dict[str, tuple[Hole, ...]] = {}
    names = [*bands, "SCL"] if "SCL" in scene.assets and "SCL" not in bands else list(bands)
    for name in names:
        try:
            pad_here = 0 if name == "SCL" else pad
            windows[name], holes[name] = _read_band(scene, name, geobox, pad=pad_here, opener=opener)
        except (ServiceDown, CannotWrite):
            raise
        except (OSError, ValueError) as error:
            errors[name] = _describe(error, scene.assets.get(name))
    if any(holes.values()):
        for name, reason in _lost(scene, geobox, windows, holes, pad=pad, opener=opener).items():
            del windows[name]
            errors[name] = f"{split_address(scene.assets[name])[1]}: {reason}"
    return Raster(
        bands=windows,
        failures=tuple(ReadFailure(item=scene.id, band=name, error=errors[name]) for name in names if name in errors),
    )


def sample_product(scene: Scene, *, opener: Opener | None) -> AuditSample:
    """DN and SCL of a scene at the same thinned positions; B8A and B11 only where there is too little vegetation.

    A product has no overviews, and its chunks are large: of nine spread over it as many are looked at, from the middle
    on, as hold enough vegetation. Raises ServiceDown, and OSError where an array is missing or cannot be read.
    """
    try:
        return _sample(scene, opener)
    except (ServiceDown, CannotWrite, CredentialsError):
        raise
    except (OSError, ValueError) as error:
        raise OSError(f"{scene.id}: no sample for the audit: {_describe(error, None)}") from error


# Windows


def _read_band(
    scene: Scene, name: str, geobox: GeoBox, *, pad: int, opener: Opener | None
) -> tuple[BandWindow, tuple[Hole, ...]]:
    """The window, and the chunks of it that the product does not hold."""
    if name not in scene.assets:
        raise ValueError(f"the item has no asset for {name}")
    with _open(scene, name, opener) as band:
        if scene.epsg != epsg_of(geobox):
            raise ValueError(f"its CRS is EPSG:{scene.epsg}, the cube's is EPSG:{epsg_of(geobox)}")
        nesting = nest(band.transform, geobox)
        window = window_around(geobox, nesting, pad, band.read)
        return window, band.holes(nesting)


def _lost(
    scene: Scene,
    geobox: GeoBox,
    windows: Mapping[str, BandWindow],
    holes: Mapping[str, Sequence[Hole]],
    *,
    pad: int,
    opener: Opener | None,
) -> dict[str, str]:
    """Bands with chunks that were lost rather than left out, and why."""
    shape = shape_of(geobox)
    classified, margin = None, 0
    if "SCL" in scene.assets:
        if "SCL" not in windows:
            return {}  # Its own failure already says that the scene is unread.
        try:
            classified, margin = _classified(scene, geobox, windows, pad=pad, opener=opener)
        except OSError as error:
            if isinstance(error, ServiceDown | CannotWrite):
                raise
            return {"SCL": _describe(error, None)}
    lost = holes_amid_data(windows, holes, shape, classified=classified, margin=margin)
    if lost:
        return lost
    # Where nothing holds data the classification may be lost with the bands, or the whole product be gone.
    reference = holes["SCL"] if classified is not None else [hole for found in holes.values() for hole in found]
    if not meets_footprint(scene, geobox, reference):
        return {}
    reason = "chunks are missing where its footprint says that it holds data"
    if _is_gone(scene, opener):
        reason = "the product has gone from the server"
    return dict.fromkeys(windows, f"{reason}; search again, or take another provider for this item")


def _classified(
    scene: Scene, geobox: GeoBox, windows: Mapping[str, BandWindow], *, pad: int, opener: Opener | None
) -> tuple[NDArray[np.bool_], int]:
    """Where the classification holds data, and how many cube pixels that reaches beyond the geobox."""
    margin = max(window.factor for window in windows.values()) * (pad + 1) if pad else 0
    if not margin:
        return holds(windows["SCL"], shape_of(geobox)), 0
    wide = geobox.pad(margin)
    window, _ = _read_band(scene, "SCL", wide, pad=0, opener=opener)
    return holds(window, shape_of(wide)), margin


def _is_gone(scene: Scene, opener: Opener | None) -> bool:
    """Whether the metadata of an array of the product, which were read, are no longer there; raises ServiceDown."""
    group, name = split_address(scene.assets["SCL" if "SCL" in scene.assets else next(iter(scene.assets))])
    files = GroupFiles(group, opener)
    try:
        return all(files.read_anew(f"{name}/{metadata}") is None for metadata in (".zarray", "zarr.json"))
    except (ServiceDown, CannotWrite):
        raise
    except OSError:
        return False


@dataclass(frozen=True)
class _Band:
    """An array whose metadata were found to fit its scene."""

    array: zarr.Array[Any]
    transform: Transform
    files: GroupFiles

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.array.shape
        return height, width

    def read(self, rows: range, columns: range) -> NDArray[Any]:
        """(y, x) pixels of these rows and columns; 0 where the array has none."""
        return read_padded(rows, columns, self.shape, self.array.dtype, self._read_inside)

    def _read_inside(self, rows: range, columns: range) -> NDArray[Any]:
        return np.asarray(self.array[rows.start : rows.stop, columns.start : columns.stop])

    def holes(self, nesting: Nesting) -> tuple[Hole, ...]:
        """The chunks, or where these lie in shards the shards, that were asked for and are not there."""
        if not self.files.absent:
            return ()
        found, factor = [], nesting.factor
        sides = self.array.shards or self.array.chunks
        numbers = product(*(range(-(-size // side)) for size, side in zip(self.shape, sides, strict=True)))
        for at in numbers:
            if f"{self.array.path}/{self.array.metadata.encode_chunk_key(at)}" in self.files.absent:
                rows, columns = (
                    range(
                        number * side * factor - start,
                        min((number + 1) * side, size) * factor - start,
                    )
                    for number, side, size, start in zip(
                        at, sides, self.shape, (nesting.row, nesting.column), strict=True
                    )
                )
                found.append(Hole(rows, columns))
        return tuple(found)


@contextmanager
def _open(scene: Scene, name: str, opener: Opener | None) -> Iterator[_Band]:
    """A band's array, checked; raises OSError, or ValueError where it is not what the item speaks of.

    Of a remote array that cannot be read nothing is kept, so that the next read asks the server anew.
    """
    group, array_name = split_address(scene.assets[name])
    files = GroupFiles(group, opener)
    try:
        array = _open_array(files, array_name)
        _check_array(array, name, scene)
        yield _Band(array, _grid(files, array), files)
    except (ServiceDown, CannotWrite, CredentialsError):
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        # Codecs raise RuntimeError for bytes that they cannot decode, zarr the others for broken metadata.
        if files.fault is not None:
            raise files.fault from error
        files.forget()
        raise OSError(_describe(error, scene.assets[name])) from error


def _open_array(files: GroupFiles, name: str) -> zarr.Array[Any]:
    """An array of either format; that of the group's other arrays where it is known. Raises ValueError for a lie."""
    formats: tuple[Literal[2, 3], ...] = (2, 3)
    if files.known:
        formats = (3,) if any(key.endswith("zarr.json") for key in files.known) else (2,)
    for zarr_format in formats:
        store = _GroupStore(files)
        try:
            # Whatever this process set for cubes of its own: an absent chunk of a product is nodata.
            array = zarr.open_array(
                store=store,
                path=name,
                mode="r",
                zarr_format=zarr_format,
                config={"read_missing_chunks": True},
            )
        except FileNotFoundError:
            continue
        check_sizes(array)
        store.check = chunk_check(array)
        return array
    raise FileNotFoundError(f"there is no Zarr array {name}")


def _check_array(array: zarr.Array[Any], name: str, scene: Scene) -> None:
    expected = np.dtype(np.uint8 if name == "SCL" else np.uint16)
    if array.ndim != 2 or array.dtype != expected:
        raise ValueError(f"an array (y, x) of {expected} was expected, it has {array.ndim} axes of {array.dtype}")
    if array.fill_value is not None and array.fill_value != 0:
        raise ValueError(f"nodata of Sentinel-2 is 0, the array declares {array.fill_value}")
    attributes = dict(array.attrs)
    if name != "SCL":
        check_offset(attributes, scene.declared_offset, scene.baseline)
    epsg = stated_epsg(attributes)
    if epsg not in (None, scene.epsg):
        raise ValueError(f"its CRS is EPSG:{epsg}, its item's is EPSG:{scene.epsg}")


def _grid(files: GroupFiles, array: zarr.Array[Any]) -> Transform:
    """Where the pixels lie: by the coordinates beside them, as CF has it, else by what the array states.

    What it states beside its coordinates must say the same. An item's `proj:transform` is not looked at: there are
    items that have it from another product.
    """
    stated = stated_grid(dict(array.attrs))
    try:
        y, x = (_coordinates(files, axis, size) for axis, size in zip(AXES, array.shape, strict=True))
    except FileNotFoundError:
        if stated is None:
            raise ValueError("neither coordinates x and y beside it nor a proj:transform tell where it lies") from None
        return stated
    found = grid_of_coordinates(y, x)
    if stated is not None and not np.allclose(found, stated, rtol=0, atol=1e-6):
        raise ValueError(
            f"by its coordinates it lies at ({found[2]:.12g}, {found[5]:.12g}) with pixels of {found[0]:g} m, by its "
            f"attributes at ({stated[2]:.12g}, {stated[5]:.12g}) with pixels of {stated[0]:g} m"
        )
    return found


def _coordinates(files: GroupFiles, axis: str, size: int) -> NDArray[Any]:
    """The coordinates along an axis, which are read when they are known to be few; raises ValueError."""
    array = _open_array(files, axis)
    if array.shape != (size,) or array.dtype.kind not in "iuf":
        raise ValueError(f"its axis {axis} has {size} pixels, its coordinates are {array.shape} of {array.dtype}")
    return np.asarray(array[...])


# Samples

_Box = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Northings and eastings of the samples in a part of a scene."""


def _sample(scene: Scene, opener: Opener | None) -> AuditSample:
    bands: tuple[str, ...] = ("B02", "B04")
    if not {*bands, "SCL"} <= scene.assets.keys():
        # An archive of other bands: nothing to audit on, so that the provider's rule decides.
        return AuditSample(dn={name: np.empty(0, np.uint16) for name in bands}, scl=np.empty(0, np.uint8))
    boxes, scl = _sample_classes(scene, opener)
    if np.count_nonzero(scl == Scl.VEGETATION) < MIN_PIXELS and {"B8A", "B11"} <= scene.assets.keys():
        bands = ("B02", "B04", "B8A", "B11")
    dn = {}
    for name in bands:
        with _open(scene, name, opener) as band:
            dn[name] = np.concatenate([_thinned(band, box) for box in boxes], axis=None)
    return AuditSample(dn=dn, scl=scl)


def _sample_classes(scene: Scene, opener: Opener | None) -> tuple[list[_Box], NDArray[np.uint8]]:
    """Where the other bands are to be sampled, and the classification there."""
    boxes: list[_Box] = []
    parts: list[NDArray[Any]] = []
    vegetation = 0
    with _open(scene, "SCL", opener) as classes:
        for box in _boxes(classes):
            part = _thinned(classes, box)
            boxes.append(box)
            parts.append(part)
            vegetation += int(np.count_nonzero(part == Scl.VEGETATION))
            if vegetation >= _ENOUGH:
                break
    return boxes, np.concatenate(parts, axis=None)


def _boxes(classes: _Band) -> list[_Box]:
    """Samples in each of nine chunks of the classification, the middle one first."""
    a, _, west, _, e, north = classes.transform
    axes = []
    for size, chunk in zip(classes.shape, classes.array.chunks, strict=True):
        starts = dict.fromkeys(size * sixths // 6 // chunk * chunk for sixths in (3, 1, 5))
        axes.append([np.unique(np.linspace(s, min(s + chunk, size) - 1, _SAMPLE_SIDE, dtype=int)) for s in starts])
    rows, columns = axes
    return [(north + e * (row + 0.5), west + a * (column + 0.5)) for row in rows for column in columns]


def _thinned(band: _Band, box: _Box) -> NDArray[Any]:
    """Pixels at the crossings of northings and eastings; 0 outside of the array."""
    y, x = box
    a, _, west, _, e, north = band.transform
    rows, columns = np.floor((y - north) / e).astype(int), np.floor((x - west) / a).astype(int)
    window = band.read(range(rows.min(), rows.max() + 1), range(columns.min(), columns.max() + 1))
    return np.asarray(window[np.ix_(rows - rows.min(), columns - columns.min())])


# The store


class _GroupStore(Store):
    """A group of a product, as far as zarr needs it to read arrays: keys, no listing, no writing."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, files: GroupFiles) -> None:
        super().__init__(read_only=True)
        self._files = files
        self.check: ChunkCheck | None = None
        """What a chunk must say of what it unpacks to; metadata are read before it is set."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _GroupStore) and self._files is other._files

    __hash__ = None  # type: ignore[assignment]  # as of all stores

    def __str__(self) -> str:
        return "an EOPF product"

    __repr__ = __str__

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key; None where there is no such key. Raises OSError where they cannot be had."""
        bounds = None if byte_range is None else lambda size: _bounds(byte_range, size)
        content = await asyncio.to_thread(self._files.read, key, bounds)
        if content is not None and self.check is not None:
            match byte_range:
                case None:
                    self.check.whole(content)
                case RangeByteRequest():
                    self.check.chunk(content)
                # The end of a shard is its index, which is not packed.
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The bytes of several parts of keys."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: BufferPrototype, **_limits: int
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """The bytes of several parts of a key, each read alone: parts read as one could not be told apart and checked.

        What is remote comes in blocks from the cache; neighbours are fetched once.
        """
        for number, byte_range in enumerate(byte_ranges):
            yield [(number, await self.get(key, prototype, byte_range))]

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return await asyncio.to_thread(self._files.read, key, None) is not None

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refused."""
        raise OSError(f"{key}: products are only read")

    async def delete(self, key: str) -> None:
        """Refused."""
        raise OSError(f"{key}: products are only read")

    def list(self) -> AsyncIterator[str]:
        """Refused: a server of files lists none."""
        raise OSError("products are not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        raise OSError(f"{prefix}: products are not listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        raise OSError(f"{prefix}: products are not listed")


def _bounds(byte_range: ByteRequest, size: int) -> tuple[int, int]:
    """First byte and the one after the last of a part of a file."""
    match byte_range:
        case RangeByteRequest(start, end):
            return min(start, size), min(end, size)
        case OffsetByteRequest(offset):
            return min(offset, size), size
        case SuffixByteRequest(suffix):
            return max(size - suffix, 0), size


def _describe(error: BaseException, address: str | None) -> str:
    """One line on what went wrong with an array, without the folders and signatures of this machine."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    group, name = ("", "") if address is None else split_address(address)
    text = " ".join(published_text(text).split())[:300]
    text = text if text.isprintable() else ascii(text)[1:-1]
    if group:
        text = text.replace(f"{without_secrets(group)}/", "")
    return text if name in text else f"{name}: {text}"
