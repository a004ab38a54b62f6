"""The folder of a run: whose it is, what it holds, and how the same command knows it again."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning
import numpy as np
import torch

from sits_models.checkpoints import CARD, WEIGHTS
from sits_models.device import Rank
from sits_models.engine import CHECKPOINT, METRICS
from sits_models.folder import partial_of, write_whole
from sits_models.recipe import Recipe, dump_recipe, load_recipe

__all__ = [
    "DONE",
    "begin_run",
    "check_folder",
    "device_name",
    "identity_of",
    "is_finished",
    "seen_in",
    "threads_of",
    "write_json",
]

_RECIPE, _DATA, _ENVIRONMENT, DONE = "recipe.yaml", "data.json", "environment.json", "metrics.json"
_WHOLE = (_RECIPE, _DATA, _ENVIRONMENT, METRICS, CHECKPOINT, f"weights/{WEIGHTS}", f"weights/{CARD}", DONE)
"""What is written whole, in a run's folder."""


def check_folder(folder: Path, recipe: Recipe, described: Mapping[str, object]) -> None:
    """Raises FileExistsError where the folder holds another run or something else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give --out a folder")
    if not (folder / _RECIPE).is_file():
        # A run that was killed while it began.
        ours = {
            name for path in map(Path, (_RECIPE, _DATA, _ENVIRONMENT)) for name in (path.name, partial_of(path).name)
        }
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if strangers:
            raise FileExistsError(f"{folder} holds {strangers[0]} and no run; choose another --out")
        return
    before = load_recipe(str(folder / _RECIPE))
    differing = _differences(before, recipe)
    if differing:
        raise FileExistsError(f"{folder} holds a run of another recipe ({differing[0]}); choose another --out")
    ran = json.loads((folder / _DATA).read_text()) if (folder / _DATA).is_file() else None
    if ran is not None and identity_of(ran) != identity_of(described):
        what = "weights to start from" if ran.get("parent") != described.get("parent") else "cubes"
        raise FileExistsError(f"{folder} holds a run with other {what}; choose another --out")


def _differences(before: Recipe, now: Recipe) -> list[str]:
    """What differs between two recipes, but for the folders of the cubes: a cube that was moved is the same cube."""
    ours, theirs = (_flat(dataclasses.asdict(recipe)) for recipe in (now, before))
    free = ("title", "source", "notes", "data.cubes", "data.start")
    keys = [key for key in ours | theirs if key not in free]
    return [
        f"{key} is {theirs.get(key)} there, {ours.get(key)} here" for key in keys if ours.get(key) != theirs.get(key)
    ]


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def identity_of(described: Mapping[str, object]) -> object:
    """What of data.json decides the weights; folders do not."""
    cubes = described.get("cubes")
    hashes = [{**cube, "path": None} for cube in cubes] if isinstance(cubes, list) else cubes
    return json.loads(json.dumps({**described, "cubes": hashes}))


def begin_run(
    folder: Path, recipe: Recipe, described: Mapping[str, object], *, rank: Rank, devices: Sequence[str]
) -> None:
    """What the run is, first of all the recipe, by which the same command knows the folder again."""
    for name in _WHOLE:
        partial_of(folder / name).unlink(missing_ok=True)
    write_whole(folder / _RECIPE, dump_recipe(recipe).encode())
    write_json(folder / _DATA, described)
    # The numbers of finished epochs come from where they ran.
    where = _processes(rank, devices)
    if not ((folder / _ENVIRONMENT).is_file() and (folder / CHECKPOINT).is_file()):
        write_json(folder / _ENVIRONMENT, {**_environment(recipe), **where})
        return
    found = json.loads((folder / _ENVIRONMENT).read_text())
    resumed = found.get("resumed", [])
    if [found, *resumed][-1].get("processes", 1) != rank.of:
        rows = (folder / METRICS).read_text().splitlines() if (folder / METRICS).is_file() else []
        after = {"after_epochs": max(0, len(rows) - 1), **where, "threads": torch.get_num_threads()}
        write_json(folder / _ENVIRONMENT, {**found, "resumed": [*resumed, after]})


@contextmanager
def threads_of(folder: Path) -> Iterator[None]:
    """As many threads of torch as the run had, since it has this number of processes: sums of other parts are not equal
    to the last bit."""
    found = json.loads((folder / _ENVIRONMENT).read_text())
    before, wanted = torch.get_num_threads(), [found, *found.get("resumed", [])][-1].get("threads")
    try:
        if isinstance(wanted, int) and wanted > 0:
            torch.set_num_threads(wanted)
        yield
    finally:
        torch.set_num_threads(before)


def _environment(recipe: Recipe) -> dict[str, object]:
    """What the numbers may depend on; no name of a machine or of a person."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_name(Rank()),
        "precision": recipe.training.precision,
        "seed": recipe.training.seed,
    }


def _processes(rank: Rank, devices: Sequence[str]) -> dict[str, object]:
    """How many shared the work, on which devices, in their order."""
    backend = ("nccl" if torch.cuda.is_available() else "gloo") if rank.of > 1 else None
    return {"processes": rank.of, "machines": rank.machines, "backend": backend, "devices": list(devices)}


def device_name(rank: Rank) -> str:
    """What the device of a process is called."""
    return torch.cuda.get_device_name(rank.local) if torch.cuda.is_available() else "cpu"


def is_finished(folder: Path) -> bool:
    """Whether nothing is left to do."""
    return (folder / DONE).is_file()


def seen_in(folder: Path) -> dict[str, int | None]:
    """What the processes of a run must all see in its folder: the sizes of its recipe and its checkpoint."""
    paths = {name: folder / name for name in (_RECIPE, CHECKPOINT)}
    return {name: path.stat().st_size if path.is_file() else None for name, path in paths.items()}


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write values as a file that is there whole or not at all."""
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())
