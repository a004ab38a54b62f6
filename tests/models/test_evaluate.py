"""An evaluation of a whole split, against counts made here from the whole arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from numpy.typing import NDArray
from tests.synthetic import BANDS, Synthetic

from sits_catalog.console import Narrator
from sits_models.checkpoints import Card, save_weights
from sits_models.data.classes import join_classes
from sits_models.data.cubes import open_cube
from sits_models.objectives import build_objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import BackboneRecipe, ContrastRecipe, DataRecipe, Recipe, SegmentationRecipe
from sits_models.tasks.evaluate import EvaluationOutcome, evaluate

ALWAYS = 2
"""The class that the model of these tests predicts everywhere."""
TEST = 3


def save(
    folder: Path,
    cube: str,
    *,
    bands: tuple[str, ...] = BANDS,
    contrast: bool = False,
    labels: int = 1,
    dates: int | None = None,
) -> Path:
    """Weights that give class ALWAYS to every pixel."""
    facts = open_cube(cube).facts
    dates = dates or len(facts.days)
    recipe = Recipe(
        name="tiny",
        title="Always <one> class",
        data=DataRecipe(cubes=(cube,), bands=bands, size=16, labels=labels, readers=1),  # type: ignore[arg-type]
        backbone=BackboneRecipe(name="unet3df", width=0.0625),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast else SegmentationRecipe(),
    )
    table = join_classes([open_cube(cube)], codes=None, background=True)
    mean, std = (1000.0,) * len(bands), (500.0,) * len(bands)
    objective = build_objective(
        recipe, bands=bands, dates=dates, classes=table.n, mean=mean, std=std, class_weights=None
    )
    if isinstance(objective, Segmentation):
        with torch.no_grad():
            last = [module for module in objective.head.modules() if hasattr(module, "bias")][-1]
            for parameter in last.parameters():
                parameter.zero_()
            last.bias[ALWAYS] = 1.0
    card = Card(
        recipe=recipe,
        bands=bands,
        dates=dates,
        classes=table.classes,
        radiometry=facts.radiometry,
        mean=mean,
        std=std,
    )
    save_weights(folder, objective, card)
    return folder


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and the arrays of its cube."""

    outcome: EvaluationOutcome
    metrics: dict[str, Any]
    crop: NDArray[np.int64]
    parcel: NDArray[np.int64]
    counted: NDArray[np.bool_]
    """Labelled pixels of the test split."""


def array(dataset: Synthetic, name: str) -> NDArray[np.int64]:
    return np.asarray(zarr.open_array(f"{dataset.folder.location}/cube.zarr/{name}", mode="r")[...]).astype(np.int64)


@pytest.fixture(scope="module")
def evaluated(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("evaluated")
    weights = save(folder / "weights", str(synthetic.folder.location))
    outcome = evaluate(str(weights), cubes=None, out=str(folder / "out"), narrator=Narrator())
    crop, split = array(synthetic, "crop_type"), array(synthetic, "split")
    return Evaluated(
        outcome=outcome,
        metrics=json.loads((folder / "out" / "metrics.json").read_text()),
        crop=crop,
        parcel=array(synthetic, "parcel_id"),
        counted=(split == TEST) & (crop != 65535),
    )


def supports(values: NDArray[np.int64]) -> list[int]:
    return np.bincount(values, minlength=4).tolist()


def boundary_of(crop: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The 3 x 3 rule, by looking at each of the nine shifts of the whole map."""
    padded = np.pad(crop, 1, mode="reflect")
    height, width = crop.shape
    windows = np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    return (windows != windows[4]).any(axis=0)


def test_each_labelled_pixel_of_the_split_is_counted_once(evaluated: Evaluated) -> None:
    assert evaluated.metrics["overall"]["scores"]["support"] == supports(evaluated.crop[evaluated.counted])
    assert evaluated.outcome.overall.count == evaluated.counted.sum() > 10_000


def test_all_pixels_were_given_the_class_that_the_model_always_gives(evaluated: Evaluated) -> None:
    confusion = np.array(evaluated.metrics["overall"]["confusion"])
    assert confusion[:, ALWAYS].sum() == confusion.sum() == evaluated.counted.sum()
    share = (evaluated.crop[evaluated.counted] == ALWAYS).mean()
    assert evaluated.outcome.overall.overall_accuracy == pytest.approx(share)
    assert evaluated.outcome.overall.miou == pytest.approx(share / 4)  # the other three classes have an IoU of 0


def test_boundary_is_that_of_the_whole_map_at_the_edges_of_windows_and_splits_too(evaluated: Evaluated) -> None:
    edge = boundary_of(evaluated.crop)
    found = [evaluated.metrics[part]["scores"]["support"] for part in ("boundary", "interior")]
    assert found[0] == supports(evaluated.crop[evaluated.counted & edge])
    assert found[1] == supports(evaluated.crop[evaluated.counted & ~edge])


def test_pixels_are_told_apart_by_their_distance_to_the_edge(evaluated: Evaluated) -> None:
    (band,) = evaluated.metrics["by_distance"]  # every pixel of this cube lies 5 m from an edge
    assert band["name"] == "<= 10 m"
    assert band["scores"]["count"] == evaluated.counted.sum()


def test_each_parcel_has_a_row_with_what_was_declared_and_what_was_seen(
    evaluated: Evaluated, synthetic: Synthetic
) -> None:
    table = pd.read_parquet(evaluated.outcome.folder / "per_parcel.parquet")
    inside = evaluated.counted & (evaluated.parcel > 0)
    ids, pixels = np.unique(evaluated.parcel[inside], return_counts=True)
    assert table["parcel_id"].tolist() == ids.tolist()
    assert table["n_pixels"].tolist() == pixels.tolist()
    declared = [f"c{crop}" for crop in synthetic.table.parcels.crop_type[ids - 1]]
    assert table["declared"].tolist() == declared
    assert set(table["predicted"]) == {f"c{ALWAYS}"}
    assert table["right"].tolist() == [code == f"c{ALWAYS}" for code in declared]
    assert set(table["share"]) == {1.0}
    assert table["area_ha"].tolist() == pytest.approx([5.76] * len(table))


def test_parcels_are_counted_by_majority_and_by_size(evaluated: Evaluated) -> None:
    table = pd.read_parquet(evaluated.outcome.folder / "per_parcel.parquet")
    assert evaluated.outcome.parcels is not None
    assert evaluated.outcome.parcels.count == len(table)
    assert evaluated.outcome.parcels.overall_accuracy == pytest.approx(table["right"].mean())
    (row,) = evaluated.metrics["by_parcel_size"]
    assert row["name"] == "> 5 ha"
    assert row["parcels"]["scores"]["count"] == len(table)
    assert row["pixels"]["scores"]["count"] == table["n_pixels"].sum()


def test_intervals_hold_the_score(evaluated: Evaluated) -> None:
    for part in ("overall", "boundary", "interior"):
        low, high = evaluated.metrics[part]["intervals"]["overall_accuracy"]
        assert low <= evaluated.metrics[part]["scores"]["overall_accuracy"] <= high
    assert evaluated.metrics["overall"]["iou_intervals"][0] == [0.0, 0.0]
    assert evaluated.metrics["bootstrap"]["blocks"] >= 2


def test_the_matrix_is_a_table_with_codes(evaluated: Evaluated) -> None:
    with (evaluated.outcome.folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ["0", "c1", "c2", "c3"]
    assert [row[0] for row in rows[1:]] == ["0", "c1", "c2", "c3"]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == evaluated.metrics["overall"]["confusion"]


def test_the_page_says_what_it_is_about(evaluated: Evaluated) -> None:
    page = evaluated.outcome.report.read_text()
    assert "tiny: Always &lt;one&gt; class" in page
    assert "made-up fields" in page
    assert (evaluated.outcome.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_finer_labels_are_counted_at_their_own_size(synthetic: Synthetic, tmp_path: Path) -> None:
    weights = save(tmp_path / "weights", str(synthetic.folder.location), labels=2)
    outcome = evaluate(str(weights), cubes=None, out=str(tmp_path / "out"), split="validation", narrator=Narrator())
    fine, split = array(synthetic, "labels_x2/crop_type"), array(synthetic, "split").repeat(2, 0).repeat(2, 1)
    counted = (split == 2) & (fine != 65535)
    assert list(outcome.overall.support) == supports(fine[counted])
    assert list(outcome.boundary.support) == supports(fine[counted & boundary_of(fine)])


def test_several_cubes_are_counted_together_each_parcel_by_its_own_cube(synthetic: Synthetic, tmp_path: Path) -> None:
    path = synthetic.folder.location
    weights = save(tmp_path / "weights", path, dates=8)  # longer than the cubes' series, which are padded
    once = evaluate(str(weights), cubes=[path], out=str(tmp_path / "one"), narrator=Narrator())
    twice = evaluate(str(weights), cubes=[path, path], out=str(tmp_path / "two"), narrator=Narrator())
    assert [2 * pixels for pixels in once.overall.support] == list(twice.overall.support)
    assert once.parcels is not None
    assert twice.parcels is not None
    assert twice.parcels.count == 2 * once.parcels.count
    assert twice.overall.miou == once.overall.miou


Spoil = Callable[[Path, Synthetic], tuple[str, list[str] | None, str]]


def pretrained(folder: Path, dataset: Synthetic) -> tuple[str, list[str] | None, str]:
    return str(save(folder / "w", str(dataset.folder.location), contrast=True)), None, "test"


def no_such_split(folder: Path, dataset: Synthetic) -> tuple[str, list[str] | None, str]:
    return "anywhere", None, "tset"


def no_such_cube(folder: Path, dataset: Synthetic) -> tuple[str, list[str] | None, str]:
    return str(save(folder / "w", str(dataset.folder.location))), [str(folder / "nowhere")], "test"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pretrained, "was pretrained and knows no classes yet: finetune it"),
        (no_such_split, "one of the splits train, validation, test; got 'tset'"),
        (no_such_cube, "no dataset in"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_sentence(
    spoil: Spoil, message: str, synthetic: Synthetic, tmp_path: Path
) -> None:
    weights, cubes, split = spoil(tmp_path, synthetic)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(weights, cubes=cubes, out=str(tmp_path / "out"), split=split, narrator=Narrator())
    assert not (tmp_path / "out").exists()
