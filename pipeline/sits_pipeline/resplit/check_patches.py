"""Prove from a set's files alone that no patch of one split lies beside one of another."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import shapely
import yaml
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, is_being_built, split_under_way
from sits_pipeline.resplit.check import Leak, Proof
from sits_pipeline.store.patches import read_patch_layout, read_patches
from sits_pipeline.transformers import transformer_between

__all__ = ["check_patches"]

_USED = ("train", "validation", "test")


def check_patches(folder: Folder) -> Proof:
    """Look for leaks in a finished set of patches.

    Raises FileNotFoundError where there is none, ValueError where it has no splits or is being written.
    """
    import pyarrow.parquet as pq

    layout = read_patch_layout(folder)
    if not folder.exists(MERGED) or is_being_built(folder) or split_under_way(folder) is not None:
        raise ValueError(
            f"{folder.location} is being written or split; run the command that was interrupted again first"
        )
    table = pq.read_table(io.BytesIO(folder.read("patches.parquet")))
    words = [word or "none" for word in table["split"].to_pylist()]
    if not set(words) & set(_USED):
        raise ValueError(f"{folder.location} has no splits to check: every patch is in none")
    names = [str(name) for name in table["name"].to_pylist()]
    leaks = [*_twice(table["id"].to_pylist())]
    if "split" in layout.labels:
        leaks += _arrays(folder, words, names, layout.shard)
    rule = dict(yaml.safe_load(folder.read("config.yaml")).get("splits") or {})
    outlines = np.asarray(shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object))).reshape(-1)
    near, nearest = _near(outlines, words, names, float(rule.get("buffer_m", 0.0)))
    unknown = int(shapely.is_missing(outlines).sum())
    notes = [f"the place of {unknown} patches is unknown: nothing is proved of their neighbours"] if unknown else []
    by_years = "years" in rule
    size = layout.height * layout.width
    return Proof(
        location=folder.location,
        leaks=tuple(leaks if by_years else leaks + near),
        notes=tuple(notes + ([leak.what for leak in near] if by_years else [])),
        pixels={word: words.count(word) * size for word in ("none", *_USED) if word in words},
        parcels=len(words),
        nearest_m=nearest,
        unit="patches",
    )


def _twice(ids: Iterable[str]) -> list[Leak]:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return [Leak(kind="patch", what=f"patch {name} stands more than once in patches.parquet")]
        seen.add(name)
    return []


def _arrays(folder: Folder, words: list[str], names: list[str], shard: int) -> list[Leak]:
    """Patches whose pixels say another split than the index."""
    wrong = []
    for first in range(0, len(words), shard):
        pixels = read_patches(folder, "split", slice(first, first + shard))
        for index, own in enumerate(pixels):
            found = [Split(int(code)).name.lower() for code in np.unique(own)]
            if found != [words[first + index]]:
                wrong.append((names[first + index], words[first + index], found))
    if not wrong:
        return []
    name, word, found = wrong[0]
    return [Leak(kind="patch", what=f"patch {name} is {word}, its pixels are {' and '.join(found)}", count=len(wrong))]


def _near(
    outlines: NDArray[np.object_], words: list[str], names: list[str], buffer_m: float
) -> tuple[list[Leak], float | None]:
    """Patches of two splits that come nearer than the buffer, measured in the UTM zone of one of them."""
    used = np.array([word in _USED for word in words]) & ~shapely.is_missing(outlines)
    chosen = np.flatnonzero(used)
    if not len(chosen):
        return [], None
    reach = (buffer_m + 10.0) / 111_000.0
    middle = shapely.get_y(shapely.centroid(outlines[chosen]))
    wide = reach / np.cos(np.radians(np.clip(np.abs(middle) + 1, 0, 89)))
    west, south, east, north = shapely.bounds(outlines[chosen]).reshape(-1, 4).T
    boxes = shapely.box(west - wide, south - reach, east + wide, north + reach)
    first, second = shapely.STRtree(outlines[chosen]).query(boxes, predicate="intersects")
    found: list[tuple[float, int, int]] = []
    for one, other in zip(chosen[first].tolist(), chosen[second].tolist(), strict=True):
        if one < other and words[one] != words[other]:
            found.append((_metres(outlines[one], outlines[other]), one, other))
    close = sorted(pair for pair in found if pair[0] < buffer_m or pair[0] == 0)
    nearest = min((pair[0] for pair in found), default=None)
    if not close:
        return [], nearest
    distance, one, other = close[0]
    what = (
        f"patch {names[one]} is {words[one]} and lies {distance:.1f} m from patch {names[other]}, which is "
        f"{words[other]}; the buffer is {buffer_m:g} m"
    )
    return [Leak(kind="patch", what=what, count=len(close))], nearest


def _metres(one: shapely.Geometry, other: shapely.Geometry) -> float:
    place = shapely.centroid(one)
    zone = (32600 if place.y >= 0 else 32700) + min(int((place.x + 180) // 6) + 1, 60)
    to_utm = transformer_between(4326, zone).transform
    shapes = [
        shapely.transform(shape, lambda xy: np.column_stack(to_utm(xy[:, 0], xy[:, 1]))) for shape in (one, other)
    ]
    return float(shapely.distance(*shapes))
