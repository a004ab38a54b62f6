"""The few-label protocol: a small one from beginning to end, killed and taken up, and its tables by hand."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import override

import numpy as np
import pytest
import torch
from tests.models.commands import assert_refused, sits_model
from tests.synthetic import BANDS, Synthetic, make_dataset
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones.base import Backbone, Needs
from sits_models.checkpoints import Card, save_weights
from sits_models.data.classes import join_classes
from sits_models.data.cubes import CropEntry, open_cube
from sits_models.data.grid import read_grid
from sits_models.encoder import Encoder
from sits_models.metrics import scores_of
from sits_models.objectives import build_objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import (
    BackboneRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    FewLabels,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
    dump_recipe,
)
from sits_models.sample import Sample
from sits_models.tasks.few_label import (
    FewLabelGrid,
    FewLabelOutcome,
    evaluate_few_labels,
    plan_few_labels,
)
from sits_models.tasks.few_labels.measure import measure
from sits_models.tasks.few_labels.plan import RANDOM, Mode, Protocol, Run, Start, notes_of, runs_of
from sits_models.tasks.few_labels.pool import in_processes
from sits_models.tasks.few_labels.rows import Row, append_row, read_rows
from sits_models.tasks.few_labels.tables import cells_of, table_csv, table_md
from sits_models.tasks.training import train

TINY = Recipe(
    name="tiny",
    data=DataRecipe(
        dates=DateRule(pick="even", n=4), size=16, batch=2, chips=4, readers=1, sampling="parcel", background=False
    ),
    backbone=BackboneRecipe(name="unet3df", width=0.0625),
    segmentation=SegmentationRecipe(),
    training=TrainingRecipe(epochs=2, patience=1, learning_rate=1e-2, schedule="constant"),
)
PROTOCOL = Protocol(
    recipe=TINY, by="parcel", cubes=("a",), tests=("a",), identities=("tiny 0 1", "tiny 0 1"), split="test"
)
WARM = Start(name="warm", weights="w", sha256="ab", objective="contrast", regions=("tiny",), place="in-region")
PNG = b"\x89PNG\r\n\x1a\n"


class Killed(BaseException):
    """The end of the process."""


class Listening(Narrator):
    """Keeps what is said, and ends the process with the sentence of the `at`-th run."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at, self.said = at, list[str]()

    @override
    def stage(self, text: str) -> None:
        self.said.append(text)
        if self.at is not None and text.startswith(f"{self.at} of "):
            raise Killed


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """A dataset of nine blocks."""
    return make_dataset(tmp_path_factory.mktemp("few") / "tiny", height=384, width=384)


def pretrained(small: Synthetic, out: Path, *, data: DataRecipe = TINY.data) -> Path:
    recipe = replace(TINY, data=data, segmentation=None, contrast=ContrastRecipe(), training=TrainingRecipe(epochs=1))
    with Listening() as narrator:
        train(recipe, cubes=[small.folder.location], weights=None, out=str(out), narrator=narrator)
    return out


def run_grid(grid: FewLabelGrid, out: Path, narrator: Listening) -> FewLabelOutcome:
    with narrator:
        return evaluate_few_labels(plan_few_labels(grid, out=str(out), jobs=1), out=str(out), narrator=narrator)


def rows_of(grid: FewLabelGrid, out: Path) -> list[Row]:
    run_grid(grid, out, Listening())
    return read_rows(out / "rows.jsonl")


def scores(row: object) -> dict[str, object]:
    """A row without what it took."""
    assert isinstance(row, dict)
    return {name: value for name, value in row.items() if not name.endswith("seconds")}


@pytest.mark.slow
def test_a_protocol_that_was_killed_goes_on_to_the_same_rows_and_tables(small: Synthetic, tmp_path: Path) -> None:
    grid = FewLabelGrid(
        recipe=TINY,
        cubes=(small.folder.location,),
        starts={"warm": str(pretrained(small, tmp_path / "warm"))},
        shares=(0.1, 1.0),
        seeds=2,
    )
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_grid(grid, out, Listening(at=5))
    before = (out / "rows.jsonl").read_bytes()
    assert before.count(b"\n") == 5
    # The process died while it wrote the next row.
    (out / "rows.jsonl").write_bytes(before + b'{"key": "torn')
    assert str(plan_few_labels(grid, out=str(out), jobs=1)).startswith("16 runs, 5 done; the other 11 take about")
    narrator = Listening()
    outcome = run_grid(grid, out, narrator)
    assert (out / "rows.jsonl").read_bytes().startswith(before)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 16
    assert [text.partition(":")[0] for text in narrator.said[1:]] == [f"{n} of 11" for n in range(1, 12)]
    assert "mIoU of pixels" in narrator.said[-1]

    by_kind = {(row["start"], row["mode"], row["share"], row["seed"]): row for row in rows}
    for (start, mode, share, seed), row in by_kind.items():
        # Of a seed all starts and modes see the same labels; of a share the smaller are fewer.
        assert row["train_pixels"] == by_kind["random", "finetune", share, seed]["train_pixels"]
        assert (row["train_pixels"] == by_kind[start, mode, 1.0, seed]["train_pixels"]) == (share == 1)
        assert row["parcels_count"] > 0
        assert row["pixels_miou"] == scores_of(np.array(row["pixels_confusion"])).miou
        folder = out / "runs" / row["key"]
        assert {path.name for path in folder.iterdir()} == {
            "recipe.yaml",
            "data.json",
            "environment.json",
            "metrics.csv",
            "metrics.json",
        }
        ended = json.loads((folder / "metrics.json").read_text())
        assert (ended["best_epoch"], ended["stopped_early"]) == (2, False)
        assert not [name for name in ended["metrics"] if name.startswith("validation")]
    assert by_kind["random", "finetune", 0.1, 0] != by_kind["random", "finetune", 0.1, 1]
    warm = by_kind["warm", "probe", 0.1, 0]
    assert (warm["start_place"], warm["start_objective"], warm["simulated"]) == ("in-region", "contrast", True)

    assert outcome.picture.read_bytes().startswith(PNG)
    table = outcome.table.read_text()
    assert "Simulated data" in table
    assert "pretraining (contrast), in-region, reads labels: all | tiny |" in table
    assert "Note: in 4 of its 8 runs warm starts from weights that read other labels of this region (all)" in table
    expected = [by_kind["random", "probe", 0.1, seed]["pixels_miou"] for seed in (0, 1)]
    (cell,) = [
        row
        for row in csv.DictReader((out / "table.csv").read_text().splitlines())
        if [row[key] for key in ("start", "mode", "share", "unit", "score")]
        == ["random", "probe", "0.1", "pixels", "miou"]
    ]
    assert float(cell["mean"]) == pytest.approx(sum(expected) / 2, abs=1e-6)

    # One of them alone gives the same row to the last bit; and nothing is left to do then.
    again = replace(grid, starts={}, shares=(0.1,), seeds=1, modes=("finetune",))
    run_grid(again, tmp_path / "again", Listening())
    (alone,) = read_rows(tmp_path / "again/rows.jsonl")
    assert scores(alone) == scores(by_kind["random", "finetune", 0.1, 0])
    narrator = Listening()
    run_grid(grid, out, narrator)
    assert narrator.said[0].startswith("16 runs, 16 done")
    assert len(narrator.said) == 1


@pytest.mark.soak
def test_a_run_gives_the_same_row_wherever_it_was_stopped_and_after_its_row_was_lost(
    small: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Weights that overrule the recipe, which only a training says that is not finished yet.
    data = replace(TINY.data, normalize="reflectance")
    start = pretrained(small, tmp_path / "warm", data=data)
    grid = FewLabelGrid(
        recipe=TINY,
        cubes=(small.folder.location,),
        starts={"warm": str(start)},
        shares=(0.1,),
        seeds=1,
        modes=("finetune",),
    )
    undisturbed = rows_of(grid, tmp_path / "undisturbed")
    assert [row["normalize"] for row in undisturbed] == ["statistics", "reflectance"]
    warm = undisturbed[1]
    assert (warm["start_labels"], warm["start_transductive"]) == ("all", False)

    # Killed between the end of a training and its row, and then taken up under another name of the recipe.
    out = tmp_path / "out"
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("sits_models.tasks.few_labels.work.measure", die)
            with pytest.raises(Killed):
                run_grid(grid, out, Listening())
        run_grid(replace(grid, starts={}), out, Listening())
    named = replace(grid, recipe=replace(TINY, name="another"))
    taken_up = rows_of(named, out)
    assert [row["recipe"] for row in taken_up] == ["tiny", "another"]
    assert [{**scores(row), "recipe": "tiny"} for row in taken_up] == [scores(row) for row in undisturbed]
    for row in taken_up:
        ended = json.loads((out / "runs" / row["key"] / "metrics.json").read_text())
        assert row["training_seconds"] == round(ended["seconds"], 2) < row["seconds"]

    # Weights and checkpoints of finished runs are gone.
    (out / "rows.jsonl").unlink()
    assert [scores(row) for row in rows_of(grid, out)] == [scores(row) for row in undisturbed]


def die(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.slow
def test_what_had_begun_beside_a_failure_is_given_before_it_is_raised() -> None:
    # Of two processes one is at work for a second while the other one fails.
    found = in_processes(time.sleep, [1.0, -1.0, *[0.05] * 40], jobs=2)
    given: list[float] = []
    with pytest.raises(ValueError, match="non-negative"):
        given.extend(seconds for seconds, _ in found)
    assert 1.0 in given
    assert len(given) < 41


@pytest.mark.soak
def test_processes_side_by_side_that_were_killed_leave_rows_that_the_same_command_completes(
    small: Synthetic, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_recipe(TINY))
    options = ["--recipe", tmp_path / "tiny.yaml", "--cube", small.folder.location, "--out", tmp_path / "out"]
    grid = ["--shares", "0.1,1", "--seeds", "2", "--modes", "finetune,probe", "--jobs", "2"]
    command = [sys.executable, "-m", "sits_models.cli", "evaluate", "--few-label", *map(str, options), *grid]
    rows = tmp_path / "out/rows.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not rows.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    kept = read_rows(rows)
    assert 1 <= len(kept) < 8
    subprocess.run(command, check=True, capture_output=True)
    found = read_rows(rows)
    assert found[: len(kept)] == kept
    assert len({row["key"] for row in found}) == len(found) == 8


# What is run


def test_a_run_takes_the_last_epoch_and_its_seed_decides_everything() -> None:
    run = Run(protocol=PROTOCOL, start=RANDOM, share=0.05, seed=3, mode="probe")
    assert run.recipe.data.few == FewLabels(share=0.05, by="parcel", seed=3)
    training = run.recipe.training
    assert (training.seed, training.probe, training.validate_every, training.patience) == (3, True, None, None)
    assert not replace(run, mode="finetune").recipe.training.probe


def test_runs_are_told_apart_by_all_that_decides_them_and_by_nothing_else() -> None:
    run = Run(protocol=PROTOCOL, start=WARM, share=0.05, seed=0, mode="finetune")
    data = replace(TINY.data, cubes=("moved",))
    same = (
        replace(run, start=replace(WARM, name="other", weights="elsewhere")),
        replace(run, protocol=replace(PROTOCOL, cubes=("moved",), recipe=replace(TINY, title="T", data=data))),
        replace(run, protocol=replace(PROTOCOL, recipe=replace(TINY, name="renamed"))),
    )
    assert {one.key for one in same} == {run.key}
    # By its name the folder of a run would be another recipe's.
    assert {one.recipe.name for one in same} == {run.recipe.name} == {"few-label"}
    others = (
        replace(run, start=RANDOM),
        replace(run, share=0.1),
        replace(run, seed=1),
        replace(run, mode="probe"),
        replace(run, protocol=replace(PROTOCOL, by="block")),
        replace(run, protocol=replace(PROTOCOL, split="validation")),
        replace(run, protocol=replace(PROTOCOL, identities=("tiny 0 1", "south 0 1"))),
        replace(run, protocol=replace(PROTOCOL, recipe=replace(TINY, data=replace(TINY.data, batch=4)))),
    )
    assert len({run.key, *(one.key for one in others)}) == len(others) + 1


def test_two_names_of_the_same_weights_are_refused(small: Synthetic, tmp_path: Path) -> None:
    data = join_classes([open_cube(small.folder.location)], codes=None, background=False)
    ours, theirs = (saved(small, tmp_path / name, classes=data.classes) for name in ("a", "b"))
    grid = FewLabelGrid(recipe=TINY, cubes=(small.folder.location,), starts={"a": str(ours), "b": str(theirs)})
    with pytest.raises(ValueError, match=r"the starts a and b are the same weights, .*a and .*b; leave one"):
        plan_few_labels(grid, out=str(tmp_path / "out"), jobs=1)


def saved(small: Synthetic, folder: Path, *, classes: tuple[CropEntry, ...]) -> Path:
    """A folder of weights that nobody trained."""
    torch.manual_seed(0)
    recipe = replace(TINY, segmentation=None, contrast=ContrastRecipe())
    objective = build_objective(recipe, bands=BANDS, dates=4, classes=3, mean=[0.0] * 4, std=[1.0] * 4)
    card = Card(
        recipe=recipe,
        bands=BANDS,
        dates=4,
        classes=classes,
        radiometry=open_cube(small.folder.location).facts.radiometry,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
    )
    save_weights(folder, objective, card)
    return folder


def test_starts_that_read_other_labels_of_the_region_are_told_of() -> None:
    def starts(share: float, seed: int) -> tuple[Start, ...]:
        reader = replace(WARM, reads_labels=True)
        return (
            RANDOM,
            replace(WARM, name="free", transductive=True),
            replace(reader, name="all"),
            replace(reader, name="own", few=FewLabels(share=share, seed=seed)),
            replace(reader, name="fixed", few=FewLabels(share=0.1, seed=0)),
            replace(reader, name="far", place="cross-region"),
        )

    runs = list(runs_of(PROTOCOL, starts=starts, shares=(0.1, 1.0), seeds=2, modes=("finetune",)))
    every, fixed = notes_of(runs)
    same = "starts from weights that read other labels of this region"
    assert every.startswith(f"Note: in 2 of its 4 runs all {same} (all) than the run itself: it is a reference there")
    assert fixed.startswith(f"Note: in 3 of its 4 runs fixed {same} (10 % by parcel, seed 0) than the run itself")
    # The same labels, taken by block, are not those that were read.
    by_block = [replace(run, protocol=replace(PROTOCOL, by="block")) for run in runs if run.start.name == "own"]
    assert notes_of(by_block)[0].startswith("Note: in 2 of its 4 runs own")
    table = table_md(runs, {run: row_of(run, 0.5) for run in runs})
    for line in (
        "| free | pretraining (contrast), in-region, transductive | tiny |",
        "| all | pretraining (contrast), in-region, reads labels: all | tiny |",
        "| own | pretraining (contrast), in-region, reads labels: those of the run | tiny |",
        "| fixed | pretraining (contrast), in-region, reads labels: 10 % by parcel, seed 0 | tiny |",
        "| far | pretraining (contrast), cross-region, reads labels: all | tiny |",
        every,
        fixed,
    ):
        assert f"\n{line}\n" in table


def test_whole_seeds_come_first_and_starts_beside_each_other() -> None:
    runs = list(
        runs_of(
            PROTOCOL, starts=lambda share, seed: (RANDOM, WARM), shares=(0.1, 1.0), seeds=2, modes=("finetune", "probe")
        )
    )
    assert len(runs) == 16
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8
    assert [run.title for run in runs[:2]] == [
        "random, finetune, 10 % of the labels, seed 0",
        "warm, finetune, 10 % of the labels, seed 0",
    ]


def test_steps_are_as_many_with_few_labels_as_with_all(small: Synthetic, tmp_path: Path) -> None:
    recipe = replace(TINY, data=replace(TINY.data, chips=None))
    grid = FewLabelGrid(recipe=recipe, cubes=(small.folder.location,), starts={}, by="block", shares=(0.2, 1.0))
    plan = plan_few_labels(grid, out=str(tmp_path), jobs=1)
    (chips,) = {run.recipe.data.chips for run in plan.runs}
    cells = int((read_grid(open_cube(small.folder.location), None, parcels=False).split == Split.TRAIN).sum())
    assert chips == cells * (64 // 16) ** 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": {"random": "x"}}, "give yours another name"),
        ({"shares": (0.1, 2.0)}, "share above 0 and up to 1; got 2.0"),
        ({"shares": (0.1, 0.1)}, "a share at least, and none twice"),
        ({"modes": ()}, "a mode at least, and none twice; got none"),
        ({"seeds": 0}, "a seed at least; got 0"),
        ({"recipe": replace(TINY, segmentation=None, contrast=ContrastRecipe())}, "tiny is a contrast"),
        ({"recipe": replace(TINY, training=replace(TINY.training, probe=True))}, "are the protocol's to set"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, object], message: str) -> None:
    grid = FewLabelGrid(recipe=TINY, cubes=("a",), starts={})
    with pytest.raises(ValueError, match=message):
        replace(grid, **changes)  # type: ignore[arg-type]


# Rows and tables


def row_of(run: Run, miou: float | None) -> dict[str, object]:
    return {
        "key": run.key,
        "pixels_miou": miou,
        "simulated": True,
        "trained_on": ["tiny"],
        "evaluated_on": ["south"],
        "train_pixels": [10, 20],
        "kept": {"by": "parcel", "classes": [{"code": "c1", "kept": 2, "of": 9}, {"code": "c2", "kept": 1, "of": 3}]},
        "by": "parcel",
    }


def done(mode: Mode, **values: tuple[float | None, ...]) -> dict[Run, dict[str, object]]:
    starts = {"random": RANDOM, "warm": WARM}
    return {
        run: row_of(run, miou)
        for name, scores in values.items()
        for seed, miou in enumerate(scores)
        for run in [Run(protocol=PROTOCOL, start=starts[name], share=0.1, seed=seed, mode=mode)]
    }


def test_means_deviations_and_paired_differences_by_hand() -> None:
    found = done("finetune", random=(0.40, 0.50, 0.30), warm=(0.50, 0.45, 0.55))
    random, warm = cells_of(found)
    assert (random.values, random.differences) == ((0.40, 0.50, 0.30), ())
    # Differences 10, -5 and 25 points: mean 10, deviation sqrt((0 + 225 + 225) / 2) = 15.
    assert warm.differences == pytest.approx((0.10, -0.05, 0.25))
    assert warm.better == 2
    rows = list(csv.DictReader(table_csv((random, warm)).splitlines()))
    assert rows[0] | {"mean": "0.400000", "sd": "0.100000", "pairs": "0", "difference": "", "better": ""} == rows[0]
    expected = {"mean": "0.500000", "sd": "0.050000", "pairs": "3", "difference": "0.100000"}
    assert rows[1] | expected | {"difference_sd": "0.150000", "better": "2", "share": "0.1"} == rows[1]
    table = table_md(list(found), found)
    assert "| random | 10 % | 3 parcels | 40.0 ± 10.0 |" in table
    assert "| warm | 10 % | 3 parcels | 50.0 ± 5.0 |" in table
    assert "| warm | 10 % | +10.0 ± 15.0 (2 of 3) |" in table
    assert "| warm | pretraining (contrast), in-region | tiny |" in table
    assert "evaluated on the test split of south" in table


def test_a_score_that_is_undefined_is_in_no_mean_and_no_pair() -> None:
    found = done("probe", random=(0.40, None), warm=(0.50, 0.60))
    random, warm = cells_of(found)
    assert (random.values, warm.values) == ((0.40,), (0.50, 0.60))
    assert warm.differences == pytest.approx((0.10,))
    assert "| warm | 10 % | +10.0 (1 of 1) |" in table_md(list(found), found)


def test_a_torn_last_row_is_cut_off_and_another_torn_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"key": "a"})
    path.write_bytes(path.read_bytes() + b'{"key"')
    assert read_rows(path) == [{"key": "a"}]
    append_row(path, {"key": "b"})
    assert read_rows(path) == [{"key": "a"}, {"key": "b"}]
    path.write_text('{"no": 1}\n')
    with pytest.raises(ValueError, match=r"line 1 of .* is no row of a run"):
        read_rows(path)


# Measuring


class Anything(Backbone):
    """Stands for the backbone of a model that needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.needs, self.head, self.stride = 3, Needs(dates=None, size_multiple=1), "none", 1

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        raise NotImplementedError


class Reader(Segmentation):
    """Reads a class out of the first band of the first date."""

    def __init__(self) -> None:
        encoder = Encoder(Anything(), bands=BANDS, mean=[0.0] * 4, std=[1.0] * 4, magnification=1)
        torch.nn.Module.__init__(self)
        self.encoder, self.classes = encoder, 3

    def forward(self, sample: Sample) -> Tensor:
        code = sample.image[:, 0, 0].to(torch.int64) % 3
        return torch.nn.functional.one_hot(code, 3).movedim(-1, 1).float()


def test_each_labelled_pixel_of_the_split_and_each_parcel_counts_once(small: Synthetic) -> None:
    cube = open_cube(small.folder.location)
    table = join_classes([cube], codes=None, background=False)
    recipe = replace(TINY, data=replace(TINY.data, dates=DateRule()))
    card = Card(
        recipe=recipe,
        bands=BANDS,
        dates=4,
        classes=table.classes,
        radiometry=cube.facts.radiometry,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
    )
    with Listening() as narrator:
        found = measure(Reader(), card, [cube], split=Split.TEST, narrator=narrator)
    split = cube.read("split", slice(0, 384), slice(0, 384))
    counted = (split == Split.TEST) & (small.crop_type >= 1) & (small.crop_type <= 3)
    truth, guess = small.crop_type[counted].astype(int) - 1, small.reflectance[0, 0][counted] % 3
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (truth, guess), 1)
    assert expected.sum() > 1000
    assert found["pixels"].tolist() == expected.tolist()
    votes = np.zeros((3, 3), int)
    parcels = small.parcel_id[counted]
    for parcel in np.unique(parcels[parcels > 0]):
        mine = parcels == parcel
        votes[np.bincount(truth[mine]).argmax(), np.bincount(guess[mine], minlength=3).argmax()] += 1
    assert found["parcels"].tolist() == votes.tolist()


# The command


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give --weights with the model to measure, or --few-label"),
        (["--weights", "w", "--seeds", "2"], "--seeds goes with --few-label"),
        (["--weights", "w", "--plan"], "--plan goes with --few-label"),
        (["--few-label"], "give --recipe"),
        (["--few-label", "--recipe", "segment-laptop", "--weights", "w"], "--start NAME=WEIGHTS"),
        (["--few-label", "--recipe", "segment-laptop", "--start", "w"], "--start is NAME=WEIGHTS"),
        (["--few-label", "--recipe", "segment-laptop", "--start", "a=w", "--start", "a=v"], "two starts are called a"),
        (["--few-label", "--recipe", "segment-laptop", "--shares", "some"], "--shares are numbers"),
        (["--few-label", "--recipe", "segment-laptop", "--modes", "warm"], "finetune, probe or both"),
        (["--few-label", "--recipe", "segment-laptop", "--device", "cpu"], "leave --device cpu out"),
        (["--few-label", "--recipe", "segment-laptop"], "names no cube; give --cube"),
        (["--few-label", "--recipe", "segment-laptop", "--jobs", "0"], "--jobs is a number of processes from 1"),
        (["--few-label", "--recipe", "cscl-laptop"], "cscl-laptop is a contrast"),
    ],
)
def test_options_that_do_not_go_together_are_said(options: list[str], says: str) -> None:
    assert_refused(sits_model("evaluate", *options), says)


def test_a_plan_says_what_is_to_be_done_and_writes_nothing(small: Synthetic, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_recipe(TINY))
    options = ("--recipe", tmp_path / "tiny.yaml", "--cube", small.folder.location, "--out", tmp_path / "out")
    ended = sits_model("evaluate", "--few-label", *options, "--plan", "--seeds", "2", "--jobs", "2")
    assert (ended.code, (tmp_path / "out").exists()) == (0, False)
    assert ended.stdout == (
        "16 runs, 0 done; the other 16 take about 3 minutes, 2 at a time on as many cores that do nothing else\n"
    )
    uniform = sits_model("evaluate", "--few-label", *options, "--set", "data.sampling=uniform")
    assert_refused(uniform, "set data.sampling=parcel")
