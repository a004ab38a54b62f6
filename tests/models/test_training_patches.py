"""Runs on patch sets: pretraining with and without real places, finetuning, and what is refused before anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch
from tests.models.commands import assert_refused, sits_model
from tests.models.data.patch_folders import write_eurosat, write_seco
from tests.models.patches import Fields, write_fields
from tests.pipeline.importers.made_up import Silent
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.locations import Location
from sits_catalog.region import Imagery, Season
from sits_models.checkpoints import hash_tensors, load_model, read_card
from sits_models.data.patch_data import PatchData
from sits_models.recipe import (
    BackboneRecipe,
    ChangeRecipe,
    ClassificationRecipe,
    DataRecipe,
    DateRule,
    FewLabels,
    Geometry,
    GLCNetRecipe,
    MultiLabelRecipe,
    Recipe,
    SeCoRecipe,
    SegmentationRecipe,
    TrainingRecipe,
)
from sits_models.recipe.views import SingleDates
from sits_models.sample import Sample
from sits_models.tasks.training import TrainingOutcome, train
from sits_pipeline.config import BuildConfig
from sits_pipeline.patches import PatchRule, PatchSet, build_locations

VISIBLE = ("B02", "B03", "B04")
WHOLE = Geometry(sides=(32,), scale=(0.5, 1.0), flips=(0.0, 0.0, 0.0), turns=0.0)
ONCE = TrainingRecipe(epochs=1, schedule="constant", learning_rate=1e-3)


def seco_of(**training: object) -> Recipe:
    return Recipe(
        name="tiny-seco",
        data=DataRecipe(size=36, batch=2, chips=4, normalize="reflectance"),
        backbone=BackboneRecipe(name="resnet18", width=0.125),
        seco=SeCoRecipe(queue=8, geometry=WHOLE),
        training=replace(ONCE, **training),  # type: ignore[arg-type]
    )


def glcnet_of() -> Recipe:
    return Recipe(
        name="tiny-glcnet",
        data=DataRecipe(size=36, batch=2, chips=4),
        backbone=BackboneRecipe(name="deeplab_resnet18", width=0.125),
        glcnet=GLCNetRecipe(regions=2, region=8, channels=8, dates=SingleDates(n=1), first=WHOLE, second=WHOLE),
        training=ONCE,
    )


def segmentation_of(**data: object) -> Recipe:
    return Recipe(
        name="tiny-segment",
        data=DataRecipe(**{"size": 16, "batch": 4, "chips": 8, **data}),  # type: ignore[arg-type]
        backbone=BackboneRecipe(name="unet3df", width=0.0625),
        segmentation=SegmentationRecipe(weights="inverse_frequency"),
        training=ONCE,
    )


def classes_of() -> Recipe:
    return Recipe(
        name="tiny-classes",
        data=DataRecipe(layout="eurosat", size=64, batch=4, chips=4, normalize="reflectance"),
        backbone=BackboneRecipe(name="resnet18", width=0.125),
        classification=ClassificationRecipe(),
        training=ONCE,
    )


def eurosat(root: Path) -> Path:
    return write_eurosat(root, {"AnnualCrop": 6, "Forest": 6}, suffix=".jpg")


def run(recipe: Recipe, out: Path, *sets: str, weights: Path | None = None) -> TrainingOutcome:
    start = None if weights is None else str(weights)
    with Narrator() as narrator:
        return train(recipe, cubes=sets, weights=start, out=str(out), narrator=narrator)


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_fields(tmp_path_factory.mktemp("fields"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Larger patches, all without a split, as location sets are."""
    original = Fields(splits=("none",) * 4, side=40, id="places", bands=VISIBLE)
    return write_fields(tmp_path_factory.mktemp("places"), original)


# Without labels


@pytest.mark.slow
def test_seco_pretrains_on_a_set_without_splits_and_says_what_it_learnt_from(places: str, tmp_path: Path) -> None:
    outcome = run(seco_of(), tmp_path / "run", places)
    assert outcome.metrics["train_loss"] > 0
    (said,) = json.loads((tmp_path / "run/data.json").read_text())["cubes"]
    assert (said["path"], said["region"], said["layout"]) == (places, "places", "cube")
    assert said["patches"] == {"train": 4}
    assert (said["complete"], said["simulated"]) == (True, False)
    card = read_card(tmp_path / "run")
    assert card.data["cubes"] == [{**said, "path": None}]
    assert (card.bands, card.classes, card.radiometry["level"]) == (VISIBLE, (), "L2A")


@pytest.mark.slow
def test_glcnet_pretrains_on_patches_normalised_by_their_pixels(places: str, tmp_path: Path) -> None:
    outcome = run(glcnet_of(), tmp_path / "run", places)
    assert outcome.metrics["train_loss"] > 0
    statistics = json.loads((tmp_path / "run/data.json").read_text())["statistics"]
    with PatchData.open(glcnet_of().data, sets=[places], ground="unsplit") as data:
        assert statistics["mean"] == pytest.approx(data.mean)
        assert statistics["std"] == pytest.approx(data.std)


@pytest.mark.slow
def test_a_run_that_was_killed_between_epochs_ends_with_the_bits_of_one_that_was_not(
    places: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The end of the process."""

    recipe = seco_of(epochs=2)
    run(recipe, tmp_path / "whole", places)
    epoch = PatchData.epoch

    def killed(data: PatchData, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch, sample in enumerate(epoch(data, number, seed=seed, pin=pin)):
            if number == 1 and batch == 1:
                raise Killed
            yield sample

    monkeypatch.setattr(PatchData, "epoch", killed)
    with pytest.raises(Killed):
        run(recipe, tmp_path / "killed", places)
    monkeypatch.undo()
    assert run(recipe, tmp_path / "killed", places).epochs == 2
    ours, theirs = (hash_tensors(load_model(tmp_path / name).objective.state_dict()) for name in ("killed", "whole"))
    assert ours == theirs
    assert any("queue" in name for name in ours)


@pytest.mark.slow
def test_real_places_become_a_location_set_that_seco_pretrains_on(sits_data: Path, tmp_path: Path) -> None:
    at = [Location("north", 3.306, 43.64), Location("west", 3.3, 43.63), Location("east", 3.312, 43.625)]
    wanted = PatchSet(
        id="herault",
        season=Season(start=date(2018, 1, 1), end=date(2018, 12, 1)),
        imagery=Imagery(source="safe", path=str(sits_data / "t31tej"), bands=VISIBLE),
        rule=PatchRule(side_px=72, dates=3, weeks=10, window_days=61, max_shift=30),
    )
    built = build_locations(at, wanted, BuildConfig(out=str(tmp_path), workers=1), Silent())
    with PatchData.open(seco_of().data, sets=[built.location], ground="unsplit") as data:
        assert data.patches.dates.tolist() == [3, 3, 3]
        assert sum(int(sample.clear.sum()) for sample in data.epoch(0, seed=0)) > 0
    outcome = run(seco_of(), tmp_path / "run", built.location)
    assert outcome.metrics["train_loss"] > 0
    assert not outcome.simulated


# With labels


@pytest.mark.slow
def test_a_segmentation_finetunes_and_is_validated_on_each_pixel(fields: str, tmp_path: Path) -> None:
    outcome = run(segmentation_of(), tmp_path / "run", fields)
    assert 0 <= outcome.metrics["validation_miou"] <= 1
    described = json.loads((tmp_path / "run/data.json").read_text())
    assert described["cubes"][0]["patches"] == {"train": 4, "validation": 1, "test": 1}
    assert [row["code"] for row in described["classes"]] == ["(background)", "wheat", "maize"]
    assert sum(row["train_pixels"] for row in described["classes"]) == 4 * (24 * 24 - 3)
    assert (tmp_path / "run/confusion.png").is_file()
    again = run(segmentation_of(), tmp_path / "run", fields)
    assert again.finished_before


def test_few_labels_of_patches_are_described_and_another_share_is_another_run(fields: str, tmp_path: Path) -> None:
    few = FewLabels(share=0.5, by="block")
    run(segmentation_of(few=few), tmp_path / "run", fields)
    said = json.loads((tmp_path / "run/data.json").read_text())["few"]
    assert said["by"] == "block"
    assert all(0 < row["kept"] <= row["of"] <= 4 for row in said["classes"])
    assert sum(row["kept"] for row in said["classes"]) < sum(row["of"] for row in said["classes"])
    with pytest.raises(FileExistsError, match=r"data\.few"):
        run(segmentation_of(), tmp_path / "run", fields)


def test_a_classification_learns_the_class_of_each_patch_of_a_published_folder(tmp_path: Path) -> None:
    folder = eurosat(tmp_path / "EuroSAT")
    outcome = run(classes_of(), tmp_path / "run", str(folder))
    described = json.loads((tmp_path / "run/data.json").read_text())
    assert described["cubes"][0]["layout"] == "eurosat"
    assert sum(row["train_pixels"] for row in described["classes"]) == described["cubes"][0]["patches"]["train"]
    assert outcome.metrics["train_loss"] > 0


# Weights of other values


@pytest.mark.slow
def test_weights_of_one_published_set_start_a_training_on_another_of_other_values(tmp_path: Path) -> None:
    small = ["--set", "backbone.width=0.0625", "--set", "training.epochs=1", "--set", "data.batch=2"]
    seco = ["--cube", write_seco(tmp_path / "seco"), "--set", "data.layout=seco", "--set", "data.bands=[B04,B03,B02]"]
    one = ["--set", "data.chips=4", "--set", "seco.queue=8", "--out", tmp_path / "pretrained"]
    ended = sits_model("pretrain", "--recipe", "seco-laptop", *small, *seco, *one)
    assert ended.code == 0, ended.stderr
    # By reflectance, were there no weights that are normalised by statistics.
    euro = ["--cube", eurosat(tmp_path / "EuroSAT"), "--set", "data.normalize=reflectance", "--set", "data.chips=4"]
    start = ["--weights", tmp_path / "pretrained", "--out", tmp_path / "probed", "--json"]
    ended = sits_model("finetune", "--recipe", "eurosat-probe-resnet18", *small, *euro, *start)
    assert ended.code == 0, ended.stderr
    kind, values = json.loads(ended.stdout)["notes"]
    assert kind == "normalizing by statistics, as the weights it starts from, not by reflectance as the recipe"
    assert values == (
        f"the radiometry of {tmp_path / 'EuroSAT'} is not that of the weights (level is 8 bit, the model's L2A): mean "
        "and deviation are those of the new data"
    )
    assert values in ended.stderr
    before, after = (load_model(tmp_path / name) for name in ("pretrained", "probed"))
    # A probe leaves the encoder as it was loaded, but for the statistics.
    theirs, ours = (one.objective.encoder.state_dict() for one in (before, after))
    assert {name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])} == {"mean", "std"}
    with PatchData.open(DataRecipe(layout="eurosat"), sets=[str(tmp_path / "EuroSAT")]) as data:
        assert after.card.mean == pytest.approx(data.mean)
        assert after.card.std == pytest.approx(data.std)
        assert ours["mean"].flatten().tolist() == pytest.approx(data.mean)
    assert (after.card.radiometry["level"], after.card.recipe.data.normalize) == ("8 bit", "statistics")
    ended = sits_model("evaluate", "--weights", tmp_path / "probed", "--split", "train")
    assert ended.code == 0, ended.stderr
    other = write_eurosat(tmp_path / "tif", {"AnnualCrop": 2}, suffix=".tif")
    refused_there = sits_model("evaluate", "--weights", tmp_path / "probed", "--cube", other)
    assert_refused(refused_there, "the radiometry of", "tif is not the model's: level is L1C, the model's 8 bit")


@pytest.mark.slow
def test_a_dataset_of_ours_is_not_learnt_from_with_weights_of_other_values(tmp_path: Path) -> None:
    run(classes_of(), tmp_path / "weights", str(eurosat(tmp_path / "EuroSAT")))
    fields = write_fields(tmp_path / "fields", Fields(bands=VISIBLE))
    says = r"the radiometry of .*fields is not the model's: level is L2A, the model's 8 bit; give data such as those"
    with pytest.raises(ValueError, match=says):
        run(replace(classes_of(), data=DataRecipe(size=16)), tmp_path / "run", fields, weights=tmp_path / "weights")
    assert not (tmp_path / "run").exists()


# Refused before anything is written


def refused(recipe: Recipe, out: Path, *sets: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(recipe, out, *sets)
    assert not out.exists()


@pytest.mark.parametrize(
    ("bands", "says"),
    [
        (("B02", "B04"), "hue is of three visible bands; got B04, B02; change data.bands, or the keys of seco"),
        (("B08",), "a jitter is of the bands B04, B03, B02; the sample has B08: name other bands, or do without it;"),
    ],
)
def test_views_that_cannot_be_made_of_the_bands_are_refused(
    fields: str, tmp_path: Path, bands: tuple[str, ...], says: str
) -> None:
    recipe = seco_of()
    recipe = replace(recipe, data=replace(recipe.data, bands=bands, size=24))
    refused(recipe, tmp_path / "run", fields, says=f"seco cannot make its views of chips of {', '.join(bands)}: {says}")


def test_regions_and_patch_sets_are_not_mixed(fields: str, synthetic: Synthetic, tmp_path: Path) -> None:
    region = str(synthetic.folder.path)
    refused(segmentation_of(), tmp_path / "run", fields, region, says="tiny is a region and .*fields a set of patches")


def test_a_set_without_splits_and_patches_smaller_than_a_chip_are_refused(
    fields: str, places: str, tmp_path: Path
) -> None:
    refused(segmentation_of(), tmp_path / "run", places, says="places has no splits, without which labels")
    refused(segmentation_of(size=32), tmp_path / "run", fields, says=r"data\.size is 32, and 4 of 4 .* 24 x 24 px")


def test_a_change_needs_two_dates_of_each_train_patch(tmp_path: Path) -> None:
    fields = write_fields(tmp_path / "fields", Fields(dates=2))
    data = DataRecipe(size=16, batch=4, background=False, dates=DateRule(pick="first", n=2))
    backbone = BackboneRecipe(name="resnet18", width=0.0625)
    change = Recipe(name="tiny-change", data=data, backbone=backbone, change=ChangeRecipe(), training=ONCE)
    says = "each patch should have 2 dates at least, and 1 of 4 patches .* fewer, the first one number 1 of .*fields"
    refused(change, tmp_path / "run", fields, says=says)


def test_labels_of_the_other_kind_are_refused(fields: str, synthetic: Synthetic, tmp_path: Path) -> None:
    folder = str(eurosat(tmp_path / "EuroSAT"))
    says = "a segmentation learns from labels of pixels, and those of .*EuroSAT are of patches"
    refused(segmentation_of(layout="eurosat"), tmp_path / "run", folder, says=says)
    several = replace(segmentation_of(), segmentation=None, multilabel=MultiLabelRecipe())
    refused(several, tmp_path / "run", fields, says="learns which classes a patch has, and the labels of .* of pixels")
    refused(several, tmp_path / "run", str(synthetic.folder.path), says="which classes a patch has, and .* are regions")
