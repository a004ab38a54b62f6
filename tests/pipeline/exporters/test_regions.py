"""A region in windows: each layout against the cube's own arrays, read by zarr."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from tests.pipeline.exporters.made_region import CODES, HEIGHT, WIDTH, MadeRegion, make_region
from tests.pipeline.small_cube import LEFT, TOP

from sits_catalog.cube import IGNORE
from sits_pipeline.exporters.deepsatmodels import DeepSatLayout, export_deepsatmodels
from sits_pipeline.exporters.geotiff import export_geotiff
from sits_pipeline.exporters.pastis import export_pastis
from sits_pipeline.exporters.whole import Exported
from sits_pipeline.importers.pickles import load_plain_pickle

DAYS = [date(2018, 1, 3), date(2018, 1, 8), date(2018, 1, 13)]
PASTIS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> MadeRegion:
    return make_region(tmp_path_factory.mktemp("region") / "made")


def pastis(region: MadeRegion, out: Path, *, overwrite: bool = False, incomplete: bool = False) -> Exported:
    return export_pastis(
        region.folder, out, overwrite=overwrite, incomplete=incomplete, progress=lambda done, total: None
    )


def deepsat(region: MadeRegion, out: Path, layout: DeepSatLayout) -> Exported:
    return export_deepsatmodels(
        region.folder, out, layout=layout, overwrite=False, incomplete=False, progress=lambda done, total: None
    )


def cut(array: NDArray[Any], row: int, column: int, side: int) -> NDArray[Any]:
    return array[..., row * side : (row + 1) * side, column * side : (column + 1) * side]


def labels_of(region: MadeRegion) -> NDArray[np.uint16]:
    """Classes, IGNORE in the buffer between splits."""
    return np.where(region.array("split") == 4, np.uint16(IGNORE), region.array("crop_type"))


def numbers(crops: NDArray[np.uint16], table: dict[int, int]) -> NDArray[np.uint16]:
    """Classes by the numbers of a layout, background 0."""
    found = np.zeros_like(crops)
    for index, number in table.items():
        found[crops == index] = number
    return found


@pytest.mark.slow
def test_windows_of_pastis_are_the_cubes_pixels(region: MadeRegion, tmp_path: Path) -> None:
    told = pastis(region, tmp_path / "out")
    bands = [region.layout.bands.index(band) for band in PASTIS]
    features = json.loads((tmp_path / "out/metadata.geojson").read_text())["features"]
    # Three rows of two windows; those of column 1 hold 16 px of known ground.
    assert [(f["properties"]["ID_PATCH"], f["properties"]["Fold"]) for f in features] == [
        (0, 1), (1, 2), (2, 4), (3, 4), (4, 5), (5, 5),
    ]  # fmt: skip
    for feature in features:
        number = feature["properties"]["ID_PATCH"]
        at = (*divmod(number, 2), 128)
        assert feature["properties"]["dates-S2"] == {str(i): int(f"{day:%Y%m%d}") for i, day in enumerate(DAYS)}
        image = np.load(tmp_path / f"out/DATA_S2/S2_{number}.npy")
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image, cut(region.array("reflectance"), *at)[:, bands])
        target = np.load(tmp_path / f"out/ANNOTATIONS/TARGET_{number}.npy")
        crops = cut(labels_of(region), *at)
        np.testing.assert_array_equal(target[0], numbers(crops, {2: 1, 5: 2, 9: 3, IGNORE: 4}))
        ids = np.load(tmp_path / f"out/ANNOTATIONS/ParcelIDs_{number}.npy")
        np.testing.assert_array_equal(ids, cut(region.array("parcel_id"), *at))
    names = json.loads((tmp_path / "out/label_names.json").read_text())
    assert (names["background"], names["void"]) == (0, 4)
    assert [(row["value"], row["index"], row["code"]) for row in names["classes"]] == [
        (1, 2, "25"), (2, 5, "3"), (3, 9, "13"),
    ]  # fmt: skip
    assert any(
        re.fullmatch(r"Pixels that were not observed \(\d+\.\d+% .*are 0 in every band\.", n) for n in told.notes
    )


def test_norms_of_a_region_are_those_of_its_train_windows_in_every_fold(region: MadeRegion, tmp_path: Path) -> None:
    pastis(region, tmp_path / "out")
    norms = json.loads((tmp_path / "out/NORM_S2_patch.json").read_text())
    assert sorted(norms) == [f"Fold_{fold}" for fold in range(1, 6)]
    means, stds = [], []
    for number in (0, 1):
        dn = np.load(tmp_path / f"out/DATA_S2/S2_{number}.npy").astype(np.float64)
        pixels = np.moveaxis(dn, 1, -1)[(dn > 0).all(axis=1)]
        means.append(pixels.mean(axis=0))
        stds.append(pixels.std(axis=0, ddof=1))
    for fold in norms.values():
        np.testing.assert_allclose(fold["mean"], np.mean(means, axis=0))
        np.testing.assert_allclose(fold["std"], np.mean(stds, axis=0))


def test_windows_on_ground_of_two_splits_are_left_out(region: MadeRegion, tmp_path: Path) -> None:
    told = deepsat(region, tmp_path / "out", "t31tfm")
    # Rows of 48 px: 0-47, 48-95 train; 96-143 both; 144-191, 192-239 validation; 240-287 both; 288-299 test.
    assert told.written == 5 * 3
    assert told.left_out == {"ground of two splits": 2 * 5, "no labelled parcel": 5 * 2}
    assert "10 windows are left out: ground of two splits." in told.notes
    lists = {name: (tmp_path / f"out/paths/{name}_paths.csv").read_text().split() for name in ("train", "eval", "test")}
    assert {name: len(rows) for name, rows in lists.items()} == {"train": 6, "eval": 6, "test": 3}
    assert all((tmp_path / "out" / path).is_file() for rows in lists.values() for path in rows)


def means(image: NDArray[np.uint16], factor: int) -> NDArray[np.float64]:
    """Means of the observed pixels of blocks, and 0 where there is none."""
    t, h, w = image.shape
    blocks = image.reshape(t, h // factor, factor, w // factor, factor).astype(np.float64)
    count = (blocks > 0).sum(axis=(2, 4))
    return np.where(count > 0, blocks.sum(axis=(2, 4)) / np.maximum(count, 1), 0)


@pytest.mark.slow
def test_chips_of_t31tfm_are_the_cubes_pixels(region: MadeRegion, tmp_path: Path) -> None:
    told = deepsat(region, tmp_path / "out", "t31tfm")
    assert any("no B10: written as 0 everywhere" in note for note in told.notes)
    rows = (tmp_path / "out/paths/train_paths.csv").read_text().split()
    for path in rows:
        top, left = (int(part) for part in Path(path).name.split("_")[:2])
        at = ((TOP - top) // 480, (left - LEFT) // 480, 48)
        chip = load_plain_pickle(tmp_path / "out" / path)
        pixels = cut(region.array("reflectance"), *at)
        for band, factor in {"B03": 1, "B8A": 2, "B09": 6}.items():
            wanted = means(pixels[:, region.layout.bands.index(band)], factor)
            assert chip[band].dtype == np.uint16
            np.testing.assert_allclose(chip[band], wanted, atol=0.5 + 1e-9)
        assert not chip["B10"].any()
        assert (chip["doy"].tolist(), chip["year"]) == ([3, 8, 13], 2018)
        crops, conflict = cut(labels_of(region), *at), cut(region.array("conflict"), *at)
        np.testing.assert_array_equal(chip["labels"], numbers(crops, {**CODES, IGNORE: 4}))
        np.testing.assert_array_equal(chip["full_ass"], conflict == 6)
        np.testing.assert_array_equal(chip["part_ass"], conflict == 2)
        np.testing.assert_array_equal(chip["ids"], cut(region.array("parcel_id"), *at))
        np.testing.assert_array_equal(np.rint(chip["ratios"] * 255), cut(region.array("coverage"), *at))


@pytest.mark.slow
def test_tiles_of_mtlcc_are_the_cubes_pixels(region: MadeRegion, tmp_path: Path) -> None:
    deepsat(region, tmp_path / "out", "mtlcc")
    full = tmp_path / "out/data_IJGI18/datasets/full"
    tiles = (full / "240/tileids/train_fold0.tileids").read_text().split()
    assert (full / "240pkl/train_paths.csv").read_text().split() == [
        f"data_IJGI18/datasets/full/240pkl/data18/{tile}.pickle" for tile in tiles
    ]
    across = -(-WIDTH // 24)
    assert sorted(map(int, tiles)) == [row * across + column for row in range(5) for column in range(6)]
    for tile in tiles[::7]:
        at = (*divmod(int(tile), across), 24)
        chip = load_plain_pickle(full / f"240pkl/data18/{tile}.pickle")
        pixels = cut(region.array("reflectance"), *at)
        assert [chip[name].shape for name in ("x10", "x20", "x60")] == [(3, 24, 24, 4), (3, 12, 12, 6), (3, 4, 4, 3)]
        for stack, channel, band, factor in (("x10", 0, "B04", 1), ("x20", 3, "B8A", 2), ("x60", 0, "B01", 6)):
            wanted = means(pixels[:, region.layout.bands.index(band)], factor)
            np.testing.assert_allclose(chip[stack][..., channel], wanted, atol=0.5 + 1e-9)
        assert (chip["day"].tolist(), chip["year"].tolist()) == ([3, 8, 13], [2018] * 3)
        crops = cut(labels_of(region), *at)
        assert chip["labels"].dtype == np.int8
        np.testing.assert_array_equal(
            chip["labels"], np.broadcast_to(numbers(crops, {**CODES, IGNORE: 0}), (3, 24, 24))
        )


def test_windows_of_pastis24_are_the_cubes_pixels(region: MadeRegion, tmp_path: Path) -> None:
    deepsat(region, tmp_path / "out", "pastis24")
    bands, across = [region.layout.bands.index(band) for band in PASTIS], -(-WIDTH // 24)
    lists = {fold: (tmp_path / f"out/fold-paths/fold_{fold}_paths.csv").read_text().split() for fold in range(1, 6)}
    assert [len(rows) for rows in lists.values()] == [10, 10, 10, 24, 12]
    together = (tmp_path / "out/fold-paths/folds_1_123_paths.csv").read_text().split()
    assert together == lists[1] + lists[2] + lists[3]
    for path in (lists[1][0], lists[4][5], lists[5][-1]):
        number, part = re.fullmatch(r"pickle24x24/(\d+)_(\d+)\.pickle", path).groups()  # type: ignore[union-attr]
        assert part == "0"
        at = (*divmod(int(number), across), 24)
        chip = load_plain_pickle(tmp_path / "out" / path)
        np.testing.assert_array_equal(chip["img"], cut(region.array("reflectance"), *at)[:, bands])
        crops = cut(labels_of(region), *at)
        np.testing.assert_array_equal(chip["labels"], numbers(crops, {2: 1, 5: 2, 9: 3, IGNORE: 4})[np.newaxis])
        assert chip["doy"].tolist() == [3, 8, 13]


@pytest.mark.slow
def test_geotiffs_are_the_cubes_pixels_where_they_lie(region: MadeRegion, tmp_path: Path) -> None:
    told = export_geotiff(
        region.folder, tmp_path / "out", side=100, overwrite=False, incomplete=False, progress=lambda done, total: None
    )
    assert told.written == 6
    assert (HEIGHT // 100, WIDTH // 100) == (3, 2)
    for row in range(3):
        for column in range(2):
            name = tmp_path / f"out/r{row * 100:05d}_c{column * 100:05d}"
            with rasterio.open(f"{name}.tif") as file:
                wanted = cut(region.array("reflectance"), row, column, 100)
                np.testing.assert_array_equal(file.read().reshape(3, 12, 100, 100), wanted)
                assert file.xy(0, 0) == (LEFT + column * 1000 + 5, TOP - row * 1000 - 5)
                assert (file.crs.to_epsg(), file.nodata) == (32631, 0)
                assert file.descriptions[:2] == ("2018-01-03 B01", "2018-01-03 B02")
                assert file.descriptions[-1] == "2018-01-13 B12"
                assert file.tags()["DATES"] == "2018-01-03 2018-01-08 2018-01-13"
            for array, nodata in {"crop_type": IGNORE, "parcel_id": None, "split": None}.items():
                with rasterio.open(f"{name}_{array}.tif") as file:
                    np.testing.assert_array_equal(file.read(1), cut(region.array(array), row, column, 100))
                    assert file.nodata == nodata


def test_geotiffs_beyond_the_edge_are_padded(region: MadeRegion, tmp_path: Path) -> None:
    export_geotiff(
        region.folder, tmp_path / "out", side=256, overwrite=False, incomplete=False, progress=lambda done, total: None
    )
    with rasterio.open(tmp_path / "out/r00256_c00000.tif") as file:
        np.testing.assert_array_equal(file.read(1), cut(region.array("reflectance")[0, 0], 1, 0, 256))
    with rasterio.open(tmp_path / "out/r00256_c00000_crop_type.tif") as file:
        assert (file.read(1)[HEIGHT - 256 :] == IGNORE).all()


def test_a_region_without_splits_is_all_of_fold_1(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made", splits=False)
    told = pastis(region, tmp_path / "out")
    features = json.loads((tmp_path / "out/metadata.geojson").read_text())["features"]
    assert {feature["properties"]["Fold"] for feature in features} == {1}
    assert "The dataset has neither folds nor splits: everything is in fold 1." in told.notes


def test_progress_is_told_in_parts(region: MadeRegion, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    export_deepsatmodels(
        region.folder, tmp_path / "out", layout="t31tfm", overwrite=False, incomplete=False,
        progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    # Ten windows of 48 px are as many as fit into 512 px.
    assert said == [(1, 1)]


def test_nothing_is_overwritten_unless_it_is_asked_for_and_an_export(region: MadeRegion, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pastis(region, out)
    stamp = (out / "metadata.geojson").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="is there and not empty; choose another --out, or --overwrite"):
        pastis(region, out)
    assert (out / "metadata.geojson").stat().st_mtime_ns == stamp
    pastis(region, out, overwrite=True)
    assert (out / "metadata.geojson").stat().st_mtime_ns > stamp
    mine = tmp_path / "mine"
    mine.mkdir()
    pastis(region, mine)  # an empty folder is free
    (mine / "export.json").unlink()
    with pytest.raises(FileExistsError, match=r"was not written by an export \(it has no export\.json\)"):
        pastis(region, mine, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file; give a folder"):
        pastis(region, tmp_path / "file", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "out"]


def test_an_export_that_fails_leaves_what_was_there(
    region: MadeRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pastis(region, tmp_path / "out")
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", refuse)
    for out in ("out", "other"):
        with pytest.raises(OSError, match="no space left"):
            pastis(region, tmp_path / out, overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_dataset_that_is_not_complete_is_refused_unless_asked_for(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made", complete=False)
    with pytest.raises(ValueError, match="is not complete: parts of it could not be read yet"):
        pastis(region, tmp_path / "out")
    pastis(region, tmp_path / "out", incomplete=True)
    assert json.loads((tmp_path / "out/export.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    ("made", "layout", "said"),
    [
        ({"n_bands": 5}, "mtlcc", "made lacks B06, B07, B08, B8A, B11, B12: build it with these bands"),
        ({"n_bands": 5}, "pastis24", "made lacks B06, B07"),
    ],
)
def test_a_layout_whose_bands_are_missing_is_refused(
    tmp_path: Path, made: dict[str, Any], layout: DeepSatLayout, said: str
) -> None:
    region = make_region(tmp_path / "made", **made)
    with pytest.raises(ValueError, match=said):
        deepsat(region, tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    from sits_pipeline.folder import Folder

    with pytest.raises(FileNotFoundError, match="no dataset in"):
        pastis(MadeRegion(Folder(str(tmp_path)), None), tmp_path / "out")  # type: ignore[arg-type]
