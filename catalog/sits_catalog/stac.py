"""A dataset as a STAC 1.1.0 Item: plain values in, JSON out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sits_catalog.cube import ARRAYS, FINER_ARRAYS, LABEL_ARRAYS, PIXEL_M
from sits_catalog.sentinel2 import bands_of

__all__ = [
    "EXTENSIONS",
    "ML_AOI",
    "ClassCount",
    "CubeFacts",
    "StoredFile",
    "asset_of",
    "band_of",
    "cube_item",
    "label_properties",
    "with_file",
]

JsonObject = dict[str, Any]

_SCHEMAS = "https://stac-extensions.github.io"
EXTENSIONS = {
    "datacube": f"{_SCHEMAS}/datacube/v2.3.0/schema.json",
    "eo": f"{_SCHEMAS}/eo/v2.0.0/schema.json",
    "file": f"{_SCHEMAS}/file/v2.1.0/schema.json",
    "label": f"{_SCHEMAS}/label/v1.0.1/schema.json",
    "processing": f"{_SCHEMAS}/processing/v1.2.0/schema.json",
    "projection": f"{_SCHEMAS}/projection/v2.0.0/schema.json",
    "raster": f"{_SCHEMAS}/raster/v2.0.0/schema.json",
    "zarr": f"{_SCHEMAS}/zarr/v1.1.0/schema.json",
}
"""STAC extensions of an item; `label` only where there are labels."""
ML_AOI = f"{_SCHEMAS}/ml-aoi/v0.2.0/schema.json"
"""The extension of the splits in a catalogue of datasets; the item of a dataset itself does not use it."""

_ZARR = "application/vnd.zarr; version=3"
_PARQUET = "application/vnd.apache.parquet"
_MAX_LINKS = 100
"""More source items than this are listed by the asset `sources` alone."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the dataset."""

    size: int
    """Bytes."""
    sha256: str
    """Hex digits."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """A class of the label raster and its pixels."""

    index: int
    name: str
    n_pixels: int


@dataclass(frozen=True, kw_only=True)
class CubeFacts:
    """All that an item says about a dataset."""

    id: str
    title: str
    description: str
    epsg: int
    transform: tuple[float, float, float, float, float, float]
    """Affine [a, b, c, d, e, f] of pixel corners."""
    shape: tuple[int, int]
    """Height and width, pixels."""
    geometry: JsonObject
    """GeoJSON geometry in lon/lat."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north, degrees."""
    centroid: tuple[float, float]
    """Latitude and longitude."""
    days: tuple[date, ...]
    """Solar day of each date."""
    start: datetime
    """First sensing time."""
    end: datetime
    """Last sensing time."""
    created: datetime
    bands: tuple[str, ...]
    platforms: tuple[str, ...]
    """"sentinel-2a", ..., as the source items name them."""
    classes: tuple[ClassCount, ...] | None
    """Classes of `crop_type` with their pixels, background first; None: a cube without labels."""
    finer: tuple[int, ...] = ()
    """Finer label lattices: 2 and 4."""
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    """Size and hash by file name; a file that cannot be known yet is left out."""
    has_chips: bool = True
    source_links: tuple[tuple[str, str], ...] = ()
    """Title and http(s) address of each source item."""
    n_source_items: int = 0
    software: Mapping[str, str] = field(default_factory=dict)
    """Name to version."""
    lineage: str
    """One or two sentences on how the cube was made."""
    sits_cube: JsonObject = field(default_factory=dict)
    """Entries of the attribute `sits_cube` to repeat, each as the property `sits_cube:<key>`."""


def cube_item(facts: CubeFacts) -> JsonObject:
    """The item of a dataset, its links and assets relative to `item.json`."""
    names = [name for name in EXTENSIONS if name != "label" or facts.classes is not None]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[name] for name in names],
        "id": facts.id,
        "geometry": facts.geometry,
        "bbox": list(facts.bbox),
        "properties": {
            **_common(facts),
            **_projection(facts),
            **({} if facts.classes is None else label_properties(facts.classes)),
            "cube:dimensions": _dimensions(facts),
            "cube:variables": _variables(facts),
            "processing:software": dict(sorted(facts.software.items())),
            "processing:lineage": facts.lineage,
            **{f"sits_cube:{key}": value for key, value in facts.sits_cube.items()},
        },
        "links": _links(facts),
        "assets": {name: with_file(asset, facts.files) for name, asset in _assets(facts).items()},
    }


def _common(facts: CubeFacts) -> JsonObject:
    return {
        "title": facts.title,
        "description": facts.description,
        "datetime": None,
        "start_datetime": _rfc3339(facts.start),
        "end_datetime": _rfc3339(facts.end),
        "created": _rfc3339(facts.created),
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": PIXEL_M,
        **({"platform": facts.platforms[0]} if len(facts.platforms) == 1 else {}),
    }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _projection(facts: CubeFacts) -> JsonObject:
    latitude, longitude = facts.centroid
    return {
        "proj:code": f"EPSG:{facts.epsg}",
        "proj:shape": list(facts.shape),
        "proj:transform": list(facts.transform),
        "proj:bbox": list(_bounds(facts)),
        "proj:centroid": {"lat": latitude, "lon": longitude},
    }


def _bounds(facts: CubeFacts) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the pixel edges."""
    a, _, left, _, e, top = facts.transform
    height, width = facts.shape
    return left, top + e * height, left + a * width, top


# Datacube


def _dimensions(facts: CubeFacts) -> JsonObject:
    a, _, _, _, e, _ = facts.transform
    left, bottom, right, top = _bounds(facts)
    days = [f"{day.isoformat()}T00:00:00Z" for day in facts.days]
    spatial = {"type": "spatial", "reference_system": facts.epsg}
    return {
        "time": {
            "type": "temporal",
            "description": "solar day of the pass",
            "extent": [days[0], days[-1]],
            "values": days,
            "step": None,
        },
        "band": {"type": "bands", "values": list(facts.bands)},
        "y": {
            **spatial,
            "axis": "y",
            "description": "pixel centres, descending",
            "extent": [bottom - e / 2, top + e / 2],
            "step": e,
        },
        "x": {
            **spatial,
            "axis": "x",
            "description": "pixel centres",
            "extent": [left + a / 2, right - a / 2],
            "step": a,
        },
    }


def _variables(facts: CubeFacts) -> JsonObject:
    """Arrays of the root group. Finer labels have dimensions of their own and are told of in the asset."""
    variables = {}
    for spec in ARRAYS.values():
        if spec.name in LABEL_ARRAYS and facts.classes is None:
            continue
        variables[spec.name] = {
            "dimensions": list(spec.dims),
            "type": "data" if spec.name == "reflectance" else "auxiliary",
            "description": spec.meaning,
            "data_type": spec.dtype,
            "nodata": spec.fill,
        }
    variables["reflectance"]["unit"] = "1"
    if "boundary_distance" in variables:
        variables["boundary_distance"]["unit"] = "dm"
    return variables


# Labels


def label_properties(classes: Sequence[ClassCount]) -> JsonObject:
    """The fields of the label extension for the label raster of a cube, background first among its classes."""
    return {
        "label:type": "raster",
        "label:properties": None,
        "label:tasks": ["segmentation"],
        "label:description": "Crop class of each pixel (`crop_type` of the asset `cube`), drawn from parcels; "
        "0 is background, 65535 means unknown or mixed.",
        "label:classes": [{"name": None, "classes": [count.name for count in classes]}],
        "label:overviews": [
            {"counts": [{"name": count.name, "count": count.n_pixels} for count in classes]},
        ],
    }


# Links and assets


def _links(facts: CubeFacts) -> list[JsonObject]:
    links: list[JsonObject] = [
        {"rel": "store", "href": "./cube.zarr", "type": _ZARR, "title": "Zarr store of the cube"}
    ]
    if facts.n_source_items <= _MAX_LINKS:
        links += [
            {"rel": "derived_from", "href": href, "type": "application/geo+json", "title": title}
            for title, href in facts.source_links
            if href.startswith(("https://", "http://"))
        ]
    return links


def _assets(facts: CubeFacts) -> dict[str, JsonObject]:
    assets: dict[str, JsonObject] = {"cube": _cube_asset(facts)}
    if facts.classes is not None:
        assets["parcels"] = asset_of(
            "parcels.parquet", _PARQUET, "Parcels, one row each (GeoParquet)", "data", "labels"
        )
    if facts.has_chips:
        assets["chips"] = asset_of("chips.parquet", _PARQUET, "Chips, one row each (GeoParquet)", "index", "metadata")
    assets["sources"] = asset_of("sources.parquet", _PARQUET, "Source items (stac-geoparquet)", "source", "metadata")
    assets["journal"] = asset_of("journal.jsonl", "application/jsonl", "What each cell read and wrote", "metadata")
    assets["report"] = asset_of("report.html", "text/html", "Report for people", "overview", "metadata")
    assets["config"] = asset_of("config.yaml", "application/yaml", "Resolved configuration", "metadata")
    return assets


def _cube_asset(facts: CubeFacts) -> JsonObject:
    groups = ["`overview` (80 m)"]
    if facts.classes is not None:
        groups += [f"`labels_x{factor}` ({PIXEL_M / factor:g} m)" for factor in facts.finer]
    return {
        **asset_of("cube.zarr", _ZARR, "Time series cube", "data"),
        "description": f"Zarr v3 group with sharded arrays; subgroups {', '.join(groups)}, of "
        f"{', '.join(f'`{name}`' for name in FINER_ARRAYS)}."
        if len(groups) > 1
        else f"Zarr v3 group with sharded arrays; subgroup {groups[0]}.",
        "zarr:zarr_format": 3,
        "zarr:node_type": "group",
        "zarr:consolidated": True,
        "bands": [band_of(name) for name in facts.bands],
    }


def asset_of(file: str, media_type: str, title: str, *roles: str) -> JsonObject:
    """The asset of a file beside `item.json`."""
    return {"href": f"./{file}", "type": media_type, "title": title, "roles": list(roles)}


def band_of(name: str) -> JsonObject:
    """A band of the array `reflectance`, as the asset of the cube lists it; B10 is one of Level-1C."""
    band = bands_of("L1C")[name]
    return {
        "name": name,
        "eo:common_name": band.common_name,
        "eo:center_wavelength": round(band.centre_nm / 1000, 5),
        "gsd": band.resolution_m,
        "data_type": ARRAYS["reflectance"].dtype,
        "nodata": ARRAYS["reflectance"].fill,
        "unit": "1",
        "raster:scale": 0.0001,
        "raster:offset": 0.0,
        "raster:spatial_resolution": PIXEL_M,
    }


def with_file(asset: JsonObject, files: Mapping[str, StoredFile]) -> JsonObject:
    """The asset with its file's size and checksum, a multihash: 0x12 is SHA-256, 0x20 its length in bytes."""
    stored = files.get(asset["href"].removeprefix("./"))
    if stored is None:
        return asset
    return {**asset, "file:size": stored.size, "file:checksum": f"1220{stored.sha256}"}
