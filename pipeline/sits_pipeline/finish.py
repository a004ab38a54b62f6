"""Conclude a build: statistics, tables, STAC item, report and the merged journal.

All of it comes from the plan and the journal; of the cube, only the report's previews read the overview.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Protocol, Self

import numpy as np
import yaml
from numpy.typing import NDArray

from sits_catalog.loading import dump_region
from sits_catalog.region import Region
from sits_catalog.stac import StoredFile, cube_item
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.describe import cube_facts
from sits_pipeline.folder import Folder
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.journal import MERGED, CellLines, Journal, encode_line, read_journal, segments
from sits_pipeline.lineage import encode_sources, source_items
from sits_pipeline.parcels import ParcelTable, parcels_table
from sits_pipeline.plan import ZonePlan
from sits_pipeline.report import ReportFacts, render_report
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.steps.statistics import summarise
from sits_pipeline.store import CUBE, ROOT, CubeLayout, metadata_files, read_attributes, update_attributes
from sits_pipeline.tally import Tally, tally_cells
from sits_pipeline.values import JsonObject
from sits_pipeline.verify import files_line

__all__ = [
    *("KNOWN_FILES", "Dataset", "Finishable", "Outcome", "encode_config", "encode_item", "encode_table", "finish"),
    *("is_finished", "merged_journal", "stamp_of"),
]

KNOWN_FILES = (
    *("parcels.parquet", "chips.parquet", "sources.parquet"),
    *("item.json", "config.yaml", "report.html", MERGED),
)
"""Every file of a dataset outside of its cube."""

Failures = Mapping[tuple[int, ...], Sequence[JsonObject]]
"""What could not be read, for every cell that is built."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset that is being built: where, and what decides all of it but the pixels."""

    folder: Folder
    layout: CubeLayout
    plan: ZonePlan
    region: Region
    table: ParcelTable | None
    taxonomy: Taxonomy | None
    unusable: Sequence[UnusableItem]
    chips: str
    """Chips that are listed: grid or parcel."""
    items: JsonObject
    """State of each item, as `item_states` gives it: what this run found, and what earlier ones knew beside that."""

    @property
    def plan_line(self) -> JsonObject:
        """The journal's first line, and the first of every run's segment."""
        return {
            "kind": "plan",
            "config_sha256": self.plan.config_sha256,
            "cell_px": self.plan.cell_px,
            "chips": self.chips,
            "cells": self.plan.n_cells,
            "deciding": self.plan.deciding,
            "items": self.items,
        }

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """The files of the empty cube by name; the root's is another one once the cube is concluded."""
        return {f"{CUBE}/{key}": data for key, data in metadata_files(self.layout).items()}

    @cached_property
    def config(self) -> bytes:
        """`config.yaml`."""
        return encode_config(dump_region(self.region))

    @cached_property
    def split(self) -> NDArray[np.uint8] | None:
        """Code of `Split` of each parcel; None for a dataset without parcels."""
        if self.table is None:
            return None
        if self.plan.splits is None:
            return np.zeros(len(self.table), np.uint8)
        return self.plan.splits.splits_of(self.table.parcels.parcel_id)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has become of one dataset."""

    name: str
    location: str
    complete: bool
    cells: int
    built: int
    """Cells that this run computed; the others stood already."""
    processing_units: float
    """What Sentinel Hub charged for the dataset's cells, those of earlier runs included; 0 for other sources."""
    failures: tuple[JsonObject, ...]
    """Sources that could not be read: {cell, day, item, band, error}."""
    refused: tuple[str, ...]
    """Items that are not used because they are broken, with the reason."""
    unknown_codes: tuple[str, ...]
    unit: str = "cells"
    """What `cells` counts, in the words of its plan."""

    @classmethod
    def of(cls, dataset: Dataset, failures: Failures, *, built: int, processing_units: float) -> Self:
        """The outcome, from the plan and what the journal says of each cell."""
        plan, table = dataset.plan, dataset.table
        listed = [{"cell": list(key), **failure} for key, found in sorted(failures.items()) for failure in found]
        refused = [(r.scene.id, r.reason) for r in plan.refusals if r.status == "failed"]
        refused += [(item.id, item.reason) for item in dataset.unusable]
        return cls(
            name=plan.zone.name,
            location=dataset.folder.location,
            complete=len(failures) == plan.n_cells and not listed,
            cells=plan.n_cells,
            built=built,
            processing_units=processing_units,
            failures=tuple(listed),
            refused=tuple(f"{name}: {reason}" for name, reason in sorted(refused)),
            unknown_codes=() if table is None else tuple(table.unknown_codes),
        )


class Finishable(Protocol):
    """A dataset of any profile, as far as its files are known before it is built."""

    @property
    def folder(self) -> Folder:
        """Where it is."""
        ...

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """The files of the empty cube by name; the root's is another one once the cube is concluded."""
        ...

    @property
    def config(self) -> bytes:
        """`config.yaml`."""
        ...


def encode_config(region: JsonObject) -> bytes:
    """`config.yaml` of a region as plain values."""
    head = "# The resolved configuration of this dataset; `sits-build --region` reads it again.\n"
    return (head + yaml.safe_dump(region, sort_keys=False, allow_unicode=True)).encode()


def is_finished(dataset: Finishable) -> bool:
    """Whether an earlier run has ended with what this one would write, and all of its files are there.

    Tables and report are looked at by size; `config.yaml`, metadata and coordinates by content.
    """
    folder = dataset.folder
    attributes = read_attributes(folder)
    if attributes is None or not attributes["complete"] or segments(folder):
        return False
    listed = next((entry["files"] for entry in read_journal(folder) if entry["kind"] == "files"), None)
    if listed is None:
        return False
    stored = folder.sizes()
    if any(stored.get(name) != size for name, (size, _) in listed.items()):
        return False
    root = f"{CUBE}/{ROOT}"
    expected = {**dataset.metadata, root: folder.read(root), "config.yaml": dataset.config}
    stamps = {name: stamp_of(data) for name, data in expected.items()}
    return folder.read("config.yaml") == dataset.config and stamps.items() <= listed.items()


def finish(dataset: Dataset, journal: Journal, *, built: int) -> Outcome:
    """Write everything of a dataset that is no pixel, and say whether it is complete; `built`: cells of this run.

    A repeat is harmless: every file is written whole, the journal last, so that a finish that was cut short is
    simply done again.
    """
    journal.flush()
    folder, lines = dataset.folder, CellLines(dataset.folder)
    last_parcel = 0 if dataset.table is None else int(dataset.table.parcels.parcel_id.max(initial=0))
    tally = tally_cells(lines, dataset.plan.zone.geobox, last_parcel=last_parcel)
    failures = {tuple(cell["cell"]): cell["failures"] for cell in tally.cells}
    outcome = Outcome.of(dataset, failures, built=built, processing_units=tally.processing_units)
    statistics = summarise(dataset.plan.bands, tally.bands) if tally.bands else None
    changes: JsonObject = {"complete": outcome.complete, "statistics": statistics}
    concluded = replace(dataset, layout=replace(dataset.layout, attributes={**dataset.layout.attributes, **changes}))
    files = _files(concluded, tally, outcome)
    for name, data in files.items():
        folder.write(name, data)
    files |= {**dataset.metadata, f"{CUBE}/{ROOT}": update_attributes(folder, dataset.layout, changes)}
    stamps = {name: stamp_of(data) for name, data in files.items()}
    journal.merge(merged_journal([dataset.plan_line, *lines.splits], lines, stamps))
    return outcome


def _files(dataset: Dataset, tally: Tally, outcome: Outcome) -> dict[str, bytes]:
    """Tables, configuration, report and item by name."""
    files = {
        "chips.parquet": tally.chips,
        "sources.parquet": encode_sources(_sources(dataset, tally, outcome)),
        "config.yaml": dataset.config,
    }
    table, split, n_pixels = dataset.table, dataset.split, None
    if table is not None and split is not None:
        n_pixels = tally.parcel_pixels[table.parcels.parcel_id]
        files["parcels.parquet"] = encode_table(parcels_table(table, n_pixels=n_pixels, split=split))
    files["report.html"] = _report(dataset, tally, n_pixels)
    files["item.json"] = _item(dataset, tally, files)
    return files


def _sources(dataset: Dataset, tally: Tally, outcome: Outcome) -> list[JsonObject]:
    return source_items(dataset.plan, dataset.unusable, outcome.failures, tally.notes)


def _report(dataset: Dataset, tally: Tally, n_pixels: NDArray[np.int64] | None) -> bytes:
    facts = ReportFacts(
        folder=dataset.folder,
        region=dataset.region,
        plan=dataset.plan,
        cells=tally.cells,
        attributes=dataset.layout.attributes,
        table=dataset.table,
        n_pixels=n_pixels,
        split=dataset.split,
        taxonomy=dataset.taxonomy,
        unusable=dataset.unusable,
    )
    return render_report(facts).encode()


def _item(dataset: Dataset, tally: Tally, files: Mapping[str, bytes]) -> bytes:
    """`item.json`, which lists the other `files`."""
    facts = cube_facts(
        plan=dataset.plan,
        region=dataset.region,
        taxonomy=None if dataset.table is None else dataset.taxonomy,
        cells=tally.cells,
        attributes=dataset.layout.attributes,
        files={name: StoredFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    return encode_item(cube_item(facts))


def encode_item(item: JsonObject) -> bytes:
    """`item.json`."""
    return (json.dumps(item, indent=1, sort_keys=True) + "\n").encode()


def encode_table(table: object) -> bytes:
    """A table of `geo_table` as a Parquet file."""
    buffer = io.BytesIO()
    write_geo_table(buffer, table)
    return buffer.getvalue()


def stamp_of(data: bytes) -> list[int | str]:
    """Size and SHA-256, as the journal lists them."""
    return [len(data), hashlib.sha256(data).hexdigest()]


def merged_journal(
    head: Iterable[JsonObject], cells: Iterable[bytes], stamps: Mapping[str, list[int | str]]
) -> Iterator[bytes]:
    """Lines of the merged journal; the last has the stamps of all files that no cell line lists.

    Nothing is hashed from the disk: what is listed is what was meant to be written.
    """
    digest = hashlib.sha256()
    for line in chain(map(encode_line, head), cells):
        digest.update(line)
        yield line
    yield encode_line(files_line(stamps, digest.hexdigest()))
