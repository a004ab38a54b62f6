"""What weights give for an input that anybody can make again: stored beside them, and compared wherever they land."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sits_catalog.cube import BOUNDARY_UNKNOWN
from sits_models.checkpoints import Card, LoadedModel, Probe
from sits_models.objectives import Objective
from sits_models.objectives.chip_embeddings import JOINED_STRIDE, embed_maps, leaves_decoder_out
from sits_models.sample import IGNORE_INDEX, Sample
from sits_models.zoo.dates import dates_taken
from sits_models.zoo.entry import LOGITS

__all__ = ["TOLERANCE", "compare_logits", "compute_logits", "make_probe", "probe_sample", "write_logits"]

TOLERANCE = 1e-4
"""Largest difference that counts as equal, over the largest stored value: sums on other machines differ that much."""
_SIDE, _COARSE_SIDE = 16, 64
"""Pixels, of models that keep the resolution and of those that do not."""
_FEW_DATES = 3
"""Of so few none is spared for padding."""
_FIRST_DAY, _YEAR = 18_993, 360
"""2022-01-01; the dates are spread over so many days."""
_GAP, _BRIGHTEST = 17, 6_000


def make_probe(objective: Objective, card: Card) -> Probe:
    """A small input that meets all of a model: wide enough for each convolution, and with dates that are none."""
    backbone = objective.encoder.backbone
    needs = backbone.needs
    # A change shows its backbone one of two dates at a time.
    dates = dates_taken(card) if card.recipe.change is not None else needs.dates or card.dates
    dilation = max((max(part.dilation) for part in backbone.modules() if isinstance(part, nn.Conv2d)), default=1)
    least = _SIDE if backbone.stride <= 1 else _COARSE_SIDE
    if dilation > 1:
        # Of a dilated convolution on fewer pixels only the middle counts.
        least = max(least, JOINED_STRIDE * (dilation + 1))
    return Probe(dates=dates, side=needs.size or needs.side_for(least), padding=dates // 4 if dates > _FEW_DATES else 0)


def probe_sample(probe: Probe, bands: tuple[str, ...]) -> Sample:
    """The input of a probe.

    Its integers are the first 16 bit numbers, little-endian, of SHAKE-256 over "sits-logits SEED", in the order (chip,
    date, band, row, column): a multiple of 17 is not observed (0), any other number n is 1 + n modulo 6000. Days begin
    with 2022-01-01 and are 360 // dates apart, at least 1. The last `padding` dates of the last chip are not valid, but
    keep their numbers, so that a model that looks at them is noticed.
    """
    b, t, c, side = probe.chips, probe.dates, len(bands), probe.side
    stream = hashlib.shake_256(f"sits-logits {probe.seed}".encode()).digest(2 * b * t * c * side * side)
    numbers = np.frombuffer(stream, "<u2").reshape(b, t, c, side, side)
    stored = np.where(numbers % _GAP == 0, 0, 1 + numbers % _BRIGHTEST).astype(np.uint16)
    days = _FIRST_DAY + max(1, _YEAR // t) * torch.arange(t, dtype=torch.int32)
    valid = torch.ones(b, t, dtype=torch.bool)
    valid[-1, t - probe.padding :] = False
    labels = torch.full((b, side, side), IGNORE_INDEX)
    return Sample(
        image=torch.from_numpy(stored),
        valid=valid,
        day=days.expand(b, t).contiguous(),
        clear=torch.from_numpy((stored > 0).all(axis=2)),
        crop=labels,
        counted=torch.zeros_like(labels, dtype=torch.bool),
        parcel=torch.zeros_like(labels),
        boundary=torch.full((b, side, side), BOUNDARY_UNKNOWN, dtype=torch.int16),
        place=torch.zeros(b, 3, dtype=torch.int64),
        bands=bands,
    )


def compute_logits(objective: Objective, card: Card, probe: Probe) -> dict[str, Tensor]:
    """What a model gives for a probe: its `logits`, or its `embedding` where it was pretrained and knows no classes; of
    a DeepLab whose decoder was not trained the joined branches."""
    sample = probe_sample(probe, card.bands)
    objective.eval()
    with torch.inference_mode():
        if leaves_decoder_out(card.recipe):
            return {"embedding": embed_maps(objective.encoder, sample)[1].contiguous()}
        if card.recipe.pretrains:
            return {"embedding": objective.encoder(sample).contiguous()}
        return {"logits": objective(sample).contiguous()}


def write_logits(path: Path, values: Mapping[str, Tensor]) -> None:
    """Write them as safetensors."""
    from safetensors.torch import save

    path.write_bytes(save({name: tensor.clone() for name, tensor in values.items()}, metadata={"format": "pt"}))


def compare_logits(folder: Path, model: LoadedModel) -> str | None:
    """How the model differs from what is stored beside it, in one sentence; None where it does not."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if model.card.probe is None:
        return "the card says not what the stored logits are of; push the weights again"
    try:
        stored = load((folder / LOGITS).read_bytes())
    except (SafetensorError, FileNotFoundError) as error:
        return f"{LOGITS} cannot be read: {error}"
    computed = compute_logits(model.objective, model.card, model.card.probe)
    for name, ours in computed.items():
        theirs = stored.get(name)
        if theirs is None or theirs.shape != ours.shape:
            found = "none" if theirs is None else str(tuple(theirs.shape))
            return f"{LOGITS} should hold {name} of the shape {tuple(ours.shape)}; it holds {found}"
        largest, apart = float(theirs.abs().max()), float((ours - theirs).abs().max())
        # Not "more than": the difference to NaN is no number.
        if not apart <= TOLERANCE * largest:
            return f"the weights give other {name} than were stored: {apart:.3g} apart, the largest being {largest:.3g}"
    return None
