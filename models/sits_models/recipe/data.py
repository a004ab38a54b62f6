"""What is cut from the cubes, how it is read, and how it is changed for each training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_at_least

__all__ = ["Augmentation", "DataRecipe", "DateRule", "FewLabels", "Layout"]

Layout = Literal["cube", "seco", "geotiffs", "bigearthnet", "eurosat", "oscd"]
"""What the folders of a recipe hold: datasets of this project, of the profile region or patches (cube), or the files of
a published dataset as they are."""


@dataclass(frozen=True, kw_only=True)
class DateRule:
    """Which dates of a cube a chip holds."""

    pick: Literal["all", "first", "even", "random"] = "all"
    """all; the first n; n evenly spread; n drawn anew for each chip (spread evenly outside of training)."""
    n: int | None = None

    def __post_init__(self) -> None:
        if (self.n is None) != (self.pick == "all"):
            raise ValueError(f"dates: pick {self.pick!r} goes {'without' if self.pick == 'all' else 'with'} a number n")
        if self.n is not None and self.n < 1:
            raise ValueError(f"dates: n is at least 1; got {self.n}")


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """A part of the labels of the train split, as if the others had never been collected; of the same seed a smaller
    part lies inside a larger one, and each class keeps one parcel, or block, at least.

    Parcels are taken in an order that depends on their ids and the seed alone. Those that chips of `data.size`, drawn
    by `data.sampling`, cannot reach are left out, so that two recipes keep the same parcels but for what one of them
    cannot reach; of a class of whose share nothing is reached, the next parcel that is reached is kept. Blocks are
    taken in a random order, too: first each that shows a class which none before it shows, then the others."""

    share: float
    """Of the parcels of each class, or of the blocks."""
    by: Literal["parcel", "block"] = "parcel"
    """parcel: labels of the other parcels are not known, and ground that is no parcel has none; block: the ground of
    the other split blocks is not seen at all, or, of patches, those patches."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"data.few.share is a share above 0 and up to 1; got {self.share}")
        check_at_least(0, "data.few", seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What is cut from the cubes, and how it is read."""

    cubes: tuple[str, ...] = ()
    """Folders of datasets; `--cube` on the command line replaces them."""
    layout: Layout = "cube"
    bands: tuple[str, ...] | None = None
    """Names in the order the model takes them; None: those of the first cube."""
    classes: tuple[str, ...] | None = None
    """Codes of the class table in order; None: every class of the cubes, or patch sets, by code."""
    background: bool = True
    """Whether ground that is known to be no parcel, or in a patch set of no class, is class 0 of the table
    ("background"); else it is ignored."""
    dates: DateRule = DateRule()
    size: int = 48
    """Side of a training chip, pixels."""
    transductive: bool = False
    """Whether a pretraining without labels sees the ground of all splits, that of validation and test, too; without it
    sees the train split, and all of cubes that have no splits."""
    few: FewLabels | None = None
    """What of the labels is learnt from; None: all."""
    labels: Literal[1, 2, 4] = 1
    """Labels at 10 m, at 5 m (labels_x2) or at 2.5 m (labels_x4)."""
    batch: int = 16
    chips: int | None = None
    """Chips of an epoch; None: as many as cover the train split, or its patches, once, or with `middle` one a
    parcel."""
    sampling: Literal["uniform", "class", "parcel", "middle"] = "uniform"
    """Where chips are drawn: anywhere in the split; each class alike often; each parcel alike often, anywhere in the
    chip (parcel); or, for a classification, each parcel alike often with the pixel nearest to the mean of its pixels in
    the middle of the chip (middle): the background is then never drawn, nor a parcel too near to another split."""
    normalize: Literal["statistics", "reflectance"] = "statistics"
    """By mean and deviation of the cubes' train pixels, or reflectance in [0, 1] as the published CSCL settings."""
    readers: int = 2
    """Streams of chips, read side by side; the order of the chips depends on this number and nothing else does."""
    start: Literal["threads", "forkserver", "spawn", "fork"] = "threads"
    """What the readers are: threads of this process, or processes started in this way."""
    cache_mb: int = 512
    """Decoded pixels that all readers together may keep; with less room fewer blocks are mixed, at most 64 a reader."""

    def __post_init__(self) -> None:
        check_at_least(1, "data", size=self.size, batch=self.batch, chips=self.chips, readers=self.readers)
        check_at_least(0, "data", cache_mb=self.cache_mb)
        for key, names in (("bands", self.bands), ("classes", self.classes)):
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"data.{key} names at least one, and none twice; got {', '.join(names) or 'none'}")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes drawn anew for each chip, the same for all dates and labels of it."""

    flips: bool = True
    """Left-right and up-down, each with probability 1/2."""
    rotations: bool = False
    """By a multiple of 90 degrees, uniformly."""
    drop_dates: float = 0.0
    """Probability with which a date becomes padding; at least one date stays."""
    gain: float = 0.0
    """Deviation of a factor a band, around 1."""
    noise: float = 0.0
    """Deviation of noise a value, in reflectance [0, 1]."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_dates < 1:
            raise ValueError(f"augmentation.drop_dates is a probability below 1; got {self.drop_dates}")
        check_at_least(0, "augmentation", gain=self.gain, noise=self.noise)
