"""A folder that an export wrote is no original, unless it is an export of that very set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.importers.original import OriginalFacts

__all__ = ["check_origin"]

_MANIFEST, _NAMES = "export.json", "label_names.json"


def check_origin(folder: Path, facts: OriginalFacts) -> None:
    """Raises ValueError where an export wrote the folder out of another set than this original.

    Classes, dates, licence and names of an original are those of its authors; a folder of the same layout with other
    data would be given all of them.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return
    manifest = _document(path)
    reason = _reason(manifest, _document(folder / _NAMES) if (folder / _NAMES).is_file() else {}, facts)
    if reason:
        raise ValueError(
            f"{folder} is an export of {manifest.get('dataset', 'another dataset')}, not {facts.title}: {reason}; use "
            "the dataset that it was made of"
        )


def _reason(manifest: Mapping[str, Any], names: Mapping[str, Any], facts: OriginalFacts) -> str:
    """Why this is no export of the original; empty where it is one."""
    if manifest.get("simulated"):
        return "its numbers are simulated"
    # Null for a dataset that was built; exports of older releases do not have it, and their classes decide.
    source = manifest.get("source_format", facts.format)
    if source != facts.format:
        return f"it was made of {source or 'a dataset that was built'}"
    said = manifest.get("attribution")
    if said is not None and said != facts.attribution:
        return f"its data are those of {said}"
    if manifest.get("chronology") == "day-of-year" and facts.chronology != "day-of-year":
        return "its frames have days of the year without their years"
    rows = names.get("classes") or manifest.get("classes")
    if _classes(rows) != _classes_of(facts.taxonomy):
        return "its classes are others"
    return ""


def _classes(rows: object) -> set[tuple[int, str]]:
    """Indices and names of a class table; empty where there is none."""
    if not isinstance(rows, list):
        return set()
    return {
        (int(row["index"]), str(row["name"]))
        for row in rows
        if isinstance(row, Mapping) and {"index", "name"} <= row.keys()
    }


def _classes_of(taxonomy: Taxonomy) -> set[tuple[int, str]]:
    return {(crop.index, crop.name) for crop in taxonomy.classes}


def _document(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} should be what an export wrote; it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} should be what an export wrote; it is {type(found).__name__}")  # noqa: TRY004  # a file
    return found
