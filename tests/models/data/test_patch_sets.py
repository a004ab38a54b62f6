from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.models.patches import BANDS, FIRST_DAY, SPLITS, Fields, write_fields
from tests.synthetic import Synthetic

from sits_catalog.cube import IGNORE, NO_DAY, Split
from sits_models.data.classes import BACKGROUND_CODE
from sits_models.data.cubes import open_cube
from sits_models.data.dataset import profile_of
from sits_models.data.patch_sets import PatchSet, open_patch_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_fields(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def fields(folder: str) -> PatchSet:
    return open_patch_set(folder, "cube")


def everything(side: int = 24) -> tuple[slice, slice]:
    return slice(0, side), slice(0, side)


def test_an_imported_set_says_what_it_is(fields: PatchSet, folder: str) -> None:
    facts = fields.facts
    assert (facts.path, facts.name, facts.bands) == (folder, "fields", BANDS)
    assert facts.sizes.tolist() == [[24, 24]] * 6
    first = FIRST_DAY + 30 * np.arange(4)
    assert facts.days.tolist()[:2] == [first.tolist(), [*(first[:3] + 5).tolist(), NO_DAY]]
    assert facts.splits.tolist() == [Split[word.upper()] for word in SPLITS]
    assert [(entry.index, entry.code) for entry in facts.classes] == [(0, BACKGROUND_CODE), (1, "wheat"), (2, "maize")]
    assert (facts.dense, facts.complete, facts.simulated) == (True, True, False)
    assert facts.radiometry["level"] == "L2A"
    assert len(facts.identity) == 64


def test_a_patch_holds_the_pixels_that_were_imported(fields: PatchSet) -> None:
    original = Fields()
    pixels = original.read(original.index()[1])
    found = fields.read(1, *everything(), np.arange(3))
    np.testing.assert_array_equal(found.image, pixels.dn)
    np.testing.assert_array_equal(found.clear, (pixels.dn > 0).any(axis=1))
    assert not found.clear[0, 0, :2].any()
    assert found.crop is not None
    assert found.parcel is not None
    np.testing.assert_array_equal(found.crop, pixels.labels["crop_type"])
    assert (found.crop[1, :3] == IGNORE).all()
    np.testing.assert_array_equal(found.parcel, pixels.labels["parcel_id"])
    assert found.present is None


@pytest.mark.parametrize(("dates", "bands"), [((0, 1), None), ((2, 0), (1,)), ((1,), (2, 0)), ((), None)])
def test_a_window_has_the_dates_and_bands_that_are_asked_for(
    fields: PatchSet, dates: tuple[int, ...], bands: tuple[int, ...] | None
) -> None:
    whole = fields.read(0, *everything(), np.arange(4))
    asked = None if bands is None else np.array(bands, np.intp)
    found = fields.read(0, slice(3, 9), slice(20, 24), np.array(dates, np.intp), asked)
    chosen = slice(None) if bands is None else list(bands)
    np.testing.assert_array_equal(found.image, whole.image[list(dates)][:, chosen][..., 3:9, 20:24])
    np.testing.assert_array_equal(found.clear, whole.clear[list(dates)][:, 3:9, 20:24])
    assert whole.crop is not None
    np.testing.assert_array_equal(found.crop, whole.crop[3:9, 20:24])  # type: ignore[arg-type]


def test_labels_alone_are_those_of_the_patch_without_a_date(fields: PatchSet) -> None:
    found, whole = fields.labels(2), fields.read(2, *everything(), np.arange(1))
    assert found.image.shape == (0, 3, 24, 24)
    np.testing.assert_array_equal(found.crop, whole.crop)  # type: ignore[arg-type]


def test_a_handle_that_has_read_travels_and_a_url_is_the_same_set(fields: PatchSet, folder: str) -> None:
    expected = fields.read(4, *everything(), np.arange(2)).image
    text = pickle.dumps(fields)
    assert len(text) < 5000
    for other in (pickle.loads(text), open_patch_set(f"file://{folder}/", "cube")):
        np.testing.assert_array_equal(other.read(4, *everything(), np.arange(2)).image, expected)
        assert other.facts.identity == fields.facts.identity


def test_the_identity_follows_the_splits_and_not_the_folder(fields: PatchSet, folder: str, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert open_patch_set(str(moved), "cube").facts.identity == fields.facts.identity
    table = pq.read_table(moved / "patches.parquet")
    words = table["split"].to_pylist()
    column = table.column_names.index("split")
    pq.write_table(table.set_column(column, "split", [["test", *words[1:]]]), moved / "patches.parquet")
    other = open_patch_set(str(moved), "cube").facts
    assert other.splits.tolist()[:2] == [Split.TEST, Split.TRAIN]
    assert other.identity != fields.facts.identity


def test_profiles_are_told_from_metadata(folder: str, synthetic: Synthetic) -> None:
    assert (profile_of(folder), profile_of(synthetic.folder.location)) == ("patches", "region")
    with pytest.raises(ValueError, match=r"is of the profile 'patches', and this needs a cube of a region: .* no map"):
        open_cube(folder)
    with pytest.raises(ValueError, match="is of the profile 'region', and this needs many small places"):
        open_patch_set(synthetic.folder.location, "cube")


def spoil(folder: str, to: Path, **changes: Any) -> str:
    root = Path(shutil.copytree(folder, to)) / "cube.zarr/zarr.json"
    text = json.loads(root.read_text())
    text["attributes"]["sits_cube"].update(changes)
    root.write_text(json.dumps(text))
    return str(to)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "2.0"}, "a cube of version 2.0; this reads version 1.0"),
        ({"creating": True}, "no finished sits-cube"),
        ({"complete": False}, None),
    ],
)
def test_another_version_or_an_unfinished_set_is_refused(
    folder: str, tmp_path: Path, changes: dict[str, Any], says: str | None
) -> None:
    path = spoil(folder, tmp_path / "copy", **changes)
    if says is None:
        assert not open_patch_set(path, "cube").facts.complete
        return
    with pytest.raises(ValueError, match=says):
        open_patch_set(path, "cube")


def test_an_unknown_profile_and_a_missing_index_are_said(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of the profile 'cloud'; there are region and patches"):
        profile_of(spoil(folder, tmp_path / "cloud", profile="cloud"))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    table = pq.read_table(copy / "patches.parquet")
    pq.write_table(table.slice(1), copy / "patches.parquet")
    with pytest.raises(ValueError, match=r"patches\.parquet should list the 6 patches .* it has 5 rows"):
        open_patch_set(str(copy), "cube")
    (copy / "journal.jsonl").unlink()
    with pytest.raises(ValueError, match=r"is not finished: it has no journal\.jsonl"):
        open_patch_set(str(copy), "cube")


def test_a_word_that_is_no_split_and_an_index_without_the_column_are_said(folder: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    table = pq.read_table(copy / "patches.parquet")
    column = table.column_names.index("split")
    words = ["Train", None, "none", "buffer", "test", "train"]
    pq.write_table(table.set_column(column, "split", [words]), copy / "patches.parquet")
    says = (
        r"patches\.parquet should say none, train, validation, test, buffer or nothing .*; it says 'Train' of 1 of them"
    )
    with pytest.raises(ValueError, match=says):
        open_patch_set(str(copy), "cube")
    pq.write_table(table.set_column(column, "split", [["train", *words[1:]]]), copy / "patches.parquet")
    assert open_patch_set(str(copy), "cube").facts.splits.tolist() == [1, 0, 0, 4, 3, 1]
    pq.write_table(table.drop_columns("split"), copy / "patches.parquet")
    with pytest.raises(
        ValueError, match=r"patches\.parquet should have the columns patch, split; it lacks split: build"
    ):
        open_patch_set(str(copy), "cube")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset in .*nowhere: it has no cube\.zarr"):
        open_patch_set(str(tmp_path / "nowhere"), "cube")
