"""Replace the splits of a finished set of patches: its index, the array `split` where it has one, statistics, item."""

from __future__ import annotations

import hashlib
import html
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import yaml

from sits_catalog.cube import VERSION, Split
from sits_pipeline.finish import encode_table, merged_journal, stamp_of
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, CellLines, Journal, is_being_built, read_journal, segments, split_under_way
from sits_pipeline.prepare import Listener
from sits_pipeline.resplit.carry_out import Resplit, with_files
from sits_pipeline.resplit.groups import PatchSplits
from sits_pipeline.resplit.opened import plain_table
from sits_pipeline.resplit.patch_rules import Table
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.steps.statistics import BandSums, accumulate, merge, summarise
from sits_pipeline.store import CUBE, ROOT
from sits_pipeline.store.patches import PatchLayout, conclude_patches, read_patch_layout, read_patches, write_patches
from sits_pipeline.values import JsonObject

__all__ = ["INDEX", "PatchSet", "open_patches", "split_patches"]

INDEX = "patches.parquet"
_FIRST, _LAST = "<!-- splits by sits-cube split -->", "<!-- /splits by sits-cube split -->"


@dataclass(frozen=True, kw_only=True)
class PatchSet:
    """A finished set of patches as it stands."""

    folder: Folder
    layout: PatchLayout
    table: Table
    """`patches.parquet`."""
    head: tuple[JsonObject, ...]
    """The journal's lines before those of its shards, but for earlier splits."""
    stamps: dict[str, list[int | str]]

    @property
    def name(self) -> str:
        """The name of the set."""
        return str(self.layout.attributes["region"])

    def config_sha256(self, splits: PatchSplits) -> str:
        """Of what it was built from, and of these splits."""
        plan = next(line for line in self.head if line["kind"] == "plan")
        fold = None if splits.fold is None else splits.fold.tolist()
        decided = [plan.get("built_sha256", plan["config_sha256"]), splits.split.tolist(), fold]
        return hashlib.sha256(json.dumps(decided).encode()).hexdigest()


def open_patches(folder: Folder) -> PatchSet:
    """Raises FileNotFoundError where there is no such set, ValueError where it cannot get other splits."""
    import pyarrow.parquet as pq

    layout = read_patch_layout(folder)
    if layout.attributes.get("version") != VERSION:
        raise ValueError(
            f"{folder.location} was written as sits-cube {layout.attributes.get('version')}; this program knows "
            f"{VERSION}: use the matching release"
        )
    if not folder.exists(MERGED) or is_being_built(folder):
        raise ValueError(
            f"{folder.location} has not been finished; run the command that builds it to go on, then split"
        )
    head, stamps = [], {}
    for entry in read_journal(folder):
        if entry["kind"] == "files":
            stamps = entry["files"]
            break
        if entry["kind"] not in ("cell", "split"):
            head.append(entry)
    table = plain_table(pq.read_table(io.BytesIO(folder.read(INDEX))))
    return PatchSet(folder=folder, layout=layout, table=table, head=tuple(head), stamps=stamps)


def split_patches(opened: PatchSet, splits: PatchSplits, told: JsonObject, listener: Listener) -> Resplit:
    """Write these splits to a set; `told` is what `config.yaml` says of them. The caller holds the set's lock."""
    folder, digest = opened.folder, opened.config_sha256(splits)
    count = int(opened.layout.attributes["cells"]["count"])
    if opened.layout.attributes["config_sha256"] == digest and not segments(folder):
        return _outcome(opened, splits, complete=bool(opened.layout.attributes["complete"]), built=0)
    under_way = split_under_way(folder)
    goes_on = under_way is not None and under_way.config_sha256 == digest
    done = under_way.cells if under_way is not None and goes_on else frozenset()
    folder.remove_partials()
    journal = Journal(folder)
    if not goes_on:
        journal.append({"kind": "split", "config_sha256": digest, "splits": told})
        journal.flush()
    conclude_patches(folder, opened.layout.with_attributes({"complete": False}))
    listener.stage(f"splitting {opened.name}")
    built = 0
    for entry in _new_shards(opened, splits, digest, done):
        journal.append(entry)
        built += 1
        listener.progress(len(done) + built, count)
    journal.flush()
    folder.remove_partials()
    return _finish(opened, splits, told, journal, built=built)


def _new_shards(
    opened: PatchSet, splits: PatchSplits, digest: str, done: frozenset[tuple[int, ...]]
) -> Iterator[JsonObject]:
    """The journal's entry of each shard that has its old splits still, when the new are written."""
    layout = opened.layout
    for line in CellLines(opened.folder):
        entry = json.loads(line)
        first, count = entry["cell"]
        if (first, count) in done:
            continue
        own, shards = splits.split[first : first + count], dict(entry["shards"])
        if "split" in layout.labels:
            block = np.broadcast_to(own[:, None, None], (count, layout.height, layout.width)).copy()
            written = write_patches(opened.folder, first, [("split", block)])
            shards = {key: stamp for key, stamp in shards.items() if not key.startswith("split/")}
            shards |= {key: [shard.size, shard.sha256] for key, shard in written.items()}
        yield {**entry, "bands": _sums(opened, splits, first, count), "shards": shards, "split_for": digest}


def _sums(opened: PatchSet, splits: PatchSplits, first: int, count: int) -> list[JsonObject]:
    """Sums of each band over the clear pixels of a shard's train patches; of all patches where none has a split."""
    train = splits.split[first : first + count] == Split.TRAIN
    if not splits.split.any():
        train[:] = True
    patches = slice(first, first + count)
    reflectance, quality = (read_patches(opened.folder, name, patches)[train] for name in ("reflectance", "quality"))
    every = reflectance.reshape(-1, *reflectance.shape[2:])  # (patch*time, band, y, x)
    return accumulate(every, clear_of(quality).reshape(-1, *quality.shape[2:]), None)


def _finish(opened: PatchSet, splits: PatchSplits, told: JsonObject, journal: Journal, *, built: int) -> Resplit:
    folder, digest, lines = opened.folder, opened.config_sha256(splits), CellLines(opened.folder)
    bands: list[BandSums] = []
    n_shards, failures = 0, False
    for line in lines:
        entry = json.loads(line)
        more = merge([entry["bands"]])
        bands = [a + b for a, b in zip(bands, more, strict=True)] if bands else more
        n_shards, failures = n_shards + 1, failures or bool(entry["failures"])
    complete = n_shards == int(opened.layout.attributes["cells"]["count"]) and not failures
    statistics = summarise(opened.layout.bands, bands) if bands else None
    changes: JsonObject = {"config_sha256": digest, "complete": complete, "statistics": statistics}
    files = _files(opened, splits, told, changes)
    for name, data in files.items():
        folder.write(name, data)
    files[f"{CUBE}/{ROOT}"] = conclude_patches(folder, opened.layout.with_attributes(changes))
    stamps = {**opened.stamps, **{name: stamp_of(data) for name, data in files.items()}}
    head = [_replanned(line, digest) if line["kind"] == "plan" else line for line in opened.head]
    journal.merge(merged_journal([*head, *lines.splits], lines, stamps))
    return _outcome(opened, splits, complete=complete, built=built)


def _replanned(line: JsonObject, digest: str) -> JsonObject:
    """The plan's line with the new configuration, and with the one that the set was built with."""
    return {**line, "config_sha256": digest, "built_sha256": line.get("built_sha256", line["config_sha256"])}


def _files(opened: PatchSet, splits: PatchSplits, told: JsonObject, changes: JsonObject) -> dict[str, bytes]:
    folder = opened.folder
    files = {
        INDEX: encode_table(_index(opened.table, splits)),
        "config.yaml": _config(folder.read("config.yaml").decode(), told),
        "report.html": _page(folder.read("report.html").decode(), splits).encode(),
    }
    item = json.loads(folder.read("item.json"))
    return {
        **files,
        "item.json": (json.dumps(with_files(item, files, changes), indent=1, sort_keys=True) + "\n").encode(),
    }


def _index(table: Table, splits: PatchSplits) -> Table:
    import pyarrow as pa

    words = pa.array([Split(int(code)).name.lower() for code in splits.split], pa.string())
    table = table.set_column(table.schema.get_field_index("split"), "split", words)
    if splits.fold is None:
        return table
    folds = pa.array([int(fold) or None for fold in splits.fold], pa.int32())
    return table.set_column(table.schema.get_field_index("fold"), "fold", folds)


def _config(text: str, told: JsonObject) -> bytes:
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    document = {**yaml.safe_load(text), "splits": told}
    return (head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)).encode()


def _page(page: str, splits: PatchSplits) -> str:
    """The report with a section on these splits before its end, in place of an earlier one's."""
    if _FIRST in page:
        before, _, rest = page.partition(_FIRST)
        page = before + rest.partition(_LAST)[2].lstrip("\n")
    counts = {code.name.lower(): int(np.count_nonzero(splits.split == code)) for code in Split}
    rows = "".join(f"<tr><td>{name}</td><td>{count}</td></tr>" for name, count in counts.items() if count)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in splits.notes)
    section = (
        f"{_FIRST}\n<section><h2>Splits, replaced</h2>\n<p>The patches were split anew after this page was written; "
        f"what is told of splits above was true before, and so are statistics.</p>\n"
        f"<table><tr><th>Split</th><th>Patches</th></tr>{rows}</table>{notes}\n</section>\n{_LAST}\n"
    )
    body, end, rest = page.rpartition("</main>")
    if not end:
        body, end, rest = page.rpartition("</body>")
    return f"{body}{section}{end}{rest}" if end else page + section


def _outcome(opened: PatchSet, splits: PatchSplits, *, complete: bool, built: int) -> Resplit:
    counts = {code.name.lower(): int(np.count_nonzero(splits.split == code)) for code in Split}
    size = opened.layout.height * opened.layout.width
    held = {name: count for name, count in counts.items() if count}
    return Resplit(
        name=opened.name,
        location=opened.folder.location,
        complete=complete,
        cells=int(opened.layout.attributes["cells"]["count"]),
        built=built,
        pixels={name: count * size for name, count in held.items()},
        parcels=held,
        notes=splits.notes,
        unit="patches",
    )
