"""`sits-catalog taxonomies`: from crop codes to the classes of a cube."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.loading import list_taxonomies, load_taxonomy

__all__ = ["taxonomies_app"]

taxonomies_app = typer.Typer(**OPTIONS, help="Taxonomies: from crop codes to the classes of a cube.")


@taxonomies_app.callback(invoke_without_command=True)
def taxonomies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped taxonomies; `show NAME` prints the classes of one."""
    if context.invoked_subcommand is not None:
        return
    found = [load_taxonomy(name) for name in list_taxonomies()]
    print_rows([{"id": t.id, "classes": len(t.classes), "title": t.title} for t in found], as_json)


@taxonomies_app.command("show")
def show_taxonomy(
    name: Annotated[str, typer.Argument(help="A shipped name or a CSV file.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the classes of a taxonomy; it also checks your own CSV file."""
    with one_sentence(debug):
        taxonomy = load_taxonomy(name)
    classes = [dataclasses.asdict(crop) for crop in taxonomy.classes]
    if as_json:
        whole = {**dataclasses.asdict(taxonomy), "classes": classes, "ignore": sorted(taxonomy.ignore)}
        typer.echo(json.dumps(whole, indent=2))
        return
    print_rows(classes, as_json=False)
    if taxonomy.ignore:
        typer.echo(f"ignored: {', '.join(sorted(taxonomy.ignore))}")
