"""Whether embeddings collapse: on one direction or one point, where a contrast has nothing left to compare."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["effective_rank", "unit_deviation"]


@torch.no_grad()
def effective_rank(vectors: Tensor) -> Tensor:
    """In how many directions vectors (N, D) lie: e^H of their singular values over the sum of these, a scalar.

    1 where all are multiples of one, D where they are spread evenly, 0 where all are 0 or there is none; the mean is
    not taken off. Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. The
    singular values are roots of the eigenvalues of the smaller product of the vectors with themselves, in float64.
    """
    if vectors.ndim != 2:
        raise ValueError(f"the effective rank is of vectors (N, D); got {tuple(vectors.shape)}")
    if not vectors.numel():
        return torch.zeros((), device=vectors.device)
    exact = vectors.detach().to(torch.float64)
    with torch.autocast(vectors.device.type, enabled=False):
        product = exact.T @ exact if exact.shape[0] > exact.shape[1] else exact @ exact.T
        squared = torch.linalg.eigvalsh(product)
    # What rounding leaves of an eigenvalue of 0 would weigh 1e-8 as its root, in each of the other directions.
    floor = squared.abs().amax() * torch.finfo(torch.float64).eps * len(squared)
    singular = torch.where(squared > floor, squared, 0.0).clamp(min=0.0).sqrt()
    total = singular.sum()
    share = singular / torch.where(total > 0, total, 1.0)
    entropy = torch.special.entr(share).sum()  # -p log p, 0 at 0
    return torch.where(total > 0, entropy.exp(), 0.0).to(torch.float32)


@torch.no_grad()
def unit_deviation(vectors: Tensor) -> Tensor:
    """The mean over the D channels of the deviation of vectors (N, D) scaled to length 1, a scalar.

    0 where all point the same way, 1 / sqrt(D) where they point everywhere alike (Chen and He, "Exploring simple
    Siamese representation learning", CVPR 2021, section 4.1); 0 where there is none.
    """
    if vectors.ndim != 2:
        raise ValueError(f"the deviation is of vectors (N, D); got {tuple(vectors.shape)}")
    if not vectors.numel():
        return torch.zeros((), device=vectors.device)
    unit = functional.normalize(vectors.detach().to(torch.float32), dim=1)
    return unit.std(dim=0, correction=0).mean()
