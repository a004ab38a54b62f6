"""Which dates of its series a view shows, drawn anew for each chip."""

from __future__ import annotations

import torch
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.recipe.views import DateSubset, SingleDates
from sits_models.sample import Sample

__all__ = ["draw_dates", "draw_single_dates"]


def draw_dates(sample: Sample, options: DateSubset, draws: Draws) -> Sample:
    """(B, T', ...): dates of each chip, any subset as likely, in order; padding stands behind them.

    Padding has the values of the cube's: `valid` and `clear` False, image and day 0.
    """
    draws.check(len(sample.valid))
    t = sample.valid.shape[1]
    chances, keys = draws.uniform(t), draws.uniform(t)
    n = t
    if options.most is not None:
        least = options.most if options.least is None else options.least
        n = least + draws.shared_integer(options.most - least + 1)
    valid = sample.valid
    chances = chances.to(valid.device).masked_fill(~valid, -1.0)
    largest = chances == chances.amax(dim=1, keepdim=True)
    kept = valid & ((chances >= options.drop) | largest)
    first = keys.to(valid.device).masked_fill(~kept, 2.0).argsort(dim=1, stable=True)[:, :n]
    chosen = kept.gather(1, first)
    # In the order of the series, what is padding behind all dates.
    order = first.masked_fill(~chosen, t).argsort(dim=1, stable=True)
    found = take_dates(sample, first.gather(1, order), chosen.gather(1, order))
    return found if n <= t else _padded(found, n - t)


def draw_single_dates(sample: Sample, options: SingleDates, draws: Draws) -> tuple[Sample, ...]:
    """n samples of T = 1, any of the chip's dates that are clear enough as likely.

    They are distinct dates, or each drawn from all. Where a chip has too few, the last samples hold padding for it:
    `valid` False and the image 0.
    """
    draws.check(len(sample.valid))
    t, device = sample.valid.shape[1], sample.valid.device
    share = sample.clear.flatten(2).to(torch.float32).mean(dim=2)  # (B, T)
    choice = sample.valid & (share >= options.clear)
    if options.again:
        number = choice.sum(dim=1, keepdim=True)
        drawn = (draws.uniform(options.n).to(device) * number).to(torch.int64)
        candidates = (~choice).to(torch.int8).argsort(dim=1, stable=True)
        chosen = candidates.gather(1, torch.minimum(drawn, (number - 1).clamp(min=0)))
    else:
        keys = draws.uniform(t).to(device).masked_fill(~choice, 2.0)
        chosen = keys.argsort(dim=1, stable=True)[:, : options.n]
        # With fewer dates than are asked for, the first stands, as padding, for what lacks.
        missing = chosen[:, :1].expand(-1, options.n - chosen.shape[1])
        chosen = torch.cat([chosen, missing], dim=1)
    good = choice.gather(1, chosen)
    if not options.again:
        good = good & (torch.arange(options.n, device=device) < t)
    return tuple(take_dates(sample, chosen[:, i : i + 1], good[:, i : i + 1]) for i in range(options.n))


def take_dates(sample: Sample, chosen: Tensor, valid: Tensor) -> Sample:
    """The dates of the numbers `chosen` (B, T'), padding where `valid` (B, T') is False."""
    chip = torch.arange(len(chosen), device=chosen.device)[:, None]
    image = sample.image
    if image.dtype == torch.uint16:  # for which indexing lacks kernels
        picked = image.view(torch.int16)[chip, chosen].masked_fill_(~valid[:, :, None, None, None], 0)
        picked = picked.view(torch.uint16)
    else:
        picked = image[chip, chosen].masked_fill_(~valid[:, :, None, None, None], 0)
    return sample.replace(
        image=picked,
        valid=valid,
        day=sample.day[chip, chosen].masked_fill_(~valid, 0),
        clear=sample.clear[chip, chosen] & valid[:, :, None, None],
    )


def _padded(sample: Sample, more: int) -> Sample:
    def longer(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros((len(tensor), more, *tensor.shape[2:]))], dim=1)

    return sample.replace(
        image=longer(sample.image), valid=longer(sample.valid), day=longer(sample.day), clear=longer(sample.clear)
    )
