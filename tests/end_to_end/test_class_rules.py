"""A build whose classes are raised to a level of HCAT and, where they are small, folded: all its files agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr
import yaml
from tests.end_to_end.archives import (
    Ended,
    SmallArchive,
    region_document,
    run_here,
    write_parcels,
    write_small_archive,
)

from sits_catalog.checking import check

CROPS = """code,name,hcat
wheat,Wheat,3301010101
maize,Maize,3301010600
vines,Vines,3303060000
hemp,Hemp,3301061000
flax,Flax,
"""
CSCL = {"train": 20_000, "test": 2_000}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    """Wheat, maize and vines in plenty, six parcels of hemp and six of flax, about 2 500 pixels each."""
    archive = write_small_archive(tmp_path_factory.mktemp("archive"))
    path = write_parcels(archive.folder / "parcels.parquet")
    table = geopandas.read_parquet(path)
    table.loc[range(105, 400, 50), "crop"] = "hemp"
    table.loc[range(110, 400, 50), "crop"] = "flax"
    table.to_parquet(path)
    (archive.folder / "crops.csv").write_text(CROPS)
    return archive


def build(archive: SmallArchive, out: Path, *more: object, **labels: Any) -> Ended:
    document = region_document(taxonomy="crops.csv", labels={"classes_at": "level-4", **labels})
    archive.region.write_text(yaml.safe_dump(document, sort_keys=False))
    return run_here("sits-build", "--region", archive.region, "--out", out, "--json", *more)


@pytest.mark.slow
def test_raised_and_folded_classes_agree_in_cube_tables_and_report(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build(archive, tmp_path, min_pixels=CSCL)
    assert ended.code == 0, ended.stderr
    assert "folding 2 classes with few pixels into 'other'" in ended.stderr
    dataset = tmp_path / "small"
    assert check(dataset) == []

    cube = xr.open_zarr(dataset / "cube.zarr", mask_and_scale=False)
    classes = {entry["code"]: entry for entry in cube.crop_type.attrs["classes"]}
    assert list(classes) == ["cereal", "vineyards_wine_vine_rebland_grapes", "other"]
    assert classes["cereal"]["index"] == 4  # of hcat3
    # The flax that has no HCAT code stood behind HCAT's 384 until it was folded.
    assert classes["other"] == {**classes["other"], "index": 386, "hcat": None, "name": "other crops"}

    parcels = geopandas.read_parquet(dataset / "parcels.parquet")
    wanted = {"wheat": "cereal", "maize": "cereal", "vines": "vineyards_wine_vine_rebland_grapes"}
    code_of = {entry["index"]: code for code, entry in classes.items()}
    assert [code_of[index] for index in parcels.crop_type] == [
        wanted.get(code, "other") for code in parcels.source_code
    ]
    small = parcels[parcels.source_code.isin(["hemp", "flax"])]
    assert len(small) == 12
    assert set(small.crop_name) == {"other crops"}
    assert small.hcat_code.isna().all()

    crop_type, parcel_id = cube.crop_type.to_numpy(), cube.parcel_id.to_numpy()
    won = parcel_id > 0
    by_id = np.zeros(int(parcels.parcel_id.max()) + 1, np.uint16)
    by_id[parcels.parcel_id] = parcels.crop_type
    assert np.array_equal(crop_type[won], by_id[parcel_id[won]])
    assert np.count_nonzero(crop_type == 386) == small.n_pixels.sum() > 0

    check_record(cube.attrs["sits_cube"]["folded"], parcels, cube)
    report = (dataset / "report.html").read_text()
    assert "2 classes with few pixels, folded into <code>other</code>" in report
    assert "under 20000 in train" in report
    assert "classes without an HCAT code stay as they are: flax" in report
    listed = json.loads((dataset / "item.json").read_text())["properties"]
    assert "hemp" not in json.dumps(listed)


def check_record(folded: dict[str, Any], parcels: geopandas.GeoDataFrame, cube: xr.Dataset) -> None:
    """The record's pixels are the area of the parcels, as geopandas cuts and sums it."""
    assert folded["min_pixels"] == CSCL
    assert folded["into"] == {"index": 386, "code": "other"}
    x, y = cube.x.to_numpy(), cube.y.to_numpy()
    inside = parcels.set_geometry(parcels.intersection(shapely.box(x[0] - 5, y[-1] - 5, x[-1] + 5, y[0] + 5)))
    source = {"industrial_nonfood_crops": "hemp", "flax": "flax"}
    assert [entry["code"] for entry in folded["classes"]] == list(source)
    for entry in folded["classes"]:
        for split, pixels in entry["pixels"].items():
            own = inside[(inside.source_code == source[entry["code"]]) & (inside.split == split)]
            assert pixels == pytest.approx(own.area.sum() / 100, abs=1.001)
        assert entry["lacking"] == [split for split, least in CSCL.items() if entry["pixels"][split] < least]


@pytest.mark.slow
def test_what_is_folded_makes_another_cube_and_what_is_not_makes_the_same(
    archive: SmallArchive, tmp_path: Path
) -> None:
    def planned(**labels: Any) -> str:
        ended = build(archive, tmp_path, "--plan", **labels)
        assert ended.code == 0, ended.stderr
        (plan,) = json.loads(ended.stdout)["datasets"]
        return str(plan["config_sha256"])

    assert planned(min_pixels=CSCL) != planned()
    assert planned(min_pixels={"train": 1}) == planned()
    assert planned(classes_at="level-3") != planned()


@pytest.mark.slow
def test_rules_that_cannot_be_met_are_one_sentence(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build(archive, tmp_path, "--plan", min_pixels={"train": 10**7})
    assert ended.code == 2
    assert "error: none of the 4 classes has the min_pixels asked for (10000000 in train)" in ended.stderr
    document = region_document(labels={"classes_at": "level-4"})
    archive.region.write_text(yaml.safe_dump(document, sort_keys=False))
    ended = run_here("sits-build", "--region", archive.region, "--out", tmp_path, "--plan")
    assert ended.code == 2
    assert "labels.classes_at (level-4) raises the classes of a taxonomy, and region small names none" in ended.stderr
    assert not (tmp_path / "small").exists()
