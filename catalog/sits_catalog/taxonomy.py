"""A crop taxonomy: from a source's crop codes to the classes of a label raster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sits_catalog.cube import IGNORE

__all__ = ["CropClass", "Taxonomy"]


@dataclass(frozen=True, kw_only=True)
class CropClass:
    """One class of a label raster."""

    index: int
    """Value in `crop_type`: 1..65534."""
    code: str
    name: str
    hcat: str | None = None
    """Ten-digit HCAT code."""
    colour: str = "#999999"


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Classes, and which source code belongs to which."""

    id: str
    classes: tuple[CropClass, ...]
    codes: Mapping[str, int] = field(default_factory=dict)
    """Source code (as string) to class index."""
    ignore: frozenset[str] = frozenset()
    """Source codes that are known but make no class: their pixels are IGNORE."""
    title: str = ""
    attribution: str = ""

    def classify(self, code: str | None) -> int:
        """Class index of a source code; IGNORE where it is missing, unknown or in the ignore set."""
        if code is None or code in self.ignore:
            return IGNORE
        return self.codes.get(code, IGNORE)
