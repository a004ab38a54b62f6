"""Replace the splits of a finished dataset, cell by cell: `split`, chips, statistics, and what is told of them.

The journal says first that it is begun. Until its end the cube is not complete, and a run that was cut short is taken
up by the same command, which goes on after the last cell that the journal lists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import Split
from sits_pipeline.cell import split_counts, split_of_cell
from sits_pipeline.finish import encode_config, encode_item, encode_table, merged_journal, stamp_of
from sits_pipeline.folder import Folder
from sits_pipeline.journal import CellLines, Journal, segments, split_under_way
from sits_pipeline.parcels import select_near
from sits_pipeline.plan.lattice import inside_strip
from sits_pipeline.prepare import Listener
from sits_pipeline.report import ReportFacts, replace_sections
from sits_pipeline.resplit.opened import PARCELS
from sits_pipeline.resplit.plan import Decided
from sits_pipeline.splits import area_raster
from sits_pipeline.steps.chips import ChipFrame
from sits_pipeline.steps.statistics import summarise
from sits_pipeline.store import CUBE, ROOT, read_window, update_attributes, write_cell
from sits_pipeline.tally import Tally, tally_cells
from sits_pipeline.tasks import ChipsNear, parcel_chips
from sits_pipeline.values import JsonObject, Window, epsg_of

__all__ = ["Resplit", "as_it_is", "carry_out", "is_done", "with_files"]

_ARRAY = "split"


@dataclass(frozen=True, kw_only=True)
class Resplit:
    """What has become of a dataset."""

    name: str
    location: str
    complete: bool
    cells: int
    built: int
    """Cells that this run computed; the others stood already."""
    pixels: dict[str, int]
    """Pixels a split."""
    parcels: dict[str, int]
    """Parcels, or patches, a split."""
    notes: tuple[str, ...]
    """What could not be had, in sentences."""
    unit: str = "parcels"
    """What `parcels` counts."""


def is_done(decided: Decided) -> bool:
    """Whether a dataset has these splits already."""
    opened = decided.opened
    same = opened.layout.attributes["config_sha256"] == decided.config_sha256
    return same and not segments(opened.folder)


def as_it_is(decided: Decided) -> Resplit:
    """What a dataset that has these splits already says of them; nothing is written."""
    opened = decided.opened
    lines = CellLines(opened.folder)
    tally = tally_cells(lines, opened.layout.geobox, last_parcel=int(opened.parcels.parcel_id.max(initial=0)))
    return _outcome(decided, tally, complete=bool(opened.layout.attributes["complete"]), built=0)


def carry_out(decided: Decided, listener: Listener) -> Resplit:
    """Write these splits to their dataset; the caller holds its lock."""
    opened = decided.opened
    folder = opened.folder
    under_way = split_under_way(folder)
    goes_on = under_way is not None and under_way.config_sha256 == decided.config_sha256
    done = under_way.cells if under_way is not None and goes_on else frozenset()
    folder.remove_partials()
    journal = Journal(folder)
    if not goes_on:
        # From here on, and until it is merged, the old and the new are mixed.
        journal.append(decided.split_line)
        journal.flush()
    update_attributes(folder, opened.layout, {"complete": False})
    total, built = int(opened.layout.attributes["cells"]["count"]), 0
    listener.stage(f"splitting {opened.name}")
    for entry in _new_cells(decided, done):
        journal.append(entry)
        built += 1
        listener.progress(len(done) + built, total)
    journal.flush()
    folder.remove_partials()
    listener.stage(f"finishing {opened.name}")
    return _finish(decided, journal, built=built)


# Cells


def _new_cells(decided: Decided, done: frozenset[tuple[int, ...]]) -> Iterator[JsonObject]:
    """The journal's entry of each cell that has its old splits still, when its shards of the new are written."""
    opened = decided.opened
    tree = shapely.STRtree(opened.parcels.geometry)
    has_chips = opened.plan_line.get("chips") == "parcel"
    chips = ChipsNear(parcel_chips(opened.parcels, opened.zone, decided.splits) if has_chips else ())
    for line in CellLines(opened.folder):
        entry = json.loads(line)
        if tuple(entry["cell"]) in done:
            continue
        row, column, height, width = entry["cell"]
        window = Window(row=row, column=column, height=height, width=width)
        yield _new_cell(decided, entry, window, tree, chips.of(window))


def _new_cell(
    decided: Decided, entry: JsonObject, window: Window, tree: shapely.STRtree, chips: Sequence[ChipFrame]
) -> JsonObject:
    opened, folder = decided.opened, decided.opened.folder
    geobox: GeoBox = opened.layout.geobox[window.rows, window.columns]
    near = select_near(opened.parcels, tree, geobox)
    inside = inside_strip(geobox, epsg_of(geobox)) if opened.zone.clip_to_strip else None
    labels = {name: read_window(folder, name, window, dates=None) for name in ("crop_type", "parcel_id")}
    winners = [labels["parcel_id"], *(_finer(folder, factor, window) for factor in opened.layout.finer)]
    labels[_ARRAY] = split_of_cell(decided.splits.only(near, geobox), near, geobox, inside, winners)
    reflectance, quality = (read_window(folder, name, window, dates=None) for name in ("reflectance", "quality"))
    ground = area_raster(decided.splits, geobox)
    counts = split_counts(window, chips, reflectance, quality, labels, ground=ground)
    written = write_cell(folder, window, [(_ARRAY, labels[_ARRAY])])
    kept = {key: stamp for key, stamp in entry["shards"].items() if not key.startswith(f"{_ARRAY}/")}
    shards = {**kept, **{key: [shard.size, shard.sha256] for key, shard in written.items()}}
    return {**entry, **counts, "shards": shards, "split_for": decided.config_sha256}


def _finer(folder: Folder, factor: int, window: Window) -> NDArray[np.uint32]:
    """`parcel_id` of a cell on a finer lattice."""
    row, column, height, width = (factor * size for size in (window.row, window.column, window.height, window.width))
    finer = Window(row=row, column=column, height=height, width=width)
    return read_window(folder, f"labels_x{factor}/parcel_id", finer, dates=None)


# All that is no pixel


def _finish(decided: Decided, journal: Journal, *, built: int) -> Resplit:
    """Write tables, item, configuration and report, then the cube's root, and the merged journal last."""
    opened, folder = decided.opened, decided.opened.folder
    lines = CellLines(folder)
    tally = tally_cells(lines, opened.layout.geobox, last_parcel=int(opened.parcels.parcel_id.max(initial=0)))
    cells = int(opened.layout.attributes["cells"]["count"])
    complete = len(tally.cells) == cells and not any(cell["failures"] for cell in tally.cells)
    changes: JsonObject = {
        "config_sha256": decided.config_sha256,
        "complete": complete,
        "statistics": summarise(opened.layout.bands, tally.bands) if tally.bands else None,
    }
    files = _files(decided, tally, changes)
    for name, data in files.items():
        folder.write(name, data)
    files[f"{CUBE}/{ROOT}"] = update_attributes(folder, opened.layout, changes)
    stamps = {**opened.stamps, **{name: stamp_of(data) for name, data in files.items()}}
    journal.merge(merged_journal([decided.plan_line, *lines.splits], lines, stamps))
    return _outcome(decided, tally, complete=complete, built=built)


def _files(decided: Decided, tally: Tally, changes: JsonObject) -> dict[str, bytes]:
    opened = decided.opened
    split = decided.splits.splits_of(opened.parcels.parcel_id)
    facts = ReportFacts(
        folder=opened.folder,
        region=decided.region,
        plan=opened.zone_plan(decided.splits, decided.config_sha256),
        cells=tally.cells,
        attributes={**opened.layout.attributes, **changes},
        table=opened.parcel_table,
        n_pixels=opened.n_pixels,
        split=split,
        taxonomy=opened.taxonomy,
        unusable=(),
    )
    files = {
        "chips.parquet": tally.chips,
        PARCELS: encode_table(opened.with_split(split)),
        "config.yaml": encode_config(decided.document),
        "report.html": replace_sections(opened.folder.read("report.html").decode(), facts).encode(),
    }
    item = json.loads(opened.folder.read("item.json"))
    return {**files, "item.json": encode_item(with_files(item, files, changes))}


def with_files(item: JsonObject, files: Mapping[str, bytes], changes: JsonObject) -> JsonObject:
    """A STAC item with size and checksum of these files, and what has changed of the cube."""
    properties = dict(item["properties"])
    for key in ("config_sha256", "complete"):
        properties[f"sits_cube:{key}"] = changes[key]
    assets = {}
    for name, asset in item["assets"].items():
        data = files.get(str(asset["href"]).removeprefix("./"))
        if data is not None:
            size, sha256 = stamp_of(data)
            # A multihash: 0x12 is SHA-256, 0x20 its length in bytes.
            asset = {**asset, "file:size": size, "file:checksum": f"1220{sha256}"}
        assets[name] = asset
    return {**item, "properties": properties, "assets": assets}


def _outcome(decided: Decided, tally: Tally, *, complete: bool, built: int) -> Resplit:
    opened = decided.opened
    pixels: Counter[int] = Counter()
    for cell in tally.cells:
        pixels.update({int(code): int(count) for code, count in cell["splits"].items()})
    codes, counts = np.unique(decided.splits.splits_of(opened.parcels.parcel_id), return_counts=True)
    parcels = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    return Resplit(
        name=opened.name,
        location=opened.folder.location,
        complete=complete,
        cells=len(tally.cells),
        built=built,
        pixels={code.name.lower(): pixels[code] for code in Split if pixels[code]},
        parcels={code.name.lower(): parcels[code] for code in Split if parcels.get(code)},
        notes=decided.splits.notes,
    )
