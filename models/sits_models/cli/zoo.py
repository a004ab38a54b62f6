"""`sits-model zoo`: weights found, fetched, shared and checked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.addresses import without_secrets
from sits_catalog.console import DONE, FAILED, Narrator
from sits_models.cli.options import GROUP, AsJson, WithTraceback, run

if TYPE_CHECKING:
    from sits_models.zoo import Entry, Registry

__all__ = ["zoo"]

zoo = typer.Typer(
    **GROUP,
    help="Weights that others can use: list, info, pull, push, verify, convert.",
    epilog="sits-model zoo list; sits-model zoo info demo-unet3df; sits-model predict --weights demo-unet3df --cube "
    "out/demo",
)

_RegistryFolder = Annotated[
    str | None,
    typer.Option(
        "--registry", help="Folder of weights; default: the variable SITS_ZOO, else sits-cubes/zoo of your data folder."
    ),
]
_Weights = Annotated[str, typer.Argument(help="NAME or NAME@VERSION of the zoo, a folder of weights, or a run.")]


@zoo.command("list")
def list_(registry: _RegistryFolder = None, json_: AsJson = False, debug: WithTraceback = False) -> None:
    """List weights: those shipped and those of a registry, which may be a folder or a URL with an index.json.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model zoo list

        sits-model zoo list --registry https://example.org/weights
    """

    def work() -> int:
        entries = _listed(registry)
        if json_:
            print(json.dumps([{**entry.to_json(), "place": place} for place, entry in entries], indent=2))
            return DONE
        print(_printable(_table([_HEAD, *[_row(place, entry) for place, entry in entries]])))
        if any(entry.simulated for _, entry in entries):
            print("simulated: trained on made-up data; such figures say nothing about any real place")
        return DONE

    run(work, debug=debug)


@zoo.command("info")
def info(weights: _Weights, json_: AsJson = False, debug: WithTraceback = False) -> None:
    """Show the card of weights.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Example: sits-model zoo info demo-unet3df
    """

    def work() -> int:
        from sits_models.checkpoints import read_card, weights_folder
        from sits_models.zoo import find_weights

        folder = weights_folder(find_weights(weights))
        card = read_card(folder)
        if json_:
            print(json.dumps(card.to_json(), indent=2))
            return DONE
        from sits_models.zoo.readme import card_rows

        rows = {**card_rows(card), "folder": str(folder)}
        width = max(map(len, rows))
        print("\n".join(f"{key:{width}}  {_printable(value, kept='')}" for key, value in rows.items()))
        return DONE

    run(work, debug=debug)


@zoo.command("pull")
def pull(
    source: Annotated[
        str,
        typer.Argument(help="Folder or URL of weights, REGISTRY/NAME or REGISTRY/NAME@VERSION, or hf://ORG/REPO."),
    ],
    registry: _RegistryFolder = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Fetch weights into a registry, every file checked against its SHA-256; then their name is enough.

    A pull that was interrupted goes on. What is there already is not fetched again.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model zoo pull https://example.org/weights/my-region

        sits-model zoo pull hf://my-org/my-region --registry weights
    """

    def work() -> int:
        from sits_models.zoo.pull import pull as fetch

        with Narrator() as narrator:
            narrator.stage(f"pulling {_public(source)}")
            pulled = fetch(source, registry=_registry(registry))
        if json_:
            facts = {"folder": str(pulled.folder), "fetched": pulled.fetched, **pulled.entry.to_json()}
            print(json.dumps(facts, indent=2))
            return DONE
        there = f"{pulled.fetched} files fetched and checked" if pulled.fetched else "was there; nothing to do"
        print(f"{pulled.entry.name}@{pulled.entry.version}  {there}")
        print(f"weights   {pulled.folder}")
        return DONE

    run(work, debug=debug)


@zoo.command("push")
def push(
    weights: Annotated[str, typer.Argument(help="A finished run, a folder of weights, or a name of the zoo.")],
    name: Annotated[str, typer.Option(help="What others call them: lower case letters, digits and dashes.")],
    licence: Annotated[str, typer.Option(help="SPDX identifier of their licence, such as CC-BY-4.0.")],
    description: Annotated[str | None, typer.Option(help="A sentence or two for people.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Who made them; repeatable.")] = None,
    citation: Annotated[str | None, typer.Option(help="What to cite.")] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="Folder, or hf://ORG/REPO; default: the variable SITS_ZOO, else your data folder."),
    ] = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Share weights: make their folder whole (card, STAC item, stored logits, README), verify it, and put it there.

    The same weights again change nothing; others under the same name become a new version.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model zoo push runs/segment-demo --name my-region --licence CC-BY-4.0

        sits-model zoo push runs/segment-demo --name my-region --licence MIT --registry hf://my-org/my-region
    """

    def work() -> int:
        from sits_models.zoo.push import Wishes
        from sits_models.zoo.push import push as share

        wishes = Wishes(
            name=name,
            licence=licence,
            description=description,
            authors=tuple(author) if author else None,
            citation=citation,
            created=_now(),
        )
        with Narrator() as narrator:
            narrator.stage(f"completing and verifying {weights}")
            pushed = share(weights, wishes, registry=registry or str(_registry(None).folder))
        if json_:
            print(json.dumps({"place": pushed.place, "new": pushed.new, **pushed.entry.to_json()}, indent=2))
            return DONE
        print(f"{pushed.entry.name}@{pushed.entry.version}  {'pushed' if pushed.new else 'was there; nothing to do'}")
        print(f"weights   {pushed.place}")
        if not pushed.tested:
            print(
                "scores    none of a test split: there is no evaluation of these weights on the cubes of their training"
            )
        return DONE

    run(work, debug=debug)


@zoo.command("verify")
def verify(weights: _Weights, json_: AsJson = False, debug: WithTraceback = False) -> None:
    """Check weights: hashes, card, STAC item, licence, whether the model can be built and gives its stored logits.

    Exit codes: 0 whole and true, 1 something is wrong (each finding a line), 2 wrong use.

    Example: sits-model zoo verify demo-unet3df
    """

    def work() -> int:
        from sits_models.checkpoints import weights_folder
        from sits_models.zoo import find_weights
        from sits_models.zoo.complete import verify as check

        folder = weights_folder(find_weights(weights))
        findings = check(folder)
        if json_:
            print(json.dumps({"folder": str(folder), "findings": list(findings)}, indent=2))
        else:
            print(_printable("\n".join(findings)) if findings else f"{folder}: whole and true")
        return FAILED if findings else DONE

    run(work, debug=debug)


@zoo.command("convert")
def convert(
    checkpoint: Annotated[str, typer.Argument(help="A published checkpoint of SeCo, FILE.ckpt.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights, that is empty or not there yet.")],
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Make a published checkpoint of SeCo (ResNet-18 or ResNet-50) a folder of weights, from which finetune starts.

    The file is read without running anything that it holds.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model zoo convert seco_resnet18_1m.ckpt --out weights/seco-resnet18

        sits-model finetune --recipe resnet-laptop --weights weights/seco-resnet18 --set backbone.width=1
    """

    def work() -> int:
        from sits_models.checkpoints.published_seco import convert_seco

        card = convert_seco(checkpoint, out)
        if json_:
            print(json.dumps({"folder": str(out), **card.to_json()}, indent=2))
            return DONE
        name = card.recipe.backbone.name
        print(f"{name} of SeCo, for the bands {', '.join(card.bands)}; finetune a recipe of {name} at full width")
        print(f"weights   {out}")
        return DONE

    run(work, debug=debug)


_HEAD = ("name", "version", "architecture", "classes", "bands", "dates", "mIoU", "size", "licence", "data", "place")


def _listed(registry: str | None) -> Sequence[tuple[str, Entry]]:
    from sits_models.zoo import shipped

    ours = [("shipped", entry) for entry in shipped().entries()]
    if registry is not None and "://" in registry:
        from tempfile import TemporaryDirectory

        from sits_models.zoo.pull import remote_entries

        with TemporaryDirectory() as scratch:
            return [(_public(registry), entry) for entry in remote_entries(registry, Path(scratch))]
    folder = _registry(registry)
    if registry is not None and not folder.folder.is_dir():
        raise FileNotFoundError(f"no folder {registry}; give the folder of a registry of weights, or a URL with one")
    for sentence in folder.damaged():
        print(_printable(f"warning: {sentence}", kept=""), file=sys.stderr)
    return [*ours, *((str(folder.folder), entry) for entry in folder.entries())]


def _row(place: str, entry: Entry) -> tuple[str, ...]:
    from sits_models.recipe import PRETRAINING

    miou = "" if entry.miou is None else f"{entry.miou:.3f}"
    classes = "none" if entry.objective in PRETRAINING else str(entry.classes)
    made_of = "simulated" if entry.simulated else "real"
    facts = (entry.name, entry.version, entry.architecture, classes, str(len(entry.bands)), str(entry.dates))
    return (*facts, miou, f"{entry.size / 1e6:.1f} MB", entry.licence, made_of, place)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _registry(text: str | None) -> Registry:
    from sits_models.zoo import default_registry
    from sits_models.zoo.registry import folder_registry

    return default_registry() if text is None else folder_registry(text)


def _printable(text: str, *, kept: str = "\n") -> str:
    """What others wrote, without characters that would speak to the terminal."""
    return "".join(letter if letter.isprintable() or letter in kept else "\ufffd" for letter in text)


def _public(text: str) -> str:
    return without_secrets(text)


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
