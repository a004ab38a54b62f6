"""An evaluation of a model that gives one class to a parcel, against counts made here from the whole arrays."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from numpy.typing import NDArray
from tests.models.labels import without_labels
from tests.synthetic import BANDS, Synthetic
from torch import Tensor

from sits_catalog.console import Narrator
from sits_models.backbones.base import Backbone, Needs
from sits_models.checkpoints import Card, LoadedModel
from sits_models.data.classes import join_classes
from sits_models.data.cubes import open_cube
from sits_models.encoder import Encoder
from sits_models.metrics import bootstrap_scores, margins_of
from sits_models.objectives.classification import Classification
from sits_models.recipe import BackboneRecipe, ClassificationRecipe, DataRecipe, Recipe
from sits_models.sample import Sample
from sits_models.tasks.evaluate import EvaluationOutcome, evaluate

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

TEST, SIZE, K = 3, 16, 3
DOWN, LEFT = 7, 8
"""Where the model of these tests looks, seen from the middle of a chip."""


class Anything(Backbone):
    """Stands for the backbone of a model that needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.needs, self.head, self.stride = K, Needs(dates=None, size_multiple=1), "none", 0

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        raise NotImplementedError


class Reader(Classification):
    """Reads the class of a parcel out of the first band, some pixels away from its middle; 0 where nothing is seen."""

    def __init__(self, classes: int) -> None:
        encoder = Encoder(Anything(), bands=BANDS, mean=[0.0] * 4, std=[1.0] * 4, magnification=1)
        super().__init__(encoder, classes=classes, class_weights=None)

    def forward(self, sample: Sample) -> Tensor:
        code = sample.image[:, 0, 0, SIZE // 2 + DOWN, SIZE // 2 - LEFT].to(torch.int64)
        return torch.nn.functional.one_hot(code % self.classes, self.classes).float()


@dataclass(frozen=True)
class Parcel:
    """What is known of a parcel by looking at all pixels."""

    cube: int
    parcel: int
    row: int
    column: int
    truth: int
    predicted: int


def card_of(path: Path, *, codes: tuple[str, ...] = ("c1", "c2", "c3")) -> Card:
    cube = open_cube(str(path))
    recipe = Recipe(
        name="tiny",
        title="Reads <the> class",
        data=DataRecipe(cubes=(str(path),), bands=BANDS, batch=7, size=SIZE, sampling="middle", background=False),
        backbone=BackboneRecipe(name="unet3df"),
        classification=ClassificationRecipe(),
    )
    table = join_classes([cube], codes=codes, background=False)
    return Card(
        recipe=recipe, bands=BANDS, dates=4, classes=table.classes, radiometry=cube.facts.radiometry,
        mean=(0.0,) * 4, std=(1.0,) * 4,
    )  # fmt: skip


def run(card: Card, out: Path, **options: Any) -> EvaluationOutcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sits_models.tasks.evaluate.load_model", lambda weights: LoadedModel(Reader(len(card.classes)), card)
        )
        patch.setattr("sits_models.tasks.evaluate.find_weights", Path)
        return evaluate("weights", out=str(out), narrator=Narrator(), **{"cubes": None, **options})


@pytest.fixture(scope="module")
def dataset(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with other shapes of parcels, and codes in the first band without any symmetry."""
    path = tmp_path_factory.mktemp("parcels") / "tiny"
    shutil.copytree(synthetic.folder.location, path)
    group, rng = zarr.open_group(f"{path}/cube.zarr", mode="r+"), np.random.default_rng(0)
    group["reflectance"][0, 0] = rng.integers(1, 3000, (540, 576)).astype(np.uint16)
    # Holes, so that the middle of a parcel is not that of its square.
    holes = rng.random((540, 576)) < 0.5
    for name in ("parcel_id", "crop_type"):
        group[name][...] = np.where(holes, 0, np.asarray(group[name][...]))
    (path / "config.yaml").write_text("splits:\n  block_m: 1280\n")
    return path


def parcels_of(path: Path, *, cube: int = 0, known: int = K) -> list[Parcel]:
    """By looking: the pixel nearest to the mean of a parcel's pixels in the split, and the code beside it."""
    group = zarr.open_group(f"{path}/cube.zarr", mode="r")
    arrays = {name: np.asarray(group[name][...]).astype(np.int64) for name in ("parcel_id", "crop_type", "split")}
    shown = np.zeros((540, 576), bool)
    chips = pd.read_parquet(path / "chips.parquet")
    for row, column in chips[(chips["kind"] == "grid") & (chips["split"] == "test")][["row", "col"]].to_numpy():
        shown[row : row + 64, column : column + 64] = True
    code = np.pad(np.where(shown, np.asarray(group["reflectance"][0, 0]).astype(np.int64), 0), SIZE)
    kept = (arrays["split"] == TEST) & (arrays["crop_type"] < 65535) & (arrays["parcel_id"] > 0)
    found = []
    for parcel in np.unique(arrays["parcel_id"][kept]).tolist():
        pixels = np.argwhere(kept & (arrays["parcel_id"] == parcel))
        row, column = pixels[np.argmin(((pixels - pixels.mean(0)) ** 2).sum(1))].tolist()
        seen = int(code[SIZE + row + DOWN, SIZE + column - LEFT]) % K
        truth = int(arrays["crop_type"][row, column]) - 1
        if truth < known:
            found.append(Parcel(cube, parcel, row, column, truth, seen))
    return found


def confusion(parcels: list[Parcel]) -> NDArray[np.int64]:
    matrix = np.zeros((K, K), np.int64)
    for one in parcels:
        matrix[one.truth, one.predicted] += 1
    return matrix


@dataclass(frozen=True)
class Evaluated:
    outcome: EvaluationOutcome
    metrics: dict[str, Any]
    parcels: list[Parcel]


@pytest.fixture(scope="module")
def evaluated(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    outcome = run(card_of(dataset), tmp_path_factory.mktemp("out"))
    return Evaluated(outcome, json.loads((outcome.folder / "metrics.json").read_text()), parcels_of(dataset))


def test_every_labelled_parcel_of_the_split_is_counted_once_with_what_the_model_sees_around_its_middle(
    evaluated: Evaluated,
) -> None:
    expected = confusion(evaluated.parcels)
    assert evaluated.metrics["unit"] == "parcel"
    assert evaluated.metrics["parcels"]["confusion"] == expected.tolist()
    assert evaluated.outcome.parcels is not None
    assert evaluated.outcome.parcels.count == expected.sum() == len(evaluated.parcels) > 40
    assert 0 < evaluated.outcome.parcels.overall_accuracy < 1  # type: ignore[operator]
    with (evaluated.outcome.folder / "confusion.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["label \\ predicted", "c1", "c2", "c3"]] + [
        [f"c{k + 1}", *map(str, row)] for k, row in enumerate(expected.tolist())
    ]


def test_the_table_has_a_row_a_parcel(evaluated: Evaluated, dataset: Path) -> None:
    table = pq.read_table(evaluated.outcome.folder / "per_parcel.parquet").to_pandas()
    names = ["parcel_id", "row", "column", "declared", "predicted"]
    assert table[names].to_numpy().tolist() == [
        [one.parcel, one.row, one.column, f"c{one.truth + 1}", f"c{one.predicted + 1}"] for one in evaluated.parcels
    ]
    assert (table["right"] == (table["declared"] == table["predicted"])).all()
    # Logits are 1 for the class that was read and 0 for the others.
    np.testing.assert_allclose(table["probability"], np.e / (np.e + 2), rtol=1e-6)
    areas = pd.read_parquet(dataset / "parcels.parquet").set_index("parcel_id")["area_ha"]
    assert table["area_ha"].tolist() == areas.loc[table["parcel_id"]].tolist()
    assert set(table["cube"]) == {str(dataset)}
    crosstab = pd.crosstab(table["declared"], table["predicted"]).to_numpy()
    assert crosstab.tolist() == evaluated.metrics["parcels"]["confusion"]


def test_intervals_come_from_blocks_of_ground(evaluated: Evaluated) -> None:
    blocks = sorted({(one.row // 128, one.column // 128) for one in evaluated.parcels})
    matrices = [
        confusion([one for one in evaluated.parcels if (one.row // 128, one.column // 128) == block])
        for block in blocks
    ]
    expected = bootstrap_scores(margins_of(np.array(matrices)), resamples=1000, seed=0)
    assert evaluated.metrics["bootstrap"]["blocks"] == len(blocks) > 2
    for name, ends in expected.headline.items():
        assert evaluated.metrics["parcels"]["intervals"][name] == pytest.approx(ends), name
    assert evaluated.metrics["parcels"]["iou_intervals"] == [pytest.approx(ends) for ends in expected.iou]


def test_nothing_is_said_of_pixels_and_the_page_says_why(evaluated: Evaluated) -> None:
    outcome, metrics = evaluated.outcome, evaluated.metrics
    assert (outcome.overall, outcome.boundary, outcome.interior) == (None, None, None)
    assert (metrics["overall"], metrics["boundary"], metrics["interior"], metrics["by_distance"]) == (None,) * 3 + ([],)
    assert sum(row["parcels"]["scores"]["count"] for row in metrics["by_parcel_size"]) == len(evaluated.parcels)
    assert all(row["pixels"] is None for row in metrics["by_parcel_size"])
    page = outcome.report.read_text("utf-8")
    assert "How well the model classifies the parcels of the test split" in page
    assert "there is no boundary and no interior to tell apart" in page
    assert "Boundary and interior</h2>" not in page
    assert f"a chip of {SIZE} px around the pixel of the parcel" in page
    assert "Pixels" not in page.partition("<body>")[2]
    assert "simulated" in page
    assert sorted(path.name for path in outcome.folder.iterdir()) == [
        "confusion.csv",
        "confusion.png",
        "metrics.json",
        "per_parcel.parquet",
        "report.html",
    ]


@pytest.mark.slow
def test_parcels_of_a_class_that_the_model_does_not_know_are_told_and_count_nowhere(
    dataset: Path, tmp_path: Path
) -> None:
    outcome = run(card_of(dataset, codes=("c1", "c2")), tmp_path)
    every, known = parcels_of(dataset), parcels_of(dataset, known=2)
    assert outcome.parcels is not None
    assert outcome.parcels.count == len(known)
    missing = json.loads((tmp_path / "metrics.json").read_text())["not_counted"]
    assert missing["parcels"] == len(every) - len(known) > 0
    assert missing["share"] == pytest.approx(missing["parcels"] / len(every))
    assert missing["classes"] == [{"code": "c3", "name": "vine <&> grapes", "parcels": missing["parcels"]}]
    assert "labelled parcels of this split" in (tmp_path / "report.html").read_text("utf-8")


def test_parcels_that_were_never_observed_have_no_class_and_are_told(
    dataset: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    hidden = evaluated.parcels[::3]
    copy = shutil.copytree(dataset, tmp_path / "hidden")
    group = zarr.open_group(f"{copy}/cube.zarr", mode="r+")
    for one in hidden:
        group["reflectance"][:, :, one.row, one.column] = 0  # the ground around them stays
    outcome = run(card_of(copy), tmp_path / "out")
    seen = [one.parcel for one in evaluated.parcels if one not in hidden]
    assert pq.read_table(outcome.folder / "per_parcel.parquet")["parcel_id"].to_pylist() == seen
    metrics = json.loads((outcome.folder / "metrics.json").read_text())
    assert metrics["not_observed"] == {"parcels": len(hidden)}
    assert evaluated.metrics["not_observed"] == {"parcels": 0}
    assert metrics["parcels"]["scores"]["count"] == len(seen)
    assert f"{len(hidden)} labelled parcels of this split were never observed" in outcome.report.read_text("utf-8")
    assert "never observed" not in evaluated.outcome.report.read_text("utf-8")


@pytest.mark.slow
def test_several_cubes_are_counted_together(dataset: Path, evaluated: Evaluated, tmp_path: Path) -> None:
    outcome = run(card_of(dataset), tmp_path, cubes=[str(dataset)] * 2)
    assert outcome.parcels is not None
    assert outcome.parcels.count == 2 * len(evaluated.parcels)
    assert len(pq.read_table(tmp_path / "per_parcel.parquet")) == 2 * len(evaluated.parcels)


def test_cubes_without_labelled_parcels_are_refused_in_a_sentence(dataset: Path, tmp_path: Path) -> None:
    card = card_of(dataset)
    bare = shutil.copytree(dataset, tmp_path / "bare")
    (bare / "parcels.parquet").unlink()
    with pytest.raises(ValueError, match=r"bare has no parcels.parquet; give a cube that was built with parcels"):
        run(card, tmp_path / "out", cubes=[str(bare)])
    unlabelled = without_labels(dataset, tmp_path / "unlabelled")
    with pytest.raises(ValueError, match="unlabelled has no labels to evaluate with; build it with parcels"):
        run(card, tmp_path / "out", cubes=[str(unlabelled)])
    strangers = replace(card, classes=tuple(replace(entry, code=f"x{entry.index}") for entry in card.classes))
    with pytest.raises(ValueError, match="no labelled parcel of a class that the model knows lies in the test split"):
        run(strangers, tmp_path / "out")
    assert not (tmp_path / "out").exists()
