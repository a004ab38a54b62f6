"""A SAFE product that lost its metadata is used as before: its name and its images say all that decides pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.end_to_end.building import LABELS, Dataset, build_region, with_imagery

from sits_catalog.region import Region

LOST = "S2A_MSIL2A_20180627T104021_N0208_R008_T31TEJ_20180627T143337"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def without(t31tej: Region, sits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("products")
    for product in (sits_data / "t31tej").glob("*.SAFE"):
        shutil.copytree(product, folder / product.name, copy_function=shutil.copyfile)
    for path in (folder / f"{LOST}.SAFE", *(folder / f"{LOST}.SAFE").rglob("*")):
        path.chmod(0o755)
    (folder / f"{LOST}.SAFE" / "MTD_MSIL2A.xml").unlink()
    return build_region(with_imagery(t31tej, path=str(folder)), tmp_path_factory.mktemp("without"))


@pytest.mark.parametrize("name", ["reflectance", "scl", "quality", "source_index", "time", "sensing_time", *LABELS])
def test_pixels_do_not_depend_on_the_metadata_file(t31tej_area: Dataset, without: Dataset, name: str) -> None:
    np.testing.assert_array_equal(without.array(name), t31tej_area.array(name))


def test_it_is_the_same_cube_and_the_table_says_what_was_missing(t31tej_area: Dataset, without: Dataset) -> None:
    assert without.complete
    hashes = {dataset.group.attrs["sits_cube"]["config_sha256"] for dataset in (t31tej_area, without)}
    assert len(hashes) == 1
    row = without.table("sources").set_index("id").loc[LOST]
    assert row.status == "used"
    assert row.description == "its MTD_MSIL2A.xml is missing; its name and its images stand for that"
    assert np.isnan(row.cloud_cover)
