"""Folders that an export wrote, given as originals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.importers.chips_in_files import FULL, write_mtlcc, write_t31tfm
from tests.pipeline.importers.test_pastis import write_pastis
from tests.pipeline.importers.test_pastis24 import write_pastis24

from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.mtlcc import open_mtlcc
from sits_pipeline.importers.original import Original
from sits_pipeline.importers.pastis import open_pastis
from sits_pipeline.importers.pastis24 import open_pastis24
from sits_pipeline.importers.t31tfm import open_t31tfm


def write_original(root: Path, layout: str) -> None:
    if layout == "mtlcc":
        write_mtlcc(root, kind="pickle")
    else:
        {"pastis": write_pastis, "pastis24": write_pastis24, "t31tfm": write_t31tfm}[layout](root)


def opened(root: Path, layout: str) -> Original:
    if layout == "pastis":
        return open_pastis(root, folds=FoldRule())
    if layout == "pastis24":
        return open_pastis24(root, metadata=None, folds=FoldRule())
    return open_mtlcc(root) if layout == "mtlcc" else open_t31tfm(root)


LAYOUTS = ("pastis", "pastis24", "mtlcc", "t31tfm")
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "a dataset that was built": {"source_format": None, "attribution": None},
    "another set": {"source_format": "zuericrop"},
    "other classes": {"classes": [{"index": 1, "code": "wheat", "name": "wheat"}]},
    "no classes": {"classes": []},
    "simulated": {"simulated": True},
    "another author": {"attribution": "somebody else"},
}


def mark(root: Path, original: Original, changes: Mapping[str, Any]) -> None:
    facts = original.facts
    manifest = {
        "format": facts.format,
        "dataset": "demo",
        "source_format": facts.format,
        "chronology": facts.chronology,
        "licence": facts.licence,
        "attribution": facts.attribution,
        "simulated": False,
        "classes": [asdict(crop) for crop in facts.taxonomy.classes],
    }
    (root / "export.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_of_another_set_is_refused_and_one_of_the_same_set_is_not(tmp_path: Path, layout: str) -> None:
    write_original(tmp_path, layout)
    original = opened(tmp_path, layout)
    mark(tmp_path, original, {})
    assert opened(tmp_path, layout) == original
    for changes in OTHERS.values():
        mark(tmp_path, original, changes)
        with pytest.raises(ValueError, match="is an export of demo, not " + original.facts.title):
            opened(tmp_path, layout)


def test_the_mark_is_found_above_the_folder_of_years(tmp_path: Path) -> None:
    write_mtlcc(tmp_path / "demo", kind="pickle")
    (tmp_path / "export.json").write_text("{}")  # that of another folder
    mark(tmp_path / "demo", open_mtlcc(tmp_path / "demo"), OTHERS["another set"])
    for place in (tmp_path / "demo", tmp_path / "demo" / FULL, tmp_path / "demo" / FULL / "240pkl"):
        with pytest.raises(ValueError, match=r"is an export of demo, not MTLCC.*it was made of zuericrop"):
            open_mtlcc(place)


def test_days_without_years_are_not_the_dates_of_pastis(tmp_path: Path) -> None:
    write_pastis(tmp_path)
    mark(tmp_path, opened(tmp_path, "pastis"), {"chronology": "day-of-year"})
    with pytest.raises(ValueError, match="days of the year without their years"):
        opened(tmp_path, "pastis")
