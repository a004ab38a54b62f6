from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from tests.synthetic import BANDS, EPSG, LEFT, TOP, Synthetic

from sits_pipeline.exporters import cog as export
from sits_pipeline.exporters.cog import export_cog


def days(made: Synthetic) -> list[object]:
    return [acquisition.day for acquisition in made.plan.acquisitions]


@pytest.fixture(scope="module")
def exported(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    out = tmp_path_factory.mktemp("cogs")
    chosen = [synthetic.plan.acquisitions[i].day for i in (0, 3)]
    arrays = ("reflectance", "quality", "crop_type", "parcel_id", "boundary_distance")
    return {path.stem: path for path in export_cog(synthetic.folder, out, arrays=arrays, days=chosen, incomplete=True)}


def test_there_is_a_file_a_date_and_nothing_else(synthetic: Synthetic, exported: Mapping[str, Path]) -> None:
    first, last = days(synthetic)[0], days(synthetic)[3]
    names = [f"reflectance_{first}", f"reflectance_{last}", f"quality_{first}", f"quality_{last}"]
    assert list(exported) == [*names, "crop_type", "parcel_id", "boundary_distance"]
    folder = exported["crop_type"].parent
    assert {path.name for path in folder.iterdir()} == {path.name for path in exported.values()}


def test_values_corner_crs_and_nodata_are_the_cubes(synthetic: Synthetic, exported: Mapping[str, Path]) -> None:
    for index in (0, 3):
        with rasterio.open(exported[f"reflectance_{days(synthetic)[index]}"]) as file:
            np.testing.assert_array_equal(file.read(), synthetic.reflectance[index])
            assert (file.transform.c, file.transform.f, file.transform.a, file.transform.e) == (LEFT, TOP, 10, -10)
            assert file.xy(0, 0) == (LEFT + 5, TOP - 5)
            assert file.crs.to_epsg() == EPSG
            assert file.nodata == 0
            assert file.dtypes == ("uint16",) * 4
            assert file.descriptions == BANDS
            assert file.scales == (0.0001,) * 4
            assert file.offsets == (0.0,) * 4


@pytest.mark.parametrize(("name", "nodata"), [("crop_type", 65535), ("parcel_id", None)])
def test_labels_are_the_cubes(
    synthetic: Synthetic, exported: Mapping[str, Path], name: str, nodata: int | None
) -> None:
    wanted: NDArray[np.generic] = getattr(synthetic, name)
    with rasterio.open(exported[name]) as file:
        np.testing.assert_array_equal(file.read(1), wanted)
        assert file.dtypes[0] == str(wanted.dtype)
        assert file.nodata == nodata


def test_classes_keep_their_colours_and_names(exported: Mapping[str, Path]) -> None:
    with rasterio.open(exported["crop_type"]) as file:
        colours, tags = file.colormap(1), file.tags()
    assert colours[1] == (0xE0, 0xB0, 0x40, 255)
    assert tags["CLASS_3"] == "vine <&> grapes"
    assert tags["SIMULATED"] == "YES"


def test_they_are_cloud_optimised_with_overviews(exported: Mapping[str, Path], synthetic: Synthetic) -> None:
    for path in exported.values():
        with rasterio.open(path) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.overviews(1) == [2]
    with rasterio.open(exported["crop_type"]) as file:
        thinned = file.read(1, out_shape=(270, 288))
    assert set(np.unique(thinned)) <= set(np.unique(synthetic.crop_type)), "classes are never averaged"


def test_bits_are_never_averaged(synthetic: Synthetic, exported: Mapping[str, Path]) -> None:
    with rasterio.open(exported[f"quality_{days(synthetic)[3]}"]) as file:
        np.testing.assert_array_equal(file.read(1), synthetic.quality[3])
        thinned = file.read(1, out_shape=(270, 288))
    assert set(np.unique(thinned)) <= {0, 1, 3, 128}


def test_more_dates_than_files_may_be_open_are_written_in_passes(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_MAX_OPEN", 3)
    paths = export_cog(synthetic.folder, tmp_path, arrays=["quality"], incomplete=True)
    assert len(paths) == 4
    for path, quality in zip(paths, synthetic.quality, strict=True):
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), quality)


def test_an_export_that_fails_leaves_nothing(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(export, "_to_cog", refuse)
    with pytest.raises(OSError, match="no space left"):
        export_cog(synthetic.folder, tmp_path, arrays=["crop_type"], incomplete=True)
    assert list(tmp_path.iterdir()) == []


def test_unknown_arrays_and_dates_are_refused_with_what_there_is(synthetic: Synthetic, tmp_path: Path) -> None:
    from datetime import date

    with pytest.raises(ValueError, match="no array 'ndvi'; it has reflectance, scl, quality"):
        export_cog(synthetic.folder, tmp_path, arrays=["ndvi"], incomplete=True)
    with pytest.raises(ValueError, match="no date 2001-01-01; it has 2021-10-20"):
        export_cog(synthetic.folder, tmp_path, days=[date(2001, 1, 1)], incomplete=True)
