from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from sits_catalog.cube import NO_DAY, patches_a_shard
from sits_pipeline.folder import Folder
from sits_pipeline.store import read_attributes, read_layout
from sits_pipeline.store.patches import (
    IMAGES,
    PatchLayout,
    conclude_patches,
    create_patches,
    patch_metadata,
    read_patches,
    write_patches,
)

SIDE = 1200
"""Patches of 3 dates and 2 bands are so large that three are a shard."""
DAYS = np.array([[100, 190, 280], [101, 191, NO_DAY], [102, 192, 282], [NO_DAY] * 3], np.int32)
LAYOUT = PatchLayout(
    days=DAYS,
    bands=("B02", "B8A"),
    height=SIDE,
    width=SIDE,
    attributes={"version": "1.0", "profile": "patches", "complete": False},
)


def block(name: str, n_patches: int, *, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    shape = (n_patches, 3, 2, SIDE, SIDE) if name == "reflectance" else (n_patches, 3, SIDE, SIDE)
    small = rng.integers(0, 200, shape[:-2], np.uint8)[..., None, None]
    return np.broadcast_to(small, shape).astype(np.uint16 if name == "reflectance" else np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(str(tmp_path / "set"))
    create_patches(folder, LAYOUT)
    return folder


def test_a_shard_holds_as_many_patches_as_64_mb_of_reflectance() -> None:
    # 5 x 10 x 276 x 276 x 2 bytes = 7.6 MB
    assert patches_a_shard(5, 10, 276, 276) == 8
    assert patches_a_shard(5, 3, 276, 276) == 28
    assert patches_a_shard(60, 10, 276, 276) == 1
    assert LAYOUT.shard == 3


def test_an_empty_store_has_a_chunk_a_patch_and_shards_of_whole_patches(folder: Folder) -> None:
    group = zarr.open_group(folder.path / "cube.zarr", mode="r")
    assert sorted(group) == ["band", "day", "quality", "reflectance", "scl", "source_index"]
    array = group["reflectance"]
    assert isinstance(array, zarr.Array)
    assert (array.shape, array.chunks, array.shards) == (
        (4, 3, 2, SIDE, SIDE), (1, 3, 2, SIDE, SIDE), (3, 3, 2, SIDE, SIDE),
    )  # fmt: skip
    assert [group[name].fill_value for name in IMAGES] == [0, 0, 0, 255]
    np.testing.assert_array_equal(group["day"][...], DAYS)
    assert read_attributes(folder) == LAYOUT.attributes


@pytest.mark.slow
def test_shards_come_back_as_they_were_written_with_their_hashes(folder: Folder) -> None:
    values = {name: [block(name, 3, seed=1), block(name, 1, seed=2)] for name in IMAGES}
    written = {}
    for first, part in ((0, 0), (3, 1)):
        written |= write_patches(folder, first, [(name, values[name][part]) for name in IMAGES])
    for name in IMAGES:
        np.testing.assert_array_equal(read_patches(folder, name, slice(0, 4)), np.concatenate(values[name]))
    np.testing.assert_array_equal(read_patches(folder, "scl", slice(2, 3)), values["scl"][0][2:])
    assert sorted(written) == sorted(
        [f"reflectance/c/{n}/0/0/0/0" for n in (0, 1)] + [f"{name}/c/{n}/0/0/0" for name in IMAGES[1:] for n in (0, 1)]
    )
    for key, stamp in written.items():
        data = (folder.path / "cube.zarr" / key).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (stamp.size, stamp.sha256)


def test_the_same_values_give_the_same_bytes(folder: Folder, tmp_path: Path) -> None:
    other = Folder(str(tmp_path / "other"))
    create_patches(other, LAYOUT)
    values = [("quality", block("quality", 3))]
    assert write_patches(folder, 0, values) == write_patches(other, 0, values)


def test_a_shard_without_an_observation_is_not_stored_and_replaces_one_that_was(folder: Folder) -> None:
    write_patches(folder, 3, [("quality", block("quality", 1))])
    assert folder.exists("cube.zarr/quality/c/1/0/0/0")
    assert write_patches(folder, 3, [("quality", np.zeros((1, 3, SIDE, SIDE), np.uint8))]) == {}
    assert not folder.exists("cube.zarr/quality/c/1/0/0/0")


@pytest.mark.parametrize(("first", "n_patches"), [(0, 2), (1, 3), (3, 3), (2, 1)])
def test_a_block_that_is_not_one_whole_shard_is_refused(folder: Folder, first: int, n_patches: int) -> None:
    with pytest.raises(ValueError, match=f"one whole shard of 3 patches; got {n_patches} from {first} on of 4"):
        write_patches(folder, first, [("scl", block("scl", n_patches))])


def test_metadata_are_a_function_of_the_layout_and_the_conclusion_changes_the_root_alone(folder: Folder) -> None:
    assert patch_metadata(LAYOUT) == patch_metadata(LAYOUT)
    before = {name: folder.read(name) for name in folder.files()}
    concluded = LAYOUT.with_attributes({"complete": True})
    assert conclude_patches(folder, concluded) == folder.read("cube.zarr/zarr.json")
    after = {name: folder.read(name) for name in folder.files()}
    assert [name for name in after if after[name] != before[name]] == ["cube.zarr/zarr.json"]
    assert read_attributes(folder) == {**LAYOUT.attributes, "complete": True}


def test_creating_again_leaves_nothing_of_an_earlier_store(folder: Folder) -> None:
    write_patches(folder, 3, [("quality", block("quality", 1))])
    folder.write("cube.zarr/old/zarr.json", b"{}")
    create_patches(folder, LAYOUT)
    assert {name.removeprefix("cube.zarr/") for name in folder.files()} == set(patch_metadata(LAYOUT))


def test_a_store_whose_creation_was_cut_short_counts_as_none(folder: Folder) -> None:
    creating = {"zarr_format": 3, "node_type": "group", "attributes": {"sits_cube": {"creating": True}}}
    folder.write("cube.zarr/zarr.json", json.dumps(creating).encode())
    assert read_attributes(folder) is None


def test_xarray_opens_it_with_days_as_a_coordinate_and_integers_as_integers(folder: Folder) -> None:
    write_patches(folder, 0, [(name, block(name, 3)) for name in IMAGES])
    with xr.open_zarr(folder.path / "cube.zarr", mask_and_scale=False) as found:
        assert dict(found.sizes) == {"patch": 4, "time": 3, "band": 2, "y": SIDE, "x": SIDE}
        assert found.reflectance.dtype == np.uint16
        assert found.day.dtype == np.int32
        assert "day" in found.coords
        assert found.sel(band="B8A").reflectance.dims == ("patch", "time", "y", "x")
        assert int(found.day[1, 2]) == NO_DAY
    with xr.open_zarr(folder.path / "cube.zarr") as decoded:
        assert decoded.quality.dtype == np.uint8
        assert decoded.day.dtype == np.int32
        assert decoded.reflectance.dtype == np.float64


def test_the_reader_of_regions_says_what_it_is(folder: Folder) -> None:
    with pytest.raises(ValueError, match="is of the profile 'patches'; this works on the profile 'region'"):
        read_layout(folder)
