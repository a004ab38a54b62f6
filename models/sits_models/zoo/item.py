"""Shared weights as a STAC item with the Machine Learning Model extension: plain values in, JSON out.

The fields are those of https://stac-extensions.github.io/mlm/v1.5.1/schema.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sits_catalog.sentinel2 import bands_of
from sits_catalog.stac import EXTENSIONS, StoredFile, asset_of, with_file
from sits_models.backbones import backbone_class
from sits_models.checkpoints import Card, Publication
from sits_models.objectives.chip_embeddings import JOINED_STRIDE, leaves_decoder_out
from sits_models.zoo.dates import dates_in_words, dates_taken
from sits_models.zoo.entry import CARD, LICENCE, LOGITS, README, WEIGHTS

__all__ = ["MLM", "weights_item"]

MLM = "https://stac-extensions.github.io/mlm/v1.5.1/schema.json"
_CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
_SCIENTIFIC = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"
_VERSION = "https://stac-extensions.github.io/version/v1.2.0/schema.json"
_SAFETENSORS = "application/vnd.safetensors"
_TASKS = {"segmentation": ["semantic-segmentation"]}
_CHIP = ["batch", "time", "bands", "height", "width"]
"""From version 1.5 on a dimension of named bands is called so."""

Json = dict[str, object]


def weights_item(
    card: Card,
    files: Mapping[str, StoredFile],
    *,
    version: str,
    recipe: Mapping[str, object],
    parameters: int,
    channels: int,
    side: int | None,
) -> Json:
    """The item of weights with a publication, its assets relative to `item.json`.

    `files` are those beside it, `recipe` the plain values of the card as it is stored, `parameters` how many numbers
    the weights hold, `channels` those of the embedding, and `side` that of the chips the model takes, None: any.
    """
    publication = card.publication
    assert publication is not None  # weights are published before they are described
    extensions = [MLM, EXTENSIONS["file"], EXTENSIONS["eo"], _CLASSIFICATION, _VERSION]
    if publication.citation is not None:
        extensions.append(_SCIENTIFIC)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions,
        "id": f"{publication.name}-{version}",
        **_place(publication),
        "properties": {
            **_common(publication, version),
            **_model(card, parameters=parameters, channels=channels, side=side),
            "mlm:hyperparameters": _flat(recipe),
        },
        "links": [],
        "assets": _assets(card, files),
    }


def _place(publication: Publication) -> Json:
    """Where it was trained; without a place an item has a null geometry and no bbox (STAC 1.1, item-spec)."""
    areas = publication.areas
    if not areas:
        return {"geometry": None}
    rings = [
        [[west, south], [east, south], [east, north], [west, north], [west, south]]
        for west, south, east, north in areas
    ]
    box = [min(area[i] for area in areas) for i in (0, 1)] + [max(area[i] for area in areas) for i in (2, 3)]
    geometry: Json = {"type": "Polygon", "coordinates": rings}
    if len(rings) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
    return {"geometry": geometry, "bbox": box}


def _common(publication: Publication, version: str) -> Json:
    times: Json = {"datetime": publication.created}
    if publication.period is not None:
        start, end = publication.period
        times = {"datetime": None, "start_datetime": f"{start}T00:00:00Z", "end_datetime": f"{end}T23:59:59Z"}
    authors = [{"name": author, "roles": ["producer"]} for author in publication.authors]
    return {
        "title": publication.name,
        "description": publication.description,
        **times,
        "created": publication.created,
        "version": version,
        # A licence of one's own has no identifier that STAC knows.
        "license": "other" if publication.licence.startswith("LicenseRef-") else publication.licence,
        **({"providers": authors} if authors else {}),
        **({} if publication.citation is None else {"sci:citation": publication.citation}),
    }


def _band(name: str) -> Json:
    known = bands_of("L1C").get(name)
    if known is None:
        return {"name": name}
    return {
        "name": name,
        "eo:common_name": known.common_name,
        "eo:center_wavelength": round(known.centre_nm / 1000, 5),
    }


# The model


def _model(card: Card, *, parameters: int, channels: int, side: int | None) -> Json:
    recipe, publication = card.recipe, card.publication
    assert publication is not None
    tasks = ["similarity-search"] if recipe.pretrains else _TASKS.get(recipe.objective, ["classification"])
    tasks = list(tasks)
    if card.magnification > 1:
        tasks.append("super-resolution")
    return {
        "mlm:name": publication.name,
        "mlm:architecture": recipe.backbone.name,
        "mlm:tasks": tasks,
        "mlm:framework": "PyTorch",
        **({"mlm:framework_version": card.software["torch"]} if "torch" in card.software else {}),
        "mlm:total_parameters": parameters,
        "mlm:pretrained": card.parent is not None,
        "mlm:pretrained_source": None if card.parent is None else f"weights with the SHA-256 {card.parent}",
        "mlm:batch_size_suggestion": recipe.data.batch,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:accelerator_summary": "any processor or GPU that PyTorch runs on",
        "mlm:input": _inputs(card, side),
        "mlm:output": [_output(card, tasks, channels=channels, side=side)],
    }


def _flat(values: Mapping[str, object], prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _inputs(card: Card, side: int | None) -> list[Json]:
    shape = [-1, dates_taken(card), len(card.bands), *[-1 if side is None else side] * 2]
    scaling = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(card.mean, card.std, strict=True)]
    image: Json = {
        "name": "reflectance",
        "bands": list(card.bands),
        "description": "Bottom-of-atmosphere reflectance x 10000, offset removed, as a sits-cube stores it; 0 = not "
        f"observed. {dates_in_words(card)} The model scales the values itself, by the statistics given here, and "
        "leaves 0 where nothing was observed.",
        "input": {"shape": shape, "dim_order": _CHIP, "data_type": "float32"},
        "value_scaling": scaling,
        "resize_type": None,
        "pre_processing_function": {"format": "python", "expression": "sits_models.encoder:Encoder.normalize"},
    }
    day = _dates_input(card, "day", "int32", "Days since 1970-01-01 of each date.")
    valid = _dates_input(card, "valid", "uint8", "1 for a date of the series, 0 for padding.")
    return [image, day, valid]


def _dates_input(card: Card, name: str, kind: str, description: str) -> Json:
    return {
        "name": name,
        "bands": [],
        "description": description,
        "input": {"shape": [-1, dates_taken(card)], "dim_order": ["batch", "time"], "data_type": kind},
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(card: Card, tasks: Sequence[str], *, channels: int, side: int | None) -> Json:
    finer = [-1 if side is None else card.magnification * side] * 2
    result: Json = {"data_type": "float32"}
    described = "Logits; the class is where they are largest."
    if card.recipe.pretrains:
        described, stride = "One embedding a pixel.", backbone_class(card.recipe.backbone.name).stride
        if stride != 1:
            described = f"One embedding for {f'{stride} x {stride} pixels' if stride else 'the whole chip'}."
            finer = [-1, -1]
        if leaves_decoder_out(card.recipe):
            described = (
                f"One embedding for {JOINED_STRIDE} x {JOINED_STRIDE} pixels, of the joined branches: the decoder was "
                "not trained."
            )
        shape, order = [-1, channels, *finer], ["batch", "embedding", "height", "width"]
    elif card.recipe.objective == "classification":
        shape, order = [-1, len(card.classes)], ["batch", "class"]
    else:
        shape, order = [-1, len(card.classes), *finer], ["batch", "class", "height", "width"]
    knows_classes = not card.recipe.pretrains
    return {
        "name": "logits" if knows_classes else "embedding",
        "tasks": list(tasks),
        "description": described,
        "result": {"shape": shape, "dim_order": order, **result},
        "classification:classes": _classes(card) if knows_classes else [],
        "post_processing_function": {"format": "python", "expression": "torch:argmax"} if knows_classes else None,
    }


def _classes(card: Card) -> list[Json]:
    """Names are for machines: letters, digits, underscores and dashes, none twice."""
    names: list[str] = []
    for entry in card.classes:
        plain = re.sub(r"[^0-9A-Za-z_-]+", "-", entry.name).strip("-") or "class"
        names.append(f"{plain}-{entry.index}" if plain in names else plain)
    return [
        {
            "value": entry.index,
            "name": name,
            "title": entry.name,
            "description": f"crop code {entry.code}" + ("" if entry.hcat is None else f", HCAT {entry.hcat}"),
            "color_hint": entry.colour.removeprefix("#").upper(),
        }
        for entry, name in zip(card.classes, names, strict=True)
    ]


def _assets(card: Card, files: Mapping[str, StoredFile]) -> Json:
    weights = asset_of(WEIGHTS, _SAFETENSORS, "Weights", "mlm:model", "mlm:weights", "data")
    assets: dict[str, Json] = {
        "weights": {
            **weights,
            "mlm:artifact_type": "safetensors.torch.save_file",
            # Of an asset: the core schema of STAC 1.1 refuses them in the properties of an item.
            "bands": [_band(name) for name in card.bands],
        },
        "card": asset_of(CARD, "application/json", "Card: all that rebuilds the model", "metadata"),
        "logits": asset_of(LOGITS, _SAFETENSORS, "What the weights gave for a known input", "metadata"),
        "readme": asset_of(README, "text/markdown", "For people", "overview"),
    }
    if LICENCE in files:
        assets["licence"] = asset_of(LICENCE, "text/plain", "Text of the licence", "metadata")
    return {name: with_file(asset, files) for name, asset in assets.items()}
