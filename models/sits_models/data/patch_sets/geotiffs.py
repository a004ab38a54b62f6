"""A folder of GeoTIFFs of any bands, one date each, with or without labels: ISPRS Potsdam cut as for GLCNet, say.

Potsdam: Rottensteiner and others, The ISPRS benchmark on urban object classification and 3D building reconstruction,
ISPRS Annals I-3, 2012. GLCNet cuts its scenes of R, G, B and infrared into tiles of 256 px (Li and others, Global and
local contrastive self-supervised learning for semantic segmentation of HR remote sensing images, IEEE TGRS 60, 2022).

    ROOT/images/NAME.tif     all of one number of bands, of 8 or all of 16 bits, of any sizes
    ROOT/labels/NAME.tif     if there: one band of class numbers, or three of colours, of the size of the image
    ROOT/classes.csv         with labels: columns name and value, or name and r, g, b; a row a class
    ROOT/bands.txt           if there: a band's name a line
    ROOT/train.txt, validation.txt (or val.txt), test.txt   if there: names, one a line, with or without .tif

**Values.** 255 of 8 bits and 65535 of 16 become 10000, the others in proportion, rounded; of a file that says that its
values use fewer bits (NBITS) the largest of those becomes 10000. Zeros are observed and become 1, but a value that the
file calls nodata is 0, not observed, and its pixel is not clear.

**Bands** have the names in bands.txt, else the descriptions in the files, which are the same in all, else B1, B2, ...

**Classes** are the rows of classes.csv in their order; the code is the name. Rows called "not labelled" (or unlabelled)
are no class: their pixels are ignored, as are those of images that have no file in labels, of which the log says how
many. A value or colour that is in no row is an error.

**Splits** are the lists'; images in no list have none. The day is 0: nobody says when.

An image is one patch however large it is, of which windows are read; one that is neither tiled nor cut into short
strips is slow to read so. Opening reads the header of each image, some 300 microseconds on a local disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE, Split
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.data.patch_sets.legends import Legend, read_legend
from sits_models.data.patch_sets.names import find_lists, identity_of, read_splits
from sits_models.data.patch_sets.rasters import RasterFacts, describe_raster, no_dates, read_raster, scaled

__all__ = ["GeotiffsPatchSet", "open_geotiffs"]

_SUFFIXES = (".tif", ".tiff")
_LISTS = {Split.TRAIN: ("train.txt",), Split.VALIDATION: ("validation.txt", "val.txt"), Split.TEST: ("test.txt",)}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Image:
    path: str
    labels: str | None
    """Path of its labels."""
    header: RasterFacts
    label_header: RasterFacts | None
    """Of the labels."""


class GeotiffsPatchSet(PatchSet):
    """Images by number, in the order of their names."""

    def __init__(self, facts: PatchSetFacts, images: Sequence[_Image], legend: Legend | None) -> None:
        self.facts = facts
        self._images = tuple(images)
        self._legend = legend

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window; see `PatchSet.read`."""
        image, header = self._images[number], self._images[number].header

        # Whether a pixel is clear is a matter of all bands.
        chosen = None if bands is None or header.nodata is not None else [int(band) for band in bands]
        stored = read_raster(
            image.path, rows, columns, shape=header.shape, n=header.n, dtype=header.dtype, bands=chosen
        )
        values, clear = scaled(stored, header.bits), np.ones(stored.shape[1:], np.bool_)
        if header.nodata is not None:
            known = stored != header.nodata
            values, clear = np.where(known, values, np.uint16(0)), known.all(axis=0)
            values = values if bands is None else values[bands]
        return Patch(
            image=np.repeat(values[None], len(dates), axis=0),
            clear=np.repeat(clear[None], len(dates), axis=0),
            crop=None if self._legend is None else _labels(image, self._legend, rows, columns),
        )

    def labels(self, number: int) -> Patch:
        """The labels of a whole image, which itself is not opened."""
        found = self._images[number]
        height, width = found.header.shape
        image, clear = no_dates(found.header.n, height, width)
        crop = None if self._legend is None else _labels(found, self._legend, slice(0, height), slice(0, width))
        return Patch(image=image, clear=clear, crop=crop)


def open_geotiffs(path: str) -> PatchSet:
    """The images in a folder of GeoTIFFs, with their labels where it has them.

    FileNotFoundError where there is no such folder, OSError where an image cannot be read, ValueError where there are
    no images, they differ in bands or type, two have one name but for the suffix, classes or names of bands are not as
    they should be, or a list names what is not there.
    """
    root = Path(path)
    names = _files_of(root / "images")
    if not names:
        raise ValueError(f"{root} should hold images/NAME.tif; there are none: give the folder that holds 'images'")
    has_labels = (root / "labels").is_dir()
    labelled = set(_files_of(root / "labels")) if has_labels else set()
    images = [_image(root, name, labelled) for name in names]
    _check_alike(images, named=(root / "bands.txt").is_file())
    legend = _legend(root, images) if has_labels else None
    splits = read_splits([Path(name).stem for name in names], find_lists((root,), _LISTS), where=f"{root}/images")
    first, bands = images[0].header, _bands(root, images[0].header)
    meant = repr((bands, None if legend is None else (legend.table, [entry.name for entry in legend.classes])))
    facts = PatchSetFacts(
        path=path,
        name=root.resolve().name,
        bands=bands,
        sizes=np.array([image.header.shape for image in images], np.int64),
        days=np.zeros((len(images), 1), np.int32),
        splits=splits,
        classes=() if legend is None else legend.classes,
        radiometry={"level": f"{first.bits} bit", "scale": 0.0001, "offset_removed": True, "clamp": 1},
        identity=identity_of("geotiffs", [*_parts(images), splits.tobytes(), meant.encode()]),
    )
    return GeotiffsPatchSet(facts, images, legend)


def _files_of(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} should be a folder of GeoTIFFs; there is no such folder")
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if Path(entry.name).suffix.lower() in _SUFFIXES)


def _image(root: Path, name: str, labelled: set[str]) -> _Image:
    labels = str(root / "labels" / name) if name in labelled else None
    return _Image(
        path=str(root / "images" / name),
        labels=labels,
        header=describe_raster(str(root / "images" / name)),
        label_header=None if labels is None else describe_raster(labels),
    )


def _check_alike(images: Sequence[_Image], *, named: bool) -> None:
    """Raises ValueError where images differ in kind, or, unless their bands are `named` for all, in what they say of
    these."""
    first = images[0]
    if first.header.dtype not in ("uint8", "uint16"):
        raise ValueError(
            f"{first.path} should be of uint8 or uint16; it is of {first.header.dtype}: convert the images"
        )
    for image in images:
        for what in ("n", "dtype", "bits"):
            ours, theirs = getattr(first.header, what), getattr(image.header, what)
            if ours != theirs:
                words = {"n": "number of bands", "dtype": "type", "bits": "number of bits"}[what]
                raise ValueError(
                    f"the images should have one {words}; that of {first.path} is {ours}, "
                    f"that of {image.path} {theirs}: keep them in two folders"
                )
        if not named and image.header.descriptions != first.header.descriptions:
            ours, theirs = (", ".join(name or "none" for name in one.header.descriptions) for one in (first, image))
            raise ValueError(
                f"the images should have one order of bands; the descriptions in {first.path} are {ours}, those in "
                f"{image.path} {theirs}: keep them in two folders, or, where the order is one, name it in bands.txt"
            )


def _bands(root: Path, header: RasterFacts) -> tuple[str, ...]:
    """Names of the bands."""
    path = root / "bands.txt"
    if path.is_file():
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
        if len(names) != header.n or len(set(names)) != header.n:
            raise ValueError(
                f"{path} should name the {header.n} bands of the images, each once; it has {', '.join(names) or 'none'}"
            )
        return names
    described = tuple(name for name in header.descriptions if name)
    if len(set(described)) == header.n:
        return described
    return tuple(f"B{number}" for number in range(1, header.n + 1))


def _legend(root: Path, images: Sequence[_Image]) -> Legend:
    """What the labels mean, once each is seen to be of its image's size and of the same kind as the others."""
    headers = [image.label_header for image in images if image.label_header is not None]
    if not headers:
        raise ValueError(f"{root}/labels should have files of the names of those in images; it has none of them")
    n = 3 if headers[0].n == 3 else 1
    for image in images:
        header = image.label_header
        if header is not None and (header.shape != image.header.shape or header.n != n or header.bits > 16):
            (height, width), found = image.header.shape, header.shape
            raise ValueError(
                f"{image.labels} should have {height} x {width} px as its image, {n} band{'s' * (n > 1)} as the "
                f"others, and at most 16 bits; it has {found[0]} x {found[1]} px, {header.n} and {header.bits}"
            )
    without = len(images) - len(headers)
    if without:
        _log.warning("%s: %d of %d images have no labels, and count as not labelled", root, without, len(images))
    return read_legend(root / "classes.csv", coloured=n == 3)


def _labels(image: _Image, legend: Legend, rows: slice, columns: slice) -> NDArray[np.uint16]:
    """(H, W)."""
    header = image.label_header
    if image.labels is None or header is None:
        return np.full((rows.stop - rows.start, columns.stop - columns.start), IGNORE, np.uint16)
    stored = read_raster(image.labels, rows, columns, shape=header.shape, n=header.n, dtype=header.dtype)
    return legend.classes_of(stored, image.labels)


def _parts(images: Sequence[_Image]) -> list[bytes]:
    """What is known of the images without reading pixels: names, and sizes of the files in bytes."""
    paths = [path for image in images for path in (image.path, image.labels) if path is not None]
    return [f"{Path(path).parent.name}/{Path(path).name} {Path(path).stat().st_size}".encode() for path in paths]
