"""The page: all parts of a report put into its template."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.templates import compile_template
from sits_pipeline.report.facts import ReportFacts
from sits_pipeline.report.imagery import band_rows, date_rows, failure_rows, radiometry, timeline
from sits_pipeline.report.labels import class_rows, folded_rows, parcel_notes, split_rows
from sits_pipeline.report.pictures import draw_parcels, label_map, previews, split_map
from sits_pipeline.values import JsonObject

__all__ = ["render_report", "replace_sections"]

_OF_SPLITS = ("splits", "bands", "written")
"""Sections of the page that change with the splits, between `<!-- name -->` and `<!-- /name -->`."""


def render_report(facts: ReportFacts) -> str:
    """The report as one HTML document; the same facts give the same text.

    Names out of files and catalogues are escaped: they are hostile until then.
    """
    style = files(__package__).joinpath("style.css").read_text("utf-8")
    return _rendered(_template(), {"style": style, **_context(facts)})


def replace_sections(page: str, facts: ReportFacts) -> str:
    """A report with the sections anew that change with the splits: of the plan, its splits and zone alone are asked.

    Raises ValueError for a page that has no such sections.
    """
    macros, context = _template().partition("<!doctype html>")[0], _of_splits(facts, draw_parcels(facts))
    for name in _OF_SPLITS:
        new = _rendered(macros + _section(_template(), name)[1], context)
        before, _, after = _section(page, name)
        page = before + _section(new, name)[1] + after
    return page


def _section(page: str, name: str) -> tuple[str, str, str]:
    """What comes before a section, the section with its marks, and what comes after."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, start, rest = page.partition(first)
    inner, end, after = rest.partition(last)
    if not (start and end):
        raise ValueError(f"report.html has no section {name!r}; run the dataset's sits-build command, which writes it")
    return before, f"{first}{inner}{last}", after


def _template() -> str:
    return files(__package__).joinpath("template.html").read_text("utf-8")


def _rendered(text: str, context: Mapping[str, Any]) -> str:
    template = compile_template(text, count=_count, share=_share, number=_number)
    return template.render(**context)


def _context(facts: ReportFacts) -> dict[str, Any]:
    dates, drawn = date_rows(facts), draw_parcels(facts)
    failures = failure_rows(facts)
    return {
        **_of_splits(facts, drawn),
        "name": facts.plan.zone.name,
        "missing": _missing(facts, len(failures)),
        "grid": _grid(facts),
        "dates": dates,
        "timeline": timeline(facts, dates),
        "previews": [(preview, dates[preview.date_index]) for preview in previews(facts)],
        "class_pixels": facts.class_pixels,
        "folded": folded_rows(facts),
        "n_pixels": facts.n_built_pixels,
        "label_map": label_map(facts, drawn),
        "parcels": parcel_notes(facts),
        "radiometry": radiometry(facts),
        "failures": failures,
        "credits": _credits(facts),
    }


def _of_splits(facts: ReportFacts, drawn: NDArray[np.int64] | None) -> dict[str, Any]:
    """What the sections that change with the splits are made of."""
    return {
        "region": facts.region,
        "attributes": facts.attributes,
        "simulated": facts.is_simulated,
        "classes": class_rows(facts),
        "splits": split_rows(facts),
        "split_plan": facts.plan.splits,
        "split_map": split_map(facts, drawn),
        "bands": band_rows(facts),
    }


def _missing(facts: ReportFacts, n_failures: int) -> list[str]:
    """Why the dataset is not complete, in sentences; empty where it is."""
    reasons = []
    absent = facts.plan.n_cells - len(facts.cells)
    if absent:
        reasons.append(f"{absent} of {facts.plan.n_cells} cells are not built yet")
    if n_failures:
        cells = sum(bool(entry["failures"]) for entry in facts.cells)
        noun = "cell has" if cells == 1 else "cells have"
        reasons.append(f"{cells} {noun} sources that could not be read; run the same sits-build command to fill them")
    if not reasons and not facts.attributes.get("complete"):
        reasons.append("the build has not been concluded")
    return reasons


def _grid(facts: ReportFacts) -> JsonObject:
    box, epsg = facts.plan.zone.geobox, facts.plan.zone.epsg
    height, width = box.shape
    hemisphere = "N" if epsg < 32700 else "S"
    return {
        "height": height,
        "width": width,
        "km": f"{width / 100:.1f} × {height / 100:.1f} km",
        "km2": width * height / 1e4,
        "epsg": epsg,
        "zone": f"WGS 84 / UTM zone {epsg % 100}{hemisphere}",
        "left": f"{box.affine.c:.0f}",
        "top": f"{box.affine.f:.0f}",
        "shard": facts.plan.shard,
        "cells": facts.plan.n_cells,
        "built": len(facts.cells),
    }


def _credits(facts: ReportFacts) -> list[str]:
    years = sorted({scene.sensed.year for day in facts.plan.acquisitions for scene in day.scenes})
    span = str(years[0]) if years[0] == years[-1] else f"{years[0]}–{years[-1]}"
    lines = []
    if facts.is_simulated:
        lines.append("Imagery: simulated. It holds no Copernicus data and says nothing about any real place.")
    else:
        lines.append(f"Imagery: contains modified Copernicus Sentinel data {span}.")
    source = facts.region.parcels
    if source is not None:
        licence = f" Licence: {source.licence}." if source.licence else ""
        who = source.attribution or "the parcel file states no attribution; its provider's terms apply"
        lines.append(f"Parcels: {who}.{licence}")
    if facts.taxonomy is not None and facts.taxonomy.attribution:
        lines.append(f"Classes: {facts.taxonomy.attribution}")
    return lines


# Filters


def _count(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def _share(value: float) -> str:
    """A share of 0..1 in per cent; never 0 % or 100 % where it is not."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def _number(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals and thin spaces between thousands; a dash for None."""
    return "—" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")
