"""Batches made up from a seed."""

from __future__ import annotations

import torch

from sits_models.sample import IGNORE_INDEX, Sample


def make_sample(
    *,
    batch: int = 2,
    dates: int = 4,
    bands: tuple[str, ...] = ("B02", "B03", "B04"),
    size: int = 16,
    magnification: int = 1,
    classes: int = 5,
    padded: int = 0,
    seed: int = 0,
) -> Sample:
    """Random reflectance with gaps, the last `padded` dates of the first chip being padding, and labels with gaps."""
    draw = torch.Generator().manual_seed(seed)
    shape, finer = (batch, dates, len(bands), size, size), (batch, magnification * size, magnification * size)
    image = torch.randint(1, 10_000, shape, generator=draw)
    clear = torch.rand(batch, dates, size, size, generator=draw) > 0.1
    valid = torch.ones(batch, dates, dtype=torch.bool)
    valid[0, dates - padded :] = False
    gaps = torch.stack([torch.randperm(300, generator=draw)[:dates].sort().values for _ in range(batch)])
    crop = torch.randint(0, classes, finer, generator=draw)
    return Sample(
        image=(image * clear[:, :, None]).to(torch.uint16),
        valid=valid,
        day=(17_800 + gaps).to(torch.int32),
        clear=clear,
        counted=torch.ones(finer, dtype=torch.bool),
        crop=torch.where(torch.rand(finer, generator=draw) > 0.1, crop, IGNORE_INDEX),
        parcel=torch.randint(0, 9, finer, generator=draw),
        boundary=torch.full((batch, size, size), -32768, dtype=torch.int16),
        place=torch.zeros(batch, 3, dtype=torch.int64),
        bands=bands,
    )
