"""An imported dataset as a STAC 1.1.0 Item."""

from __future__ import annotations

import json
from collections.abc import Mapping

import shapely

from sits_catalog.cube import ARRAYS, BACKGROUND, IGNORE, NO_DAY, PIXEL_M
from sits_catalog.stac import EXTENSIONS, StoredFile, asset_of, band_of, with_file
from sits_pipeline.importers.dataset import ImportedDataset, chronology_in_words
from sits_pipeline.importers.tally import ImportTally
from sits_pipeline.values import JsonObject

__all__ = ["class_names", "imported_item"]

_USED = ("datacube", "eo", "file", "label", "processing", "raster", "zarr")
_ZARR = "application/vnd.zarr; version=3"
_PARQUET = "application/vnd.apache.parquet"
_REPEATED = ("version", "profile", "complete", "config_sha256", "imported")
_LEVELS = {"L2A": "Level-2A surface reflectance", "L1C": "Level-1C top-of-atmosphere reflectance"}


def imported_item(dataset: ImportedDataset, tally: ImportTally, files: Mapping[str, StoredFile]) -> JsonObject:
    """The item of a dataset, its assets relative to `item.json`.

    Its geometry is the box of the patches whose place is known; null, and then without a box, where none is.
    """
    outlines = [patch.outline for patch in dataset.patches if patch.outline is not None]
    place: JsonObject = {"geometry": None}
    if outlines:
        west, south, east, north = (round(float(value), 7) for value in shapely.total_bounds(outlines))
        box = shapely.box(west, south, east, north)
        place = {"geometry": json.loads(shapely.to_geojson(box)), "bbox": [west, south, east, north]}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[name] for name in _USED],
        "id": dataset.facts.id,
        **place,
        "properties": {**_properties(dataset), **_labels(dataset, tally)},
        "links": [{"rel": "store", "href": "./cube.zarr", "type": _ZARR, "title": "Zarr store of the patches"}],
        "assets": {name: with_file(asset, files) for name, asset in _assets(dataset).items()},
    }


def class_names(dataset: ImportedDataset) -> dict[int, str]:
    """Names of the values of `crop_type`, background first; 65535 is no class."""
    classes = sorted(dataset.facts.taxonomy.classes, key=lambda crop: crop.index)
    return {BACKGROUND: "background", **{crop.index: crop.name for crop in classes}}


def _properties(dataset: ImportedDataset) -> JsonObject:
    facts, layout, attributes = dataset.facts, dataset.layout, dataset.layout.attributes
    name, _, version = str(attributes["software"]).partition(" ")
    season = attributes["season"]
    return {
        "title": facts.title,
        "description": " ".join(
            (
                f"{facts.title}, imported: {_LEVELS[facts.level]} at 10 m, {layout.n_patches} patches of "
                f"{layout.height} x {layout.width} px, at most {layout.n_dates} dates, {len(layout.bands)} bands.",
                *facts.notes,
            )
        ),
        "license": "other",
        "datetime": None,
        "start_datetime": f"{season['start']}T00:00:00Z",
        "end_datetime": f"{season['end']}T23:59:59Z",
        "created": attributes["created"],
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": PIXEL_M,
        "cube:dimensions": _dimensions(dataset),
        "cube:variables": _variables(dataset),
        "processing:software": {name: version or "unknown"},
        "processing:lineage": (
            f"Imported from the files of the original ({facts.format}); nothing is normalized or resampled, but bands "
            f"of 20 m and 60 m repeated to 10 m. {chronology_in_words(facts.chronology)}"
        ),
        **{f"sits_cube:{key}": attributes[key] for key in _REPEATED},
    }


def _labels(dataset: ImportedDataset, tally: ImportTally) -> JsonObject:
    names = class_names(dataset)
    counts = tally.pixels_of(range(len(dataset.patches)))
    return {
        "label:type": "raster",
        "label:properties": None,
        "label:tasks": ["segmentation"],
        "label:description": (
            "Crop class of each pixel (`crop_type` of the asset `cube`), as the original has it; 0 is background, "
            f"{IGNORE} means unknown."
        ),
        "label:classes": [{"name": None, "classes": list(names.values())}],
        "label:overviews": [{"counts": [{"name": name, "count": counts[index]} for index, name in names.items()]}],
    }


def _dimensions(dataset: ImportedDataset) -> JsonObject:
    layout = dataset.layout

    def counted(size: int, description: str) -> JsonObject:
        return {"type": "index", "description": description, "extent": [0, size - 1], "step": 1}

    return {
        "patch": counted(layout.n_patches, "row of patches.parquet"),
        "time": counted(layout.n_dates, "date of a patch; its day is in the array `day`"),
        "band": {"type": "bands", "values": list(layout.bands)},
        "y": counted(layout.height, "row of a patch, as the original has it"),
        "x": counted(layout.width, "column of a patch, as the original has it"),
    }


def _variables(dataset: ImportedDataset) -> JsonObject:
    variables = {
        name: {
            "dimensions": ["patch", *ARRAYS[name].dims],
            "type": "data" if name == "reflectance" else "auxiliary",
            "description": ARRAYS[name].meaning,
            "data_type": ARRAYS[name].dtype,
            "nodata": ARRAYS[name].fill,
        }
        for name in dataset.layout.names
    }
    variables["reflectance"] |= {"unit": "1", "description": f"{_LEVELS[dataset.facts.level]} x 10000"}
    variables["day"] = {
        "dimensions": ["patch", "time"],
        "type": "auxiliary",
        "description": f"days since 1970-01-01. {chronology_in_words(dataset.facts.chronology)}",
        "data_type": "int32",
        "nodata": NO_DAY,
    }
    return variables


def _assets(dataset: ImportedDataset) -> dict[str, JsonObject]:
    cube = {
        **asset_of("cube.zarr", _ZARR, "Time series of all patches", "data", "labels"),
        "description": "Zarr v3 group with sharded arrays and a leading dimension `patch`.",
        "zarr:zarr_format": 3,
        "zarr:node_type": "group",
        "zarr:consolidated": True,
        "bands": [band_of(name) for name in dataset.layout.bands],
    }
    return {
        "cube": cube,
        "patches": asset_of("patches.parquet", _PARQUET, "Patches, one row each (GeoParquet)", "index", "metadata"),
        "journal": asset_of("journal.jsonl", "application/jsonl", "What each shard read and wrote", "metadata"),
        "report": asset_of("report.html", "text/html", "Report for people", "overview", "metadata"),
        "config": asset_of("config.yaml", "application/yaml", "What was imported", "metadata"),
    }
