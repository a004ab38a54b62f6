"""Conclude a build: statistics, tables, STAC item, report and the merged journal; reads the journal, never pixels."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

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
from sits_pipeline.journal import Journal, encode_line, read_journal
from sits_pipeline.lineage import encode_sources, source_items
from sits_pipeline.parcels import ParcelTable, parcels_table
from sits_pipeline.plan import ZonePlan
from sits_pipeline.report import ReportFacts, render_report
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.steps.chips import chips_table, merge_chips
from sits_pipeline.steps.statistics import merge, summarise
from sits_pipeline.store import CUBE, read_attributes, update_attributes
from sits_pipeline.values import JsonObject
from sits_pipeline.verify import files_line

__all__ = ["Outcome", "finish"]

Cells = Mapping[tuple[int, ...], JsonObject]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has become of one dataset."""

    name: str
    location: str
    complete: bool
    cells: int
    built: int
    """Cells that this run computed; the others stood already."""
    failures: tuple[JsonObject, ...]
    """Sources that could not be read: {cell, day, item, band, error}."""
    refused: tuple[str, ...]
    """Items that are not used because they are broken, with the reason."""
    unknown_codes: tuple[str, ...]

    @classmethod
    def of(cls, plan: ZonePlan, folder: Folder, cells: Cells, table: ParcelTable | None, *, built: int) -> Self:
        """The outcome, from the plan and the journal."""
        failures = failures_of(cells)
        return cls(
            name=plan.zone.name,
            location=folder.location,
            complete=len(cells) == plan.n_cells and not failures,
            cells=plan.n_cells,
            built=built,
            failures=tuple(failures),
            refused=tuple(f"{r.scene.id}: {r.reason}" for r in plan.refusals if r.status == "failed"),
            unknown_codes=() if table is None else tuple(table.unknown_codes),
        )


def failures_of(cells: Cells) -> list[JsonObject]:
    """All failures of a build, each with its cell."""
    return [{"cell": list(key), **failure} for key, entry in sorted(cells.items()) for failure in entry["failures"]]


def finish(
    folder: Folder,
    journal: Journal,
    cells: Cells,
    *,
    plan: ZonePlan,
    region: Region,
    table: ParcelTable | None,
    taxonomy: Taxonomy | None,
    unusable: Sequence[UnusableItem],
    built: int,
) -> Outcome:
    """Write everything of a dataset that is no pixel, and say whether it is complete.

    A repeat is harmless: every file is written whole, the journal last, so that a finish that was cut short is
    simply done again.
    """
    outcome = Outcome.of(plan, folder, cells, table, built=built)
    ordered = [cells[key] for key in sorted(cells)]
    n_pixels = None if table is None else parcel_pixels(table, ordered)
    split = None if table is None else _splits(plan, table)
    sums = merge(entry["bands"] for entry in ordered)
    changes: JsonObject = {"complete": outcome.complete, "statistics": summarise(plan.bands, sums) if sums else None}
    attributes = {**(read_attributes(folder) or {}), **changes}
    files = {
        "chips.parquet": _parquet(chips_table(merge_chips(ordered), plan.zone.geobox)),
        "sources.parquet": encode_sources(source_items(plan, unusable, outcome.failures)),
        "config.yaml": _config(region),
    }
    if table is not None and n_pixels is not None and split is not None:
        files["parcels.parquet"] = _parquet(parcels_table(table, n_pixels=n_pixels, split=split))
    report = ReportFacts(
        folder=folder,
        region=region,
        plan=plan,
        cells=ordered,
        attributes=attributes,
        table=table,
        n_pixels=n_pixels,
        split=split,
        taxonomy=taxonomy,
        unusable=unusable,
    )
    files["report.html"] = render_report(report).encode()
    stored = {name: StoredFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    item = cube_item(
        cube_facts(
            plan=plan,
            region=region,
            taxonomy=None if table is None else taxonomy,
            cells=ordered,
            attributes=attributes,
            files=stored,
        )
    )
    files["item.json"] = (json.dumps(item, indent=1, sort_keys=True) + "\n").encode()
    for name, data in files.items():
        folder.write(name, data)
    update_attributes(folder, changes)
    _merge_journal(folder, journal, ordered)
    return outcome


def parcel_pixels(table: ParcelTable, cells: Iterable[JsonObject]) -> NDArray[np.int64]:
    """Pixels that each parcel of the table has won."""
    counts: Counter[int] = Counter()
    for entry in cells:
        counts.update({int(number): pixels for number, pixels in entry["parcels"].items()})
    return np.array([counts[int(number)] for number in table.parcels.parcel_id], np.int64)


def _splits(plan: ZonePlan, table: ParcelTable) -> NDArray[np.uint8]:
    if plan.splits is None:
        return np.zeros(len(table), np.uint8)
    return plan.splits.splits_of(table.parcels.parcel_id)


def _parquet(table: object) -> bytes:
    buffer = io.BytesIO()
    write_geo_table(buffer, table)
    return buffer.getvalue()


def _config(region: Region) -> bytes:
    head = "# The resolved configuration of this dataset; `sits-build --region` reads it again.\n"
    return (head + yaml.safe_dump(dump_region(region), sort_keys=False, allow_unicode=True)).encode()


def _merge_journal(folder: Folder, journal: Journal, cells: Sequence[JsonObject]) -> None:
    """Turn the segments into one file whose last line has the hash of everything that no cell line lists."""
    header = next(entry for entry in read_journal(folder) if entry["kind"] == "plan")
    entries = [header, *cells]
    lines = b"".join(encode_line(entry) for entry in entries)
    listed = {f"{CUBE}/{key}" for entry in cells for key in entry["shards"]}
    hashes: dict[str, list[int | str]] = {}
    for name in folder.files():
        if name in listed or name == "journal.jsonl" or name.startswith("journal/") or name.endswith(".partial"):
            continue
        data = folder.read(name)
        hashes[name] = [len(data), hashlib.sha256(data).hexdigest()]
    journal.merge([*entries, files_line(hashes, lines)])
