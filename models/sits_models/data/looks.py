"""What an objective looks at: dates, then geometry, then values, drawn anew for each step."""

from __future__ import annotations

from dataclasses import replace

import torch

from sits_models.data.dates import draw_single_dates
from sits_models.data.draws import Draws
from sits_models.data.photometry import vary
from sits_models.data.views import View, draw_view
from sits_models.recipe import Geometry, Photometry, SingleDates
from sits_models.sample import Sample

__all__ = ["draw_look", "draw_single"]


def draw_look(sample: Sample, geometry: Geometry, photometry: Photometry | None, draws: Draws) -> View:
    """A view of other geometry and, unless None, of other values."""
    view = draw_view(sample, geometry, draws)
    return view if photometry is None else replace(view, sample=vary(view.sample, photometry, draws))


def draw_single(sample: Sample, options: SingleDates, draws: Draws) -> tuple[tuple[Sample, ...], torch.Tensor]:
    """`options.n` single dates of each chip, and which chips have as many, (B,) bool."""
    dates = draw_single_dates(sample, options, draws)
    return dates, torch.stack([date.valid[:, 0] for date in dates]).all(dim=0)
