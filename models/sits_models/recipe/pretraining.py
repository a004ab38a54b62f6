"""Pretraining without labels: a section of a recipe for each method, with the views that it compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_above_zero, check_at_least, check_probability
from sits_models.recipe.views import Blur, DateSubset, Geometry, Jitter, Photometry, SingleDates

__all__ = [
    "EmbeddingEarthRecipe",
    "GLCNetRecipe",
    "InpaintingRecipe",
    "JigsawRecipe",
    "SeCoRecipe",
    "SimCLRRecipe",
]


@dataclass(frozen=True, kw_only=True)
class EmbeddingEarthRecipe:
    """Embedding Earth (Tarasiou and Zafeiriou 2022): the same pixel in two views of a series; its numbers are ours."""

    pixels: int = 64
    """Sampled in each chip, among those that both views show."""
    apart: int = 0
    """Sampled pixels of a chip are as far from each other at least, pixels along rows or columns."""
    key: Literal["momentum", "shared"] = "momentum"
    """What embeds the keys: a running mean of the network that embeds the queries, or that network itself, with
    gradients through both."""
    momentum: float = 0.999
    """How much of the running mean a step leaves as it is."""
    negatives: Literal["all", "other_images"] = "all"
    """all: every other sampled pixel of the batch; other_images: those of other images alone."""
    radius: float = 0.0
    """Sampled pixels of the same image that are nearer than this on the ground, in pixels, are no negatives."""
    temperature: float = 0.1
    hidden: int | None = None
    """Channels inside the projection; None: as many as the embedding has."""
    channels: int | None = None
    """Channels of the projection; None: as many as the embedding has."""
    dates: DateSubset = DateSubset(drop=0.2)
    geometry: Geometry = Geometry()
    photometry: Photometry = Photometry(gain=0.05, offset=0.01, noise=0.005)

    def __post_init__(self) -> None:
        check_at_least(1, "embedding_earth", pixels=self.pixels, hidden=self.hidden, channels=self.channels)
        check_at_least(0, "embedding_earth", apart=self.apart)
        check_above_zero("embedding_earth", temperature=self.temperature)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"a momentum lies from 0 to 1; got {self.momentum}")
        if self.radius < 0:
            raise ValueError(f"a radius is 0 px or more; got {self.radius}")
        if self.radius and self.negatives == "other_images":
            raise ValueError(
                f"negatives of other images alone need no radius within an image; got {self.radius}: set it to 0, or "
                "negatives to all"
            )


_RESIZED = Geometry(scale=(0.4, 1.0), flips=(0.0, 0.0, 0.0), turns=0.0)
_RESIZED_AND_TURNED = Geometry(scale=(0.4, 1.0), flips=(0.2, 0.2, 0.2), turns=0.8)
_OTHER_VALUES = Photometry(
    jitter=Jitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05, probability=0.8),
    grey=0.1,
    blur=Blur(kernels=(3, 5, 7)),
)


@dataclass(frozen=True, kw_only=True)
class GLCNetRecipe:
    """GLCNet (Li et al. 2022): chips by their style, regions by what they show; as published where nothing is said."""

    mode: Literal["glcnet", "no_style", "no_global", "no_local"] = "glcnet"
    weight: float = 0.5
    """Of the loss of whole chips; that of regions has the rest."""
    temperature: float = 0.5
    decoupled: bool = True
    """Whether the positive is left out of the denominator."""
    channels: int = 64
    """Of the decoder's map, and of both projections."""
    regions: int = 4
    """Of a chip."""
    region: int = 48
    """Side of a region, pixels of the view."""
    dates: SingleDates = SingleDates(n=1)
    first: Geometry = _RESIZED
    second: Geometry = _RESIZED_AND_TURNED
    photometry: Photometry = _OTHER_VALUES
    """Of the second view; the first one keeps its values."""

    def __post_init__(self) -> None:
        check_at_least(1, "glcnet", channels=self.channels, regions=self.regions, region=self.region)
        check_above_zero("glcnet", temperature=self.temperature)
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of the global contrast lies from 0 to 1; got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class SimCLRRecipe:
    """SimCLR (Chen et al. 2020) as GLCNet is compared with it."""

    temperature: float = 0.5
    decoupled: bool = True
    """Whether the positive is left out of the denominator; False: as SimCLR was published."""
    channels: int = 64
    """Of the projection."""
    dates: SingleDates = SingleDates(n=1)
    first: Geometry = _RESIZED
    second: Geometry = _RESIZED_AND_TURNED
    photometry: Photometry = _OTHER_VALUES
    """Of the second view; the first one keeps its values."""

    def __post_init__(self) -> None:
        check_at_least(1, "simclr", channels=self.channels)
        check_above_zero("simclr", temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class InpaintingRecipe:
    """What is hidden of a chip, and what it costs; as published."""

    blocks: int = 16
    """Of a chip; they may overlap."""
    side: int = 16
    """Of a block, pixels."""
    weight: float = 0.99
    """Of what is hidden; what is not has the rest."""
    dates: SingleDates = SingleDates(n=1)
    geometry: Geometry = _RESIZED_AND_TURNED

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.side < 1:
            raise ValueError(f"at least 1 block of at least 1 px is hidden; got {self.blocks} of {self.side} px")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of what is hidden lies from 0 to 1; got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class JigsawRecipe:
    """How chips are cut and shuffled."""

    orders: int = 1000
    """At most 1512."""
    gap: float = 0.15
    """Share of the side of a ninth of the chip that its tile leaves free, in all; published: 11 of 75 px."""
    channels: int = 256
    """Between the embeddings of the tiles and the logits."""
    dates: SingleDates = SingleDates(n=1)
    geometry: Geometry = _RESIZED_AND_TURNED

    def __post_init__(self) -> None:
        check_at_least(1, "jigsaw", channels=self.channels)
        if not 2 <= self.orders <= 1512:
            raise ValueError(f"orders of tiles are 2 to 1512; got {self.orders}")
        if not 0 <= self.gap < 1:
            raise ValueError(f"the gap is a share of a tile's side, from 0 to below 1; got {self.gap}")

    def tile(self, side: int) -> int:
        """Side of the tiles of a chip of `side` px.

        >>> JigsawRecipe().tile(225)
        64
        """
        return round(side // 3 * (1 - self.gap))


_DATES = {"moco": 1, "moco_tp": 2, "seco": 3}


@dataclass(frozen=True, kw_only=True)
class SeCoRecipe:
    """SeCo (Mañas et al. 2021): contrasts with momentum and queues in sub-spaces; as published."""

    mode: Literal["moco", "moco_tp", "seco"] = "seco"
    """moco and moco_tp have one sub-space and differ in their views: two augmentations of one date, or of two dates."""
    channels: int = 128
    """Of each sub-space."""
    queue: int = 16384
    """Keys of batches before, in each sub-space."""
    momentum: float = 0.999
    """Share of itself that the key side keeps in a step."""
    temperature: float = 0.07
    clear: float = 0.0
    """Share of a chip's pixels that is clear at least on a date that may be drawn."""
    again: bool = False
    """Whether a date may be drawn again, as in the published code (`SingleDates.again`)."""
    geometry: Geometry = Geometry(scale=(0.2, 1.0), flips=(0.0, 0.0, 0.0), turns=0.0)
    """Of every view."""
    flips: tuple[float, float, float] = (0.5, 0.0, 0.0)
    """Of the views in other colours."""
    photometry: Photometry = Photometry(
        jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
        grey=0.2,
        grey_of="visible",
        blur=Blur(sigma=(0.1, 2.0)),
    )
    """Of the views in other colours."""

    def __post_init__(self) -> None:
        if self.mode not in _DATES:
            raise ValueError(f"a mode is {', '.join(_DATES)}; got {self.mode!r}")
        check_at_least(1, "seco", channels=self.channels, queue=self.queue)
        check_probability("seco.clear", self.clear)
        check_above_zero("seco", temperature=self.temperature)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"a momentum lies from 0 to 1; got {self.momentum}")

    @property
    def dates(self) -> SingleDates:
        """Those that the mode compares."""
        return SingleDates(n=_DATES[self.mode], clear=self.clear, again=self.again)
