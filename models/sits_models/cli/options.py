"""Options and outcomes that several commands of `sits-model` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sits_catalog.console import guarded

__all__ = [
    "GROUP",
    "SIMULATED",
    "AsJson",
    "Changes",
    "CubeFolders",
    "DeviceName",
    "OutFolder",
    "RecipeName",
    "WeightsFolder",
    "WithTraceback",
    "folder_beside",
    "run",
]

GROUP: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
"""How every group of commands behaves."""
SIMULATED = "(simulated data: these figures say nothing about any real place)"

_NO_TORCH = (
    "sits-model needs torch and what comes with it, which are not installed ({}); run `make setup`, or "
    "`pip install 'sits-cubes[models]'`"
)
_EXTRA = ("torch", "lightning", "safetensors", "tensorboard", "matplotlib", "torchvision", "huggingface_hub")

RecipeName = Annotated[str, typer.Option(help="A shipped recipe (see `sits-model recipes`) or FILE.yaml.")]
CubeFolders = Annotated[
    list[str] | None, typer.Option(help="Folder or URL of a dataset to learn from; repeatable; default: the recipe's.")
]
OutFolder = Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME of the recipe.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value of the recipe, such as training.epochs=3; repeatable."),
]
WeightsFolder = Annotated[
    str, typer.Option(help="A finished run, a folder of weights, or a name of the zoo (see `sits-model zoo list`).")
]
DeviceName = Annotated[str, typer.Option(help="Where to compute: auto (a GPU where there is one), cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
WithTraceback = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]


def folder_beside(weights: str, name: str) -> Path:
    """Where what is made of weights goes by default: into their folder; for a name of the zoo, below runs/NAME.

    >>> folder_beside("no-such-folder@1a2b", "map").as_posix()
    'runs/no-such-folder/map'
    """
    folder = Path(weights)
    return (folder if folder.is_dir() else Path("runs") / weights.partition("@")[0]) / name


def run(work: Callable[[], int], *, debug: bool) -> None:
    """Run a command that needs torch; where that is missing, say so."""

    def checked() -> int:
        try:
            return work()
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in _EXTRA:
                raise
            raise ValueError(_NO_TORCH.format(f"there is no {missing}")) from error

    guarded(checked, debug=debug)
