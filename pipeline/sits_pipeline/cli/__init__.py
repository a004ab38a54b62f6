"""The commands `sits-build` and `sits-cube`."""

from sits_pipeline.cli.build import build_app
from sits_pipeline.cli.cube import cube_app
from sits_pipeline.cli.exports import export_app
from sits_pipeline.cli.imports import import_app
from sits_pipeline.cli.split import check_splits, split

__all__ = ["build_app", "build_main", "check_splits", "cube_app", "cube_main", "split"]

cube_app.add_typer(import_app, name="import")
cube_app.add_typer(export_app, name="export")


def build_main() -> None:
    """Entry point of `sits-build`."""
    build_app()


def cube_main() -> None:
    """Entry point of `sits-cube`."""
    cube_app()
