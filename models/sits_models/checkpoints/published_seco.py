"""Published checkpoints of SeCo as a folder of weights, from which any finetuning on their ResNet can start."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sits_models.checkpoints.card import Card
from sits_models.checkpoints.files import save_weights
from sits_models.objectives import build_objective
from sits_models.objectives.seco_checkpoint import PUBLISHED_BANDS, objective_from_published, published_normalization
from sits_models.recipe import load_recipe

__all__ = ["convert_seco"]

_RADIOMETRY = {"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1}
"""Of the published images (COPERNICUS/S2_SR, from before baseline 04.00), which are 8 bits of reflectance x 255."""
_MODES: dict[int, Literal["moco", "seco"]] = {1: "moco", 3: "seco"}
"""By the number of sub-spaces; that moco_tp has one, too, changes no weight."""


def convert_seco(path: str | Path, folder: str | Path) -> Card:
    """Write the weights of a Lightning checkpoint of seasonal-contrast, with a card, into a folder; the card.

    Nothing that the file holds is run: what are neither tensors nor plain values become objects that do nothing. Raises
    FileNotFoundError where there is no file, FileExistsError where the folder holds something, and ValueError where the
    file is no such checkpoint.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} holds something; give --out a folder that is empty, or none yet")
    state = _read(Path(path))
    try:
        tensors = objective_from_published(state)
    except ValueError as error:
        raise ValueError(f"{path} is no checkpoint of SeCo: {error}") from error
    spaces, channels, length = state["queue"].shape
    if spaces not in _MODES:
        raise ValueError(f"{path} has {spaces} sub-spaces; a checkpoint of SeCo has 1 or 3")
    depth = 50 if "encoder_q.4.0.conv3.weight" in state else 18
    bands = PUBLISHED_BANDS
    if state["encoder_q.0.weight"].shape[1] != len(bands):
        raise ValueError(f"{path} takes {state['encoder_q.0.weight'].shape[1]} bands; a published one takes 3")
    changes = [f"backbone.name=resnet{depth}", f"seco.mode={_MODES[spaces]}"]
    recipe = load_recipe("seco-1m", changes=[*changes, f"seco.channels={channels}", f"seco.queue={length}"])
    mean, std = published_normalization()
    objective = build_objective(recipe, bands=bands, dates=1, classes=0, mean=mean, std=std)
    objective.load_state_dict({**objective.state_dict(), **tensors})
    card = Card(recipe=recipe, bands=bands, dates=1, classes=(), radiometry=_RADIOMETRY, mean=mean, std=std)
    return save_weights(target, objective, card)


class _Inert:
    """What stands for anything that a checkpoint names: it takes whatever it is given, and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors under `state_dict`, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a checkpoint of SeCo, such as seco_resnet18_1m.ckpt")
    try:
        # Of Lightning, its callbacks and settings: names that are not installed here, and that nobody asks for.
        strange = [(_Inert, name) for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)]
        with torch.serialization.safe_globals(strange):  # type: ignore[arg-type]  # a list of either kind
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from error
    state = found.get("state_dict") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} has no tensors under state_dict, as a checkpoint of Lightning has; give that of SeCo")
    return state
