"""Fetching parcels from where their providers publish them, and finding again what was fetched."""

from sits_catalog.fetching.convert import convert_edition
from sits_catalog.fetching.download import Listener
from sits_catalog.fetching.edition import fetch_edition
from sits_catalog.fetching.receipt import FetchedFile, Receipt, parcels_folder, read_receipt

__all__ = [
    "FetchedFile",
    "Listener",
    "Receipt",
    "convert_edition",
    "fetch_edition",
    "parcels_folder",
    "read_receipt",
]
