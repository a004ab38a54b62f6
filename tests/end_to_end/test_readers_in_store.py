"""The same from S3: every reader with its own client reads every array from moto_server, a process of its own.

By hand: moto takes its time for thousands of small ranges. `test_object_store.py` reads less of it and always.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  # the accessor `odc`
import pytest
import rioxarray  # noqa: F401  # the accessor `rio`
import xarray as xr
import zarr
from numpy.testing import assert_array_equal
from tests.end_to_end.building import Dataset
from tests.end_to_end.readers import over_http, with_gdal, with_tensorstore, with_zarrita, with_zarrs, zarrs_pipeline
from tests.end_to_end.test_readers import EPSG, GROUPS, assert_georeferenced, geobox_of, plain_paths
from tests.services.moto import BUCKET, KEY, REGION, SECRET, Moto, forget_stores, moto_server
from zarr.storage import FsspecStore

pytestmark = pytest.mark.soak

CUBE = "small/cube.zarr"


@pytest.fixture(scope="module")
def store(small: Dataset) -> Iterator[Moto]:
    """A store with the dataset in it."""
    with moto_server() as store:
        files = [path for path in small.path.rglob("*") if path.is_file()]
        names = [f"small/{path.relative_to(small.path).as_posix()}" for path in files]
        client = store.client()
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda name, path: client.put_object(
                        Bucket=BUCKET, Key=name, Body=path.read_bytes(), ACL="public-read"
                    ),
                    names,
                    files,
                )
            )
        yield store


@pytest.fixture
def environment(store: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The variables that every client of a store takes its address and keys from."""
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    yield store.environment()
    forget_stores()


@pytest.mark.parametrize("group", GROUPS)
def test_xarray_rioxarray_and_odc_geo_agree(small: Dataset, environment: dict[str, str], group: str) -> None:
    address, expected = f"s3://{BUCKET}/{CUBE}", geobox_of(group)
    with xr.open_zarr(address, group=group or None, mask_and_scale=False) as ds:
        prefix = f"{group}/" if group else ""
        for path in plain_paths(small):
            if path.rpartition("/")[0] == group and path.rpartition("/")[2] not in ("time", "sensing_time"):
                assert_array_equal(ds[path.removeprefix(prefix)].values, small.array(path), err_msg=path)
        assert ds.odc.geobox == expected
        for variable in ds.data_vars.values():
            assert variable.rio.crs.to_epsg() == EPSG
            assert tuple(variable.rio.transform()) == tuple(expected.affine)


def test_zarr_python_and_zarrs_agree(small: Dataset, environment: dict[str, str]) -> None:
    """zarr through s3fs; zarrs has no client of S3 of its own and reads over HTTP."""
    opened = FsspecStore.from_url(f"s3://{BUCKET}/{CUBE}", read_only=True)
    for path in plain_paths(small):
        assert_array_equal(zarr.open_array(opened, path=path, mode="r")[...], small.array(path), err_msg=path)
    with over_http(f"{environment['AWS_ENDPOINT_URL']}/{BUCKET}/{CUBE}") as http, zarrs_pipeline():
        for path in plain_paths(small):
            assert_array_equal(with_zarrs(http, path), small.array(path), err_msg=path)


def test_zarr_python_over_obstore_agrees(small: Dataset, environment: dict[str, str]) -> None:
    obstore = pytest.importorskip("obstore.store", reason="obstore, another client of S3 for zarr, is not installed")
    opened = zarr.storage.ObjectStore(
        obstore.S3Store(
            BUCKET, prefix=CUBE, endpoint=environment["AWS_ENDPOINT_URL"], region=REGION,
            access_key_id=KEY, secret_access_key=SECRET, client_options={"allow_http": True},
        ),
        read_only=True,
    )  # fmt: skip
    for path in plain_paths(small):
        assert_array_equal(zarr.open_array(opened, path=path, mode="r")[...], small.array(path), err_msg=path)


def test_tensorstore_agrees(small: Dataset, environment: dict[str, str]) -> None:
    kvstore = {
        "driver": "s3",
        "bucket": BUCKET,
        "path": CUBE,
        "endpoint": environment["AWS_ENDPOINT_URL"],
        "aws_region": REGION,
        "aws_credentials": {"type": "environment"},
    }
    for path in plain_paths(small):
        values, attributes, _ = with_tensorstore(kvstore, path)
        assert_array_equal(values, small.array(path), err_msg=path)
        if values.ndim >= 2:
            assert_georeferenced(attributes, path)


def test_zarrita_agrees(small: Dataset, store: Moto, tmp_path: Path) -> None:
    """As a page in a browser reads it: over HTTP, from a bucket that anyone may read."""
    dtypes: dict[str, np.dtype[Any]] = {path: small.array(path).dtype for path in plain_paths(small)}
    for path, (values, attributes) in with_zarrita(f"{store.url}/{BUCKET}/{CUBE}", dtypes, tmp_path).items():
        assert_array_equal(values, small.array(path), err_msg=path)
        if values.ndim >= 2:
            assert_georeferenced(attributes, path)


def test_gdal_agrees(small: Dataset, store: Moto, tmp_path: Path) -> None:
    variables = {
        **store.environment(),
        "AWS_S3_ENDPOINT": store.url.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
    for path in ("reflectance", "parcel_id", "labels_x2/crop_type", "overview/quality"):
        expected = small.array(path)
        values, described = with_gdal(f"/vsis3/{BUCKET}/{CUBE}", path, expected.dtype, tmp_path, variables)
        assert_array_equal(values, expected.reshape(values.shape), err_msg=path)
        assert described["geoTransform"] == list(geobox_of(path.rpartition("/")[0]).affine.to_gdal())
        assert described["stac"]["proj:epsg"] == EPSG
