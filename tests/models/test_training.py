"""A run on a small cube: what is written when, what a kill leaves behind, and what weights to start from overrule."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models import folder as folders
from sits_models.checkpoints import hash_tensors, load_model, read_card
from sits_models.data.cubes import open_cube
from sits_models.data.loader import TrainingData
from sits_models.device import Rank
from sits_models.engine import CHECKPOINT
from sits_models.objectives import Classification
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
)
from sits_models.tasks import training, training_preparation
from sits_models.tasks.run_folder import begin_run, threads_of
from sits_models.tasks.training import TrainingOutcome, train


def recipe_of(*, contrast: bool = False, **training: object) -> Recipe:
    return Recipe(
        name="tiny",
        data=DataRecipe(dates=DateRule(pick="even", n=4), size=32, batch=4, chips=8, readers=1),
        backbone=BackboneRecipe(name="unet3df", width=0.0625),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast else SegmentationRecipe(),
        training=TrainingRecipe(**{"epochs": 1, "schedule": "constant", **training}),  # type: ignore[arg-type]
    )


def run(recipe: Recipe, synthetic: Synthetic, out: Path, *, weights: Path | None = None) -> TrainingOutcome:
    with Narrator() as narrator:
        return train(
            recipe,
            cubes=[str(synthetic.folder.path)],
            weights=None if weights is None else str(weights),
            out=str(out),
            narrator=narrator,
        )


def hashes(out: Path) -> dict[str, str]:
    return hash_tensors(load_model(out).objective.state_dict())


def with_data(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, data=replace(recipe.data, **changes))  # type: ignore[arg-type]


class Killed(BaseException):
    """The end of the process."""


def killing(at: int) -> tuple[Callable[[Path], None], list[Path]]:
    """A sync that ends the process the `at`-th time, and what it has seen."""
    sync, seen = folders.sync, list[Path]()

    def killed(path: Path) -> None:
        seen.append(path)
        if len(seen) == at:
            raise Killed
        sync(path)

    return killed, seen


@pytest.mark.slow
def test_the_same_command_goes_on_wherever_it_was_killed_while_writing(synthetic: Synthetic, tmp_path: Path) -> None:
    watch, seen = killing(at=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "sync", watch)
        run(recipe_of(), synthetic, tmp_path / "whole")
    names = [path.name.removesuffix(".partial") for path in seen if path.is_file() or path.suffix == ".partial"]
    assert names[:3] == ["recipe.yaml", "data.json", "environment.json"]
    assert names[-1] == "metrics.json"
    assert {"last.ckpt", "metrics.csv", "weights.safetensors", "card.json"} <= set(names)
    # One run that is killed at each of them, one after the other: before the file has its name, and after.
    out, at, kills, resumed = tmp_path / "killed", 1, 0, False
    while True:
        killer, _ = killing(at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folders, "sync", killer)
            patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # a dead process tidies nothing
            try:
                outcome = run(recipe_of(), synthetic, out)
            except Killed:
                kills += 1
                # With a checkpoint there is less to write, and each of that once more.
                at = 1 if not resumed and (out / CHECKPOINT).exists() else at + 1
                resumed = (out / CHECKPOINT).exists()
                continue
        break
    assert kills >= len(seen)
    assert outcome.epochs == 1
    assert hashes(out) == hashes(tmp_path / "whole")
    assert not list(out.rglob("*.partial"))
    assert run(recipe_of(), synthetic, out).finished_before


@pytest.mark.slow
@pytest.mark.parametrize(("left", "goes_on"), [("recipe.yaml.partial", True), ("data.json", True), ("a.txt", False)])
def test_what_a_killed_start_left_is_known_and_a_stranger_is_not(
    synthetic: Synthetic, tmp_path: Path, left: str, goes_on: bool
) -> None:
    (tmp_path / left).write_text("{")
    if goes_on:
        assert run(recipe_of(), synthetic, tmp_path).epochs == 1
        assert not list(tmp_path.rglob("*.partial"))
        return
    with pytest.raises(FileExistsError, match=r"holds a\.txt and no run; choose another --out"):
        run(recipe_of(), synthetic, tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 50}, "data.size is 50 .*UNet3Df takes chips of at least .* multiples of 4; got 50 x 50"),
        ({"size": 500}, "no window of 500 px lies in train"),
        ({"dates": DateRule(pick="first", n=3)}, "multiple of 4"),
        ({"bands": ("B02", "B99")}, "has no band B99"),
    ],
)
def test_nothing_is_written_for_chips_that_cannot_be_had(
    synthetic: Synthetic, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        run(with_data(recipe_of(), **changes), synthetic, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_for_a_precision_that_the_machine_lacks(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="bf16 needs a GPU"):
        run(recipe_of(precision="bf16"), synthetic, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def middle_of(backbone: str = "unet3df", **changes: object) -> Recipe:
    recipe = with_data(recipe_of(), background=False, size=32, chips=None, batch=8, **changes)
    return replace(
        recipe,
        segmentation=None,
        classification=ClassificationRecipe(weights="inverse_frequency"),
        data=replace(recipe.data, sampling="middle"),
        backbone=replace(recipe.backbone, name=backbone),
    )


@pytest.mark.slow
def test_classes_of_parcels_weigh_by_how_many_are_drawn_and_those_left_out_are_told(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    units: list[str] = []
    monkeypatch.setattr(training, "write_confusion", lambda *_, unit, **__: units.append(unit))
    built: list[Classification] = []
    monkeypatch.setattr(training_preparation, "check_chips", lambda _, objective, *__: built.append(objective))
    run(middle_of(), synthetic, tmp_path / "run")
    with TrainingData.open(middle_of().data, cubes=[str(synthetic.folder.path)]) as data:
        (drawn, left_out), counts, pixels = data.parcels_in_epoch, data.train_parcels(), data.train_pixels()
    assert left_out > 0
    assert built[0].class_weights is not None
    assert built[0].class_weights.tolist() == pytest.approx([drawn / 3 / n for n in counts.tolist()])
    assert built[0].class_weights.tolist() != pytest.approx([pixels.sum() / 3 / n for n in pixels.tolist()], rel=1e-3)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["parcels"] == {
        "drawn": drawn,
        "left_out": left_out,
    }
    said = f"{drawn} parcels of the train split are drawn; {left_out} are left out, whose chip of 32 px would touch"
    assert said in capfd.readouterr().err
    assert units == ["parcel"]


@pytest.mark.parametrize(
    ("backbone", "size", "batch", "of", "says"),
    [
        ("deeplab_resnet18", 48, 1, 1, r"DeepLabResNet18 need 2 chips of 48 px .*; got a batch of 1: set .*=2 or more"),
        ("resnet18", 32, 3, 2, r"ResNet18 need 2 .* of 3 that 2 processes share, at least 1 each: set data\.batch=4"),
        ("resnet18", 33, 3, 2, None),
        ("unet3df", 32, 3, 2, None),
    ],
)
def test_a_part_of_a_batch_that_batch_norms_cannot_take_is_refused_before_anything_is_written(
    synthetic: Synthetic,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    size: int,
    batch: int,
    of: int,
    says: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    n = 4 if backbone == "unet3df" else 1
    side = size if backbone != "unet3df" else 32
    recipe = with_data(recipe_of(), size=side, batch=batch, chips=batch, dates=DateRule(pick="even", n=n))
    recipe = replace(recipe, backbone=replace(recipe.backbone, name=backbone))
    with ExitStack() as held:
        path = str(synthetic.folder.path)

        def prepare() -> None:
            training.prepare(recipe, [path], None, rank=Rank(of=of), say=lambda _: None, held=held)

        if says is None:
            prepare()
            return
        with pytest.raises(ValueError, match=says):
            prepare()


class Stopped(Exception):  # noqa: N818  # not an error
    """Where a test ends a training."""


@pytest.mark.slow
def test_a_run_goes_on_with_the_threads_it_began_with(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    stage = Narrator.stage

    def watched(self: Narrator, text: str) -> None:
        if text.startswith("epoch"):
            seen.append(torch.get_num_threads())
            if text.startswith("epoch 2") and len(seen) == 2:
                raise Stopped
        stage(self, text)

    monkeypatch.setattr(Narrator, "stage", watched)
    with pytest.raises(Stopped):
        run(recipe_of(epochs=2), synthetic, tmp_path)
    first = (tmp_path / "environment.json").read_bytes()
    assert json.loads(first)["threads"] == 1
    torch.set_num_threads(2)  # as another machine would; a fixture sets it back
    run(recipe_of(epochs=2), synthetic, tmp_path)
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 2
    assert (tmp_path / "environment.json").read_bytes() == first


@pytest.mark.slow
def test_weights_bring_their_normalization_and_that_is_said(
    synthetic: Synthetic, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    published = with_data(recipe_of(contrast=True), normalize="reflectance")
    run(published, synthetic, tmp_path / "pretrained")
    capfd.readouterr()
    outcome = run(recipe_of(), synthetic, tmp_path / "run", weights=tmp_path / "pretrained")
    said = "normalizing by reflectance, as the weights it starts from, not by statistics as the recipe"
    assert outcome.notes == (said,)
    assert said in capfd.readouterr().err
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    assert described["statistics"] == {"mean": [0.0] * 4, "std": [10000.0] * 4}
    again = run(recipe_of(), synthetic, tmp_path / "run", weights=tmp_path / "pretrained")
    assert again.finished_before
    assert again.notes == (said,)
    assert read_card(tmp_path / "run").std == (10000.0,) * 4
    assert read_card(tmp_path / "run").recipe.data.normalize == "reflectance"
    run(recipe_of(), synthetic, tmp_path / "alone")
    assert json.loads((tmp_path / "alone" / "data.json").read_text())["statistics"]["std"] != [10000.0] * 4


def test_a_run_without_validation_has_no_score_and_no_confusion(synthetic: Synthetic, tmp_path: Path) -> None:
    outcome = run(recipe_of(validate_every=None), synthetic, tmp_path)
    assert outcome.best_epoch == outcome.epochs
    assert not any(name.startswith("validation") for name in outcome.metrics)
    assert "validation" not in (tmp_path / "metrics.csv").read_text()
    assert not (tmp_path / "confusion.png").exists()
    assert (tmp_path / "curves.png").is_file()
    assert not any(name.startswith("validation") for name in read_card(tmp_path).metrics)


def test_the_cube_of_a_run_is_described_by_its_grid(synthetic: Synthetic, tmp_path: Path) -> None:
    run(recipe_of(), synthetic, tmp_path)
    (cube,) = json.loads((tmp_path / "data.json").read_text())["cubes"]
    table = open_cube(str(synthetic.folder.path)).chips(["kind", "split"])
    counts = table[table["kind"] == "grid"]["split"].value_counts().to_dict()
    assert cube["chips"] == {name: n for name, n in counts.items() if name in {split.name.lower() for split in Split}}
    assert len(cube["split_sha256"]) == 64
    assert read_card(tmp_path).data["cubes"] == [{**cube, "path": None}]


def test_a_run_that_other_processes_take_up_says_since_when(tmp_path: Path) -> None:
    def environment() -> dict[str, object]:
        found: dict[str, object] = json.loads((tmp_path / "environment.json").read_text())
        return found

    begin_run(tmp_path, recipe_of(), {}, rank=Rank(), devices=["cpu"])
    first = environment()
    assert (first["processes"], first["backend"], first["devices"]) == (1, None, ["cpu"])
    (tmp_path / CHECKPOINT).parent.mkdir()
    (tmp_path / CHECKPOINT).touch()
    (tmp_path / "metrics.csv").write_text("epoch\n0\n1\n")
    begin_run(tmp_path, recipe_of(), {}, rank=Rank(), devices=["cpu"])
    assert environment() == first
    for _ in range(2):
        begin_run(tmp_path, recipe_of(), {}, rank=Rank(of=2), devices=["cpu", "cpu"])
        (since,) = environment()["resumed"]  # type: ignore[misc, attr-defined]
        assert (since["after_epochs"], since["processes"], since["devices"]) == (2, 2, ["cpu", "cpu"])
    assert since["threads"] == torch.get_num_threads()
    begin_run(tmp_path, recipe_of(), {}, rank=Rank(), devices=["cpu"])
    assert [since["processes"] for since in environment()["resumed"]] == [2, 1]  # type: ignore[attr-defined]


def test_other_processes_than_those_that_began_a_run_keep_their_own_threads(tmp_path: Path) -> None:
    torch.set_num_threads(3)  # a fixture sets it back
    begin_run(tmp_path, recipe_of(), {}, rank=Rank(), devices=["cpu"])
    (tmp_path / CHECKPOINT).parent.mkdir()
    (tmp_path / CHECKPOINT).touch()
    for threads in (1, 2):  # the second time they go on as they began
        torch.set_num_threads(threads)
        begin_run(tmp_path, recipe_of(), {}, rank=Rank(of=4), devices=["cpu"] * 4)
        with threads_of(tmp_path):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == threads
