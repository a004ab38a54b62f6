"""`sits-model zoo push`: weights made whole, verified, and put where others find them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyproj import Transformer

from sits_models.checkpoints import Card, LoadedModel, Publication, load_model, read_card, weights_folder
from sits_models.data.cubes import CubeFacts, open_cube
from sits_models.folder import lock_folder
from sits_models.zoo.complete import verify, write_whole_folder
from sits_models.zoo.entry import CARD, LICENCE, WEIGHTS, Entry, check_name, read_entry
from sits_models.zoo.licences import check_licence
from sits_models.zoo.registry import Registry, find_weights, folder_registry
from sits_models.zoo.sources import HUB, HubRepository

__all__ = ["Pushed", "Wishes", "push"]

_LARGEST_CARD = 32 << 20
"""Bytes, far more than any has."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person says of the weights that they share; None: as the card has it."""

    name: str
    licence: str
    description: str | None = None
    authors: tuple[str, ...] | None = None
    citation: str | None = None
    created: str
    """RFC 3339."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where the weights are now."""

    entry: Entry
    place: str
    """Their folder, or the address of the repository."""
    new: bool
    """False where the same weights were there before."""
    tested: bool
    """Whether scores of a test split are on the card."""


def push(source: str, wishes: Wishes, *, registry: str) -> Pushed:
    """Put the weights of a run or a folder into a registry: a folder, or hf://ORG/REPO.

    The scores of the test split are those of an evaluation in its default folder, where it measured these weights on
    the cubes of their training. Weights that are there already, the same to the last byte but for the time, are left
    alone; others of the same name become a version of it. Raises ValueError where name or licence are none, or the
    weights do not verify; FileNotFoundError where there are none.
    """
    check_name(wishes.name)
    check_licence(wishes.licence)
    folder = weights_folder(find_weights(source))
    model = load_model(folder)
    card = replace(model.card, publication=_publication(model.card, wishes), metrics=_metrics(model.card, folder))
    licence = folder / LICENCE if (folder / LICENCE).is_file() else None
    shared = LoadedModel(model.objective, card)
    if registry.startswith(HUB):
        hub = HubRepository.of(registry)
        with TemporaryDirectory(prefix="sits-zoo-") as scratch:
            _complete(Path(scratch), shared, tensors=folder / WEIGHTS, licence=licence)
            return _to_hub(Path(scratch), hub)
    target = folder_registry(registry)
    target.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(target.folder), target.partial(f"push-{wishes.name}") as partial:
        _complete(partial, shared, tensors=folder / WEIGHTS, licence=licence)
        return _to_folder(partial, target)


def _complete(partial: Path, model: LoadedModel, *, tensors: Path, licence: Path | None) -> None:
    write_whole_folder(partial, model, tensors=tensors, licence=licence)
    findings = verify(partial)
    if findings:
        raise ValueError(f"these weights cannot be shared: {'; '.join(findings)}")


def _to_folder(partial: Path, registry: Registry) -> Pushed:
    tested = _tested(partial)
    for entry in registry.versions(read_entry(partial).name):
        if _timeless(registry.folder_of(entry) / CARD) == _timeless(partial / CARD):
            registry.write_index()  # of a push that was stopped before it
            return Pushed(entry=entry, place=str(registry.folder_of(entry)), new=False, tested=tested)
    entry = registry.add(partial)
    return Pushed(entry=entry, place=str(registry.folder_of(entry)), new=True, tested=tested)


def _to_hub(partial: Path, hub: HubRepository) -> Pushed:
    entry, before = read_entry(partial), partial / "before.json"
    try:
        hub.fetch(CARD, before, limit=_LARGEST_CARD)
    except FileNotFoundError:
        same = False
    else:
        same = _timeless(before) == _timeless(partial / CARD)
    if not same:
        hub.upload({name: partial / name for name in entry.files}, message=f"{entry.name} {entry.version}")
    return Pushed(entry=entry, place=hub.address, new=not same, tested=_tested(partial))


def _tested(folder: Path) -> bool:
    return any(name.startswith("test_") for name in read_card(folder).metrics)


def _timeless(path: Path) -> dict[str, Any]:
    """A card without the time at which it was published."""
    card: dict[str, Any] = json.loads(path.read_bytes())
    return {**card, "publication": {**(card.get("publication") or {}), "created": None}}


# What is known of the training


def _publication(card: Card, wishes: Wishes) -> Publication:
    before, (areas, period) = card.publication, _footprint(card)
    title = card.recipe.title or f"The recipe {card.recipe.name}"
    description = wishes.description or (before.description if before else f"{title}.")
    return Publication(
        name=wishes.name,
        licence=wishes.licence,
        description=description,
        authors=wishes.authors if wishes.authors is not None else before.authors if before else (),
        citation=wishes.citation or (before.citation if before else None),
        created=wishes.created,
        areas=areas or (before.areas if before else ()),
        period=period or (before.period if before else None),
    )


def _footprint(card: Card) -> tuple[tuple[tuple[float, float, float, float], ...], tuple[str, str] | None]:
    """Bounds and period of the cubes of the training, as far as they are still where they were."""
    cubes = card.data.get("cubes")
    hashes = {str(cube.get("config_sha256")) for cube in cubes} if isinstance(cubes, list) else set()
    found = [facts for path in card.recipe.data.cubes if (facts := _facts(path)) is not None]
    known = [facts for facts in found if facts.config_sha256 in hashes]
    if not known or len(known) < len(hashes):
        return (), None
    days = [day for facts in known for day in facts.days]
    return tuple(map(_bounds, known)), (_iso(min(days)), _iso(max(days)))


def _facts(path: str) -> CubeFacts | None:
    """The facts of a cube; None where it is gone: where it lay is good to know and decides nothing."""
    try:
        return open_cube(path).facts
    except (FileNotFoundError, ValueError, OSError):
        return None


def _bounds(facts: CubeFacts) -> tuple[float, float, float, float]:
    a, _, left, _, e, top = facts.transform
    height, width = facts.shape
    to_degrees = Transformer.from_crs(facts.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(left, top + e * height, left + a * width, top)
    return round(west, 6), round(south, 6), round(east, 6), round(north, 6)


def _iso(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


_SCORES = ("miou", "overall_accuracy")
_GROUPS = {
    "pixel": (("overall", ""), ("boundary", "boundary_"), ("interior", "interior_")),
    "parcel": (("parcels", "parcel_"),),
}
"""Of an evaluation, by what the model gives a class to."""


def _metrics(card: Card, folder: Path) -> Mapping[str, float]:
    """Those of the card, and of the test split where these weights were evaluated on that of their own cubes."""
    # `evaluate --weights` writes into what it was given: the run, or the folder of weights itself.
    for place in (folder.parent, folder):
        path = place / "evaluation-test" / "metrics.json"
        if path.is_file() and (scores := _test_scores(card, path)) is not None:
            kept = {name: value for name, value in card.metrics.items() if not name.startswith("test_")}
            return {**kept, **scores}
    return card.metrics


def _test_scores(card: Card, path: Path) -> dict[str, float] | None:
    """What an evaluation found; None where it is one of other weights, of other cubes, or of another split."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        ours = card.sha256 in str(found["model"]["Weights"]) and found.get("split", "test") == "test"
        # An evaluation that does not say what it measured on may be one of another region.
        if not ours or (measured := _hashes(found.get("cubes"))) is None or measured != _hashes(card.data.get("cubes")):
            return None
        scores: dict[str, float] = {}
        for group, prefix in _GROUPS[found.get("unit", "pixel")]:
            values = (found[group] or {"scores": {}})["scores"]
            scores |= {f"test_{prefix}{key}": float(values[key]) for key in _SCORES if values.get(key) is not None}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no evaluation: {error}; evaluate again, or remove its folder") from error
    return scores


def _hashes(cubes: object) -> set[str] | None:
    """SHA-256 of the configurations of cubes; None where there are none, which equals no set."""
    if not isinstance(cubes, list) or not cubes:
        return None
    return {str(cube.get("config_sha256")) for cube in cubes}
