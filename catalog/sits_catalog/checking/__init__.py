"""What can be proven of a dataset without reading a pixel: metadata, coordinates, table footers and the item."""

from sits_catalog.checking.dataset import check

__all__ = ["check"]
