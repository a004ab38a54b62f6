from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from tests.models.labels import without_labels
from tests.synthetic import BANDS, Synthetic, make_dataset

from sits_catalog.console import Narrator
from sits_models.checkpoints import Card, load_model, save_weights
from sits_models.data.chips import ChipReader
from sits_models.data.classes import ClassTable, CropEntry, join_classes
from sits_models.data.cubes import Cube, open_cube
from sits_models.maps import CellLogits, Computation, compute_cells
from sits_models.objectives import build_objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import BackboneRecipe, ContrastRecipe, DataRecipe, DateRule, Recipe, SegmentationRecipe, Variant
from sits_models.sample import Sample
from sits_models.tasks.predict import PredictionOutcome, predict
from sits_models.tiling import Cell, plan_tiling

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

_RUN = """
import sys
import torch
from sits_catalog.console import Narrator
from sits_models.tasks.predict import predict

torch.set_num_threads(1)
weights, cube, out, workers = sys.argv[1:5]
predict(weights, cube=cube, out=out, narrator=Narrator(), workers=int(workers), tile=int(sys.argv[5]), batch=4)
"""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(synthetic: Synthetic) -> Cube:
    """The tiny cube: 540 x 576 px, 4 dates; the last 40 columns of the first date and others are not observed."""
    return open_cube(str(synthetic.folder.path))


def make_weights(
    folder: Path,
    cube: Cube,
    *,
    name: str = "unet3df",
    bands: tuple[str, ...] = ("B04", "B02", "B08"),
    labels: int = 1,
    dates: DateRule | None = None,
    contrast: bool = False,
    variant: Variant = "paper",
    size: int = 48,
    more_classes: int = 0,
) -> Path:
    """A model of random weights, as a training would have saved it."""
    rule = dates or DateRule()
    recipe = Recipe(
        name="test",
        data=DataRecipe(bands=bands, dates=rule, labels=labels, size=size),  # type: ignore[arg-type]
        backbone=BackboneRecipe(name=name, width=0.03 if name.startswith("unet3d") else 0.125, variant=variant),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast else SegmentationRecipe(),
    )
    known = join_classes([cube], codes=("c2", "c1"), background=True).classes
    others = (
        CropEntry(index=3 + i, code=f"x{i}", name=f"crop {i}", hcat=None, colour="#123456") for i in range(more_classes)
    )
    table = ClassTable(classes=(*known, *others))
    built = {"dates": rule.n or len(cube.facts.days), "mean": (800.0,) * len(bands), "std": (500.0,) * len(bands)}
    torch.manual_seed(1)
    model = build_objective(recipe, bands=bands, classes=table.n, **built)  # type: ignore[arg-type]
    card = Card(recipe=recipe, bands=bands, classes=table.classes, radiometry=cube.facts.radiometry, **built)  # type: ignore[arg-type]
    save_weights(folder, model, card)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, dataset: Cube) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"), dataset)


def run(weights: Path, cube: Cube, out: Path, **options: object) -> PredictionOutcome:
    return predict(str(weights), cube=cube.facts.path, out=str(out), narrator=Narrator(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, weights: Path, dataset: Cube) -> tuple[Path, PredictionOutcome]:
    out = tmp_path_factory.mktemp("map")
    return out, run(weights, dataset, out, tile=184)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the summary, which holds seconds."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "prediction.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_map_of_a_cube(made: tuple[Path, PredictionOutcome], synthetic: Synthetic) -> None:
    out, outcome = made
    assert sorted(path.name for path in out.iterdir()) == [
        "map.png",
        "map.tif",
        "map.zarr",
        "parcels.parquet",
        "prediction.json",
        "probability.tif",
        "uncertainty.tif",
    ]
    with xr.open_zarr(out / "map.zarr") as opened:
        crop, probability = opened.crop_type.values, opened.probability.values
        np.testing.assert_array_equal(opened.x.values, 525_005 + 10 * np.arange(576))
    observed = (synthetic.reflectance > 0).any(axis=(0, 1))
    np.testing.assert_array_equal(crop == 65535, ~observed)
    np.testing.assert_array_equal(probability == 255, ~observed)
    # The most probable of three classes has at least a third.
    assert probability[observed].min() >= 84
    assert outcome.complete
    assert outcome.cells == 4
    assert sum(outcome.class_pixels) + outcome.empty_pixels == 540 * 576
    assert outcome.class_pixels == tuple(int((crop == index).sum()) for index in range(3))
    summary = json.loads((out / "prediction.json").read_text())
    assert summary["made_of"]["cube"] == "0" * 63 + "a"
    assert [row["code"] for row in summary["classes"]] == ["(background)", "c2", "c1"]
    with rasterio.open(out / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), crop)


def test_the_parcel_table_is_that_of_the_map(made: tuple[Path, PredictionOutcome], synthetic: Synthetic) -> None:
    out, outcome = made
    with xr.open_zarr(out / "map.zarr") as opened:
        crop = opened.crop_type.values
    table = geopandas.read_parquet(out / "parcels.parquet").set_index("parcel_id")
    assert len(table) == outcome.parcels
    # Number 100 lies inside of the first cell, 18 and 297 on the border of two.
    for number in (1, 18, 100, 297):
        votes = np.bincount(crop[(synthetic.parcel_id == number) & (crop != 65535)], minlength=3)
        assert table.loc[number].n_pixels == votes.sum()
        assert votes[int(table.loc[number].predicted)] == votes.max()
        np.testing.assert_allclose(table.loc[number].share, votes.max() / votes.sum(), rtol=1e-6)


def test_the_map_is_what_the_model_says_of_the_whole_image(
    made: tuple[Path, PredictionOutcome], weights: Path, dataset: Cube, synthetic: Synthetic
) -> None:
    model = load_model(weights).objective
    assert isinstance(model, Segmentation)
    assert model.reach is not None
    # A window of the lattice of the pooling, over the corner of four cells.
    rows, columns = slice(420, 540), slice(436, 576)
    bands = [BANDS.index(name) for name in ("B04", "B02", "B08")]
    image = torch.from_numpy(synthetic.reflectance[:, bands, rows, columns])[None]
    _, t, _, h, w = image.shape
    sample = Sample(
        image=image,
        valid=torch.ones((1, t), dtype=torch.bool),
        day=torch.tensor([dataset.facts.days], dtype=torch.int32),
        clear=torch.ones((1, t, h, w), dtype=torch.bool),
        crop=torch.full((1, h, w), -1),
        counted=torch.zeros((1, h, w), dtype=torch.bool),
        parcel=torch.zeros((1, h, w), dtype=torch.int64),
        boundary=torch.zeros((1, h, w), dtype=torch.int16),
        place=torch.zeros((1, 3), dtype=torch.int64),
        bands=("B04", "B02", "B08"),
    )
    with torch.inference_mode():
        shares = model(sample).softmax(dim=1)[0].numpy()
    inner = (slice(28, -28), slice(28, -28))
    with xr.open_zarr(made[0] / "map.zarr") as opened:
        probability = opened.probability.values[rows, columns][inner].astype(int)
        crop = opened.crop_type.values[rows, columns][inner]
    assert (np.abs(probability - 254 * shares.max(axis=0)[inner]) <= 0.51).all()
    assert (crop == shares.argmax(axis=0)[inner]).mean() > 0.999


@pytest.mark.parametrize("name", ["unet3df", "utae"])
def test_order_of_cells_and_number_of_readers_change_no_bit(name: str, tmp_path: Path, dataset: Cube) -> None:
    model = load_model(make_weights(tmp_path, dataset, name=name)).objective
    assert isinstance(model, Segmentation)
    tiling = plan_tiling(
        (130, 150),
        reach=model.reach,
        tile_size=64,
        multiple=8,
        min_size=8,
        max_pixels=1,
        tile=None if model.reach is None else 96,
        pixel_bytes=12,
    )
    # Small cells, so that there are several.
    tiling = type(tiling)(shape=(130, 150), cell=64, tile=tiling.tile, stride=tiling.stride, halo=tiling.halo)

    def computed(order: list[int], workers: int) -> dict[int, bytes]:
        computation = Computation(
            model=model,
            cube=dataset,
            table=ClassTable(join_classes([dataset], codes=("c2", "c1"), background=True).classes),
            dates=DateRule(),
            pad_to=None,
            magnification=1,
            tiling=tiling,
            batch=3,
            workers=workers,
            device=torch.device("cpu"),
            cache_mb=16,
        )
        made: dict[int, bytes] = {}
        for cell in compute_cells(computation, [tiling.cells()[number] for number in order]):
            assert not torch.is_inference_mode_enabled()
            made[cell.cell.number] = b"".join(strip.probabilities.tobytes() for strip in cell.strips())
        return made

    expected = computed(list(range(9)), 1)
    assert computed([8, 3, 0, 5, 1, 7, 2, 4, 6], 3) == expected
    assert computed([4], 2) == {4: expected[4]}


@pytest.mark.slow
def test_a_map_that_was_stopped_ends_with_the_same_bytes(
    made: tuple[Path, PredictionOutcome], weights: Path, dataset: Cube, tmp_path: Path
) -> None:
    stopped = run(weights, dataset, tmp_path / "map", tile=184, limit=1)
    assert not stopped.complete
    assert stopped.cells == 1
    # What a killed process leaves behind: a torn line and half a shard.
    with (tmp_path / "map" / "work" / "journal.jsonl").open("ab") as file:
        file.write(b'{"cell": 1, "cla')
    (tmp_path / "map/map.zarr/crop_type/c/0/1.123.partial").write_bytes(b"torn")
    finished = run(weights, dataset, tmp_path / "map", tile=184, workers=3)
    assert finished.complete
    assert hashes(tmp_path / "map") == hashes(made[0])
    # And again: nothing is left to do.
    before = (tmp_path / "map/map.tif").stat().st_mtime_ns
    assert run(weights, dataset, tmp_path / "map", tile=184) == finished
    assert (tmp_path / "map/map.tif").stat().st_mtime_ns == before


def test_strips_are_the_cell_whatever_their_height(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    logits, observed = torch.randn(3, 26, 10), np.arange(65).reshape(13, 5) % 4 > 0
    made = CellLogits(
        cell=Cell(number=0, row=0, column=0, height=13, width=5), magnification=2, logits=logits, observed=observed
    )
    (whole,) = made.strips()
    monkeypatch.setattr("sits_models.maps.compute._STRIP_BYTES", 3 * 10 * 4 * 2 * 5)
    strips = list(made.strips())
    assert [strip.rows for strip in strips] == [slice(0, 10), slice(10, 20), slice(20, 26)]
    for name in ("crop_type", "probability", "uncertainty"):
        np.testing.assert_array_equal(np.concatenate([getattr(one, name) for one in strips]), getattr(whole, name))
    np.testing.assert_array_equal(whole.crop_type == 65535, ~observed.repeat(2, 0).repeat(2, 1))


@pytest.mark.slow
def test_a_model_of_whole_chips_sees_tiles_of_the_size_it_was_trained_at(tmp_path: Path, dataset: Cube) -> None:
    small = open_cube(make_dataset(tmp_path / "cube", height=120, width=120, n_dates=2).folder.location)
    weights = make_weights(tmp_path / "weights", small, name="utae", size=32)
    run(weights, small, tmp_path / "map")
    summary = json.loads((tmp_path / "map/prediction.json").read_text())
    assert (summary["made_of"]["tile"], summary["made_of"]["stride"]) == (32, 16)


@pytest.mark.slow
def test_a_model_that_sees_padding_gets_as_much_of_it_as_in_training(tmp_path: Path) -> None:
    """The published U-TAE attends to padded dates as to others."""
    small = open_cube(make_dataset(tmp_path / "cube", height=120, width=120, n_dates=2).folder.location)
    rule = DateRule(pick="even", n=5)
    loaded = load_model(make_weights(tmp_path / "drawn", small, name="utae", dates=rule))
    model = loaded.objective
    assert isinstance(model, Segmentation)
    # So sure of itself that the difference shows in a 254th.
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter *= 8
    save_weights(tmp_path / "weights", model, loaded.card)
    run(tmp_path / "weights", small, tmp_path / "map", tile=120, probabilities=True)
    reader = ChipReader([small], table=None, bands=("B04", "B02", "B08"), dates=rule, labels=1, cache_mb=1)
    places = np.array([[0, 0, 0]])
    with torch.inference_mode():
        padded, bare = (model(reader.read(places, size=120, pad_to=dates)).softmax(dim=1)[0] for dates in (5, None))
    with xr.open_zarr(tmp_path / "map/map.zarr") as opened:
        stored = opened.probabilities.values.astype(float)
    seen = stored[0] != 255
    assert seen.any()
    assert np.abs(stored - 254 * padded.numpy())[:, seen].max() <= 0.51
    assert np.abs(stored - 254 * bare.numpy())[:, seen].max() > 2


@pytest.mark.slow
def test_a_cube_that_was_read_again_is_another_cube(tmp_path: Path) -> None:
    folder = tmp_path / "cube"
    small = open_cube(make_dataset(folder, height=120, width=120, n_dates=4).folder.location)
    weights = make_weights(tmp_path / "weights", small)
    run(weights, small, tmp_path / "map")
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind": "files", "journal_sha256": "another"}\n')
    with pytest.raises(FileExistsError, match=r"begun otherwise \(journal .*, now .*\)"):
        run(weights, small, tmp_path / "map")
    root = json.loads((folder / "cube.zarr/zarr.json").read_text())
    assert root["attributes"]["sits_cube"]["complete"] is False
    root["attributes"]["sits_cube"]["complete"] = True
    (folder / "cube.zarr/zarr.json").write_text(json.dumps(root))
    with pytest.raises(FileExistsError, match=r"complete False, now True"):
        run(weights, small, tmp_path / "map")


def test_a_map_of_other_weights_is_not_gone_on_with(
    made: tuple[Path, PredictionOutcome], dataset: Cube, tmp_path: Path
) -> None:
    other = make_weights(tmp_path / "other", dataset, dates=DateRule(pick="first", n=4))
    model = load_model(other)
    with torch.no_grad():
        next(model.objective.parameters()).add_(1)
    save_weights(other, model.objective, model.card)
    with pytest.raises(FileExistsError, match=r"begun otherwise \(weights .*, now .*\); choose another --out"):
        run(other, dataset, made[0], tile=184)


def test_a_cube_of_other_bands_is_refused(tmp_path: Path, dataset: Cube) -> None:
    weights = make_weights(tmp_path / "weights", dataset, bands=("B02", "B11", "B12"))
    with pytest.raises(ValueError, match="B11, B12"):
        run(weights, dataset, tmp_path / "map")
    assert not (tmp_path / "map").exists()


def test_weights_of_a_pretraining_make_no_map(tmp_path: Path, dataset: Cube) -> None:
    with pytest.raises(ValueError, match="pretraining, which knows no classes; finetune them first"):
        run(make_weights(tmp_path, dataset, contrast=True), dataset, tmp_path / "map")


@pytest.mark.slow
def test_a_cube_with_more_dates_than_the_model_takes_is_refused(tmp_path: Path, dataset: Cube) -> None:
    longer = open_cube(make_dataset(tmp_path / "longer", height=120, width=120, n_dates=8).folder.location)
    weights = make_weights(tmp_path / "weights", dataset)
    with pytest.raises(ValueError, match="built for 4 dates and takes all of a cube, but this one has 8"):
        run(weights, longer, tmp_path / "map")
    even = make_weights(tmp_path / "even", dataset, dates=DateRule(pick="even", n=4))
    assert run(even, longer, tmp_path / "map").complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "--batch is at least 1; got 0"),
        ({"workers": 0}, "--workers is at least 1; got 0"),
        ({"device": "quantum"}, "--device is auto, cpu, cuda or cuda:<number>; got 'quantum'"),
        ({"tile": 57}, "multiples of 4; got --tile 57"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, object], message: str, weights: Path, dataset: Cube, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(weights, dataset, tmp_path / "map", **options)


@pytest.mark.slow
def test_finer_labels_make_a_finer_map(tmp_path: Path, dataset: Cube) -> None:
    weights = make_weights(tmp_path / "weights", dataset, labels=2)
    outcome = run(weights, dataset, tmp_path / "map", limit=1, tile=184, probabilities=True)
    assert outcome.cells == 1
    with xr.open_zarr(tmp_path / "map/map.zarr") as opened:
        assert opened.crop_type.shape == (1080, 1152)
        assert opened.x.values[1] - opened.x.values[0] == 5
        assert (opened.crop_type.values[:1024, 200:900] < 3).all()
        total = opened.probabilities.values[:, :1024, 200:900].astype(int).sum(axis=0)
    # Each is rounded.
    assert (np.abs(total - 254) <= 2).all()


@pytest.mark.slow
def test_a_cube_without_labels_is_mapped_too(tmp_path: Path, weights: Path, synthetic: Synthetic) -> None:
    bare = without_labels(synthetic.folder.location, tmp_path / "bare")
    outcome = run(weights, open_cube(str(bare)), tmp_path / "map", tile=184)
    assert outcome.complete
    assert outcome.parcels == 0
    assert not (tmp_path / "map/parcels.parquet").exists()
    assert (tmp_path / "map/map.png").is_file()


# A process that dies at any of its writes


class _Killed(BaseException):
    """No handler of exceptions sees a process die."""


class _Death:
    """Watches the writes below a folder; from a number on, each of them fails, since a dead process writes nothing."""

    def __init__(self) -> None:
        self.folder = ""
        self.left = 0
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if str(arguments[0]).startswith(self.folder):
            self.seen += 1
            if self.seen > self.left:
                raise _Killed

    @contextmanager
    def after(self, writes: int, folder: Path) -> Iterator[None]:
        self.folder, self.left, self.seen = str(folder), writes, 0
        try:
            yield
        finally:
            self.folder = ""


@pytest.fixture(scope="module")
def death() -> _Death:
    hook = _Death()
    sys.addaudithook(hook)
    return hook


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cube]:
    """Weights, and a cube of one cell."""
    folder = tmp_path_factory.mktemp("small")
    cube = open_cube(make_dataset(folder / "cube", height=120, width=120, n_dates=4).folder.location)
    return make_weights(folder / "weights", cube), cube


def die_after(writes: list[int], death: _Death, small: tuple[Path, Cube], folder: Path) -> None:
    """The map is the same when its first run dies after so many writes and the second does not."""
    weights, cube = small
    run(weights, cube, folder / "whole")
    expected = hashes(folder / "whole")
    for number in writes:
        out = folder / f"dead-{number}"
        with death.after(number, out), pytest.raises(_Killed):
            run(weights, cube, out)
        assert run(weights, cube, out).complete
        assert hashes(out) == expected, f"after {number} writes"
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_map_whose_beginning_failed_is_finished_by_the_same_command(
    death: _Death, small: tuple[Path, Cube], tmp_path: Path
) -> None:
    # Before it says what it is made of, and with half an empty map.
    die_after([2, 9], death, small, tmp_path)


@pytest.mark.slow
def test_what_is_left_of_the_work_of_a_finished_map_goes(
    death: _Death, small: tuple[Path, Cube], tmp_path: Path
) -> None:
    weights, cube = small
    with death.after(10**9, tmp_path / "map"):
        run(weights, cube, tmp_path / "map")
    # The last writes remove the folder `work`, which holds two files and a folder of one in one.
    die_after([death.seen - 3], death, small, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.soak) for part in (1, 2, 3))])
def test_a_map_that_died_at_any_write_ends_with_the_same_bytes(
    part: int, death: _Death, small: tuple[Path, Cube], tmp_path: Path
) -> None:
    weights, cube = small
    with death.after(10**9, tmp_path / "map"):
        run(weights, cube, tmp_path / "map")
    die_after(list(range(part, death.seen, 4)), death, small, tmp_path)


# Real processes


def started(weights: Path, cube: Cube, out: Path, *, workers: int = 2, tile: int = 120) -> subprocess.Popen[bytes]:
    arguments = [str(weights), cube.facts.path, str(out), str(workers), str(tile)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", _RUN, *arguments], env=environment, start_new_session=True)


@pytest.mark.slow
def test_a_map_that_was_killed_ends_with_the_same_bytes(weights: Path, dataset: Cube, tmp_path: Path) -> None:
    assert started(weights, dataset, tmp_path / "whole").wait() == 0
    journal = tmp_path / "killed" / "work" / "journal.jsonl"
    for lines in (1, 2):
        process = started(weights, dataset, tmp_path / "killed", workers=1)
        while process.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < lines):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert journal.exists(), "the map was finished before it could be killed"
    assert started(weights, dataset, tmp_path / "killed", workers=3).wait() == 0
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


_MEMORY = """
import sys
import torch
from sits_catalog.console import Narrator
from sits_models.tasks.predict import predict

torch.set_num_threads(1)
weights, cube, out = sys.argv[1:4]
predict(weights, cube=cube, out=out, narrator=Narrator(), tile=184, batch=1, device="cpu")
# Not ru_maxrss, which a process inherits from the one that started it.
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.soak
def test_memory_is_the_same_for_8_times_the_area(tmp_path: Path, dataset: Cube) -> None:
    """The larger map's logits would take 99 MB more and its reflectance 50 MB; the pictures are of one size."""
    weights = make_weights(tmp_path / "weights", dataset, more_classes=9)

    def peak(side: int) -> float:
        cube = make_dataset(tmp_path / f"cube-{side}", height=side, width=side, n_dates=4).folder.location
        command = [sys.executable, "-c", _MEMORY, str(weights), cube, str(tmp_path / f"map-{side}")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return int(done.stdout) / 1024

    with ThreadPoolExecutor(2) as pool:
        peaks = list(pool.map(peak, (540, 1536)))
    assert peaks[1] < peaks[0] + 30, f"{peaks} MiB"
