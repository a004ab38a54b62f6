"""`check-splits` on datasets that are as they should be, and on ones that were tampered with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pipeline.resplit.labelled_cube import (
    LEFT,
    TOP,
    geobox_of,
    random_parcels,
    write_labelled,
    write_labels,
    write_table,
)

from sits_catalog.region import SplitRule
from sits_pipeline.folder import Folder
from sits_pipeline.resplit import check_splits
from sits_pipeline.splits import SplitAreas
from sits_pipeline.store import read_window
from sits_pipeline.values import Parcels, Window

SHAPE = (132, 198)
WHOLE = Window(row=0, column=0, height=SHAPE[0], width=SHAPE[1])

RULES = st.one_of(
    st.builds(SplitRule, block_m=st.just(640), buffer_m=st.sampled_from([0.0, 35.0, 100.0]), seed=st.integers(0, 99)),
    st.builds(
        lambda folds, fold, buffer_m: SplitRule(block_m=640, folds=folds, fold=1 + fold % folds, buffer_m=buffer_m),
        st.integers(2, 6),
        st.integers(0, 5),
        st.sampled_from([10.0, 100.0]),
    ),
)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), rule=RULES)
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_planned_and_drawn_leaks_nothing(
    seed: int, rule: SplitRule, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_labelled(tmp_path_factory.mktemp("cube"), random_parcels(seed, 25, *SHAPE), SHAPE, rule)
    proof = check_splits(folder)
    assert proof.leaks == ()
    assert proof.parcels == 25
    assert sum(proof.pixels.values()) == SHAPE[0] * SHAPE[1]


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_parcel_that_is_moved_to_another_split_is_found(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    parcels = random_parcels(seed, 25, *SHAPE)
    folder = write_labelled(tmp_path_factory.mktemp("cube"), parcels, SHAPE, SplitRule(block_m=640))
    split, drawn = (read_window(folder, name, WHOLE, dates=None) for name in ("split", "parcel_id"))
    numbers, pixels = np.unique(drawn[(drawn > 0) & (split < 4) & (split > 0)], return_counts=True)
    victim = int(numbers[np.argmax(pixels)])
    table = pq.read_table(Path(folder.location) / "parcels.parquet")
    words = table["split"].to_pylist()
    words[victim - 1] = "test" if words[victim - 1] == "train" else "train"
    column = pa.array(words)
    write_table(folder, "parcels.parquet", table.set_column(table.schema.names.index("split"), "split", column))
    leaks = check_splits(folder).leaks
    assert any(f"parcel {victim}, which it is labelled by, is {words[victim - 1]}" in leak.what for leak in leaks)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pixel_of_the_buffer_that_is_filled_is_found(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    parcels = random_parcels(seed, 30, *SHAPE)
    folder = write_labelled(tmp_path_factory.mktemp("cube"), parcels, SHAPE, SplitRule(block_m=640, seed=seed))
    split = read_window(folder, "split", WHOLE, dates=None)
    rows, columns = np.nonzero(split == 4)
    if not len(rows):
        assert check_splits(folder).leaks == ()
        return
    pick = seed % len(rows)
    row, column = int(rows[pick]), int(columns[pick])
    # The split of the block it lies in: that of most of its pixels.
    block = split[row // 64 * 64 :, column // 64 * 64 :][:64, :64]
    split[row, column] = np.argmax(np.bincount(block.ravel(), minlength=5)[1:4]) + 1
    write_labels(folder, SHAPE, {"split": split})
    said = [leak.what for leak in check_splits(folder).leaks if leak.kind == "pixel"]
    assert any(f"row {row}, column {column}" in sentence for sentence in said)


def squares(*corners: tuple[float, float]) -> Parcels:
    """Squares of 200 m, of one class, whose upper-left corners lie so many metres right of and below the cube's."""
    shapes = [shapely.box(LEFT + x, TOP - y - 200, LEFT + x + 200, TOP - y) for x, y in corners]
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, len(shapes) + 1, dtype=np.uint32),
        source_row=np.arange(len(shapes)),
        crop_type=np.ones(len(shapes), np.uint16),
        geometry=np.array(shapes, dtype=object),
    )


@pytest.fixture
def three(tmp_path: Path) -> Folder:
    """One parcel in each of the three blocks of a row, each in another split."""
    return write_labelled(tmp_path, squares((300, 100), (900, 100), (1560, 100)), (64, 192), SplitRule(block_m=640))


def test_sentences_name_pixel_parcel_and_distance(three: Folder) -> None:
    """Row 20 (y = 205) meets parcel 2, whose left side is at x = 900: column 84 (x = 845) is 55 m away."""
    window = Window(row=0, column=0, height=64, width=192)
    split = read_window(three, "split", window, dates=None)
    own, other = int(split[60, 84]), int(split[60, 10])
    split[20, 84] = other
    write_labels(three, (64, 192), {"split": split})
    words = ("none", "train", "validation", "test")
    (leak, chip) = check_splits(three).leaks
    assert leak.what == (
        f"the pixel at row 20, column 84 is {words[other]} and lies 55.0 m from parcel 2, which is {words[own]}; "
        "the buffer is 100 m"
    )
    assert (leak.kind, leak.count) == ("pixel", 1)
    held = " and ".join(words[code] for code in sorted((own, other)))
    assert chip.what == f"chip grid-0-64 (row 0, column 64) is {words[own]}, its pixels are in {held}"


def _gap(tmp_path: Path) -> Folder:
    """Train to x = 600 and test from x = 900, with a parcel in each and chips of 640 m around them that meet."""
    drawn = [shapely.box(LEFT - 100, TOP - 640, LEFT + 600, TOP), shapely.box(LEFT + 900, TOP - 640, LEFT + 1920, TOP)]
    areas = SplitAreas(epsg=32631, geometry=np.array(drawn, dtype=object), split=np.array([1, 3], np.uint8))
    parcels = squares((380, 100), (920, 100), (1500, 100))
    return write_labelled(tmp_path, parcels, (64, 192), SplitRule(file="x"), areas=(areas,))


def test_chips_beside_a_gap_between_drawn_areas_are_buffer(tmp_path: Path) -> None:
    folder = _gap(tmp_path)
    chips = pq.read_table(Path(folder.location) / "chips.parquet").to_pydict()
    assert dict(zip(chips["chip_id"], chips["split"], strict=True)) == {
        **{"grid-0-0": "buffer", "grid-0-64": "buffer", "grid-0-128": "test"},
        **{"parcel-1": "buffer", "parcel-2": "buffer", "parcel-3": "test"},
    }
    assert check_splits(folder).leaks == ()


def test_chips_of_two_splits_that_share_pixels_are_found_whatever_the_pixels_are(tmp_path: Path) -> None:
    """Parcel 1's chip has columns 16 to 79, parcel 2's 70 to 133: 10 columns of 64 rows, all of them in no split."""
    folder = _gap(tmp_path)
    table = pq.read_table(Path(folder.location) / "chips.parquet")
    words = {"parcel-1": "train", "parcel-2": "test", "grid-0-0": "train"}
    column = pa.array([words.get(name, "buffer") for name in table["chip_id"].to_pylist()])
    write_table(folder, "chips.parquet", table.set_column(table.schema.names.index("split"), "split", column))
    said = [leak.what for leak in check_splits(folder).leaks if "share" in leak.what]
    assert said == [
        "chip parcel-1 is train and chip parcel-2 is test, and they share 640 pixels, the first at row 0, column 70"
    ]


def test_a_row_that_stands_twice_is_found(three: Folder) -> None:
    table = pq.read_table(Path(three.location) / "parcels.parquet")
    write_table(
        three,
        "parcels.parquet",
        pa.concat_tables([table, table.slice(1, 1)]).replace_schema_metadata(table.schema.metadata),
    )
    said = [leak.what for leak in check_splits(three).leaks]
    assert said == [
        "parcel 2 stands more than once in parcels.parquet",
        "the parcel of the key 'key-2' has two rows",
    ]


def test_a_class_that_a_split_lacks_is_said_and_is_no_leak(tmp_path: Path) -> None:
    parcels = squares((300, 100), (900, 100), (1560, 100))
    parcels.crop_type[:] = [1, 1, 2]
    proof = check_splits(write_labelled(tmp_path, parcels, (64, 192), SplitRule(block_m=640)))
    assert proof.leaks == ()
    assert [note.split(" has ")[0] for note in proof.notes] == ["class wheat", "class 2"]


def test_a_dataset_that_is_being_split_is_not_judged(three: Folder) -> None:
    three.write("journal/000001.jsonl", b'{"kind":"split"}\n')
    with pytest.raises(ValueError, match="is being written or split; run the command that was interrupted again first"):
        check_splits(three)


def test_the_grid_of_the_helper_is_that_of_its_cube() -> None:
    assert geobox_of(*SHAPE).boundingbox.bbox == (LEFT, TOP - 1320, LEFT + 1980, TOP)
