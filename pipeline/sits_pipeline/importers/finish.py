"""Conclude an import: statistics, the index of patches, STAC item, report and the merged journal, from the journal."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable

from sits_catalog.stac import StoredFile
from sits_pipeline.finish import Outcome, merged_journal, stamp_of
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.importers.dataset import ImportedDataset
from sits_pipeline.importers.item import imported_item
from sits_pipeline.importers.report import render_import
from sits_pipeline.importers.table import patches_table
from sits_pipeline.importers.tally import ImportTally, tally_import
from sits_pipeline.journal import MERGED, CellLines, Journal
from sits_pipeline.steps.statistics import summarise
from sits_pipeline.store import CUBE, ROOT
from sits_pipeline.store.patches import conclude_patches

__all__ = ["KNOWN_FILES", "finish_import", "outcome_of"]

KNOWN_FILES = ("patches.parquet", "item.json", "config.yaml", "report.html", MERGED)
"""Every file of a dataset outside of its store; an original has no source items, so that there is no such table."""


def outcome_of(dataset: ImportedDataset, lines: Iterable[bytes], *, built: int) -> Outcome:
    """What has become of the dataset, from the journal's lines of its shards."""
    return _outcome(dataset, sum(1 for _ in lines), built=built)


def _outcome(dataset: ImportedDataset, n_shards: int, *, built: int) -> Outcome:
    wanted = len(dataset.shards())
    return Outcome(
        name=dataset.facts.id,
        location=dataset.folder.location,
        complete=n_shards == wanted,
        cells=wanted,
        built=built,
        processing_units=0.0,
        failures=(),
        refused=(),
        unknown_codes=(),
        unit="shards",
    )


def finish_import(dataset: ImportedDataset, journal: Journal, *, built: int) -> Outcome:
    """Write everything of a dataset that is no pixel; `built`: shards of this run.

    A repeat is harmless: every file is written whole, the journal last.
    """
    journal.flush()
    folder, lines = dataset.folder, CellLines(dataset.folder)
    tally = tally_import(lines)
    outcome = _outcome(dataset, len(lines), built=built)
    statistics = summarise(dataset.layout.bands, tally.bands)
    concluded = dataset.with_attributes({"complete": outcome.complete, "statistics": statistics})
    files = _files(concluded, tally)
    for name, data in files.items():
        folder.write(name, data)
    files |= {**dataset.metadata, f"{CUBE}/{ROOT}": conclude_patches(folder, concluded.layout)}
    stamps = {name: stamp_of(data) for name, data in files.items()}
    journal.merge(merged_journal([dataset.plan_line], lines, stamps))
    return outcome


def _files(dataset: ImportedDataset, tally: ImportTally) -> dict[str, bytes]:
    """Index, configuration, report and item by name."""
    buffer = io.BytesIO()
    write_geo_table(buffer, patches_table(dataset, tally))
    files = {
        "patches.parquet": buffer.getvalue(),
        "config.yaml": dataset.config,
        "report.html": render_import(dataset, tally).encode(),
    }
    stored = {name: StoredFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    item = imported_item(dataset, tally, stored)
    files["item.json"] = (json.dumps(item, indent=1, sort_keys=True) + "\n").encode()
    return files
