"""The card of weights: all that rebuilds the model, and where it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from sits_models.data.classes import of_older_card
from sits_models.data.cubes import RADIOMETRY, CropEntry, CubeFacts, Described
from sits_models.recipe import Recipe, recipe_from_plain, recipe_to_plain

__all__ = ["Card", "Probe", "Publication"]

FORMAT = "sits-weights"
VERSION = "1.1"
_MOST_BANDS, _MOST_CLASSES = 256, 65535
"""Of a model: a card that names more would fill the memory before its weights are looked at."""
_MOST_CHIPS, _MOST_DATES, _MOST_PIXELS, _LARGEST = 16, 4096, 4096, 1 << 26
"""Of a probe; the last is 128 MiB a band as it is stored."""


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
    padding: int = 0
    """The last dates of the last chip that are none."""

    def __post_init__(self) -> None:
        """Raises ValueError for an input that nobody can make."""
        for name, value, least, most in (
            ("seed", self.seed, 0, 2**63),
            ("chips", self.chips, 1, _MOST_CHIPS),
            ("dates", self.dates, 1, _MOST_DATES),
            ("side", self.side, 1, _MOST_PIXELS),
            ("padding", self.padding, 0, self.dates - 1),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} of a probe should be from {least} to {most}; got {value}")
        if self.chips * self.dates * self.side**2 > _LARGEST:
            raise ValueError(
                f"a probe has at most {_LARGEST} pixels on all its dates; got {self.chips} chips of {self.side} px on "
                f"{self.dates} dates"
            )


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

    def __post_init__(self) -> None:
        """Raises ValueError for a model that no weights could be of."""
        for name, count, most in (
            ("bands", len(self.bands), _MOST_BANDS),
            ("dates", self.dates, _MOST_DATES),
            ("classes", len(self.classes), _MOST_CLASSES),
        ):
            if not 0 <= count <= most:
                raise ValueError(f"a model has up to {most} {name}; got {count}")

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
        self.check_radiometry(facts)

    def check_radiometry(self, facts: Described) -> None:
        """Raises ValueError, saying how, where the integers of a cube, or of a patch set, do not mean what they meant
        to the model."""
        if differing := self.radiometry_differences(facts.radiometry):
            raise ValueError(
                f"the radiometry of {facts.path} is not the model's: {'; '.join(differing)}; give data such as those "
                "that the model learnt from, or choose other weights"
            )

    def radiometry_differences(self, radiometry: Mapping[str, object]) -> tuple[str, ...]:
        """What integers of a radiometry mean otherwise than to the model, in words; nothing where it is the same."""
        ours, theirs = (_meaning(one) for one in (self.radiometry, radiometry))
        return tuple(
            f"{key} is {theirs[key]}, the model's {ours[key]}" for key in RADIOMETRY if ours[key] != theirs[key]
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
            found = f"{data.get('format')} {data.get('version')}"[:60]
            found = found if found.isprintable() else ascii(found)
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


def _plain(value: Publication | Probe) -> dict[str, object]:
    """As JSON gives it back: lists in place of tuples."""
    return dict(json.loads(json.dumps(dataclasses.asdict(value))))


def _publication(value: object) -> Publication | None:
    if value is None:
        return None
    data = _mapping(value)
    period = None if data.get("period") is None else [str(day) for day in _list(data["period"])]
    if period is not None and len(period) != 2:
        raise ValueError(f"period should be its first and its last day; got {period}")
    areas = [[float(str(degrees)) for degrees in _list(area)] for area in _list(data.get("areas", []))]
    return Publication(
        name=str(data["name"]),
        licence=str(data["licence"]),
        description=str(data.get("description", "")),
        authors=tuple(str(author) for author in _list(data.get("authors", []))),
        citation=None if data.get("citation") is None else str(data["citation"]),
        created=str(data["created"]),
        areas=tuple((west, south, east, north) for west, south, east, north in areas),
        period=None if period is None else (period[0], period[1]),
    )


def _probe(value: object) -> Probe | None:
    if value is None:
        return None
    numbers = {key: int(str(number)) for key, number in _mapping(value).items()}
    return Probe(
        seed=numbers["seed"],
        chips=numbers["chips"],
        dates=numbers["dates"],
        side=numbers["side"],
        padding=numbers.get("padding", 0),  # cards of before know of none
    )


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


def _meaning(radiometry: Mapping[str, object]) -> dict[str, object]:
    known = {key: radiometry.get(key) for key in RADIOMETRY}
    return {key: "unknown" if value is None else value for key, value in known.items()}


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
