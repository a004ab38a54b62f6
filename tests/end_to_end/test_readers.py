"""Half a pixel matters: every reader agrees on corner, centre, CRS and values of every array that it can open."""

from __future__ import annotations

from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  # the accessor `odc`
import pytest
import rasterio
import rioxarray  # the accessor `rio`
import xarray as xr
import zarr
from affine import Affine
from numpy.testing import assert_array_equal
from odc.geo.geobox import GeoBox
from pyproj import CRS
from tests.end_to_end.building import SMALL, Dataset
from tests.end_to_end.readers import with_gdal, with_tensorstore, with_zarrita, with_zarrs, zarrs_pipeline
from zarr.storage import LocalStore

from sits_catalog.cube import ARRAYS, LABEL_ARRAYS, NO_DAY
from sits_pipeline.exporters.cog import COG_ARRAYS, export_cog
from sits_pipeline.folder import Folder
from sits_pipeline.store.patches import PatchLayout, create_patches, write_patches

EPSG = 32631
LEFT, TOP = 525_300.0, 5_393_400.0
"""Upper-left corner of the upper-left pixel, 30 and 60 pixels from the corner of the simulated land."""
HEIGHT, WIDTH = 126, 198
PIXEL_M = {"": 10.0, "overview": 80.0, "labels_x2": 5.0, "labels_x4": 2.5}
"""Groups and the side of their pixels."""
GROUPS = list(PIXEL_M)


def shape_of(group: str) -> tuple[int, int]:
    """Height and width of a group's arrays, cut at the extent's edge or, in the overview, reaching beyond it."""
    return int(-(-HEIGHT * 10 // PIXEL_M[group])), int(-(-WIDTH * 10 // PIXEL_M[group]))


def geobox_of(group: str) -> GeoBox:
    size = PIXEL_M[group]
    return GeoBox(shape_of(group), Affine(size, 0, LEFT, 0, -size, TOP), f"EPSG:{EPSG}")


def arrays_of(dataset: Dataset, group: str) -> dict[str, zarr.Array[Any]]:
    """The pixel arrays of a group, by name."""
    node = dataset.group[group] if group else dataset.group
    return {name: array for name, array in node.arrays() if array.ndim >= 2}


def all_paths(dataset: Dataset) -> list[str]:
    """Paths of all arrays, coordinates too."""
    return sorted(name for name, node in dataset.group.members(max_depth=None) if isinstance(node, zarr.Array))


def open_xarray(dataset: Dataset, group: str, **options: Any) -> xr.Dataset:
    return xr.open_zarr(dataset.cube, group=group or None, **options)


def test_the_dataset_has_every_array(small):
    assert small.complete
    assert (SMALL.affine.c, SMALL.affine.f, *SMALL.shape) == (LEFT, TOP, HEIGHT, WIDTH)
    assert sorted(arrays_of(small, "")) == sorted(COG_ARRAYS)
    assert sorted(arrays_of(small, "overview")) == ["quality", "reflectance"]
    for group in ("labels_x2", "labels_x4"):
        assert sorted(arrays_of(small, group)) == ["coverage", "crop_type", "parcel_id"]
    for group in GROUPS:
        for name, array in arrays_of(small, group).items():
            assert array.shape[-2:] == shape_of(group)
            assert len(np.unique(array[...])) > 1, name


# xarray, and the accessors of rioxarray and odc-geo


@pytest.mark.parametrize("group", GROUPS)
def test_xarray_has_the_centres_and_the_values(small, group):
    size, (height, width) = PIXEL_M[group], shape_of(group)
    with open_xarray(small, group, mask_and_scale=False) as ds:
        assert_array_equal(ds.x, LEFT + size * (np.arange(width) + 0.5))
        assert_array_equal(ds.y, TOP - size * (np.arange(height) + 0.5))
        for name, array in arrays_of(small, group).items():
            assert ds[name].dims == {2: ("y", "x"), 3: ("time", "y", "x"), 4: ("time", "band", "y", "x")}[array.ndim]
            assert ds[name].dtype == array.dtype
            assert_array_equal(ds[name].values, array[...])


@pytest.mark.parametrize("group", GROUPS)
def test_xarray_finds_the_grid_mapping_and_keeps_it_with_each_array(small, group):
    with open_xarray(small, group) as ds:
        assert set(ds.data_vars) == set(arrays_of(small, group))
        for variable in ds.data_vars.values():
            assert variable.attrs["grid_mapping"] == "spatial_ref"
            reference = variable.coords["spatial_ref"].attrs
            assert CRS.from_cf(reference) == CRS.from_epsg(EPSG)
            left, a, b, top, d, e = (float(word) for word in reference["GeoTransform"].split())
            assert (a, b, left, d, e, top) == tuple(geobox_of(group).affine[:6])


def test_xarray_decodes_days_bands_and_sensing_times(small):
    with open_xarray(small, "") as ds:
        assert ds.time.values.astype("datetime64[D]").tolist() == small.days
        assert ds.band.values.tolist() == small.bands == ["B02", "B04", "B8A"]
        # Around 10:30 local solar time on the day itself.
        late = ds.sensing_time.values - ds.time.values.astype("datetime64[ns]")
        assert (late > np.timedelta64(8, "h")).all()
        assert (late < np.timedelta64(13, "h")).all()


def test_flags_and_ids_stay_integers_as_xarray_opens_a_cube(small):
    with open_xarray(small, "") as ds:
        cloud = ds.quality & 2
        assert cloud.dtype == np.uint8
        assert_array_equal(cloud, small.array("quality") & 2)
        assert set(np.unique(cloud)) == {0, 2}
        assert ds.parcel_id.dtype == np.uint32
        assert ds.crop_type.dtype == np.uint16
        kept = {name: str(ds[name].dtype) for name in ("scl", "source_index", "coverage", "conflict", "split")}
        assert set(kept.values()) == {"uint8"}
        assert ds.boundary_distance.dtype == np.int16


def test_reflectance_is_a_reflectance_as_xarray_opens_a_cube(small):
    stored = small.array("reflectance")
    with open_xarray(small, "") as ds:
        assert ds.reflectance.dtype == np.float64
        expected = np.where(stored == 0, np.nan, stored * 0.0001)
        np.testing.assert_allclose(ds.reflectance, expected, rtol=1e-12)
        assert np.isnan(expected).any()


@pytest.mark.parametrize("group", GROUPS)
def test_rioxarray_agrees(small, group):
    expected = geobox_of(group)
    with open_xarray(small, group, mask_and_scale=False) as ds:
        for name in arrays_of(small, group):
            variable = ds[name]
            assert variable.rio.crs.to_epsg() == EPSG
            assert tuple(variable.rio.transform()) == tuple(expected.affine)
            assert variable.rio.bounds() == tuple(expected.boundingbox.bbox)
            assert variable.rio.shape == shape_of(group)
            # Without the grid mapping's own transform: from the centres alone.
            assert tuple(variable.rio.transform(recalc=True)) == tuple(expected.affine)


@pytest.mark.parametrize("group", GROUPS)
def test_odc_geo_agrees(small, group):
    expected = geobox_of(group)
    with open_xarray(small, group, mask_and_scale=False) as ds:
        for name in arrays_of(small, group):
            assert ds[name].odc.geobox == expected
            assert ds[name].odc.spatial_dims == ("y", "x")
        assert ds.odc.geobox == expected
        for axis, centres in expected.coordinates.items():
            assert_array_equal(ds[axis], centres.values)


# Readers of Zarr that know nothing of maps: values, and the conventions on each array


@pytest.mark.parametrize("group", GROUPS)
def test_each_array_carries_its_corner_and_crs(small, group):
    for array in arrays_of(small, group).values():
        attributes = array.attrs.asdict()
        assert attributes["proj:code"] == f"EPSG:{EPSG}"
        assert attributes["spatial:transform"] == list(geobox_of(group).affine[:6])
        assert tuple(attributes["spatial:shape"]) == shape_of(group)
        assert attributes["spatial:registration"] == "pixel"


def plain_paths(dataset: Dataset) -> list[str]:
    """Paths of all arrays but those of strings: for readers that know none, the names stand in `band_names`."""
    found = [path for path in all_paths(dataset) if path.rpartition("/")[2] != "band"]
    assert len(found) == len(all_paths(dataset)) - 2
    return found


def assert_georeferenced(attributes: dict[str, Any], path: str) -> None:
    """Corner and CRS of a pixel array, as the conventions say them."""
    assert attributes["spatial:transform"] == list(geobox_of(path.rpartition("/")[0]).affine[:6])
    assert attributes["proj:code"] == f"EPSG:{EPSG}"


def test_tensorstore_agrees(small):
    for path in plain_paths(small):
        values, attributes, dims = with_tensorstore({"driver": "file", "path": str(small.cube)}, path)
        assert values.dtype == small.group[path].dtype
        assert_array_equal(values, small.array(path), err_msg=path)
        if values.ndim >= 2:
            assert_georeferenced(attributes, path)
            assert dims[-2:] == ("y", "x")
        if path.rpartition("/")[2] == "reflectance":
            assert attributes["band_names"] == small.bands


def test_zarrs_agrees(small):
    expected = {path: small.array(path) for path in plain_paths(small)}
    with zarrs_pipeline():
        for path, values in expected.items():
            assert_array_equal(with_zarrs(LocalStore(small.cube), path), values, err_msg=path)


def test_xarray_through_zarrs_agrees(small):
    expected = small.array("reflectance")
    with (
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}),
        open_xarray(small, "", mask_and_scale=False) as ds,
    ):
        assert_array_equal(ds.reflectance.values, expected)
        assert ds.odc.geobox == geobox_of("")


def test_zarrita_agrees(small, tmp_path):
    found = with_zarrita(str(small.cube), {path: small.group[path].dtype for path in plain_paths(small)}, tmp_path)
    assert sorted(found) == plain_paths(small)
    for path, (values, attributes) in found.items():
        assert_array_equal(values, small.array(path), err_msg=path)
        if values.ndim >= 2:
            assert_georeferenced(attributes, path)


# GDAL from 3.13 on, which knows sharding


@pytest.mark.slow
def test_gdal_agrees(small, tmp_path):
    for group in GROUPS:
        for name, array in arrays_of(small, group).items():
            path = f"{group}/{name}" if group else name
            values, described = with_gdal(str(small.cube), path, array.dtype, tmp_path)
            assert_array_equal(values, array[...].reshape(-1, *shape_of(group)), err_msg=path)
            assert described["geoTransform"] == list(geobox_of(group).affine.to_gdal())
            assert described["stac"]["proj:epsg"] == EPSG


# Sets of patches, which lie anywhere


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """A set of four patches of 20 x 30 pixels, of three dates at most, with every label."""
    days = np.array([[100, 190, 280], [101, 191, NO_DAY], [102, 192, 282], [NO_DAY] * 3], np.int32)
    about = {"version": "1.0", "profile": "patches", "complete": True}
    layout = PatchLayout(days=days, bands=("B02", "B8A"), height=20, width=30, attributes=about, labels=LABEL_ARRAYS)
    folder, rng = Folder(str(tmp_path_factory.mktemp("patches") / "set")), np.random.default_rng(5)
    create_patches(folder, layout)
    sizes = {"time": 3, "band": 2, "y": 20, "x": 30}
    values = {
        name: rng.integers(0, 200, (4, *(sizes[dim] for dim in ARRAYS[name].dims))).astype(ARRAYS[name].dtype)
        for name in layout.names
    }
    write_patches(folder, 0, values.items())
    return folder.path / "cube.zarr", {**values, "day": days}


def test_every_reader_agrees_on_a_set_of_patches(patches, tmp_path):
    cube, expected = patches
    assert len(expected) == 11
    with xr.open_zarr(cube, mask_and_scale=False) as ds:
        assert ds.reflectance.dims == ("patch", "time", "band", "y", "x")
        assert ds.band.values.tolist() == ["B02", "B8A"]
        for name, values in expected.items():
            assert_array_equal(ds[name].values, values, err_msg=name)
    group = zarr.open_group(cube, mode="r")
    for name, values in expected.items():
        assert_array_equal(group[name][...], values, err_msg=name)
        read, _, dims = with_tensorstore({"driver": "file", "path": str(cube)}, name)
        assert (read.dtype, dims[0]) == (values.dtype, "patch")
        assert_array_equal(read, values, err_msg=name)
    with zarrs_pipeline():
        for name, values in expected.items():
            assert_array_equal(with_zarrs(LocalStore(cube), name), values, err_msg=name)


def test_zarrita_agrees_on_a_set_of_patches(patches, tmp_path):
    cube, expected = patches
    found = with_zarrita(str(cube), {name: values.dtype for name, values in expected.items()}, tmp_path)
    for name, values in expected.items():
        assert_array_equal(found[name][0], values, err_msg=name)


# GDAL before 3.13 knows no sharding: for those there is an export


def test_exported_cogs_agree_in_rasterio(small, tmp_path):
    written = export_cog(Folder(str(small.path)), tmp_path, arrays=COG_ARRAYS)
    expected = geobox_of("")
    files = {path.name: path for path in written}
    for name, array in arrays_of(small, "").items():
        layers = {f"{name}.tif": array[...]}
        if array.ndim > 2:
            layers = {f"{name}_{day}.tif": array[index] for index, day in enumerate(small.days)}
        for file_name, values in layers.items():
            with rasterio.open(files.pop(file_name)) as file:
                assert file.crs.to_epsg() == EPSG
                assert file.transform == expected.affine
                assert tuple(file.bounds) == tuple(expected.boundingbox.bbox)
                # Of the upper-left pixel.
                assert file.xy(0, 0) == (LEFT + 5, TOP - 5)
                assert file.dtypes[0] == str(array.dtype)
                assert_array_equal(file.read(), values.reshape(-1, HEIGHT, WIDTH), err_msg=file_name)
                if name == "reflectance":
                    assert file.descriptions == tuple(small.bands)
                    assert file.scales == (0.0001,) * 3
                    assert file.nodata == 0
    assert files == {}


def test_exported_cogs_are_where_xarray_has_the_pixels(small, tmp_path):
    (path,) = export_cog(Folder(str(small.path)), tmp_path, arrays=["parcel_id"])
    with open_xarray(small, "") as ds, rioxarray.open_rasterio(path) as exported:
        aligned = xr.align(ds.parcel_id, exported.isel(band=0, drop=True), join="exact")
        assert_array_equal(*aligned)
