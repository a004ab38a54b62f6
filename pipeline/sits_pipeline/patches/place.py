"""A location with its grid and the acquisitions that were chosen for it, as a value and as a line of the journal."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import date, datetime

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.addresses import published, without_secrets
from sits_catalog.locations import Location
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.patches.locate import geobox_of, outline_of
from sits_pipeline.values import Acquisition, JsonObject, Scene, Verdict, epsg_of

__all__ = ["KIND", "Chosen", "Spot", "chosen_from", "line_of", "slim"]

KIND = "location"
"""Of the journal's lines about locations."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A location and the grid of its patch."""

    patch: int
    """Position in the dataset."""
    location: Location
    geobox: GeoBox

    @classmethod
    def of(cls, patch: int, location: Location, side_px: int) -> Spot:
        """The spot of a location."""
        return cls(patch=patch, location=location, geobox=geobox_of(location, side_px))

    @property
    def epsg(self) -> int:
        """EPSG code of its zone."""
        return epsg_of(self.geobox)

    @property
    def outline(self) -> shapely.Geometry:
        """The patch in lon/lat."""
        return outline_of(self.geobox)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was chosen for one spot."""

    spot: Spot
    acquisitions: tuple[Acquisition, ...]
    """By day; none where a window stayed empty."""
    shift: int | None
    reason: str
    """Why there are none."""
    refused: tuple[tuple[Scene, Verdict], ...] = ()
    """Scenes that would have been taken, had their pixels not contradicted a firm rule."""
    unusable: tuple[tuple[str, str], ...] = ()
    """Items near the spot that cannot be scenes, by id, each with the reason."""
    unread: tuple[str, ...] = ()
    """Items that could not be looked at while choosing, by id: with another look the choice may be another one."""
    processing_units: float = 0.0
    """What a service charged for the looks at items that this choice was the first to need."""


def slim(scene: Scene) -> Scene:
    """The scene; of its item what a dataset of thousands of places keeps: where it lives, and if it is simulated."""
    properties = scene.item.get("properties", {})
    kept = {name: True for name in ("simulated", "sits:simulated") if properties.get(name) is True}
    links = scene.item.get("links")
    own = [
        {"rel": "self", "href": without_secrets(str(link.get("href")))}
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, dict) and link.get("rel") == "self"
    ]
    item = {"collection": scene.collection, "properties": kept, "links": own[:1]}
    wanted = {*BANDS, "SCL"}
    return replace(
        scene,
        item=item,
        assets={name: href for name, href in scene.assets.items() if name in wanted},
        twin=None if scene.twin is None else slim(scene.twin),
    )


# Journal


def line_of(chosen: Chosen, request_sha256: str, *, assets: bool) -> JsonObject | None:
    """The journal's line of a location; None where an address in it may hold a secret, so that it is not kept.

    `assets`: whether addresses are written down. Those of files may be paths of this machine: they are found again by
    the ids, and footprints with them.
    """
    if not assets:
        days = tuple(replace(day, scenes=tuple(map(_without_assets, day.scenes))) for day in chosen.acquisitions)
        refused = tuple((_without_assets(scene), verdict) for scene, verdict in chosen.refused)
        chosen = replace(chosen, acquisitions=days, refused=refused)
    line: JsonObject = {
        "kind": KIND,
        "request_sha256": request_sha256,
        "patch": chosen.spot.patch,
        "id": chosen.spot.location.id,
        "shift": chosen.shift,
        "reason": chosen.reason,
        "dates": [
            {
                "day": acquisition.day.isoformat(),
                "scenes": [_plain_scene(scene) for scene in acquisition.scenes],
                "verdicts": [_plain(verdict) for verdict in acquisition.verdicts],
            }
            for acquisition in chosen.acquisitions
        ],
        "refused": [[_plain_scene(scene), _plain(verdict)] for scene, verdict in chosen.refused],
        "unusable": [list(pair) for pair in chosen.unusable],
        **({"unread": list(chosen.unread)} if chosen.unread else {}),
        **({"processing_units": chosen.processing_units} if chosen.processing_units else {}),
    }
    return line if published(line) == line else None


def chosen_from(line: JsonObject, spot: Spot) -> Chosen:
    """What `line_of` wrote."""
    return Chosen(
        spot=spot,
        shift=line["shift"],
        reason=line["reason"],
        acquisitions=tuple(
            Acquisition(
                day=date.fromisoformat(entry["day"]),
                scenes=tuple(_scene(value) for value in entry["scenes"]),
                verdicts=tuple(Verdict(**value) for value in entry["verdicts"]),
            )
            for entry in line["dates"]
        ),
        refused=tuple((_scene(scene), Verdict(**verdict)) for scene, verdict in line["refused"]),
        unusable=tuple((str(name), str(reason)) for name, reason in line["unusable"]),
        unread=tuple(str(name) for name in line.get("unread", ())),
        processing_units=float(line.get("processing_units", 0.0)),
    )


def _without_assets(scene: Scene) -> Scene:
    return replace(scene, assets={}, footprint=shapely.Polygon(), item={**scene.item, "links": []}, twin=None)


def _plain(value: Scene | Verdict) -> JsonObject:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _plain_scene(scene: Scene) -> JsonObject:
    values = _plain(scene)
    values |= {name: value.isoformat() for name, value in values.items() if isinstance(value, datetime)}
    values["footprint"] = shapely.to_wkb(scene.footprint, hex=True, byte_order=1)
    values["assets"] = dict(scene.assets)
    values["twin"] = None if scene.twin is None else _plain_scene(scene.twin)
    return values


def _scene(values: JsonObject) -> Scene:
    times = {name: datetime.fromisoformat(values[name]) for name in ("sensed", "generated") if values[name]}
    twin = None if values["twin"] is None else _scene(values["twin"])
    return Scene(**{**values, **times, "footprint": shapely.from_wkb(values["footprint"]), "twin": twin})
