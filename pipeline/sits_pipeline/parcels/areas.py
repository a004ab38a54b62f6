"""Areas drawn in vector files: what is known around parcels, and where a file's parcels lie."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import shapely

from sits_catalog.parcel_source import ParcelSource
from sits_pipeline.parcels.features import Box
from sits_pipeline.parcels.files import open_vector
from sits_pipeline.parcels.repair import Repaired, polygons, reproject
from sits_pipeline.parcels.where import in_words, lonlat
from sits_pipeline.steps.rasterize.union import union
from sits_pipeline.steps.tangles import check_area

__all__ = ["known_area", "parcel_bounds", "read_area"]

_NO_GROUND = ("it has no geometry", "its geometry is empty", "it is a ", "it has no area")


def parcel_bounds(source: ParcelSource, path: str) -> Box:
    """West, south, east, north (lon/lat) of all parcels of a file: what a region *around its parcels* grows from."""
    file = open_vector(path, member=source.member, layer=source.layer, crs=source.crs, encoding=source.encoding)
    assert file.crs is not None
    with closing(file):
        box = file.bounds()
    if not np.isfinite(box).all():
        raise ValueError(f"{file.path} holds no parcels at all")
    degrees = lonlat(box, file.crs)
    if not np.isfinite(degrees).all():
        raise ValueError(
            f"the parcels of {file.path} lie at {in_words(degrees, box)}; check their CRS ({file.crs.name})"
        )
    return degrees


def read_area(path: str, *, epsg: int) -> shapely.Geometry:
    """The polygons of a vector file, repaired, in EPSG:`epsg` and dissolved into one."""
    file = open_vector(path, layer=None, crs=None, encoding=None)
    assert file.crs is not None
    with closing(file):
        drawn = polygons(file.read((), None).geometry)
    _check_used(file.path, drawn)
    there = reproject(drawn.geometry[~shapely.is_missing(drawn.geometry)], crs=file.crs, epsg=epsg)
    _check_used(file.path, there)
    ground = there.geometry[~shapely.is_missing(there.geometry)]
    if not len(ground):
        raise ValueError(f"{file.path} holds no polygon; an area is drawn with polygons")
    check_area(ground, file.path)
    return union(ground)


def _check_used(path: str, found: Repaired) -> None:
    """Raise ValueError for ground that would be lost without a word; what is no ground at all may lie in a file."""
    for number, reason in enumerate(found.reason):
        if reason is not None and not reason.startswith(_NO_GROUND):
            raise ValueError(f"{path}: polygon {number} is of no use as an area: {reason}; draw it anew")


def known_area(labelled_area: str, *, path: str | None, region: shapely.Geometry, epsg: int) -> shapely.Geometry | None:
    """Where ground that no parcel covers is known to be background, in EPSG:`epsg`; None: nowhere.

    `labelled_area` is `ParcelSource.labelled_area`; `path` is where its file lies, if it is one; `region` is the
    region in EPSG:`epsg`, which the result never leaves.
    """
    if labelled_area == "region":
        return region
    if labelled_area == "parcels":
        return None
    assert path is not None
    return shapely.intersection(read_area(path, epsg=epsg), region)
