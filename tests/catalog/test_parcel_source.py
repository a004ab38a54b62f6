"""Parcel sources: a file with its columns, or a shipped source by name and year."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sits_catalog.loading import load_national_source, load_parcel_source
from sits_catalog.parcel_source import ParcelEdition, ParcelSource


def test_parcels_are_a_file_or_a_shipped_source() -> None:
    with pytest.raises(ValueError, match="parcels need a path, or the name of a shipped source"):
        ParcelSource(code="crop")


def test_nothing_is_known_between_the_parcels_of_any_file() -> None:
    assert ParcelSource(path="fields.gpkg").labelled_area == "parcels"


def test_the_french_register_declares_everything_and_knows_its_columns() -> None:
    source = load_parcel_source("fr-rpg", 2019, path="PARCELLES_GRAPHIQUES.shp")
    assert (source.id, source.code, source.crs) == ("ID_PARCEL", "CODE_CULTU", "EPSG:2154")
    assert (source.labelled_area, source.source, source.year) == ("region", "fr-rpg", 2019)
    assert source.licence is not None
    assert source.attribution is not None
    assert "IGN" in source.attribution


def test_columns_can_differ_by_year() -> None:
    assert load_parcel_source("fr-rpg", 2023, path="rpg.gpkg").code == "code_cultu"


def test_an_edition_without_a_name_column_says_so_by_an_empty_text() -> None:
    assert load_parcel_source("lv", 2021, path="LV.zip").name is None
    assert load_parcel_source("lv", 2021, path="LV.zip").code == "PRODUCT_CO"
    assert load_parcel_source("lv", 2024, path="lauki.gml").name == "PRODUCT_DESCRIPTION"


def test_a_member_is_meant_in_an_archive_alone() -> None:
    assert load_parcel_source("fr-rpg", 2017, path="RPG.7z").member == "*PARCELLES_GRAPHIQUES.shp"
    assert load_parcel_source("fr-rpg", 2024, path="RPG.7z.001").member == "*RPG_Parcelles.gpkg"
    assert load_parcel_source("fr-rpg", 2024, path="RPG_Parcelles.gpkg").member is None


def test_another_copy_of_a_year_has_its_own_licence() -> None:
    assert "CC BY-SA 4.0" in (load_parcel_source("fr-rpg", 2018, path="FR_2018.zip").licence or "")
    assert "EuroCrops" in (load_parcel_source("fr-rpg", 2018, path="FR_2018.zip").attribution or "")
    assert "Etalab" in (load_parcel_source("fr-rpg", 2019, path="RPG.7z").licence or "")


def test_a_source_that_was_not_fetched_has_no_path_and_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SITS_PARCELS", str(tmp_path))
    source = load_parcel_source("fr-rpg", 2022)
    assert (source.path, source.code, source.source, source.year) == (None, "CODE_CULTU", "fr-rpg", 2022)
    with pytest.raises(
        FileNotFoundError,
        match=r"'fr-rpg', 2022, were not fetched: fetch them with `sits-catalog parcels fetch fr-rpg --year 2022`, or",
    ):
        source.fetched_path()


def test_a_year_that_was_not_published_lists_those_that_were() -> None:
    with pytest.raises(ValueError, match=r"'fr-rpg' has editions of 2017, 2018, .*2024; not of 1999"):
        load_parcel_source("fr-rpg", 1999)
    with pytest.raises(ValueError, match="no year was given"):
        load_parcel_source("fr-rpg", None)
    with pytest.raises(ValueError, match="'eurocrops' has no addresses to fetch from: name a file of yours"):
        load_parcel_source("eurocrops", None)


def test_a_file_of_the_user_may_be_of_any_year() -> None:
    assert load_parcel_source("fr-rpg", 2030, path="rpg.gpkg").code == "CODE_CULTU"
    assert load_parcel_source("eurocrops", None, path="EC.shp").code == "EC_hcat_c"


def test_an_edition_has_as_many_checksums_and_names_as_addresses() -> None:
    with pytest.raises(ValueError, match="edition 2020 has 2 addresses and 1 sha256"):
        ParcelEdition(year=2020, addresses=("https://a/b.zip", "https://a/c.zip"), sha256=("0" * 64,))
    edition = ParcelEdition(year=2020, addresses=("https://a/b%20(1).zip?x=1", "https://a/c.zip"))
    assert edition.file_names == ("b (1).zip", "c.zip")


def test_a_converter_comes_with_the_years_that_it_makes() -> None:
    finland = load_national_source("fi")
    assert (finland.converter, finland.converter_years) == ("fi", (2023,))
    with pytest.raises(ValueError, match=r"'fi' should have both `converter` and `converter_years`.*; got fi and \[\]"):
        replace(finland, converter_years=())


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no parcel source named 'fr-rgp'; the catalog has.*did you mean 'fr-rpg'\?"):
        load_national_source("fr-rgp")
