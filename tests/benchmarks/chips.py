"""Reading chips: a cube's layout against a chunk a date, and the models' loader against other ways to feed a model."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.table import Table

from sits_catalog.cube import CHIP
from sits_pipeline.store import COMPRESSOR

__all__ = ["bench", "run", "run_loader"]

_DATE_CHUNK = 512
_SIZE = 48
"""Side of the chips that a model is fed with."""
_DATES = 40
_CROPS_A_BLOCK = 8


def bench(dataset: Path, folder: Path, *, chips: int, say: Callable[[str], None]) -> list[Table]:
    """The table of milliseconds a chip."""
    say("reading chips")
    copy = folder / "date-major.zarr"
    try:
        result = run_fresh(
            "tests.benchmarks.chips:run", cube=str(dataset / "cube.zarr"), copy=str(copy), chips=chips
        ).result
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    say("feeding chips")
    fed = folder / "fed"
    try:
        feeding = run_fresh(
            "tests.benchmarks.chips:run_loader", dataset=str(dataset), folder=str(fed), dates=_DATES, chips=4 * chips
        ).result
    finally:
        shutil.rmtree(fed, ignore_errors=True)
    dates, bands, height, width = result["shape"]
    own, other = result["cube"], result["date-major"]
    rows = (
        (f"cube: chunks of all dates and bands, {CHIP} px", *own.values(), 1.0),
        (f"date-major: a chunk a date, {_DATE_CHUNK} px", *other.values(), other["random"] / own["random"]),
    )
    return [
        Table(
            title=f"Chips of {CHIP} px over {dates} dates and {bands} bands, from {height} x {width} px",
            columns=("layout", "ms a random chip", "ms an aligned chip", "ms a whole date", "random, x cube"),
            rows=rows,
            notes=(f"Median of {chips} chips, one reader, files in the page cache.",),
        ),
        _loader_table(feeding),
    ]


def run(cube: str, copy: str, chips: int) -> dict[str, Any]:
    """Shape of the cube; for both layouts the median milliseconds of a random chip, an aligned one and a whole date."""
    stored: Any = zarr.open_array(f"{cube}/reflectance", mode="r")
    arrays = {"cube": stored, "date-major": _date_major(stored, copy)}
    result: dict[str, Any] = {"shape": stored.shape}
    for name, array in arrays.items():
        result[name] = {
            "random": _ms(array, _random(stored.shape, chips)),
            "aligned": _ms(array, _aligned(stored.shape, chips)),
            "date": _ms(array, ((slice(t, t + 1),) for t in range(min(3, stored.shape[0])))),
        }
    same = [np.array_equal(*(array[chip] for array in arrays.values())) for chip in _random(stored.shape, 3)]
    assert all(same), "the layouts hold different values"
    return result


def _date_major(stored: Any, copy: str) -> Any:
    _, bands, height, width = stored.shape
    array = zarr.create_array(
        copy,
        shape=stored.shape,
        chunks=(1, bands, min(_DATE_CHUNK, height), min(_DATE_CHUNK, width)),
        dtype=stored.dtype,
        fill_value=0,
        compressors=COMPRESSOR,
    )
    array[...] = stored[...]
    return array


def _random(shape: tuple[int, ...], count: int) -> Iterator[tuple[slice, ...]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        y, x = (int(rng.integers(0, size - CHIP + 1)) for size in shape[2:])
        yield slice(None), slice(None), slice(y, y + CHIP), slice(x, x + CHIP)


def _aligned(shape: tuple[int, ...], count: int) -> Iterator[tuple[slice, ...]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        y, x = (int(rng.integers(0, size // CHIP)) * CHIP for size in shape[2:])
        yield slice(None), slice(None), slice(y, y + CHIP), slice(x, x + CHIP)


def _ms(array: Any, selections: Iterator[tuple[slice, ...]]) -> float:
    times = []
    for selection in selections:
        started = time.perf_counter()
        array[selection]
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


# Feeding a model


def _loader_table(result: dict[str, Any]) -> Table:
    dates, bands = result["shape"][:2]
    return Table(
        title=f"Chips of {_SIZE} px over {dates} dates and {bands} bands, as fed to a model",
        columns=("reader", "chips/s", "x disk", "crops a block"),
        rows=tuple((row["name"], row["chips_s"], row["disk"], row["crops"]) for row in result["rows"]),
        notes=(
            "Files in the page cache; 'x disk' is their size over that of the values; our batches hold labels, "
            f"parcels, boundary and clear pixels too, and mix the chips of {result['mixed']} blocks a reader.",
        ),
    )


def run_loader(dataset: str, folder: str, dates: int, chips: int) -> dict[str, Any]:
    """Chips a second of the models' loader and of three others on the same values, the dates repeated up to `dates`."""
    import torch

    torch.set_num_threads(1)
    home = Path(folder)
    array = _longer(Path(dataset), home, dates)
    rows = [
        _timed("a pickled file a chip", home / "pickles", array, _pickles(array, home / "pickles", chips)),
        _timed("Zarr, a chunk a chip: aligned", home / "chip-chunks", array, _zarr_chips(array, home, chips, True)),
        _timed("Zarr, a chunk a chip: random", home / "chip-chunks", array, _zarr_chips(array, home, chips, False)),
        _timed(
            f"Zarr, a chunk a date of {_DATE_CHUNK} px: random",
            home / "date-major",
            array,
            _date_chips(array, home, max(4, chips // 16)),
        ),
    ]
    mixed = 0
    for readers, start in ((1, "threads"), (2, "threads"), (1, "forkserver"), (2, "forkserver")):
        row, mixed = _ours(Path(dataset), home, array.shape, readers, start)
        rows.append(row)
    return {"shape": array.shape, "rows": rows, "mixed": mixed}


def _longer(dataset: Path, home: Path, dates: int) -> Any:
    """A copy of the cube whose dates are repeated, in the layout of a cube of that many dates; returns reflectance."""
    from sits_catalog.cube import inner_chunk, shard_side

    source: Any = zarr.open_group(dataset / "cube.zarr", mode="r")
    target = zarr.open_group(home / "cube.zarr", mode="w")
    bands = source["reflectance"].shape[1]
    side = shard_side(dates, bands)
    order = np.arange(dates) % source["reflectance"].shape[0]
    for name in ("reflectance", "quality", "crop_type", "parcel_id", "boundary_distance", "split"):
        values = np.asarray(source[name][...])
        values = values[order] if values.ndim > 2 else values
        leading = inner_chunk(dates, bands)[: values.ndim - 2]
        array = target.create_array(
            name,
            shape=values.shape,
            chunks=(*leading, CHIP, CHIP),
            shards=(*values.shape[:-2], side, side) if leading in ((), (dates,), (dates, bands)) else None,
            dtype=values.dtype,
            fill_value=source[name].fill_value,
            compressors=COMPRESSOR,
        )
        array[...] = values
    return target["reflectance"]


def _bytes_under(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _timed(name: str, path: Path, array: Any, reads: Sequence[Callable[[], Any]]) -> dict[str, Any]:
    """Chips a second of these reads, after one more that warms up; `path` holds the files they read."""
    dates, bands, height, width = array.shape
    pixels = len(reads) * _SIZE**2 if path.name == "pickles" else height * width
    stored = array.dtype.itemsize * dates * bands * pixels
    reads[0]()
    started = time.perf_counter()
    for read in reads:
        read()
    seconds = time.perf_counter() - started
    return {"name": name, "chips_s": len(reads) / seconds, "disk": _bytes_under(path) / stored, "crops": None}


def _corners(shape: Sequence[int], count: int, *, aligned: bool) -> Iterator[tuple[slice, slice]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        y, x = (int(rng.integers(0, size - _SIZE + 1)) for size in shape[2:])
        if aligned:
            y, x = y // _SIZE * _SIZE, x // _SIZE * _SIZE
        yield slice(y, y + _SIZE), slice(x, x + _SIZE)


def _pickles(array: Any, folder: Path, count: int) -> list[Callable[[], Any]]:
    folder.mkdir()
    for number, window in enumerate(_corners(array.shape, count, aligned=False)):
        (folder / str(number)).write_bytes(pickle.dumps(np.ascontiguousarray(array[:, :, *window])))
    return [lambda path=folder / str(number): pickle.loads(path.read_bytes()) for number in range(count)]


def _zarr_chips(array: Any, home: Path, count: int, aligned: bool) -> list[Callable[[], Any]]:
    path = home / "chip-chunks"
    if not path.exists():
        copy = zarr.create_array(
            path,
            shape=array.shape,
            chunks=(*array.shape[:2], _SIZE, _SIZE),
            dtype=array.dtype,
            fill_value=0,
            compressors=COMPRESSOR,
        )
        copy[...] = array[...]
    chunked: Any = zarr.open_array(path, mode="r")
    windows = _corners(array.shape, count, aligned=aligned)
    return [lambda window=window: chunked[:, :, *window] for window in windows]


def _date_chips(array: Any, home: Path, count: int) -> list[Callable[[], Any]]:
    copy = _date_major(array, str(home / "date-major"))
    return [lambda window=window: copy[:, :, *window] for window in _corners(array.shape, count, aligned=False)]


def _ours(dataset: Path, home: Path, shape: Sequence[int], readers: int, start: str) -> tuple[dict[str, Any], int]:
    """The loader over all cells of the cube, so many crops a block, after two batches that warm up."""
    from sits_models.data.classes import join_classes
    from sits_models.data.cubes import Cube, open_cube
    from sits_models.data.grid import Grid
    from sits_models.data.loader import TrainingData
    from sits_models.recipe import DataRecipe

    facts = replace(open_cube(str(dataset)).facts, path=str(home), days=tuple(range(shape[0])))
    cube = Cube(facts)
    table = join_classes([cube], codes=None, background=True)
    cells = tuple(-(-size // CHIP) for size in facts.shape)
    grid = Grid(
        height=facts.shape[0],
        width=facts.shape[1],
        split=np.ones(cells, np.uint8),
        crops=np.zeros((table.n, *cells), np.int64),
        parcels=np.zeros((0, 3), np.int64),
    )
    chips = _CROPS_A_BLOCK * cells[0] * cells[1]
    recipe = DataRecipe(size=_SIZE, chips=chips, readers=readers, start=start, normalize="reflectance")  # type: ignore[arg-type]
    with TrainingData(recipe, cubes=(cube,), bands=facts.bands, table=table, grids=(grid,)) as data:
        last = data.batches_in_epoch
        if start != "threads":
            list(data.epoch(1, seed=0, start=max(0, last - 2 * readers)))
        started = time.perf_counter()
        count = sum(len(batch.place) for batch in data.epoch(0, seed=0))
        seconds = time.perf_counter() - started
        around = np.unique(data.plan(0, seed=0).around, axis=0)
        blocks = int(((around[:, 1] - around[:, 0]) * (around[:, 3] - around[:, 2])).sum())
        mixed = 4 * data._mixed()
    array = home / "cube.zarr" / "reflectance"
    return {
        "name": f"sits_models, random: {readers} {'thread' if start == 'threads' else 'process'}"
        + ("" if readers == 1 else "s" if start == "threads" else "es"),
        "chips_s": count / seconds,
        "disk": _bytes_under(array) / (2 * int(np.prod(shape))),
        "crops": count / blocks,
    }, mixed
