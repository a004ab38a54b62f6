from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tests.models.training import CLASSES, Chips, objective_of, recipe_of, sample_of

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.engine import CHECKPOINT, METRICS, Fitted, derived_seed, fit, learning_rate
from sits_models.objectives import Objective
from sits_models.recipe import Augmentation, BackboneRecipe, Recipe, TrainingRecipe
from sits_models.sample import IGNORE_INDEX, Sample

ROOT = Path(__file__).parents[2]


def train(recipe: Recipe, folder: Path, *, chips: Chips | None = None, seed: int = 0) -> tuple[Objective, Fitted]:
    objective = objective_of(recipe, seed=seed)
    with Narrator() as narrator:
        return objective, fit(objective, chips or Chips(), recipe, folder=folder, narrator=narrator)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_bits(one: Objective, other: Objective) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@dataclass
class StopsInEpoch(Chips):
    """Ends the process, as a signal would, before the second batch of an epoch."""

    stop: int = 1

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch, sample in enumerate(super().epoch(number, seed=seed, pin=pin)):
            if number == self.stop and batch == 1:
                raise KeyboardInterrupt
            yield sample


def test_two_trainings_of_one_seed_are_equal_bit_for_bit(tmp_path: Path) -> None:
    recipe = recipe_of()
    one, _ = train(recipe, tmp_path / "one")
    other, _ = train(recipe, tmp_path / "other")
    assert_equal_bits(one, other)
    third, _ = train(replace(recipe, training=replace(recipe.training, seed=1)), tmp_path / "third")
    assert not torch.equal(one.state_dict()["head.weight"], third.state_dict()["head.weight"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_each_optimizer_takes_what_the_recipe_says_of_it(tmp_path: Path, optimizer: str) -> None:
    recipe = recipe_of(epochs=1, optimizer=optimizer, betas=(0.5, 0.99), momentum=0.75, weight_decay=0.125)
    train(recipe, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["optimizer_states"][0]
    group = state["param_groups"][0]
    assert group["weight_decay"] == 0.125
    if optimizer == "sgd":
        assert group["momentum"] == 0.75
        assert "betas" not in group
    else:
        assert tuple(group["betas"]) == (0.5, 0.99)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    recipe = recipe_of(epochs=3, schedule="cosine", optimizer="adamw", clip_norm=0.5)
    whole, fitted = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", chips=StopsInEpoch(stop=stop))
    assert len(rows(tmp_path / "parts")) == stop if stop else not (tmp_path / "parts" / METRICS).exists()
    parts, again = train(recipe, tmp_path / "parts", seed=5 if stop else 0)
    assert_equal_bits(whole, parts)
    assert dict(again.metrics) == dict(fitted.metrics)
    assert again.epochs == 3
    assert [{**row, "seconds": ""} for row in rows(tmp_path / "parts")] == [
        {**row, "seconds": ""} for row in rows(tmp_path / "whole")
    ]


def test_a_finished_training_trains_no_further(tmp_path: Path) -> None:
    recipe = recipe_of()
    one, _ = train(recipe, tmp_path)
    again, fitted = train(recipe, tmp_path, chips=StopsInEpoch(stop=0), seed=3)
    assert_equal_bits(one, again)
    assert fitted.epochs == 2


@pytest.mark.slow
def test_a_task_that_can_be_learnt_is_learnt(tmp_path: Path) -> None:
    recipe = recipe_of(epochs=8, learning_rate=2e-2, final_learning_rate=1e-3, schedule="cosine")
    _, fitted = train(recipe, tmp_path, chips=Chips(batches_in_epoch=12))
    assert fitted.metrics["validation_miou"] > 0.8
    assert fitted.confusion is not None
    assert fitted.confusion.shape == (CLASSES, CLASSES)
    counted = sum(int((sample.crop != IGNORE_INDEX).sum()) for sample in Chips().evaluation(Split.VALIDATION))
    assert fitted.confusion.sum() == counted
    losses = [float(row["train_loss"]) for row in rows(tmp_path)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_contrast_is_watched_by_its_loss(tmp_path: Path) -> None:
    objective, fitted = train(recipe_of(contrast=True, epochs=3), tmp_path)
    losses = [float(row["validation_loss"]) for row in rows(tmp_path)]
    assert fitted.best_epoch == losses.index(min(losses)) + 1
    assert fitted.confusion is None
    objective.eval()
    with torch.no_grad():
        values = [objective.loss(sample).value for sample in Chips().evaluation(Split.VALIDATION)]
    assert fitted.metrics["validation_loss"] == pytest.approx(float(sum(values)) / len(values), abs=1e-6)


def test_the_best_epoch_is_the_one_of_the_highest_miou_and_its_weights_are_kept(tmp_path: Path) -> None:
    objective, fitted = train(recipe_of(epochs=4, learning_rate=5e-2), tmp_path)
    scores = [float(row["validation_miou"]) for row in rows(tmp_path)]
    assert fitted.best_epoch == scores.index(max(scores)) + 1
    assert fitted.metrics["validation_miou"] == max(scores)
    objective.eval()
    with torch.no_grad():
        guesses = [(objective(s).argmax(1), s.crop) for s in Chips().evaluation(Split.VALIDATION)]
    right = sum(int((guess == crop).sum()) for guess, crop in guesses)
    assert fitted.confusion is not None
    assert right == fitted.confusion.trace()


def test_patience_stops_a_training_and_a_stopped_one_stays_stopped(tmp_path: Path) -> None:
    # So small a step changes no prediction, so that no epoch is better than the first.
    recipe = recipe_of(epochs=9, learning_rate=1e-12, patience=2, augmentation=Augmentation(flips=False))
    _, fitted = train(recipe, tmp_path, chips=Chips(validated=1))
    assert fitted.stopped_early
    assert fitted.epochs == fitted.best_epoch + 2
    _, again = train(recipe, tmp_path, chips=StopsInEpoch(stop=fitted.epochs))
    assert again.epochs == fitted.epochs


def test_without_validation_the_latest_weights_are_kept(tmp_path: Path) -> None:
    _, fitted = train(recipe_of(epochs=2), tmp_path, chips=Chips(validated=0))
    assert fitted.best_epoch == 2
    assert not any(name.startswith("validation") for name in fitted.metrics)


def test_validation_every_second_epoch_leaves_the_cells_of_the_others_empty(tmp_path: Path) -> None:
    _, fitted = train(recipe_of(epochs=4, validate_every=2), tmp_path)
    assert [row["validation_miou"] != "" for row in rows(tmp_path)] == [False, True, False, True]
    assert fitted.best_epoch in (2, 4)


@pytest.mark.parametrize(("epochs", "every"), [(4, 3), (3, 5), (5, 2)])
def test_the_last_epoch_is_validated_whatever_the_number(tmp_path: Path, epochs: int, every: int) -> None:
    _, fitted = train(recipe_of(epochs=epochs, validate_every=every), tmp_path)
    validated = [row["validation_miou"] != "" for row in rows(tmp_path)]
    assert validated == [n % every == 0 or n == epochs for n in range(1, epochs + 1)]
    assert validated[fitted.best_epoch - 1]


class NeverAsked(StopsInEpoch):
    """Refuses to be validated on."""

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        raise AssertionError(split)


def test_without_validation_nothing_is_read_and_a_stopped_training_keeps_the_same_last_epoch(tmp_path: Path) -> None:
    recipe = recipe_of(epochs=3, validate_every=None, optimizer="adamw")
    whole, fitted = train(recipe, tmp_path / "whole", chips=NeverAsked(stop=9))
    assert (fitted.epochs, fitted.best_epoch, fitted.confusion) == (3, 3, None)
    assert list(fitted.metrics) == ["train_loss", "train_accuracy"]
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", chips=NeverAsked(stop=2))
    parts, again = train(recipe, tmp_path / "parts", chips=NeverAsked(stop=9), seed=5)
    assert_equal_bits(whole, parts)
    assert dict(again.metrics) == dict(fitted.metrics)
    module = torch.load(tmp_path / "whole" / CHECKPOINT, weights_only=True)["state_dict"]
    assert all(torch.equal(module[f"objective.{name}"], tensor) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize(("every", "validated", "copies"), [(None, 2, False), (1, 0, False), (1, 2, True)])
def test_a_checkpoint_holds_the_best_weights_beside_the_latest_only_where_a_score_chose_them(
    tmp_path: Path, every: int | None, validated: int, copies: bool
) -> None:
    train(recipe_of(epochs=1, validate_every=every), tmp_path, chips=Chips(validated=validated))
    (kept,) = torch.load(tmp_path / CHECKPOINT, weights_only=True)["callbacks"].values()
    assert bool(kept["best_tensors"]) == copies


def test_weights_that_no_score_chose_make_way_for_the_first_that_one_does(tmp_path: Path) -> None:
    objective, fitted = train(recipe_of(epochs=3, validate_every=2), tmp_path)
    (kept,) = torch.load(tmp_path / CHECKPOINT, weights_only=True)["callbacks"].values()
    assert fitted.best_epoch in (2, 3)
    assert all(torch.equal(kept["best_tensors"][name], tensor) for name, tensor in objective.state_dict().items())


def test_patience_counts_validations_and_not_epochs(tmp_path: Path) -> None:
    recipe = recipe_of(
        epochs=9, learning_rate=1e-12, patience=2, validate_every=2, augmentation=Augmentation(flips=False)
    )
    _, fitted = train(recipe, tmp_path, chips=Chips(validated=1))
    # Validated after every second epoch; two more validations after the best.
    assert fitted.stopped_early
    assert fitted.best_epoch % 2 == 0
    assert fitted.epochs == fitted.best_epoch + 4


@dataclass
class Unmeasured(Chips):
    """Validation without a number in every epoch but one: chips whose values are none."""

    measured: int = 1
    asked: int = 0

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        self.asked += 1
        for sample in super().evaluation(split, size=size, pin=pin):
            broken = sample.replace(image=sample.image.to(torch.float32) * math.nan)
            yield sample if self.asked == self.measured else broken


def test_a_score_that_is_no_number_counts_as_none(tmp_path: Path) -> None:
    recipe = recipe_of(contrast=True, epochs=4, patience=1)
    _, fitted = train(recipe, tmp_path, chips=Unmeasured(measured=2))
    assert fitted.best_epoch == 2
    assert fitted.epochs == 4
    assert [row["validation_loss"] != "" for row in rows(tmp_path)] == [False, True, False, False]
    json.dumps(dict(fitted.metrics), allow_nan=False)


@dataclass
class Asked(Chips):
    """Keeps the sizes that a validation was asked for."""

    sizes: list[int | None] = field(default_factory=list)

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        self.sizes.append(size)
        return super().evaluation(split, size=size, pin=pin)


@pytest.mark.parametrize(("name", "size", "asked"), [("unet3df", 8, 8), ("unet3df", 96, 64), ("unet2d_clstm", 96, 96)])
def test_a_backbone_that_sees_the_whole_chip_is_validated_at_the_side_of_training(
    tmp_path: Path, name: str, size: int, asked: int
) -> None:
    tiny = recipe_of(epochs=1)
    backbone = BackboneRecipe(name=name, width=0.25 if name == "unet2d_clstm" else 0.0625)
    chips = Asked(batches_in_epoch=1, validated=0)
    train(replace(tiny, data=replace(tiny.data, size=size), backbone=backbone), tmp_path, chips=chips)
    assert chips.sizes == [asked]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the loss of epoch 1 is no number .*; lower training\.learning_rate"):
        train(recipe_of(learning_rate=1e30, epochs=3), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"bf16 needs a GPU, .*; set training\.precision=32"):
        train(recipe_of(precision="bf16"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_compilation_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"training\.compile and training\.checkpointing exclude each other"):
        train(recipe_of(compile=True, checkpointing=True), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"training\.compile needs a C\+\+ compiler, .*; install g\+\+, or set"):
        train(recipe_of(compile=True), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device, which bf16 needs")
def test_half_precision_trains(tmp_path: Path) -> None:
    objective, fitted = train(recipe_of(precision="bf16", epochs=1), tmp_path)
    assert math.isfinite(fitted.metrics["train_loss"])
    assert objective.state_dict()["head.weight"].dtype == torch.float32


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    train(recipe_of(epochs=1), tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert {"state_dict", "optimizer_states", "callbacks"} <= set(state)
    assert not list(tmp_path.rglob("*.partial"))
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_nothing_but_the_stages_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(recipe_of(epochs=2), tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.partition(" (")[0] for line in err.splitlines()] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert "mIoU" in err


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"schedule": "constant"}, [1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "exponential", "decay": 0.5}, [1.0, 0.5, 0.25, 0.125]),
        ({"schedule": "exponential", "decay": 0.5, "decay_every": 2}, [1.0, 1.0, 0.5, 0.5]),
        ({"schedule": "exponential", "decay": 0.5, "restart_every": 2}, [1.0, 0.5, 1.0, 0.5]),
        ({"schedule": "milestones", "decay": 0.1, "milestones": (1, 3)}, [1.0, 0.1, 0.1, 0.01]),
        ({"schedule": "cosine", "epochs": 3}, [1.0, 0.75, 0.25]),
        ({"schedule": "cosine", "epochs": 3, "final_learning_rate": 0.5}, [1.0, 0.75, 0.5]),
        ({"schedule": "cosine", "epochs": 5, "warmup_epochs": 2}, [1 / 3, 2 / 3, 1.0, 0.75, 0.25]),
        ({"schedule": "cosine", "epochs": 1}, [1.0]),
    ],
)
def test_the_learning_rate_of_each_epoch(changes: dict[str, object], rates: list[float]) -> None:
    training = TrainingRecipe(**{"learning_rate": 1.0, **changes})  # type: ignore[arg-type]
    assert [learning_rate(training, epoch) for epoch in range(len(rates))] == pytest.approx(rates)


def test_seeds_differ_with_each_part() -> None:
    seeds = {derived_seed(kind, *parts) for kind in "ab" for parts in ((0, 0), (0, 1), (1, 0), (10, 0), (1, 0, 0))}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)


CHILD = """
import sys, time, warnings
from pathlib import Path
import torch
from tests.models.training import Chips, objective_of, recipe_of
from sits_catalog.console import Narrator
from sits_models.engine import fit
class Slow(Chips):
    def epoch(self, number, *, seed, pin=False):
        for sample in super().epoch(number, seed=seed):
            time.sleep(0.1)
            yield sample
torch.set_num_threads(1)
recipe = recipe_of(epochs=6, schedule="cosine")
objective = objective_of(recipe)
with Narrator() as narrator:
    fit(objective, Slow(), recipe, folder=Path(sys.argv[1]), narrator=narrator)
torch.save(objective.state_dict(), sys.argv[2])
"""


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_process_that_was_killed_and_started_again_ends_with_the_same_bits(
    tmp_path: Path, how: signal.Signals
) -> None:
    script, result, folder = tmp_path / "child.py", tmp_path / "result.pt", tmp_path / "run"
    script.write_text(textwrap.dedent(CHILD))
    command = [sys.executable, str(script), str(folder), str(result)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and child.poll() is None:
            if (folder / METRICS).exists() and len(rows(folder)) >= 2:
                break
            time.sleep(0.02)
        assert child.poll() is None, child.stderr.read().decode() if child.stderr else ""
        time.sleep(0.15)  # into the next epoch
        child.send_signal(how)
        assert child.wait(timeout=60) != 0
    assert not result.exists()
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    whole, _ = train(recipe_of(epochs=6, schedule="cosine"), tmp_path / "whole")
    resumed = torch.load(result, weights_only=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name
    assert len(rows(folder)) == 6


def test_samples_go_to_the_device_whole() -> None:
    sample = sample_of(0).to("meta")
    assert sample.image.device.type == sample.place.device.type == "meta"
    assert json.dumps(sample.bands)
