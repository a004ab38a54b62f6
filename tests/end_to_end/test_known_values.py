"""Every reader gives the values that were there before anything was written: none is compared with another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  # the accessor `odc`
import pytest
import rioxarray  # noqa: F401  # the accessor `rio`
import xarray as xr
import zarr
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from tests.end_to_end.readers import with_gdal, with_tensorstore, with_zarrita, with_zarrs, zarrs_pipeline
from tests.pipeline.small_cube import LEFT, TOP, random_blocks, small_layout
from zarr.storage import LocalStore

from sits_pipeline.folder import Folder
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.store import array_paths, create_cube, write_cell

HEIGHT, WIDTH, SIDE = 36, 570, 512
"""Of the cube, which ends in mid-chunk, and of its cells: one whole and a part of one."""
GROUPS = ("", "overview", "labels_x2", "labels_x4")


@dataclass(frozen=True)
class Known:
    """A cube and what was written into it."""

    cube: Path
    values: dict[str, NDArray[Any]]
    """By path of the array."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Any value anywhere, but for `parcel_id`, which says where its pixel lies: its row x 1000 + its column."""
    layout = small_layout((HEIGHT, WIDTH), n_dates=3, n_bands=2, finer=(2, 4))
    values: dict[str, NDArray[Any]] = {}
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    where = (rows * 1000 + columns).astype(np.uint32)
    folder = Folder(str(tmp_path_factory.mktemp("known") / "data"))
    create_cube(folder, layout)
    for window in cells_of((HEIGHT, WIDTH), SIDE):
        blocks = random_blocks(layout, window, seed=11)
        blocks["parcel_id"] = where[:, window.column : window.column + window.width]
        write_cell(folder, window, blocks.items())
        for path, block in blocks.items():
            values[path] = np.concatenate([values[path], block], axis=-1) if path in values else block.copy()
    assert len(list(cells_of((HEIGHT, WIDTH), SIDE))) == 2
    assert sorted(values) == sorted(array_paths(layout))
    return Known(folder.path / "cube.zarr", values)


def by_group(known: Known, group: str) -> dict[str, NDArray[Any]]:
    """What was written into the arrays of a group, by name."""
    parts = {path: path.rpartition("/") for path in known.values}
    return {name: known.values[path] for path, (above, _, name) in parts.items() if above == group}


def test_zarr_python_gives_what_was_written(known: Known) -> None:
    group = zarr.open_group(known.cube, mode="r")
    for path, values in known.values.items():
        array = group[path]
        assert isinstance(array, zarr.Array)
        assert array.dtype == values.dtype, path
        assert_array_equal(np.asarray(array[...]), values, err_msg=path)


@pytest.mark.parametrize("group", GROUPS)
def test_xarray_gives_what_was_written(known: Known, group: str) -> None:
    expected = by_group(known, group)
    assert len(expected) == {"": 10, "overview": 2}.get(group, 3)
    with xr.open_zarr(known.cube, group=group or None, mask_and_scale=False) as ds:
        for name, values in expected.items():
            assert ds[name].dtype == values.dtype, name
            assert_array_equal(ds[name].values, values, err_msg=name)


def test_xarray_gives_reflectances_that_are_the_written_numbers_over_10_000(known: Known) -> None:
    written = known.values["reflectance"]
    with xr.open_zarr(known.cube) as ds:
        assert_array_equal(np.isnan(ds.reflectance.values), written == 0)
        seen = ds.reflectance.values[written > 0]
    np.testing.assert_allclose(seen, written[written > 0] / 10_000, rtol=1e-12)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (35, 569), (0, 569), (20, 511), (20, 512)])
def test_a_point_of_the_ground_has_the_value_that_was_written_there(known: Known, row: int, column: int) -> None:
    """By each program's own idea of where a pixel lies, asked for the box of a pixel in metres."""
    west, north = LEFT + 10 * column, TOP - 10 * row
    with xr.open_zarr(known.cube, mask_and_scale=False) as ds:
        by_centre = ds.parcel_id.sel(x=west + 5, y=north - 5)
        assert int(by_centre) == row * 1000 + column
        clipped = ds.parcel_id.rio.clip_box(west + 1, north - 9, west + 9, north - 1, allow_one_dimensional_raster=True)
        assert clipped.values.tolist() == [[row * 1000 + column]]
        right, down = ds.odc.geobox.wld2pix(west + 1, north - 9)
        assert int(ds.parcel_id[int(down), int(right)]) == row * 1000 + column


def test_tensorstore_gives_what_was_written(known: Known) -> None:
    for path, expected in known.values.items():
        values, _, dims = with_tensorstore({"driver": "file", "path": str(known.cube)}, path)
        assert (values.dtype, dims[-2:]) == (expected.dtype, ("y", "x"))
        assert_array_equal(values, expected, err_msg=path)


def test_zarrs_gives_what_was_written(known: Known) -> None:
    with zarrs_pipeline():
        for path, expected in known.values.items():
            assert_array_equal(with_zarrs(LocalStore(known.cube), path), expected, err_msg=path)


def test_zarrita_gives_what_was_written(known: Known, tmp_path: Path) -> None:
    found = with_zarrita(str(known.cube), {path: values.dtype for path, values in known.values.items()}, tmp_path)
    for path, expected in known.values.items():
        assert_array_equal(found[path][0], expected, err_msg=path)


@pytest.mark.slow
def test_gdal_gives_what_was_written(known: Known, tmp_path: Path) -> None:
    for path, expected in known.values.items():
        values, _ = with_gdal(str(known.cube), path, expected.dtype, tmp_path)
        assert_array_equal(values, expected.reshape(-1, *expected.shape[-2:]), err_msg=path)
