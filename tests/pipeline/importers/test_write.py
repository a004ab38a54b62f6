from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import xarray as xr
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry
from referencing.jsonschema import DRAFT7
from tests.pipeline.importers.made_up import FACTS, MadeUp, Silent, made_patch, made_patches

from sits_catalog.cube import NO_DAY, check
from sits_pipeline.finish import Outcome
from sits_pipeline.folder import Folder
from sits_pipeline.importers.original import OriginalPatch, PatchPixels
from sits_pipeline.importers.shard import to_reflectance
from sits_pipeline.importers.words import dataset_as_json, dataset_in_words
from sits_pipeline.importers.write import import_dataset, in_threads
from sits_pipeline.store.patches import read_patch_layout, read_patches
from sits_pipeline.verify import verify

JsonObject = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def two_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two patches of 3 dates, 2 bands and 6 px, so that few patches make several."""
    monkeypatch.setattr("sits_catalog.cube._MAX_PATCH_SHARD_BYTES", 2 * 3 * 2 * 6 * 6 * 2)


def run(original: Any, out: Path, **options: Any) -> tuple[Outcome, Folder]:
    outcome = import_dataset(original, str(out), Silent(), **options)
    return outcome, Folder(outcome.location)


def files_of(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.files()}


# Pixels


def pixels(dn: Sequence[Sequence[int]], **masks: Any) -> PatchPixels:
    """One date of three pixels in a row; a row of numbers a band."""
    array = np.array(dn, np.int32)[None, :, None, :]
    shaped = {name: np.array(mask, bool)[None, None, :] for name, mask in masks.items()}
    return PatchPixels(dn=array, labels={}, **shaped)


def test_an_observed_pixel_is_never_0_and_an_unobserved_one_is_0_in_every_band() -> None:
    stored = to_reflectance(pixels([[0, -12, 500], [0, 800, 65535]]))
    np.testing.assert_array_equal(stored.reflectance[0, :, 0], [[0, 1, 500], [0, 800, 65535]])
    np.testing.assert_array_equal(stored.quality[0, 0], [0, 1, 1 | 16])
    assert stored.clamped == 1


def test_the_originals_own_marks_come_before_the_values() -> None:
    stored = to_reflectance(pixels([[0, 700, 500], [0, 800, -10000]], unobserved=[0, 1, 0], defective=[0, 1, 1]))
    np.testing.assert_array_equal(stored.reflectance[0, :, 0], [[1, 0, 500], [1, 0, 1]])
    np.testing.assert_array_equal(stored.quality[0, 0], [1, 0, 1 | 16])
    assert stored.clamped == 3


def test_a_dn_that_does_not_fit_into_16_bits_is_an_error() -> None:
    with pytest.raises(ValueError, match="a DN should be at most 65535, got 65536"):
        to_reflectance(pixels([[65536, 1, 1]]))


# The dataset


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return run(MadeUp(), tmp_path_factory.mktemp("out"))[1]


def test_check_and_verify_find_nothing(imported: Folder) -> None:
    assert check(imported.path) == []
    assert verify(imported) == []


def test_every_pixel_is_the_originals(imported: Folder) -> None:
    original = MadeUp()
    reflectance = read_patches(imported, "reflectance", slice(0, 3))
    quality = read_patches(imported, "quality", slice(0, 3))
    for index, patch in enumerate(original.index()):
        found = original.read(patch)
        n = len(patch.days)
        wanted = np.where(found.dn == -7, 1, found.dn)
        np.testing.assert_array_equal(reflectance[index, :n], wanted)
        assert not reflectance[index, n:].any()
        assert not quality[index, n:].any()
        assert quality[index, 0, 0, 0] == 0
        assert (quality[index, :n].reshape(n, -1)[:, 1:] == 1).all()
        for name, array in found.labels.items():
            np.testing.assert_array_equal(read_patches(imported, name, slice(index, index + 1))[0], array)
    for name, fill in (("scl", 0), ("source_index", 255)):
        assert (read_patches(imported, name, slice(0, 3)) == fill).all()
    assert read_patches(imported, "split", slice(0, 3))[:, 0, 0].tolist() == [1, 3, 0]


def test_the_layout_says_what_is_there(imported: Folder) -> None:
    layout = read_patch_layout(imported)
    assert (layout.bands, layout.height, layout.width) == (("B02", "B8A"), 6, 6)
    assert layout.labels == ("crop_type", "parcel_id", "split")
    assert [row["name"] for row in layout.classes] == ["wheat", "maize"]
    assert layout.days.tolist() == [[17800, 17805, NO_DAY], [17800, 17805, 17805], [17800, 17805, NO_DAY]]
    assert layout.attributes["imported"] == {
        "format": "pastis",
        "chronology": "kept",
        "order": "days ascend; patches.parquet has the position of each frame in the original",
        "parcel_id": "numbers of the original, unique in a patch at least",
        "licence": "CC-BY-4.0",
        "attribution": "nobody",
    }
    assert layout.attributes["season"] == {"start": "2018-09-26", "end": "2018-10-01"}


def test_xarray_opens_it(imported: Folder) -> None:
    with xr.open_zarr(imported.path / "cube.zarr", mask_and_scale=False) as found:
        assert dict(found.sizes) == {"patch": 3, "time": 3, "band": 2, "y": 6, "x": 6}
        assert (found.crop_type.dtype, found.parcel_id.dtype, found.split.dtype) == (np.uint16, np.uint32, np.uint8)
        assert found.crop_type.dims == ("patch", "y", "x")


def test_statistics_are_those_of_the_clear_train_pixels(imported: Folder) -> None:
    original = MadeUp()
    dn = original.read(original.index()[0]).dn
    blue = dn[:, 0].ravel()[1:].astype(float)  # the first pixel is not observed
    blue[blue == -7] = 1
    found = read_patch_layout(imported).attributes["statistics"]["B02"]
    assert found["n"] == 2 * 36 - 1
    assert found["mean"] == pytest.approx(blue.mean() / 1e4, abs=1e-6)
    assert found["std"] == pytest.approx(blue.std() / 1e4, abs=1e-6)


def test_the_index_has_a_row_a_patch_with_null_for_what_is_not_known(imported: Folder) -> None:
    rows = pq.read_table(imported.path / "patches.parquet").to_pylist()
    assert [(row["id"], row["split"], row["fold"]) for row in rows] == [
        ("p0", "train", 1), ("p1", "test", 2), ("p2", "none", None)
    ]  # fmt: skip
    assert [row["n_dates"] for row in rows] == [2, 3, 2]
    assert [row["order"] for row in rows] == [[0, 1], [0, 1, 2], [0, 1]]
    assert [str(day) for day in rows[1]["days"]] == ["2018-09-26", "2018-10-01", "2018-10-01"]
    assert [row["clamped"] for row in rows] == [1, 1, 1]
    assert rows[0]["observed_share"] == [round(35 / 36, 6), 1.0]
    assert shapely.from_wkb(rows[0]["geometry"]).equals(shapely.box(3.0, 43.0, 3.1, 43.1))
    assert (rows[1]["geometry"], rows[1]["bbox"], rows[1]["lon"]) == (None, None, None)
    assert sum(dict(rows[0]["crop_counts"]).values()) == 36
    assert json.loads(rows[2]["original"]) == {"file": "p2.npy"}


def item_of(folder: Folder) -> JsonObject:
    item: JsonObject = json.loads(folder.read("item.json"))
    return item


def core_schema() -> Draft7Validator:
    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, DRAFT7.create_resource(schema)) for uri, schema in schemas.items()])
    return Draft7Validator(
        schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"], registry=registry
    )


def test_the_item_is_valid_with_and_without_a_place(imported: Folder, tmp_path: Path) -> None:
    nowhere = MadeUp([replace(patch, outline=None) for patch in made_patches(3)])
    _, unplaced = run(nowhere, tmp_path)
    for folder in (imported, unplaced):
        assert list(core_schema().iter_errors(item_of(folder))) == []
    assert item_of(imported)["bbox"] == [3.0, 43.0, 3.1, 43.1]
    assert item_of(unplaced)["geometry"] is None
    assert "bbox" not in item_of(unplaced)
    assert check(unplaced.path) == []


def test_the_report_and_the_words_say_licence_chronology_and_what_was_changed(imported: Folder) -> None:
    report = imported.read("report.html").decode()
    for text in ("CC-BY-4.0", "in the order of the calendar", "3 values of observed pixels in 3 patches", "maize"):
        assert text in report
    said = dataset_in_words(dataset_as_json(imported))
    assert "imported from pastis, complete" in said
    assert "3 (1 train, 1 test, 1 without a split) of 6 x 6 px, at most 3 dates" in said
    assert "3 values of observed pixels that were 0 or less are 1" in said


@pytest.mark.slow
def test_names_of_the_original_are_escaped_in_the_report(tmp_path: Path) -> None:
    _, folder = run(MadeUp([made_patch("<script>alert(1)</script>", [17800])]), tmp_path)
    assert "<script>alert" not in folder.read("report.html").decode()


def test_a_set_without_splits_has_no_split_array_and_statistics_of_all(tmp_path: Path) -> None:
    patches = [replace(patch, split="none", fold=None) for patch in made_patches(2)]
    _, folder = run(MadeUp(patches), tmp_path)
    layout = read_patch_layout(folder)
    assert layout.labels == ("crop_type", "parcel_id")
    assert layout.attributes["statistics"]["B8A"]["n"] == 5 * 36 - 2


def test_b10_and_top_of_atmosphere_are_for_level_1c_alone(tmp_path: Path) -> None:
    facts = replace(FACTS, id="toa", bands=("B09", "B10"), level="L1C")
    _, folder = run(MadeUp(facts=facts), tmp_path)
    assert check(folder.path) == []
    group = json.loads(folder.read("cube.zarr/reflectance/zarr.json"))["attributes"]
    assert group["standard_name"] == "toa_bidirectional_reflectance"
    with pytest.raises(ValueError, match=r"bands of L2A must be distinct names out of .*; got B09, B10"):
        run(MadeUp(facts=replace(facts, level="L2A")), tmp_path)


# Going on


@dataclass
class Torn(MadeUp):
    """An original one of whose files is broken."""

    broken: str = ""

    def read(self, patch: OriginalPatch) -> PatchPixels:
        if patch.name == self.broken:
            raise ValueError(f"{patch.name}.npy is cut short")
        return super().read(patch)


@pytest.mark.slow
@pytest.mark.usefixtures("two_a_shard")
def test_what_stands_is_not_read_again_and_the_end_is_byte_equal(tmp_path: Path) -> None:
    _, whole = run(MadeUp(made_patches(7)), tmp_path / "whole", threads=3)
    with pytest.raises(ValueError, match=r"p4\.npy is cut short"):
        run(Torn(made_patches(7), broken="p4"), tmp_path / "out", threads=1)
    begun = Folder(str(tmp_path / "out" / "made-up"))
    assert [finding for finding in check(begun.path) if "has not finished" not in finding] == []
    again = MadeUp(made_patches(7))
    outcome, folder = run(again, tmp_path / "out", threads=1)
    assert (outcome.complete, outcome.cells, outcome.built) == (True, 4, 2)
    assert again.reads == ["p4", "p5", "p6"]
    assert files_of(folder) == files_of(whole)
    assert verify(folder) == []


KILLED = """
import os, signal, sys
import sits_catalog.cube
from tests.pipeline.importers.made_up import MadeUp, Silent, made_patches
from sits_pipeline.importers.write import import_dataset
sits_catalog.cube._MAX_PATCH_SHARD_BYTES = 2 * 3 * 2 * 6 * 6 * 2
class Deadly(MadeUp):
    def read(self, patch):
        if patch.name == "p4":
            open(sys.argv[1] + "/made-up/cube.zarr/half.partial", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(patch)
import_dataset(Deadly(made_patches(7)), sys.argv[1], Silent(), threads=1)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("two_a_shard")
def test_killed_and_started_again_it_ends_byte_equal(tmp_path: Path) -> None:
    _, whole = run(MadeUp(made_patches(7)), tmp_path / "whole")
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert verify(Folder(str(tmp_path / "made-up")))[0].incomplete
    again = MadeUp(made_patches(7))
    outcome, folder = run(again, tmp_path)
    assert outcome.built == 2
    assert sorted(again.reads) == ["p4", "p5", "p6"]
    assert files_of(folder) == files_of(whole)


@pytest.mark.slow
def test_a_finished_import_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = run(MadeUp(), tmp_path)
    before = files_of(folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    again = MadeUp()
    outcome, _ = run(again, tmp_path)
    assert (outcome.complete, outcome.built, again.reads) == (True, 0, [])
    assert files_of(folder) == before


@dataclass
class OfFiles(MadeUp):
    """Its numbers are those of files."""

    broken: str = ""

    def read(self, patch: OriginalPatch) -> PatchPixels:
        if patch.name == self.broken:
            raise ValueError(f"{patch.name}.npy is cut short")
        pixels = super().read(patch)
        (path,) = self.files(patch).values()
        return replace(pixels, dn=pixels.dn + np.load(path))


def write_numbers(folder: Path, number: int, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        np.save(folder / f"{name}.npy", np.int32(number))


@pytest.mark.slow
@pytest.mark.usefixtures("two_a_shard")
def test_a_resume_and_a_repeat_read_the_shards_whose_files_have_changed(tmp_path: Path) -> None:
    patches = made_patches(7)
    names, source = [patch.name for patch in patches], tmp_path / "source"
    write_numbers(source, 0, names)
    with pytest.raises(ValueError, match="p4"):
        run(OfFiles(patches, folder=source, broken="p4"), tmp_path / "out", threads=1)
    write_numbers(source, 11, ["p0"])
    again = OfFiles(patches, folder=source)
    outcome, folder = run(again, tmp_path / "out", threads=1)
    assert (outcome.complete, sorted(again.reads)) == (True, ["p0", "p1", "p4", "p5", "p6"])
    write_numbers(source, 3, ["p6"])
    later = OfFiles(patches, folder=source)
    outcome, _ = run(later, tmp_path / "out")
    assert (outcome.built, later.reads) == (1, ["p6"])
    _, whole = run(OfFiles(patches, folder=source), tmp_path / "whole")
    assert files_of(folder) == files_of(whole)
    assert verify(folder) == []
    (source / "p3.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"p3\.npy is missing; it was there when the original was opened"):
        run(OfFiles(patches, folder=source), tmp_path / "out")


def test_what_is_not_known_before_an_import_has_ended_is_not_0(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p1"):
        run(Torn(made_patches(3), broken="p1"), tmp_path)
    said = dataset_in_words(dataset_as_json(Folder(str(tmp_path / "made-up"))))
    assert "changed  not known before the import has ended" in said
    assert "INCOMPLETE: the same sits-cube import goes on" in said


@pytest.mark.usefixtures("two_a_shard")
def test_what_was_lost_or_damaged_is_made_again(tmp_path: Path) -> None:
    _, folder = run(MadeUp(), tmp_path)
    before = files_of(folder)
    folder.remove("cube.zarr/reflectance/c/1/0/0/0/0")
    folder.write("cube.zarr/day/zarr.json", b"{}")
    folder.remove("report.html")
    again = MadeUp()
    outcome, _ = run(again, tmp_path)
    assert (outcome.built, again.reads) == (1, ["p2"])
    assert files_of(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda: MadeUp(made_patches(2)),
        lambda: MadeUp([replace(patch, split="none") for patch in made_patches(3)]),
        lambda: MadeUp(facts=replace(FACTS, bands=("B02", "B03"))),
        lambda: MadeUp(facts=replace(FACTS, variant="ParcelIDs")),
    ],
)
def test_an_import_of_something_else_is_not_written_over(tmp_path: Path, change: Callable[[], MadeUp]) -> None:
    _, folder = run(MadeUp(), tmp_path)
    before = files_of(folder)
    with pytest.raises(FileExistsError, match="holds an import of another original, or with other options"):
        run(change(), tmp_path)
    assert files_of(folder) == before
    outcome, _ = run(change(), tmp_path, id="other")
    assert outcome.name == "other"


def test_a_dataset_that_was_built_is_not_written_over(tmp_path: Path) -> None:
    _, folder = run(MadeUp(), tmp_path)
    root = json.loads(folder.read("cube.zarr/zarr.json"))
    del root["attributes"]["sits_cube"]["imported"]
    folder.write("cube.zarr/zarr.json", json.dumps(root).encode())
    with pytest.raises(FileExistsError, match="holds a dataset that was built, not imported"):
        run(MadeUp(), tmp_path)


# What does not fit


BAD_INDEX: Mapping[str, tuple[list[OriginalPatch], str]] = {
    "none": ([], "the original has no patches"),
    "twice": ([made_patch("a", [1]), made_patch("a", [2])], "two patches of the original are called 'a'"),
    "no dates": ([made_patch("a", [])], "patch a has no dates"),
    "descending": (
        [replace(made_patch("a", [1, 2]), days=np.array([2, 1], np.int32))],
        r"the days of patch a should ascend; they are \[2, 1\]",
    ),
    "order": (
        [replace(made_patch("a", [1, 2]), order=np.array([0, 2], np.int32))],
        r"each of 0 to 1 once; they are \[0, 2\]",
    ),
}


@pytest.mark.parametrize("name", BAD_INDEX)
def test_an_index_that_is_not_fit_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    patches, sentence = BAD_INDEX[name]
    with pytest.raises(ValueError, match=sentence):
        run(MadeUp(patches), tmp_path)
    assert not (tmp_path / "made-up" / "cube.zarr").exists()


@dataclass
class Odd(MadeUp):
    """An original whose pixels are changed by a function."""

    change: Callable[[PatchPixels], PatchPixels] = lambda found: found

    def read(self, patch: OriginalPatch) -> PatchPixels:
        return self.change(super().read(patch))


BAD_PIXELS: list[tuple[Callable[[PatchPixels], PatchPixels], str]] = [
    (lambda p: replace(p, dn=p.dn[:1]), r"the pixels should be whole numbers \(time, band, y, x\) of \(2, 2, 6, 6\)"),
    (lambda p: replace(p, dn=p.dn.astype(float)), "should be whole numbers .* got float64"),  # type: ignore[arg-type]
    (lambda p: replace(p, labels={"crop_type": p.labels["crop_type"]}), "should be crop_type, parcel_id; got crop_typ"),
    (
        lambda p: replace(p, labels={**p.labels, "parcel_id": p.labels["crop_type"]}),
        r"parcel_id should be uint32 of \(6, 6\); got uint16 of \(6, 6\)",
    ),
    (lambda p: replace(p, unobserved=np.zeros((1, 6, 6), bool)), r"unobserved should be \(time, y, x\) of \(2, 6, 6\)"),
    (lambda p: replace(p, dn=p.dn + 70000), "a DN should be at most 65535"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD_PIXELS)
def test_pixels_that_do_not_fit_are_refused_with_their_patch(
    tmp_path: Path, change: Callable[[PatchPixels], PatchPixels], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"patch p0: .*{sentence}|{sentence}") as caught:
        run(Odd(change=change), tmp_path, threads=1)
    assert str(caught.value).startswith("patch p0: ")


@pytest.mark.parametrize("name", ["Upper", "", "a/b", "-a", "x" * 64])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a dataset is named with lower case letters"):
        run(MadeUp(), tmp_path, id=name)


def test_no_more_keys_are_worked_on_than_threads_and_the_others_end_before_an_error() -> None:
    begun: list[int] = []

    def work(key: tuple[int, int]) -> JsonObject:
        begun.append(key[0])
        if key[0] == 2:
            raise ValueError("broken")
        return {"key": key[0]}

    found: list[int] = []
    entries = in_threads(work, [(key, 1) for key in range(50)], 2)
    with pytest.raises(ValueError, match="broken"):
        found.extend(entry["key"] for entry in entries)
    assert {0, 1} <= set(found)
    assert len(begun) <= 5
