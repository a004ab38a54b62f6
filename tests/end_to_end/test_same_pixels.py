"""The same scenes give the same cube, whether they come as SAFE products or as COGs with a STAC catalogue."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.shutil import copy
from tests.end_to_end.building import IMAGES, LABELS, Dataset, build_region, extent, simulated_land, with_imagery

from sits_catalog.region import Region, Season
from sits_pipeline.sources import SafeSource

pytestmark = pytest.mark.slow

BANDS = ("B01", "B02", "B04", "B8A", "B11")


@pytest.fixture(scope="module")
def land_twice(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """Ten simulated dates as ESA's products with ESA's DN, and as COGs from most of which the offset was taken out."""
    folder = tmp_path_factory.mktemp("twice")
    return simulated_land(folder, extent(width=300, height=480), bands=BANDS, dates=10, seed=5, safe=True)


@pytest.fixture(scope="module")
def from_cogs(land_twice: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_region(land_twice, tmp_path_factory.mktemp("cogs"))


@pytest.fixture(scope="module")
def from_safe(land_twice: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    assert land_twice.imagery.path is not None
    products = Path(land_twice.imagery.path).parent / "safe"
    return build_region(with_imagery(land_twice, source="safe", path=str(products)), tmp_path_factory.mktemp("safe"))


@pytest.mark.parametrize("name", [*IMAGES, *LABELS])
def test_simulated_scenes_as_safe_and_as_cog_give_the_same_array(from_cogs, from_safe, name):
    np.testing.assert_array_equal(from_safe.array(name), from_cogs.array(name))


def test_simulated_scenes_differ_in_all_but_the_array(from_cogs, from_safe):
    assert from_cogs.days == from_safe.days
    offsets = {}
    for dataset in (from_cogs, from_safe):
        assert dataset.complete
        sources = dataset.table("sources")
        used = sources[sources.status == "used"].sort_values(["date_index", "source_index"])
        offsets[dataset.path] = used.boa_offset_applied.astype(int).tolist()
        assert set(sources.status) >= {"used", "superseded"}
    assert set(offsets[from_safe.path]) == {0, -1000}
    # Where a COG's offset was taken out, nothing is left to apply: the same pixels by another way.
    assert sum(offsets[from_cogs.path]) > sum(offsets[from_safe.path])
    assert all(cog in (0, safe) for cog, safe in zip(*(offsets[d.path] for d in (from_cogs, from_safe)), strict=True))


def as_catalogue(products: Path, folder: Path) -> Path:
    """The products of a folder as COGs with an ItemCollection, made with rasterio from the pixels of the JP2."""
    features = []
    everywhere, season = shapely.box(-180, -90, 180, 90), Season(start=date(2018, 1, 1), end=date(2018, 12, 31))
    for scene in SafeSource(products).search(everywhere, season).scenes:
        (folder / scene.id).mkdir(parents=True)
        item: dict[str, Any] = {**scene.item, "collection": "sentinel-2-l2a", "assets": {}}
        for band, path in scene.assets.items():
            if Path(path).exists():
                _to_cog(Path(path), folder / scene.id / f"{band}.tif")
                item["assets"][band] = {"href": f"./{scene.id}/{band}.tif", "type": "image/tiff"}
        features.append(item)
    catalogue = folder / "items.json"
    catalogue.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return catalogue


def _to_cog(image: Path, cog: Path) -> None:
    with rasterio.open(image) as source, rasterio.MemoryFile() as memory:
        profile = {name: source.profile[name] for name in ("width", "height", "count", "dtype", "crs", "transform")}
        with memory.open(driver="GTiff", **profile) as plain:
            plain.write(source.read())
        with memory.open() as plain:
            copy(plain, cog, driver="COG", COMPRESS="DEFLATE", OVERVIEWS="NONE")


@pytest.fixture(scope="module")
def real_from_cogs(t31tej: Region, sits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("real-cogs")
    catalogue = as_catalogue(sits_data / "t31tej", folder / "stac")
    return build_region(with_imagery(t31tej, source="stac", path=str(catalogue)), folder / "out")


@pytest.mark.parametrize("name", [*IMAGES, *LABELS])
def test_real_scenes_as_safe_and_as_cog_give_the_same_array(t31tej_area, real_from_cogs, name):
    np.testing.assert_array_equal(real_from_cogs.array(name), t31tej_area.array(name))


def test_real_scenes_as_safe_and_as_cog_have_the_same_tables(t31tej_area, real_from_cogs):
    assert real_from_cogs.days == t31tej_area.days
    for name in ("parcels.parquet", "chips.parquet"):
        assert (real_from_cogs.path / name).read_bytes() == (t31tej_area.path / name).read_bytes()
    one, other = (dataset.table("sources") for dataset in (t31tej_area, real_from_cogs))
    assert one.id.tolist() == other.id.tolist()
    assert one.boa_offset_medians.tolist() == other.boa_offset_medians.tolist()
