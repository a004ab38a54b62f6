"""`metadata.geojson` of PASTIS: fold, dates and outline of each patch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.taxonomy import Taxonomy

__all__ = ["ATTRIBUTION", "BANDS", "LICENCE", "VOID", "PastisRecord", "pastis_taxonomy", "read_metadata"]

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
VOID = 19
"""Value of pixels whose class is none of the 18."""
LICENCE = "etalab-2.0"
ATTRIBUTION = (
    "PASTIS, Sainte Fare Garnot and Landrieu, ICCV 2021 (doi:10.5281/zenodo.5012942); Sentinel-2 by ESA and Theia, "
    "parcels of the RPG by IGN"
)
_LAMBERT_93 = 2154
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class PastisRecord:
    """What the metadata say of one patch."""

    id: int
    fold: int
    days: NDArray[np.int32]
    """Days since 1970-01-01 of the frames, in their order in the file."""
    outline: shapely.Geometry | None
    """In lon/lat."""
    properties: Mapping[str, Any]
    """Numbers and texts, but the dates."""


def pastis_taxonomy() -> Taxonomy:
    """The 18 classes as they are shipped; class indices are the values of the files."""
    from sits_catalog.loading import load_taxonomy

    return load_taxonomy("pastis")


def read_metadata(path: Path) -> list[PastisRecord]:
    """The records, by id. Raises FileNotFoundError, and ValueError that names the patch."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: it has the dates and folds of the patches")
    try:
        collection = json.loads(path.read_bytes())
        features = [*collection["features"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} should be a GeoJSON FeatureCollection ({type(error).__name__}: {error})") from None
    records = []
    for position, feature in enumerate(features):
        try:
            records.append(_record(feature))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            said = feature.get("properties") or {} if isinstance(feature, dict) else {}
            which = str(said.get("ID_PATCH", f"number {position}") if isinstance(said, dict) else f"number {position}")[
                :40
            ]
            raise ValueError(f"{path}: patch {which}: {_words(error)}") from None
    outlines = _outlines(collection, features, path)
    return sorted((_placed(*pair) for pair in zip(records, outlines, strict=True)), key=lambda record: record.id)


def _words(error: Exception) -> str:
    return f"the property {error} is missing" if isinstance(error, KeyError) else str(error)


def _placed(record: PastisRecord, outline: shapely.Geometry | None) -> PastisRecord:
    return PastisRecord(id=record.id, fold=record.fold, days=record.days, outline=outline, properties=record.properties)


def _record(feature: Mapping[str, Any]) -> PastisRecord:
    properties = feature["properties"]
    plain = {
        key: value
        for key, value in properties.items()
        if isinstance(value, str | int | float) and not key.startswith("dates-")
    }
    return PastisRecord(
        id=int(properties["ID_PATCH"]),
        fold=int(properties["Fold"]),
        days=np.array([_day(value) for value in _dates(properties["dates-S2"])], np.int32),
        outline=None,
        properties=plain,
    )


def _dates(found: object) -> list[object]:
    """The dates in the order of the frames: an object {"0": 20180924, ...}, such an object as text, or a list."""
    if isinstance(found, str):
        # A text that Python wrote has single quotes.
        found = json.loads(found.replace("'", '"'))
    if isinstance(found, Mapping):
        numbered = sorted((int(key), value) for key, value in found.items())
        if [key for key, _ in numbered] != list(range(len(numbered))):
            raise ValueError(f"dates-S2 should number the frames from 0 on; got {[key for key, _ in numbered[:40]]}")
        return [value for _, value in numbered]
    if isinstance(found, list):
        return found
    raise ValueError(f"dates-S2 should be an object of dates by frame; got {repr(found)[:80]}")


def _day(value: object) -> int:
    text = str(value)
    if not re.fullmatch(r"\d{8}", text):
        raise ValueError(f"a date of dates-S2 should be written 20180924; got {repr(value)[:80]}")
    return (date(int(text[:4]), int(text[4:6]), int(text[6:])) - _EPOCH).days


# Outlines


def _outlines(collection: Mapping[str, Any], features: list[Any], path: Path) -> list[shapely.Geometry | None]:
    """The patches' polygons in lon/lat; None where a feature has none."""
    from pyproj.exceptions import ProjError

    from sits_pipeline.transformers import transformer_between

    found: list[shapely.Geometry | None] = []
    for feature in features:
        geometry = feature.get("geometry")
        try:
            found.append(None if geometry is None else shapely.from_geojson(json.dumps(geometry)))
        except (shapely.errors.GEOSException, RecursionError) as error:
            raise ValueError(f"{path}: patch {feature['properties']['ID_PATCH']}: {error}") from None
    epsg = _epsg_of(collection, found, path)
    try:
        move = transformer_between(epsg, 4326).transform
    except ProjError as error:
        raise ValueError(f"{path}: nobody knows the crs EPSG:{epsg}: {error}") from None

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(move(points[:, 0], points[:, 1]), axis=1)

    if epsg == 4326:
        return found
    return [None if one is None else shapely.transform(shapely.force_2d(one), moved) for one in found]


def _epsg_of(collection: Mapping[str, Any], outlines: list[shapely.Geometry | None], path: Path) -> int:
    """CRS of the file: the one it names; else Lambert-93 where the numbers are no degrees."""
    try:
        name = ((collection.get("crs") or {}).get("properties") or {}).get("name")
    except AttributeError:
        raise ValueError(f"{path}: the crs should be an object with the name of an EPSG code") from None
    if name is None:
        known = [one for one in outlines if one is not None]
        in_degrees = not known or float(np.abs(shapely.total_bounds(known)).max()) <= 180
        return 4326 if in_degrees else _LAMBERT_93
    if str(name).endswith("CRS84"):
        return 4326
    match = re.search(r"EPSG:+(?:[\d.]*:)?(\d{4,5})$", str(name))
    if match is None:
        raise ValueError(f"{path}: the crs should be an EPSG code, such as urn:ogc:def:crs:EPSG::2154; got {name!r}")
    return int(match[1])
