"""`sits-model pretrain` without labels on a small simulated cube: what it reads and writes, and what starts there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from tests.models.commands import assert_refused, sits_model
from tests.models.pretraining import SECTIONS
from tests.models.zoo.made import wishes
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import hash_tensors, load_model, read_card
from sits_models.recipe import (
    BackboneRecipe,
    DataRecipe,
    DateSubset,
    Geometry,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
    dump_recipe,
)
from sits_models.tasks.finetune import finetune
from sits_models.tasks.pretrain import pretrain
from sits_models.zoo.complete import verify
from sits_models.zoo.push import push

_VIEW = Geometry(sides=(36,), scale=(0.4, 1.0))
BACKBONES = {"earth": "unet3df", "glcnet": "deeplab_resnet18"}


def recipe_of(method: str, *, transductive: bool = False, **training: object) -> Recipe:
    """Small; each date of the cube is clear enough."""
    ((name, section),) = SECTIONS[method].items()
    if method == "earth":
        section = replace(section, dates=DateSubset(), geometry=Geometry(sides=(16,)))
    else:
        clear = {"clear": 0.0} if method == "seco" else {"dates": replace(section.dates, clear=0.0)}
        keys = ("first", "second") if hasattr(section, "first") else ("geometry",)
        section = replace(section, **clear, **dict.fromkeys(keys, _VIEW))
    changes: dict[str, object] = {"epochs": 1, "schedule": "constant", "learning_rate": 1e-3, **training}
    return Recipe(
        name="tiny",
        data=DataRecipe(size=36, batch=3, chips=6, readers=1, transductive=transductive),
        backbone=BackboneRecipe(name=BACKBONES.get(method, "resnet18"), width=0.0625),
        training=TrainingRecipe(**changes),  # type: ignore[arg-type]
        **{name: section},
    )


def run(recipe: Recipe, cube: Path, out: Path) -> dict[str, str]:
    """The hashes of what it learnt."""
    with Narrator() as narrator:
        outcome = pretrain(recipe, cubes=[str(cube)], out=str(out), narrator=narrator)
    assert outcome.simulated
    return hash_tensors(load_model(out).objective.state_dict())


@pytest.fixture(scope="module")
def poisoned(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset, but for the pixels of the splits that are not learnt from."""
    path = tmp_path_factory.mktemp("poisoned") / "tiny"
    shutil.copytree(synthetic.folder.path, path)
    cube = zarr.open_group(path / "cube.zarr", mode="r+")
    split, image = np.asarray(cube["split"]), np.asarray(cube["reflectance"])
    assert (split != Split.TRAIN).any()
    image[:, :, split != Split.TRAIN] = 9_999
    cube["reflectance"][:] = image  # type: ignore[index]  # it is an array
    return path


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("earth", marks=pytest.mark.soak), "seco"])
def test_pixels_of_other_splits_are_learnt_from_only_where_that_is_asked_for(
    method: str, synthetic: Synthetic, poisoned: Path, tmp_path: Path
) -> None:
    plain = Path(synthetic.folder.path)
    expected = run(recipe_of(method), plain, tmp_path / "plain")
    assert run(recipe_of(method), poisoned, tmp_path / "poisoned") == expected
    if method == "seco":
        every = [
            run(recipe_of(method, transductive=True), cube, tmp_path / f"all-{cube.parent.name}")
            for cube in (plain, poisoned)
        ]
        assert every[0] != every[1]


def test_the_command_learns_from_all_ground_where_it_is_told_to_and_the_card_says_so(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_recipe(recipe_of("simclr")))
    cube = Path(synthetic.folder.path)
    ours = ("pretrain", "--recipe", tmp_path / "tiny.yaml", "--cube", cube)
    ended = sits_model(*ours, "--transductive", "--out", tmp_path / "all")
    assert ended.code == 0, ended.stderr
    assert read_card(tmp_path / "all").recipe.data.transductive
    assert "all splits" in sits_model("zoo", "info", tmp_path / "all").stdout
    assert_refused(sits_model(*ours, "--out", tmp_path / "all"), "data.transductive is True there, False here")
    labelled = sits_model("pretrain", "--recipe", "cscl-demo", "--transductive", "--out", tmp_path / "cscl")
    assert_refused(labelled, "data.transductive learns from the ground of all splits", "leave it out for a contrast")


_SLOW = ("earth", "glcnet")


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow if name in _SLOW else pytest.mark.soak) for name in SECTIONS],
)
def test_weights_of_each_method_can_be_shared_and_started_from(
    method: str, synthetic: Synthetic, tmp_path: Path
) -> None:
    cube = Path(synthetic.folder.path)
    run(recipe_of(method), cube, tmp_path / "run")
    pushed = push(str(tmp_path / "run"), wishes(), registry=str(tmp_path / "zoo"))
    assert verify(Path(pushed.place)) == ()
    assert pushed.entry.objective == read_card(tmp_path / "run").recipe.objective
    assert "finetune --weights tiny" in (Path(pushed.place) / "README.md").read_text()
    if method not in BACKBONES:  # a ResNet, which the others share
        return
    started = replace(
        recipe_of(method), **dict.fromkeys(SECTIONS[method]), segmentation=SegmentationRecipe(), name="started"
    )
    if method == "glcnet":
        started = replace(started, data=replace(started.data, dates=replace(started.data.dates, pick="even", n=1)))
    with Narrator() as narrator:
        outcome = finetune(
            started, cubes=[str(cube)], weights=pushed.place, out=str(tmp_path / "started"), narrator=narrator
        )
    assert outcome.loaded is not None
    assert outcome.loaded.whole
    assert len(outcome.loaded.loaded) > 10
    if method == "glcnet":  # whose decoder is new
        probed, out = replace(started, training=replace(started.training, probe=True)), str(tmp_path / "probed")
        with (
            Narrator() as narrator,
            pytest.raises(ValueError, match=r"decoder of a DeepLabV3\+ is not among .* glcnet"),
        ):
            finetune(probed, cubes=[str(cube)], weights=pushed.place, out=out, narrator=narrator)


@pytest.mark.slow
def test_the_command_takes_up_the_encoder_of_other_weights_and_the_keys_follow_at_once(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    recipe, cube = recipe_of("seco"), Path(synthetic.folder.path)
    run(recipe, cube, tmp_path / "first")
    start = load_model(tmp_path / "first").objective.state_dict()
    still = replace(recipe, training=replace(recipe.training, learning_rate=1e-30, seed=1))
    (tmp_path / "still.yaml").write_text(dump_recipe(still))
    further = ("pretrain", "--recipe", tmp_path / "still.yaml", "--cube", cube, "--out", tmp_path / "further")
    ended = sits_model(*further, "--weights", tmp_path / "first")
    assert ended.code == 0, ended.stderr
    assert "started from weights" in ended.stdout
    found, card = load_model(tmp_path / "further").objective.state_dict(), read_card(tmp_path / "further")
    assert card.parent == read_card(tmp_path / "first").sha256
    learnt = [name for name in start if name.startswith("encoder.") and name.endswith("weight")]
    assert len(learnt) > 10
    for name in learnt:
        assert torch.equal(found[name], start[name]), name
        assert torch.allclose(found[f"key_{name}"], start[name], atol=1e-6), name
    assert not torch.equal(found["heads.0.0.weight"], start["heads.0.0.weight"])
    assert_refused(sits_model(*further), "holds a run with other weights to start from")


@pytest.mark.soak  # processes that start
def test_readers_that_are_processes_give_the_same_bits_as_threads(synthetic: Synthetic, tmp_path: Path) -> None:
    recipe, cube = recipe_of("seco"), Path(synthetic.folder.path)
    found = [
        run(replace(recipe, data=replace(recipe.data, start=start)), cube, tmp_path / start)
        for start in ("threads", "forkserver")
    ]
    assert found[0] == found[1]
