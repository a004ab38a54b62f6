"""A folder that appears whole or not at all, with a file that says what is in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sits_pipeline.exporters.replace import MANIFEST, whole_folder
from sits_pipeline.exporters.views import View, ViewFacts, Views
from sits_pipeline.values import JsonObject

__all__ = [
    "MANIFEST",
    "Exported",
    "Progress",
    "Tally",
    "check_dates",
    "kept_views",
    "summary",
    "whole_folder",
    "write_manifest",
]

Progress = Callable[[int, int], None]
"""Hears how many parts of how many are done."""


@dataclass
class Tally:
    """What became of the views of an export."""

    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""
    frames: int = 0
    pixels: int = 0
    """Of all frames."""
    unobserved: int = 0
    """Known to have no observation."""
    unread: int = 0
    """Of files that could not be read."""
    clipped: int = 0
    """Values that the format's integers cannot hold, written as the largest one."""

    def add(self, view: View) -> None:
        """Count a view that is written."""
        observed, unread = view.observed, view.unread
        self.written += 1
        self.frames += len(observed)
        self.pixels += observed.size
        self.unread += int(np.count_nonzero(unread))
        self.unobserved += int(np.count_nonzero(~observed & ~unread))


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written."""

    format: str
    folder: Path
    written: int
    left_out: Mapping[str, int]
    pixels: int
    """Of all frames."""
    unobserved: int
    unread: int
    notes: tuple[str, ...]


def check_dates(facts: ViewFacts, layout: str) -> None:
    """Raises ValueError for a dataset that lost the years of its dates, where a layout says them."""
    if facts.chronology == "day-of-year":
        raise ValueError(
            f"the layout {layout} has full dates, and {facts.name} has days of the year alone, whose years are made "
            "up: import it with --metadata, which restores them, or export it as pastis24"
        )


def kept_views(
    views: Views, tally: Tally, progress: Progress, *, unfit: Callable[[View], str] | None = None
) -> Iterator[View]:
    """The views that may be used, counted. Raises ValueError at the end where there was none.

    `unfit` says why the layout has no place for a view; empty: it has.
    """
    for part in range(views.n_parts):
        for view in views.read(part):
            reason = view.left_out or ("" if unfit is None else unfit(view))
            if reason:
                tally.left_out[reason] += 1
            else:
                tally.add(view)
                yield view
        progress(part + 1, views.n_parts)
    if not tally.written:
        said = ", ".join(f"{count} have {reason}" for reason, count in sorted(tally.left_out.items()))
        raise ValueError(f"nothing of {views.facts.name} can be exported: of its windows {said or 'there is none'}")


def summary(format_: str, out: Path, tally: Tally, *notes: str) -> Exported:
    """What to say of an export, and what its unobserved, unread and clipped pixels became."""
    said = list(notes)
    if tally.unobserved:
        share = tally.unobserved / tally.pixels
        said.append(f"Pixels that were not observed ({share:.2%} of all frames') are 0 in every band.")
    if tally.unread:
        said.append(
            f"{tally.unread} pixels ({tally.unread / tally.pixels:.2%} of all frames') could not be read when the "
            "dataset was built: they are 0 in every band too, though they may have been observed."
        )
    if tally.clipped:
        said.append(f"{tally.clipped} values above 32767 are written as 32767, the largest of the format's integers.")
    said += [f"{count} windows are left out: {reason}." for reason, count in sorted(tally.left_out.items())]
    return Exported(
        format=format_,
        folder=out,
        written=tally.written,
        left_out=dict(sorted(tally.left_out.items())),
        pixels=tally.pixels,
        unobserved=tally.unobserved,
        unread=tally.unread,
        notes=tuple(said),
    )


def write_manifest(folder: Path, facts: ViewFacts, exported: Exported) -> None:
    """Write `export.json` into the folder: what was exported, from what, and what a reader should know of it."""
    attributes = facts.attributes
    imported = attributes.get("imported") or {}
    document: JsonObject = {
        "format": exported.format,
        "dataset": facts.name,
        "profile": attributes.get("profile"),
        "source_format": facts.imported,
        "chronology": facts.chronology,
        "licence": imported.get("licence"),
        "attribution": imported.get("attribution"),
        "complete": attributes.get("complete"),
        "simulated": bool(attributes.get("simulated", False)),
        "config_sha256": attributes.get("config_sha256"),
        "season": attributes.get("season"),
        "level": (attributes.get("radiometry") or {}).get("level"),
        "bands": list(facts.bands),
        "classes": [{key: row.get(key) for key in ("index", "code", "name")} for row in facts.classes],
        "written": exported.written,
        "left_out": dict(exported.left_out),
        "pixels": exported.pixels,
        "unobserved_pixels": exported.unobserved,
        "unread_pixels": exported.unread,
        "notes": list(exported.notes),
    }
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n")
