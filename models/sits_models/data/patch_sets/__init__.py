"""Datasets of many small places: the profile `patches`, and folders of published datasets."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from sits_models.data.dataset import profile_of
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.recipe import Layout

__all__ = ["Patch", "PatchSet", "PatchSetFacts", "are_patch_sets", "open_patch_set"]


def are_patch_sets(paths: Sequence[str], layout: Layout) -> bool:
    """Whether the folders, which hold what `data.layout` says, are patch sets, and not cubes of regions.

    Raises ValueError where some are and some are not, and what `profile_of` raises.
    """
    if layout != "cube":
        return True
    profiles = [profile_of(path) for path in paths]
    if len(set(profiles)) > 1:
        raise ValueError(
            f"{paths[profiles.index('region')]} is a region and {paths[profiles.index('patches')]} a set of patches, "
            "whose chips are cut in other ways; give datasets of one kind at a time"
        )
    return profiles[0] == "patches"


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
