"""Which entries of a catalogue somebody looks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from sits_catalog.catalogue.folder import Entry
from sits_catalog.region import Season

__all__ = ["Query", "matches", "parse_box"]

JsonObject = dict[str, Any]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Query:
    """What an entry must be; None and empty ask for nothing."""

    box: Box | None = None
    """West, south, east, north, degrees; west > east: across the antimeridian. The footprint must meet it."""
    season: Season | None = None
    """Some date of the dataset must lie in it."""
    crop: str = ""
    """Part of the name of a class that has pixels, or its code, or the beginning of its HCAT code."""
    bands: tuple[str, ...] = ()
    """All of them."""
    family: str = ""
    text: str = ""
    """Words that all stand somewhere in id, title, description, family, classes or licence."""


def parse_box(text: str) -> Box:
    """The box that W,S,E,N names. Raises ValueError for anything else.

    >>> parse_box("3,48,4,49")
    (3.0, 48.0, 4.0, 49.0)
    """
    parts = text.split(",")
    try:
        west, south, east, north = (float(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"a box is four numbers W,S,E,N in degrees, got {text!r}") from error
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(f"a box is W,S,E,N in degrees with S below N, got {text!r}")
    return west, south, east, north


def matches(entry: Entry, query: Query) -> bool:
    """Whether the entry is all that is asked."""
    item = entry.item
    return (
        (query.box is None or _meets(item, query.box))
        and (query.season is None or _overlaps(item, query.season))
        and (
            not query.crop or any(_is_crop(row, query.crop) for row in item["properties"].get("sits_cube:classes", ()))
        )
        and set(query.bands) <= set(item["properties"].get("sits_cube:bands", ()))
        and (not query.family or entry.family == query.family)
        and all(word in _words(entry) for word in query.text.lower().split())
    )


def _meets(item: JsonObject, box: Box) -> bool:
    import shapely

    if item.get("geometry") is None:
        return False
    footprint = shapely.geometry.shape(item["geometry"])
    return any(bool(shapely.intersects(footprint, part)) for part in _parts(box))


def _parts(box: Box) -> Iterator[Any]:
    import shapely

    west, south, east, north = box
    if west <= east:
        yield shapely.box(west, south, east, north)
    else:
        yield shapely.box(west, south, 180, north)
        yield shapely.box(-180, south, east, north)


def _overlaps(item: JsonObject, season: Season) -> bool:
    """Whether the dates meet the season; by each date where the item lists them."""
    properties = item["properties"]
    time = properties.get("cube:dimensions", {}).get("time", {})
    days = [_day(text) for text in time.get("values") or ()] if time.get("type") == "temporal" else []
    if days:
        return any(season.start <= day <= season.end for day in days)
    first, last = (properties.get(key) or properties["datetime"] for key in ("start_datetime", "end_datetime"))
    return _day(first) <= season.end and season.start <= _day(last)


def _day(text: str) -> date:
    return date.fromisoformat(text[:10])


def _is_crop(row: JsonObject, crop: str) -> bool:
    if row["index"] == 0 or not (row["pixels"] or row["parcels"]):
        return False
    return (
        crop.lower() in row["name"].lower() or crop == row["code"] or (crop.isdigit() and row["hcat"].startswith(crop))
    )


def _words(entry: Entry) -> str:
    properties = entry.item["properties"]
    said = [entry.id, entry.family, *(str(properties.get(key) or "") for key in ("title", "description"))]
    said += [str(properties.get(key) or "") for key in ("license", "sits_cube:licence", "sits_cube:attribution")]
    said += [row["name"] for row in properties.get("sits_cube:classes", ())]
    said += ["simulated"] if properties.get("sits_cube:simulated") else []
    return "\n".join(said).lower()
