"""An architecture and its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_at_least

__all__ = ["BackboneRecipe", "HeadKind", "TransformerRecipe", "Variant"]

Variant = Literal["paper", "fixed"]
"""An architecture as published, faults included, or with its known faults mended (docs/reference/backbones.md)."""

HeadKind = Literal["linear", "conv3", "double_conv", "none"]
"""The last layers of a segmentation (heads.py)."""


@dataclass(frozen=True, kw_only=True)
class TransformerRecipe:
    """Sizes of a TSViT that the publication varies from one dataset to the next; the defaults are those of PASTIS.

    They are those of the dense one, also where only some of a `tsvit_parcel` are given.
    """

    patch: int = 2
    """Side of a patch, pixels; it divides the side of a chip."""
    temporal_depth: int = 4
    """Layers over the dates."""
    spatial_depth: int = 4
    """Layers over the patches."""
    heads: int = 4
    head_channels: int = 32
    """Channels of a head's queries, keys and values; `width` leaves them as they are."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        depths = {"temporal_depth": self.temporal_depth, "spatial_depth": self.spatial_depth}
        check_at_least(
            1, "backbone.transformer", patch=self.patch, **depths, heads=self.heads, head_channels=self.head_channels
        )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"backbone.transformer.dropout is a probability below 1; got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe:
    """An architecture and its size."""

    name: str
    width: float = 1.0
    """Factor on the published channel counts."""
    variant: Variant = "paper"
    time_channels: tuple[Literal["day_of_year", "year"], ...] | None = None
    """Extra input channels of the backbones that know time no other way; None: what the published one takes."""
    transformer: TransformerRecipe | None = None
    """Of a TSViT alone; None: those published for PASTIS, which are others for `tsvit` than for `tsvit_parcel`."""

    def __post_init__(self) -> None:
        if not 0 < self.width <= 16:
            raise ValueError(f"backbone.width is a factor above 0, at most 16; got {self.width}")
