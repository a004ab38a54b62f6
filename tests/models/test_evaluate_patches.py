"""An evaluation of patch sets, against counts made here from the whole patches."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from tests.models.commands import assert_refused, sits_model
from tests.models.data.patch_folders import write_bigearthnet, write_eurosat, write_geotiffs, write_oscd, write_raster
from tests.models.patches import Fields, write_fields
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import Card, save_weights
from sits_models.data.patch_sets import PatchSet, open_patch_set
from sits_models.metrics import scores_of
from sits_models.objectives import Change, Classification, MultiLabel, Objective, Segmentation, build_objective
from sits_models.recipe import FewLabels, Recipe, load_recipe
from sits_models.report import confusion_png
from sits_models.sample import IGNORE_INDEX, Sample
from sits_models.tasks.evaluate import EvaluationOutcome, evaluate
from sits_models.tasks.predict import predict

RGB = ("B04", "B03", "B02")
NARROW = ["backbone.width=0.0625", "data.batch=4"]
CITIES = {"abudhabi": "train", "bordeaux": "train", "brasilia": "test", "chongqing": "test"}
PATCHES = {
    "S2A_MSIL2A_20170613T101031_0_45": ("Pastures", "Mixed forest"),
    "S2A_MSIL2A_20170613T101031_0_46": ("Pastures",),
    "S2B_MSIL2A_20170802T092029_1_3": ("Sea and ocean", "Mixed forest"),
    "S2B_MSIL2A_20170802T092029_1_4": ("Mixed forest",),
    "S2B_MSIL2A_20170802T092029_1_5": ("Pastures", "Rice fields"),
}


def big_earth_net(root: Path) -> Path:
    """Five patches, of which the last three are of the test split."""
    names = list(PATCHES)
    write_bigearthnet(root, PATCHES)
    for split, part in (("train", names[:1]), ("val", names[1:2]), ("test", names[2:])):
        (root / f"{split}.csv").write_text("".join(f"{name}\n" for name in part))
    return root


def euro_sat(root: Path) -> Path:
    """Three patches of each of two classes in each split."""
    write_eurosat(root, {"Forest": 9, "River": 9}, suffix=".jpg")
    for number, split in enumerate(("train", "val", "test")):
        mine = [f"{code}_{1 + 3 * number + i}.jpg\n" for code in ("Forest", "River") for i in range(3)]
        (root / f"eurosat-{split}.txt").write_text("".join(mine))
    return root


def tiles(root: Path) -> Path:
    """Tiles of 24 x 40 px of four bands with three classes and pixels of none."""
    names = ("one", "two", "three", "four")
    write_geotiffs(root, dict.fromkeys(names, (24, 40)))
    (root / "bands.txt").write_text("R\nG\nB\nIR\n")
    (root / "classes.csv").write_text("name,value\nroof,1\ntree,2\ncar,3\nnot labelled,9\n")
    for number, name in enumerate(names):
        values = np.random.default_rng(number).choice(np.array([1, 2, 3, 9], np.uint8), (1, 24, 40))
        write_raster(root / "labels" / f"{name}.tif", values)
    for split, part in (("train", names[:1]), ("validation", names[1:2]), ("test", names[2:])):
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    return root


def recipe_of(name: str, *changes: str) -> Recipe:
    return load_recipe(name, changes=[*NARROW, *changes])


def model_of(recipe: Recipe, one: PatchSet, folder: Path, **changes: object) -> tuple[Objective[Any], Card]:
    """A model of random weights for a set, saved in a folder."""
    torch.manual_seed(0)
    bands = recipe.data.bands or one.facts.bands
    statistics = {"mean": (2500.0,) * len(bands), "std": (2000.0,) * len(bands)}
    classes = one.facts.classes
    objective = build_objective(recipe, bands=bands, dates=1, classes=len(classes), **statistics)
    values: dict[str, Any] = {
        "recipe": recipe,
        "bands": bands,
        "dates": recipe.dates_of(1),
        "classes": classes,
        "radiometry": one.facts.radiometry,
        **statistics,
        **changes,
    }
    card = Card(**values)
    save_weights(folder, objective, card)
    return objective.eval(), card


def whole(one: PatchSet, number: int, bands: tuple[str, ...]) -> Sample:
    """A whole patch on all its dates."""
    height, width = one.facts.sizes[number].tolist()
    days = one.facts.days[number]
    patch = one.read(number, slice(0, height), slice(0, width), np.arange(len(days)))
    image = patch.image[:, [one.facts.bands.index(band) for band in bands]]
    crop = np.full((height, width), IGNORE_INDEX) if patch.crop is None else patch.crop.astype(np.int64)
    plane = torch.zeros(1, height, width, dtype=torch.int64)
    return Sample(
        image=torch.from_numpy(image[None].copy()),
        valid=torch.ones(1, len(days), dtype=torch.bool),
        day=torch.from_numpy(days[None].copy()),
        clear=torch.from_numpy(patch.clear[None].copy()),
        crop=torch.from_numpy(np.where(crop == 65535, IGNORE_INDEX, crop)[None]),
        counted=torch.ones(1, height, width, dtype=torch.bool),
        parcel=plane,
        boundary=plane.to(torch.int16),
        place=torch.zeros(1, 3, dtype=torch.int64),
        bands=bands,
        present=None if patch.present is None else torch.from_numpy(patch.present[None].copy()),
    )


def of_split(one: PatchSet, split: Split) -> list[int]:
    return np.flatnonzero(one.facts.splits == split).tolist()


def measured(folder: Path, weights: Path, root: Path, split: str = "test") -> tuple[EvaluationOutcome, dict[str, Any]]:
    with Narrator() as narrator:
        outcome = evaluate(str(weights), cubes=[str(root)], out=str(folder), split=split, narrator=narrator)
    return outcome, json.loads((folder / "metrics.json").read_text())


def counted(truth: NDArray[np.int64], guess: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    matrix = np.zeros((k, k), np.int64)
    for row, column in zip(truth.ravel().tolist(), guess.ravel().tolist(), strict=True):
        if row >= 0:
            matrix[row, column] += 1
    return matrix


def test_changes_are_counted_pixel_by_pixel_in_one_matrix(tmp_path: Path) -> None:
    root = write_oscd(tmp_path / "oscd", CITIES)
    recipe, one = recipe_of("oscd-resnet18", "data.size=40"), open_patch_set(str(root), "oscd")
    objective, card = model_of(recipe, one, tmp_path / "weights")
    assert isinstance(objective, Change)
    # Random weights call everything one class: the median difference of the logits becomes the border.
    numbers = of_split(one, Split.TEST)
    with torch.no_grad():
        # Windows of 40 px see a city of 30 x 40, and nothing below it.
        padded = [pad_below(whole(one, number, RGB), 40) for number in numbers]
        difference = torch.cat([objective(sample) for sample in padded]).diff(dim=1)[:, 0, :30]
        objective.decoder.last.bias[1] -= difference.median()
    save_weights(tmp_path / "weights", objective, card)
    expected = np.zeros((2, 2), np.int64)
    with torch.no_grad():
        for sample in padded:
            expected += counted(sample.crop[0, :30].numpy(), objective(sample).argmax(1)[0, :30].numpy(), 2)
    outcome, metrics = measured(tmp_path / "out", tmp_path / "weights", root)
    assert expected.sum(axis=1).tolist() == [2 * (1200 - 15), 2 * 15]
    assert (expected.sum(axis=0) > 0).all()
    assert metrics["confusion"] == expected.tolist()
    scores = scores_of(expected)
    assert outcome.overall == scores
    assert metrics["overall"]["f1"][1] == pytest.approx(
        2 * expected[1, 1] / (2 * expected[1, 1] + expected[0, 1] + expected[1, 0])
    )
    assert metrics["overall"]["kappa"] == scores.kappa
    assert (metrics["unit"], metrics["patches"], metrics["split"]) == ("pixel", 2, "test")
    assert [crop["name"] for crop in metrics["classes"]] == ["no change", "change"]


def pad_below(sample: Sample, side: int) -> Sample:
    """Nothing observed below the patch."""
    below = side - sample.image.shape[-2]
    image = torch.nn.functional.pad(sample.image.to(torch.int32), (0, 0, 0, below)).to(torch.uint16)
    fine = {name: torch.nn.functional.pad(getattr(sample, name), (0, 0, 0, below)) for name in ("clear", "counted")}
    whole_numbers = {name: getattr(sample, name) for name in ("crop", "parcel", "boundary")}
    padded = {name: torch.nn.functional.pad(value, (0, 0, 0, below)) for name, value in whole_numbers.items()}
    return sample.replace(image=image, **fine, **padded)


def test_tiles_are_counted_once_whatever_the_windows(tmp_path: Path) -> None:
    root = tiles(tmp_path / "tiles")
    one = open_patch_set(str(root), "geotiffs")
    recipe = recipe_of("segment-potsdam", "data.size=24", "backbone.name=deeplab_resnet18")
    objective, _ = model_of(recipe, one, tmp_path / "weights")
    assert isinstance(objective, Segmentation)
    expected = np.zeros((3, 3), np.int64)
    with torch.no_grad():
        for number in of_split(one, Split.TEST):
            sample = whole(one, number, one.facts.bands)
            # Two windows of 24 px in 40, which share what both see in the middle.
            left, right = (objective(cut(sample, columns)).argmax(1)[0] for columns in (slice(0, 24), slice(16, 40)))
            guess = torch.cat([left[:, :20], right[:, 4:]], dim=1)
            expected += counted(sample.crop[0].numpy(), guess.numpy(), 3)
    outcome, metrics = measured(tmp_path / "out", tmp_path / "weights", root)
    assert metrics["confusion"] == expected.tolist()
    assert outcome.overall is not None
    assert outcome.overall.count == expected.sum() < 2 * 24 * 40
    with (tmp_path / "out" / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["label \\ predicted", "roof", "tree", "car"]
    assert [[int(n) for n in row[1:]] for row in rows[1:]] == expected.tolist()
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "report.html").exists()
    assert outcome.report == tmp_path / "out" / "metrics.json"
    assert metrics["page"] is None


def cut(sample: Sample, columns: slice) -> Sample:
    parts = {name: getattr(sample, name)[..., columns] for name in ("clear", "crop", "counted", "parcel", "boundary")}
    return sample.replace(image=sample.image[..., columns], **parts)


def test_patches_of_one_class_are_classified_each_once(tmp_path: Path) -> None:
    root = euro_sat(tmp_path / "eurosat")
    one = open_patch_set(str(root), "eurosat")
    objective, _ = model_of(recipe_of("eurosat-probe-resnet18"), one, tmp_path / "weights")
    assert isinstance(objective, Classification)
    numbers = of_split(one, Split.TEST)
    samples = [whole(one, number, RGB) for number in numbers]
    with torch.no_grad():
        guess = np.array([int(objective(sample).argmax()) for sample in samples])
    truth = np.array([int(s.present[0].nonzero()) for s in samples if s.present is not None])
    outcome, metrics = measured(tmp_path / "out", tmp_path / "weights", root)
    assert metrics["confusion"] == counted(truth, guess, 10).tolist()
    assert metrics["overall"]["overall_accuracy"] == pytest.approx((truth == guess).mean())
    assert (metrics["unit"], metrics["patches"]) == ("patch", 6)
    assert outcome.ranking is None
    names = [crop.name for crop in one.facts.classes]
    picture = confusion_png(np.array(metrics["confusion"]), names, unit="chip")
    assert (tmp_path / "out" / "confusion.png").read_bytes() == picture


def test_several_labels_a_patch_are_ranked_over_the_whole_split(tmp_path: Path) -> None:
    root = big_earth_net(tmp_path / "big")
    one = open_patch_set(str(root), "bigearthnet")
    recipe = recipe_of("bigearthnet-resnet18", "data.batch=2")
    objective, _ = model_of(recipe, one, tmp_path / "weights")
    assert isinstance(objective, MultiLabel)
    samples = [whole(one, number, RGB) for number in of_split(one, Split.TEST)]
    with torch.no_grad():
        logits = torch.cat([objective(sample) for sample in samples]).numpy()
    present = np.concatenate([sample.present.numpy() for sample in samples if sample.present is not None])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "confusion.csv").write_text("of an evaluation before this one")
    outcome, metrics = measured(tmp_path / "out", tmp_path / "weights", root)
    found, shown = metrics["average_precision"], present.any(axis=0)
    assert found["micro"] == pytest.approx(average_precision_score(present, logits, average="micro"))
    assert found["macro"] == pytest.approx(average_precision_score(present[:, shown], logits[:, shown]))
    assert [value is not None for value in found["classes"]] == shown.tolist()
    assert found["support"] == present.sum(axis=0).tolist()
    assert (metrics["overall"], metrics["confusion"], metrics["unit"]) == (None, None, "patch")
    assert outcome.ranking is not None
    assert outcome.overall is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json"]


def knowing(one: PatchSet, *codes: str) -> PatchSet:
    """The set as if it had these classes alone."""
    entries = {entry.code: entry for entry in one.facts.classes}
    one.facts = replace(one.facts, classes=tuple(replace(entries[code], index=k) for k, code in enumerate(codes)))
    return one


def test_patches_without_a_class_that_the_model_knows_are_ranked_and_not_counted(tmp_path: Path) -> None:
    root = big_earth_net(tmp_path / "big")
    recipe = recipe_of("bigearthnet-resnet18", "data.batch=2")
    for codes in (("Pastures", "Arable land"), ("Coniferous forest",)):
        one = knowing(open_patch_set(str(root), "bigearthnet"), *codes)
        model_of(recipe, one, tmp_path / codes[0])
    _, metrics = measured(tmp_path / "out", tmp_path / "Pastures", root)
    assert (metrics["patches"], metrics["average_precision"]["support"]) == (1, [1, 1])
    with pytest.raises(ValueError, match=r"no patch of the test split of .*big has a label of a class that the model"):
        measured(tmp_path / "none", tmp_path / "Coniferous forest", root)
    assert not (tmp_path / "none").exists()


def test_labels_of_another_kind_than_the_model_s_are_refused(tmp_path: Path) -> None:
    places, cities = euro_sat(tmp_path / "eurosat"), write_oscd(tmp_path / "oscd", CITIES)
    maps = recipe_of("segment-potsdam", "data.size=64", "data.layout=eurosat", "backbone.name=deeplab_resnet18")
    model_of(maps, open_patch_set(str(places), "eurosat"), tmp_path / "maps")
    with pytest.raises(
        ValueError, match=r"a segmentation learns from labels of pixels, and those of .*eurosat are of p"
    ):
        measured(tmp_path / "out", tmp_path / "maps", places)
    several = recipe_of("bigearthnet-resnet18", "data.size=24", "data.layout=oscd")
    model_of(several, open_patch_set(str(cities), "oscd"), tmp_path / "several")
    with pytest.raises(ValueError, match=r"which classes a patch has, and the labels of .*oscd are of pixels; take a"):
        measured(tmp_path / "out", tmp_path / "several", cities)
    assert not (tmp_path / "out").exists()


def test_where_a_patch_has_one_date_no_change_is_counted(tmp_path: Path) -> None:
    # Of the train split the second patch has one date, of the test split the only one.
    path = write_fields(tmp_path / "fields", Fields(dates=2))
    recipe = recipe_of("oscd-resnet18", "data.layout=cube", "data.size=24", "data.bands=[B02,B04,B08]")
    model_of(recipe, knowing(open_patch_set(path, "cube"), "wheat", "maize"), tmp_path / "weights")
    one = open_patch_set(path, "cube")
    crops = [one.labels(number).crop for number in (0, 2, 4)]
    _, metrics = measured(tmp_path / "out", tmp_path / "weights", Path(path), split="train")
    assert metrics["patches"] == 3
    assert metrics["overall"]["support"] == [sum(int((crop == k).sum()) for crop in crops) for k in (1, 2)]
    with pytest.raises(ValueError, match=r"no patch of the test split of .*fields has a label of a class"):
        measured(tmp_path / "none", tmp_path / "weights", Path(path))


def test_labels_that_a_training_left_out_are_measured_all_the_same(tmp_path: Path) -> None:
    root = tiles(tmp_path / "tiles")
    one = open_patch_set(str(root), "geotiffs")
    recipe = recipe_of("segment-potsdam", "data.size=24", "backbone.name=deeplab_resnet18")
    assert recipe.data.few is not None
    model_of(recipe, one, tmp_path / "weights")
    _, metrics = measured(tmp_path / "out", tmp_path / "weights", root, split="train")
    assert metrics["patches"] == 1


@pytest.mark.slow
def test_how_chips_are_drawn_and_read_in_training_is_no_concern_of_an_evaluation(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "fields")
    one = open_patch_set(path, "cube")
    recipe = recipe_of("segment-laptop", "data.size=24", "backbone.variant=fixed")
    drawn = replace(recipe.data, sampling="parcel", start="forkserver", few=FewLabels(share=0.1, by="parcel"))
    model_of(replace(recipe, data=drawn), one, tmp_path / "weights")
    _, metrics = measured(tmp_path / "out", tmp_path / "weights", Path(path))
    model_of(recipe, one, tmp_path / "plain")
    _, expected = measured(tmp_path / "plain-out", tmp_path / "plain", Path(path))
    assert metrics["confusion"] == expected["confusion"]
    assert metrics["overall"]["count"] == 24 * 24 - 3


def test_the_command_tells_what_of_a_patch_set_was_measured_and_where_it_is_written(tmp_path: Path) -> None:
    root = big_earth_net(tmp_path / "big")
    model_of(recipe_of("bigearthnet-resnet18"), open_patch_set(str(root), "bigearthnet"), tmp_path / "several")
    ended = sits_model("evaluate", "--weights", tmp_path / "several", "--cube", root)
    found = json.loads((tmp_path / "several" / "evaluation-test" / "metrics.json").read_text())["average_precision"]
    assert ended.stdout.splitlines() == [
        f"overall   average precision: micro {found['micro']:.3f}, macro {found['macro']:.3f}",
        f"metrics   {tmp_path / 'several' / 'evaluation-test' / 'metrics.json'}",
    ]
    said = json.loads(sits_model("evaluate", "--weights", tmp_path / "several", "--cube", root, "--json").stdout)
    assert said["average_precision"] == found
    assert said["overall"] is None
    root = euro_sat(tmp_path / "eurosat")
    model_of(recipe_of("eurosat-probe-resnet18"), open_patch_set(str(root), "eurosat"), tmp_path / "one")
    ended = sits_model("evaluate", "--weights", tmp_path / "one", "--cube", root)
    overall = json.loads((tmp_path / "one" / "evaluation-test" / "metrics.json").read_text())["overall"]
    shares = f"mIoU {overall['miou']:.3f}, overall accuracy {overall['overall_accuracy']:.3f}"
    assert ended.stdout.splitlines()[0] == f"overall   {shares}, kappa {overall['kappa']:.3f}"
    assert ended.stdout.splitlines()[-1].startswith("metrics   ")


def test_another_radiometry_and_a_split_without_patches_are_refused(tmp_path: Path) -> None:
    root = euro_sat(tmp_path / "eurosat")
    (root / "eurosat-test.txt").unlink()
    one = open_patch_set(str(root), "eurosat")
    recipe = recipe_of("eurosat-probe-resnet18")
    model_of(recipe, one, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"no patch of the test split of .*eurosat has a label of a class that the"):
        measured(tmp_path / "out", tmp_path / "weights", root)
    assert not (tmp_path / "out").exists()
    other = {**one.facts.radiometry, "level": "L2A"}
    model_of(recipe, one, tmp_path / "other", radiometry=other)
    with pytest.raises(ValueError, match=r"radiometry of .* is not the model's: level is 8 bit, the model's L2A"):
        measured(tmp_path / "out", tmp_path / "other", root)


@pytest.mark.parametrize(
    ("name", "told"),
    [("oscd-resnet18", "changes between two dates"), ("bigearthnet-resnet18", "several classes of a patch")],
)
def test_what_is_no_map_is_not_predicted(tmp_path: Path, synthetic: Synthetic, name: str, told: str) -> None:
    if name.startswith("oscd"):
        one = open_patch_set(str(write_oscd(tmp_path / "set", {"paris": "train"})), "oscd")
    else:
        one = open_patch_set(str(big_earth_net(tmp_path / "set")), "bigearthnet")
    recipe = recipe_of(name)
    model_of(replace(recipe, data=replace(recipe.data, layout="cube")), one, tmp_path / "weights")
    out = str(tmp_path / "map")
    with Narrator() as narrator:
        with pytest.raises(ValueError, match=rf"tell {told}, and a map has one class a pixel: give those of a segment"):
            predict(str(tmp_path / "weights"), cube=synthetic.folder.location, out=out, narrator=narrator)
        with pytest.raises(ValueError, match="of which cubes of regions have no labels: give --cube with a patch set"):
            evaluate(str(tmp_path / "weights"), cubes=[synthetic.folder.location], out=out, narrator=narrator)
    assert not Path(out).exists()


SMALL = ["--set", "backbone.width=0.0625", "--set", "training.epochs=1", "--set", "training.validate_every=1"]


def run(name: str, root: Path, folder: Path, *changes: str) -> dict[str, Any]:
    """Finetune a recipe and evaluate what it gives, from the command line."""
    further = [part for change in changes for part in ("--set", change)]
    trained = sits_model("finetune", "--recipe", name, "--cube", root, "--out", folder, *SMALL, *further)
    assert trained.code == 0, trained.stderr
    ended = sits_model("evaluate", "--weights", folder)
    assert ended.code == 0, ended.stderr
    metrics: dict[str, Any] = json.loads((folder / "evaluation-test" / "metrics.json").read_text())
    return metrics


@pytest.mark.slow
def test_each_published_finetuning_runs_on_a_small_folder_and_is_evaluated(tmp_path: Path) -> None:
    big = run("bigearthnet-probe-resnet18", big_earth_net(tmp_path / "big"), tmp_path / "a", "data.batch=1")
    assert big["average_precision"]["micro"] is not None
    assert big["model"]["probe"]
    history = (tmp_path / "a" / "metrics.csv").read_text().splitlines()[0]
    assert {"validation_map", "validation_micro_ap"} <= {*history.split(",")}
    euro = run("eurosat-probe-resnet18", euro_sat(tmp_path / "euro"), tmp_path / "b", "data.batch=3")
    assert euro["overall"]["count"] == 6
    oscd = write_oscd(tmp_path / "oscd", {**CITIES, "paris": "train"})
    change = run("oscd-resnet18", oscd, tmp_path / "c", "data.batch=2", "data.size=24")
    assert change["overall"]["support"] == [2 * (1200 - 15), 2 * 15]
    assert "validation_change_f1" in (tmp_path / "c" / "metrics.csv").read_text()
    tile = ["backbone.name=deeplab_resnet18", "data.batch=2", "data.size=24"]
    maps = run("segment-potsdam", tiles(tmp_path / "tiles"), tmp_path / "d", *tile)
    assert maps["overall"]["kappa"] is not None
    assert_refused(sits_model("predict", "--weights", tmp_path / "c", "--cube", oscd), "tell changes between two dates")
