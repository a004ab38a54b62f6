from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.synthetic import BANDS, Synthetic

from sits_catalog.cube import Split
from sits_models.data.classes import join_classes
from sits_models.data.cubes import open_cube
from sits_models.data.grid import read_grid
from sits_models.data.loader import EvaluationData, TrainingData
from sits_models.data.readers import read_in_threads
from sits_models.data.sampling import BatchPlan
from sits_models.data.statistics import pool_statistics
from sits_models.recipe import DataRecipe, DateRule
from sits_models.sample import Sample
from sits_pipeline.splits import block_raster

SMALL = DataRecipe(size=24, batch=4, chips=32, cache_mb=8)


def data_of(synthetic: Synthetic, recipe: DataRecipe = SMALL) -> TrainingData:
    return TrainingData.open(recipe, cubes=[synthetic.folder.location])


def same(ours: Sample, theirs: Sample) -> bool:
    names = ("image", "valid", "day", "clear", "crop", "counted", "parcel", "boundary", "place")
    return all(np.array_equal(getattr(ours, name).numpy(), getattr(theirs, name).numpy()) for name in names)


# Opening


def test_data_knows_what_it_holds(synthetic: Synthetic) -> None:
    with data_of(synthetic) as data:
        assert data.bands == BANDS
        assert data.table.codes == ("(background)", "c1", "c2", "c3")
        assert data.dates == 4
        assert data.batches_in_epoch == 8
        assert [cube.facts.region for cube in data.cubes] == ["tiny"]
        row = data.cubes[0].facts.statistics
        assert row is not None
        assert data.mean == pytest.approx([(row[band]["mean"] or 0) * 1e4 for band in BANDS])
        assert data.std == pytest.approx([(row[band]["std"] or 0) * 1e4 for band in BANDS])


def test_bands_classes_and_reflectance_of_the_recipe(synthetic: Synthetic) -> None:
    recipe = replace(SMALL, bands=("B08", "B03"), classes=("c2",), background=False, normalize="reflectance")
    data = data_of(synthetic, replace(recipe, dates=DateRule(pick="even", n=3)))
    assert (data.bands, data.table.codes, data.dates) == (("B08", "B03"), ("c2",), 3)
    assert (data.mean, data.std) == ((0.0, 0.0), (10_000.0, 10_000.0))
    batch = next(iter(data.epoch(0, seed=0)))
    assert batch.image.shape == (4, 3, 2, 24, 24)
    assert set(batch.crop.unique().tolist()) <= {-1, 0}


def test_table_and_bands_of_a_model_go_before_the_recipe(synthetic: Synthetic) -> None:
    table = data_of(synthetic, replace(SMALL, classes=("c3", "c1"))).table
    data = TrainingData.open(SMALL, cubes=[synthetic.folder.location], table=table, bands=("B03",))
    assert (data.table, data.bands) == (table, ("B03",))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(SMALL, bands=("B02", "B12")), "has no band B12"),
        (replace(SMALL, classes=("c1", "c9")), "has no class of code c9; it has c1, c2, c3"),
        (replace(SMALL, labels=4), "has no labels_x4"),
    ],
)
def test_what_a_cube_lacks_is_said_at_once(synthetic: Synthetic, recipe: DataRecipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(synthetic, recipe)


def test_no_reader_is_refused(synthetic: Synthetic) -> None:
    with pytest.raises(ValueError, match=r"data\.readers is at least 1; got 0"):
        data_of(synthetic, replace(SMALL, readers=0))


def test_with_less_room_fewer_superblocks_are_mixed(synthetic: Synthetic) -> None:
    superblock = 128 * 128 * (4 * (2 * 4 + 1) + 9)
    mixed = [data_of(synthetic, replace(SMALL, cache_mb=mb))._mixed() for mb in (1, 5, 512)]
    assert mixed == [1, 5_000_000 * 7 // 8 // 2 // superblock, 16]


def test_no_cube_is_refused() -> None:
    with pytest.raises(ValueError, match="no cube to learn from; give --cube"):
        TrainingData.open(SMALL, cubes=[])


def test_the_grid_holds_splits_classes_and_parcels(synthetic: Synthetic) -> None:
    cube = open_cube(synthetic.folder.location)
    grid = read_grid(cube, data_of(synthetic).table, parcels=True)
    assert grid.split.shape == (9, 9)
    assert set(np.unique(grid.split).tolist()) == {1, 2, 3}
    expected = [(synthetic.crop_type[64:128, 512:576] == index).sum() for index in (0, 1, 2, 3)]
    assert grid.crops[:, 1, 8].tolist() == expected
    for row, column, split in grid.parcels[::40].tolist():
        number = synthetic.parcel_id[row, column]
        assert synthetic.split[number - 1] == split
    assert grid.area(Split.TRAIN) == sum(
        len(range(64 * row, min(64 * row + 64, 540))) * 64 for row, _ in np.argwhere(grid.split == 1).tolist()
    )


def test_a_cube_without_splits_says_how_to_make_them(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = open_cube(synthetic.folder.location)
    chips = cube.chip_table()
    none = pyarrow.nulls(len(chips), pyarrow.string())
    chips = chips.set_column(chips.column_names.index("split"), "split", none)
    monkeypatch.setattr(cube, "chip_table", lambda columns, kind: chips)
    with pytest.raises(ValueError, match="has no splits; make them with sits-cube split"):
        read_grid(cube, None, parcels=False)
    for ground in ("unsplit", "all"):
        assert (read_grid(cube, None, parcels=False, ground=ground).split == Split.TRAIN).all()


def test_all_ground_is_learnt_from_only_where_that_is_asked_for(synthetic: Synthetic) -> None:
    cube = open_cube(synthetic.folder.location)
    splits = read_grid(cube, None, parcels=False)
    assert len(np.unique(splits.split)) == 3
    np.testing.assert_array_equal(read_grid(cube, None, parcels=False, ground="unsplit").split, splits.split)
    whole = read_grid(cube, None, parcels=False, ground="all")
    assert (whole.split == Split.TRAIN).all()
    assert whole.area(Split.TRAIN) == 540 * splits.width


@pytest.mark.parametrize("labels", [1, 2])
def test_train_pixels_are_those_whose_own_split_is_train(synthetic: Synthetic, labels: int) -> None:
    recipe = replace(SMALL, labels=labels, classes=("c3", "c1"))  # type: ignore[arg-type]
    data = TrainingData.open(recipe, cubes=[synthetic.folder.location] * 2)
    train = open_cube(synthetic.folder.location).read("split", slice(None), slice(None)) == Split.TRAIN
    expected = [2 * labels**2 * int((train & (synthetic.crop_type == crop)).sum()) for crop in (0, 3, 1)]
    assert data.train_pixels().tolist() == expected
    # The grid counts what lies in the buffer, too, which has no say here.
    assert (data.grids[0].crops[:, data.grids[0].split == Split.TRAIN].sum(axis=1) * labels**2 * 2 > expected).any()
    data.train_pixels()[:] = 0
    assert data.train_pixels().tolist() == expected


def test_statistics_of_two_cubes_are_those_of_all_their_pixels(synthetic: Synthetic) -> None:
    first, second = np.array([100.0, 300.0, 800.0]), np.array([50.0, 60.0])
    cubes = []
    for values, n in ((first, 3), (second, 2)):
        row = {"mean": values.mean() / 1e4, "std": values.std() / 1e4, "n": n}
        cube = open_cube(synthetic.folder.location)
        cube.facts = replace(cube.facts, statistics={"B02": row})
        cubes.append(cube)
    grid = read_grid(cubes[0], None, parcels=False)
    (mean,), (std,) = pool_statistics(cubes, [grid, grid], ["B02"])
    every = np.concatenate([first, second])
    assert mean == pytest.approx(every.mean())
    assert std == pytest.approx(every.std())
    with pytest.raises(ValueError, match=r"no clear train pixels of B03 in .*; use data\.normalize=reflectance"):
        pool_statistics(cubes, [grid, grid], ["B03"])


# Epochs


def ground_of(synthetic: Synthetic, split: int) -> NDArray[np.bool_]:
    """Pixels in the blocks of a split, from the plan that the dataset was made by."""
    assert synthetic.plan.splits is not None
    return np.asarray(block_raster(synthetic.plan.splits, synthetic.plan.zone.geobox) == split)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.sampled_from([16, 33, 48, 64]),
    st.sampled_from(["uniform", "class", "parcel"]),
    st.sampled_from([1, 2]),
    st.integers(0, 99),
)
def test_a_training_sees_pixels_and_labels_of_the_train_split_alone(
    synthetic: Synthetic, size: int, sampling: str, labels: int, seed: int
) -> None:
    recipe = DataRecipe(size=size, batch=4, chips=24, sampling=sampling, labels=labels)  # type: ignore[arg-type]
    data = data_of(synthetic, recipe)
    inputs = ground_of(synthetic, Split.TRAIN)
    split = data.cubes[0].read("split", slice(None), slice(None))
    for batch in data.epoch(0, seed=seed):
        for b, (_, row, column) in enumerate(batch.place.tolist()):
            window = slice(row, row + size), slice(column, column + size)
            assert inputs[window].all()
            other = torch.from_numpy(split[window] != Split.TRAIN)
            other = other.repeat_interleave(labels, 0).repeat_interleave(labels, 1)
            assert (batch.crop[b][other] == -1).all()
            crop = np.where(synthetic.crop_type[window] == 65535, -1, synthetic.crop_type[window].astype(int))
            assert torch.equal(
                batch.crop[b][::labels, ::labels][~other[::labels, ::labels]],
                torch.from_numpy(crop)[~other[::labels, ::labels]],
            )


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_an_epoch_is_its_plan_chip_by_chip(synthetic: Synthetic, readers: int) -> None:
    data = data_of(synthetic, replace(SMALL, readers=readers))
    plan = data.plan(5, seed=9)
    found = torch.cat([batch.place for batch in data.epoch(5, seed=9)])
    assert np.array_equal(found.numpy(), plan.places)
    assert len(found) == 32


def test_no_block_is_decoded_twice_in_an_epoch_that_the_cache_has_room_for(synthetic: Synthetic) -> None:
    superblock = 128 * 128 * (4 * (2 * 4 + 1) + 9)
    recipe = DataRecipe(size=24, batch=4, chips=600, readers=1, cache_mb=2.5 * superblock / 1e6)
    data = data_of(synthetic, recipe)
    assert data._mixed() == 2
    for _ in data.epoch(0, seed=0):
        pass
    around = np.unique(data.plan(0, seed=0).around, axis=0)
    assert data._reader is not None
    assert data._reader.cache.decoded == ((around[:, 1] - around[:, 0]) * (around[:, 3] - around[:, 2])).sum()


def test_a_stopped_epoch_goes_on_where_it_was(synthetic: Synthetic) -> None:
    recipe = replace(SMALL, dates=DateRule(pick="random", n=2))
    whole = list(data_of(synthetic, recipe).epoch(1, seed=3))
    rest = list(data_of(synthetic, recipe).epoch(1, seed=3, start=3))
    assert len(rest) == 5
    assert all(same(*pair) for pair in zip(whole[3:], rest, strict=True))
    assert len({tuple(days) for batch in whole for days in batch.day.tolist()}) > 3


def test_a_cube_given_twice_is_two_cubes(synthetic: Synthetic) -> None:
    path = synthetic.folder.location
    data = TrainingData.open(replace(SMALL, chips=200), cubes=[path, path])
    batches = list(data.epoch(0, seed=0))
    counts = np.bincount(torch.cat([batch.place[:, 0] for batch in batches]).numpy(), minlength=2)
    assert counts.min() > 60
    single = data_of(synthetic)
    assert single.mean == pytest.approx(data.mean)


# Evaluation


def evaluation_of(synthetic: Synthetic, labels: int = 1, dates: DateRule = SMALL.dates) -> EvaluationData:
    cubes = [open_cube(synthetic.folder.location)]
    table = join_classes(cubes, codes=None, background=True)
    return EvaluationData.open(cubes, table=table, bands=BANDS, dates=dates, labels=labels, batch=8, pad_to=4)


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.sampled_from([None, 24, 48, 64, 100, 128]),
    st.sampled_from([0, 28]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 3]),
)
@example(None, 0, 2, 3)
@example(48, 28, 1, 2)
@example(128, 28, 1, 1)
def test_an_evaluation_counts_every_labelled_pixel_of_the_split_once_and_sees_no_other_ground(
    synthetic: Synthetic, size: int | None, halo: int, labels: int, code: int
) -> None:
    split, side, m = Split(code), max(size or 64, min(size or 64, 64) + 2 * halo), labels
    ours = ground_of(synthetic, split)
    margin = ((128, 192), (128, 192))
    image = np.pad(np.where(ours, synthetic.reflectance, 0), ((0, 0), (0, 0), *margin))
    clear = np.pad(ours & ((synthetic.quality & 0b10111111) == 1), ((0, 0), *margin))
    counted, crop = np.zeros((m * 860, m * 896), int), np.full((m * 860, m * 896), -1)
    for batch in evaluation_of(synthetic, labels).evaluation(split, size=size, halo=halo):
        assert batch.image.shape[-1] == side
        for b, (_, row, column) in enumerate((batch.place + torch.tensor([0, 128, 128])).tolist()):
            window = slice(row, row + side), slice(column, column + side)
            assert np.array_equal(batch.image[b].numpy(), image[:, :, *window])
            assert np.array_equal(batch.clear[b].numpy(), clear[:, *window])
            finer = slice(m * row, m * (row + side)), slice(m * column, m * (column + side))
            known = batch.counted[b].numpy()
            counted[finer] += known
            crop[finer][known] = batch.crop[b].numpy()[known]
            assert (batch.crop[b].numpy()[~known] == -1).all()
            # What is counted has its halo around it.
            rows, columns = (np.flatnonzero(known.any(axis)) // m for axis in (1, 0))
            if len(rows):
                assert min(rows[0], columns[0], side - 1 - rows[-1], side - 1 - columns[-1]) >= halo
    own = open_cube(synthetic.folder.location).read("split", slice(None), slice(None)) == split
    truth = np.where(own & (synthetic.crop_type != 65535), synthetic.crop_type.astype(int), -1)
    assert np.array_equal(counted, np.pad(own, margin).repeat(m, 0).repeat(m, 1))
    assert np.array_equal(crop, np.pad(truth, margin, constant_values=-1).repeat(m, 0).repeat(m, 1))


@pytest.mark.slow
def test_the_evaluation_of_a_training_is_that_of_the_cubes(synthetic: Synthetic) -> None:
    with data_of(synthetic, replace(SMALL, batch=8)) as data:
        for size, halo in ((None, 0), (40, 0), (80, 0), (64, 4)):
            pairs = zip(
                data.evaluation(Split.TEST, size=size, halo=halo),
                evaluation_of(synthetic).evaluation(Split.TEST, size=size, halo=halo),
                strict=True,
            )
            assert all(same(*pair) for pair in pairs)


def test_an_evaluation_needs_neither_statistics_nor_train_pixels(synthetic: Synthetic) -> None:
    cube = open_cube(synthetic.folder.location)
    cube.facts = replace(cube.facts, statistics=None)
    with EvaluationData.open(
        [cube], table=None, bands=("B08",), dates=DateRule(pick="even", n=2), labels=1, batch=4, pad_to=3
    ) as data:
        data.grids[0].split[data.grids[0].split == Split.TRAIN] = Split.NONE
        batch = next(iter(data.evaluation(Split.VALIDATION)))
    assert batch.image.shape == (4, 3, 1, 64, 64)
    assert batch.valid.tolist() == [[True, True, False]] * 4
    assert (batch.crop == -1).all()


def test_an_evaluation_without_a_cube_or_a_reader_is_refused(synthetic: Synthetic) -> None:
    def opened(cubes: list[str], **changes: int) -> EvaluationData:
        settings = {"labels": 1, "batch": 4, "pad_to": 4, **changes}
        return EvaluationData.open(cubes, table=None, bands=BANDS, dates=DateRule(), **settings)

    with pytest.raises(ValueError, match="no cube to evaluate with"):
        opened([])
    with pytest.raises(ValueError, match="needs a reader and a chip in a batch at least; got 0 and 4"):
        opened([synthetic.folder.location], readers=0)
    with pytest.raises(ValueError, match=r"a size of at least 1 and a halo of at least 0; got 64, -1"):
        opened([synthetic.folder.location]).evaluation(Split.TEST, halo=-1)


def test_an_evaluation_may_run_while_an_epoch_is_read(synthetic: Synthetic) -> None:
    data = data_of(synthetic)
    alone = [batch.place for batch in data.epoch(0, seed=0)]
    epoch = iter(data.epoch(0, seed=0))
    first = next(epoch)
    windows = sum(len(batch.place) for batch in data.evaluation(Split.TEST))
    assert windows == (data.grids[0].split == Split.TEST).sum()
    together = [first.place, *(batch.place for batch in epoch)]
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


# Threads


def chip_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("chips-")]


def test_threads_end_when_an_epoch_is_left_early(synthetic: Synthetic) -> None:
    epoch = data_of(synthetic).epoch(0, seed=0)
    next(iter(epoch))
    assert chip_threads()
    epoch.close()  # type: ignore[attr-defined]
    assert not chip_threads()


def test_close_ends_the_threads_of_epochs_that_are_still_held(synthetic: Synthetic) -> None:
    data = data_of(synthetic)
    running = [data.epoch(0, seed=0), data.evaluation(Split.TEST), data.epoch(1, seed=0)]
    for one in running:
        next(one)
    assert len(chip_threads()) == 6
    data.close()
    assert not chip_threads()
    for one in running:
        with pytest.raises(StopIteration):
            next(one)


def test_an_error_in_a_thread_is_raised_where_its_batch_is_taken(synthetic: Synthetic) -> None:
    data = data_of(synthetic)
    plan = data.plan(0, seed=0)
    reader = data._settings.open()
    taken: list[Sample] = []

    def read(batch: BatchPlan) -> Sample:
        if np.array_equal(batch.places, plan[3].places):
            raise OSError("the disk is gone")
        return data._settings.read(reader, batch)

    with pytest.raises(OSError, match="the disk is gone"):
        taken.extend(read_in_threads([plan[k] for k in range(len(plan))], read, threads=2))
    assert len(taken) == 3
    assert not chip_threads()


# Processes

SCRIPT = """
import hashlib, json, sys, warnings
from dataclasses import replace

warnings.filterwarnings("ignore", message="This process .* is multi-threaded")

def digest(batch):
    text = hashlib.sha256(batch.place.numpy().tobytes())
    for name in ("image", "valid", "day", "clear", "crop", "counted", "parcel", "boundary"):
        text.update(getattr(batch, name).numpy().tobytes())
    return text.hexdigest()

if __name__ == "__main__":
    from sits_models.data import TrainingData
    from sits_models.recipe import DataRecipe, DateRule
    from sits_catalog.cube import Split
    path, start = sys.argv[1:]
    recipe = DataRecipe(size=24, batch=4, chips=64, cache_mb=8, dates=DateRule(pick="random", n=3), start=start)
    data = TrainingData.open(recipe, cubes=[path])
    # The parent reads first: its zarr has an event loop, threads and open arrays when the readers start.
    parent = [len(batch.place) for batch in data.evaluation(Split.TEST)]
    epochs = [[digest(batch) for batch in data.epoch(number, seed=1)] for number in (0, 1)]
    left = iter(data.epoch(2, seed=1))
    next(left)
    while_reading = [len(batch.place) for batch in data.evaluation(Split.TEST)]
    again = [digest(batch) for batch in data.epoch(0, seed=1)]
    assert again == epochs[0]
    assert while_reading == parent
    data.close()
    print(json.dumps(epochs))
"""


@pytest.fixture(scope="module")
def bytes_of_threads(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_script(synthetic, tmp_path_factory.mktemp("threads"), "threads")


def run_script(synthetic: Synthetic, folder: Path, start: str) -> str:
    """What the script prints; it is ended where it hangs."""
    script = folder / "read.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), synthetic.folder.location, start]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", ["forkserver", *(pytest.param(start, marks=pytest.mark.soak) for start in ("spawn", "fork"))]
)
def test_processes_give_the_bytes_of_threads_and_do_not_hang(
    synthetic: Synthetic, bytes_of_threads: str, tmp_path: Path, start: str
) -> None:
    assert run_script(synthetic, tmp_path, start) == bytes_of_threads


def gone_after(seconds: float, processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.slow
def test_close_ends_the_processes_and_threads_of_epochs_that_are_still_held(synthetic: Synthetic) -> None:
    data = data_of(synthetic, replace(SMALL, start="forkserver"))
    epoch, evaluation = data.epoch(0, seed=0), data.evaluation(Split.TEST)
    next(epoch)
    next(evaluation)
    assert chip_threads()
    assert data._workers is not None
    readers = [psutil.Process(worker.pid) for worker in data._workers._batches._workers]  # type: ignore[union-attr]
    assert len(readers) == 2
    data.close()
    assert gone_after(20, readers)
    assert not chip_threads()
    for left in (epoch, evaluation):
        with pytest.raises((ValueError, StopIteration)):
            next(left)


@pytest.mark.slow
def test_a_reader_that_is_killed_is_said_in_one_sentence(synthetic: Synthetic) -> None:
    with data_of(synthetic, replace(SMALL, chips=400, start="forkserver")) as data:
        epoch = data.epoch(0, seed=0)
        next(epoch)
        assert data._workers is not None
        for worker in data._workers._batches._workers:  # type: ignore[union-attr]
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"a reader process ended .* \(out of memory\?\)"):
            for _ in epoch:
                pass
        # The next epoch has readers of its own.
        assert len(list(data.epoch(0, seed=0))) == 100


@pytest.mark.slow
def test_an_error_in_a_reader_process_is_the_one_sentence_that_a_thread_says(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(synthetic.folder.location, path)
    for shard in (path / "cube.zarr" / "reflectance" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(bytes(len(shard.read_bytes())))
    for start in ("threads", "forkserver"):
        with TrainingData.open(replace(SMALL, start=start), cubes=[str(path)]) as data:  # type: ignore[arg-type]
            with pytest.raises(OSError, match=r"cannot read reflectance of .*copy/cube\.zarr") as raised:
                next(data.epoch(0, seed=0))
            assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["threads", "forkserver"])
def test_two_epochs_lose_and_repeat_no_chip_after_the_parent_has_read(synthetic: Synthetic, start: str) -> None:
    recipe = replace(SMALL, chips=None, start=start)  # type: ignore[arg-type]
    with data_of(synthetic, recipe) as data:
        data.cubes[0].read("reflectance", slice(0, 64), slice(0, 64))
        for number in (0, 1):
            found = torch.cat([batch.place for batch in data.epoch(number, seed=0)])
            assert np.array_equal(found.numpy(), data.plan(number, seed=0).places)


def memory_of(process: psutil.Process) -> int:
    """Bytes that it and its children hold, shared ones in each."""
    return sum(int(one.memory_info().rss) for one in (process, *process.children(recursive=True)))


def batches_of(data: TrainingData) -> Iterator[Sample]:
    number = 0
    while True:
        yield from data.epoch(number, seed=0)
        number += 1


@pytest.mark.soak
@pytest.mark.parametrize("start", ["threads", pytest.param("forkserver", marks=pytest.mark.soak)])
def test_memory_is_flat_over_2000_batches(synthetic: Synthetic, start: str) -> None:
    recipe = replace(SMALL, chips=400, size=16, cache_mb=4, start=start)  # type: ignore[arg-type]
    with data_of(synthetic, recipe) as data:
        process, seen = psutil.Process(), []
        for count, _ in enumerate(batches_of(data), 1):
            if count % 100 == 0:
                seen.append(memory_of(process))
            if count == 2000:
                break
    # The first batches fill caches and pools of memory.
    assert max(seen[-5:]) - max(seen[4:8]) < 15e6
