"""An evaluation of a whole split, against counts made here from the whole arrays."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from numpy.typing import NDArray
from tests.synthetic import BANDS, Synthetic, make_dataset
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones import list_backbones
from sits_models.backbones.base import Backbone, Needs
from sits_models.checkpoints import Card, LoadedModel, save_weights
from sits_models.data.classes import ClassTable, join_classes
from sits_models.data.cubes import open_cube
from sits_models.encoder import Encoder
from sits_models.metrics import Scores, bootstrap_scores, margins_of
from sits_models.objectives import build_objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    Recipe,
    SegmentationRecipe,
    TransformerRecipe,
)
from sits_models.sample import Sample
from sits_models.tasks.evaluate import EvaluationOutcome, evaluate
from sits_models.tasks.evaluation_windows import open_evaluation, plan_windows

TEST = 3
K = 4
BLOCK_PX = 128
DOWN, LEFT = 2, 3
"""Where the model of these tests looks, seen from the pixel whose class it gives."""


# A model whose answer is written in the pixels, and a dataset whose maps have no symmetry


class Pixels(Backbone):
    """Says of itself what the test asks for."""

    def __init__(self, *, tile_size: int | None = None, ignores_padding: bool = False) -> None:
        super().__init__()
        self.channels, self.needs, self.head = K, Needs(dates=None, size_multiple=1), "none"
        self.reach = max(DOWN, LEFT) if tile_size is None else None
        self.tile_size, self.ignores_padding = tile_size, ignores_padding

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        raise NotImplementedError


class Reader(Segmentation):
    """Reads the class of a pixel out of the first band, some pixels further down and left; 0 where nothing is seen.

    The lower left part of a pixel of class 1 is of class 2.
    """

    def __init__(self, backbone: Pixels, *, magnification: int) -> None:
        encoder = Encoder(backbone, bands=BANDS, mean=[0.0] * 4, std=[1.0] * 4, magnification=magnification)
        super().__init__(encoder, classes=K, recipe=SegmentationRecipe(), class_weights=None)
        self.dates: set[int] = set()
        self.sides: set[int] = set()

    @property
    def reach(self) -> int | None:
        return self.encoder.backbone.reach

    def forward(self, sample: Sample) -> Tensor:
        self.dates.add(sample.image.shape[1])
        self.sides.add(sample.image.shape[-1])
        predicted = read_classes(sample.image[:, 0, 0].to(torch.int64).numpy(), sample.magnification)
        return torch.nn.functional.one_hot(torch.from_numpy(predicted), K).movedim(-1, 1).float()


def read_classes(code: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """What `Reader` says of a coded band (..., H, W)."""
    seen = np.zeros_like(code)
    seen[..., :-DOWN, LEFT:] = code[..., DOWN:, :-LEFT]
    return in_parts(seen, m)


def in_parts(code: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """Codes as classes, each pixel in m x m parts; where it is of class 1, the lower left one is of class 2."""
    classes: NDArray[np.int64] = code.repeat(m, -2).repeat(m, -1) % K
    rows, columns = np.indices(classes.shape[-2:])
    return classes + ((classes == 1) & (rows % m == 1) & (columns % m == 0))


@dataclass(frozen=True)
class Maps:
    """The arrays of a dataset at the resolution of its labels, and what the model says of them."""

    folder: str
    crop: NDArray[np.int64]
    """-1: not labelled."""
    parcel: NDArray[np.int64]
    distance: NDArray[np.int64]
    counted: NDArray[np.bool_]
    """Labelled pixels of the test split."""
    predicted: NDArray[np.int64]
    area_ha: NDArray[np.float64]
    """By parcel."""
    m: int


def patches(generator: np.random.Generator, shape: tuple[int, int], side: int, high: int) -> NDArray[np.int64]:
    """Random values in rectangles of `side` x `side + 3` pixels, each row of them shifted further."""
    rows, columns = (np.indices(shape)[axis] for axis in (0, 1))
    rows, columns = rows // side, (columns + rows // side * 5) // (side + 3)
    return generator.integers(0, high, (rows.max() + 1, columns.max() + 1))[rows, columns]


def write_maps(path: Path, generator: np.random.Generator) -> None:
    """Replace labels and the first band of a dataset by random ones."""
    group = zarr.open_group(f"{path}/cube.zarr", mode="r+")
    shape = group["crop_type"].shape
    ids = pq.read_table(path / "parcels.parquet")
    areas = generator.choice([0.2, 0.7, 1.5, 3.0, 9.0], len(ids))
    place = ids.schema.get_field_index("area_ha")
    pq.write_table(ids.set_column(place, ids.schema.field(place), pa.array(areas)), path / "parcels.parquet")
    crops = patches(generator, shape, 7, K)
    for name, factor in (("", 1), ("labels_x2/", 2)):
        fine = (factor * shape[0], factor * shape[1])
        crop = np.where(generator.random(fine) < 0.01 * 5 / factor**2, 65535, in_parts(crops, factor))
        group[f"{name}crop_type"][...] = crop.astype(np.uint16)
        group[f"{name}parcel_id"][...] = patches(generator, fine, 23, len(ids) + 1).astype(np.uint32)
    distance = generator.integers(-700, 700, shape)
    group["boundary_distance"][...] = np.where(distance % 50 == 0, -32768, distance).astype(np.int16)
    # Mostly what the label says, so that scores differ from chance.
    code = patches(generator, shape, 7, K)
    labels = np.asarray(group["crop_type"][...]).astype(np.int64)
    code = np.where((labels < K) & (patches(generator, shape, 11, 3) > 0), labels, code)
    moved = np.ones(shape, np.int64)
    moved[DOWN:, :-LEFT] = code[:-DOWN, LEFT:]
    group["reflectance"][0, 0] = (moved + K).astype(np.uint16)
    (path / "config.yaml").write_text(f"splits:\n  block_m: {10 * BLOCK_PX}\n")


def read_maps(path: Path, m: int) -> Maps:
    group = zarr.open_group(f"{path}/cube.zarr", mode="r")

    def read(name: str) -> NDArray[np.int64]:
        return np.asarray(group[name][...]).astype(np.int64)

    prefix = "" if m == 1 else f"labels_x{m}/"
    crop, split = read(f"{prefix}crop_type"), read("split").repeat(m, 0).repeat(m, 1)
    shown = np.zeros(read("split").shape, bool)
    chips = pd.read_parquet(path / "chips.parquet")
    for row, column in chips[(chips["kind"] == "grid") & (chips["split"] == "test")][["row", "col"]].to_numpy():
        shown[row : row + 64, column : column + 64] = True
    areas = pd.read_parquet(path / "parcels.parquet").set_index("parcel_id")["area_ha"]
    return Maps(
        folder=str(path),
        crop=np.where(crop == 65535, -1, crop),
        parcel=read(f"{prefix}parcel_id"),
        distance=np.abs(read("boundary_distance")).repeat(m, 0).repeat(m, 1),
        counted=(split == TEST) & (crop != 65535),
        predicted=read_classes(np.where(shown, np.asarray(group["reflectance"][0, 0]).astype(np.int64), 0), m),
        area_ha=np.append(0, areas.sort_index().to_numpy()),
        m=m,
    )


@pytest.fixture(scope="module")
def dataset(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "tiny"
    shutil.copytree(synthetic.folder.location, path)
    write_maps(path, np.random.default_rng(0))
    return path


def card_of(path: Path, *, labels: int = 1, dates: int = 4, codes: tuple[str, ...] | None = None) -> Card:
    cube = open_cube(str(path))
    recipe = Recipe(
        name="tiny",
        title="Reads <the> class",
        data=DataRecipe(cubes=(str(path),), bands=BANDS, labels=labels, batch=7, size=48),  # type: ignore[arg-type]
        backbone=BackboneRecipe(name="unet3df"),
        segmentation=SegmentationRecipe(),
    )
    table = join_classes([cube], codes=codes, background=codes is None)
    zeros, ones = (0.0,) * 4, (1.0,) * 4
    return Card(
        recipe=recipe, bands=BANDS, dates=dates, classes=table.classes, radiometry=cube.facts.radiometry,
        mean=zeros, std=ones,
    )  # fmt: skip


def run(model: Reader, card: Card, out: Path, **options: Any) -> EvaluationOutcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sits_models.tasks.evaluate.load_model", lambda weights: LoadedModel(model, card))
        patch.setattr("sits_models.tasks.evaluate.find_weights", Path)
        return evaluate("weights", cubes=None, out=str(out), narrator=Narrator(), **options)


def overall_of(outcome: EvaluationOutcome) -> Scores:
    assert outcome.overall is not None
    return outcome.overall


@dataclass(frozen=True)
class Evaluated:
    outcome: EvaluationOutcome
    metrics: dict[str, Any]
    maps: Maps
    model: Reader


@pytest.fixture(scope="module", params=[1, 2], ids=["10 m", "5 m"])
def evaluated(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    out, model = tmp_path_factory.mktemp("out"), Reader(Pixels(), magnification=request.param)
    outcome = run(model, card_of(dataset, labels=request.param), out)
    metrics = json.loads((out / "metrics.json").read_text())
    return Evaluated(outcome, metrics, read_maps(dataset, request.param), model)


def confusion(maps: Maps, where: NDArray[np.bool_]) -> NDArray[np.int64]:
    kept = maps.counted & where
    pairs = Counter(zip(maps.crop[kept].tolist(), maps.predicted[kept].tolist(), strict=True))
    return np.array([[pairs[truth, guess] for guess in range(K)] for truth in range(K)])


def by_block(maps: Maps, where: NDArray[np.bool_]) -> NDArray[np.int64]:
    side = BLOCK_PX * maps.m
    rows, columns = (np.indices(maps.crop.shape)[axis] // side for axis in (0, 1))
    return np.array(
        [
            confusion(maps, where & (rows == row) & (columns == column))
            for row in range(rows.max() + 1)
            for column in range(columns.max() + 1)
        ]
    )


def boundary_of(crop: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The 3 x 3 rule, by looking at each of the nine shifts of the whole map."""
    padded = np.pad(crop, 1, mode="reflect")
    height, width = crop.shape
    windows = np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    return (windows != windows[4]).any(axis=0)


def check(group: dict[str, Any], maps: Maps, where: NDArray[np.bool_]) -> None:
    """The counts of a group, and the interval that their blocks give."""
    expected = confusion(maps, where)
    assert expected.sum() > 1000
    assert group["confusion"] == expected.tolist()
    intervals = bootstrap_scores(margins_of(by_block(maps, where)), resamples=1000, seed=0)
    for name, ends in intervals.headline.items():
        assert group["intervals"][name] == pytest.approx(ends), name


def test_the_map_has_no_symmetry_that_would_hide_a_misplaced_pixel(evaluated: Evaluated) -> None:
    maps = evaluated.maps
    everywhere = confusion(maps, maps.counted)
    side = min(maps.crop.shape)
    square = Maps(**{**vars(maps), **{n: getattr(maps, n)[:side, :side] for n in ("crop", "counted", "predicted")}})
    for turn in (np.fliplr, np.flipud, np.transpose, lambda predicted: np.roll(predicted, 1, 1)):
        turned = Maps(**{**vars(square), "predicted": turn(square.predicted)})
        assert np.trace(confusion(turned, turned.counted)) < 0.9 * np.trace(confusion(square, square.counted))
    assert np.trace(everywhere) > 0.4 * everywhere.sum()


def test_every_pixel_of_the_split_is_counted_once_with_the_class_that_the_whole_map_gives_it(
    evaluated: Evaluated,
) -> None:
    check(evaluated.metrics["overall"], evaluated.maps, evaluated.maps.counted)
    assert overall_of(evaluated.outcome).count == evaluated.maps.counted.sum() > 10_000
    blocks = by_block(evaluated.maps, evaluated.maps.counted)
    assert evaluated.metrics["bootstrap"]["blocks"] == blocks.any((1, 2)).sum() > 2
    assert evaluated.metrics["bootstrap"]["block_m"] == 1280


def test_a_window_reaches_as_far_beyond_its_grid_chip_as_the_model_looks(evaluated: Evaluated) -> None:
    assert evaluated.metrics["windows"] == {"size_px": 64 + 2 * 3, "halo_px": 3}
    assert evaluated.model.sides == {70}


def test_a_batch_of_several_windows_on_a_cpu_gives_the_logits_that_each_has_alone(dataset: Path) -> None:
    card, cube = card_of(dataset), open_cube(str(dataset))
    torch.manual_seed(0)
    backbone = BackboneRecipe(name="unet3df", width=0.0625)
    objective = build_objective(
        replace(card.recipe, backbone=backbone), bands=BANDS, dates=4, classes=K, mean=(1000.0,) * 4, std=(500.0,) * 4
    ).eval()
    assert isinstance(objective, Segmentation)
    # 1 x 48 x 48 px of a training are less than one window of 64 px and 28 around it.
    windows = plan_windows(objective, replace(card.recipe.data, batch=1))
    assert (windows.side, windows.batch) == (64 + 2 * 28, 4)
    found = []
    for batch in (1, windows.batch):
        with (
            torch.inference_mode(),
            open_evaluation([cube], objective, card, batch=batch, readers=1) as data,
        ):
            samples = islice(data.evaluation(Split.TEST, halo=windows.halo), 4 // batch)
            found.append(torch.cat([objective(sample) for sample in samples]))
    assert found[0].shape == (4, K, 120, 120)
    assert found[0].std() > 0.01
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_classes_have_intervals_from_the_same_draws(evaluated: Evaluated) -> None:
    blocks = margins_of(by_block(evaluated.maps, evaluated.maps.counted))
    expected = bootstrap_scores(blocks, resamples=1000, seed=0).iou
    assert [tuple(ends) for ends in evaluated.metrics["overall"]["iou_intervals"]] == [
        pytest.approx(ends) for ends in expected
    ]


def test_boundary_is_that_of_the_whole_map_at_the_edges_of_windows_and_splits_too(evaluated: Evaluated) -> None:
    edge = boundary_of(evaluated.maps.crop)
    check(evaluated.metrics["boundary"], evaluated.maps, edge)
    expected = confusion(evaluated.maps, ~edge)
    assert evaluated.metrics["interior"]["confusion"] == expected.tolist()
    assert expected.sum() > 100


def test_pixels_are_told_apart_by_their_distance_to_the_edge(evaluated: Evaluated) -> None:
    maps, limits = evaluated.maps, [-1, 100, 200, 500, 10_000]
    bands = evaluated.metrics["by_distance"]
    assert [band["name"] for band in bands] == ["<= 10 m", "10-20 m", "20-50 m", "> 50 m"]
    for band, low, high in zip(bands, limits, limits[1:], strict=False):
        check(band, maps, (maps.distance > low) & (maps.distance <= high))


def test_pixels_are_told_apart_by_the_size_of_their_parcel(evaluated: Evaluated) -> None:
    maps, sizes = evaluated.maps, [0.2, 0.7, 1.5, 3.0, 9.0]
    rows = evaluated.metrics["by_parcel_size"]
    assert [row["name"] for row in rows] == ["<= 0.5 ha", "0.5-1 ha", "1-2 ha", "2-5 ha", "> 5 ha"]
    for row, size in zip(rows, sizes, strict=True):
        check(row["pixels"], maps, maps.area_ha[maps.parcel] == size)


@dataclass(frozen=True)
class Voted:
    """A parcel, by looking at its pixels."""

    parcel: int
    declared: int
    predicted: int
    share: float
    pixels: int
    block: tuple[int, int]


def votes_of(maps: Maps) -> list[Voted]:
    kept, found = maps.counted & (maps.parcel > 0), []
    parcels, blocks = maps.parcel[kept], np.argwhere(kept) // (BLOCK_PX * maps.m)
    for parcel in np.unique(parcels).tolist():
        inside = parcels == parcel
        declared, predicted = (Counter(values[kept][inside].tolist()) for values in (maps.crop, maps.predicted))
        most = [min(votes, key=lambda crop, votes=votes: (-votes[crop], crop)) for votes in (declared, predicted)]
        first = min((row, column) for row, column in blocks[inside].tolist())
        share = predicted[most[1]] / inside.sum()
        found.append(Voted(parcel, most[0], most[1], share, int(inside.sum()), first))
    return found


def test_each_parcel_has_a_row_with_what_was_declared_and_what_was_seen(evaluated: Evaluated) -> None:
    table, expected = pd.read_parquet(evaluated.outcome.folder / "per_parcel.parquet"), votes_of(evaluated.maps)
    codes = [entry["code"] for entry in evaluated.metrics["classes"]]
    assert table["parcel_id"].tolist() == [one.parcel for one in expected]
    assert table["n_pixels"].tolist() == [one.pixels for one in expected]
    assert table["declared"].tolist() == [codes[one.declared] for one in expected]
    assert table["predicted"].tolist() == [codes[one.predicted] for one in expected]
    assert table["right"].tolist() == [one.declared == one.predicted for one in expected]
    assert table["share"].tolist() == pytest.approx([one.share for one in expected])
    assert table["area_ha"].tolist() == pytest.approx(evaluated.maps.area_ha[table["parcel_id"]].tolist())


def test_parcels_are_counted_by_majority_and_by_size_with_the_block_of_their_first_pixel(evaluated: Evaluated) -> None:
    expected = votes_of(evaluated.maps)

    def check_parcels(group: dict[str, Any], some: list[Voted]) -> None:
        blocks = {one.block: np.zeros((K, K), np.int64) for one in some}
        for one in some:
            blocks[one.block][one.declared, one.predicted] += 1
        ordered = np.array([blocks[key] for key in sorted(blocks)])
        assert group["confusion"] == ordered.sum(0).tolist()
        ends = bootstrap_scores(margins_of(ordered), resamples=1000, seed=0).headline["overall_accuracy"]
        assert group["intervals"]["overall_accuracy"] == pytest.approx(ends)

    check_parcels(evaluated.metrics["parcels"], expected)
    for row, size in zip(evaluated.metrics["by_parcel_size"], [0.2, 0.7, 1.5, 3.0, 9.0], strict=True):
        check_parcels(row["parcels"], [one for one in expected if evaluated.maps.area_ha[one.parcel] == size])


def test_the_matrix_is_a_table_with_codes(evaluated: Evaluated) -> None:
    with (evaluated.outcome.folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    codes = [entry["code"] for entry in evaluated.metrics["classes"]]
    assert codes[1:] == ["c1", "c2", "c3"]
    assert rows[0][1:] == [row[0] for row in rows[1:]] == codes
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == evaluated.metrics["overall"]["confusion"]


def test_the_page_says_what_it_is_about(evaluated: Evaluated) -> None:
    page = evaluated.outcome.report.read_text()
    assert "tiny: Reads &lt;the&gt; class" in page
    assert "made-up fields" in page
    assert "does not know" not in page
    assert (evaluated.outcome.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


# Whole-chip models, classes that are unknown, dates


@pytest.mark.slow
@pytest.mark.parametrize("tile", [48, 128])
def test_a_model_of_whole_chips_is_given_its_own_size(tile: int, dataset: Path, tmp_path: Path) -> None:
    model = Reader(Pixels(tile_size=tile), magnification=1)
    outcome = run(model, card_of(dataset), tmp_path)
    assert model.sides == {tile}
    assert overall_of(outcome).count == read_maps(dataset, 1).counted.sum()
    assert json.loads((tmp_path / "metrics.json").read_text())["windows"] == {"size_px": tile, "halo_px": 0}


def test_pixels_of_classes_that_the_model_does_not_know_are_counted_apart(dataset: Path, tmp_path: Path) -> None:
    card = card_of(dataset, codes=("c3", "c1"))  # neither the background nor c2
    model = Reader(Pixels(), magnification=1)
    model.forward = lambda sample: torch.zeros(len(sample.crop), 2, *sample.crop.shape[1:])  # type: ignore[method-assign]
    outcome = run(model, card, tmp_path)
    maps = read_maps(dataset, 1)
    pixels = [int((maps.crop[maps.counted] == crop).sum()) for crop in range(K)]
    found = json.loads((tmp_path / "metrics.json").read_text())["not_counted"]
    assert list(overall_of(outcome).support) == [pixels[3], pixels[1]]
    assert found["pixels"] == pixels[0] + pixels[2]
    assert found["share"] == pytest.approx((pixels[0] + pixels[2]) / sum(pixels))
    assert {entry["name"]: entry["pixels"] for entry in found["classes"]} == {
        "background": pixels[0],
        "maize": pixels[2],
    }
    page = (tmp_path / "report.html").read_text()
    assert "are of classes that the model does not know" in page
    assert f"{found['pixels']:,}".replace(",", "\u202f") in page


@pytest.mark.parametrize(("ignores", "seen"), [(False, 8), (True, 4)])
def test_series_are_padded_as_in_training_unless_the_model_sees_no_difference(
    ignores: bool, seen: int, dataset: Path, tmp_path: Path
) -> None:
    model = Reader(Pixels(ignores_padding=ignores), magnification=1)
    run(model, card_of(dataset, dates=8), tmp_path)
    assert model.dates == {seen}


@pytest.mark.slow
def test_a_held_out_cube_needs_no_train_pixels_and_no_statistics(
    synthetic: Synthetic, dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "held-out"
    shutil.copytree(dataset, path)
    group = zarr.open_group(f"{path}/cube.zarr", mode="r+")
    group["split"][...] = TEST
    group.attrs["sits_cube"] = {**group.attrs["sits_cube"], "statistics": None}  # type: ignore[dict-item]
    chips = pq.read_table(path / "chips.parquet")
    place = chips.schema.get_field_index("split")
    words = pa.array(["test"] * len(chips)).cast(chips.schema.field(place).type)
    pq.write_table(chips.set_column(place, chips.schema.field(place), words), path / "chips.parquet")
    outcome = run(Reader(Pixels(), magnification=1), card_of(path), tmp_path / "out")
    maps = read_maps(path, 1)
    assert maps.counted.sum() == (maps.crop >= 0).sum()
    assert overall_of(outcome).count == maps.counted.sum()
    assert (
        json.loads((tmp_path / "out" / "metrics.json").read_text())["overall"]["confusion"]
        == confusion(maps, maps.counted).tolist()
    )


@pytest.mark.slow
def test_several_cubes_are_counted_together_each_parcel_by_its_own_cube(dataset: Path, tmp_path: Path) -> None:
    card, model = card_of(dataset), Reader(Pixels(), magnification=1)
    once = run(model, card, tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sits_models.tasks.evaluate.load_model", lambda weights: LoadedModel(model, card))
        patch.setattr("sits_models.tasks.evaluate.find_weights", Path)
        twice = evaluate("w", cubes=[str(dataset)] * 2, out=str(tmp_path / "two"), narrator=Narrator())
    assert [2 * pixels for pixels in overall_of(once).support] == list(overall_of(twice).support)
    assert once.parcels is not None
    assert twice.parcels is not None
    assert twice.parcels.count == 2 * once.parcels.count
    assert overall_of(twice).miou == overall_of(once).miou


# Models as they are saved


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_dataset(tmp_path_factory.mktemp("small"), height=256, width=192, n_dates=8).folder.location)


def save(folder: Path, cube: str, *, backbone: str = "unet3df", contrast: bool = False, dates: int = 8) -> Path:
    """Weights of a tiny model as it is before its training."""
    facts = open_cube(cube).facts
    of_parcels, of_one_date = backbone == "tsvit_parcel", "resnet" in backbone
    rule, dates = (DateRule(pick="even", n=1), 1) if of_one_date else (DateRule(), dates)
    recipe = Recipe(
        name="tiny",
        data=DataRecipe(cubes=(cube,), bands=BANDS, size=32, readers=1, dates=rule),
        backbone=BackboneRecipe(name=backbone, width=0.0625, transformer=TransformerRecipe() if of_parcels else None),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast or of_parcels else SegmentationRecipe(),
        classification=ClassificationRecipe() if of_parcels else None,
    )
    table: ClassTable = join_classes([open_cube(cube)], codes=None, background=True)
    mean, std = (1000.0,) * 4, (500.0,) * 4
    objective = build_objective(recipe, bands=BANDS, dates=dates, classes=table.n, mean=mean, std=std)
    card = Card(
        recipe=recipe, bands=BANDS, dates=dates, classes=table.classes, radiometry=facts.radiometry, mean=mean, std=std
    )
    save_weights(folder, objective, card)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list_backbones())
def test_every_backbone_can_be_evaluated(backbone: str, small: str, tmp_path: Path) -> None:
    weights = save(tmp_path / "weights", small, backbone=backbone, dates=12)
    outcome = evaluate(str(weights), cubes=None, out=str(tmp_path / "out"), device="cpu", narrator=Narrator())
    group = zarr.open_group(f"{small}/cube.zarr", mode="r")
    crop, split = np.asarray(group["crop_type"][...]), np.asarray(group["split"][...])
    counted = (split == TEST) & (crop != 65535)
    if outcome.overall is not None:
        assert outcome.overall.count == counted.sum() > 1000
    else:
        parcels = np.unique(np.asarray(group["parcel_id"][...])[counted])
        assert outcome.parcels is not None
        assert outcome.parcels.count == (parcels > 0).sum() > 5


Spoil = Callable[[Path, str], dict[str, Any]]


def pretrained(folder: Path, cube: str) -> dict[str, Any]:
    return {"weights": str(save(folder / "w", cube, contrast=True))}


def no_such_split(folder: Path, cube: str) -> dict[str, Any]:
    return {"weights": "anywhere", "split": "tset"}


def no_such_device(folder: Path, cube: str) -> dict[str, Any]:
    return {"weights": "anywhere", "device": "cdua"}


def no_such_cube(folder: Path, cube: str) -> dict[str, Any]:
    return {"weights": str(save(folder / "w", cube)), "cubes": [str(folder / "nowhere")]}


def too_many_dates(folder: Path, cube: str) -> dict[str, Any]:
    return {"weights": str(save(folder / "w", cube, dates=4))}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pretrained, "was pretrained and knows no classes yet: finetune it"),
        (no_such_split, "one of the splits train, validation, test; got 'tset'"),
        (no_such_device, "--device is auto, cpu, cuda or cuda:<number>; got 'cdua'"),
        (no_such_cube, "no dataset in"),
        (too_many_dates, "was built for 4 dates and takes all of a cube, but this one has 8"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_sentence(
    spoil: Spoil, message: str, small: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cubes": None, **spoil(tmp_path, small)}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(**options, out=str(tmp_path / "out"), narrator=Narrator())
    assert not (tmp_path / "out").exists()
