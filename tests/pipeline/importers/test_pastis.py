"""PASTIS in small: the layout of its files with simulated numbers."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pyproj import Transformer
from tests.pipeline.importers.made_up import Silent

from sits_catalog.cube import check
from sits_pipeline.folder import Folder
from sits_pipeline.importers.folds import FoldRule, parse_folds
from sits_pipeline.importers.pastis import marked_pixels, open_pastis
from sits_pipeline.importers.shard import to_reflectance
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.store.patches import read_patch_layout, read_patches
from sits_pipeline.verify import verify

SIDE = 16
EPOCH = date(1970, 1, 1)
DATES = {
    10001: [20180924, 20181004, 20190101],
    # Not in order, and twice the same day.
    10000: [20190301, 20180924, 20190301, 20181231],
    30007: [20181010, 20181011],
    30008: [20181010, 20181012],
}
FOLDS = {10000: 1, 10001: 4, 30007: 5, 30008: 2}
CORNER = (700000.0, 6600000.0)
"""Metres of EPSG:2154: at its central meridian, 3 degrees east."""


def day(text: int) -> int:
    written = str(text)
    return (date(int(written[:4]), int(written[4:6]), int(written[6:])) - EPOCH).days


def feature(number: int, dates: Any, **changes: Any) -> dict[str, Any]:
    x, y = CORNER
    ring = [[x, y], [x + 1280, y], [x + 1280, y + 1280], [x, y + 1280], [x, y]]
    properties = {"ID_PATCH": number, "Fold": FOLDS[number], "dates-S2": dates, "TILE": "t31tfm", "N_Parcel": 7}
    return {
        "type": "Feature",
        "properties": {**properties, "dates-S1A": {"0": 20180901}, **changes},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def as_object(dates: Sequence[int]) -> dict[str, int]:
    return {str(index): found for index, found in enumerate(dates)}


def write_metadata(path: Path, dates_as: Callable[[Sequence[int]], Any] = as_object) -> None:
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}},
        "features": [feature(number, dates_as(dates)) for number, dates in DATES.items()],
    }
    path.write_text(json.dumps(collection))


def series_of(number: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    rng = np.random.default_rng(number)
    dn = rng.integers(50, 6000, (len(DATES[number]), 10, SIDE, SIDE)).astype(np.int16)
    dn[0, :, 0, 0] = -10000  # not observed
    dn[0, 3, 0, 1] = -10000  # one band is missing
    dn[0, 2, 0, 2] = -4  # dark
    return dn


def target_of(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    target = np.random.default_rng(number + 1).integers(0, 20, (3, SIDE, SIDE)).astype(np.uint8)
    target[0, 0, 0] = 19
    return target


def parcels_of(number: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.random.default_rng(number + 2).integers(0, 9_000_000, (SIDE, SIDE)).astype(np.int32)


def write_pastis(
    root: Path,
    *,
    dates_as: Callable[[Sequence[int]], Any] = as_object,
    three_channels: bool = True,
    parcels: str | None = "ANNOTATIONS/ParcelIDs",
) -> Path:
    """The files of four patches."""
    for folder in ("DATA_S2", "DATA_S1A", "ANNOTATIONS", "INSTANCE_ANNOTATIONS"):
        (root / folder).mkdir(parents=True)
    write_metadata(root / "metadata.geojson", dates_as)
    (root / "NORM_S2_patch.json").write_text(json.dumps({"Fold_1": {"mean": [1.0] * 10, "std": [1.0] * 10}}))
    for number in DATES:
        np.save(root / f"DATA_S2/S2_{number}.npy", series_of(number))
        np.save(root / f"ANNOTATIONS/TARGET_{number}.npy", target_of(number)[... if three_channels else 0])
        if parcels is not None:
            np.save(root / f"{parcels}_{number}.npy", parcels_of(number))
    return root


def run(root: Path, out: Path, **options: Any) -> Folder:
    original = open_pastis(root, folds=options.pop("folds", FoldRule()))
    return Folder(import_dataset(original, str(out), Silent(), **options).location)


@pytest.mark.slow
@pytest.mark.parametrize("three_channels", [True, False])
@pytest.mark.parametrize("dates_as", [as_object, lambda d: json.dumps(as_object(d)), lambda d: str(as_object(d)), list])
def test_each_variant_of_the_files_is_written_alike_and_proven(
    tmp_path: Path, dates_as: Callable[[Sequence[int]], Any], three_channels: bool
) -> None:
    root = write_pastis(tmp_path / "PASTIS", dates_as=dates_as, three_channels=three_channels)
    folder = run(root, tmp_path / "out")
    assert check(folder.path) == []
    assert verify(folder) == []
    days = read_patch_layout(folder).days
    for index, number in enumerate(sorted(DATES)):
        dates = np.array([day(text) for text in DATES[number]])
        order = np.argsort(dates, kind="stable")
        n = len(dates)
        assert days[index, :n].tolist() == dates[order].tolist()
        raw = series_of(number)[order].astype(np.int32)
        stored = read_patches(folder, "reflectance", slice(index, index + 1))[0, :n]
        observed = (raw > 0).any(axis=1)
        np.testing.assert_array_equal(stored, np.where(observed[:, None], np.maximum(raw, 1), 0))
        first = int(np.flatnonzero(order == 0)[0])
        quality = read_patches(folder, "quality", slice(index, index + 1))[0]
        assert quality[first, 0, :4].tolist() == [0, 1 | 16, 1, 1]
        classes = target_of(number)[0].astype(np.uint16)
        np.testing.assert_array_equal(
            read_patches(folder, "crop_type", slice(index, index + 1))[0], np.where(classes == 19, 65535, classes)
        )
        np.testing.assert_array_equal(read_patches(folder, "parcel_id", slice(index, index + 1))[0], parcels_of(number))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pastis(tmp_path / "PASTIS")


def test_patches_are_in_the_order_of_their_numbers_with_folds_splits_and_outlines(root: Path) -> None:
    patches = open_pastis(root, folds=FoldRule()).index()
    assert [(patch.name, patch.fold, patch.split) for patch in patches] == [
        ("10000", 1, "train"), ("10001", 4, "validation"), ("30007", 5, "test"), ("30008", 2, "train")
    ]  # fmt: skip
    assert patches[0].order.tolist() == [1, 3, 0, 2]
    assert patches[0].original == {"ID_PATCH": 10000, "Fold": 1, "TILE": "t31tfm", "N_Parcel": 7}
    back = Transformer.from_crs(4326, 2154, always_xy=True)
    outline = patches[0].outline
    assert outline is not None
    x, y = back.transform(*outline.exterior.coords[0])  # type: ignore[attr-defined]
    assert (x, y) == pytest.approx(CORNER, abs=1e-3)
    assert outline.bounds[0] == pytest.approx(3.0, abs=1e-6)


def test_folds_are_used_as_asked_for(root: Path, tmp_path: Path) -> None:
    folder = run(root, tmp_path / "out", folds=parse_folds("2,4/5/1"))
    assert read_patches(folder, "split", slice(0, 4))[:, 0, 0].tolist() == [3, 1, 2, 1]
    some = open_pastis(root, folds=parse_folds("1//5")).index()
    assert [patch.split for patch in some] == ["train", "none", "test", "none"]


@pytest.mark.parametrize("text", ["1,2,3", "1/2", "a/b/c", "1/2/3/4"])
def test_folds_that_are_not_understood_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="folds are written train/validation/test, such as 1,2,3/4/5; got"):
        parse_folds(text)


def test_a_fold_has_one_use() -> None:
    with pytest.raises(ValueError, match="each fold has one use; 1,2/2/3 names one twice"):
        parse_folds("1,2/2/3")


def test_what_is_left_out_and_not_applied_is_said(root: Path, tmp_path: Path) -> None:
    folder = run(root, tmp_path / "out")
    said = folder.read("config.yaml").decode().replace("\n    ", " ")
    assert "DATA_S1A" in said
    assert "NORM_S2_patch.json is not applied" in said
    report = folder.read("report.html").decode()
    assert "etalab-2.0" in report
    # Four patches, each with one dark value and one band missing.
    assert "8 values of observed pixels in 4 patches were 0 or less" in report


@pytest.mark.parametrize(
    ("parcels", "labels", "said"),
    [
        ("INSTANCE_ANNOTATIONS/INSTANCES", ("crop_type", "parcel_id", "split"), "number of the instance in its patch"),
        (None, ("crop_type", "split"), "no parcel numbers, so that there is no parcel_id"),
    ],
)
def test_parcel_numbers_are_those_that_there_are(
    tmp_path: Path, parcels: str | None, labels: tuple[str, ...], said: str
) -> None:
    root = write_pastis(tmp_path / "PASTIS", parcels=parcels)
    folder = run(root, tmp_path / "out")
    assert read_patch_layout(folder).labels == labels
    assert any(said in note for note in open_pastis(root, folds=FoldRule()).facts.notes)
    assert check(folder.path) == []


@pytest.mark.slow
def test_a_reader_that_knows_nothing_of_us_finds_the_series(root: Path, tmp_path: Path) -> None:
    with xr.open_zarr(run(root, tmp_path / "out").path / "cube.zarr", mask_and_scale=False) as found:
        assert dict(found.sizes) == {"patch": 4, "time": 4, "band": 10, "y": SIDE, "x": SIDE}
        classes = found.crop_type.attrs["classes"]
        assert [row["index"] for row in classes] == list(range(1, 19))
        assert [classes[index - 1]["name"] for index in (3, 9, 18)] == ["Corn", "Beet", "Sorghum"]


def test_an_original_travels(root: Path) -> None:
    original = open_pastis(root, folds=FoldRule())
    patch = original.index()[0]
    travelled = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(travelled.read(patch).dn, original.read(patch).dn)


def edit_metadata(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "metadata.geojson"
    collection = json.loads(path.read_text())
    change(collection)
    path.write_text(json.dumps(collection))


def test_lon_lat_is_taken_as_it_is_and_metres_without_a_crs_are_lambert_93(root: Path) -> None:
    expected = open_pastis(root, folds=FoldRule()).index()[0].outline
    edit_metadata(root, lambda c: c.pop("crs"))
    found = open_pastis(root, folds=FoldRule()).index()[0].outline
    assert found is not None
    assert expected is not None
    assert found.equals(expected)

    def in_degrees(collection: dict[str, Any]) -> None:
        for one in collection["features"]:
            one["geometry"]["coordinates"] = [[[3.0, 46.0], [3.1, 46.0], [3.1, 46.1], [3.0, 46.0]]]

    edit_metadata(root, in_degrees)
    found = open_pastis(root, folds=FoldRule()).index()[0].outline
    assert found is not None
    assert found.bounds == (3.0, 46.0, 3.1, 46.1)
    edit_metadata(root, lambda c: [one.update(geometry=None) for one in c["features"]])
    assert open_pastis(root, folds=FoldRule()).index()[0].outline is None


METADATA: Mapping[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no features": (lambda c: c.pop("features"), "should be a GeoJSON FeatureCollection"),
    "no fold": (lambda c: c["features"][0]["properties"].pop("Fold"), "patch 10001: the property 'Fold' is missing"),
    "no dates": (lambda c: c["features"][0]["properties"].pop("dates-S2"), "property 'dates-S2' is missing"),
    "odd date": (
        lambda c: c["features"][1]["properties"].update({"dates-S2": {"0": 2018}}),
        "patch 10000: a date of dates-S2 should be written 20180924; got 2018",
    ),
    "no such day": (lambda c: c["features"][1]["properties"].update({"dates-S2": [20180231]}), "patch 10000: "),
    "gap": (
        lambda c: c["features"][1]["properties"].update({"dates-S2": {"0": 20180924, "2": 20180925}}),
        r"patch 10000: dates-S2 should number the frames from 0 on; got \[0, 2\]",
    ),
    "no object": (lambda c: c["features"][1]["properties"].update({"dates-S2": 7}), "should be an object of dates"),
    "odd crs": (lambda c: c["crs"]["properties"].update(name="Mars"), "the crs should be an EPSG code.*got 'Mars'"),
    "empty": (lambda c: c.update(features=[]), "lists no patches"),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_are_not_of_the_format_are_named(root: Path, name: str) -> None:
    change, sentence = METADATA[name]
    edit_metadata(root, change)
    with pytest.raises(ValueError, match=sentence) as caught:
        open_pastis(root, folds=FoldRule())
    assert "metadata.geojson" in str(caught.value)


@pytest.mark.parametrize("name", ["metadata.geojson", "DATA_S2", "ANNOTATIONS"])
def test_a_folder_that_is_not_pastis_is_named(root: Path, tmp_path: Path, name: str) -> None:
    (root / name).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"has no {name}; give the folder of PASTIS"):
        open_pastis(root, folds=FoldRule())


def test_missing_files_are_counted_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    (root / "DATA_S2/S2_30007.npy").unlink()
    (root / "ANNOTATIONS/ParcelIDs_30008.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 12 files are missing in .*, the first is DATA_S2/S2_30007\.npy"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out" / "pastis").exists()


FILES: Mapping[str, tuple[str, Any, str]] = {
    "frames": (
        "DATA_S2/S2_30007.npy",
        np.zeros((3, 10, SIDE, SIDE), np.int16),
        r"of \(2, 10, 16, 16\), a frame for each",
    ),
    "bands": ("DATA_S2/S2_30007.npy", np.zeros((2, 3, SIDE, SIDE), np.int16), r"got int16 of \(2, 3, 16, 16\)"),
    "normalized": ("DATA_S2/S2_30007.npy", np.zeros((2, 10, SIDE, SIDE), np.float32), "whole numbers.*got float32"),
    "size": (
        "ANNOTATIONS/TARGET_30007.npy",
        np.zeros((8, 8), np.uint8),
        r"labels should be whole numbers .* got uint8 of",
    ),
    "class": (
        "ANNOTATIONS/TARGET_30007.npy",
        np.full((SIDE, SIDE), 20, np.uint8),
        "a class of PASTIS is 0 to 19; got 20",
    ),
    "parcels": ("ANNOTATIONS/ParcelIDs_30007.npy", np.full((SIDE, SIDE), -1), "parcel numbers should be whole, 0 to"),
    "objects": (
        "DATA_S2/S2_30007.npy",
        np.array([{}], object),
        "cannot be read as an array of numbers: .*allow_pickle",
    ),
    # An integer of 64 bits whose low 32 bits are 500.
    "wide": (
        "DATA_S2/S2_30007.npy",
        np.full((2, 10, SIDE, SIDE), 2**32 + 500, np.int64),
        "a DN should be -32768 to 65535; they go from 4294967796 to 4294967796",
    ),
    "unsigned": ("DATA_S2/S2_30007.npy", np.full((2, 10, SIDE, SIDE), 2**64 - 1, np.uint64), "a DN should be"),
    "archive": ("DATA_S2/S2_30007.npy", None, "it is an archive of arrays"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_of_the_format_is_named_with_what_was_expected(
    root: Path, tmp_path: Path, name: str
) -> None:
    file, array, sentence = FILES[name]
    if array is None:
        with (root / file).open("wb") as stream:
            np.savez(stream, a=np.zeros(2))
    else:
        np.save(root / file, array)
    with pytest.raises(ValueError, match=sentence) as caught:
        run(root, tmp_path / "out")
    assert Path(file).name in str(caught.value)


def test_a_header_that_names_a_huge_shape_is_refused_before_memory_is_asked_for(root: Path, tmp_path: Path) -> None:
    path = root / "DATA_S2/S2_30007.npy"
    for shape in ((2, 10, 2**30, 2**20), (2**40, 2**40, 2**40, 1)):
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})
            file.write(bytes(64))
        with pytest.raises(ValueError, match=r"S2_30007\.npy cannot be read as an array of numbers: its header"):
            run(root, tmp_path / "out")


def test_marks_of_theia_are_no_measurements() -> None:
    """Columns: no band, no band but zeros, some bands, dark in every band, all zero, one of ten is dark."""
    dn = np.full((1, 10, 1, 6), 800, np.int16)
    dn[0, :, 0, 0] = -10000
    dn[0, :5, 0, 1], dn[0, 5:, 0, 1] = -10000, 0
    dn[0, :5, 0, 2], dn[0, 5:, 0, 2] = -10000, -3
    dn[0, :, 0, 3] = -5
    dn[0, :, 0, 4] = 0
    dn[0, 0, 0, 5] = 0
    stored = to_reflectance(marked_pixels(dn, {}, Path("S2_1.npy")))
    assert stored.quality[0, 0].tolist() == [0, 0, 1 | 16, 1, 0, 1]
    assert stored.reflectance[0, 0, 0].tolist() == [0, 0, 1, 1, 0, 1]


def test_parcel_numbers_of_some_patches_alone_are_refused(root: Path, tmp_path: Path) -> None:
    (root / "ANNOTATIONS/ParcelIDs_10000.npy").unlink()  # the first patch's
    with pytest.raises(FileNotFoundError, match=r"the first is ANNOTATIONS/ParcelIDs_10000\.npy"):
        run(root, tmp_path / "out")


def test_a_fold_that_no_patch_is_in_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"folds 0,1/2/4 name fold 0, which no patch is in; .* there: 1, 2, 4, 5"):
        open_pastis(root, folds=parse_folds("0,1/2/4"))
    assert "No patch is in fold 3." in open_pastis(root, folds=FoldRule()).facts.notes
    notes = open_pastis(root, folds=parse_folds("1/2/4")).facts.notes
    assert "Patches of fold 5 are in no split: folds 1/2/4 do not name it." in notes


@pytest.mark.slow
def test_files_that_change_between_two_runs_are_read_again(root: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run(root, tmp_path / "out").path.rglob("*") if path.is_file()}
    for file, change in (("DATA_S2/S2_30007.npy", 7), ("ANNOTATIONS/ParcelIDs_30007.npy", 1)):
        found = np.load(root / file)
        found[..., 5, 5] += change
        np.save(root / file, found)
    folder = run(root, tmp_path / "out")
    assert verify(folder) == []
    index = sorted(DATES).index(30007)
    again = read_patches(folder, "parcel_id", slice(index, index + 1))[0]
    assert again[5, 5] == parcels_of(30007)[5, 5] + 1
    series = read_patches(folder, "reflectance", slice(index, index + 1))[0, :2]
    np.testing.assert_array_equal(series[:, :, 5, 5], series_of(30007)[:, :, 5, 5] + 7)
    assert any(path.read_bytes() != data for path, data in before.items())


def test_other_parcel_numbers_are_another_import(root: Path, tmp_path: Path) -> None:
    for number in DATES:
        np.save(root / f"INSTANCE_ANNOTATIONS/INSTANCES_{number}.npy", parcels_of(number) % 50)
    run(root, tmp_path / "out")
    for number in DATES:
        (root / f"ANNOTATIONS/ParcelIDs_{number}.npy").unlink()
    with pytest.raises(FileExistsError, match="holds an import of another original, or with other options"):
        run(root, tmp_path / "out")


def test_a_truncated_file_is_named(root: Path, tmp_path: Path) -> None:
    path = root / "DATA_S2/S2_30007.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"S2_30007\.npy cannot be read as an array of numbers"):
        run(root, tmp_path / "out")
