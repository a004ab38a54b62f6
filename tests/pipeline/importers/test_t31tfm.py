"""T31TFM_1618 in small, by both namings of its label rasters."""

from __future__ import annotations

import pickle
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Transformer
from tests.pipeline.importers.chips_in_files import CHIP, write_t31tfm
from tests.pipeline.importers.made_up import Silent

from sits_catalog.cube import IGNORE, check
from sits_pipeline.folder import Folder
from sits_pipeline.importers.t31tfm import open_t31tfm
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.store.patches import read_patch_layout, read_patches
from sits_pipeline.verify import verify

NAMINGS = ("assignments", "masks")
ROWS = {0: 0, 1: 1, 2: 2, 3: 3, 6: 4, 7: 5, 14: 12, 20: 13, 25: 14, 33: 15, 36: 18, 48: 19, 73: 20}
"""Class index of each number of the label rasters: that of the published table, plus 1; 0 is no parcel."""


@pytest.mark.parametrize("naming", NAMINGS)
def test_chips_are_read_with_dates_splits_and_labels(tmp_path: Path, naming: str) -> None:
    chips = write_t31tfm(tmp_path, naming=naming)
    original = open_t31tfm(tmp_path)
    patches = original.index()
    assert [f"{patch.name}.pickle" for patch in patches] == list(chips)
    assert [patch.split for patch in patches] == ["train", "train", "validation"]
    assert pickle.loads(pickle.dumps(original)) == original
    for patch, chip in zip(patches, chips.values(), strict=True):
        first = (date(chip["year"], 1, 1) - date(1970, 1, 1)).days
        assert patch.days.tolist() == [first + doy - 1 for doy in (12, 100, 100, 290)]
        pixels = original.read(patch)
        assert pixels.dn.shape == (4, 13, 48, 48)
        for band, factor in {"B04": 1, "B8A": 2, "B10": 6}.items():
            found = pixels.dn[:, original.facts.bands.index(band)]
            np.testing.assert_array_equal(found[:, 47, 13], chip[band][:, 47 // factor, 13 // factor])
        if naming == "masks":
            partly, fully = chip["masks"] == 1, chip["masks"] == 2
        else:
            partly, fully = chip["part_ass"] > 0, chip["full_ass"] > 0
        classes = np.array([[ROWS[int(code)] for code in line] for line in chip["labels"]])
        np.testing.assert_array_equal(pixels.labels["crop_type"], np.where(partly | fully, IGNORE, classes))
        np.testing.assert_array_equal(pixels.labels["conflict"], np.where(fully, 6, np.where(partly, 2, 0)))
        np.testing.assert_array_equal(pixels.labels["parcel_id"], chip["ids"])
        np.testing.assert_array_equal(pixels.labels["coverage"], np.rint(chip["ratios"] * 255))


@pytest.mark.parametrize("naming", NAMINGS)
def test_an_import_is_a_dataset_of_the_contract(tmp_path: Path, naming: str) -> None:
    write_t31tfm(tmp_path / "set", naming=naming)
    original = open_t31tfm(tmp_path / "set")
    outcome = import_dataset(original, str(tmp_path / "out"), Silent())
    folder = Folder(outcome.location)
    assert outcome.complete
    assert check(folder.path) == []
    assert verify(folder) == []
    layout = read_patch_layout(folder)
    assert layout.attributes["radiometry"]["level"] == "L1C"
    assert len(layout.classes) == 20
    np.testing.assert_array_equal(
        read_patches(folder, "reflectance", slice(2, 3))[0], original.read(original.index()[2]).dn
    )


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    write_t31tfm(tmp_path / "old")
    write_t31tfm(tmp_path / "new", naming="masks")
    old, new = (" ".join(open_t31tfm(tmp_path / which).facts.notes) for which in ("old", "new"))
    assert "Left out: groups, invalid, full_ass_x4, ids_x4, labels_x4, part_ass_x4" in old
    assert "Left out: distances" in new
    assert "Outlines are an inference" in old


def test_a_chip_lies_where_its_name_says_in_lambert_93(tmp_path: Path) -> None:
    write_t31tfm(tmp_path)
    outline = open_t31tfm(tmp_path).index()[0].outline
    assert outline is not None
    west, north = Transformer.from_crs(2154, 4326, always_xy=True).transform(800224, 6541426)
    assert (west, north) in [tuple(corner) for corner in outline.exterior.coords]
    assert outline.bounds[0] >= west - 1e-3
    assert 45.9 < outline.centroid.y < 46
    assert 4.2 < outline.centroid.x < 4.4


@pytest.mark.parametrize("name", ["W799943_N6568107_E827372_S6540681/1_2", "W1_N2_E3_S4/2_1", "elsewhere/2_1"])
def test_names_that_make_no_sense_in_lambert_93_give_no_outline(tmp_path: Path, name: str) -> None:
    chips = write_t31tfm(tmp_path / "set")
    path = tmp_path / f"other/2016/pkl_timeseries/{name}_2016.pickle"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(next(iter(chips.values()))))
    original = open_t31tfm(tmp_path / "other")
    assert original.index()[0].outline is None
    assert "some have no outline" in " ".join(original.facts.notes)
    assert "there is no split" in original.facts.notes[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"year": 2017}, "the year should be that of the folder, 2016; it is \\[2017\\]"),
        (
            {"B8A": np.zeros((4, 23, 24), np.uint16)},
            r"B8A should be \(time, y, x\) of \(4, 24, 24\); it is \(4, 23, 24\)",
        ),
        ({"labels": np.full((48, 48), 1.5)}, "labels should hold whole numbers; it holds 1.5"),
        ({"ratios": np.full((48, 48), 1.2)}, r"ratios should lie in 0\.\.1"),
        ({"ids": np.full((48, 48), -1.0)}, "ids should be 0 and more"),
        ({"part_ass": None}, "should hold full_ass and part_ass, or masks"),
        ({"doy": np.array([12, 100, 0, 290])}, r"days of 2016 should lie in 1\.\.366"),
    ],
)
def test_what_is_not_of_the_format_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    chips = write_t31tfm(tmp_path)
    path = tmp_path / f"2016/pkl_timeseries/{CHIP}_2016.pickle"
    chip = {**chips[str(path.relative_to(tmp_path))], **change}
    path.write_bytes(pickle.dumps({name: value for name, value in chip.items() if value is not None}))

    def read() -> None:
        original = open_t31tfm(tmp_path)
        original.read(original.index()[0])

    with pytest.raises(ValueError, match=said) as error:
        read()
    assert str(path) in str(error.value)


@pytest.mark.parametrize("row", ["T31TFM_1618/2016/a.pickle", "/data/2016/a.pickle", "path", "2016"])
def test_a_row_of_a_list_that_is_no_path_of_a_chip_is_named(tmp_path: Path, row: str) -> None:
    write_t31tfm(tmp_path)
    (tmp_path / "paths/train_paths.csv").write_text(f"{row}\n")
    with pytest.raises(ValueError, match=rf"train_paths\.csv: {row} should be the path of a chip below"):
        open_t31tfm(tmp_path).index()


@pytest.mark.parametrize("name", ["ids", "ratios"])
@pytest.mark.parametrize("which", [0, 2])
def test_arrays_that_some_chips_have_and_others_do_not_are_named(tmp_path: Path, name: str, which: int) -> None:
    path, chip = list(write_t31tfm(tmp_path).items())[which]
    (tmp_path / path).write_bytes(pickle.dumps({key: array for key, array in chip.items() if key != name}, protocol=2))
    with pytest.raises(ValueError, match=f"has (an|no) array '{name}', unlike the first chip"):
        open_t31tfm(tmp_path).index()


def test_lists_that_name_missing_chips_or_one_chip_twice_are_refused(tmp_path: Path) -> None:
    chips = write_t31tfm(tmp_path)
    first, second, _ = chips
    (tmp_path / second).unlink()
    with pytest.raises(FileNotFoundError, match=r"is listed in paths/, but is not there \(1 are lost\)"):
        open_t31tfm(tmp_path).index()
    (tmp_path / "paths/eval_paths.csv").write_text(first)
    with pytest.raises(ValueError, match="is listed for validation and for train"):
        open_t31tfm(tmp_path)


def test_a_year_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_t31tfm(tmp_path)
    assert [patch.split for patch in open_t31tfm(tmp_path, years=[2018]).index()] == ["validation"]
    with pytest.raises(FileNotFoundError, match="the years that are there: 2016, 2018"):
        open_t31tfm(tmp_path, years=[2017])
    with pytest.raises(FileNotFoundError, match="the years that are there: none"):
        open_t31tfm(tmp_path / "paths")
