"""The table of parcels that a model of one class a parcel makes of a cube."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
import zarr
from tests.models.commands import assert_refused, sits_model
from tests.models.labels import without_labels
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import Card, save_weights
from sits_models.data.classes import join_classes
from sits_models.data.cubes import open_cube
from sits_models.data.loader import EvaluationData
from sits_models.objectives import Classification, build_objective
from sits_models.recipe import BackboneRecipe, ClassificationRecipe, DataRecipe, DateRule, Recipe
from sits_models.tasks.evaluate import evaluate
from sits_models.tasks.predict import PredictionOutcome, predict

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

SIZE, TEST = 16, 3


@pytest.fixture(scope="module")
def dataset(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset, of which nothing was ever observed in the lower right corner."""
    path = tmp_path_factory.mktemp("parcels") / "tiny"
    shutil.copytree(synthetic.folder.location, path)
    group = zarr.open_group(f"{path}/cube.zarr", mode="r+")
    group["reflectance"][:, :, 488:, 518:] = 0
    return path


@pytest.fixture(scope="module")
def weights(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of random weights that knows two of the three classes."""
    cube, folder = open_cube(str(dataset)), tmp_path_factory.mktemp("weights")
    bands = ("B04", "B08")
    recipe = Recipe(
        name="tiny",
        data=DataRecipe(cubes=(str(dataset),), bands=bands, size=SIZE, batch=8, sampling="middle", background=False),
        backbone=BackboneRecipe(name="unet3df", width=0.0625),
        classification=ClassificationRecipe(),
    )
    table = join_classes([cube], codes=("c1", "c2"), background=False)
    built = {"dates": 4, "mean": (500.0, 3100.0), "std": (100.0, 800.0)}
    torch.manual_seed(1)
    model = build_objective(recipe, bands=bands, classes=2, **built)  # type: ignore[arg-type]
    assert isinstance(model, Classification)
    card = Card(recipe=recipe, bands=bands, classes=table.classes, radiometry=cube.facts.radiometry, **built)  # type: ignore[arg-type]
    with torch.no_grad():
        # So that random weights do not say the same of all: half of some parcels is of either class.
        assert isinstance(model.head, torch.nn.Linear)
        model.head.weight.mul_(30)
        with EvaluationData.open(
            [cube], table=table, bands=bands, dates=DateRule(), labels=1, batch=200, pad_to=4
        ) as data:
            (sample,) = data.parcels(Split.VALIDATION, size=SIZE)
        logits = model.eval()(sample)
        model.head.bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    save_weights(folder, model, card)
    return str(folder)


def run(weights: str, cube: Path, out: Path, **options: object) -> PredictionOutcome:
    return predict(weights, cube=str(cube), out=str(out), narrator=Narrator(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(weights: str, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PredictionOutcome]:
    out = tmp_path_factory.mktemp("out")
    return out, run(weights, dataset, out)


def test_every_parcel_of_the_cube_has_a_row_with_a_class_where_it_was_seen(
    made: tuple[Path, PredictionOutcome], synthetic: Synthetic, dataset: Path
) -> None:
    out, outcome = made
    assert sorted(path.name for path in out.iterdir()) == ["parcels.parquet", "prediction.json"]
    table = geopandas.read_parquet(out / "parcels.parquet")
    before = geopandas.read_parquet(dataset / "parcels.parquet")
    assert table["parcel_id"].tolist() == before["parcel_id"].tolist()
    assert table.crs == before.crs
    assert table.geometry.equals(before.geometry)
    for row in table.itertuples():
        pixels = np.argwhere(synthetic.parcel_id == row.parcel_id)
        if not len(pixels):
            # A sliver that wins no pixel.
            assert np.isnan([row.row, row.predicted, row.probability]).all()
            continue
        middle = pixels[np.argmin(((pixels - pixels.mean(0)) ** 2).sum(1))].tolist()
        assert [row.row, row.column] == middle
        # A parcel that was never observed, though ground beside it was.
        hidden = middle[0] >= 488 and middle[1] >= 518
        assert np.isnan(row.predicted) == hidden
    seen = table[table["predicted"].notna()]
    assert 1 <= len(table) - len(seen) - 1 < 20
    unseen = table[table["predicted"].isna() & table["row"].notna()]
    assert ((unseen["row"] < 488 + SIZE // 2) | (unseen["column"] < 518 + SIZE // 2)).any()
    assert len(set(seen["predicted"])) == 2
    # Of two classes the probabilities sum up to 1, and the first is the larger.
    np.testing.assert_allclose(seen["probability"] + seen["second_probability"], 1, rtol=1e-6)
    assert (seen["probability"] >= 0.5).all()
    assert (seen["second_code"] != seen["predicted_code"]).all()
    agreeing = seen[seen["declared_code"].isin(["c1", "c2"])]
    assert (agreeing["agrees"] == (agreeing["declared_code"] == agreeing["predicted_code"])).all()
    assert seen.loc[seen["declared_code"] == "c3", "agrees"].isna().all()
    counts = seen["predicted"].value_counts()
    assert outcome.class_parcels == (counts[0], counts[1])
    assert (outcome.parcels, outcome.tiles, outcome.cells) == (len(before), len(before) - 1, 4)
    assert outcome.class_pixels == ()


def test_a_parcel_has_the_class_that_an_evaluation_gives_it(
    made: tuple[Path, PredictionOutcome], weights: str, dataset: Path, tmp_path: Path
) -> None:
    evaluate(weights, cubes=None, out=str(tmp_path), narrator=Narrator())
    evaluated = pq.read_table(tmp_path / "per_parcel.parquet").to_pandas().set_index("parcel_id")
    table = geopandas.read_parquet(made[0] / "parcels.parquet").set_index("parcel_id").loc[evaluated.index]
    # Where the whole window lies in the split both see the same ground.
    chips = open_cube(str(dataset)).chips(["row", "col", "split"], kind="grid")
    shown = np.pad(np.zeros((540, 576), bool), SIZE, constant_values=True)
    for row, column in chips.loc[chips["split"] == "test", ["row", "col"]].to_numpy():
        shown[SIZE + row : SIZE + row + 64, SIZE + column : SIZE + column + 64] = True
    half = SIZE // 2
    same = [
        bool(shown[SIZE + y - half : SIZE + y + half, SIZE + x - half : SIZE + x + half].all()) and y == b and x == a
        for y, x, b, a in zip(evaluated["row"], evaluated["column"], table["row"], table["column"], strict=True)
    ]
    both = table[same], evaluated[same]
    assert len(both[0]) > 10
    assert set(both[0]["predicted"]) == {0, 1}
    assert both[0]["predicted_code"].tolist() == both[1]["predicted"].tolist()
    np.testing.assert_allclose(both[0]["probability"], both[1]["probability"], rtol=1e-5)


def test_a_prediction_that_was_interrupted_goes_on_to_the_same_bytes(
    made: tuple[Path, PredictionOutcome], weights: str, dataset: Path, tmp_path: Path
) -> None:
    first = run(weights, dataset, tmp_path, limit=1)
    assert (first.complete, first.cells, first.parcels) == (False, 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    with pytest.raises(FileExistsError, match=r"was begun otherwise \(batch 8, now 3\)"):
        run(weights, dataset, tmp_path, batch=3)
    second = run(weights, dataset, tmp_path, workers=1)
    assert second.complete
    assert (second.tiles, second.class_parcels) == (made[1].tiles, made[1].class_parcels)
    whole = [hashlib.sha256((folder / "parcels.parquet").read_bytes()).hexdigest() for folder in (tmp_path, made[0])]
    assert whole[0] == whole[1]
    # Done once, it is not done again.
    assert run(weights, dataset, tmp_path).seconds == second.seconds


def test_what_cannot_be_classified_is_refused_in_a_sentence_and_nothing_is_written(
    weights: str, dataset: Path, tmp_path: Path
) -> None:
    bare = without_labels(dataset, tmp_path / "bare")
    torn = shutil.copytree(dataset, tmp_path / "torn")
    (torn / "parcels.parquet").unlink()
    options = ("predict", "--weights", weights, "--out", tmp_path / "out", "--cube")
    assert_refused(sits_model(*options, bare), "bare has no parcels, and this model gives one class to a parcel")
    assert_refused(sits_model(*options, torn), "torn has no parcels.parquet; give a cube that was built with parcels")
    assert_refused(sits_model(*options, dataset, "--tile", 64), "--tile is for maps", "leave it out")
    assert_refused(sits_model(*options, dataset, "--probabilities"), "--probabilities is for maps", "leave it out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_classification_is_learnt_measured_and_applied_from_the_command_line(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    recipe = {
        "name": "parcels",
        "data": {"size": 8, "batch": 8, "sampling": "middle", "background": False},
        "backbone": {"name": "unet3df", "width": 0.0625},
        "classification": {"weights": "inverse_frequency"},
        "training": {"epochs": 4, "learning_rate": 0.02, "schedule": "constant"},
    }
    (tmp_path / "parcels.yaml").write_text(yaml.safe_dump(recipe))
    cube, out = synthetic.folder.location, tmp_path / "run"
    bare = without_labels(cube, tmp_path / "bare")
    options = ("finetune", "--recipe", tmp_path / "parcels.yaml", "--out", out, "--cube")
    assert_refused(sits_model(*options, bare), "no labels in", "classes need a labelled cube")
    trained = sits_model(*options, cube, "--json")
    assert trained.code == 0, trained.stderr
    metrics = json.loads(trained.stdout)["metrics"]
    assert metrics["validation_overall_accuracy"] > 0.5
    measured = sits_model("evaluate", "--weights", out)
    assert measured.code == 0, measured.stderr
    assert measured.stdout.startswith("parcels   mIoU ")
    assert "overall  " not in measured.stdout
    scores = json.loads((out / "evaluation-test/metrics.json").read_text())["parcels"]["scores"]
    # Simulated parcels of three classes, as many of each: chance is 1/3.
    assert scores["overall_accuracy"] > 0.5
    known = np.isin(synthetic.table.parcels.crop_type, (1, 2, 3)) & (synthetic.n_pixels > 0)
    assert scores["count"] == (known & (synthetic.split == TEST)).sum()
    applied = sits_model("predict", "--weights", out, "--cube", cube)
    assert applied.code == 0, applied.stderr
    n = len(synthetic.table.parcels.parcel_id)
    assert applied.stdout.startswith(f"{out / 'map'}: {n - 1} of {n} parcels classified\n")
    table = geopandas.read_parquet(out / "map/parcels.parquet")
    assert table.loc[table["agrees"].notna(), "agrees"].mean() > 0.5
