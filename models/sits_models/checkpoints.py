"""Weights to share: a safetensors file, and one JSON card that rebuilds the model from it alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from sits_models.backbones import backbone_class, build_backbone, list_backbones, unet2d_clstm, unet3d, utae
from sits_models.data.classes import of_older_card
from sits_models.data.cubes import RADIOMETRY, CropEntry, CubeFacts
from sits_models.folder import write_whole
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.recipe import (
    BackboneRecipe,
    ContrastRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
    recipe_from_plain,
    recipe_to_plain,
)

__all__ = [
    "CARD",
    "WEIGHTS",
    "Card",
    "LoadReport",
    "LoadedModel",
    "Probe",
    "Publication",
    "from_reference",
    "hash_tensors",
    "load_model",
    "read_card",
    "read_reference",
    "save_weights",
    "transfer",
]

FORMAT = "sits-weights"
VERSION = "1.1"
WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is said of weights that are shared: their name, what they may be used for, and where they were trained."""

    name: str
    """Lower case letters, digits and dashes."""
    licence: str
    """An SPDX identifier."""
    description: str = ""
    authors: tuple[str, ...] = ()
    citation: str | None = None
    created: str
    """When they were published, RFC 3339."""
    areas: tuple[tuple[float, float, float, float], ...] = ()
    """West, south, east and north of each cube of the training, degrees; empty where they are not known."""
    period: tuple[str, str] | None = None
    """First and last day of these cubes, ISO 8601; None where they are not known."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An input that anybody can make again, to see that weights still give what they gave."""

    seed: int = 0
    chips: int = 2
    dates: int
    side: int
    """Pixels."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of some weights: all that rebuilds the model, and where it came from."""

    recipe: Recipe
    bands: tuple[str, ...]
    """Names in the order the model takes them."""
    dates: int
    """T that the model was built for."""
    classes: tuple[CropEntry, ...]
    """The class table in order."""
    radiometry: Mapping[str, object]
    """`level`, `scale`, `offset_removed` and `clamp` of the cubes it was trained on."""
    mean: tuple[float, ...]
    """Of stored reflectance, a value a band; taken from it before the backbone sees it."""
    std: tuple[float, ...]
    data: Mapping[str, object] = field(default_factory=dict)
    """The cubes: region, config_sha256, hash of the split."""
    parent: str | None = None
    """SHA-256 of the weights that training started from."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the validation split."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each tensor's bytes; `save_weights` fills it in."""
    software: Mapping[str, str] = field(default_factory=dict)
    publication: Publication | None = None
    """None for weights that nobody has shared yet."""
    probe: Probe | None = None
    """What the stored logits of shared weights are of."""

    @property
    def cube_version(self) -> str | None:
        """Latest version of the contract that a cube of the training was written by; None where no cube is known."""
        versions = [str(cube["version"]) for cube in self._cubes() if cube.get("version") is not None]
        return max(versions, key=_number_of, default=None)

    @property
    def simulated(self) -> bool:
        """Whether a cube of the training was made up: its metrics then say nothing about any real place."""
        return any(cube.get("simulated") is True for cube in self._cubes())

    def _cubes(self) -> list[Mapping[str, object]]:
        cubes = self.data.get("cubes")
        return [cube for cube in cubes if isinstance(cube, Mapping)] if isinstance(cubes, list) else []

    @property
    def magnification(self) -> int:
        """Pixels of the output along a side of an input pixel: 1, 2 or 4."""
        return self.recipe.data.labels

    @property
    def sha256(self) -> str:
        """One hash over all tensors."""
        return hashlib.sha256(json.dumps(dict(self.tensors), sort_keys=True).encode()).hexdigest()

    def check_cube(self, facts: CubeFacts) -> None:
        """Raises ValueError, saying how, where version, bands or radiometry of a cube are not those of the model."""
        if self.cube_version is not None and _major(facts.version) != _major(self.cube_version):
            raise ValueError(
                f"{facts.path} is a cube of version {facts.version}, and the model learnt from cubes of version "
                f"{self.cube_version}, whose values mean something else; build the cube again, or choose other weights"
            )
        missing = [name for name in self.bands if name not in facts.bands]
        if missing:
            raise ValueError(
                f"{facts.path} has no {', '.join(missing)}: the model takes the bands {', '.join(self.bands)}, "
                f"the cube holds {', '.join(facts.bands)}; build the cube with these bands"
            )
        ours, theirs = (_meaning(radiometry) for radiometry in (self.radiometry, facts.radiometry))
        differing = [
            f"{key} is {theirs[key]}, the model's {ours[key]}" for key in RADIOMETRY if ours[key] != theirs[key]
        ]
        if differing:
            raise ValueError(
                f"the radiometry of {facts.path} is not the model's: {'; '.join(differing)}; build the cube as those "
                "that the model learnt from, or choose other weights"
            )

    def to_json(self) -> dict[str, object]:
        """The card as plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "recipe": recipe_to_plain(self.recipe),
            "bands": list(self.bands),
            "dates": self.dates,
            "magnification": self.magnification,
            "classes": [dataclasses.asdict(entry) for entry in self.classes],
            "radiometry": dict(self.radiometry),
            "statistics": {"mean": list(self.mean), "std": list(self.std)},
            "data": dict(self.data),
            "parent": self.parent,
            "metrics": dict(self.metrics),
            "tensors": dict(self.tensors),
            "software": dict(self.software),
            # For other readers: both follow from `data`.
            "cube_version": self.cube_version,
            "simulated": self.simulated,
            "publication": None if self.publication is None else _plain(self.publication),
            "probe": None if self.probe is None else _plain(self.probe),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object], *, name: str) -> Self:
        """The card of plain values; `name` is what an error calls it. Raises ValueError."""
        if data.get("format") != FORMAT or str(data.get("version")).partition(".")[0] != VERSION.partition(".")[0]:
            found = f"{data.get('format')} {data.get('version')}"
            raise ValueError(f"{name} should be a card of {FORMAT} {VERSION}; it says {found}")
        try:
            recipe = _mapping(data["recipe"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name} is no whole card: {error} is missing or of a wrong kind") from error
        # What is wrong in the recipe is said by it, with the name.
        built = recipe_from_plain(recipe, name=name)
        try:
            statistics = _mapping(data["statistics"])
            return cls(
                recipe=built,
                bands=tuple(str(band) for band in _list(data["bands"])),
                dates=int(str(data["dates"])),
                classes=tuple(_entry(_mapping(entry)) for entry in _list(data["classes"])),
                radiometry=_mapping(data["radiometry"]),
                mean=tuple(float(str(value)) for value in _list(statistics["mean"])),
                std=tuple(float(str(value)) for value in _list(statistics["std"])),
                data=_mapping(data["data"]),
                parent=None if data["parent"] is None else str(data["parent"]),
                metrics={key: float(str(value)) for key, value in _mapping(data["metrics"]).items()},
                tensors={key: str(value) for key, value in _mapping(data["tensors"]).items()},
                software={key: str(value) for key, value in _mapping(data["software"]).items()},
                # A card of version 1.0 has neither.
                publication=_publication(data.get("publication")),
                probe=_probe(data.get("probe")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name} is no whole card: {error} is missing or of a wrong kind") from error
        except ValueError as error:
            raise ValueError(f"{name} is no whole card: {error}") from error


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was saved, in evaluation mode on the CPU, with its card."""

    objective: Objective
    card: Card


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of each tensor when weights met a model."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """In the model and not in the weights."""
    extra: tuple[str, ...] = ()
    """In the weights and not in the model."""
    misshapen: tuple[str, ...] = ()
    """In both, of different shape: "name (shape in the weights, shape in the model)"."""
    left_out: tuple[str, ...] = ()
    """On either side, and not asked for."""

    @property
    def whole(self) -> bool:
        """Whether everything that was asked for was loaded."""
        return not (self.missing or self.extra or self.misshapen)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (
            ("missing in the weights", self.missing),
            ("unknown to the model", self.extra),
            ("of another shape", self.misshapen),
            ("left out as asked", self.left_out),
        ):
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(names)}")
        return "; ".join(parts)


def save_weights(folder: str | Path, objective: Objective, card: Card) -> Card:
    """Write `weights.safetensors` and then `card.json` into a folder, each whole or not at all; the card as written."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in objective.state_dict().items()}
    complete = dataclasses.replace(card, tensors=hash_tensors(tensors), software=card.software or _software())
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_whole(target / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_whole(target / CARD, (json.dumps(complete.to_json(), indent=2) + "\n").encode())
    return complete


def read_card(folder: str | Path) -> Card:
    """The card of a folder of weights, or of a run."""
    path = _weights_folder(folder) / CARD
    try:
        data = _mapping(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    except TypeError as error:
        raise ValueError(f"{path} is no card: it should be {error}") from error
    return Card.from_json(data, name=str(path))


def load_model(folder: str | Path) -> LoadedModel:
    """The model of a folder of weights, or of a run, from its two files alone.

    Raises FileNotFoundError where there are no weights, and ValueError where a byte of them is not what the card says.
    """
    card, tensors = _read(folder)
    objective = _built_by(card)
    report = _load_into(objective, tensors, part="")
    if not report.whole:
        raise ValueError(f"the weights in {folder} are not those of the model on their card: {report}")
    return LoadedModel(objective.eval(), card)


def transfer(objective: Objective, folder: str | Path, *, part: Literal["encoder", "all"] = "encoder") -> LoadReport:
    """Start a model from the weights of another: by default all but what belongs to the task, as published for CSCL.

    The encoder (backbone, magnification, normalization) must match to the last tensor; the similarity of a
    pretraining, both heads, and what of a backbone belongs to the outputs of a task are left out. Tarasiou et al. 2022
    (`partial_restore` of the official code).

    Raises ValueError, naming every tensor, where one is missing, unknown or of another shape, or where the bands or
    the backbone (architecture, variant, channels of time) differ; the model is then as it was.
    """
    card, tensors = _read(folder)
    if card.bands != objective.encoder.bands:
        raise ValueError(
            f"the weights in {folder} take the bands {', '.join(card.bands)}, this model "
            f"{', '.join(objective.encoder.bands)}; give the recipe data.bands=[{', '.join(card.bands)}]"
        )
    differing = _other_backbone(card, objective)
    if differing:
        raise ValueError(
            f"the weights in {folder} are of another backbone: {'; '.join(differing)}; "
            "change backbone of the recipe, or start from other weights"
        )
    backbone = objective.encoder.backbone
    of_task = tuple(f"encoder.backbone.{name}" for name in backbone.of_task) if part == "encoder" else ()
    report = _load_into(objective, tensors, part="encoder." if part == "encoder" else "", but=of_task)
    if not report.whole:
        raise ValueError(f"the weights in {folder} do not fit this model: {report}")
    return report


def from_reference(
    source: str | Path | Mapping[str, Tensor],
    *,
    architecture: str,
    bands: tuple[str, ...],
    dates: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Objective:
    """The model of weights that an official code saved, in evaluation mode; stage, classes and finer labels are theirs.

    `source` is a file or a state dict of michaeltrs/DeepSatModels (unet3d, unet3df, unet2d_clstm) or of
    VSainteuf/utae-paps (utae), `bands` the image bands in the order of its training (date channels not counted) and
    `dates` its T. `mean` and `std` are of stored reflectance (x 10000); None: reflectance in [0, 1], as DeepSatModels.

    A file is read as tensors and plain values only. Raises ValueError for anything else in it, for an architecture
    that is not known, and where a tensor is missing, unknown or of another shape.
    """
    if architecture not in _REFERENCES:
        known = ", ".join(_REFERENCES)
        raise ValueError(f"no reference architecture {architecture!r}; weights of these can be read: {known}")
    state = source if isinstance(source, Mapping) else read_reference(source)
    tensors = _REFERENCES[architecture](state)
    recipe = _recipe_of_reference(tensors, architecture, bands)
    objective = build_objective(
        recipe,
        bands=bands,
        dates=dates,
        classes=_classes_of_reference(tensors),
        mean=[0.0] * len(bands) if mean is None else mean,
        std=[10000.0] * len(bands) if std is None else std,
    )
    own = {f"encoder.{name}": getattr(objective.encoder, name) for name in ("mean", "std")}
    report = _load_into(objective, {**own, **tensors}, part="")
    if not report.whole:
        raise ValueError(f"these are not the weights of a {architecture} of {dates} dates: {report}")
    return objective.eval()


def read_reference(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .pth or .ckpt file, read without running anything that it says."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused anyway
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is broken, and is not loaded: "
            "save its state_dict() alone where you trust it"
        ) from error
    state = data.get("state_dict", data) if isinstance(data, dict) else data
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors was expected")
    return {str(name): tensor for name, tensor in state.items()}


_DATE_CHANNELS: tuple[Literal["day_of_year", "year"], ...] = ("day_of_year", "year")
"""The channels that DeepSatModels puts behind the bands: the first in France, both in Germany."""

_REFERENCES = {
    "unet2d_clstm": unet2d_clstm.from_reference,
    "unet3d": unet3d.from_reference,
    "unet3df": unet3d.from_reference,
    "utae": utae.from_reference,
}


def _recipe_of_reference(tensors: Mapping[str, Tensor], architecture: str, bands: tuple[str, ...]) -> Recipe:
    channels = next((t.shape[1] for name, t in tensors.items() if name.startswith("encoder.") and t.ndim >= 4), 0)
    extra = channels - len(bands)
    if not 0 <= extra <= len(_DATE_CHANNELS):
        raise ValueError(
            f"these weights take {channels} channels, which is not {len(bands)} bands with 0, 1 or 2 channels of dates"
        )
    labels: Literal[1, 2, 4] = 1
    if any(name.startswith("encoder.magnify.x2.") for name in tensors):
        labels = 4 if any(name.startswith("encoder.magnify.x4.") for name in tensors) else 2
    offsets = tensors.get("similarity.rel_h")  # (channels / 2, 1, 1, window, 1)
    pretraining = any(name.startswith("similarity.") for name in tensors)
    return Recipe(
        name=f"{architecture}-reference",
        data=DataRecipe(bands=bands, labels=labels, size=_size_of_reference(architecture, extra)),
        backbone=BackboneRecipe(
            name=architecture, time_channels=None if architecture == "utae" else _DATE_CHANNELS[:extra]
        ),
        contrast=ContrastRecipe(window=3 if offsets is None else offsets.shape[3]) if pretraining else None,
        segmentation=None if pretraining else SegmentationRecipe(),
    )


def _size_of_reference(architecture: str, extra: int) -> int:
    """Side of the published chips, pixels: PASTIS for U-TAE, else MTLCC, which alone gives the year, or T31TFM."""
    if architecture == "utae":
        return 128
    return 24 if extra == len(_DATE_CHANNELS) else 48


def _classes_of_reference(tensors: Mapping[str, Tensor]) -> int:
    """Length of the last vector before the logits; UNet3D has no head but its last convolution."""
    head = [tensor for name, tensor in tensors.items() if name.startswith("head.") and tensor.ndim >= 1]
    last = head[-1] if head else tensors.get("encoder.backbone.final.bias")
    return 1 if last is None else last.shape[0]


def hash_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of each tensor."""
    hashes = {}
    for name, tensor in tensors.items():
        head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        hashes[name] = hashlib.sha256(head + data.tobytes()).hexdigest()
    return hashes


def _weights_folder(folder: str | Path) -> Path:
    given = Path(folder)
    for candidate in (given, given / "weights"):
        if (candidate / CARD).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    if not given.exists():
        raise FileNotFoundError(f"no folder {given}; give a folder of weights, or of a finished run")
    if (given / "recipe.yaml").is_file():
        raise FileNotFoundError(f"the run in {given} has no weights yet; run its command again to finish it")
    raise FileNotFoundError(f"{given} holds no {WEIGHTS} with a {CARD}; give a folder of weights, or of a finished run")


def _read(folder: str | Path) -> tuple[Card, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = _weights_folder(folder) / WEIGHTS
    card = read_card(folder)
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    hashes = hash_tensors(tensors)
    differing = sorted(name for name in {*hashes, *card.tensors} if hashes.get(name) != card.tensors.get(name))
    if differing:
        raise ValueError(
            f"{path} is not the file that its card describes ({', '.join(differing[:5])}"
            f"{f' and {len(differing) - 5} more' if len(differing) > 5 else ''}); copy both files again"
        )
    return card, tensors


def _built_by(card: Card) -> Objective:
    return build_objective(
        card.recipe,
        bands=card.bands,
        dates=card.dates,
        classes=len(card.classes),
        mean=card.mean,
        std=card.std,
    )


def _other_backbone(card: Card, objective: Objective) -> list[str]:
    """How the backbone of a card computes otherwise than that of a model; shapes of tensors do not tell."""
    theirs, ours = card.recipe.backbone, objective.encoder.backbone
    if backbone_class(theirs.name) is not type(ours):
        here = [name for name in list_backbones() if backbone_class(name) is type(ours)]
        return [f"name is {theirs.name} there, {', '.join(here)} here"]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # nothing is drawn or stored
        other = build_backbone(theirs, bands=len(card.bands), dates=card.dates)
    return [
        f"{key} is {_spelt(getattr(other, key))} there, {_spelt(getattr(ours, key))} here"
        for key in ("variant", "time_channels")
        if getattr(other, key) != getattr(ours, key)
    ]


def _spelt(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _load_into(
    objective: Objective, tensors: Mapping[str, Tensor], *, part: str, but: tuple[str, ...] = ()
) -> LoadReport:
    """Load the tensors whose name begins with `part` and with none of `but`, all of them or none, and report."""
    ours = objective.state_dict()

    def asked(name: str) -> bool:
        return name.startswith(part) and not name.startswith(but)

    wanted = [name for name in ours if asked(name)]
    offered = [name for name in tensors if asked(name)]
    both = [name for name in wanted if name in tensors]
    fitting = [name for name in both if tensors[name].shape == ours[name].shape]
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in wanted if name not in tensors),
        extra=tuple(name for name in offered if name not in ours),
        misshapen=tuple(
            f"{name} ({tuple(tensors[name].shape)}, {tuple(ours[name].shape)})" for name in both if name not in fitting
        ),
        left_out=tuple(sorted(name for name in {*ours, *tensors} if not asked(name))),
    )
    if report.whole:
        objective.load_state_dict({**ours, **{name: tensors[name] for name in fitting}})
    return report


def _meaning(radiometry: Mapping[str, object]) -> dict[str, object]:
    return {key: radiometry.get(key) for key in RADIOMETRY}


def _software() -> dict[str, str]:
    try:
        ours = version("sits-cubes")
    except PackageNotFoundError:
        ours = "unknown"
    return {"sits-cubes": ours, "torch": str(torch.__version__), "python": platform.python_version()}


def _entry(data: Mapping[str, object]) -> CropEntry:
    hcat = data["hcat"]
    entry = CropEntry(
        index=int(str(data["index"])),
        code=str(data["code"]),
        name=str(data["name"]),
        hcat=None if hcat is None else str(hcat),
        colour=str(data["colour"]),
    )
    return of_older_card(entry)


def _plain(value: Publication | Probe) -> dict[str, object]:
    """As JSON gives it back: lists in place of tuples."""
    return dict(json.loads(json.dumps(dataclasses.asdict(value))))


def _publication(value: object) -> Publication | None:
    if value is None:
        return None
    data = _mapping(value)
    period = data.get("period")
    areas = [[float(str(degrees)) for degrees in _list(area)] for area in _list(data.get("areas", []))]
    return Publication(
        name=str(data["name"]),
        licence=str(data["licence"]),
        description=str(data.get("description", "")),
        authors=tuple(str(author) for author in _list(data.get("authors", []))),
        citation=None if data.get("citation") is None else str(data["citation"]),
        created=str(data["created"]),
        areas=tuple((west, south, east, north) for west, south, east, north in areas),
        period=None if period is None else (str(_list(period)[0]), str(_list(period)[1])),
    )


def _probe(value: object) -> Probe | None:
    if value is None:
        return None
    numbers = {key: int(str(number)) for key, number in _mapping(value).items()}
    return Probe(seed=numbers["seed"], chips=numbers["chips"], dates=numbers["dates"], side=numbers["side"])


def _major(version: str) -> str:
    return version.partition(".")[0]


def _number_of(version: str) -> tuple[int, ...]:
    """(1, 10) for "1.10", which is later than "1.9"."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"keys with values, got {str(value)[:40]!r}")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"a list, got {str(value)[:40]!r}")
    return value
