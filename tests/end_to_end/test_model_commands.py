"""The four commands on a small region: from a dataset to a map, stopped, refused and started again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zarr
from tests.models.commands import Ended, assert_refused, sits_model
from tests.synthetic import BANDS, make_dataset

from sits_catalog.cube import Split
from sits_models.checkpoints import hash_tensors, load_model, read_card
from sits_models.data.cubes import open_cube

pytestmark = pytest.mark.slow

CLASSES = 4
"""Three crops and the background."""


def write_recipe(path: Path, name: str, section: str, **training: object) -> Path:
    recipe = {
        "name": name,
        "title": f"tiny {section}",
        "data": {"dates": {"pick": "even", "n": 4}, "size": 16, "batch": 8, "chips": 64, "readers": 1},
        "backbone": {"name": "unet3df", "width": 0.0625},
        section: {},
        "training": {"epochs": 2, "learning_rate": 1e-2, "schedule": "constant", **training},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


class Steps:
    """The four commands, run once, and how each of them ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cube = folder / "tiny"
        self.dataset = make_dataset(self.cube, height=384, width=512)
        self.cscl = write_recipe(folder / "cscl.yaml", "cscl-tiny", "contrast")
        self.segment = write_recipe(folder / "segment.yaml", "segment-tiny", "segmentation", epochs=12)
        self.pretrained, self.run = folder / "runs/cscl", folder / "runs/segment"
        self.ended = [
            sits_model("pretrain", "--recipe", self.cscl, "--cube", self.cube, "--out", self.pretrained, "--json"),
            self.finetune(self.run, "--json"),
            sits_model("evaluate", "--weights", self.run, "--json"),
            sits_model("predict", "--weights", self.run, "--cube", self.cube, "--json"),
        ]

    def finetune(self, out: Path, *more: object) -> Ended:
        return sits_model(
            "finetune", "--recipe", self.segment, "--cube", self.cube, "--weights", self.pretrained, "--out", out, *more
        )


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    # The same bits come of the same number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Steps(tmp_path_factory.mktemp("models"))
    for ended in made.ended:
        assert ended.code == 0, ended.stderr
    yield made
    torch.set_num_threads(threads)


def test_the_four_commands_lead_to_a_map_that_is_better_than_chance(steps: Steps) -> None:
    outcomes = [json.loads(ended.stdout) for ended in steps.ended]
    assert outcomes[0]["epochs"] == 2
    # Always the commonest class would reach less than 1 / CLASSES.
    assert outcomes[1]["metrics"]["validation_miou"] > 1 / CLASSES
    assert outcomes[2]["overall"]["miou"] > 1 / CLASSES
    assert outcomes[3]["complete"]
    group = zarr.open_group(steps.run / "map" / "map.zarr", mode="r")
    found = {name: array.shape for name, array in group.arrays() if array.ndim == 2}
    assert (384, 512) in found.values()


def test_a_run_folder_holds_what_a_reader_needs(steps: Steps) -> None:
    for run, section in ((steps.pretrained, "contrast"), (steps.run, "segmentation")):
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        assert section in recipe
        assert recipe["data"]["bands"] == list(BANDS)
        assert recipe["training"]["optimizer"] == "adam"
        assert {path.name for path in (run / "weights").iterdir()} == {"weights.safetensors", "card.json"}
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert list((run / "tensorboard").glob("events*"))
        assert not list(run.rglob("*.partial"))
        with (run / "metrics.csv").open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == [
                str(n) for n in range(recipe["training"]["epochs"])
            ]
        environment = json.loads((run / "environment.json").read_text())
        assert {"python", "torch", "lightning", "seed", "device"} <= set(environment)
        cube = json.loads((run / "data.json").read_text())["cubes"][0]
        assert cube["config_sha256"] == "0" * 63 + "a"
        assert len(cube["split_sha256"]) == 64
    assert (steps.run / "confusion.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((steps.run / "metrics.json").read_text())
    assert metrics["weights_sha256"] == read_card(steps.run).sha256


def test_the_card_names_the_weights_that_training_started_from(steps: Steps) -> None:
    assert read_card(steps.run).parent == read_card(steps.pretrained).sha256
    assert [entry.code for entry in read_card(steps.run).classes] == ["(background)", "c1", "c2", "c3"]
    (counts,) = [json.loads((steps.run / "data.json").read_text())["classes"]]
    assert all(entry["train_pixels"] > 0 for entry in counts)


def test_a_finished_run_is_left_as_it_is(steps: Steps) -> None:
    before = {path: path.stat().st_mtime_ns for path in steps.run.rglob("*")}
    ended = steps.finetune(steps.run)
    assert ended.code == 0
    assert "was finished before; nothing is left to do" in ended.stdout
    assert {path: path.stat().st_mtime_ns for path in steps.run.rglob("*")} == before


@pytest.mark.soak
def test_the_same_command_elsewhere_gives_the_same_weights(steps: Steps, tmp_path: Path) -> None:
    assert steps.finetune(tmp_path / "again").code == 0
    ours, theirs = (load_model(run).objective.state_dict() for run in (steps.run, tmp_path / "again"))
    assert hash_tensors(ours) == hash_tensors(theirs)


def test_a_run_whose_last_files_are_lost_writes_them_again(steps: Steps, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(steps.run, copy)
    for name in ("metrics.json", "curves.png", "metrics.csv", "weights/card.json"):
        (copy / name).unlink()
    assert steps.finetune(copy).code == 0
    ours, theirs = (load_model(run).objective.state_dict() for run in (steps.run, copy))
    assert hash_tensors(ours) == hash_tensors(theirs)
    assert (copy / "curves.png").is_file()


def test_another_recipe_or_other_weights_in_the_folder_of_a_run_are_refused(steps: Steps) -> None:
    assert_refused(
        steps.finetune(steps.run, "--set", "training.epochs=9"),
        "holds a run of another recipe (training.epochs is 12 there, 9 here); choose another --out",
    )
    ended = sits_model("finetune", "--recipe", steps.segment, "--cube", steps.cube, "--out", steps.run)
    assert_refused(ended, "holds a run with other weights to start from")


def test_a_folder_with_something_else_is_refused(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    assert_refused(steps.finetune(tmp_path), "holds thesis.txt and no run; choose another --out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "backbone.width=0.125"], "do not fit this model"),
        (["--set", "backbone.variant=fixed"], "variant is paper there, fixed here"),
        (["--set", "backbone.time_channels=[year]"], "time_channels is [day_of_year] there, [year] here"),
        (["--set", "data.size=50"], "data.size is 50"),
        (["--set", "data.size=500"], "no window of 500 px lies in train"),
        (["--set", "data.bands=[B08, B04]"], "take the bands B02, B03, B04, B08"),
        (["--set", "data.bands=[B02, B99]"], "has no band B99"),
        (["--set", "data.classes=[c1, c9]"], "c9"),
        (["--set", "data.labels=4"], "has no labels_x4"),
        (["--set", "backbone.name=unet4d"], "no backbone named 'unet4d'"),
        (["--weights", "elsewhere"], "no folder elsewhere"),
        (["--cube", "nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_no_folder(
    steps: Steps, tmp_path: Path, more: list[str], says: str
) -> None:
    assert_refused(steps.finetune(tmp_path / "out", *more), says)
    assert not (tmp_path / "out").exists()


def test_a_model_refuses_a_cube_of_other_bands_or_radiometry(steps: Steps, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(steps.cube, other)
    metadata = other / "cube.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"L2A"', '"L1C"'))
    ended = sits_model("predict", "--weights", steps.run, "--cube", other, "--out", tmp_path / "map")
    assert_refused(ended, "radiometry", "L1C", "L2A")
    assert not (tmp_path / "map").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_device_is_chosen_and_a_wrong_one_is_refused(steps: Steps, tmp_path: Path, command: str) -> None:
    arguments = (command, "--weights", steps.run, "--cube", steps.cube, "--out", tmp_path / "out", "--device")
    assert_refused(sits_model(*arguments, "gpu"), "--device is auto, cpu, cuda or cuda:<number>; got 'gpu'")
    assert not (tmp_path / "out").exists()
    assert sits_model(*arguments, "cpu").code == 0


def test_pretrained_weights_alone_neither_evaluate_nor_predict(steps: Steps, tmp_path: Path) -> None:
    for command in ("evaluate", "predict"):
        ended = sits_model(command, "--weights", steps.pretrained, "--cube", steps.cube, "--out", tmp_path / "out")
        assert_refused(ended, "pretrain", "finetune")
    assert not (tmp_path / "out").exists()


def test_rare_classes_weigh_more_where_the_recipe_says_so(steps: Steps, tmp_path: Path) -> None:
    weighted = ("--set", "segmentation.weights=inverse_frequency", "--set", "training.epochs=1")
    assert steps.finetune(tmp_path / "weighted", *weighted).code == 0
    assert steps.finetune(tmp_path / "plain", "--set", "training.epochs=1").code == 0
    ours, theirs = (load_model(tmp_path / name).objective.state_dict() for name in ("weighted", "plain"))
    assert hash_tensors(ours) != hash_tensors(theirs)
    # What is counted is what training may see: the labels of the train split, pixel by pixel.
    split = open_cube(str(steps.cube)).read("split", slice(0, 384), slice(0, 512))
    crops = steps.dataset.crop_type[split == Split.TRAIN]
    counted = np.bincount(crops[crops < CLASSES], minlength=CLASSES)
    classes = json.loads((tmp_path / "weighted" / "data.json").read_text())["classes"]
    assert [entry["train_pixels"] for entry in classes] == counted.tolist()
