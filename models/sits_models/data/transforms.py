"""Augmentations of a batch, on its device: the same for all dates, masks and labels of a chip."""

from __future__ import annotations

import torch
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.recipe import Augmentation
from sits_models.sample import Sample

__all__ = ["augment"]

REFLECTANCE = 10000.0
"""Stored value of reflectance 1."""
LARGEST = 65535.0
"""Largest stored value, which marks a saturated pixel."""


def augment(
    sample: Sample, options: Augmentation, *, generator: torch.Generator, part: slice | None = None, of: int = 0
) -> Sample:
    """The batch with other orientations, dates and values, drawn anew for each chip; the image becomes float32.

    A sample that is a `part` of a batch `of` so many chips changes as it would in the whole batch.
    The draws come from `generator` alone, a CPU generator also for a sample on a GPU; only noise is drawn on the
    sample's device, from seeds that `generator` gives, so that noise differs between kinds of device. What is not
    observed stays 0, and an observed value stays in [1, 65535]. A dropped date is padding: `valid` and `clear` are
    False and the image 0 there. `place` and `day` are as before: a turned chip keeps the corner it was cut from.
    Raises ValueError where chips that are not square are to be turned by 90 degrees.
    """
    chips = sample.image.shape[0]
    draws = Draws.of(generator, chips=chips) if part is None else Draws(generator, part, of)
    draws.check(chips)
    sample = _oriented(sample, options, draws)
    sample = sample.replace(image=sample.image.to(torch.float32))
    if options.drop_dates > 0:
        sample = _without_dates(sample, options.drop_dates, draws)
    if options.gain > 0 or options.noise > 0:
        sample = sample.replace(image=_varied(sample.image, options, draws))
    return sample


def _oriented(sample: Sample, options: Augmentation, draws: Draws) -> Sample:
    codes = _draw_orientations(sample.image.shape[0], options, draws)
    if not any(codes):
        return sample
    height, width = sample.image.shape[-2:]
    if height != width and any(code & _TRANSPOSE for code in codes):
        raise ValueError(f"rotations need square chips; got {height} x {width} px: set rotations to false")
    maps = ("image", "clear", "crop", "counted", "parcel", "boundary")
    return sample.replace(**{name: _orient(getattr(sample, name), codes) for name in maps})


# The eight symmetries of the square: a transposition or none, then a left-right and an up-down flip or none.
_TRANSPOSE, _LEFT_RIGHT, _UP_DOWN = 1, 2, 4
# Counter-clockwise by 0, 90, 180 and 270 degrees.
_ROTATIONS = torch.tensor([0, _TRANSPOSE | _UP_DOWN, _LEFT_RIGHT | _UP_DOWN, _TRANSPOSE | _LEFT_RIGHT])


def _draw_orientations(chips: int, options: Augmentation, draws: Draws) -> list[int]:
    """A symmetry for each chip."""
    codes = torch.zeros(chips, dtype=torch.int64)
    if options.rotations:
        codes = _ROTATIONS[draws.integers(4)]
    if options.flips:
        codes = codes ^ (draws.integers(4) * _LEFT_RIGHT)
    return [int(code) for code in codes]


def _orient(maps: Tensor, codes: list[int]) -> Tensor:
    """(B, ..., H, W) with each chip's symmetry applied."""
    if maps.dtype == torch.uint16:  # for which indexing and flips lack kernels
        return _orient(maps.view(torch.int16), codes).view(torch.uint16)
    out = maps.clone()
    for code in sorted(set(codes) - {0}):
        chips = torch.tensor([chip for chip, found in enumerate(codes) if found == code], device=maps.device)
        part = maps[chips]
        if code & _TRANSPOSE:
            part = part.transpose(-2, -1)
        axes = [axis for axis, bit in ((-1, _LEFT_RIGHT), (-2, _UP_DOWN)) if code & bit]
        out[chips] = part.flip(axes)
    return out


def _without_dates(sample: Sample, probability: float, draws: Draws) -> Sample:
    chances = draws.uniform(sample.valid.shape[1]).to(sample.valid.device)
    chances = chances.masked_fill(~sample.valid, -1.0)
    # The date with the largest draw stays: any date of the chip, each as likely.
    largest = chances == chances.amax(dim=1, keepdim=True)
    kept = sample.valid & ((chances >= probability) | largest)
    return sample.replace(
        valid=kept,
        image=torch.where(kept[:, :, None, None, None], sample.image, 0.0),
        clear=sample.clear & kept[:, :, None, None],
    )


def _varied(image: Tensor, options: Augmentation, draws: Draws) -> Tensor:
    values = image
    if options.gain > 0:
        factors = 1 + options.gain * draws.normal(1, image.shape[2], 1, 1)
        values = values * factors.to(image.device)
    if options.noise > 0:
        values = values + options.noise * REFLECTANCE * draws.noise(image.shape[1:], image.device)
    return torch.where(image > 0, values.clamp(1.0, LARGEST), 0.0)
