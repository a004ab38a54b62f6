"""The classes of a model: those of its cubes, joined by crop code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import BACKGROUND, IGNORE
from sits_models.data.cubes import CropEntry, Cube, CubeFacts
from sits_models.sample import IGNORE_INDEX

__all__ = ["BACKGROUND_CODE", "ClassTable", "CropEntry", "join_classes", "of_older_card"]

BACKGROUND_CODE = "(background)"
"""Code of the background in a table of classes; a cube with a class of this code is refused."""
_BACKGROUND = CropEntry(index=0, code=BACKGROUND_CODE, name="background", hcat=None, colour="#e8e8e8")


@dataclass(frozen=True)
class ClassTable:
    """What the K outputs of a model mean, in order."""

    classes: tuple[CropEntry, ...]
    """Index 0..K-1; the background, where it is a class, comes first, with `BACKGROUND_CODE`."""

    def __post_init__(self) -> None:
        if [entry.index for entry in self.classes] != list(range(len(self.classes))):
            raise ValueError(f"a class table counts from 0; got {[entry.index for entry in self.classes]}")
        twice = _twice(self.codes)
        if twice:
            raise ValueError(f"the class table has {', '.join(twice)} twice; keep one of them")
        if BACKGROUND_CODE in self.codes[1:]:
            raise ValueError(f"{BACKGROUND_CODE} is the first class of a table; got {', '.join(self.codes)}")

    @property
    def codes(self) -> tuple[str, ...]:
        """Crop codes."""
        return tuple(entry.code for entry in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names for people."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours, "#rrggbb"."""
        return tuple(entry.colour for entry in self.classes)

    @property
    def n(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @property
    def has_background(self) -> bool:
        """Whether class 0 is the background."""
        return self.codes[:1] == (BACKGROUND_CODE,)

    def lookup(self, facts: CubeFacts) -> NDArray[np.int64]:
        """From `crop_type` of a cube to the model's index or IGNORE_INDEX, 65536 entries."""
        model = {entry.code: entry.index for entry in self.classes}
        table = np.full(IGNORE + 1, IGNORE_INDEX, np.int64)
        for entry in facts.classes:
            table[entry.index] = model.get(entry.code, IGNORE_INDEX)
        if self.has_background:
            table[BACKGROUND] = 0
        return table


def join_classes(cubes: Sequence[Cube], *, codes: tuple[str, ...] | None, background: bool) -> ClassTable:
    """The table of these codes in this order, or of every class of the cubes, sorted by code.

    Classes of different cubes are one class where their codes are equal; name and colour are those of the first
    cube. ValueError where a labelled cube lacks one of `codes`, naming both, or where no cube has labels.
    """
    labelled = [cube.facts for cube in cubes if cube.facts.has_labels]
    if not labelled:
        raise ValueError(f"no labels in {', '.join(cube.facts.path for cube in cubes)}; classes need a labelled cube")
    known: dict[str, CropEntry] = {}
    for facts in labelled:
        if any(entry.code == BACKGROUND_CODE for entry in facts.classes):
            raise ValueError(
                f"{facts.path} has a class of code {BACKGROUND_CODE}, which is no crop; give it another code"
            )
        for entry in facts.classes:
            known.setdefault(entry.code, entry)
    if codes is not None:
        _check_codes(codes, labelled)
    chosen = [known[code] for code in (sorted(known) if codes is None else codes)]
    entries = [_BACKGROUND, *chosen] if background else chosen
    return ClassTable(tuple(replace(entry, index=index) for index, entry in enumerate(entries)))


def _check_codes(codes: tuple[str, ...], labelled: Sequence[CubeFacts]) -> None:
    twice = _twice(codes)
    if twice:
        raise ValueError(f"the class table names {', '.join(twice)} twice; keep one of them")
    for facts in labelled:
        there = [entry.code for entry in facts.classes]
        missing = [code for code in codes if code not in there]
        if missing:
            raise ValueError(f"{facts.path} has no class of code {', '.join(missing)}; it has {', '.join(there)}")


def _twice(codes: Sequence[str]) -> list[str]:
    return sorted({code for code in codes if codes.count(code) > 1})


def of_older_card(entry: CropEntry) -> CropEntry:
    """A row of a model's card as it is today: the background had the code "0", which a crop may have, too."""
    return _BACKGROUND if entry == replace(_BACKGROUND, code="0") else entry
