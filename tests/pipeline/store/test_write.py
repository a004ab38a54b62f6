from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from tests.pipeline.small_cube import fill_blocks, random_blocks, small_layout
from tests.pipeline.store.stored import array_of, shards_of, write_all

from sits_catalog.cube import ARRAYS
from sits_pipeline.folder import Folder
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.store import (
    CUBE,
    array_paths,
    create_cube,
    update_attributes,
    write_cell,
)
from sits_pipeline.values import Window


@pytest.mark.slow
def test_what_is_written_in_cells_is_read_back(folder: Folder) -> None:
    layout = small_layout((516, 520), n_dates=3, finer=(2,))
    create_cube(folder, layout)
    write_all(folder, layout, 512)
    for window in cells_of((516, 520), 512):
        for path, block in random_blocks(layout, window, 0).items():
            scale = {"overview": 1 / 8, "labels_x2": 2, "": 1}[path.rpartition("/")[0]]
            rows, columns = (int(start * scale) for start in (window.row, window.column))
            height, width = block.shape[-2:]
            part = array_of(folder, path)[..., rows : rows + height, columns : columns + width]
            np.testing.assert_array_equal(part, block, err_msg=path)


def test_xarray_opens_the_cube_with_the_meaning_of_its_values(local: Folder) -> None:
    layout = small_layout((66, 132))
    create_cube(local, layout)
    window = Window(row=0, column=0, height=66, width=132)
    blocks = random_blocks(layout, window, 0)
    write_cell(local, window, blocks.items())
    update_attributes(local, layout, {"complete": True})
    with xr.open_zarr(local.path / CUBE) as cube:
        assert dict(cube.sizes) == {"time": 2, "band": 2, "y": 66, "x": 132}
        assert cube.time.values.astype("datetime64[D]").astype(str).tolist() == ["2018-01-03", "2018-01-08"]
        assert str(cube.sensing_time.values[0])[:19] == "2018-01-03T10:40:21"
        assert cube.band.values.tolist() == ["B01", "B02"]
        assert cube.reflectance.dtype == np.float64
        expected = np.where(blocks["reflectance"] == 0, np.nan, blocks["reflectance"] * 0.0001)
        np.testing.assert_allclose(cube.reflectance.values, expected)
        np.testing.assert_array_equal((cube.quality & 2).values, blocks["quality"] & 2)
        for name in ("scl", "quality", "source_index", "crop_type", "parcel_id", "boundary_distance"):
            assert cube[name].dtype == np.dtype(ARRAYS[name].dtype)
            np.testing.assert_array_equal(cube[name].values, blocks[name])
    with xr.open_zarr(local.path / CUBE, mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube.reflectance.values, blocks["reflectance"])


@pytest.mark.slow
def test_returned_sizes_and_hashes_are_those_of_the_stored_objects(folder: Folder) -> None:
    layout = small_layout((516, 520), finer=(2,))
    create_cube(folder, layout)
    for window in cells_of((516, 520), 512):
        written = write_cell(folder, window, random_blocks(layout, window, 1).items())
        assert list(written) == sorted(written)
        # One shard an array: the cell is one shard wide.
        assert len(written) == len(array_paths(layout))
        for key, shard in written.items():
            data = folder.read(f"{CUBE}/{key}")
            assert shard.size == len(data)
            assert shard.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
def test_the_stored_bytes_do_not_depend_on_cells_threads_or_store(tmp_path: Path, remote: Folder) -> None:
    layout = small_layout((516, 520), finer=(2,))

    def build(folder: Folder, side: int) -> dict[str, str]:
        create_cube(folder, layout)
        hashes = write_all(folder, layout, side)
        assert hashes == shards_of(folder)
        return hashes

    whole = Folder(str(tmp_path / "whole"))
    create_cube(whole, layout)
    everything = Window(row=0, column=0, height=516, width=520)
    blocks = {path: np.zeros(array_of(whole, path).shape, array_of(whole, path).dtype) for path in array_paths(layout)}
    for window in cells_of((516, 520), 512):
        for path, block in random_blocks(layout, window, 0).items():
            scale = {"overview": 1 / 8, "labels_x2": 2, "": 1}[path.rpartition("/")[0]]
            rows, columns = (int(start * scale) for start in (window.row, window.column))
            blocks[path][..., rows : rows + block.shape[-2], columns : columns + block.shape[-1]] = block
    write_cell(whole, everything, blocks.items())
    expected = shards_of(whole)

    assert build(remote, 512) == expected
    for workers in (1, 3):
        with zarr.config.set({"threading.max_workers": workers, "async.concurrency": workers}):
            assert build(Folder(str(tmp_path / str(workers))), 512) == expected


@pytest.mark.slow
def test_cells_may_be_written_by_several_threads_at_once(local: Folder, tmp_path: Path) -> None:
    layout = small_layout((516, 520))
    create_cube(local, layout)
    one_by_one = Folder(str(tmp_path / "one-by-one"))
    create_cube(one_by_one, layout)
    expected = write_all(one_by_one, layout, 512)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(
            lambda window: write_cell(local, window, random_blocks(layout, window, 0).items()),
            cells_of((516, 520), 512),
        )
        hashes = {key: shard.sha256 for part in parts for key, shard in part.items()}
    assert hashes == expected == shards_of(local)


def test_a_shard_without_a_value_is_not_stored(folder: Folder) -> None:
    layout = small_layout((516, 520), finer=(2,))
    create_cube(folder, layout)
    window = Window(row=0, column=0, height=512, width=512)
    assert write_cell(folder, window, fill_blocks(layout, window).items()) == {}
    assert shards_of(folder) == {}


def test_a_shard_that_is_written_again_without_a_value_is_removed(folder: Folder) -> None:
    layout = small_layout((516, 520))
    create_cube(folder, layout)
    window, other = list(cells_of((516, 520), 512))[:2]
    write_cell(folder, window, random_blocks(layout, window, 0).items())
    kept = write_cell(folder, other, random_blocks(layout, other, 0).items())
    assert write_cell(folder, window, fill_blocks(layout, window).items()) == {}
    assert set(shards_of(folder)) == set(kept)


def test_writing_a_cell_again_leaves_the_same_bytes_or_the_new_ones(folder: Folder) -> None:
    layout = small_layout((66, 132))
    create_cube(folder, layout)
    window = Window(row=0, column=0, height=66, width=132)
    first = write_cell(folder, window, random_blocks(layout, window, 0).items())
    assert write_cell(folder, window, random_blocks(layout, window, 0).items()) == first
    second = write_cell(folder, window, random_blocks(layout, window, 1).items())
    assert shards_of(folder) == {key: shard.sha256 for key, shard in second.items()}


@pytest.mark.parametrize(
    ("row", "column", "height", "width"),
    [(0, 0, 500, 512), (0, 0, 512, 500), (64, 0, 512, 512), (0, 8, 512, 504), (0, 0, 540, 513)],
)
def test_a_block_that_is_not_made_of_whole_shards_is_refused(
    local: Folder, row: int, column: int, height: int, width: int
) -> None:
    create_cube(local, small_layout((1080, 1080)))
    block = np.ones((height, width), np.uint8)
    window = Window(row=row, column=column, height=height, width=width)
    with pytest.raises(
        ValueError, match=r"a cell must cover whole shards of 512 px in split; got pixels \d+ to \d+ of"
    ):
        write_cell(local, window, [("split", block)])
    assert shards_of(local) == {}


def test_a_block_of_another_size_than_the_cell_is_refused(local: Folder) -> None:
    create_cube(local, small_layout((1080, 1080)))
    window = Window(row=0, column=0, height=512, width=512)
    with pytest.raises(ValueError, match="a block of split must have the cell's 512 px; got 1024"):
        write_cell(local, window, [("split", np.ones((1024, 512), np.uint8))])
    with pytest.raises(ValueError, match="a block of overview/quality must have the cell's 64 px; got 63"):
        write_cell(local, window, [("overview/quality", np.ones((2, 64, 63), np.uint8))])


def test_a_group_is_no_array(local: Folder) -> None:
    create_cube(local, small_layout((66, 132)))
    window = Window(row=0, column=0, height=66, width=132)
    with pytest.raises(TypeError, match="overview is a group of the cube, not an array"):
        write_cell(local, window, [("overview", np.ones((66, 132), np.uint8))])


@pytest.mark.slow
def test_a_series_longer_than_a_chunk_is_read_back(local: Folder) -> None:
    layout = small_layout((6, 12), n_dates=683, n_bands=12)
    create_cube(local, layout)
    window = Window(row=0, column=0, height=6, width=12)
    blocks = random_blocks(layout, window, 0)
    write_cell(local, window, blocks.items())
    for path, block in blocks.items():
        np.testing.assert_array_equal(array_of(local, path)[...], block, err_msg=path)
