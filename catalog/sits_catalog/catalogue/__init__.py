"""The catalogue of results: datasets as STAC items in a folder, as stac-geoparquet and as a page."""

from sits_catalog.catalogue.folder import CATALOGUE_VARIABLE, Catalogue
from sits_catalog.catalogue.search import Query, matches
from sits_catalog.catalogue.validate import findings
from sits_catalog.catalogue.write import add_dataset, remove_dataset

__all__ = [
    "CATALOGUE_VARIABLE",
    "Catalogue",
    "Query",
    "add_dataset",
    "findings",
    "matches",
    "remove_dataset",
]
