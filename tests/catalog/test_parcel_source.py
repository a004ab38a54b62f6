"""Parcel sources: a file with its columns, or a shipped source by name and year."""

from __future__ import annotations

import pytest

from sits_catalog.loading import list_parcel_sources, load_national_source, load_parcel_source
from sits_catalog.parcel_source import ParcelSource


def test_parcels_are_a_file_or_a_shipped_source() -> None:
    with pytest.raises(ValueError, match="parcels need a path, or the name of a shipped source"):
        ParcelSource(code="crop")


def test_nothing_is_known_between_the_parcels_of_any_file() -> None:
    assert ParcelSource(path="fields.gpkg").labelled_area == "parcels"


def test_the_french_register_declares_everything_and_knows_its_columns() -> None:
    source = load_parcel_source("fr-rpg", 2018, path="PARCELLES_GRAPHIQUES.shp")
    assert (source.id, source.code, source.crs) == ("ID_PARCEL", "CODE_CULTU", "EPSG:2154")
    assert (source.labelled_area, source.source, source.year) == ("region", "fr-rpg", 2018)
    assert source.licence is not None
    assert source.attribution is not None
    assert "IGN" in source.attribution


def test_columns_can_differ_by_year() -> None:
    assert load_parcel_source("fr-rpg", 2023, path="rpg.gpkg").code == "code_cultu"


def test_a_source_without_its_file_says_where_the_file_is_and_how_to_name_it() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"download https://data\.geopf\.fr/\S+2022\S+, unpack it.*--parcels FILE"
    ):
        load_parcel_source("fr-rpg", 2022)


def test_a_year_that_was_not_published_lists_those_that_were() -> None:
    with pytest.raises(ValueError, match=r"'fr-rpg' has editions of 2017, 2018, .*2023; not of 1999"):
        load_parcel_source("fr-rpg", 1999, path="rpg.gpkg")
    with pytest.raises(ValueError, match="no year was given"):
        load_parcel_source("fr-rpg", None)


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no parcel source named 'fr-rgp'; the catalog has.*did you mean 'fr-rpg'\?"):
        load_national_source("fr-rgp")


def test_every_shipped_source_names_licence_attribution_and_addresses() -> None:
    for name in list_parcel_sources():
        source = load_national_source(name)
        assert source.id == name
        assert all((source.licence, source.attribution, source.home.startswith("https://")))
        years = [edition.year for edition in source.editions]
        assert years == sorted(set(years))
        for edition in source.editions:
            assert edition.addresses
            assert all(address.startswith("https://") for address in edition.addresses)
