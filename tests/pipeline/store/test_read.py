from __future__ import annotations

import numpy as np
import pytest
from tests.pipeline.small_cube import random_blocks, small_layout
from tests.pipeline.store.stored import array_of, write_all

from sits_pipeline.folder import Folder
from sits_pipeline.store import (
    create_cube,
    read_layout,
    read_shards,
    read_window,
    write_cell,
)
from sits_pipeline.values import Window


def test_a_window_is_read_with_all_or_some_dates(local: Folder) -> None:
    layout = small_layout((66, 132), n_dates=4)
    create_cube(local, layout)
    window = Window(row=0, column=0, height=66, width=132)
    blocks = random_blocks(layout, window, 0)
    write_cell(local, window, blocks.items())
    part = Window(row=10, column=70, height=20, width=30)
    here = np.s_[..., 10:30, 70:100]
    np.testing.assert_array_equal(read_window(local, "quality", part, dates=None), blocks["quality"][here])
    np.testing.assert_array_equal(read_window(local, "quality", part, dates=[3, 1]), blocks["quality"][[3, 1]][here])
    np.testing.assert_array_equal(read_window(local, "split", part, dates=[3, 1]), blocks["split"][here])


def test_reading_shard_by_shard_visits_every_pixel_once(local: Folder) -> None:
    layout = small_layout((516, 520))
    create_cube(local, layout)
    write_all(local, layout, 512)
    whole = np.zeros((516, 520), np.uint32)
    visits = np.zeros((516, 520), int)
    for window, values in read_shards(local, "parcel_id", dates=None):
        whole[window.rows, window.columns] = values
        visits[window.rows, window.columns] += 1
    assert (visits == 1).all()
    np.testing.assert_array_equal(whole, array_of(local, "parcel_id")[...])


def test_an_array_that_is_not_there_is_named(local: Folder) -> None:
    create_cube(local, small_layout((66, 132), has_labels=False))
    with pytest.raises(ValueError, match=r"the cube has no array crop_type; it has band, quality, reflectance"):
        read_window(local, "crop_type", Window(row=0, column=0, height=6, width=6), dates=None)


def test_a_folder_without_a_cube_has_no_layout(local: Folder) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no dataset in .*: it has no cube\.zarr; give the folder that holds it"
    ):
        read_layout(local)
