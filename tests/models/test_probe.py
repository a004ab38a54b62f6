"""A linear probe: the head learns on an encoder that stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models import probing, sharing
from tests.models.test_change import Pairs, change_of
from tests.models.test_change import objective_of as change_objective_of
from tests.models.test_multilabel import LabelledChips, multilabel_of
from tests.models.training import Chips, objective_of, recipe_of, sample_of
from torch import Tensor, nn

from sits_catalog.console import Narrator
from sits_models.engine import CHECKPOINT, Fitted, Processes, fit
from sits_models.engine.steps import Steps
from sits_models.objectives import Objective
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    Recipe,
    TransformerRecipe,
    load_recipe,
    recipe_from_plain,
    recipe_to_plain,
)
from sits_models.sample import Sample

SMALL = TransformerRecipe(temporal_depth=1, spatial_depth=1, heads=2, head_channels=8, dropout=0.5)


class Stops(Chips):
    """Ends the process, as a signal would, within the second epoch."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch, sample in enumerate(super().epoch(number, seed=seed, pin=pin)):
            if (number, batch) == (1, 1):
                raise KeyboardInterrupt
            yield sample


def probe_of(backbone: str = "unet3df", **training: object) -> Recipe:
    recipe = recipe_of(probe=True, learning_rate=5e-2, **training)
    if backbone.startswith("tsvit"):
        return replace(recipe, backbone=BackboneRecipe(name=backbone, width=0.25, transformer=SMALL))
    return replace(recipe, backbone=BackboneRecipe(name=backbone, width=0.0625))


def built_of(recipe: Recipe, *, seed: int = 0) -> Objective:
    return objective_of(recipe, seed=seed) if recipe.change is None else change_objective_of(recipe)


def train(recipe: Recipe, folder: Path, *, chips: Chips | None = None, seed: int = 0) -> tuple[Objective, Fitted]:
    objective = built_of(recipe, seed=seed)
    with Narrator() as narrator:
        return objective, fit(objective, chips or Chips(), recipe, folder=folder, narrator=narrator)


def tensors_of(objective: Objective) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def moved(objective: Objective, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in objective.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("backbone", ["unet3df", "unet2d_clstm"])
def test_every_tensor_of_the_encoder_and_every_running_statistic_stays_to_the_bit(
    tmp_path: Path, backbone: str
) -> None:
    recipe = probe_of(backbone)
    before = tensors_of(objective_of(recipe))
    objective, _ = train(recipe, tmp_path)
    changed = moved(objective, before)
    assert changed
    assert all(name.startswith("head.") for name in changed)
    # Without `probe` all of these move.
    free, _ = train(replace(recipe, training=replace(recipe.training, probe=False)), tmp_path / "free")
    assert {name for name in moved(free, before) if name.endswith("running_mean")}


def test_a_probe_of_chips_and_of_changes_leaves_the_encoder_too(tmp_path: Path) -> None:
    probe = {"probe": True, "learning_rate": 5e-2}
    cases: list[tuple[Recipe, Chips, str]] = [
        (replace(recipe_of(**probe), segmentation=None, classification=ClassificationRecipe()), Chips(), "head."),
        (multilabel_of(**probe), LabelledChips(), "head."),
        (change_of(**probe), Pairs(), "decoder."),
    ]
    for number, (recipe, chips, part) in enumerate(cases):
        before = tensors_of(built_of(recipe))
        objective, _ = train(recipe, tmp_path / str(number), chips=chips)
        changed = moved(objective, before)
        assert changed
        assert all(name.startswith(part) for name in changed)


@pytest.mark.parametrize("backbone", ["tsvit", "unet3d"])
def test_where_the_backbone_ends_in_logits_what_belongs_to_them_learns(tmp_path: Path, backbone: str) -> None:
    recipe = probe_of(backbone)
    before = tensors_of(objective_of(recipe))
    objective, _ = train(recipe, tmp_path)
    of_task = tuple(f"encoder.backbone.{name}" for name in objective.encoder.backbone.of_task)
    changed = moved(objective, before)
    assert changed
    assert all(name.startswith(of_task) for name in changed)


def test_whoever_sets_the_modes_the_encoder_stays_in_evaluation_mode() -> None:
    recipe = probe_of("tsvit")
    objective = objective_of(recipe)
    steps = Steps(objective, recipe, Processes())
    for module in (steps, steps.eval(), steps.train()):
        assert not any(part.training for part in module.objective.encoder.modules())
    assert steps.objective.training
    sample = sample_of(0)
    # Its dropout is off: the same embedding, whatever is drawn.
    assert torch.equal(objective.encoder(sample), objective.encoder(sample))
    free = Steps(objective_of(recipe_of()), recipe_of(), Processes()).train()
    assert all(part.training for part in free.objective.encoder.modules())


def test_the_head_keeps_its_own_dropout_and_batch_norms() -> None:
    recipe = multilabel_of(probe=True)
    steps = Steps(objective_of(recipe), recipe, Processes()).train()
    assert [part.training for part in steps.objective.modules() if isinstance(part, nn.Dropout)] == [True]
    change = change_of(probe=True)
    decoder = Steps(change_objective_of(change), change, Processes()).train().objective.decoder
    assert isinstance(decoder, nn.Module)
    assert all(part.training for part in decoder.modules())


def test_the_optimizer_holds_what_learns_alone(tmp_path: Path) -> None:
    objective, _ = train(probe_of(epochs=1, optimizer="adamw", weight_decay=0.5), tmp_path)
    (group,) = torch.load(tmp_path / CHECKPOINT, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert len(group["params"]) == len([*objective.get_submodule("head").parameters()])


def test_a_probe_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, _ = train(probe_of(epochs=3), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(probe_of(epochs=3), tmp_path / "parts", chips=Stops())
    parts, _ = train(probe_of(epochs=3), tmp_path / "parts", seed=7)
    assert not moved(parts, tensors_of(whole))


def test_the_recipe_and_the_card_keep_it() -> None:
    recipe = probe_of()
    kept = json.loads(json.dumps(recipe_to_plain(recipe)))
    assert recipe_from_plain(kept, name="card").training.probe
    with pytest.raises(ValueError, match=r"training\.probe leaves the encoder as it is, which contrast is to train"):
        load_recipe("cscl-demo", changes=["training.probe=true"])


def test_where_nothing_is_left_to_learn_a_probe_is_refused() -> None:
    recipe = probe_of("tsvit")
    objective = objective_of(recipe)
    objective.encoder.backbone.of_task = ()
    with pytest.raises(ValueError, match=r"a TSViT has no head besides: set training\.probe=false"):
        Steps(objective, recipe, Processes())


@pytest.mark.soak
def test_two_processes_probe_as_one_does_and_rank_all_chips(tmp_path: Path) -> None:
    one, score = probing.train(tmp_path / "one", Processes())
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, "-m", "tests.models.probing", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        timeout=900,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    start = tensors_of(sharing.objective_of(probing.probe_of(), frozen=False))
    for number in range(2):
        tensors, found = torch.load(tmp_path / f"found-{number}.pt", weights_only=True)
        assert found == pytest.approx(score, abs=1e-12)
        for name, tensor in one.state_dict().items():
            if name.startswith("encoder."):
                assert torch.equal(tensors[name], start[name]), name
            else:
                assert not torch.equal(tensors[name], start[name])
                torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=1e-5)
