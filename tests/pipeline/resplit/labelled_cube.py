"""A dataset with parcels, labels and splits, but without imagery: as much as the check of splits reads."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from tests.pipeline.small_cube import small_layout

from sits_catalog.region import SplitRule
from sits_pipeline.folder import Folder
from sits_pipeline.geoparquet import geo_table, write_geo_table
from sits_pipeline.journal import MERGED
from sits_pipeline.splits import SplitAreas, area_raster, plan_splits, split_of_window, split_raster
from sits_pipeline.steps.chips import ChipFrame, chips_table, count_chips, merge_chips, place_chips
from sits_pipeline.store import create_cube, write_cell
from sits_pipeline.values import Parcels, Window

LEFT, TOP = 523560, 4832820
WORDS = ("none", "train", "validation", "test", "buffer")


def random_parcels(seed: int, count: int, height: int, width: int) -> Parcels:
    """Ragged stars, some with a hole, some over the edge; crops of four classes, the last one rare."""
    rng = np.random.default_rng(seed)
    shapes = []
    while len(shapes) < count:
        corners = int(rng.integers(3, 12))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = rng.uniform(20, 160, corners)
        x, y = LEFT + rng.uniform(-50, 10 * width + 50), TOP - rng.uniform(-50, 10 * height + 50)
        star = shapely.Polygon(np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)]))
        shape = shapely.make_valid(star, method="structure", keep_collapsed=False)
        if rng.random() < 0.3:
            shape = shapely.difference(shape, shapely.centroid(shape).buffer(15))
        if shape.geom_type in ("Polygon", "MultiPolygon") and shape.area > 0:
            shapes.append(shape)
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, count + 1, dtype=np.uint32),
        source_row=np.arange(count),
        crop_type=rng.choice([1, 2, 3, 4], count, p=[0.5, 0.3, 0.15, 0.05]).astype(np.uint16),
        geometry=np.array(shapes, dtype=object),
    )


def geobox_of(height: int, width: int) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")


def write_labelled(
    path: Path, parcels: Parcels, shape: tuple[int, int], rule: SplitRule, *, areas: tuple[SplitAreas, ...] = ()
) -> Folder:
    """The dataset of a plan made by `rule`; a parcel wins the pixels whose centre it holds, the last one of several."""
    box, folder = geobox_of(*shape), Folder(str(path))
    plan = plan_splits([parcels], [box], rule, areas=areas)
    split = split_raster(plan, parcels, box)
    chips = place_chips(parcels, box, split_of=split_of_window(plan, box))
    numbered = zip(parcels.geometry, parcels.parcel_id.tolist(), strict=True)
    drawn = rasterize(numbered, out_shape=shape, transform=box.affine, dtype="int32").astype(np.uint32)
    crops = np.append(0, parcels.crop_type)[drawn].astype(np.uint16)
    create_cube(folder, small_layout(shape, region="small", season={"start": "2018-01-01", "end": "2018-12-31"}))
    write_labels(folder, shape, {"split": split, "parcel_id": drawn, "crop_type": crops})
    write_parcels(folder, parcels, plan.parcel_split)
    write_chips(folder, shape, crops, drawn, split, chips=chips, ground=area_raster(plan, box))
    folder.write("config.yaml", yaml.safe_dump({"splits": asdict(rule)}).encode())
    folder.write(MERGED, b"{}\n")
    return folder


def write_labels(folder: Folder, shape: tuple[int, int], arrays: Mapping[str, NDArray[Any]]) -> None:
    write_cell(folder, Window(row=0, column=0, height=shape[0], width=shape[1]), arrays.items())


def write_parcels(folder: Folder, parcels: Parcels, split: NDArray[np.uint8]) -> None:
    import pyarrow as pa

    columns = {
        "parcel_id": pa.array(parcels.parcel_id),
        "source_key": pa.array([f"key-{number}" for number in parcels.parcel_id]),
        "split": pa.array([WORDS[code] for code in split]),
    }
    write_table(folder, "parcels.parquet", geo_table(columns, geometry=parcels.geometry, epsg=parcels.epsg))


def write_chips(
    folder: Folder,
    shape: tuple[int, int],
    crops: NDArray[np.uint16],
    drawn: NDArray[np.uint32],
    split: NDArray[np.uint8],
    *,
    chips: Sequence[ChipFrame] = (),
    ground: NDArray[np.uint8] | None = None,
) -> None:
    window = Window(row=0, column=0, height=shape[0], width=shape[1])
    counts = count_chips(window, chips, np.ones((1, *shape), bool), crops, drawn, split, ground=ground)
    write_table(folder, "chips.parquet", chips_table(merge_chips([counts]), geobox_of(*shape)))


def write_table(folder: Folder, name: str, table: Any) -> None:
    buffer = io.BytesIO()
    write_geo_table(buffer, table)
    folder.write(name, buffer.getvalue())
