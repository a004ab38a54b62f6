"""`sits-model recipes`: the shipped ones."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sits_catalog.console import DONE, guarded
from sits_models.cli.options import AsJson, WithTraceback

__all__ = ["recipes"]


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print in full; default: list them.")] = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """List the shipped recipes, or print one with every value spelt out: a file to begin with.

    Examples:

        sits-model recipes

        sits-model recipes segment-laptop > mine.yaml
    """

    def work() -> int:
        from sits_models.recipe import dump_recipe, list_recipes, load_recipe, recipe_to_plain

        if name is not None:
            recipe = load_recipe(name)
            print(json.dumps(recipe_to_plain(recipe), indent=2) if json_ else dump_recipe(recipe), end="")
            if json_:
                print()
            return DONE
        shipped = {known: load_recipe(known) for known in list_recipes()}
        if json_:
            print(json.dumps({known: recipe.title for known, recipe in shipped.items()}, indent=2))
            return DONE
        width = max(map(len, shipped))
        print("\n".join(f"{known:{width}}  {recipe.title}" for known, recipe in shipped.items()))
        return DONE

    guarded(work, debug=debug)
