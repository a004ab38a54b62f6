"""`sits-catalog taxonomies`: from crop codes to the classes of a cube."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.crop_tree import CropNode, CropTree
from sits_catalog.loading import list_taxonomies, load_crop_tree, load_taxonomy
from sits_catalog.meetings import Meeting, count_meetings, meet
from sits_catalog.printable import printable
from sits_catalog.taxonomy import CropClass, Taxonomy

__all__ = ["taxonomies_app"]

taxonomies_app = typer.Typer(**OPTIONS, help="Taxonomies: from crop codes to the classes of a cube.")

_Name = Annotated[str, typer.Argument(help="A shipped name or a CSV file.")]
_ClassesAt = Annotated[
    str | None,
    typer.Option(help="Raise classes to level-N of HCAT, or to its classes by name or code, with commas between."),
]


@taxonomies_app.callback(invoke_without_command=True)
def taxonomies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped taxonomies; `show NAME` prints the classes of one, `map A B` how those of two meet."""
    if context.invoked_subcommand is not None:
        return
    found = [load_taxonomy(name) for name in list_taxonomies()]
    print_rows([{"id": t.id, "classes": len(t.classes), "title": t.title} for t in found], as_json)


@taxonomies_app.command("show")
def show_taxonomy(
    name: _Name,
    classes_at: _ClassesAt = None,
    tree: Annotated[bool, typer.Option("--tree", help="Print the classes below those of HCAT they lie in.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the classes of a taxonomy; it also checks your own CSV file."""
    with one_sentence(debug):
        taxonomy = load_taxonomy(name, classes_at=classes_at)
    if tree:
        _print_tree(taxonomy, load_crop_tree(), as_json)
        return
    classes = [dataclasses.asdict(crop) for crop in taxonomy.classes]
    if as_json:
        whole = {**dataclasses.asdict(taxonomy), "classes": classes, "ignore": sorted(taxonomy.ignore)}
        typer.echo(json.dumps(whole, indent=2))
        return
    print_rows(classes, as_json=False)
    if taxonomy.ignore:
        typer.echo(printable(f"ignored: {', '.join(sorted(taxonomy.ignore))}"))
    for note in taxonomy.notes:
        typer.echo(printable(f"note: {note}"))


def _print_tree(taxonomy: Taxonomy, tree: CropTree, as_json: bool) -> None:
    """HCAT's nodes that have a class of the taxonomy in them, each with the classes it is."""
    at: dict[str | None, list[CropClass]] = {}
    for crop in taxonomy.classes:
        path = tree.path(crop.hcat) if crop.hcat is not None else ()
        at.setdefault(path[0].crop.hcat if path else None, []).append(crop)
    nodes = list(_branches(tree, None, {node.crop.hcat for code in at if code for node in tree.path(code)}))
    if as_json:
        rows = [
            {
                "hcat": node.crop.hcat,
                "name": node.crop.name,
                "level": node.level,
                "parent": node.parent,
                "classes": [crop.code for crop in at.get(node.crop.hcat, [])],
            }
            for node in nodes
        ]
        typer.echo(json.dumps({"nodes": rows, "without": [crop.code for crop in at.get(None, [])]}, indent=2))
        return
    for node in nodes:
        classes = _named(at.get(node.crop.hcat, []))
        same = taxonomy.id == "hcat3" or not classes
        line = f"{'  ' * (node.level - 1)}{node.crop.hcat} {node.crop.name}{'' if same else f': {classes}'}"
        typer.echo(printable(line))
    if None in at:
        typer.echo(printable(f"without an HCAT code: {_named(at[None])}"))


def _branches(tree: CropTree, above: str | None, wanted: set[str | None]) -> Iterator[CropNode]:
    """The wanted nodes below one, each before those below it."""
    for node in tree.children(above):
        if node.crop.hcat in wanted:
            yield node
            yield from _branches(tree, node.crop.hcat, wanted)


def _named(classes: list[CropClass]) -> str:
    return ", ".join(f"{crop.index} {crop.code}" for crop in classes)


@taxonomies_app.command("map")
def map_taxonomies(
    a: _Name,
    b: _Name,
    classes_at: _ClassesAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print how the classes of A meet those of B, by their place in HCAT: a row a pair, then totals.

    Of `--classes-at`, both are raised.
    """
    with one_sentence(debug):
        tree = load_crop_tree()
        first, second = (load_taxonomy(name, classes_at=classes_at) for name in (a, b))
        meetings = meet(first, second, tree)
    totals = count_meetings(meetings)
    if as_json:
        pairs = [{"a": _plain(pair.a), "relation": pair.relation, "b": _plain(pair.b)} for pair in meetings]
        typer.echo(json.dumps({"a": first.id, "b": second.id, "pairs": pairs, "totals": totals}, indent=2))
        return
    print_rows([_row(pair) for pair in meetings], as_json=False)
    typer.echo(", ".join(f"{name}: {count}" for name, count in totals.items()))


def _plain(crop: CropClass | None) -> dict[str, Any] | None:
    return None if crop is None else {"index": crop.index, "code": crop.code, "name": crop.name, "hcat": crop.hcat}


def _row(pair: Meeting) -> dict[str, Any]:
    """A pair for people: what A's class is to B's."""
    sides = {side: "" if crop is None else f"{crop.index} {crop.code}" for side, crop in (("a", pair.a), ("b", pair.b))}
    return {"a": sides["a"], "is": pair.relation, "b": sides["b"]}
