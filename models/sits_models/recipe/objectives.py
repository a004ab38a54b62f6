"""What a model is trained for: a section of a recipe each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_at_least, check_probability

__all__ = ["ChangeRecipe", "ClassificationRecipe", "ContrastRecipe", "MultiLabelRecipe", "SegmentationRecipe"]


@dataclass(frozen=True, kw_only=True)
class ContrastRecipe:
    """Context-self contrastive pretraining (CSCL, Tarasiou et al. 2022); the defaults are the published setting."""

    window: int = 3
    stride: int = 1
    dilation: int = 1
    channels: int | None = None
    """Channels of queries and keys; None: those of the embedding (128 at width 1)."""
    groups: int = 1
    relative_position: bool = True
    similarity: Literal["cosine", "dot"] = "cosine"
    loss: Literal["contrast", "cross_entropy"] = "contrast"
    positive_weight: float = 0.125
    same: Literal["class", "parcel"] = "class"
    """What makes a pair positive: one crop class, or one parcel."""
    mask_self: bool = False
    mask_outside: bool = False
    mask_background: bool = False
    mask_ignored: bool = False
    mean: Literal["all", "kept"] = "all"
    """Divide by all pairs, masked ones too, as published; or by the pairs that are kept."""

    def __post_init__(self) -> None:
        check_at_least(1, "contrast", stride=self.stride, dilation=self.dilation, groups=self.groups)
        check_at_least(1, "contrast", channels=self.channels)
        check_at_least(0, "contrast", positive_weight=self.positive_weight)
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"contrast.window is odd and at least 3; got {self.window}")


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe:
    """Supervised segmentation."""

    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: float = 2.0
    """Exponent of the focal loss."""
    weights: Literal["none", "inverse_frequency"] = "none"
    """Weight of a class in the loss."""

    def __post_init__(self) -> None:
        check_at_least(0, "segmentation", gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe:
    """One class a chip: that of the pixel in its middle, as TSViT's and SeCo's classifiers learn it."""

    weights: Literal["none", "inverse_frequency"] = "none"
    """Weight of a class in the loss, which is the cross entropy."""


@dataclass(frozen=True, kw_only=True)
class MultiLabelRecipe:
    """Which of the classes a chip has, any number of them, as SeCo is finetuned on BigEarthNet."""

    dropout: float = 0.2
    """Before the linear layer."""

    def __post_init__(self) -> None:
        check_probability("multilabel.dropout", self.dropout)


@dataclass(frozen=True, kw_only=True)
class ChangeRecipe:
    """Which pixels differ between two dates, seen by the same encoder, as SeCo is finetuned on OSCD."""

    dropout: float = 0.3
    """Of whole channels, inside the decoder."""

    def __post_init__(self) -> None:
        check_probability("change.dropout", self.dropout)
