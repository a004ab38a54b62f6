"""Sets of patches that are split anew: by nearness, folds, years and tables, and the check of the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from tests.end_to_end.archives import run_here
from tests.pipeline.importers.made_up import MadeUp, Silent, made_patch

from sits_catalog.region import SplitRule
from sits_pipeline.finish import encode_table
from sits_pipeline.folder import Folder
from sits_pipeline.importers.original import OriginalPatch
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.resplit import check_patches, split_by_year, split_region
from sits_pipeline.resplit.groups import groups_of, near_pairs, share_out
from sits_pipeline.store.patches import read_patches
from sits_pipeline.verify import verify

DAYS_2017, DAYS_2018 = [17300, 17400], [17600, 17700]
"""Days since 1970: 2017-05-14 and 2017-08-22; 2018-03-10 and 2018-06-18."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """One time for all, and shards of two patches of 2 dates, 2 bands and 6 px."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("sits_catalog.cube._MAX_PATCH_SHARD_BYTES", 2 * 2 * 2 * 6 * 6 * 2)


def at(east_m: float, north_m: float = 0.0) -> shapely.Geometry:
    """A square of 60 m whose lower-left corner lies so many metres from 3 E, 43 N."""
    geod = Geod(ellps="WGS84")
    lon, _, _ = geod.fwd(3.0, 43.0, 90, east_m)
    _, lat, _ = geod.fwd(3.0, 43.0, 0, north_m)
    far_lon, _, _ = geod.fwd(lon, lat, 90, 60)
    _, far_lat, _ = geod.fwd(lon, lat, 0, 60)
    return shapely.box(lon, lat, far_lon, far_lat)


def patches(splits: Sequence[str] | None = None) -> tuple[OriginalPatch, ...]:
    """Seven patches: p0, p1 and p2 in a chain of gaps of 40 m; the others 1 km apart; two of them of 2018."""
    places = [at(0), at(100), at(200), at(2000), at(3000), at(4000), at(5000)]
    days = [DAYS_2017] * 5 + [DAYS_2018] * 2
    return tuple(
        made_patch(f"p{index}", own, outline=place, split="none" if splits is None else splits[index])
        for index, (own, place) in enumerate(zip(days, places, strict=True))
    )


def imported(out: Path, splits: Sequence[str] | None = None) -> Folder:
    return Folder(import_dataset(MadeUp(patches=patches(splits)), str(out), Silent()).location)


FIRST = ["train", "train", "train", "test", "test", "test", "test"]
OTHER = ["test", "test", "test", "train", "none", "validation", "train"]


@pytest.fixture
def dataset(tmp_path: Path) -> Folder:
    return imported(tmp_path / "out", FIRST)


def index_of(folder: Folder) -> dict[str, list[object]]:
    return dict(pq.read_table(Path(folder.location) / "patches.parquet").to_pydict())


def root_of(folder: Folder) -> dict[str, object]:
    return dict(json.loads(folder.read("cube.zarr/zarr.json"))["attributes"]["sits_cube"])


def write_csv(path: Path, words: Sequence[str]) -> Path:
    path.write_text("name,split\n" + "".join(f"p{index},{word}\n" for index, word in enumerate(words)))
    return path


@pytest.mark.slow
def test_a_set_that_is_split_by_a_table_is_the_one_that_was_imported_so(dataset: Folder, tmp_path: Path) -> None:
    before = {name: dataset.read(name) for name in dataset.files()}
    rule = SplitRule(file=str(write_csv(tmp_path / "splits.csv", OTHER)))
    (done,) = split_region([dataset], rule, Silent())
    assert (done.complete, done.built, done.cells) == (True, 4, 4)
    assert done.parcels == {"none": 1, "train": 2, "validation": 1, "test": 3}
    other = imported(tmp_path / "other", OTHER)
    shards = [name for name in before if "/c/" in name]
    assert [name for name in shards if dataset.read(name) != other.read(name)] == []
    assert {name for name in shards if dataset.read(name) != before[name]} == {
        name for name in shards if "/split/" in name
    }
    assert root_of(dataset)["statistics"] == root_of(other)["statistics"]
    assert index_of(dataset) == index_of(other)
    assert verify(dataset) == []
    assert check_patches(dataset).leaks == ()


@pytest.mark.slow
def test_patches_side_by_side_share_a_split(dataset: Folder) -> None:
    for seed in range(5):
        split_region([dataset], SplitRule(buffer_m=50, seed=seed), Silent())
        words = index_of(dataset)["split"]
        assert words[0] == words[1] == words[2]
        assert set(words) == {"train", "validation", "test"}
        assert check_patches(dataset).leaks == ()
    # Gaps of 40 m are kept by a buffer of 30 m: seven groups.
    split_region([dataset], SplitRule(buffer_m=30), Silent())
    assert check_patches(dataset).leaks == ()


@pytest.mark.slow
def test_folds_of_patches_are_the_same_for_each_fold_and_stand_in_the_index(dataset: Folder) -> None:
    folds = []
    for fold in (1, 2, 3):
        split_region([dataset], SplitRule(buffer_m=50, folds=3, fold=fold), Silent())
        found = index_of(dataset)
        folds.append(found["fold"])
        following = fold % 3 + 1
        expected = {fold: "test", following: "validation"}
        assert found["split"] == [expected.get(int(str(own)), "train") for own in folds[-1]]
    assert folds[0] == folds[1] == folds[2]
    assert set(folds[0]) == {1, 2, 3}
    # Four sets, each in place of the one before, and the first one's hash in the plan.
    assert verify(dataset) == []


@pytest.mark.slow
def test_years_of_patches_are_in_one_split_each(dataset: Folder) -> None:
    split_by_year([dataset], ["train=2017", "test=2018"], Silent(), buffer_m=0)
    assert index_of(dataset)["split"] == ["train"] * 5 + ["test"] * 2
    assert (read_patches(dataset, "split", slice(0, 7))[:, 0, 0] == [1, 1, 1, 1, 1, 3, 3]).all()
    assert check_patches(dataset).leaks == ()
    before = {name: dataset.read(name) for name in dataset.files()}
    with pytest.raises(ValueError, match="patch p5 ends on 2018-06-18, and 2018 is in no split"):
        split_by_year([dataset], ["train=2017"], Silent(), buffer_m=0)
    assert {name: dataset.read(name) for name in dataset.files()} == before


@pytest.mark.slow
def test_a_set_without_the_array_gets_its_splits_in_the_index_alone(tmp_path: Path) -> None:
    folder = imported(tmp_path / "out")
    every = root_of(folder)["statistics"]
    split_region([folder], SplitRule(file=str(write_csv(tmp_path / "splits.csv", FIRST))), Silent())
    assert index_of(folder)["split"] == FIRST
    assert not folder.exists("cube.zarr/split/zarr.json")
    assert root_of(folder)["statistics"] == root_of(imported(tmp_path / "other", FIRST))["statistics"] != every
    assert verify(folder) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the journal is left open
def test_a_split_of_patches_that_was_cut_short_is_taken_up(dataset: Folder, tmp_path: Path) -> None:
    rule = SplitRule(file=str(write_csv(tmp_path / "splits.csv", OTHER)))

    class StopsIn(Silent):
        def progress(self, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_region([dataset], rule, StopsIn())
    assert ["a split is under way" in str(finding) for finding in verify(dataset)] == [True]
    assert root_of(dataset)["complete"] is False
    assert "a split is under way" in run_here("sits-cube", "info", dataset.location).stdout
    with pytest.raises(ValueError, match="is being written or split"):
        check_patches(dataset)
    (done,) = split_region([dataset], rule, Silent())
    assert (done.built, done.complete) == (3, True)
    assert index_of(dataset) == index_of(imported(tmp_path / "other", OTHER))
    assert verify(dataset) == []
    (again,) = split_region([dataset], rule, Silent())
    assert again.built == 0


@pytest.mark.slow
def test_the_report_and_the_configuration_tell_of_the_last_split(dataset: Folder, tmp_path: Path) -> None:
    split_region([dataset], SplitRule(buffer_m=50, folds=3), Silent())
    split_region([dataset], SplitRule(whole="test"), Silent())
    page = dataset.read("report.html").decode()
    assert page.count("Splits, replaced") == 1
    assert "<tr><td>test</td><td>7</td></tr>" in page
    assert b"whole: test" in dataset.read("config.yaml")
    item = json.loads(dataset.read("item.json"))
    assert item["assets"]["patches"]["file:size"] == dataset.size("patches.parquet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,split\np0,train\n", r"does not name p1, p2, p3 and 3 more; name every patch"),
        ("name,part\np0,train\n", r"needs the columns name and split; it has name, part"),
        ("name,split\np0,trian\n", r"split says train, validation, test or none; p0 says 'trian'"),
        ("name,split\np0,train\np0,test\n", r"p0 is train and test; a patch is in one split"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(dataset: Folder, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        split_region([dataset], SplitRule(file=str(tmp_path / "splits.csv")), Silent())


def test_a_table_may_be_parquet(dataset: Folder, tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": [f"p{n}" for n in range(7)], "split": FIRST[::-1]}), tmp_path / "splits.parquet")
    split_region([dataset], SplitRule(file=str(tmp_path / "splits.parquet")), Silent())
    assert index_of(dataset)["split"] == FIRST[::-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--by-year", "train=2017", "test=2018", "--folds", "3"], "--by-year decides without --folds;"),
        (["--by-year", "train=2017", "--seed", "3", "--from", "x"], "--by-year decides without --seed and --from;"),
        (["--by-year", "train=2017", "--whole", "test", "--train", "1"], "without --train and --whole;"),
        (["--folds", "3", "--train", "0.6"], "--folds decides without --train;"),
        (["--whole", "test", "--min-pixels", "3"], "--whole decides without --min-pixels;"),
        (["--block", "1280"], "is split by patch, and not by blocks of 1280 m; leave --block out"),
    ],
)
def test_options_that_would_say_nothing_are_refused(dataset: Folder, words: list[str], sentence: str) -> None:
    before = {name: dataset.read(name) for name in dataset.files()}
    ended = run_here("sits-cube", "split", dataset.location, *words)
    assert ended.code == 2
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert {name: dataset.read(name) for name in dataset.files()} == before


def test_a_seed_below_zero_is_refused(dataset: Folder) -> None:
    with pytest.raises(ValueError, match="seed of splits is a whole number from 0 on, got -1"):
        SplitRule(seed=-1)
    assert "--seed" in run_here("sits-cube", "split", dataset.location, "--seed", "-1").stderr


def test_least_pixels_are_had_where_they_can_be_and_said_where_not() -> None:
    """Rare class 5: 30 pixels in patches 0 and 1, 60 in patch 2; class 1 is everywhere. Each patch is a group."""
    pixels = np.zeros((12, 2))
    pixels[:, 0], pixels[:3, 1] = 1000, (30, 30, 60)
    halves = SplitRule(shares={"train": 0.5, "test": 0.5}, min_pixels=60)
    for seed in range(8):
        found = share_out(np.arange(12), pixels, replace(halves, seed=seed), classes=[1, 5])
        assert {int(pixels[found.split == code, 1].sum()) for code in (1, 3)} == {60}
        assert found.notes == ()
    more = share_out(np.arange(12), pixels, replace(halves, min_pixels=100), classes=[1, 5], names={5: "rye"})
    (note,) = more.notes
    assert note.startswith("class rye has ")
    assert note.endswith("where 100 pixels were asked for: it covers 120 pixels in 3 groups")
    (note,) = share_out(np.arange(12), pixels * (np.arange(12) != 2)[:, None], SplitRule(), classes=[1, 5]).notes
    assert note.startswith("class 5 lies in 2 groups and is not in ")


# Mutants


def test_patches_of_two_splits_that_lie_side_by_side_are_found(dataset: Folder, tmp_path: Path) -> None:
    words = ["train", "test", *FIRST[2:]]
    split_region([dataset], SplitRule(file=str(write_csv(tmp_path / "s.csv", words)), buffer_m=50), Silent())
    (leak,) = check_patches(dataset).leaks
    assert leak.count == 2
    assert leak.what == (
        "patch p0 is train and lies 40.0 m from patch p1, which is test; the buffer is 50 m"
    ) or leak.what.startswith("patch p1 is test and lies 40.0 m from patch p2, which is train")


def test_an_index_that_says_another_split_than_the_pixels_is_found(dataset: Folder) -> None:
    table = pq.read_table(Path(dataset.location) / "patches.parquet")
    words = [*FIRST[:4], "train", *FIRST[5:]]
    dataset.write(
        "patches.parquet", encode_table(table.set_column(table.schema.names.index("split"), "split", pa.array(words)))
    )
    assert [leak.what for leak in check_patches(dataset).leaks] == ["patch p4 is train, its pixels are test"]


# Nearness


@given(
    seed=st.integers(0, 10_000),
    latitude=st.sampled_from([-79.0, -35.0, 0.0, 43.0, 66.0]),
    distance=st.sampled_from([10.0, 100.0, 1000.0]),
)
def test_no_pair_that_is_too_near_is_overlooked(seed: int, latitude: float, distance: float) -> None:
    """Against distances on the ellipsoid between the corners that are nearest."""
    rng, geod = np.random.default_rng(seed), Geod(ellps="WGS84")
    degrees = distance / 111_000
    lon = 10 + rng.uniform(-4, 4, 12) * degrees / np.cos(np.radians(latitude))
    lat = latitude + rng.uniform(-4, 4, 12) * degrees
    points = shapely.box(lon, lat, lon + 1e-9, lat + 1e-9)
    found = set(near_pairs(points, distance))
    for one in range(12):
        for other in range(one + 1, 12):
            _, _, metres = geod.inv(lon[one], lat[one], lon[other], lat[other])
            if metres < distance:
                assert (one, other) in found
            if metres > 1.02 * distance:
                assert (one, other) not in found


def test_what_is_linked_by_others_is_one_group() -> None:
    assert groups_of(6, [(4, 5), (0, 3), (3, 5)]).tolist() == [0, 1, 2, 0, 0, 0]


def test_outlines_that_are_unknown_are_near_to_nothing_and_said(tmp_path: Path) -> None:
    bare = tuple(replace(patch, outline=None) for patch in patches(FIRST))
    folder = Folder(import_dataset(MadeUp(patches=bare), str(tmp_path), Silent()).location)
    (done,) = split_region([folder], SplitRule(), Silent())
    assert done.notes == ("the place of 7 patches is unknown, so that nobody can say which lie side by side",)
    assert check_patches(folder).notes == ("the place of 7 patches is unknown: nothing is proved of their neighbours",)
