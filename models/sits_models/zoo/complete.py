"""A folder of weights, made whole: card, stored logits, STAC item and a page for people beside the tensors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from sits_models.checkpoints import LoadedModel, load_model
from sits_models.objectives.chip_embeddings import chip_channels, leaves_decoder_out
from sits_models.zoo.entry import (
    CARD,
    FILES,
    ITEM,
    LICENCE,
    LOGITS,
    README,
    WEIGHTS,
    checksums,
    stored_file,
    version_of,
)
from sits_models.zoo.item import weights_item
from sits_models.zoo.licences import check_licence
from sits_models.zoo.logits import compare_logits, compute_logits, make_probe, write_logits
from sits_models.zoo.readme import write_readme

__all__ = ["describe", "verify", "write_whole_folder"]


def write_whole_folder(folder: Path, model: LoadedModel, *, tensors: Path, licence: Path | None) -> None:
    """Write everything that shared weights are made of into an empty folder.

    The model's card has a publication; `tensors` is the file of its weights, copied as it is, and `licence` a text to
    put beside them.
    """
    probe = make_probe(model.objective, model.card)
    # The tensors' hashes stay those that were checked on loading. No path of a private disk is published.
    recipe = replace(model.card.recipe, data=replace(model.card.recipe.data, cubes=()))
    card = replace(model.card, recipe=recipe, probe=probe)
    shutil.copyfile(tensors, folder / WEIGHTS)
    if licence is not None:
        shutil.copyfile(licence, folder / LICENCE)
    (folder / CARD).write_text(_json(card.to_json()), "utf-8")
    write_logits(folder / LOGITS, compute_logits(model.objective, card, probe))
    (folder / README).write_text(write_readme(card, parameters=_parameters(model)), "utf-8")
    (folder / ITEM).write_text(_json(describe(folder, LoadedModel(model.objective, card))), "utf-8")


def describe(folder: Path, model: LoadedModel) -> dict[str, object]:
    """The STAC item of the weights in a folder, by the files that lie there."""
    encoder = model.objective.encoder
    present = [name for name in (*FILES, LICENCE) if name != ITEM and (folder / name).is_file()]
    stored = (folder / CARD).read_bytes()
    return weights_item(
        model.card,
        {name: stored_file(folder / name) for name in present},
        version=version_of(stored),
        # As it was written: a recipe that is read today has every key that has come since.
        recipe=json.loads(stored)["recipe"],
        parameters=_parameters(model),
        channels=chip_channels(encoder) if leaves_decoder_out(model.card.recipe) else encoder.channels,
        side=encoder.backbone.needs.size,
    )


def verify(folder: Path) -> tuple[str, ...]:
    """What is wrong with the weights in a folder, a sentence each; nothing where they are whole and true.

    The hash of each file and of each tensor, the card, the item against the card, the licence, whether the model can be
    built again, and whether it still gives its stored logits.
    """
    missing = [f"there is no {name}; push the weights again" for name in FILES if not (folder / name).is_file()]
    if any(not (folder / name).is_file() for name in (WEIGHTS, CARD)):
        return tuple(missing)
    try:
        model = load_model(folder)
    except (ValueError, FileNotFoundError) as error:
        return (*missing, *_other_bytes(folder), str(error))
    found = [*missing, *_other_bytes(folder)]
    publication = model.card.publication
    if publication is None:
        return (*found, f"{CARD} says neither name nor licence: the weights were never pushed")
    try:
        check_licence(publication.licence)
    except ValueError as error:
        found.append(f"{CARD}: {error}")
    if (folder / ITEM).is_file():
        found += _other_item(folder, model)
    if (folder / LOGITS).is_file():
        differing = compare_logits(folder, model)
        found += [] if differing is None else [differing]
    return tuple(found)


def _other_bytes(folder: Path) -> list[str]:
    """Files that are not those the item describes."""
    item = _read_item(folder)
    if item is None:
        return [f"{ITEM} cannot be read as a STAC item"] if (folder / ITEM).is_file() else []
    try:
        files = checksums(item, origin=ITEM)
    except ValueError as error:
        return [str(error)]
    found = []
    for name, file in files.items():
        if not (folder / name).is_file():
            found.append(f"{ITEM} names ./{name}, which is not there")
        elif stored_file(folder / name) != file:
            found.append(f"{name} is not the file that {ITEM} describes: its SHA-256 is another")
    return found


def _other_item(folder: Path, model: LoadedModel) -> list[str]:
    """Where the item says something else than the card; its hashes are compared elsewhere."""
    item, expected = _read_item(folder), json.loads(_json(describe(folder, model)))
    if item is None:
        return []
    found = [key for key in ("id", "geometry", "bbox", "stac_extensions") if item.get(key) != expected.get(key)]
    theirs, ours = item.get("properties"), expected["properties"]
    if not isinstance(theirs, dict):
        return [f"{ITEM} has no properties"]
    found += sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    found += ["assets"] if _assets(item, folder) != _assets(expected, folder) else []
    return [f"{ITEM} does not say what {CARD} says: {', '.join(found)} differ"] if found else []


def _assets(item: dict[str, object], folder: Path) -> dict[str, dict[str, object]]:
    """What is said of the files that are there, but for their bytes."""
    assets = item.get("assets")
    described = {
        str(key): {field: value for field, value in asset.items() if field not in ("file:size", "file:checksum")}
        for key, asset in (assets.items() if isinstance(assets, dict) else ())
        if isinstance(asset, dict)
    }
    return {key: asset for key, asset in described.items() if (folder / str(asset.get("href"))).is_file()}


def _read_item(folder: Path) -> dict[str, object] | None:
    try:
        item = json.loads((folder / ITEM).read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) else None


def _parameters(model: LoadedModel) -> int:
    return sum(parameter.numel() for parameter in model.objective.parameters())


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
