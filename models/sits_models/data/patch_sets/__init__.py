"""Datasets of many small places: the profile `patches`, and folders of published datasets."""

from __future__ import annotations

from importlib import import_module

from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.recipe import Layout

__all__ = ["Patch", "PatchSet", "PatchSetFacts", "open_patch_set"]


def open_patch_set(path: str, layout: Layout) -> PatchSet:
    """The patch set in a folder, or under a URL, that holds what `data.layout` says.

    FileNotFoundError where there is none, ValueError where the folder holds something else.
    """
    if layout == "cube":
        from sits_models.data.patch_sets.dataset import open_dataset

        return open_dataset(path)
    # A module a layout, imported where it is used: most need libraries that no other does.
    opened = getattr(import_module(f"sits_models.data.patch_sets.{layout}"), f"open_{layout}")(path)
    assert isinstance(opened, PatchSet)
    return opened
