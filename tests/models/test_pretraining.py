"""Pretraining without labels through the engine: resumed to the same bits, and shared by processes as by one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.pretraining import BANDS, BATCH, DATES, METHODS, Series, objective_of, recipe_of, series, train
from torch import Tensor

from sits_models.backbones.unet2d_clstm import StepBatchNorm
from sits_models.checkpoints import Card, save_weights, transfer
from sits_models.data.draws import Draws
from sits_models.device import Rank
from sits_models.engine import CHECKPOINT, METRICS, Processes
from sits_models.engine.strategy import synchronized
from sits_models.objectives import Objective, build_objective
from sits_models.objectives.embedding_earth import EmbeddingEarth
from sits_models.objectives.gathering import as_it_is
from sits_models.objectives.seco import SeasonalContrast
from sits_models.objectives.shuffling import Shuffled, here
from sits_models.recipe import Augmentation, Recipe, Variant, load_recipe

ROOT = Path(__file__).parents[2]
CASES = ("earth", "earth-shared", "glcnet", "simclr", "inpainting", "jigsaw", "seco")
QUICK = "glcnet"
"""The case that each change is tried on; the others are minutes of processes that start and wait for each other."""
PATIENCE_S = 900
"""Processes that start share the cores with whatever else runs."""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def step(objective: Objective[Any], number: int) -> Tensor:
    draws = Draws.of(torch.Generator().manual_seed(number), chips=BATCH)
    loss = objective.loss(objective.views(series(number), Augmentation(), draws)).value
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


# --- One process ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, "earth-shared", "seco-moco"])
def test_a_pretraining_that_was_stopped_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"frozen": False, "optimizer": "adamw", "learning_rate": 1e-3}
    whole = train(name, tmp_path / "whole", **options).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(name, tmp_path / "parts", chips=Series(stop=1), **options)
    assert len(rows(tmp_path / "parts")) == 1
    parts = train(name, tmp_path / "parts", seed=5, **options).state_dict()  # all but the seed is in the checkpoint
    assert list(parts) == list(whole)
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    start = objective_of(recipe_of(name), frozen=False).state_dict()
    assert not torch.equal(start["encoder.backbone." + _first(start)], whole["encoder.backbone." + _first(start)])


def _first(state: dict[str, Tensor]) -> str:
    """The name of a weight of the backbone."""
    names = [name.removeprefix("encoder.backbone.") for name in state if name.startswith("encoder.backbone.")]
    return next(name for name in names if name.endswith("weight"))


@pytest.mark.parametrize("name", [*METHODS, "earth-shared", "seco-moco", "seco-moco_tp"])
def test_every_weight_that_learns_has_a_gradient_whatever_clouds_leave(name: str) -> None:
    """Other processes wait for it; batch 0 is clear, of 1 two chips are left, and of 2 one, which is none."""
    objective = objective_of(recipe_of(name), frozen=False)
    for number in range(3):
        objective.zero_grad()
        step(objective, number)
        missing = [key for key, weight in objective.named_parameters() if weight.requires_grad and weight.grad is None]
        assert missing == []


@pytest.mark.parametrize(("gpus", "dealt"), [(False, True), (True, False)])
def test_keys_are_encoded_apart_where_batch_norms_see_a_part_alone(
    gpus: bool, dealt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    objective = objective_of(recipe_of("seco"), frozen=False)
    assert isinstance(objective, SeasonalContrast)
    for rank, expected in ((Rank(of=2), dealt), (Rank(), False)):
        with synchronized(objective, Processes(rank)):
            assert isinstance(objective.apart, Shuffled) == expected
            assert (objective.compared is as_it_is) == (rank.of == 1)
            assert objective.eval().compared is as_it_is
            objective.train()
        assert objective.apart is here
        assert objective.gathered is as_it_is


@pytest.mark.parametrize(
    ("variant", "gpus", "of", "norms"),
    [("paper", True, 2, 3), ("fixed", True, 2, 0), ("paper", True, 1, 0), ("paper", False, 2, 0)],
)
def test_the_keys_of_all_gpus_are_normalized_together_as_the_queries_are(
    variant: Variant, gpus: bool, of: int, norms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    recipe = recipe_of("earth")
    objective = objective_of(
        replace(recipe, backbone=replace(recipe.backbone, name="unet2d_clstm", variant=variant)), frozen=False
    )
    assert isinstance(objective, EmbeddingEarth)
    for network in (objective.encoder, objective.key_encoder):
        assert network is not None
        with synchronized(objective, Processes(Rank(of=of))):
            found = [module for module in network.modules() if isinstance(module, StepBatchNorm)]
            assert len(found) == 3
            assert sum(norm.summed is not None for norm in found) == norms
        assert all(norm.summed is None for norm in found)


def test_a_checkpoint_of_a_pretraining_holds_its_weights_once(tmp_path: Path) -> None:
    objective = train("seco", tmp_path)
    found = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    (kept,) = found["callbacks"].values()
    assert kept["best_tensors"] == {}
    assert kept["best_epoch"] == 1
    assert {f"objective.{name}" for name in objective.state_dict()} == found["state_dict"].keys()


# --- Two processes --------------------------------------------------------------------------------------------------


def pretrain_by_two(folder: Path, *cases: str) -> Path:
    """Cases trained by two processes, whose parts of a batch have other numbers of chips, and sometimes none."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*run, "-m", "tests.models.pretraining", str(folder), *cases],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        timeout=PATIENCE_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All but the quick case."""
    others = (name for name in CASES if name != QUICK)
    return pretrain_by_two(tmp_path_factory.mktemp("shared"), *others, "moving-seco", "resumed-seco")


def weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = (torch.load(folder / f"weights-{k}.pt", weights_only=True) for k in (0, 1))
    return first, second


def assert_as_one(name: str, folder: Path, alone: Path) -> None:
    """Both processes have the weights and the losses that one has, which trains in `alone`."""
    one = train(name, alone, chips=Series(validated=0)).state_dict()
    first, second = weights(folder)
    start = objective_of(recipe_of(name)).state_dict()
    assert list(one) == list(first)
    assert max(float((one[key].float() - start[key].float()).abs().max()) for key in start) > 1e-3
    for key, tensor in one.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    losses = [[float(row["train_loss"]) for row in rows(one)] for one in (folder, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_two_processes_pretrain_as_one(tmp_path: Path) -> None:
    assert_as_one(QUICK, pretrain_by_two(tmp_path, QUICK) / QUICK, tmp_path / "alone")


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("name", [name for name in CASES if name != QUICK])
def test_two_processes_pretrain_as_one_by_each_method_whatever_clouds_leave_of_their_parts(
    shared: Path, tmp_path: Path, name: str
) -> None:
    assert_as_one(name, shared / name, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_where_batch_norms_see_a_part_both_processes_still_end_alike(shared: Path) -> None:
    first, second = weights(shared / "moving-seco")
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_two_processes_that_begin_anew_end_with_the_same_bits(shared: Path) -> None:
    whole, resumed = (weights(shared / name)[0] for name in ("moving-seco", "resumed-seco"))
    assert int(whole["queues.0.pointer"]) > 0
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []


# --- What comes of it ------------------------------------------------------------------------------------------------


def weights_of(recipe: Recipe, folder: Path, *, dates: int) -> dict[str, Tensor]:
    """Weights with a card, as a run leaves them, drawn and not learnt."""
    torch.manual_seed(1)
    objective = build_objective(recipe, bands=BANDS, dates=dates, classes=0, mean=(3000.0,) * 4, std=(1000.0,) * 4)
    card = Card(
        recipe=recipe,
        bands=BANDS,
        dates=recipe.dates_of(dates),
        classes=(),
        radiometry={},
        mean=(3000.0,) * 4,
        std=(1000.0,) * 4,
    )
    save_weights(folder, objective, card)
    return objective.state_dict()


@pytest.mark.parametrize(
    ("pretrained", "finetuned", "new"),
    [
        ("embedding-earth-laptop", "utae-laptop", ("head.",)),
        ("glcnet-laptop", "deeplab-laptop", ("head.", "encoder.backbone.decoder.")),
        ("simclr-laptop", "resnet-laptop", ("head.",)),
        ("seco-laptop", "resnet-laptop", ("head.",)),
    ],
)
def test_a_finetuning_starts_from_the_encoder_alone(
    pretrained: str, finetuned: str, new: tuple[str, ...], tmp_path: Path
) -> None:
    theirs = weights_of(load_recipe(pretrained), tmp_path, dates=24)
    recipe = load_recipe(finetuned)
    dates = recipe.data.dates.n or 24
    ours = build_objective(recipe, bands=BANDS, dates=dates, classes=5, mean=(0.0,) * 4, std=(1.0,) * 4)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    report = transfer(ours, tmp_path)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name] if name.startswith(new) else theirs[name]), name
    assert all(name.startswith("encoder.") for name in report.loaded)
    assert all(name in before or name not in report.loaded for name in report.left_out)


@pytest.mark.parametrize("name", ["earth", "seco"])
def test_what_follows_the_encoder_starts_with_it(name: str, tmp_path: Path) -> None:
    theirs = weights_of(recipe_of(name), tmp_path, dates=DATES)
    objective = objective_of(recipe_of(name), frozen=False)
    transfer(objective, tmp_path)
    found = objective.state_dict()
    for key in [key for key in theirs if key.startswith("encoder.")]:
        assert torch.equal(found[key], theirs[key]), key
        assert torch.equal(found[f"key_{key}"], theirs[key]), key
    assert not any(
        torch.equal(found[key], theirs[key]) for key in theirs if key.startswith("heads.") and "weight" in key
    )
