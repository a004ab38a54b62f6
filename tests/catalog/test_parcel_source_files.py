"""Every shipped parcel source against a real file of its country: columns, layer, member, CRS, codes."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from sits_catalog.loading import list_parcel_sources, list_taxonomies, load_national_source, load_taxonomy
from sits_catalog.parcel_source import NationalSource, ParcelSource


@dataclass(frozen=True)
class Sample:
    """A real file of a source, of which 100 rows or fewer are kept."""

    file: str
    """Under the data folder; a pattern where the name is long."""
    year: int | None
    layer: str | None = None
    """Named by the user, where the source leaves it to them."""
    unknown: frozenset[str] = frozenset()
    """Codes of the file that the table of EuroCrops, which is of another year, does not know."""
    repeats: int = 0
    """Rows whose key occurred before."""


SAMPLES = {
    "at-invekos": Sample("parcels/national/at/*.zip", 2025, unknown=frozenset({"359", "360", "361"})),
    "be-vlg": Sample("parcels/national/be_vlg/*.zip", 2023),
    "be-wal": Sample("parcels/national/be_wal/*.zip", 2022),
    "ch": Sample("parcels/national/ch/*.gpkg", 2023),
    "cz": Sample("parcels/national/cz/*.zip", 2024),
    "de-bb": Sample("parcels/national/de_bb/*.zip", 2026),
    "dk-marker": Sample("parcels/national/dk/*.zip", 2026, unknown=frozenset({"482"})),
    "es-cat": Sample("parcels/national/es_cat/*.zip", 2023),
    "eurocrops": Sample("parcels/national/ec_ro/*.zip", None),
    "fi": Sample(
        "parcels/national/fi/*.gpkg", 2023, unknown=frozenset({"5855", "6130", "9409", "9425", "9427", "9809"})
    ),
    "fiboa": Sample("parcels/fiboa/dk_2024_fiboa_0_2.parquet", 2024, repeats=-1),
    "fiboa-hcat": Sample("parcels/fiboa/hcat_extension_example.parquet", None),
    "fr-rpg": Sample("parcels/france_rpg.gpkg", 2023, unknown=frozenset({"LU5"})),
    "lv": Sample("parcels/national/ec_lv/*.zip", 2021),
    "nl-brp": Sample("parcels/national/nl/*.gpkg", 2023, unknown=frozenset({"2618", "2621", "6794"})),
    "pt": Sample("parcels/national/pt/*.gpkg", 2023, layer="Culturas_Aveiro"),
    "se": Sample("parcels/national/se/*.zip", 2023),
    "si-gerk": Sample("earthsearch/parcels/SI_2021.zip", 2021),
}
WITHOUT_A_FILE = {"de-ni", "de-nrw", "ee", "lt"}
PRIVATE = ("ico", "cvr", "journalnr", "identifikator_be", "nma_id", "id_uz", "id_szr", "taotleja")
"""Columns that tell who farms a parcel, as beginnings in small letters."""
MAPPINGS = "taxonomies/eurocrops/country_mappings"


def open_sample(folder: Path, name: str) -> tuple[ParcelSource, str]:
    """The source for its sample, and what GDAL should open."""
    sample = SAMPLES[name]
    (file,) = folder.glob(sample.file)
    source = load_national_source(name).parcels(sample.year, str(file))
    if file.suffix != ".zip":
        return source, str(file)
    with zipfile.ZipFile(file) as archive:
        names = [entry for entry in archive.namelist() if not entry.endswith("/")]
    if source.member is None:
        (inner,) = [entry for entry in names if entry.endswith((".shp", ".gpkg"))]
    else:
        (inner,) = [entry for entry in names if fnmatchcase(PurePosixPath(entry).name, source.member)]
    return source, f"/vsizip/{{{file}}}/{inner}"


def read_codes(target: str, layer: str | None, source: ParcelSource) -> tuple[list[str | None], list[str]]:
    """Crop codes of all rows, by the pattern of the source, and the keys where it has any; read with GDAL alone."""
    import pyarrow.parquet as pq
    import pyogrio

    columns = [name for name in (source.code, source.id) if name is not None]
    if target.endswith(".parquet"):
        frame = pq.read_table(target, columns=columns).to_pandas()
    else:
        options = {"WRITE_GFS": "NO"} if target.endswith(".gml") else {}
        frame = pyogrio.read_dataframe(target, layer=layer, columns=columns, read_geometry=False, **options)
    assert source.code is not None
    texts = [_text(value) for value in frame[source.code]]
    codes = [
        text if text is None or source.code_pattern is None else _first(source.code_pattern, text) for text in texts
    ]
    return codes, [] if source.id is None else [str(value) for value in frame[source.id]]


def _text(value: object) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value) if isinstance(value, float) else value)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return None if found is None else found[1]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_columns_layer_member_and_crs_are_those_of_a_real_file(sits_data: Path, name: str) -> None:
    import pyarrow.parquet as pq
    import pyogrio
    from pyproj import CRS

    source, target = open_sample(sits_data, name)
    layer = source.layer or SAMPLES[name].layer
    if target.endswith(".parquet"):
        columns = set(pq.read_schema(target).names)
    else:
        options = {"WRITE_GFS": "NO"} if target.endswith(".gml") else {}
        spatial = {str(found) for found, kind in pyogrio.list_layers(target) if kind is not None}
        assert layer in spatial if layer is not None else len(spatial) == 1
        info = pyogrio.read_info(target, layer=layer, **options)
        columns = set(info["fields"])
        assert source.crs is None or CRS.from_user_input(info["crs"]) == CRS.from_user_input(source.crs)
    assert {column for column in (source.id, source.code, source.name) if column is not None} <= columns


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_codes_of_a_real_file_are_found_and_known_to_the_table(sits_data: Path, name: str) -> None:
    source, target = open_sample(sits_data, name)
    national, sample = load_national_source(name), SAMPLES[name]
    codes, keys = read_codes(target, source.layer or sample.layer, source)
    present = {code for code in codes if code is not None and code.strip()}
    assert len(present) >= min(2, len(codes))
    mapping = national.mapping_of(sample.year)
    if mapping is not None:
        table = load_taxonomy(str(sits_data / MAPPINGS / urlsplit(mapping).path.rpartition("/")[2]))
        assert frozenset(table.unknown_codes(present)) == sample.unknown
    if national.taxonomy is not None:
        assert not load_taxonomy(national.taxonomy).unknown_codes(present)
    if sample.repeats >= 0:
        assert len(keys) - len(set(keys)) == sample.repeats


def test_every_shipped_source_was_held_against_a_file_or_says_that_it_was_not() -> None:
    assert set(list_parcel_sources()) == set(SAMPLES) | WITHOUT_A_FILE
    for name in WITHOUT_A_FILE:
        assert "not checked with a file" in (load_national_source(name).notes or "")


def test_the_tables_of_eurocrops_are_there_under_their_names(sits_data: Path) -> None:
    tables = {name: load_national_source(name).mapping for name in list_parcel_sources()}
    for address in {table for table in tables.values() if table is not None}:
        assert (sits_data / MAPPINGS / address.rpartition("/")[2]).is_file()
    assert tables["fiboa"] is None


@pytest.mark.parametrize("name", list_parcel_sources())
def test_a_shipped_source_says_all_that_a_user_must_know(name: str) -> None:
    source = load_national_source(name)
    assert source.id == name
    assert all((source.title, source.provider, source.licence, source.attribution, source.notes, source.code_column))
    assert source.home.startswith("https://")
    assert source.labelled_area in ("region", "parcels")
    assert source.taxonomy in (None, *list_taxonomies())
    years = [edition.year for edition in source.editions]
    assert years == sorted(set(years))
    for edition in source.editions:
        parcels = source.parcels(edition.year, None)
        assert edition.addresses
        assert all(urlsplit(address).scheme == "https" for address in edition.addresses)
        assert len(set(edition.file_names)) == len(edition.addresses)
        assert all("." in file and "/" not in file for file in edition.file_names)
        assert parcels.licence
        assert parcels.attribution
        assert parcels.code
    for column in columns_of(source):
        assert not column.lower().startswith(PRIVATE), f"{name} reads {column}, which tells who farms"


def columns_of(source: NationalSource) -> list[str]:
    own = [(edition.id, edition.code, edition.name) for edition in source.editions]
    return [
        column
        for triple in [(source.id_column, source.code_column, source.name_column), *own]
        for column in triple
        if column
    ]


def test_the_page_about_national_parcels_lists_every_source_with_its_years() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/national-parcels.md").read_text(encoding="utf-8")
    rows = {cells[0].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")[1:]) == 7}
    listed = {name: rows[name][2].strip() for name in list_parcel_sources()}
    assert set(listed) == set(list_parcel_sources())
    for name, years in listed.items():
        source = load_national_source(name)
        spoken = [int(year) for run in years.split(", ") if years != "any" for year in run.split("-")]
        known = [edition.year for edition in source.editions]
        assert (spoken[:1], spoken[-1:]) == (known[:1], known[-1:])
        assert rows[name][5].strip() == spelt(source.converter_years)


def spelt(years: tuple[int, ...]) -> str:
    """Years as 2017, 2019-2024."""
    firsts = [year for year in years if year - 1 not in years]
    lasts = [year for year in years if year + 1 not in years]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True))


@pytest.mark.parametrize("name", list_parcel_sources())
def test_a_converter_is_asked_for_years_alone_that_it_is_known_to_make(name: str) -> None:
    source = load_national_source(name)
    assert set(source.converter_years) <= {edition.year for edition in source.editions}
    assert "--with-fiboa" not in (source.notes or "") or source.converter is not None
