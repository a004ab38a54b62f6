"""Classes with too few pixels in a split folded into one class `other`, and the record of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sits_catalog.cube import IGNORE
from sits_catalog.taxonomy import CropClass, Taxonomy

__all__ = ["OTHER", "FoldedClass", "Folding", "fold_classes"]

OTHER = "other"
"""Code of the class that small classes are folded into."""
_COLOUR = "#9a9a9a"


@dataclass(frozen=True, kw_only=True)
class FoldedClass:
    """A class that was folded, and why."""

    crop: CropClass
    """As it was before."""
    pixels: Mapping[str, int]
    """Pixels of 10 m of its parcels by split, in the order train, validation, test."""
    lacking: tuple[str, ...]
    """The splits in which it has too few."""


@dataclass(frozen=True, kw_only=True)
class Folding:
    """What was folded and by which rule."""

    taxonomy: Taxonomy
    """After the folding."""
    into: CropClass
    classes: tuple[FoldedClass, ...]
    """By index; never empty."""
    min_pixels: Mapping[str, int]

    def index_of(self, index: int) -> int:
        """The class that a class has become; any other value is what it was."""
        return self.into.index if any(folded.crop.index == index for folded in self.classes) else index

    def record(self) -> dict[str, object]:
        """As the attribute `folded` of `sits_cube` holds it, plain values for JSON."""
        return {
            "into": {"index": self.into.index, "code": self.into.code},
            "min_pixels": dict(self.min_pixels),
            "classes": [
                {
                    "index": folded.crop.index,
                    "code": folded.crop.code,
                    "name": folded.crop.name,
                    "hcat": folded.crop.hcat,
                    "pixels": dict(folded.pixels),
                    "lacking": list(folded.lacking),
                }
                for folded in self.classes
            ],
        }


def fold_classes(
    taxonomy: Taxonomy, pixels: Mapping[int, Mapping[str, int]], min_pixels: Mapping[str, int]
) -> Folding | None:
    """The taxonomy with each class folded that has fewer than `min_pixels` in one of the splits these name.

    `pixels` are those of each class that occurs, by split; a class that has none at all is left as it is. Folded
    classes become `other`, the next free index; one that the taxonomy has already takes them in and is not folded
    itself. None: there is nothing to fold. Raises ValueError where no class would be left beside `other`.
    """
    there = next((crop for crop in taxonomy.classes if crop.code == OTHER), None)
    judged = [crop for crop in taxonomy.classes if crop is not there and any(pixels.get(crop.index, {}).values())]
    folded = tuple(
        FoldedClass(crop=crop, pixels=dict(pixels[crop.index]), lacking=lacking)
        for crop in sorted(judged, key=lambda crop: crop.index)
        if (lacking := _lacking(pixels[crop.index], min_pixels))
    )
    if not folded:
        return None
    if len(folded) == len(judged):
        rule = ", ".join(f"{number} in {split}" for split, number in min_pixels.items())
        raise ValueError(
            f"none of the {len(judged)} classes has the min_pixels asked for ({rule}), so that all would become "
            f"{OTHER!r}; ask for fewer, or for other splits"
        )
    into = there or CropClass(index=_free_index(taxonomy), code=OTHER, name="other crops", colour=_COLOUR)
    gone = {item.crop.index for item in folded}
    kept = tuple(crop for crop in taxonomy.classes if crop.index not in gone)
    return Folding(
        taxonomy=replace(
            taxonomy,
            classes=kept if there else (*kept, into),
            codes={code: into.index if index in gone else index for code, index in taxonomy.codes.items()},
        ),
        into=into,
        classes=folded,
        min_pixels=dict(min_pixels),
    )


def _lacking(pixels: Mapping[str, int], min_pixels: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(split for split, number in min_pixels.items() if pixels.get(split, 0) < number)


def _free_index(taxonomy: Taxonomy) -> int:
    """The index after the last one; the first gap where that is taken up by IGNORE."""
    taken = {crop.index for crop in taxonomy.classes}
    after = max(taken) + 1
    return after if after < IGNORE else next(index for index in range(1, IGNORE) if index not in taken)
