"""A recipe: every choice of a training, read from YAML and checked before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from sits_catalog.documents import Document, build, did_you_mean, parse_document

__all__ = [
    "Augmentation",
    "BackboneRecipe",
    "ContrastRecipe",
    "DataRecipe",
    "DateRule",
    "Recipe",
    "SegmentationRecipe",
    "TrainingRecipe",
    "Variant",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
]

Variant = Literal["paper", "fixed"]
"""An architecture as published, faults included, or with its known faults mended (docs/reference/backbones.md)."""


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
class DataRecipe:
    """What is cut from the cubes, and how it is read."""

    cubes: tuple[str, ...] = ()
    """Folders of datasets; `--cube` on the command line replaces them."""
    bands: tuple[str, ...] | None = None
    """Names in the order the model takes them; None: those of the first cube."""
    classes: tuple[str, ...] | None = None
    """Crop codes of the class table in order; None: every class of the cubes, by code."""
    background: bool = True
    """Whether ground that is known to be no parcel is class 0 of the table ("background"); else it is ignored."""
    dates: DateRule = DateRule()
    size: int = 48
    """Side of a training chip, pixels."""
    labels: Literal[1, 2, 4] = 1
    """Labels at 10 m, at 5 m (labels_x2) or at 2.5 m (labels_x4)."""
    batch: int = 16
    chips: int | None = None
    """Chips of an epoch; None: as many as cover the train split once."""
    sampling: Literal["uniform", "class", "parcel"] = "uniform"
    """Where chips are drawn: anywhere in the split, each class alike often, or each parcel alike often."""
    normalize: Literal["statistics", "reflectance"] = "statistics"
    """By mean and deviation of the cubes' train pixels, or reflectance in [0, 1] as the published CSCL settings."""
    readers: int = 2
    """Streams of chips, read side by side; the order of the chips depends on this number and nothing else does."""
    start: Literal["threads", "forkserver", "spawn", "fork"] = "threads"
    """What the readers are: threads of this process, or processes started in this way."""
    cache_mb: int = 512
    """Decoded pixels that all readers together may keep."""


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


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe:
    """An architecture and its size."""

    name: str
    width: float = 1.0
    """Factor on the published channel counts."""
    variant: Variant = "paper"
    time_channels: tuple[Literal["day_of_year", "year"], ...] | None = None
    """Extra input channels of the backbones that know time no other way; None: what the published one takes."""


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


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe:
    """Supervised segmentation."""

    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: float = 2.0
    """Exponent of the focal loss."""
    weights: Literal["none", "inverse_frequency"] = "none"
    """Weight of a class in the loss."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The loop."""

    epochs: int = 50
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "exponential", "cosine"] = "exponential"
    """exponential: times `decay` every `decay_every` epochs; cosine: to `final_learning_rate` in the last epoch."""
    decay: float = 0.975
    decay_every: int = 1
    restart_every: int | None = None
    """Epochs after which the schedule begins anew."""
    warmup_epochs: int = 0
    final_learning_rate: float = 0.0
    precision: Literal["32", "bf16"] = "32"
    clip_norm: float | None = None
    patience: int | None = None
    """Epochs without a better validation score after which training stops; None: never."""
    validate_every: int = 1
    """Epochs between validations."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of it; exactly one of `contrast` (for pretrain) and `segmentation` (for finetune) is given."""

    name: str
    title: str = ""
    source: str | None = None
    """The publication whose setting this is."""
    data: DataRecipe = DataRecipe()
    augmentation: Augmentation = Augmentation()
    backbone: BackboneRecipe
    contrast: ContrastRecipe | None = None
    segmentation: SegmentationRecipe | None = None
    training: TrainingRecipe = TrainingRecipe()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if (self.contrast is None) == (self.segmentation is None):
            raise ValueError(
                "a recipe has exactly one of the sections contrast (to pretrain) and segmentation (to finetune)"
            )

    @property
    def objective(self) -> Literal["contrast", "segmentation"]:
        """Which of the two it is."""
        return "contrast" if self.contrast is not None else "segmentation"


def list_recipes() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    return tuple(
        sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))
    )


def load_recipe(text: str, *, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that `text` names, a shipped one or a YAML file, with changes such as "training.epochs=3".

    Raises ValueError or FileNotFoundError with one sentence: what is wrong, the line it stands on, what there is.
    """
    return build(Recipe, _changed(_document(text), changes))


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every value spelt out; `load_recipe` reads it back."""
    return yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True)


def _shipped() -> Any:
    return files("sits_models") / "recipes"


def _document(text: str) -> Document:
    if text in list_recipes():
        return parse_document((_shipped() / f"{text}.yaml").read_text("utf-8"), f"{text}.yaml")
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"no recipe file {path}; give a YAML file or one of {', '.join(list_recipes())}")
        return parse_document(path.read_text("utf-8"), str(path))
    raise ValueError(
        f"no recipe named {text!r}{did_you_mean(text, list_recipes())}; there is: {', '.join(list_recipes())}, or a YAML file"
    )


def _changed(document: Document, changes: Sequence[str]) -> Document:
    for change in changes:
        key, equals, value = change.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ValueError(f"--set takes key=value, such as training.epochs=3; got {change!r}")
        document = _with_value(document, parts, yaml.safe_load(value), f"--set {change}")
    return document


def _with_value(document: Document, parts: list[str], value: object, origin: str) -> Document:
    if len(parts) == 1:
        places = {**document.places, (parts[0],): origin}
        return dataclasses.replace(document, data={**document.data, parts[0]: value}, places=places)
    nested: object = value
    section = document.data.get(parts[0])
    inner = section if isinstance(section, dict) else {}
    for depth in range(len(parts) - 1, 1, -1):
        held: Any = inner
        for part in parts[1:depth]:
            held = held.get(part, {}) if isinstance(held, dict) else {}
        nested = {**(held if isinstance(held, dict) else {}), parts[depth]: nested}
    return document.with_values(parts[0], {parts[1]: nested}, origin)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
