"""`report.html` of a location set: where the patches lie, what a few of them look like, and what is missing."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from sits_catalog.templates import compile_template
from sits_pipeline.finish import Outcome
from sits_pipeline.folder import Folder
from sits_pipeline.patches.place import Chosen
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.patches.tables import BUILT, PatchNotes, status_of
from sits_pipeline.picture import encode_png, limits_of, natural_bands, paint
from sits_pipeline.store.patches import PatchLayout, read_patches
from sits_pipeline.values import JsonObject

__all__ = ["render_patches"]

_SHOWN = 4
"""Patches of which all dates are shown."""
_LISTED = 50
_THUMB_PX = 138
_COLOURS = {BUILT: "#0f5f7a"}
_MISSING = "#a4262c"


def render_patches(
    folder: Folder, plan: PatchPlan, layout: PatchLayout, notes: Mapping[int, PatchNotes], outcome: Outcome
) -> str:
    """The report as one HTML document; the same dataset gives the same text.

    Names out of files and catalogues are escaped: they are hostile until then.
    """
    template = compile_template(files(__package__).joinpath("page.html").read_text("utf-8"))
    states = [(chosen, *status_of(chosen, notes[chosen.spot.patch])) for chosen in plan.chosen]
    amiss = [(chosen.spot.location.id, status, reason) for chosen, status, reason in states if status != BUILT]
    return template.render(
        style=files("sits_pipeline.report").joinpath("style.css").read_text("utf-8"),
        wanted=plan.wanted,
        attributes=layout.attributes,
        complete=outcome.complete,
        simulated=bool(layout.attributes.get("simulated")),
        n_patches=plan.n_patches,
        states=sorted(Counter(status for _, status, _ in states).items()),
        points=[_point(chosen, status) for chosen, status, _ in states],
        view=_view(plan),
        rows=_pictures(folder, plan, layout, notes),
        amiss=amiss[:_LISTED],
        n_more=max(0, len(amiss) - _LISTED),
        refused=outcome.refused[:_LISTED],
        statistics=_statistics(layout.attributes),
        zones=sorted(Counter(chosen.spot.epsg for chosen in plan.chosen).items()),
    )


def _statistics(attributes: JsonObject) -> list[tuple[str, JsonObject]]:
    return list((attributes.get("statistics") or {}).items())


# Map


def _point(chosen: Chosen, status: str) -> tuple[float, float, str]:
    at = chosen.spot.location
    return round(at.lon, 4), round(-at.lat, 4), _COLOURS.get(status, _MISSING)


def _view(plan: PatchPlan) -> dict[str, float]:
    """The window of the map, degrees, y downwards: all locations with a margin, 2 : 1 and never less than 1 degree."""
    lon = np.array([chosen.spot.location.lon for chosen in plan.chosen])
    lat = np.array([chosen.spot.location.lat for chosen in plan.chosen])
    height = max(1.0, 1.2 * float(np.ptp(lat)), 0.6 * float(np.ptp(lon)))
    width = min(360.0, 2 * height)
    height = min(180.0, height)
    middle = float(lon.min() + lon.max()) / 2, float(lat.min() + lat.max()) / 2
    left = min(max(middle[0] - width / 2, -180.0), 180.0 - width)
    top = min(max(-middle[1] - height / 2, -90.0), 90.0 - height)
    return {name: round(value, 4) for name, value in zip(("x", "y", "w", "h"), (left, top, width, height), strict=True)}


# Thumbnails


@dataclass(frozen=True)
class _Row:
    """A patch with a picture of each date."""

    name: str
    place: str
    pictures: tuple[tuple[str, str], ...]
    """Address of the picture and what stands below it."""


def _pictures(folder: Folder, plan: PatchPlan, layout: PatchLayout, notes: Mapping[int, PatchNotes]) -> list[_Row]:
    """A few patches, evenly out of those that have dates."""
    built = [chosen for chosen in plan.chosen if chosen.acquisitions]
    step = max(1, len(built) // _SHOWN)
    return [_row(folder, chosen, layout, notes[chosen.spot.patch]) for chosen in built[::step][:_SHOWN]]


def _row(folder: Folder, chosen: Chosen, layout: PatchLayout, notes: PatchNotes) -> _Row:
    patch, at = chosen.spot.patch, chosen.spot.location
    bands = [layout.bands.index(name) for name in natural_bands(layout.bands)]
    step = max(1, -(-layout.width // _THUMB_PX))
    one = slice(patch, patch + 1)
    images = read_patches(folder, "reflectance", one)[0][:, bands, ::step, ::step]  # (time, 3, y, x)
    observed = (read_patches(folder, "quality", one)[0][:, ::step, ::step] & 1) > 0
    limits = limits_of(list(images), list(observed))
    size = layout.height * layout.width
    pictures = []
    for index, day in enumerate(chosen.acquisitions):
        png = encode_png(paint(images[index], observed[index], limits))
        caption = f"{day.day}, {100 * notes.clear[index] / size:.0f} % clear"
        pictures.append((f"data:image/png;base64,{base64.b64encode(png).decode()}", caption))
    return _Row(at.id, f"{at.lon:.4f}, {at.lat:.4f}, EPSG:{chosen.spot.epsg}", tuple(pictures))
