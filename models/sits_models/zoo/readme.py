"""What a person reads first about shared weights, in Markdown with the front matter that hubs show."""

from __future__ import annotations

from sits_models.checkpoints import Card
from sits_models.zoo.dates import dates_in_short
from sits_models.zoo.licences import hub_licence

__all__ = ["SIMULATED", "card_rows", "write_readme"]

SIMULATED = "Trained on simulated data: its figures say nothing about any real place."
_SHOWN = ("miou", "boundary_miou", "interior_miou", "overall_accuracy", "parcel_miou", "parcel_overall_accuracy")


def write_readme(card: Card, *, parameters: int) -> str:
    """The text for weights with a publication."""
    publication = card.publication
    assert publication is not None  # weights are published before they are described
    made_up = f"**{SIMULATED}**\n\n" if card.simulated else ""
    authors = f"Authors: {', '.join(publication.authors)}.\n" if publication.authors else ""
    citation = f"\nPlease cite: {publication.citation}\n" if publication.citation else ""
    return f"""---
{_licence(publication.licence)}
tags: [sentinel-2, satellite-image-time-series, {card.recipe.backbone.name}]
---

# {publication.name}

{made_up}{publication.description}

| | |
|---|---|
{_table(card, parameters)}

{_metrics(card)}Fetch it with `sits-model zoo pull`, {_use(card, publication.name)}. \
`card.json` holds all that rebuilds the model, `item.json` describes it as a STAC item, and \
`sits-model zoo verify` compares what it gives with `logits.safetensors`.

Licence: {publication.licence}.
{authors}{citation}"""


def _use(card: Card, name: str) -> str:
    if card.recipe.pretrains:
        return f"start from it with `sits-model finetune --weights {name}`"
    return f"use it with `sits-model predict --weights {name}`"


def card_rows(card: Card) -> dict[str, str]:
    """What a person asks of weights, in few words each."""
    recipe, publication = card.recipe, card.publication
    rows: dict[str, str] = {}
    if publication is not None:
        rows = {"name": publication.name, "licence": publication.licence, "created": publication.created}
        rows |= {"description": publication.description} if publication.description else {}
        rows |= {"authors": ", ".join(publication.authors)} if publication.authors else {}
        rows |= {"citation": publication.citation} if publication.citation else {}
    rows |= _facts(card)
    rows |= {f"{key.replace('_', ' ')}": f"{value:.4f}" for key, value in sorted(card.metrics.items())}
    if card.simulated:
        rows["data"] = SIMULATED
    return {**rows, "recipe": recipe.name, "SHA-256 of the tensors": card.sha256}


def _licence(licence: str) -> str:
    """The lines of the front matter: hubs refuse a name that is not on their list."""
    known = hub_licence(licence)
    return f"license: {known}" if known is not None else f"license: other\nlicense_name: {licence.lower()}"


def _table(card: Card, parameters: int) -> str:
    rows = {**_facts(card), "parameters": f"{parameters:,}"}
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _facts(card: Card) -> dict[str, str]:
    recipe, radiometry = card.recipe, card.radiometry
    return {
        "task": recipe.objective,
        "backbone": f"{recipe.backbone.name}, width {recipe.backbone.width:g}, {recipe.backbone.variant}",
        "bands": " ".join(card.bands),
        "dates": dates_in_short(card),
        "pixels": f"10 m in, {10 / card.magnification:g} m out",
        "cubes": f"version {card.cube_version}, level {radiometry.get('level')}",
        "classes": ", ".join(entry.name for entry in card.classes),
        "trained on": ", ".join(_regions(card)) or "unknown",
        **({"ground": "all splits, validation and test too"} if recipe.data.transductive else {}),
    }


def _regions(card: Card) -> list[str]:
    cubes = card.data.get("cubes")
    return [str(cube["region"]) for cube in cubes if "region" in cube] if isinstance(cubes, list) else []


def _metrics(card: Card) -> str:
    lines = [
        f"| {split} {key.replace('_', ' ')} | {card.metrics[f'{split}_{key}']:.3f} |"
        for split in ("test", "validation")
        for key in _SHOWN
        if f"{split}_{key}" in card.metrics
    ]
    if not lines:
        return ""
    made_up = " (simulated data)" if card.simulated else ""
    return "\n".join([f"| score{made_up} | |", "|---|---|", *lines]) + "\n\n"
