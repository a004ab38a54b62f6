"""A small finished dataset, written with the pipeline's own writers from arrays that are made up here."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import VERSION
from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, Place, Region, Season, SplitRule
from sits_catalog.stac import StoredFile, cube_item
from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.describe import cube_facts
from sits_pipeline.folder import Folder
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.journal import encode_line
from sits_pipeline.lineage import encode_sources, source_items
from sits_pipeline.parcels import ParcelTable, parcels_table
from sits_pipeline.parcels.table import Dropped
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.splits import plan_splits, split_raster
from sits_pipeline.steps.chips import chips_table, count_chips, merge_chips
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.steps.overview import overview_of
from sits_pipeline.steps.statistics import accumulate, merge, summarise
from sits_pipeline.store import CubeLayout, create_cube, update_attributes, write_cell
from sits_pipeline.values import Acquisition, JsonObject, Parcels, Refusal, Scene, Verdict, Window

EPSG = 32631
LEFT, TOP = 525_000, 5_394_000
BANDS = ("B02", "B03", "B04", "B08")


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """The dataset and everything it was made from."""

    folder: Folder
    region: Region
    plan: ZonePlan
    table: ParcelTable
    taxonomy: Taxonomy
    unusable: tuple[UnusableItem, ...]
    cells: tuple[JsonObject, ...]
    attributes: JsonObject
    n_pixels: NDArray[np.int64]
    split: NDArray[np.uint8]
    reflectance: NDArray[np.uint16]
    """(time, band, y, x)"""
    quality: NDArray[np.uint8]
    crop_type: NDArray[np.uint16]
    parcel_id: NDArray[np.uint32]


def make_dataset(path: Path, *, height: int = 540, width: int = 576, n_dates: int = 4, title: str = "") -> Synthetic:
    """Write a dataset of square parcels of 30 px; one cell, one date with a source that could not be read."""
    box = GeoBox((height, width), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    taxonomy = _taxonomy()
    table = _table(box, taxonomy)
    region = Region(
        id="tiny",
        title=title or "A tiny simulated region",
        season=Season(start=date(2021, 10, 1), end=date(2022, 9, 30)),
        place=Place(bbox=tuple(float(v) for v in shapely.bounds(to_lonlat(shapely.box(*box.boundingbox.bbox), EPSG)))),
        imagery=Imagery(source="simulated", bands=BANDS, dates=n_dates),
        parcels=ParcelSource(path="parcels.parquet", attribution="Nobody <script>", licence="CC0"),
        splits=SplitRule(block_m=1280),
    )
    plan = ZonePlan(
        zone=Zone(name="tiny", geobox=box, area=shapely.box(*box.boundingbox.bbox), clip_to_strip=True),
        bands=BANDS,
        acquisitions=tuple(_acquisition(number, n_dates, box) for number in range(n_dates)),
        refusals=_refusals(box),
        splits=plan_splits([table.parcels], [box], region.splits),
        cell_px=1024,
        config_sha256="0" * 63 + "a",
    )
    reflectance, quality, crop_type, parcel_id = _pixels(box, table, n_dates)
    folder = Folder(str(path))
    attributes = _attributes(plan)
    layout = _layout(plan, taxonomy, attributes)
    create_cube(folder, layout)
    entry = _write(folder, plan, table, reflectance, quality, crop_type, parcel_id)
    sums = merge([entry["bands"]])
    changes = {"complete": False, "statistics": summarise(BANDS, sums)}
    update_attributes(folder, layout, changes)
    made = Synthetic(
        folder=folder,
        region=region,
        plan=plan,
        table=table,
        taxonomy=taxonomy,
        unusable=(UnusableItem(id="S2X_<b>odd</b>", reason="it has no footprint & no assets", item={}),),
        cells=(entry,),
        attributes={**attributes, **changes},
        n_pixels=np.array([entry["parcels"].get(str(n), 0) for n in table.parcels.parcel_id.tolist()], np.int64),
        split=plan.splits.splits_of(table.parcels.parcel_id),
        reflectance=reflectance,
        quality=quality,
        crop_type=crop_type,
        parcel_id=parcel_id,
    )
    _write_files(made)
    return made


def _taxonomy() -> Taxonomy:
    names = ("winter wheat", "maize", "vine <&> grapes")
    colours = ("#e0b040", "#4f9d3a", "#8040a0")
    classes = tuple(
        CropClass(index=i, code=f"c{i}", name=name, colour=colour)
        for i, (name, colour) in enumerate(zip(names, colours, strict=True), 1)
    )
    return Taxonomy(id="tiny", classes=classes, codes={c.code: c.index for c in classes})


def _table(box: GeoBox, taxonomy: Taxonomy) -> ParcelTable:
    """Squares of 24 px, 30 px apart, and a sliver that wins no pixel."""
    height, width = box.shape
    squares = [
        shapely.box(LEFT + x * 10 + 13, TOP - y * 10 - 253, LEFT + x * 10 + 253, TOP - y * 10 - 13)
        for y in range(0, height - 25, 30)
        for x in range(0, width - 25, 30)
    ]
    squares.append(shapely.box(LEFT + 11, TOP - 9, LEFT + 300, TOP - 7))
    n = len(squares)
    codes = [f"c{1 + i % 3}" for i in range(n)]
    codes[5], codes[6] = "what?<i>", None
    crop_type = np.array([taxonomy.classify(code) for code in codes], np.uint16)
    flags = np.zeros(n, np.uint8)
    flags[[1, 2]], flags[-1] = 1, 4
    parcels = Parcels(
        epsg=EPSG,
        parcel_id=np.arange(1, n + 1, dtype=np.uint32),
        source_row=np.arange(n),
        crop_type=crop_type,
        geometry=np.array(squares, object),
    )
    names = [None if i == 65535 else taxonomy.classes[i - 1].name for i in crop_type.tolist()]
    return ParcelTable(
        parcels=parcels,
        source_key=np.array([f"key-{i:05d}" for i in range(n)], object),
        source_code=np.array(codes, object),
        crop_name=np.array(names, object),
        hcat_code=np.array([None] * n, object),
        flags=flags,
        taxonomy=taxonomy,
        unknown_codes={"what?<i>": 1},
        dropped=(Dropped(row=17, reason="it has no geometry"),),
        notes=("1 parcel lies <outside>",),
    )


def _scene(number: int, day: date, box: GeoBox, tile: str = "31UEP", baseline: str = "04.00") -> Scene:
    sensed = datetime(day.year, day.month, day.day, 10, 50, 20, tzinfo=UTC)
    return Scene(
        id=f"S2A_{tile}_{day:%Y%m%d}_{number}_L2A",
        provider="simulated",
        collection="sentinel-2-l2a",
        sensed=sensed,
        platform="sentinel-2a" if number % 2 else "sentinel-2b",
        orbit=8,
        mgrs_tile=tile,
        epsg=EPSG,
        baseline=baseline,
        cloud_cover=12.5,
        footprint=to_lonlat(shapely.box(*box.boundingbox.bbox).buffer(5000), EPSG),
        datatake=None,
        datastrip=None,
        generated=None,
        assets={},
        declared_offset=-1000,
        offset_is_firm=False,
        item={"properties": {}, "assets": {}, "links": []},
    )


def _verdict(*, audited: int | None = -1000, reason: str = "") -> Verdict:
    return Verdict(
        declared=-1000,
        audited=audited,
        applied=-1000 if audited is None else audited,
        medians={"B02": 1300.0, "B04": 1280.0},
        n_pixels=9000,
        refused=False,
        reason=reason,
    )


def _acquisition(number: int, n_dates: int, box: GeoBox) -> Acquisition:
    day = date(2021, 10, 20) + timedelta(days=number * (330 // n_dates))
    liar = _verdict(audited=0, reason="metadata ask for -1000, but the pixels hold no offset (B02 400, B04 380)")
    verdicts = (liar if number == 1 else _verdict(), _verdict(audited=None, reason="too few pixels"))
    return Acquisition(
        day=day,
        scenes=(_scene(number, day, box), _scene(number, day, box, tile="31UEQ", baseline="03.01")),
        verdicts=verdicts,
    )


def _refusals(box: GeoBox) -> tuple[Refusal, ...]:
    day = date(2022, 1, 1)
    return (
        Refusal(scene=_scene(90, day, box), status="superseded", reason="a newer copy is used: S2A_other"),
        Refusal(
            scene=_scene(91, day, box), status="failed", reason="pixels contradict a firm rule", verdict=_verdict()
        ),
    )


def _pixels(
    box: GeoBox, table: ParcelTable, n_dates: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint32]]:
    height, width = box.shape
    y, x = np.mgrid[:height, :width]
    columns = len(range(0, width - 25, 30))
    number = (y // 30) * columns + np.minimum(x // 30, columns - 1) + 1
    inside = (y % 30 >= 1) & (y % 30 < 25) & (x % 30 >= 1) & (x % 30 < 25)
    inside &= (y // 30 < len(range(0, height - 25, 30))) & (x // 30 < columns)
    parcel_id = np.where(inside, number, 0).astype(np.uint32)
    crop_type = np.where(inside, np.append(0, table.parcels.crop_type)[parcel_id], 0).astype(np.uint16)
    crops = np.where(crop_type == 65535, 4, crop_type).astype(np.int64)
    reflectance = np.empty((n_dates, len(BANDS), height, width), np.uint16)
    quality = np.ones((n_dates, height, width), np.uint8)
    for t in range(n_dates):
        green = np.array([200, 900, 1500, 700, 500])[crops] * (1 + np.sin(3.14 * t / n_dates))
        for b, base in enumerate((500, 700, 600, 2200)):
            sign = 1 if BANDS[b] == "B08" else -0.2
            reflectance[t, b] = np.clip(base + sign * green + (x * 7 + y * 3) % 97, 1, None)
        cloud = (x - 60 * t) ** 2 + (y - 200) ** 2 < (40 + 25 * t) ** 2
        reflectance[t][:, cloud] = 7000
        quality[t][cloud] |= 2
    reflectance[0, :, :, -40:] = 0
    quality[0, :, -40:] = 0
    reflectance[-1, :, :30] = 0
    quality[-1, :30] = 128
    return reflectance, quality, crop_type, parcel_id


def _attributes(plan: ZonePlan) -> JsonObject:
    return {
        "version": VERSION,
        "profile": "region",
        "region": "tiny",
        "season": {"start": "2021-10-01", "end": "2022-09-30"},
        "radiometry": {
            "level": "L2A",
            "scale": 0.0001,
            "offset_removed": True,
            "clamp": 1,
            "baselines": ["03.01", "04.00"],
        },
        "simulated": True,
        "created": "2026-01-01T00:00:00Z",
        "software": "sits-cubes 0.1.0",
        "complete": False,
        "config_sha256": plan.config_sha256,
        "cells": {"side": 1024, "rows": 1, "columns": 1, "count": 1},
        "statistics": None,
    }


def _layout(plan: ZonePlan, taxonomy: Taxonomy, attributes: JsonObject) -> CubeLayout:
    return CubeLayout(
        geobox=plan.zone.geobox,
        bands=plan.bands,
        days=tuple(a.day for a in plan.acquisitions),
        sensing_times=tuple(a.sensing_time for a in plan.acquisitions),
        has_labels=True,
        finer=(2,),
        classes=tuple(
            {"index": c.index, "code": c.code, "name": c.name, "hcat": c.hcat, "colour": c.colour}
            for c in taxonomy.classes
        ),
        attributes=attributes,
    )


def _write(
    folder: Folder,
    plan: ZonePlan,
    table: ParcelTable,
    reflectance: NDArray[np.uint16],
    quality: NDArray[np.uint8],
    crop_type: NDArray[np.uint16],
    parcel_id: NDArray[np.uint32],
) -> JsonObject:
    """Write the pixels and return the journal entry of the one cell."""
    assert plan.splits is not None
    height, width = plan.zone.geobox.shape
    window = Window(row=0, column=0, height=height, width=width)
    split = split_raster(plan.splits, table.parcels, plan.zone.geobox)
    overview = [overview_of(*pair) for pair in zip(reflectance, quality, strict=True)]
    shape = (2 * height, 2 * width)
    written = write_cell(
        folder,
        window,
        {
            "reflectance": reflectance,
            "scl": np.where(quality & 2, 9, np.where(quality & 1, 4, 0)).astype(np.uint8),
            "quality": quality,
            "source_index": np.where(quality & 1, 0, 255).astype(np.uint8),
            "overview/reflectance": np.stack([means for means, _ in overview]),
            "overview/quality": np.stack([bits for _, bits in overview]),
            "crop_type": crop_type,
            "parcel_id": parcel_id,
            "coverage": np.where(parcel_id > 0, 255, 0).astype(np.uint8),
            "boundary_distance": np.where(parcel_id > 0, 50, -50).astype(np.int16),
            "conflict": np.zeros((height, width), np.uint8),
            "split": split,
            "labels_x2/crop_type": crop_type.repeat(2, 0).repeat(2, 1).reshape(shape),
            "labels_x2/parcel_id": parcel_id.repeat(2, 0).repeat(2, 1).reshape(shape),
            "labels_x2/coverage": np.full(shape, 255, np.uint8),
        }.items(),
    )
    clear = clear_of(quality)
    days = [a.day.isoformat() for a in plan.acquisitions]
    failure = {"day": days[-1], "item": plan.acquisitions[-1].scenes[0].id, "band": "B04", "error": "truncated <file>"}
    return {
        "kind": "cell",
        "cell": [0, 0, height, width],
        "empty": False,
        "observed": [int(np.count_nonzero(q & 1)) for q in quality],
        "clear": [int(np.count_nonzero(c)) for c in clear],
        "used": [[0] for _ in quality],
        "failures": [failure],
        "classes": _histogram(crop_type),
        "parcels": {key: n for key, n in _histogram(parcel_id).items() if key != "0"},
        "splits": _histogram(split),
        "bands": accumulate(reflectance, clear, split == 1),
        **count_chips(window, (), clear, crop_type, parcel_id, split),
        "shards": {key: [shard.size, shard.sha256] for key, shard in written.items()},
        "seconds": 1.0,
    }


def _histogram(values: NDArray[np.generic]) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {str(v): int(n) for v, n in zip(found, counts, strict=True)}


def _write_files(made: Synthetic) -> None:
    folder = made.folder
    buffer = io.BytesIO()
    write_geo_table(buffer, chips_table(merge_chips(made.cells), made.plan.zone.geobox))
    folder.write("chips.parquet", buffer.getvalue())
    buffer = io.BytesIO()
    write_geo_table(buffer, parcels_table(made.table, n_pixels=made.n_pixels, split=made.split))
    folder.write("parcels.parquet", buffer.getvalue())
    sources = source_items(made.plan, made.unusable, made.cells[0]["failures"], {})
    folder.write("sources.parquet", encode_sources(sources))
    folder.write("config.yaml", b"id: tiny\n")
    folder.write("report.html", b"<!doctype html>\n")
    stored = {
        name: StoredFile(size=folder.size(name) or 0, sha256="ab" * 32)
        for name in ("chips.parquet", "parcels.parquet", "sources.parquet", "config.yaml", "report.html")
    }
    facts = cube_facts(
        plan=made.plan,
        region=made.region,
        taxonomy=made.taxonomy,
        cells=made.cells,
        attributes=made.attributes,
        files=stored,
    )
    folder.write("item.json", json.dumps(cube_item(facts)).encode())
    plan_line = {"kind": "plan", "config_sha256": made.plan.config_sha256}
    folder.write("journal.jsonl", b"".join(encode_line(entry) for entry in (plan_line, *made.cells)))
