"""The command `sits-model`; each module of this package holds one command, or those that belong together."""

from __future__ import annotations

import typer

from sits_models.cli.evaluation import evaluate
from sits_models.cli.export import export
from sits_models.cli.options import GROUP
from sits_models.cli.prediction import predict
from sits_models.cli.recipes import recipes
from sits_models.cli.training import finetune, pretrain
from sits_models.cli.zoo import zoo

__all__ = ["main"]

_app = typer.Typer(
    **GROUP,
    help="Learn from cubes: pretrain an encoder, finetune a model, evaluate it, predict maps with it.",
    epilog="The four steps on the demo cube (make demo): sits-model pretrain --recipe cscl-demo; sits-model finetune "
    "--recipe segment-demo --weights runs/cscl-demo; sits-model evaluate --weights runs/segment-demo; sits-model "
    "predict --weights runs/segment-demo --cube out/demo",
)
for _command in (pretrain, finetune, evaluate, predict, export):
    _app.command()(_command)
_app.command(no_args_is_help=False)(recipes)
_app.add_typer(zoo, name="zoo")


def main() -> None:
    """Entry point of `sits-model`."""
    _app()
