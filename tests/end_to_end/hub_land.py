"""Simulated land that a loopback Sentinel Hub serves, and what its cube must have in common with the archive's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.end_to_end.building import IMAGES, Dataset, build_region, item_ids, translated, with_imagery
from tests.services.sentinel_hub.scripts import node_path
from tests.services.sentinel_hub.service import CLIENT, SECRET, SentinelHub

from sits_catalog.region import Region

needs_node = pytest.mark.skipif(node_path() is None, reason="Node runs the evalscripts, and there is none here")


def products(land: Region) -> Path:
    """The land's products, as ESA makes them."""
    assert land.imagery.path is not None
    return Path(land.imagery.path).parent / "safe"


def from_disk(land: Region, out: Path) -> Dataset:
    """The cube of the products on the disk."""
    return build_region(with_imagery(land, source="safe", path=str(products(land))), out)


def served(land: Region, url: str, *, mosaicking: str = "tile") -> Region:
    """The land as the service at `url` serves it."""
    return with_imagery(land, source="sentinel-hub", path=url, mosaicking=mosaicking)


def variables(token_url: str, *, secret: str = SECRET) -> dict[str, str]:
    """What a user of the service sets; http on the loopback is for tests alone."""
    return {
        "SH_CLIENT_ID": CLIENT,
        "SH_CLIENT_SECRET": secret,
        "SH_TOKEN_URL": token_url,
        "OAUTHLIB_INSECURE_TRANSPORT": "1",
    }


@contextmanager
def environment_of(hub: SentinelHub, *, through: str = "") -> Iterator[None]:
    """This process as a user of the service, with tokens from the address `through` where one is given."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(hub.token_url.replace(hub.url, through or hub.url)).items():
            patch.setenv(name, value)
        yield


def product_of_pixels(dataset: Dataset) -> NDArray[np.object_]:
    """(time, y, x): the product that each pixel came from; "" where none."""
    ids, index = item_ids(dataset), dataset.array("source_index")
    days = []
    for day, indices in enumerate(index):
        names = {source: name.removesuffix(".SAFE") for (at, source), name in ids.items() if at == day}
        days.append(translated(indices, names))
    return np.stack(days)


def statuses(dataset: Dataset) -> dict[str, str]:
    """Status by product."""
    sources = dataset.table("sources")
    return dict(zip(sources.id.str.removesuffix(".SAFE"), sources.status, strict=True))


def assert_same_cube(mine: Dataset, theirs: Dataset) -> None:
    """Same days, pixels (within 1 DN), nodata, classes and lineage; prints how far apart the pixels are."""
    assert mine.days == theirs.days
    one, other = (dataset.array("reflectance").astype(int) for dataset in (mine, theirs))
    difference = np.abs(one - other)
    print(f"max |difference| {difference.max()} DN over {difference.size} values of {len(mine.days)} dates")
    assert difference.max() <= 1
    for name in IMAGES[1:3]:
        np.testing.assert_array_equal(mine.array(name), theirs.array(name), err_msg=name)
    np.testing.assert_array_equal((one == 0).all(axis=1), (other == 0).all(axis=1))
    np.testing.assert_array_equal(product_of_pixels(mine), product_of_pixels(theirs))
    assert statuses(mine) == statuses(theirs)
