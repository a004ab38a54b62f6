"""Conclude the dataset of a location set: statistics, tables, STAC item, report and the merged journal.

All of it comes from the plan and the journal; of the store, only the report's thumbnails are read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import yaml

from sits_catalog.loading import dump_region
from sits_catalog.stac import StoredFile
from sits_pipeline.finish import Outcome, merged_journal, stamp_of
from sits_pipeline.folder import Folder
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.journal import MERGED, CellLines, Journal
from sits_pipeline.lineage import encode_sources
from sits_pipeline.patches.item import patches_item
from sits_pipeline.patches.page import render_patches
from sits_pipeline.patches.place import line_of
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.patches.tables import PatchNotes, patch_sources, patches_table
from sits_pipeline.steps.statistics import BandSums, merge, summarise
from sits_pipeline.store import CUBE, ROOT
from sits_pipeline.store.patches import PatchLayout, conclude_patches, patch_metadata
from sits_pipeline.values import JsonObject

__all__ = ["KNOWN_FILES", "PatchDataset", "finish_patches", "outcome_of"]

KNOWN_FILES = ("patches.parquet", "sources.parquet", "item.json", "config.yaml", "report.html", MERGED)
"""Every file of a dataset outside of its store."""


@dataclass(frozen=True, kw_only=True)
class PatchDataset:
    """A dataset that is being built: where, and what decides all of it but the pixels."""

    folder: Folder
    layout: PatchLayout
    plan: PatchPlan
    unusable: tuple[tuple[str, str], ...]
    request_sha256: str
    is_service: bool
    """Whether a service was asked for what was chosen, so that the journal holds addresses as well."""

    @property
    def plan_line(self) -> JsonObject:
        """The journal's first line, and one of every run's segments."""
        return {
            "kind": "plan",
            "config_sha256": self.plan.config_sha256,
            "request_sha256": self.request_sha256,
            "cells": self.plan.n_cells,
            "patches": self.plan.n_patches,
        }

    def location_lines(self) -> Iterator[JsonObject]:
        """The journal's lines of what was chosen, patch by patch."""
        for chosen in self.plan.chosen:
            line = line_of(chosen, self.request_sha256, assets=self.is_service)
            if line is not None:
                yield line

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """The files of the empty store by name; the root's is another one once the dataset is concluded."""
        return {f"{CUBE}/{key}": data for key, data in patch_metadata(self.layout).items()}

    @cached_property
    def config(self) -> bytes:
        """`config.yaml`."""
        wanted = self.plan.wanted
        region = dump_region(wanted.as_region())
        plain = {key: region[key] for key in ("id", "title", "season", "imagery")}
        rule = {name: getattr(wanted.rule, name) for name in wanted.rule.__dataclass_fields__}
        whole = {**plain, "patches": {**rule, "locations": self.plan.n_patches}}
        head = "# The resolved configuration of this location set; its locations are in patches.parquet.\n"
        return (head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)).encode()


@dataclass
class _Tally:
    """What the journal says of all shards together."""

    notes: dict[int, PatchNotes] = field(default_factory=dict)
    """By patch."""
    bands: list[BandSums] = field(default_factory=list)
    failures: dict[tuple[int, ...], Sequence[JsonObject]] = field(default_factory=dict)
    """Of every shard that is built."""
    remarks: dict[str, set[str]] = field(default_factory=dict)
    """What services said of how an item was read, by item."""
    processing_units: float = 0.0

    def add(self, entry: JsonObject) -> None:
        """Count one shard in."""
        first, count = entry["cell"]
        self.failures[first, count] = entry["failures"]
        self.processing_units += entry.get("processing_units", 0.0)
        for remark in entry.get("notes", ()):
            self.remarks.setdefault(remark["item"], set()).add(remark["note"])
        more = merge([entry["bands"]])
        self.bands = [a + b for a, b in zip(self.bands, more, strict=True)] if self.bands else more
        for index in range(count):
            failed = tuple(one for one in entry["failures"] if one["patch"] == first + index)
            self.notes[first + index] = PatchNotes(
                observed=tuple(entry["observed"][index]), clear=tuple(entry["clear"][index]), failures=failed
            )


def _tally(lines: Iterable[bytes]) -> _Tally:
    tally = _Tally()
    for line in lines:
        tally.add(json.loads(line))
    return tally


def outcome_of(dataset: PatchDataset, lines: Iterable[bytes], *, built: int) -> Outcome:
    """What has become of the dataset, from the plan and the journal's lines of its shards."""
    return _outcome(dataset, _tally(lines), built=built)


def _outcome(dataset: PatchDataset, tally: _Tally, *, built: int) -> Outcome:
    plan = dataset.plan
    listed = [{"cell": list(key), **failure} for key, found in sorted(tally.failures.items()) for failure in found]
    refused = {scene.id: verdict.reason for chosen in plan.chosen for scene, verdict in chosen.refused}
    refused |= dict(dataset.unusable)
    lines = [f"{name}: {reason}" for name, reason in sorted(refused.items())]
    without = [chosen.spot.location.id for chosen in plan.chosen if not chosen.acquisitions]
    if without:
        named = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        lines.append(f"{len(without)} of {plan.n_patches} locations, for want of acquisitions: {named}")
    return Outcome(
        name=plan.wanted.id,
        location=dataset.folder.location,
        complete=len(tally.failures) == plan.n_cells and not listed,
        cells=plan.n_cells,
        built=built,
        processing_units=tally.processing_units,
        failures=tuple(listed),
        refused=tuple(lines),
        unknown_codes=(),
        unit="shards",
    )


def finish_patches(dataset: PatchDataset, journal: Journal, *, built: int) -> Outcome:
    """Write everything of a dataset that is no pixel, and say whether it is complete; `built`: shards of this run.

    A repeat is harmless: every file is written whole, the journal last, so that a finish that was cut short is simply
    done again.
    """
    journal.flush()
    folder, lines = dataset.folder, CellLines(dataset.folder)
    tally = _tally(lines)
    outcome = _outcome(dataset, tally, built=built)
    statistics = summarise(dataset.layout.bands, tally.bands) if tally.bands else None
    layout = dataset.layout.with_attributes({"complete": outcome.complete, "statistics": statistics})
    files = _files(replace(dataset, layout=layout), tally, outcome)
    for name, data in files.items():
        folder.write(name, data)
    files |= {**dataset.metadata, f"{CUBE}/{ROOT}": conclude_patches(folder, layout)}
    stamps = {name: stamp_of(data) for name, data in files.items()}
    journal.merge(merged_journal(chain([dataset.plan_line], dataset.location_lines()), lines, stamps))
    return outcome


def _files(dataset: PatchDataset, tally: _Tally, outcome: Outcome) -> dict[str, bytes]:
    """Tables, configuration, report and item by name."""
    buffer = io.BytesIO()
    write_geo_table(buffer, patches_table(dataset.plan, tally.notes))
    said = {item: tuple(sorted(found)) for item, found in sorted(tally.remarks.items())}
    files = {
        "patches.parquet": buffer.getvalue(),
        "sources.parquet": encode_sources(patch_sources(dataset.plan, dataset.unusable, outcome.failures, said)),
        "config.yaml": dataset.config,
        "report.html": render_patches(dataset.folder, dataset.plan, dataset.layout, tally.notes, outcome).encode(),
    }
    stored = {name: StoredFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    item = patches_item(dataset.plan, dataset.layout.attributes, stored)
    files["item.json"] = (json.dumps(item, indent=1, sort_keys=True) + "\n").encode()
    return files
