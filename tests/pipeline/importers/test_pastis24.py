"""PASTIS24 in small: windows of 24 px in pickles, made from simulated series as its authors made them from PASTIS."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.importers.made_up import Silent
from tests.pipeline.importers.test_pastis import day
from tests.pipeline.importers.test_pickles import Command

from sits_catalog.cube import check
from sits_pipeline.folder import Folder
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.pastis24 import Pastis24, open_pastis24
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.store.patches import read_patch_layout, read_patches
from sits_pipeline.verify import verify

EPOCH = date(1970, 1, 1)
DATES = {
    # A season over two years: 20181004 and 20191004 are both day 277.
    10000: [20180924, 20181004, 20190101, 20190501, 20191004],
    20000: [20181231, 20190101, 20190102],
}
FOLDS = {10000: 2, 20000: 5}
WINDOWS = (0, 7, 24)


def doys(dates: list[int]) -> NDArray[np.int64]:
    """Days of the year, by the calendar of Python."""
    return np.array([date(d // 10000, d // 100 % 100, d % 100).timetuple().tm_yday for d in dates])


def by_year(number: int) -> NDArray[np.intp]:
    """Which frame of PASTIS stands at each place of a pickle."""
    return np.argsort(doys(DATES[number]), kind="stable")


def series_of(number: int, window: int) -> NDArray[np.int16]:
    """Frames in the order of the calendar."""
    return np.random.default_rng([number, window]).integers(20, 5000, (len(DATES[number]), 10, 24, 24)).astype(np.int16)


def labels_of(number: int, window: int) -> NDArray[np.uint8]:
    labels = np.random.default_rng([number, window, 1]).integers(0, 20, (24, 24)).astype(np.uint8)
    labels[0, 0] = 19
    return labels


def as_rank_2(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return labels


def as_rank_3(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([labels, np.full_like(labels, 77), np.full_like(labels, 78)])


def write_pastis24(
    root: Path, *, ranked: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = as_rank_2, lists: bool = True
) -> Path:
    """Three windows of two patches."""
    (root / "pickle24x24").mkdir(parents=True)
    (root / "fold-paths").mkdir()
    for number in DATES:
        frames = by_year(number)
        for window in WINDOWS:
            sample = {
                "img": series_of(number, window)[frames],
                "labels": ranked(labels_of(number, window)),
                "doy": doys(DATES[number])[frames],
            }
            (root / f"pickle24x24/{number}_{window}.pickle").write_bytes(pickle.dumps(sample, protocol=2))
    if lists:
        for fold in range(1, 6):
            rows = [f"pickle24x24/{n}_{w}.pickle\n" for n in DATES for w in WINDOWS if FOLDS[n] == fold]
            (root / f"fold-paths/fold_{fold}_paths.csv").write_text("".join(rows))
        (root / "fold-paths/folds_1_123_paths.csv").write_text("pickle24x24/10000_0.pickle\n")
    return root


def write_metadata(path: Path, *, dates: Mapping[int, list[int]] = DATES) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"ID_PATCH": n, "Fold": FOLDS[n], "dates-S2": {str(i): d for i, d in enumerate(found)}},
            "geometry": {"type": "Polygon", "coordinates": [[[3.0, 46.0], [3.1, 46.0], [3.1, 46.1], [3.0, 46.0]]]},
        }
        for n, found in dates.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pastis24(tmp_path / "PASTIS24")


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    return write_metadata(tmp_path / "metadata.geojson")


def opened(root: Path, metadata: Path | None = None) -> Pastis24:
    return open_pastis24(root, metadata=metadata, folds=FoldRule())


def run(original: Pastis24, out: Path) -> Folder:
    return Folder(import_dataset(original, str(out), Silent()).location)


KEYS = [(number, window) for number in sorted(DATES) for window in WINDOWS]
"""Patches of the dataset, in their order."""


@pytest.mark.parametrize("ranked", [as_rank_2, as_rank_3])
def test_with_metadata_the_order_of_the_calendar_is_restored(
    tmp_path: Path, metadata: Path, ranked: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    root = write_pastis24(tmp_path / "PASTIS24", ranked=ranked)
    folder = run(opened(root, metadata), tmp_path / "out")
    assert check(folder.path) == []
    assert verify(folder) == []
    layout = read_patch_layout(folder)
    assert layout.attributes["imported"]["chronology"] == "restored"
    assert layout.labels == ("crop_type", "split")
    for index, (number, window) in enumerate(KEYS):
        n = len(DATES[number])
        assert layout.days[index, :n].tolist() == [day(text) for text in DATES[number]]
        stored = read_patches(folder, "reflectance", slice(index, index + 1))[0, :n]
        np.testing.assert_array_equal(stored, series_of(number, window))
        classes = labels_of(number, window).astype(np.uint16)
        np.testing.assert_array_equal(
            read_patches(folder, "crop_type", slice(index, index + 1))[0], np.where(classes == 19, 65535, classes)
        )


def test_without_metadata_the_days_are_those_of_the_year_and_it_is_said(root: Path, tmp_path: Path) -> None:
    folder = run(opened(root), tmp_path / "out")
    assert check(folder.path) == []
    layout = read_patch_layout(folder)
    assert layout.attributes["imported"]["chronology"] == "day-of-year"
    new_year = (date(2019, 1, 1) - EPOCH).days
    for index, (number, window) in enumerate(KEYS):
        n = len(DATES[number])
        assert layout.days[index, :n].tolist() == (np.sort(doys(DATES[number])) - 1 + new_year).tolist()
        stored = read_patches(folder, "reflectance", slice(index, index + 1))[0, :n]
        np.testing.assert_array_equal(stored, series_of(number, window)[by_year(number)])
    # 4 October stands twice: both frames are kept.
    assert layout.days[0, 3] == layout.days[0, 4]
    assert "No chronology" in folder.read("report.html").decode()
    assert "their order in time is lost" in folder.read("item.json").decode()


def test_windows_have_the_fold_of_the_lists_and_an_order_that_gives_the_pickle_back(root: Path, metadata: Path) -> None:
    for original in (opened(root), opened(root, metadata)):
        patches = original.index()
        assert [patch.name for patch in patches] == [f"{number}_{window}" for number, window in KEYS]
        assert [(patch.fold, patch.split) for patch in patches[::3]] == [(2, "train"), (5, "test")]
        first = patches[0]
        # Both of day 277; without years nothing is known of it.
        unsure = {} if original.metadata is None else {"ambiguous_frames": [1, 4]}
        assert first.original == {**unsure, "ID_PATCH": 10000, "window": 0, "file": "pickle24x24/10000_0.pickle"}
        assert "ambiguous_frames" not in patches[3].original
        dn = original.read(first).dn
        again = np.empty_like(dn)
        again[first.order] = dn
        np.testing.assert_array_equal(again, series_of(10000, 0)[by_year(10000)])


def test_bands_that_theia_marks_as_missing_are_no_measurements(root: Path, tmp_path: Path) -> None:
    path = root / "pickle24x24/10000_0.pickle"
    sample = pickle.loads(path.read_bytes())
    sample["img"][0, :, 0, 0] = -10000
    sample["img"][0, 3, 0, 1] = -10000
    path.write_bytes(pickle.dumps(sample))
    folder = run(opened(root), tmp_path / "out")
    assert read_patches(folder, "quality", slice(0, 1))[0, 0, 0, :3].tolist() == [0, 1 | 16, 1]
    assert read_patches(folder, "reflectance", slice(0, 1))[0, 0, 3, 0, :2].tolist() == [0, 1]
    sample["img"] = sample["img"].astype(np.int64) + 2**32
    path.write_bytes(pickle.dumps(sample))
    with pytest.raises(ValueError, match=r"10000_0\.pickle: a DN should be -32768 to 65535"):
        run(opened(root), tmp_path / "again")


def test_folds_that_are_asked_for_have_to_be_there(root: Path) -> None:
    with pytest.raises(ValueError, match=r"folds 1/2/5 name fold 1, which no patch is in; .* there: 2, 5"):
        open_pastis24(root, metadata=None, folds=FoldRule(train=(1,), validation=(2,), test=(5,)))


def test_frames_of_one_day_of_the_year_are_said_to_be_of_unknown_order(root: Path, metadata: Path) -> None:
    notes = " ".join(opened(root, metadata).facts.notes)
    assert "In 1 patches of PASTIS (10000) two frames of different years share a day of the year" in notes


def test_without_lists_folds_are_those_of_the_metadata_or_none(tmp_path: Path, metadata: Path) -> None:
    root = write_pastis24(tmp_path / "bare", lists=False)
    assert [patch.fold for patch in opened(root, metadata).index()[::3]] == [2, 5]
    bare = opened(root)
    assert [(patch.fold, patch.split) for patch in bare.index()[::3]] == [(None, "none"), (None, "none")]
    assert any("folds are unknown, so that there is no split" in note for note in bare.facts.notes)


def edit(root: Path, change: Callable[[dict[str, Any]], Any], name: str = "10000_7") -> None:
    path = root / f"pickle24x24/{name}.pickle"
    value = pickle.loads(path.read_bytes())
    change(value)
    path.write_bytes(pickle.dumps(value, protocol=4))


BROKEN: Mapping[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no img": (lambda v: v.pop("img"), "should hold an array 'img'; it holds 'labels', 'doy'"),
    "frames": (lambda v: v.update(img=v["img"][:2]), r"of \(5, 10, 24, 24\); got int16 of \(2, 10, 24, 24\)"),
    "normalized": (lambda v: v.update(img=v["img"] / 1e4), "img should be whole numbers .* got float64"),
    "column": (lambda v: v.update(labels=np.zeros((24, 1), int)), "labels should be whole numbers .* got int64 of"),
    "class": (lambda v: v["labels"].fill(20), "a class of PASTIS is 0 to 19; got 20"),
    "other days": (lambda v: v.update(doy=v["doy"] + 1), "doy should be .*, that of its patch; got"),
    "no days": (lambda v: v.update(doy=np.array([0, 400])), "doy should be days of the year, 1 to 366"),
    "list": (lambda v: v.update(doy=[1, 2]), "should hold an array 'doy'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_pickle_that_is_not_of_the_format_is_named(root: Path, tmp_path: Path, name: str) -> None:
    change, sentence = BROKEN[name]
    edit(root, change)
    with pytest.raises(ValueError, match=sentence) as caught:
        run(opened(root), tmp_path / "out")
    assert "10000_7.pickle" in str(caught.value)


def test_nothing_is_run_out_of_a_hostile_pickle(root: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    for name in ("10000_0", "10000_7"):
        edit(root, lambda v: v.update(doy=Command(f"touch {mark}")), name)
        with pytest.raises(ValueError, match=f"{name}.pickle is not read: it wants to call posix.system"):
            run(opened(root), tmp_path / "out")
        assert not mark.exists()
        shutil.rmtree(root)
        write_pastis24(root)


def test_metadata_of_other_patches_or_other_dates_are_refused(root: Path, tmp_path: Path) -> None:
    other = write_metadata(tmp_path / "other.geojson", dates={10000: DATES[10000]})
    with pytest.raises(ValueError, match=r"other\.geojson knows nothing of 1 of the 2 patches, the first is 20000"):
        opened(root, other).index()
    moved = write_metadata(tmp_path / "moved.geojson", dates={**DATES, 20000: [20181231, 20190101, 20190103]})
    with pytest.raises(
        ValueError, match=r"doy should be \[1, 3, 365\], that of its patch in moved\.geojson; got \[1, 2"
    ):
        run(opened(root, moved), tmp_path / "out")


def test_lists_that_name_missing_pickles_or_a_window_twice_are_refused(root: Path) -> None:
    (root / "pickle24x24/20000_24.pickle").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 6 pickles that .* lists are missing, .* 20000_24\.pickle"):
        opened(root).index()
    (root / "fold-paths/fold_1_paths.csv").write_text("pickle24x24/20000_0.pickle\n")
    with pytest.raises(ValueError, match=r"fold_5_paths\.csv: 20000_0 is in fold 1 as well"):
        opened(root).index()


def test_a_folder_that_is_not_pastis24_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no pickle24x24; give the folder of PASTIS24"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it is the file of PASTIS \(not PASTIS24\) that has the dates"):
        opened(root, tmp_path / "none.geojson")
    (root / "pickle24x24/odd.pickle").write_bytes(b"")
    with pytest.raises(ValueError, match=r"odd\.pickle should be called PATCH_WINDOW\.pickle"):
        opened(root).index()
