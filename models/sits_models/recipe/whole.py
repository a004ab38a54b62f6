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
from sits_models.recipe.views import Geometry, SingleDates

__all__ = ["PRETRAINING", "ObjectiveName", "Recipe"]

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
PRETRAINING = (*LABELLED, *LABEL_FREE)
"""What gives no class, by the names of their sections."""
_AMONG_CHIPS = ("glcnet", "simclr")
"""What compares a chip with the others of its batch alone."""
_VARIANCES, _JOINED = ("glcnet", "no_local"), 16
"""Modes of GLCNet that compare variances, and input pixels along a side of a pixel of the map that they are taken over.
"""
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
                f"a recipe has exactly one of the sections {', '.join(PRETRAINING)} (to pretrain), "
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
        if self.label_free and self.training.patience is not None:
            raise ValueError(f"{given[0]} keeps its latest epoch, which no score chooses; leave out training.patience")
        if self.change is not None and self.augmentation.drop_dates:
            raise ValueError(
                "a change compares two dates, of which none can be left out; set augmentation.drop_dates=0, not "
                f"{self.augmentation.drop_dates}"
            )
        if self.label_free and self.augmentation != Augmentation():
            raise ValueError(f"the views of {given[0]} change chips as its own section says; leave out augmentation")
        if given[0] in _AMONG_CHIPS and self.data.batch < 2:
            raise ValueError(
                f"{given[0]} tells the views of a chip from those of others; set data.batch=2 or more, not "
                f"{self.data.batch}"
            )
        self._check_views()
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

    def _check_views(self) -> None:
        """Raises ValueError where a view does not fit into a chip, or what is compared into a view."""
        for name, geometry in self._geometries.items():
            largest = max(geometry.sides, default=0)
            if geometry.scale is None and largest > self.data.size:
                raise ValueError(
                    f"{self.objective}.{name} cuts windows of {largest} px, not resized, from chips of "
                    f"{self.data.size} px: set data.size={largest} or more, or give it a scale"
                )
        every = [geometry.sides or (self.data.size,) for geometry in self._geometries.values()]
        least = min((side for sides in every for side in sides), default=self.data.size)
        if self.glcnet is not None and self.glcnet.mode in _VARIANCES and least <= _JOINED:
            raise ValueError(
                f"glcnet takes the variance over the pixels of a map, one for each {_JOINED} x {_JOINED} of a view, of "
                f"which views of {least} px have a single one: set data.size, or sides of the views, above {_JOINED}, "
                "or glcnet.mode=no_style"
            )
        if self.glcnet is not None and self.glcnet.mode != "no_local" and self.glcnet.region > least:
            raise ValueError(f"glcnet.region is at most the {least} px of a view; got {self.glcnet.region}")
        if self.inpainting is not None and self.inpainting.side > least:
            raise ValueError(f"inpainting.side is at most the {least} px of a view; got {self.inpainting.side}")
        if self.jigsaw is not None and self.jigsaw.tile(least) < 1:
            raise ValueError(f"views of {least} px cannot be cut into nine tiles with gaps: set data.size to more")

    @property
    def _geometries(self) -> dict[str, Geometry]:
        """Those of the views, by their keys."""
        return {key: value for key, value in vars(getattr(self, self.objective)).items() if isinstance(value, Geometry)}

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
        return self.objective in PRETRAINING

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of what the backbone sees in training, pixels."""
        every = [side for one in self._geometries.values() for side in one.sides or (self.data.size,)]
        sides = tuple(dict.fromkeys(every)) or (self.data.size,)
        return sides if self.jigsaw is None else tuple(self.jigsaw.tile(side) for side in sides)

    def dates_of(self, read: int) -> int:
        """Dates of what the backbone sees, where chips of so many are read."""
        dates = getattr(getattr(self, self.objective), "dates", None)
        if isinstance(dates, SingleDates) or self.change is not None:  # two dates, one by one
            return 1
        return read if dates is None or dates.most is None else min(read, dates.most)
