from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from tests.pipeline.small_cube import LEFT, TOP, fill_blocks, random_blocks, small_layout

from sits_catalog.cube import ARRAYS, inner_chunk
from sits_pipeline.folder import Folder
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.store import (
    CUBE,
    CubeLayout,
    array_paths,
    create_cube,
    metadata_files,
    open_cube,
    read_attributes,
    read_layout,
    read_shards,
    read_window,
    repair_metadata,
    update_attributes,
    write_cell,
)
from sits_pipeline.values import Window, shape_of


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "data"))


@pytest.fixture
def remote() -> Iterator[Folder]:
    name = f"store-{uuid.uuid4().hex}"
    yield Folder(f"memory://{name}")
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest) -> Folder:
    return request.getfixturevalue(str(request.param))  # type: ignore[no-any-return]


def array_of(folder: Folder, path: str) -> zarr.Array[Any]:
    found = open_cube(folder)[path]
    assert isinstance(found, zarr.Array)
    return found


def write_all(folder: Folder, layout: CubeLayout, side: int, seed: int = 0) -> dict[str, str]:
    """Write random pixels cell by cell; SHA-256 by key."""
    hashes = {}
    for window in cells_of(shape_of(layout.geobox), side):
        written = write_cell(folder, window, random_blocks(layout, window, seed).items())
        hashes.update({key: shard.sha256 for key, shard in written.items()})
    return hashes


def shards_of(folder: Folder) -> dict[str, str]:
    """SHA-256 of every stored pixel shard, by key."""
    cube = folder.sub(CUBE)
    pixels = tuple(f"{path}/c/" for path in array_paths(read_layout(folder)))
    return {name: hashlib.sha256(cube.read(name)).hexdigest() for name in cube.files() if name.startswith(pixels)}


# The empty cube


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


# Attributes


def test_there_are_no_attributes_before_a_cube_is_there(folder: Folder) -> None:
    assert read_attributes(folder) is None
    create_cube(folder, small_layout((66, 132), region="herault"))
    assert read_attributes(folder) == {"version": "1.0", "profile": "region", "complete": False, "region": "herault"}


def test_a_cube_whose_creation_was_cut_short_counts_as_none(local: Folder) -> None:
    zarr.create_group(local.path / CUBE, attributes={"sits_cube": {"creating": True}})
    assert read_attributes(local) is None


def test_a_creation_that_is_cut_short_anywhere_is_taken_up(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = small_layout((66, 132))
    real = Folder.write
    n_files = len(metadata_files(layout)) + 1
    for survived in (0, 1, n_files // 2, 1, n_files - 1):
        left = survived

        def killed(self: Folder, name: str, data: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            real(self, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                create_cube(local, layout)
        assert read_attributes(local) is None
    create_cube(local, layout)
    assert read_attributes(local) == layout.attributes
    assert {name: local.read(f"{CUBE}/{name}") for name in local.sub(CUBE).files()} == metadata_files(layout)


def test_metadata_that_are_missing_or_differ_are_restored(folder: Folder) -> None:
    layout = small_layout((66, 132))
    create_cube(folder, layout)
    before = {name: folder.read(name) for name in folder.files()}
    files = metadata_files(layout)
    assert repair_metadata(folder, files) == []
    folder.remove(f"{CUBE}/x/c/0")
    folder.write(f"{CUBE}/scl/zarr.json", before[f"{CUBE}/scl/zarr.json"].replace(b"uint8", b"uint9"))
    folder.write(f"{CUBE}/time/c/0", b"")
    assert repair_metadata(folder, files) == ["scl/zarr.json", "time/c/0", "x/c/0"]
    assert {name: folder.read(name) for name in folder.files()} == before


def test_a_group_that_is_no_cube_is_refused(local: Folder) -> None:
    zarr.create_group(local.path / CUBE)
    with pytest.raises(ValueError, match=r"is no sits-cube: its zarr\.json does not say so; choose another --out"):
        read_attributes(local)


def test_changed_attributes_leave_the_others_and_the_arrays_alone(folder: Folder) -> None:
    layout = small_layout((66, 132), region="herault")
    create_cube(folder, layout)
    before = {name: folder.read(name) for name in folder.files()}
    written = update_attributes(folder, layout, {"complete": True, "statistics": {"mean": [0.1, 0.2]}})
    assert folder.read(f"{CUBE}/zarr.json") == written
    expected = {**layout.attributes, "complete": True, "statistics": {"mean": [0.1, 0.2]}}
    assert read_attributes(folder) == expected
    assert open_cube(folder).attrs["proj:code"] == "EPSG:32631"
    after = {name: folder.read(name) for name in folder.files()}
    assert {name for name in after if after[name] != before[name]} == {f"{CUBE}/zarr.json"}
    folder.write(f"{CUBE}/zarr.json", b"{}")
    update_attributes(folder, layout, {"complete": True, "statistics": {"mean": [0.1, 0.2]}})
    assert {name: folder.read(name) for name in folder.files()} == after


def test_a_layout_is_read_back_as_it_was_written(folder: Folder) -> None:
    for layout in (small_layout((66, 132), finer=(2, 4)), small_layout((6, 60), has_labels=False, n_dates=1)):
        create_cube(folder, layout)
        found = read_layout(folder)
        assert found.geobox == layout.geobox
        assert (found.bands, found.days, found.sensing_times) == (layout.bands, layout.days, layout.sensing_times)
        assert (found.has_labels, found.finer) == (layout.has_labels, layout.finer)
        assert found.classes == (layout.classes if layout.has_labels else ())
        assert found.attributes == layout.attributes


# Writing


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


# Reading windows


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
