"""Weights to share: a safetensors file, and one JSON card that rebuilds the model from it alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from sits_models.checkpoints.card import Card
from sits_models.checkpoints.fitting import load_into
from sits_models.folder import write_whole
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective

__all__ = [
    "CARD",
    "WEIGHTS",
    "LoadedModel",
    "check_tensors",
    "hash_tensors",
    "load_model",
    "read_card",
    "read_weights",
    "save_weights",
    "weights_folder",
]

WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was saved, in evaluation mode on the CPU, with its card."""

    objective: Objective
    card: Card


def save_weights(folder: str | Path, objective: Objective, card: Card) -> Card:
    """Write `weights.safetensors` and then `card.json` into a folder, each whole or not at all; the card as written."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in objective.state_dict().items()}
    complete = dataclasses.replace(card, tensors=hash_tensors(tensors), software=card.software or _software())
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_whole(target / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_whole(target / CARD, (json.dumps(complete.to_json(), indent=2) + "\n").encode())
    return complete


def read_card(folder: str | Path) -> Card:
    """The card of a folder of weights, or of a run."""
    path = weights_folder(folder) / CARD
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is no card: it should be keys with values, got {str(data)[:40]!r}")  # noqa: TRY004
    return Card.from_json(data, name=str(path))


def load_model(folder: str | Path) -> LoadedModel:
    """The model of a folder of weights, or of a run, from its two files alone.

    Raises FileNotFoundError where there are no weights, and ValueError where a byte of them is not what the card says.
    """
    card, tensors = read_weights(folder)
    objective = _built_by(card)
    report = load_into(objective, tensors, part="")
    if not report.whole:
        raise ValueError(f"the weights in {folder} are not those of the model on their card: {report}")
    return LoadedModel(objective.eval(), card)


def read_weights(folder: str | Path) -> tuple[Card, dict[str, Tensor]]:
    """Card and tensors of a folder. Raises ValueError where a tensor is not the one that the card describes."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = weights_folder(folder) / WEIGHTS
    card = read_card(folder)
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {_shown(str(error))}") from error
    except KeyError as error:
        raise ValueError(f"{path} holds tensors of the type {error}, which PyTorch does not have") from error
    hashes = hash_tensors(tensors)
    differing = sorted(name for name in {*hashes, *card.tensors} if hashes.get(name) != card.tensors.get(name))
    if differing:
        raise ValueError(
            f"{path} is not the file that its card describes ({', '.join(map(_shown, differing[:5]))}"
            f"{f' and {len(differing) - 5} more' if len(differing) > 5 else ''}); copy both files again"
        )
    return card, tensors


def _shown(text: str) -> str:
    """What a file holds, harmless wherever it is printed."""
    short = text[:200]
    return short if short.isprintable() else ascii(short)[1:-1]


def check_tensors(folder: str | Path) -> None:
    """Raises ValueError where a tensor is not, to the last byte, the one that its card describes."""
    read_weights(folder)


def weights_folder(folder: str | Path) -> Path:
    """Where the two files are: a folder of weights itself, or `weights/` of a run. Raises FileNotFoundError."""
    given = Path(folder)
    for candidate in (given, given / "weights"):
        if (candidate / CARD).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    if not given.exists():
        raise FileNotFoundError(f"no folder {given}; give a folder of weights, or of a finished run")
    if (given / "recipe.yaml").is_file():
        raise FileNotFoundError(f"the run in {given} has no weights yet; run its command again to finish it")
    raise FileNotFoundError(f"{given} holds no {WEIGHTS} with a {CARD}; give a folder of weights, or of a finished run")


def hash_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of each tensor."""
    hashes = {}
    for name, tensor in tensors.items():
        head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        hashes[name] = hashlib.sha256(head + data.tobytes()).hexdigest()
    return hashes


def _built_by(card: Card) -> Objective:
    return build_objective(
        card.recipe,
        bands=card.bands,
        dates=card.dates,
        classes=len(card.classes),
        mean=card.mean,
        std=card.std,
    )


def _software() -> dict[str, str]:
    try:
        ours = version("sits-cubes")
    except PackageNotFoundError:
        ours = "unknown"
    return {"sits-cubes": ours, "torch": str(torch.__version__), "python": platform.python_version()}
