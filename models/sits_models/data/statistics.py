"""Mean and deviation of each band over the train pixels of several cubes."""

from __future__ import annotations

from collections.abc import Sequence

from sits_catalog.cube import Split
from sits_models.data.cubes import Cube
from sits_models.data.grid import Grid

__all__ = ["pool_statistics"]


def pool_statistics(
    cubes: Sequence[Cube], grids: Sequence[Grid], bands: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a band, in stored units, as if the clear train pixels of all cubes were one set.

    A cube counts by the pixels its statistics are of (`n`), or by the area of its train cells where it does not say.
    ValueError names a band that no cube has statistics of.
    """
    pooled = [_pool(cubes, grids, band) for band in bands]
    return tuple(mean for mean, _ in pooled), tuple(std for _, std in pooled)


def _pool(cubes: Sequence[Cube], grids: Sequence[Grid], band: str) -> tuple[float, float]:
    total = first = second = 0.0
    for cube, grid in zip(cubes, grids, strict=True):
        row = (cube.facts.statistics or {}).get(band)
        if row is None or row.get("mean") is None or row.get("std") is None:
            continue
        weight = float(row.get("n") or grid.area(Split.TRAIN))
        mean, std = (float(row[key] or 0) / float(str(cube.facts.radiometry["scale"])) for key in ("mean", "std"))
        total += weight
        first += weight * mean
        second += weight * (std**2 + mean**2)
    if total == 0:
        paths = ", ".join(cube.facts.path for cube in cubes)
        raise ValueError(f"no clear train pixels of {band} in {paths}; use data.normalize=reflectance, or other cubes")
    mean = first / total
    # A band that is the same everywhere would divide by nothing.
    return mean, max(second / total - mean**2, 0.0) ** 0.5 or 1.0
