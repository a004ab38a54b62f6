"""A small region of 300 x 200 px with splits, made up here; its edge cuts windows of every size."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from tests.pipeline.small_cube import small_layout

from sits_catalog.cube import IGNORE, Split
from sits_pipeline.folder import Folder
from sits_pipeline.store import create_cube, write_cell
from sits_pipeline.store.layout import CubeLayout
from sits_pipeline.values import Window

HEIGHT, WIDTH = 300, 200
CODES = {2: 25, 5: 3, 9: 13}
"""Of the classes by index, which has gaps: numbers that the loaders of MTLCC and T31TFM_1618 know both."""


CLASSES = tuple(
    {"index": index, "code": str(code), "name": f"crop {code}", "hcat": "3301010100", "colour": "#c0a000"}
    for index, code in CODES.items()
)


@dataclass(frozen=True)
class MadeRegion:
    """The dataset; its arrays are read by zarr alone."""

    folder: Folder
    layout: CubeLayout

    def array(self, name: str) -> NDArray[Any]:
        """All of an array, with fill value to multiples of 768 px below and to the right."""
        group = zarr.open_group(self.folder.path / "cube.zarr", mode="r")
        stored = group[name]
        assert isinstance(stored, zarr.Array)
        values = np.asarray(stored[...])
        edge = [(0, 0)] * (values.ndim - 2) + [(0, 768 - size) for size in values.shape[-2:]]
        return np.pad(values, edge, constant_values=stored.fill_value)


def make_region(path: Path, *, n_bands: int = 12, n_dates: int = 3, splits: bool = True, **changes: Any) -> MadeRegion:
    """Rows 0..127 train, 128..255 validation, the others test; a buffer of 4 px at each border; three classes."""
    attributes = {"complete": True, "region": "made", "config_sha256": "0" * 64, **changes}
    layout = small_layout((HEIGHT, WIDTH), n_dates=n_dates, n_bands=n_bands, **attributes)
    layout = replace(layout, classes=CLASSES)
    folder = Folder(str(path))
    create_cube(folder, layout)
    rng = np.random.default_rng(5)
    size = (n_dates, n_bands, HEIGHT, WIDTH)
    observed = rng.random((n_dates, HEIGHT, WIDTH)) > 0.1
    split = np.repeat(np.array([Split.TRAIN, Split.VALIDATION, Split.TEST], np.uint8), 128)[:HEIGHT]
    split[124:132] = split[252:260] = Split.BUFFER
    crop_type = rng.choice(np.array([0, *CODES, IGNORE], np.uint16), (HEIGHT, WIDTH))
    crop_type[:, 144:] = IGNORE  # nothing is known in the east
    blocks: dict[str, NDArray[Any]] = {
        "reflectance": np.where(observed[:, None], rng.integers(1, 9000, size), 0).astype(np.uint16),
        "quality": observed.astype(np.uint8),
        "crop_type": crop_type,
        "parcel_id": rng.integers(0, 20_000_000, (HEIGHT, WIDTH)).astype(np.uint32),
        "coverage": rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8),
        "conflict": rng.choice(np.array([0, 2, 6, 1, 5], np.uint8), (HEIGHT, WIDTH)),
        "split": np.repeat(split[:, None], WIDTH, axis=1) if splits else np.zeros((HEIGHT, WIDTH), np.uint8),
    }
    write_cell(folder, Window(row=0, column=0, height=HEIGHT, width=WIDTH), blocks.items())
    chips = pa.table({"split": ["train", "validation", "test"] if splits else ["none"] * 3})
    buffer = io.BytesIO()
    pq.write_table(chips, buffer)
    folder.write("chips.parquet", buffer.getvalue())
    return MadeRegion(folder, layout)
