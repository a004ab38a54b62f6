"""A recipe: every choice of a training, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from sits_models.recipe.backbone import BackboneRecipe
from sits_models.recipe.data import Augmentation, DataRecipe
from sits_models.recipe.objectives import (
    ChangeRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    MultiLabelRecipe,
    SegmentationRecipe,
)
from sits_models.recipe.pretraining import (
    EmbeddingEarthRecipe,
    GLCNetRecipe,
    InpaintingRecipe,
    JigsawRecipe,
    SeCoRecipe,
    SimCLRRecipe,
)
from sits_models.recipe.training import TrainingRecipe
from sits_models.recipe.views import SingleDates

__all__ = ["ObjectiveName", "Recipe"]

ObjectiveName = Literal[
    "contrast",
    "embedding_earth",
    "glcnet",
    "simclr",
    "inpainting",
    "jigsaw",
    "seco",
    "segmentation",
    "classification",
    "multilabel",
    "change",
]
"""What a model is trained for, by the name of its section in a recipe."""

LABELLED = ("contrast",)
"""Pretraining that reads labels."""
LABEL_FREE = ("embedding_earth", "glcnet", "simclr", "inpainting", "jigsaw", "seco")
SUPERVISED = ("segmentation", "classification", "multilabel", "change")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of it, with one section of what is learnt: to pretrain, or, supervised, to finetune."""

    name: str
    title: str = ""
    source: str | None = None
    """The publication whose setting this is."""
    data: DataRecipe = DataRecipe()
    augmentation: Augmentation = Augmentation()
    backbone: BackboneRecipe
    contrast: ContrastRecipe | None = None
    embedding_earth: EmbeddingEarthRecipe | None = None
    glcnet: GLCNetRecipe | None = None
    simclr: SimCLRRecipe | None = None
    inpainting: InpaintingRecipe | None = None
    jigsaw: JigsawRecipe | None = None
    seco: SeCoRecipe | None = None
    segmentation: SegmentationRecipe | None = None
    classification: ClassificationRecipe | None = None
    multilabel: MultiLabelRecipe | None = None
    change: ChangeRecipe | None = None
    training: TrainingRecipe = TrainingRecipe()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        given = [name for name in get_args(ObjectiveName) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a recipe has exactly one of the sections {', '.join((*LABELLED, *LABEL_FREE))} (to pretrain), "
                f"{', '.join(SUPERVISED)} (to finetune); it has {' and '.join(given) or 'none'}"
            )
        if self.data.transductive and not self.label_free:
            raise ValueError(
                "data.transductive learns from the ground of all splits, where labels may not be learnt from; leave it "
                f"out for a {given[0]}"
            )
        if self.data.labels != 1 and self.label_free:
            raise ValueError(f"{given[0]} reads no labels; set data.labels=1")
        if self.data.few is not None and self.label_free:
            raise ValueError(f"{given[0]} reads no labels; leave out data.few")
        if self.training.probe and self.pretrains:
            raise ValueError(f"training.probe leaves the encoder as it is, which {given[0]} is to train; leave it out")
        if self.data.sampling == "middle" and self.classification is None:
            raise ValueError(
                "data.sampling middle shows the label of the chip's middle alone, which a classification learns from; "
                f"set data.sampling=parcel for a {given[0]}"
            )
        if self.data.sampling == "middle" and self.data.background:
            raise ValueError(
                "data.sampling middle draws parcels alone, so that the background as a class would never be seen: set "
                "data.background=false"
            )

    @property
    def objective(self) -> ObjectiveName:
        """Which of them it is."""
        (given,) = (name for name in get_args(ObjectiveName) if getattr(self, name) is not None)
        name: ObjectiveName = given
        return name

    @property
    def label_free(self) -> bool:
        """Whether it learns without labels."""
        return self.objective in LABEL_FREE

    @property
    def pretrains(self) -> bool:
        """Whether its weights are a start for others, and give no class."""
        return self.label_free or self.objective in LABELLED

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of what the backbone sees in training, pixels."""
        section = getattr(self, self.objective)
        geometry = next((getattr(section, name) for name in ("geometry", "first") if hasattr(section, name)), None)
        return (self.data.size,) if geometry is None or not geometry.sides else tuple(geometry.sides)

    def dates_of(self, read: int) -> int:
        """Dates of what the backbone sees, where chips of so many are read."""
        dates = getattr(getattr(self, self.objective), "dates", None)
        if isinstance(dates, SingleDates):
            return 1
        return read if dates is None or dates.most is None else min(read, dates.most)
