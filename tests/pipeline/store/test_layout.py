from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.small_cube import LEFT, TOP, random_blocks, small_layout
from tests.pipeline.store.stored import array_of

from sits_catalog.cube import ARRAYS, inner_chunk
from sits_pipeline.folder import Folder
from sits_pipeline.store import (
    CUBE,
    array_paths,
    create_cube,
    open_cube,
    write_cell,
)
from sits_pipeline.values import Window

ROOT_ARRAYS = """
reflectance       time,band,y,x  uint16  0
scl               time,y,x       uint8   0
quality           time,y,x       uint8   0
source_index      time,y,x       uint8   255
crop_type         y,x            uint16  65535
parcel_id         y,x            uint32  0
coverage          y,x            uint8   0
boundary_distance y,x            int16   -32768
conflict          y,x            uint8   0
split             y,x            uint8   0
"""


def test_the_root_group_has_the_arrays_of_the_contract(folder: Folder) -> None:
    create_cube(folder, small_layout((66, 132)))
    group = open_cube(folder)
    for line in ROOT_ARRAYS.split("\n")[1:-1]:
        name, dims, dtype, fill = line.split()
        array = array_of(folder, name)
        assert array.metadata.to_dict()["dimension_names"] == tuple(dims.split(","))
        assert array.dtype == np.dtype(dtype)
        assert int(array.fill_value) == int(fill)
        # Nothing is written yet, so that every pixel is fill.
        assert (np.asarray(array[...]) == int(fill)).all()
    coordinates = {"time", "sensing_time", "band", "x", "y", "spatial_ref"}
    assert set(group.array_keys()) == {line.split()[0] for line in ROOT_ARRAYS.split("\n")[1:-1]} | coordinates
    assert set(group.group_keys()) == {"overview"}


def test_coordinates_have_the_types_and_values_of_the_contract(folder: Folder) -> None:
    create_cube(folder, small_layout((66, 132)))
    values = {name: np.asarray(array_of(folder, name)[...]) for name in ("time", "sensing_time", "band", "x", "y")}
    assert values["time"].dtype == np.int32
    assert values["time"].tolist() == [17534, 17539]
    assert values["sensing_time"].dtype == np.int64
    assert values["sensing_time"].tolist() == [17534 * 86400 + 38421, 17539 * 86400 + 38421]
    assert values["band"].tolist() == ["B01", "B02"]
    assert values["x"].dtype == values["y"].dtype == np.float64
    assert values["x"].tolist() == [LEFT + 5 + 10 * i for i in range(132)]
    assert values["y"].tolist() == [TOP - 5 - 10 * i for i in range(66)]
    assert int(array_of(folder, "spatial_ref")[()]) == 32631  # type: ignore[arg-type]


def test_the_overview_has_eighth_pixels_centred_on_their_blocks(folder: Folder) -> None:
    create_cube(folder, small_layout((66, 132)))
    assert array_of(folder, "overview/reflectance").shape == (2, 2, 9, 17)
    assert array_of(folder, "overview/quality").shape == (2, 9, 17)
    assert np.asarray(array_of(folder, "overview/x")[...])[:2].tolist() == [LEFT + 40, LEFT + 120]
    assert np.asarray(array_of(folder, "overview/y")[...])[:2].tolist() == [TOP - 40, TOP - 120]
    assert array_of(folder, "overview/quality").attrs["spatial:transform"] == [80, 0, LEFT, 0, -80, TOP]


def test_finer_labels_nest_in_the_pixels(folder: Folder) -> None:
    create_cube(folder, small_layout((66, 132), finer=(2, 4)))
    for factor in (2, 4):
        for name in ("crop_type", "parcel_id", "coverage"):
            array = array_of(folder, f"labels_x{factor}/{name}")
            assert array.shape == (66 * factor, 132 * factor)
            assert array.dtype == np.dtype(ARRAYS[name].dtype)
            assert int(array.fill_value) == ARRAYS[name].fill
            assert array.chunks == (64, 64)
            assert array.attrs["spatial:transform"] == [10 / factor, 0, LEFT, 0, -10 / factor, TOP]
        x = np.asarray(array_of(folder, f"labels_x{factor}/x")[...])
        assert x[0] == LEFT + 5 / factor
        assert x[-1] == LEFT + 1320 - 5 / factor
        assert set(open_cube(folder)[f"labels_x{factor}"].keys()) == {  # type: ignore[union-attr]
            *("crop_type", "parcel_id", "coverage", "x", "y", "spatial_ref")
        }


def test_a_cube_without_parcels_has_no_label_arrays(folder: Folder) -> None:
    create_cube(folder, small_layout((66, 132), has_labels=False, finer=(2,)))
    group = open_cube(folder)
    coordinates = {"time", "sensing_time", "band", "x", "y", "spatial_ref"}
    assert set(group.array_keys()) == {"reflectance", "scl", "quality", "source_index"} | coordinates
    assert set(group.group_keys()) == {"overview"}


@pytest.mark.parametrize(
    ("n_dates", "n_bands", "dates_a_chunk", "shard_dates", "side"),
    [
        (1, 1, 1, 1, 512),
        (24, 10, 24, 24, 512),
        (76, 10, 76, 76, 512),
        (77, 10, 77, 77, 256),
        (254, 12, 254, 254, 256),
        (255, 12, 255, 255, 128),
        # Beyond 8192 dates and bands a chunk of 64 x 64 px would pass 64 MiB.
        (682, 12, 682, 682, 128),
        (683, 12, 342, 684, 128),
        (1017, 12, 509, 1018, 128),
    ],
)
def test_chunks_and_shards_are_those_of_the_contract(
    tmp_path: Path, n_dates: int, n_bands: int, dates_a_chunk: int, shard_dates: int, side: int
) -> None:
    folder = Folder(str(tmp_path))
    create_cube(folder, small_layout((66, 132), n_dates=n_dates, n_bands=n_bands, finer=(2, 4)))

    def layout_of(path: str) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        array = array_of(folder, path)
        return array.chunks, array.shards

    assert layout_of("reflectance") == ((dates_a_chunk, n_bands, 64, 64), (shard_dates, n_bands, side, side))
    for name in ("scl", "quality", "source_index"):
        assert layout_of(name) == ((dates_a_chunk, 64, 64), (shard_dates, side, side))
    for name in ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split"):
        assert layout_of(name) == ((64, 64), (side, side))
    assert layout_of("labels_x2/crop_type") == ((64, 64), (2 * side, 2 * side))
    assert layout_of("labels_x4/coverage") == ((64, 64), (4 * side, 4 * side))
    eighth = side // 8
    assert layout_of("overview/reflectance") == ((1, n_bands, eighth, eighth), (n_dates, n_bands, eighth, eighth))
    assert layout_of("overview/quality") == ((1, eighth, eighth), (n_dates, eighth, eighth))
    assert inner_chunk(n_dates, n_bands) == (dates_a_chunk, n_bands, 64, 64)


def test_pixels_are_zstd_with_bit_shuffle_and_the_shard_index_has_a_checksum(local: Folder) -> None:
    create_cube(local, small_layout((66, 132), finer=(2,)))
    for path in array_paths(small_layout((66, 132), finer=(2,))):
        (sharding,) = json.loads(local.read(f"{CUBE}/{path}/zarr.json"))["codecs"]
        assert sharding["name"] == "sharding_indexed"
        blosc = sharding["configuration"]["codecs"][-1]
        assert blosc["name"] == "blosc"
        assert blosc["configuration"]["cname"] == "zstd"
        assert blosc["configuration"]["shuffle"] == "bitshuffle"
        assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]


def test_only_reflectance_has_a_cf_fill_value_and_scale(local: Folder) -> None:
    layout = small_layout((66, 132), finer=(2,))
    create_cube(local, layout)
    for path in array_paths(layout):
        attributes = array_of(local, path).attrs.asdict()
        scaled = {name for name in ("_FillValue", "scale_factor", "add_offset") if name in attributes}
        assert scaled == ({"_FillValue", "scale_factor", "add_offset"} if path.endswith("reflectance") else set())
        assert attributes["grid_mapping"] == "spatial_ref"
        assert attributes["long_name"]
    reflectance = array_of(local, "reflectance").attrs
    assert (reflectance["_FillValue"], reflectance["scale_factor"], reflectance["add_offset"]) == (0, 0.0001, 0)
    assert reflectance["band_names"] == ["B01", "B02"] == open_cube(local).attrs["band_names"]


def test_codes_are_explained_by_flags(local: Folder) -> None:
    create_cube(local, small_layout((66, 132)))
    quality = array_of(local, "quality").attrs
    assert quality["flag_masks"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert quality["flag_meanings"] == (
        "observed cloud cloud_shadow snow_or_ice saturated_or_defective cirrus water unread"
    )
    assert array_of(local, "scl").attrs["flag_values"] == list(range(12))
    assert array_of(local, "conflict").attrs["flag_masks"] == [1, 2, 4]
    assert array_of(local, "split").attrs["flag_values"] == [0, 1, 2, 3, 4]
    assert array_of(local, "split").attrs["flag_meanings"] == "none train validation test buffer"
    assert array_of(local, "crop_type").attrs["classes"] == list(small_layout((6, 6)).classes)


def test_the_conventions_are_on_each_group_and_each_array(local: Folder) -> None:
    layout = small_layout((66, 132), finer=(2,))
    create_cube(local, layout)
    group = open_cube(local)
    nodes = [group, group["overview"], group["labels_x2"], *(group[path] for path in array_paths(layout))]
    for node in nodes:
        assert {one["name"] for one in node.attrs["zarr_conventions"]} == {"proj:", "spatial:"}  # type: ignore[union-attr,index,call-overload]
        assert node.attrs["proj:code"] == "EPSG:32631"
        assert node.attrs["spatial:dimensions"] == ["y", "x"]
    assert group.attrs["spatial:bbox"] == [LEFT, TOP - 660, LEFT + 1320, TOP]
    for path in array_paths(layout):
        array = array_of(local, path)
        assert array.attrs["spatial:shape"] == list(array.shape[-2:])


def test_two_empty_cubes_are_equal_byte_for_byte_wherever_they_lie(local: Folder, remote: Folder) -> None:
    for one in (local, remote):
        create_cube(one, small_layout((66, 132)))
    assert list(local.files()) == list(remote.files())
    assert all(local.read(name) == remote.read(name) for name in local.files())


def test_creating_again_starts_from_nothing(folder: Folder) -> None:
    layout = small_layout((66, 132))
    create_cube(folder, layout)
    before = {name: folder.read(name) for name in folder.files()}
    window = Window(row=0, column=0, height=66, width=132)
    write_cell(folder, window, random_blocks(layout, window, 0).items())
    create_cube(folder, layout)
    assert {name: folder.read(name) for name in folder.files()} == before
