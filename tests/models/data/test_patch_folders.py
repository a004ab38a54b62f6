"""Folders of published datasets, written as files and read as they are."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models.data.patch_folders import (
    BIG_SIDES,
    ONERA,
    OSCD_BANDS,
    SECO_DATES,
    SECO_FILES,
    read_whole,
    seco_image,
    write_bigearthnet,
    write_eurosat,
    write_geotiffs,
    write_oscd,
    write_raster,
    write_seco,
)

from sits_catalog.cube import IGNORE, NO_DAY, Split
from sits_models.data.patch_sets import open_patch_set
from sits_models.data.patch_sets.base import Patch, PatchSet
from sits_models.data.patch_sets.bigearthnet import BIGEARTHNET_CLASSES, open_bigearthnet
from sits_models.data.patch_sets.eurosat import EUROSAT_CLASSES, open_eurosat
from sits_models.data.patch_sets.geotiffs import open_geotiffs
from sits_models.data.patch_sets.names import place_of
from sits_models.data.patch_sets.oscd import open_oscd
from sits_models.data.patch_sets.rasters import scaled
from sits_models.data.patch_sets.seco import open_seco
from sits_models.recipe import Layout

FIELD, SEA, SNOW = (f"S2A_MSIL2A_20170613T101031_{row}_45" for row in (0, 1, 2))
BARE = "S2B_MSIL2A_20180204T94161_1_7".replace("T94161", "T094161")
CITIES = {"paris": "train", "beihai": "train", "dubai": "test"}
OPENERS: dict[str, Callable[[str], PatchSet]] = {
    "seco": open_seco,
    "geotiffs": open_geotiffs,
    "bigearthnet": open_bigearthnet,
    "eurosat": open_eurosat,
    "oscd": open_oscd,
}
Write = Callable[[Path], Path]


def potsdam(root: Path) -> Path:
    """Two images with labels as colours and lists."""
    write_geotiffs(root, {"top_2_10": (24, 24), "top_2_11": (40, 30)})
    (root / "classes.csv").write_text("name,r,g,b\nnot labelled,0,0,0\nroad,255,255,255\ntree,0,255,0\n")
    for name, (height, width) in (("top_2_10", (24, 24)), ("top_2_11", (40, 30))):
        labels = np.zeros((3, height, width), np.uint8)
        labels[1, 4:8] = 255
        labels[:, 8:] = 255
        write_raster(root / "labels" / f"{name}.tif", labels)
    (root / "train.txt").write_text("top_2_10.tif\n")
    (root / "test.txt").write_text("top_2_11\n\n")
    return root


WRITERS: dict[str, Write] = {
    "seco": lambda root: write_seco(root, locations=2, dates=SECO_DATES[::2]),
    "geotiffs": potsdam,
    "bigearthnet": lambda root: write_bigearthnet(root, {FIELD: ["Pastures"], SEA: ["Sea and ocean"]}),
    "eurosat": lambda root: write_eurosat(root, {"Forest": 2, "SeaLake": 1}, suffix=".tif"),
    "oscd": lambda root: write_oscd(root, CITIES),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each layout, which no test changes."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


def whole(patches: PatchSet, number: int, **more: Any) -> Patch:
    height, width = patches.facts.sizes[number].tolist()
    dates = np.flatnonzero(patches.facts.days[number] != NO_DAY)
    return patches.read(number, slice(0, height), slice(0, width), dates, **more)


def read_all(patches: PatchSet) -> list[Patch]:
    return [whole(patches, number) for number in range(len(patches.facts.sizes))]


def assert_equal(one: Patch, other: Patch) -> None:
    for name in ("image", "clear", "crop", "parcel", "present"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def days(*texts: str) -> list[int]:
    return [(date.fromisoformat(text) - date(1970, 1, 1)).days for text in texts]


# --- what holds for each layout


@pytest.mark.parametrize("layout", WRITERS)
def test_facts_and_patches_have_the_promised_shapes(layout: str, folders: dict[str, Path]) -> None:
    facts = (patches := OPENERS[layout](str(folders[layout]))).facts
    n, k = len(facts.sizes), len(facts.classes)
    assert n >= 2
    assert (facts.path, facts.name) == (str(folders[layout]), folders[layout].name)
    assert (facts.sizes.dtype, facts.days.dtype, facts.splits.dtype) == (np.int64, np.int32, np.uint8)
    assert (facts.sizes.shape, facts.days.shape[0], facts.splits.shape) == ((n, 2), n, (n,))
    assert [entry.index for entry in facts.classes] == list(range(k))
    assert set(facts.radiometry) == {"level", "scale", "offset_removed", "clamp"}
    for number, patch in enumerate(read_all(patches)):
        t, size = int((facts.days[number] != NO_DAY).sum()), tuple(facts.sizes[number])
        assert (patch.image.dtype, patch.image.shape) == (np.uint16, (t, len(facts.bands), *size))
        assert (patch.clear.dtype, patch.clear.shape) == (np.bool_, (t, *size))
        assert patch.clear.all()
        assert patch.image.min() >= 1
        assert patch.image.max() <= 10_000
        assert (patch.crop is not None) == (k > 0 and facts.dense)
        assert (patch.present is not None) == (not facts.dense)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_recipe_names_each_layout(layout: Layout, folders: dict[str, Path]) -> None:
    found, expected = open_patch_set(str(folders[layout]), layout), OPENERS[layout](str(folders[layout]))
    assert type(found) is type(expected)
    assert found.facts.identity == expected.facts.identity


@pytest.mark.parametrize("layout", WRITERS)
def test_a_window_is_a_part_of_the_whole(layout: str, folders: dict[str, Path]) -> None:
    patches = OPENERS[layout](str(folders[layout]))
    all_of_it = whole(patches, 1)
    rows, columns, dates = slice(5, 18), slice(11, 24), np.arange(all_of_it.image.shape[0])[::-1]
    part = patches.read(1, rows, columns, dates)
    np.testing.assert_array_equal(part.image, all_of_it.image[dates][:, :, rows, columns])
    np.testing.assert_array_equal(part.clear, all_of_it.clear[dates][:, rows, columns])
    if all_of_it.crop is not None:
        np.testing.assert_array_equal(part.crop, all_of_it.crop[rows, columns])


@pytest.mark.parametrize("layout", WRITERS)
def test_bands_that_are_asked_for_are_those_of_the_whole(layout: str, folders: dict[str, Path]) -> None:
    patches = OPENERS[layout](str(folders[layout]))
    bands = np.array([2, 0])
    some, everything = whole(patches, 0, bands=bands), whole(patches, 0)
    np.testing.assert_array_equal(some.image, everything.image[:, bands])
    np.testing.assert_array_equal(some.clear, everything.clear)


@pytest.mark.parametrize("layout", WRITERS)
def test_labels_alone_are_those_of_the_whole(layout: str, folders: dict[str, Path]) -> None:
    patches = OPENERS[layout](str(folders[layout]))
    for number, patch in enumerate(read_all(patches)):
        labels = patches.labels(number)
        np.testing.assert_array_equal(labels.crop, patch.crop)
        np.testing.assert_array_equal(labels.present, patch.present)


@pytest.mark.parametrize("layout", WRITERS)
def test_it_pickles_and_several_threads_read_the_same(layout: str, folders: dict[str, Path]) -> None:
    patches = OPENERS[layout](str(folders[layout]))
    again: PatchSet = pickle.loads(pickle.dumps(patches))
    numbers = list(range(len(patches.facts.sizes))) * 6

    def part(number: int) -> Patch:
        return again.read(number, slice(3, 20), slice(7, 19), np.array([0]))

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(part, numbers))
    expected = [patches.read(number, slice(3, 20), slice(7, 19), np.array([0])) for number in numbers]
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_copy_elsewhere_has_the_same_identity_and_another_set_another(
    layout: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(folders[layout], tmp_path / "copied"))
    ours = OPENERS[layout](str(folders[layout])).facts.identity
    assert OPENERS[layout](str(copied)).facts.identity == ours
    images = copied / {"geotiffs": "images", "oscd": f"{ONERA}Images", "eurosat": "Forest"}.get(layout, ".")
    last = sorted(images.iterdir())[-1]
    shutil.rmtree(last) if last.is_dir() else last.unlink()
    if layout == "geotiffs":
        (copied / "test.txt").unlink()
    assert OPENERS[layout](str(copied)).facts.identity != ours


@pytest.mark.parametrize("layout", WRITERS)
def test_a_folder_that_is_not_there_or_empty_is_said_to_be(layout: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        OPENERS[layout](str(tmp_path / "none"))
    (tmp_path / "images").mkdir()
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(tmp_path))} should hold (.*: (give|unpack)|.*; it has images)"
    ):
        OPENERS[layout](str(tmp_path))


FIRST_FILES = {
    "seco": f"000000/{seco_image(SECO_DATES[0])}/B4.tif",
    "geotiffs": "images/top_2_10.tif",
    "bigearthnet": f"{FIELD}/{FIELD}_B04.tif",
    "eurosat": "Forest/Forest_1.tif",
    "oscd": f"{ONERA}Images/beihai/imgs_1_rect/B04.tif",
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_that_is_missing_torn_or_of_another_size_is_named(
    layout: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(folders[layout], tmp_path / "copied"))
    patches, path = OPENERS[layout](str(copied)), copied / FIRST_FILES[layout]
    data, values = path.read_bytes(), read_whole(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match=rf"^{re.escape(str(path))} cannot be read \(.*\); it may be torn"):
        whole(patches, 0)
    write_raster(path, values[:, :-1])
    with pytest.raises(OSError, match=rf"^{re.escape(str(path))} should have \d+ x \d+ px .*; it has \d+ x \d+ px"):
        whole(patches, 0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"^{re.escape(str(path))} is missing; unpack the dataset again"):
        whole(patches, 0)


def test_values_of_eight_bits_are_scaled_and_rounded() -> None:
    every = np.arange(256, dtype=np.uint8)
    exact = every / 255 * 10_000
    found = scaled(every, 8)
    assert found.dtype == np.uint16
    assert np.abs(found[1:] - exact[1:]).max() <= 0.5
    assert found[[0, 1, 51, 255]].tolist() == [1, 39, 2000, 10_000]
    assert scaled(np.array([0, 3, 32768, 65535], np.uint16), 16).tolist() == [1, 1, 5000, 10_000]


# --- SeCo


def test_seco_has_twelve_bands_and_the_dates_in_the_names(folders: dict[str, Path]) -> None:
    facts = open_seco(str(folders["seco"])).facts
    assert facts.bands == ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    assert facts.days.tolist() == [days("2019-01-05", "2019-06-22", "2019-12-07")] * 2
    assert facts.sizes.tolist() == [[264, 264]] * 2
    assert facts.splits.tolist() == [Split.NONE] * 2
    assert not facts.classes
    assert facts.radiometry["offset_removed"] is True


def test_seco_repeats_the_values_of_coarse_bands(folders: dict[str, Path]) -> None:
    patch = whole(open_seco(str(folders["seco"])), 1)
    image = folders["seco"] / "000001" / seco_image(SECO_DATES[2])
    for band, factor in (("B1", 6), ("B4", 1), ("B8A", 2)):
        stored = read_whole(image / f"{band}.tif")[0].astype(np.float64)
        expected = np.kron((stored * 10_000 / 255).round().clip(1), np.ones((factor, factor)))
        np.testing.assert_array_equal(patch.image[1, SECO_FILES.index(band)], expected)


def test_seco_opens_the_bands_that_are_asked_for_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folders["seco"], tmp_path / "seco"))
    patches = open_seco(str(copied))
    for path in copied.rglob("B1.tif"):
        path.unlink()
    for path in (copied / "000000" / seco_image(SECO_DATES[0])).iterdir():
        path.unlink()
    part = patches.read(0, slice(0, 8), slice(0, 8), np.array([2, 1]), np.array([3, 2, 1]))
    assert part.image.shape == (2, 3, 8, 8)
    with pytest.raises(FileNotFoundError, match=r"B1\.tif is missing"):
        patches.read(0, slice(0, 8), slice(0, 8), np.array([2]))


def test_a_location_of_seco_with_fewer_dates_is_padded(tmp_path: Path) -> None:
    write_seco(tmp_path, locations=2, dates=SECO_DATES[:2])
    shutil.rmtree(tmp_path / "000001" / seco_image(SECO_DATES[0]))
    assert open_seco(str(tmp_path)).facts.days.tolist() == [
        days("2019-01-05", "2019-03-30"),
        [*days("2019-03-30"), NO_DAY],
    ]


def test_values_of_seco_since_the_offset_are_said_to_have_it(tmp_path: Path) -> None:
    for day in ("20211201", "20220125"):
        (tmp_path / day / "000000" / seco_image(day)).mkdir(parents=True)
    found = {day: open_seco(str(tmp_path / day)).facts.radiometry for day in ("20211201", "20220125")}
    assert found["20211201"]["offset_removed"] is True
    assert found["20220125"]["offset_removed"] is False


def test_a_location_of_seco_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "000003" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"000003 should hold folders of dates such as .*; it has images"):
        open_seco(str(tmp_path))
    (tmp_path / "000003" / "images").rmdir()
    with pytest.raises(ValueError, match=r"000003 should hold folders of dates such as .*; it has none"):
        open_seco(str(tmp_path))


# --- GeoTIFFs


def test_labels_of_colours_become_classes(folders: dict[str, Path]) -> None:
    patches = open_geotiffs(str(folders["geotiffs"]))
    facts = patches.facts
    assert [(entry.code, entry.colour) for entry in facts.classes] == [("road", "#ffffff"), ("tree", "#00ff00")]
    assert facts.sizes.tolist() == [[24, 24], [40, 30]]
    assert facts.splits.tolist() == [Split.TRAIN, Split.TEST]
    assert facts.days.tolist() == [[0], [0]]
    crop = whole(patches, 1).crop
    assert crop is not None
    expected = np.repeat([IGNORE, 1, 0], [4, 4, 32])
    np.testing.assert_array_equal(crop, np.broadcast_to(expected[:, None], (40, 30)))


def test_labels_of_values_become_classes_and_images_without_labels_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_geotiffs(tmp_path, {"a": (3, 3), "b": (3, 3)})
    (tmp_path / "classes.csv").write_text("Value, Name\n300,wheat\n7,Not labelled\n2,maize\n")
    write_raster(tmp_path / "labels" / "b.tif", np.array([[[300, 7, 2]] * 3], np.uint16))
    patches = open_geotiffs(str(tmp_path))
    a, b = read_all(patches)
    assert [entry.name for entry in patches.facts.classes] == ["wheat", "maize"]
    assert b.crop is not None
    assert a.crop is not None
    assert b.crop.tolist() == [[0, IGNORE, 1]] * 3
    assert a.crop.tolist() == [[IGNORE] * 3] * 3
    assert "1 of 2 images have no labels" in caplog.text


def test_bands_have_the_names_of_the_file_of_the_images_or_numbers(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2)})
    assert open_geotiffs(str(tmp_path)).facts.bands == ("B1", "B2", "B3", "B4")
    write_geotiffs(tmp_path, {"a": (2, 2)}, descriptions=("red", "green", "blue", "infrared"))
    assert open_geotiffs(str(tmp_path)).facts.bands == ("red", "green", "blue", "infrared")
    (tmp_path / "bands.txt").write_text("B04\nB03\nB02\nB08\n")
    assert open_geotiffs(str(tmp_path)).facts.bands == ("B04", "B03", "B02", "B08")
    (tmp_path / "bands.txt").write_text("B04\nB03\n")
    with pytest.raises(
        ValueError, match=r"bands\.txt should name the 4 bands of the images, each once; it has B04, B03"
    ):
        open_geotiffs(str(tmp_path))


def test_the_descriptions_of_bands_are_the_same_in_all_files_unless_a_file_names_them(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2)}, descriptions=("red", "green", "blue", "infrared"))
    for others, told in ((("blue", "green", "red", "infrared"), "blue, green, red, infrared"), (None, "none, none")):
        write_geotiffs(tmp_path, {"b": (2, 2)}, descriptions=others)
        says = rf"one order of bands; .*a\.tif are red, green, blue, infrared, those in .*b\.tif {told}.*bands\.txt"
        with pytest.raises(ValueError, match=says):
            open_geotiffs(str(tmp_path))
    (tmp_path / "bands.txt").write_text("B04\nB03\nB02\nB08\n")
    assert open_geotiffs(str(tmp_path)).facts.bands == ("B04", "B03", "B02", "B08")


def test_files_as_windows_writes_them_and_the_other_name_of_a_list_are_read(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2), "b": (2, 2)})
    (tmp_path / "bands.txt").write_text("R\nG\nB\nIR\n", encoding="utf-8-sig")
    (tmp_path / "train.txt").write_text("a\n", encoding="utf-8-sig")
    (tmp_path / "val.txt").write_text("b\n", encoding="utf-8-sig")
    facts = open_geotiffs(str(tmp_path)).facts
    assert facts.bands == ("R", "G", "B", "IR")
    assert facts.splits.tolist() == [Split.TRAIN, Split.VALIDATION]


def test_two_images_of_one_name_but_for_the_suffix_are_refused(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2), "b": (2, 2)})
    shutil.copy(tmp_path / "images" / "b.tif", tmp_path / "images" / "b.tiff")
    with pytest.raises(ValueError, match=r"images has two files called 'b' but for their suffix, .*; rename one"):
        open_geotiffs(str(tmp_path))


def test_other_names_of_bands_or_classes_make_another_set(folders: dict[str, Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folders["geotiffs"], tmp_path / "copied"))
    found = [open_geotiffs(str(copied)).facts.identity]
    (copied / "bands.txt").write_text("R\nG\nB\nIR\n")
    found.append(open_geotiffs(str(copied)).facts.identity)
    table = copied / "classes.csv"
    table.write_text(table.read_text().replace("tree", "shrub"))
    found.append(open_geotiffs(str(copied)).facts.identity)
    assert len(set(found)) == 3


def test_a_value_that_is_nodata_is_not_observed(tmp_path: Path) -> None:
    values = np.array([[[0, 5, 255]], [[9, 5, 0]]], np.uint8)
    write_raster(tmp_path / "images" / "a.tif", values, nodata=5)
    patches = open_geotiffs(str(tmp_path))
    patch = whole(patches, 0)
    assert patch.image[0, :, 0].tolist() == [[1, 0, 10_000], [353, 0, 1]]
    assert patch.clear[0].tolist() == [[True, False, True]]
    assert whole(patches, 0, bands=np.array([1])).image[0, :, 0].tolist() == [[353, 0, 1]]


def test_the_largest_value_of_eleven_bits_becomes_ten_thousand(tmp_path: Path) -> None:
    write_raster(tmp_path / "images" / "a.tif", np.array([[[0, 1024, 2047]]], np.uint16), nbits=11)
    patches = open_geotiffs(str(tmp_path))
    assert patches.facts.radiometry["level"] == "11 bit"
    assert whole(patches, 0).image.ravel().tolist() == [1, 5002, 10_000]


def test_images_of_different_kinds_are_refused(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2)})
    write_raster(tmp_path / "images" / "b.tif", np.ones((3, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"one number of bands; that of .*a\.tif is 4, that of .*b\.tif 3"):
        open_geotiffs(str(tmp_path))
    write_raster(tmp_path / "images" / "b.tif", np.ones((4, 2, 2), np.uint16))
    with pytest.raises(ValueError, match=r"one type; that of .*a\.tif is uint8, that of .*b\.tif uint16"):
        open_geotiffs(str(tmp_path))
    write_raster(tmp_path / "images" / "a.tif", np.ones((4, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"a\.tif should be of uint8 or uint16; it is of float32"):
        open_geotiffs(str(tmp_path))


def test_a_label_in_no_row_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folders["geotiffs"], tmp_path / "copied"))
    (copied / "classes.csv").write_text("name,r,g,b\nroad,255,255,255\ntree,0,0,0\n")
    with pytest.raises(
        OSError, match=r"labels/top_2_10\.tif has the colour 0, 255, 0, which is in no row of .*classes"
    ):
        whole(open_geotiffs(str(copied)), 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            None,
            r"should have the columns name, value, with numbers from 0 to 65535, for the labels.*; there is no such",
        ),
        ("name,code\na,1\n", r"should have the columns name, value.*; it has name, code"),
        ("name,value\na,x\n", r"should have the columns name, value.*; it has the row 'a,x'"),
        ("name,value\na,1\na,2\n", r"should have a class at least, each of .*; a share a name"),
        ("name,value\na,1\nb,1\n", r"should have a class at least, each of .*; a, b share a name, value or colour"),
        ("name,value\nunlabelled,1\n", r"should have a class at least, each of .*; none"),
    ],
)
def test_a_table_of_classes_that_is_none_is_refused(table: str | None, message: str, tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2)})
    write_raster(tmp_path / "labels" / "a.tif", np.ones((1, 2, 2), np.uint8))
    if table is not None:
        (tmp_path / "classes.csv").write_text(table)
    with pytest.raises(ValueError, match=rf"classes\.csv {message}"):
        open_geotiffs(str(tmp_path))


def test_labels_of_another_size_or_of_no_image_are_refused(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2)})
    write_raster(tmp_path / "labels" / "b.tif", np.ones((1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="labels should have files of the names of those in images; it has none"):
        open_geotiffs(str(tmp_path))
    write_raster(tmp_path / "labels" / "a.tif", np.ones((1, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.tif should have 2 x 2 px as its image, .*; it has 2 x 3 px, 1 and 8"):
        open_geotiffs(str(tmp_path))


def test_a_list_that_names_what_is_not_there_or_in_another_list_is_refused(tmp_path: Path) -> None:
    write_geotiffs(tmp_path, {"a": (2, 2), "b": (2, 2)})
    (tmp_path / "train.txt").write_text("a\nc.tif\n")
    with pytest.raises(
        ValueError, match=r"train\.txt should name .*; 1 of its 2 names are not there, the first is 'c'"
    ):
        open_geotiffs(str(tmp_path))
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "validation.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"'a' is in .*train\.txt and in .*validation\.txt; leave it in one"):
        open_geotiffs(str(tmp_path))
    (tmp_path / "validation.txt").unlink()
    assert open_geotiffs(str(tmp_path)).facts.splits.tolist() == [Split.TRAIN, Split.NONE]


# --- BigEarthNet


# The classes of Sumbul and others 2021 and their CORINE names; the last row is of none.
NINETEEN = """
Urban fabric: Continuous urban fabric; Discontinuous urban fabric
Industrial or commercial units: Industrial or commercial units
Arable land: Non-irrigated arable land; Permanently irrigated land; Rice fields
Permanent crops: Vineyards; Fruit trees and berry plantations; Olive groves; \
Annual crops associated with permanent crops
Pastures: Pastures
Complex cultivation patterns: Complex cultivation patterns
Land principally occupied by agriculture, with significant areas of natural vegetation: \
Land principally occupied by agriculture, with significant areas of natural vegetation
Agro-forestry areas: Agro-forestry areas
Broad-leaved forest: Broad-leaved forest
Coniferous forest: Coniferous forest
Mixed forest: Mixed forest
Natural grassland and sparsely vegetated areas: Natural grassland; Sparsely vegetated areas
Moors, heathland and sclerophyllous vegetation: Moors and heathland; Sclerophyllous vegetation
Transitional woodland, shrub: Transitional woodland/shrub
Beaches, dunes, sands: Beaches, dunes, sands
Inland wetlands: Inland marshes; Peatbogs
Coastal wetlands: Salt marshes; Salines
Inland waters: Water courses; Water bodies
Marine waters: Coastal lagoons; Estuaries; Sea and ocean
none: Road and rail networks and associated land; Port areas; Airports; Mineral extraction sites; Dump sites; \
Construction sites; Green urban areas; Sport and leisure facilities; Bare rock; Burnt areas; Intertidal flats
"""


def test_the_43_names_become_19_classes_or_none(tmp_path: Path) -> None:
    rows = [line.split(": ") for line in NINETEEN.strip().splitlines()]
    named = {name: label for label, members in rows for name in members.split("; ")}
    assert len(named) == 43
    classes = [label for label, _ in rows if label != "none"]
    assert [entry.name for entry in BIGEARTHNET_CLASSES] == classes
    labels = tmp_path / FIELD / f"{FIELD}_labels_metadata.json"
    labels.parent.mkdir()
    for name, label in named.items():
        # Beside one of another class, so that a patch with a name of none is there too.
        other = "Coniferous forest" if label == "Pastures" else "Pastures"
        labels.write_text(json.dumps({"labels": [name, other]}))
        present = open_bigearthnet(str(tmp_path)).labels(0).present
        assert present is not None
        found = {classes[index] for index in np.flatnonzero(present)}
        assert found == {label, other} - {"none"}, name


def test_bigearthnet_has_several_classes_a_patch_and_leaves_some_patches_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {
        FIELD: ["Rice fields", "Non-irrigated arable land", "Airports", "Pastures"],
        SEA: ["Sea and ocean"],
        SNOW: ["Pastures"],
        BARE: ["Bare rock"],
    }
    write_bigearthnet(tmp_path / "BigEarthNet-v1.0", labels)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.csv").write_text(f"{FIELD},S1A_IW_GRDH\n{SNOW},S1A\n{BARE},S1A\n")
    (tmp_path / "splits" / "val.csv").write_text(f"{SEA},S1B_IW_GRDH\n")
    (tmp_path / "patches_with_seasonal_snow.csv").write_text(f"{SNOW}\nS2A_MSIL2A_20171221T112501_9_9\n")
    facts = (patches := open_bigearthnet(str(tmp_path))).facts
    assert facts.dense is False
    assert facts.splits.tolist() == [Split.TRAIN, Split.VALIDATION]
    assert facts.days.tolist() == [days("2017-06-13")] * 2
    assert facts.sizes.tolist() == [[120, 120]] * 2
    present = [patch.present for patch in read_all(patches)]
    names = [[e.name for e in BIGEARTHNET_CLASSES if p is not None and p[e.index]] for p in present]
    assert names == [["Arable land", "Pastures"], ["Marine waters"]]
    assert "1 patches are left out, since the lists of snow and clouds name them" in caplog.text
    assert "1 patches are left out, since they have none of the 19 classes" in caplog.text


def test_bigearthnet_keeps_reflectance_and_repeats_coarse_bands(folders: dict[str, Path]) -> None:
    patch = whole(open_bigearthnet(str(folders["bigearthnet"])), 1)
    for number, (band, side) in enumerate(BIG_SIDES.items()):
        stored = read_whole(folders["bigearthnet"] / SEA / f"{SEA}_{band}.tif")[0]
        factor = 120 // side
        np.testing.assert_array_equal(patch.image[0, number], np.kron(stored, np.ones((factor, factor), np.uint16)))


def test_a_pixel_without_any_band_above_zero_was_not_observed(folders: dict[str, Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folders["bigearthnet"], tmp_path / "copied"))
    for band, side in BIG_SIDES.items():
        path = copied / FIELD / f"{FIELD}_{band}.tif"
        values = read_whole(path)
        values[0, : side // 20] = 0  # the upper 6 rows of 10 m pixels
        if band == "B08":
            values[0, 0, 0] = 7
        if band == "B02":
            values[0, 50] = 0
        write_raster(path, values)
    patches = open_bigearthnet(str(copied))
    everything = whole(patches, 0)
    clear = np.ones((120, 120), np.bool_)
    clear[:6] = False
    clear[0, 0] = True
    np.testing.assert_array_equal(everything.clear[0], clear)
    assert everything.image[0, :, 0, 0].tolist() == [1] * 7 + [7] + [1] * 4
    assert not everything.image[0, :, 0, 1:].any()
    assert (everything.image[0, 1, 50] == 1).all()
    blue = whole(patches, 0, bands=np.array([1]))
    np.testing.assert_array_equal(blue.image[:, 0], everything.image[:, 1])
    np.testing.assert_array_equal(blue.clear, everything.clear)


def test_labels_of_bigearthnet_that_are_none_are_refused(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path, {FIELD: ["Moon dust"]})
    with pytest.raises(ValueError, match=rf"{FIELD}_labels_metadata\.json has the label 'Moon dust'"):
        open_bigearthnet(str(tmp_path))
    path = tmp_path / FIELD / f"{FIELD}_labels_metadata.json"
    path.write_text('{"labels": ["Past')
    with pytest.raises(ValueError, match="should be JSON with a list 'labels'"):
        open_bigearthnet(str(tmp_path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"labels_metadata\.json is missing"):
        open_bigearthnet(str(tmp_path))
    path.write_text(json.dumps({"labels": ["Airports"]}))
    with pytest.raises(ValueError, match="should hold a patch with one of the 19 classes; none of its 1 has one"):
        open_bigearthnet(str(tmp_path))


def test_the_second_version_of_bigearthnet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BigEarthNet-S2" / "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is BigEarthNet 2\.0, .*; this reads version 1\.0"):
        open_bigearthnet(str(tmp_path))


# --- EuroSAT


def test_eurosat_in_thirteen_bands_has_its_last_band_last(folders: dict[str, Path]) -> None:
    patches = open_eurosat(str(folders["eurosat"]))
    assert patches.facts.bands[7:] == ("B08", "B09", "B10", "B11", "B12", "B8A")
    assert patches.facts.radiometry["level"] == "L1C"
    stored = read_whole(folders["eurosat"] / "Forest" / "Forest_2.tif")
    np.testing.assert_array_equal(whole(patches, 1).image[0], stored)


def test_eurosat_in_colours_has_one_class_a_patch(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"SeaLake": 2, "AnnualCrop": 11}, suffix=".jpg")
    patches = open_eurosat(str(tmp_path))
    assert patches.facts.bands == ("B04", "B03", "B02")
    assert patches.facts.days.tolist() == [[0]] * 13
    found = read_all(patches)
    codes = [[e.code for e in EUROSAT_CLASSES if p.present is not None and p.present[e.index]] for p in found]
    assert codes == [["AnnualCrop"]] * 11 + [["SeaLake"]] * 2
    # By number, not by letter: the third patch is AnnualCrop_3, not AnnualCrop_11.
    stored = read_whole(tmp_path / "AnnualCrop" / "AnnualCrop_3.jpg").astype(np.float64)
    np.testing.assert_array_equal(found[2].image[0], (stored * 10_000 / 255).round().clip(1))


def test_eurosat_without_lists_is_split_by_the_hash_of_the_name(tmp_path: Path) -> None:
    write_eurosat(tmp_path / "jpg", {"AnnualCrop": 4, "Forest": 3}, suffix=".jpg")
    write_eurosat(tmp_path / "tif", {"AnnualCrop": 4, "Forest": 3}, suffix=".tif")
    train, validation, test = Split.TRAIN, Split.VALIDATION, Split.TEST
    # The hashes, as fractions, are 0.193, 0.408, 0.872, 0.700 and 0.991, 0.635, 0.318.
    expected = [train, train, test, validation, test, validation, train]
    assert open_eurosat(str(tmp_path / "jpg")).facts.splits.tolist() == expected
    assert open_eurosat(str(tmp_path / "tif")).facts.splits.tolist() == expected
    shares = np.array([place_of(f"River_{number}") for number in range(1, 2501)])
    assert abs((shares < 0.6).mean() - 0.6) < 0.03
    assert abs((shares >= 0.8).mean() - 0.2) < 0.03


def test_lists_of_eurosat_hold_for_both_forms(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": 3}, suffix=".tif")
    (tmp_path / "eurosat-train.txt").write_text("Forest_2.jpg\n")
    (tmp_path / "eurosat-test.txt").write_text("Forest/Forest_1.tif\n")
    assert open_eurosat(str(tmp_path)).facts.splits.tolist() == [Split.TEST, Split.TRAIN, Split.NONE]


def test_what_is_no_eurosat_is_refused(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": 1}, suffix=".tif")
    (tmp_path / "Forest" / "Forest_1.tif.aux.xml").write_text("<PAMDataset/>")
    assert len(open_eurosat(str(tmp_path)).facts.sizes) == 1
    (tmp_path / "Forest" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"Forest should hold Forest_1\.jpg, or \.tif, and so on; it has notes\.txt"):
        open_eurosat(str(tmp_path))
    (tmp_path / "Forest" / "notes.txt").unlink()
    write_eurosat(tmp_path, {"River": 1}, suffix=".jpg")
    with pytest.raises(ValueError, match=r"should hold images of \.jpg or of \.tif; it has \.jpg and \.tif"):
        open_eurosat(str(tmp_path))
    (tmp_path / "Desert").mkdir()
    with pytest.raises(
        ValueError, match=r"should hold folders of the classes of EuroSAT \(AnnualCrop, .*; it has Desert"
    ):
        open_eurosat(str(tmp_path))


# --- OSCD


def changes() -> NDArray[np.int64]:
    expected = np.zeros((30, 40), np.int64)
    expected[3:6, 4:9] = 1
    return expected


@pytest.mark.parametrize("short", [False, True])
def test_oscd_has_two_dates_and_a_map_of_changes(short: bool, tmp_path: Path) -> None:
    write_oscd(tmp_path, CITIES, short=short)
    facts = (patches := open_oscd(str(tmp_path))).facts
    assert facts.bands == OSCD_BANDS
    assert facts.days.tolist() == [days("2015-12-11", "2018-03-30")] * 3
    assert facts.sizes.tolist() == [[30, 40]] * 3
    assert [entry.name for entry in facts.classes] == ["no change", "change"]
    # beihai, dubai, paris; of the train cities the hash of paris is below 0.15, and that of beihai is not.
    assert facts.splits.tolist() == [Split.TRAIN, Split.TEST, Split.VALIDATION]
    patch = whole(patches, 1)
    np.testing.assert_array_equal(patch.crop, changes())
    for date_number in (0, 1):
        folder = tmp_path / ("images" if short else f"{ONERA}Images") / "dubai" / f"imgs_{date_number + 1}_rect"
        for band, name in enumerate(OSCD_BANDS):
            np.testing.assert_array_equal(patch.image[date_number, band], read_whole(folder / f"{name}.tif")[0])


def test_of_the_published_train_cities_three_are_for_validation() -> None:
    published = (
        *("aguasclaras", "bercy", "bordeaux", "nantes", "paris", "rennes", "saclay_e"),
        *("abudhabi", "cupertino", "pisa", "beihai", "hongkong", "beirut", "mumbai"),
    )
    assert [name for name in sorted(published) if place_of(name) < 0.15] == ["beirut", "paris", "rennes"]


def test_lists_of_oscd_come_before_the_folders_of_the_maps(tmp_path: Path) -> None:
    write_oscd(tmp_path, {"beihai": "train", "milano": "train", "nantes": "train"})
    (tmp_path / f"{ONERA}Images" / "train.txt").write_text("beihai")
    assert open_oscd(str(tmp_path)).facts.splits.tolist() == [Split.TRAIN] * 3
    (tmp_path / f"{ONERA}Images" / "test.txt").write_text("milano,nantes\n")
    assert open_oscd(str(tmp_path)).facts.splits.tolist() == [Split.TRAIN, Split.TEST, Split.TEST]


def test_a_city_without_a_map_or_dates_or_with_other_values_is_named(tmp_path: Path) -> None:
    write_oscd(tmp_path, {"dubai": "test"})
    label = tmp_path / f"{ONERA}Test Labels" / "dubai" / "cm" / "dubai-cm.tif"
    values = read_whole(label)
    values[0, 7, 7] = 255
    write_raster(label, values)
    with pytest.raises(OSError, match=r"dubai-cm\.tif should have 1 \(no change\) and 2 \(change\); it has 255"):
        whole(open_oscd(str(tmp_path)), 0)
    path = tmp_path / f"{ONERA}Images" / "dubai" / "dates.txt"
    path.write_text("date_1: 20151211\n")
    with pytest.raises(ValueError, match=r"dates\.txt should have the lines .*; it has 'date_1: 20151211'"):
        open_oscd(str(tmp_path))
    path.unlink()
    with pytest.raises(ValueError, match=r"dates\.txt should have the lines .*; it has 'no such file'"):
        open_oscd(str(tmp_path))
    label.unlink()
    with pytest.raises(ValueError, match=r"dubai should have a map of changes, .*dubai-cm\.tif or that of the test"):
        open_oscd(str(tmp_path))
