"""GeoTIFFs: one a patch or window with a band a date and spectral band, and one for each label array."""

from __future__ import annotations

import re
import warnings
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from sits_catalog.cube import ARRAYS, IGNORE
from sits_pipeline.exporters.encode import dates_of
from sits_pipeline.exporters.views import View, ViewFacts, Views, open_views
from sits_pipeline.exporters.whole import (
    Exported,
    Progress,
    Tally,
    check_dates,
    kept_views,
    summary,
    whole_folder,
    write_manifest,
)
from sits_pipeline.folder import Folder
from sits_pipeline.store import read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["export_geotiff"]

_NODATA = {"crop_type": IGNORE, "boundary_distance": -32768}


def export_geotiff(
    folder: Folder, out: Path, *, side: int, overwrite: bool, incomplete: bool, progress: Progress
) -> Exported:
    """Write the patches of a dataset, or windows of `side` px of a region, into `out`; nodata is 0.

    Of a region with labels, windows without a labelled parcel are left out. Raises FileExistsError where `out` may not
    be written, FileNotFoundError where there is no dataset, ValueError where it is not complete, has lost the years of
    its dates, or is smaller than `side`.
    """
    attributes = read_attributes(folder) or {}
    chosen = None if attributes.get("profile") == "patches" else side
    views = open_views(folder, side=chosen, training=False, incomplete=incomplete)
    check_dates(views.facts, "geotiff")
    with whole_folder(out, dataset=folder, overwrite=overwrite) as partial:
        exported = _write(views, partial, out, progress)
        write_manifest(partial, views.facts, exported)
    return exported


def _write(views: Views, partial: Path, out: Path, progress: Progress) -> Exported:
    facts, tally = views.facts, Tally()
    nowhere = 0
    for view in kept_views(views, tally, progress):
        name = _free_name(partial, view)
        nowhere += view.transform is None
        _write_series(partial / f"{name}.tif", view, facts)
        _write_quality(partial / f"{name}_quality.tif", view, facts)
        for array, values in view.labels.items():
            _write_labels(partial / f"{name}_{array}.tif", array, values, view, facts)
    notes = [f"{nowhere} patches have no place in the dataset: their files have no CRS."] if nowhere else []
    return summary("geotiff", out, tally, *notes)


def _free_name(folder: Path, view: View) -> str:
    """The name of a view, or with a number after it where the files of another have it."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", view.name)
    suffixes = ("", "_quality", *(f"_{array}" for array in view.labels))
    names = chain([plain], (f"{plain}_{number}" for number in count(view.number)))
    return next(name for name in names if not any((folder / f"{name}{suffix}.tif").exists() for suffix in suffixes))


def _write_series(path: Path, view: View, facts: ViewFacts) -> None:
    """A band a date and spectral band: all bands of the first date, then those of the second, ..."""
    dates = [f"{day:%Y-%m-%d}" for day in dates_of(view.days)]
    descriptions = tuple(f"{day} {band}" for day in dates for band in facts.bands)
    values = view.reflectance.reshape(-1, *view.reflectance.shape[-2:])
    tags = {
        "DATES": " ".join(dates),
        "BANDS": " ".join(facts.bands),
        "SPLIT": view.split,
        "UNREAD_PIXELS": str(np.count_nonzero(view.unread)),
        **_tags(facts),
    }
    _write_file(path, values, view, nodata=0, descriptions=descriptions, tags=tags, scaled=True)


def _write_quality(path: Path, view: View, facts: ViewFacts) -> None:
    """A band a date: what a 0 of the series is, not observed or not read, and where clouds are."""
    dates = tuple(f"{day:%Y-%m-%d}" for day in dates_of(view.days))
    tags = {"DESCRIPTION": ARRAYS["quality"].meaning, "DATES": " ".join(dates), **_tags(facts)}
    _write_file(path, view.quality, view, nodata=None, descriptions=dates, tags=tags, scaled=False)


def _write_labels(path: Path, array: str, values: NDArray[Any], view: View, facts: ViewFacts) -> None:
    tags = {"DESCRIPTION": ARRAYS[array].meaning, **_tags(facts)}
    if array == "crop_type":
        tags |= {f"CLASS_{row['index']}": str(row["name"]) for row in facts.classes} | {"CLASS_0": "background"}
    _write_file(
        path, values[np.newaxis], view, nodata=_NODATA.get(array), descriptions=(array,), tags=tags, scaled=False
    )


def _tags(facts: ViewFacts) -> dict[str, str]:
    attributes = facts.attributes
    tags = {"DATASET": facts.name, "CONFIG_SHA256": str(attributes.get("config_sha256", ""))}
    return {**tags, "SIMULATED": "YES"} if attributes.get("simulated") else tags


def _write_file(
    path: Path,
    values: NDArray[Any],
    view: View,
    *,
    nodata: int | None,
    descriptions: tuple[str, ...],
    tags: dict[str, str],
    scaled: bool,
) -> None:
    """A GeoTIFF of (band, y, x)."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    place: JsonObject = {}
    if view.transform is not None and view.epsg is not None:
        place = {"transform": Affine(*view.transform), "crs": f"EPSG:{view.epsg}"}
    profile = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "nodata": nodata,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 2,
        "BIGTIFF": "IF_SAFER",
        **place,
    }
    with warnings.catch_warnings():
        # That a patch has no place is said of the whole export.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
            file.descriptions = descriptions
            if scaled:
                file.scales, file.offsets = [0.0001] * len(values), [0.0] * len(values)
            file.update_tags(**tags)
