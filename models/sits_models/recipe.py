"""A recipe: every choice of a training, read from YAML and checked before anything starts."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from sits_catalog.documents import Document, build, did_you_mean, parse_document

__all__ = [
    "Augmentation",
    "BackboneRecipe",
    "ClassificationRecipe",
    "ContrastRecipe",
    "DataRecipe",
    "DateRule",
    "HeadKind",
    "ObjectiveName",
    "Recipe",
    "SegmentationRecipe",
    "TrainingRecipe",
    "TransformerRecipe",
    "Variant",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_from_plain",
    "recipe_to_plain",
]

Variant = Literal["paper", "fixed"]
"""An architecture as published, faults included, or with its known faults mended (docs/reference/backbones.md)."""

ObjectiveName = Literal["contrast", "segmentation", "classification"]
"""What a model is trained for, by the name of its section in a recipe."""

HeadKind = Literal["linear", "conv3", "double_conv", "none"]
"""The last layers of a segmentation (heads.py)."""


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
    """Chips of an epoch; None: as many as cover the train split once, or with `middle` one a parcel."""
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
        _check_at_least(1, "data", size=self.size, batch=self.batch, chips=self.chips, readers=self.readers)
        _check_at_least(0, "data", cache_mb=self.cache_mb)
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
        _check_at_least(0, "augmentation", gain=self.gain, noise=self.noise)


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
        _check_at_least(
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
        _check_at_least(1, "contrast", stride=self.stride, dilation=self.dilation, groups=self.groups)
        _check_at_least(1, "contrast", channels=self.channels)
        _check_at_least(0, "contrast", positive_weight=self.positive_weight)
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
        _check_at_least(0, "segmentation", gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe:
    """One class a chip: that of the pixel in its middle, as TSViT's and SeCo's classifiers learn it."""

    weights: Literal["none", "inverse_frequency"] = "none"
    """Weight of a class in the loss, which is the cross entropy."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The loop."""

    epochs: int = 50
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam and adamw: what the running means of gradients and of their squares keep."""
    momentum: float = 0.9
    """Of sgd."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "exponential", "cosine", "milestones"] = "exponential"
    """exponential: times `decay` every `decay_every` epochs; cosine: to `final_learning_rate` in the last epoch, or,
    where that is 0, in the epoch after it, so that none is trained at a rate of 0; milestones: times `decay` at each
    of these."""
    decay: float = 0.975
    decay_every: int = 1
    milestones: tuple[int, ...] = ()
    """Finished epochs after each of which the rate falls, for the schedule of that name."""
    restart_every: int | None = None
    """Epochs after which the schedule begins anew."""
    warmup_epochs: int = 0
    final_learning_rate: float = 0.0
    precision: Literal["32", "bf16"] = "32"
    """32: float32, without TF32 on a GPU; bf16: half precision where it is safe, on a GPU alone."""
    compile: bool = False
    """Whether torch.compile translates the model first: minutes at the start, and faster steps on a GPU."""
    checkpointing: bool = False
    """Whether activations are computed again for the gradients instead of kept: less memory for about a third more
    work."""
    clip_norm: float | None = None
    patience: int | None = None
    """Validations without a better score after which training stops, those that gave none not counted; None: never."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch is validated in any case."""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "decay_every": self.decay_every, "validate_every": self.validate_every}
        _check_at_least(1, "training", **counts, restart_every=self.restart_every, patience=self.patience)
        _check_at_least(0, "training", weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)
        _check_at_least(0, "training", seed=self.seed, final_learning_rate=self.final_learning_rate)
        _check_above_zero("training", learning_rate=self.learning_rate, decay=self.decay, clip_norm=self.clip_norm)
        for key, value in (("momentum", self.momentum), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"training.{key} is at least 0 and below 1; got {value}")
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError(
                f"training.schedule {self.schedule} goes {'with' if self.schedule == 'milestones' else 'without'} "
                "training.milestones"
            )
        if list(self.milestones) != sorted({*self.milestones}) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"training.milestones are numbers of epochs from 1, ascending; got {self.milestones}")


def _check_at_least(least: int, section: str, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{section}.{key} is at least {least}; got {value}")


def _check_above_zero(section: str, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"{section}.{key} is above 0; got {value}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of it, with one of `contrast` (for pretrain), `segmentation` and `classification` (for finetune)."""

    name: str
    title: str = ""
    source: str | None = None
    """The publication whose setting this is."""
    data: DataRecipe = DataRecipe()
    augmentation: Augmentation = Augmentation()
    backbone: BackboneRecipe
    contrast: ContrastRecipe | None = None
    segmentation: SegmentationRecipe | None = None
    classification: ClassificationRecipe | None = None
    training: TrainingRecipe = TrainingRecipe()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        given = [name for name in get_args(ObjectiveName) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "a recipe has exactly one of the sections contrast (to pretrain), segmentation and classification (to "
                f"finetune); it has {' and '.join(given) or 'none'}"
            )
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
        if self.contrast is not None:
            return "contrast"
        return "segmentation" if self.segmentation is not None else "classification"


def list_recipes() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    names = (entry.name for entry in _shipped().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_recipe(text: str, *, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that `text` names, a shipped one or a YAML file, with changes such as "training.epochs=3".

    Raises ValueError or FileNotFoundError with one sentence: what is wrong, the line it stands on, what there is.
    """
    document = _document(text)
    for change in changes:
        document = _changed(document, change)
    return _built(document)


def recipe_from_plain(data: Mapping[str, object], *, name: str) -> Recipe:
    """The recipe that `recipe_to_plain` gave; `name` is what an error calls it. Raises ValueError."""
    return _built(Document(name, data, {}))


def recipe_to_plain(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values for YAML or JSON, every value spelt out."""
    return {key: _plain(value) for key, value in dataclasses.asdict(recipe).items() if value is not None}


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every value spelt out; `load_recipe` reads it back."""
    plain = recipe_to_plain(recipe)
    # Unicode's own line breaks come back as spaces where PyYAML writes them as they are.
    readable = _LINE_BREAKS.isdisjoint(json.dumps(plain, ensure_ascii=False))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=readable, width=120)


def _shipped() -> Any:
    return files("sits_models") / "recipes"


def _document(text: str) -> Document:
    if text in list_recipes():
        return parse_document((_shipped() / f"{text}.yaml").read_text("utf-8"), f"{text}.yaml")
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"no recipe file {path}; give a YAML file or one of {', '.join(list_recipes())}")
        return parse_document(_text_of(path), str(path))
    known = ", ".join(list_recipes())
    raise ValueError(f"no recipe named {text!r}{did_you_mean(text, list_recipes())}; there is: {known}, or a YAML file")


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8; a recipe is a YAML file") from error


def _built(document: Document) -> Recipe:
    return build(Recipe, dataclasses.replace(document, data=_with_numbers(Recipe, document.data)))


_LINE_BREAKS = frozenset("\x85\u2028\u2029")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def _with_numbers(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The values with 1e-4 as a number wherever a number is asked for: YAML 1.1, which PyYAML reads, has it as text."""
    changed = dict(data)
    for name, hint in get_type_hints(cls).items():
        value, kinds = data.get(name), (hint, *get_args(hint))
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if isinstance(section, type) and isinstance(value, Mapping):
            changed[name] = _with_numbers(section, value)
        elif float in kinds and isinstance(value, str) and _EXPONENT.fullmatch(value):
            changed[name] = float(value)
    return changed


def _changed(document: Document, change: str) -> Document:
    key, equals, value = change.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        raise ValueError(f"--set takes key=value, such as training.epochs=3; got {change!r}")
    origin = f"--set {change}"
    parsed = parse_document(f"value: {value}", origin).data["value"]
    places = {parts[:depth]: origin for depth in range(1, len(parts))} | dict(document.places) | {parts: origin}
    return dataclasses.replace(document, data=_with_value(document.data, parts, parsed, origin), places=places)


def _with_value(data: Mapping[str, Any], parts: tuple[str, ...], value: object, origin: str) -> dict[str, Any]:
    key, *rest = parts
    if not rest:
        return {**data, key: value}
    inner = data.get(key) or {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{origin}: {key!r} holds a value, not keys; it has no {'.'.join(rest)!r}")  # noqa: TRY004
    return {**data, key: _with_value(inner, tuple(rest), value, origin)}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
