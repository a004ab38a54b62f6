"""A folder that appears whole or not at all, with a file that says what is in it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sits_pipeline.exporters.views import View, ViewFacts, Views
from sits_pipeline.values import JsonObject

__all__ = ["MANIFEST", "Exported", "Progress", "Tally", "kept_views", "summary", "whole_folder", "write_manifest"]

MANIFEST = "export.json"
"""What was exported, and the mark of a folder that another export may replace."""

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
    clipped: int = 0
    """Values that the format's integers cannot hold, written as the largest one."""

    def add(self, view: View) -> None:
        """Count a view that is written."""
        observed = view.observed
        self.written += 1
        self.frames += len(observed)
        self.pixels += observed.size
        self.unobserved += int(observed.size - np.count_nonzero(observed))


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written."""

    format: str
    folder: Path
    written: int
    left_out: Mapping[str, int]
    notes: tuple[str, ...]


def kept_views(views: Views, tally: Tally, progress: Progress) -> Iterator[View]:
    """The views that may be used, counted. Raises ValueError at the end where there was none."""
    for part in range(views.n_parts):
        for view in views.read(part):
            if view.left_out:
                tally.left_out[view.left_out] += 1
            else:
                tally.add(view)
                yield view
        progress(part + 1, views.n_parts)
    if not tally.written:
        said = ", ".join(f"{count} have {reason}" for reason, count in sorted(tally.left_out.items()))
        raise ValueError(f"nothing of {views.facts.name} can be exported: of its windows {said or 'there is none'}")


def summary(format_: str, out: Path, tally: Tally, *notes: str) -> Exported:
    """What to say of an export, and what its unobserved and clipped pixels became."""
    said = list(notes)
    if tally.unobserved:
        share = tally.unobserved / tally.pixels
        said.append(f"Pixels that were not observed ({share:.2%} of all frames') are 0 in every band.")
    if tally.clipped:
        said.append(f"{tally.clipped} values above 32767 are written as 32767, the largest of the format's integers.")
    said += [f"{count} windows are left out: {reason}." for reason, count in sorted(tally.left_out.items())]
    return Exported(
        format=format_,
        folder=out,
        written=tally.written,
        left_out=dict(sorted(tally.left_out.items())),
        notes=tuple(said),
    )


def write_manifest(folder: Path, facts: ViewFacts, exported: Exported) -> None:
    """Write `export.json` into the folder."""
    attributes = facts.attributes
    document: JsonObject = {
        "format": exported.format,
        "dataset": facts.name,
        "profile": attributes.get("profile"),
        "complete": attributes.get("complete"),
        "simulated": bool(attributes.get("simulated", False)),
        "config_sha256": attributes.get("config_sha256"),
        "season": attributes.get("season"),
        "level": (attributes.get("radiometry") or {}).get("level"),
        "bands": list(facts.bands),
        "written": exported.written,
        "left_out": dict(exported.left_out),
        "notes": list(exported.notes),
    }
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n")


@contextmanager
def whole_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, and is removed where something fails before.

    Raises FileExistsError where `out` is there and not empty: unless `overwrite`, and then where no export wrote it.
    """
    check_free(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        earlier = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.earlier.partial") if out.exists() else None
        if earlier is not None:
            out.replace(earlier)
        partial.replace(out)
        if earlier is not None:
            shutil.rmtree(earlier)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError where an export may not be written to `out`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder for the export")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{out} is there and not empty; choose another --out, or --overwrite to replace an export"
        )
    if not (out / MANIFEST).is_file():
        raise FileExistsError(
            f"{out} was not written by an export (it has no {MANIFEST}), so it is not replaced; choose another --out"
        )
