"""The counter behind every expansion of n things into their parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["counted"]


def counted(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ..., n-1 for each n of `counts`, one after the other.

    >>> counted(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
