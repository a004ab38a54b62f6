"""The shipped tables: their numbering, and whether they know every code of the real sample files."""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sits_catalog.cube import IGNORE
from sits_catalog.loading import load_crop_tree, load_taxonomy
from sits_catalog.taxonomy import Taxonomy

TREE = load_crop_tree()


def named(taxonomy: Taxonomy, *codes: str) -> list[str]:
    classes = {crop.index: crop.code for crop in taxonomy.classes}
    return [classes[taxonomy.codes[code]] for code in codes]


@pytest.mark.parametrize("name", ["mtlcc", "pastis", "rpg", "rpg-groups", "t31tfm-1618", "usda-cdl"])
def test_hcat_codes_of_shipped_tables_exist(name: str) -> None:
    taxonomy = load_taxonomy(name)
    assert {crop.hcat for crop in taxonomy.classes if crop.hcat} <= TREE.nodes.keys()
    assert all(crop.name.strip() for crop in taxonomy.classes)


def test_pastis_keeps_its_numbers_and_ignores_void() -> None:
    pastis = load_taxonomy("pastis")
    assert {code: index for code, index in pastis.codes.items() if len(code) < 10} == {
        str(number): number for number in range(1, 19)
    }
    assert pastis.ignore == {"19"}
    assert pastis.unknown_codes(["0"]) == ("0",)


def test_mtlcc_counts_as_in_training_plus_one() -> None:
    mtlcc = load_taxonomy("mtlcc")
    raw = ["1", "2", "3", "5", "8", "9", "12", "13", "15", "16", "17", "19", "22", "23", "24", "25", "26"]
    assert [mtlcc.codes[code] for code in raw] == list(range(1, 18))
    assert named(mtlcc, "1", "5", "22", "26") == ["sugar_beet", "rape", "winter_wheat", "maize"]
    assert mtlcc.classify("0") == IGNORE


def test_t31tfm_has_twenty_classes_without_names_and_ignores_the_other_codes() -> None:
    taxonomy = load_taxonomy("t31tfm-1618")
    raw = [1, 2, 3, *range(6, 15), 20, 25, 33, 34, 35, 36, 48, 73]
    assert [taxonomy.codes[str(code)] for code in raw] == list(range(1, 21))
    assert taxonomy.ignore == {str(code) for code in range(1, 168)} - {str(code) for code in raw}
    assert taxonomy.classes[3].name == "RPG class 6 of T31TFM_1618"


def test_groups_of_the_rpg_are_known_by_their_number_and_by_their_crops() -> None:
    groups = load_taxonomy("rpg-groups")
    assert [groups.codes[str(number)] for number in range(1, 29)] == list(range(1, 29))
    assert named(groups, "1", "BTH", "VRC", "LU5") == ["ble_tendre", "ble_tendre", "vignes", "fourrage"]
    # Codes whose group could not be found; parcels that have them have CODE_GROUP as well.
    crops = load_taxonomy("rpg").codes.keys() - TREE.nodes.keys()
    left_out = "AFG CAE CEE CNA CNE CSE GRA MLS MSW ORT PEV PHF PHS SAG SBO SHD SIN SNU TCR"
    assert " ".join(groups.unknown_codes(crops)) == left_out


def test_years_of_sowing_are_no_crops_of_their_own() -> None:
    rpg = load_taxonomy("rpg")
    assert named(rpg, "LU5", "LU8", "LUZ", "LUD", "BCF", "MH6") == ["LUZ", "LUZ", "LUZ", "LUD", "BCA", "MH"]


# The real sample files


def texts(values: Iterable[Any]) -> set[str]:
    """Codes as the reader of parcels makes them text."""
    return {str(int(value)) if isinstance(value, float) and value == int(value) else str(value) for value in values}


def column(path: str, name: str, layer: str | None) -> set[str]:
    """Distinct values of a column of a vector file, without those that are missing."""
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        return texts(value for value in pq.read_table(path, columns=[name])[name].to_pylist() if value is not None)
    import pyogrio

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Measured .M. geometry types")
        frame = pyogrio.read_dataframe(path, columns=[name], layer=layer, read_geometry=False)
    return texts(frame[name].dropna())


def mapping(name: str) -> str:
    return f"taxonomies/eurocrops/country_mappings/{name}.csv"


N = "parcels/national/"
LV, RO = f"{N}ec_lv/LV_2021.zip/LV_2021/LV_2021_EC21.shp", f"{N}ec_ro/RO_ny.zip/RO/RO_ny_EC21.shp"
SI = "earthsearch/parcels/SI_2021.zip"
NL = f"{N}nl/brpgewaspercelen_definitief_2023.gpkg"
# taxonomy, file, column, and the codes that it leaves out: crops that came after the table's year, or other words.
SAMPLES = [
    ("rpg", "parcels/france_rpg.gpkg", "code_cultu", ""),
    ("rpg-groups", "parcels/france_rpg.gpkg", "code_cultu", ""),
    ("rpg-groups", "parcels/france_rpg.gpkg", "code_group", ""),
    *(
        (
            "usda-cdl",
            f"{N}us_usda_cropland/NationalCSB_2017-2024_rev23.zip/NationalCSB_2017-2024_rev23/CSB1724.gdb",
            name,
            "",
        )
        for name in (f"CDL{year}" for year in range(2017, 2025))
    ),
    ("hcat3", "t31tej/parcels/france_data_2018.shp", "EC_hcat_n", ""),
    *(("hcat3", path, name, "") for path in (SI, LV, RO) for name in ("EC_hcat_n", "EC_hcat_c")),
    ("hcat3", "parcels/fiboa/hcat_extension_example.parquet", "hcat:code", ""),
    (
        "hcat3",
        "parcels/malawi_extraction_polygons.gpkg",
        "croptype",
        "Mixture three or more|beans/peas|groundnuts|maize|root_crops",
    ),
    (mapping("at_2021"), f"{N}at/inspire_schlaege_2025-1_polygon.gpkg.zip", "SNAR_CODE", "359|360|361"),
    (mapping("be_vlg_2021"), f"{N}be_vlg/*.zip", "GWSCOD_H", ""),
    (mapping("be_vlg_2021"), "parcels/fiboa/be_vlg_2024_fiboa_0_2.parquet", "crop:code", ""),
    (mapping("cz_2023"), f"{N}cz/GEOPROSTOR_ZADOSTI23_2024-08-01.zip", "PLODINA_ID", ""),
    (mapping("de_bb_2023"), f"{N}de_bb/antrag.zip", "code", ""),
    (mapping("dk_2019"), f"{N}dk/Marker_2026.zip", "Afgkode", "482"),
    (mapping("dk_2019"), "parcels/fiboa/dk_2024_fiboa_0_2.parquet", "crop:code", "18"),
    (
        mapping("fi_2020"),
        f"{N}fi/LandUse.ExistingLandUse.GSAAAgriculturalParcel.gpkg",
        "KASVIKOODI",
        "5855|6130|9409|9425|9427|9809",
    ),
    (mapping("fr_2018"), "parcels/france_rpg.gpkg", "code_cultu", "LU5"),
    (mapping("lv_2021"), LV, "PRODUCT_CO", ""),
    (mapping("nl_2020"), NL, "gewascode", "2618|2621|6794"),
    (mapping("pt_2021"), f"{N}pt/Continente.gpkg:Culturas_Aveiro", "CUL_CODIGO", " "),
    (mapping("se_2021"), f"{N}se/se2023.zip", "grdkod_mar", ""),
    ("taxonomies/lnf/LNF_Katalog_Nutzungsart.csv", f"{N}ch/lwb_nutzungsflaechen_v2_0_lv95.gpkg", "lnf_code", ""),
    ("taxonomies/national_codes/es_cat.csv", f"{N}es_cat/Cultius_DUN2023_GPKG.zip:CULTIUS_DUN2023", "cultiu", ""),
    ("taxonomies/national_codes/us_ca_scm.csv", f"{N}us_ca_scm/*.gdb.zip", "MAIN_CROP", ""),
]


@pytest.mark.parametrize(("name", "path", "code", "left_out"), SAMPLES)
def test_every_code_of_a_sample_file_has_a_class_or_is_listed_here(
    sits_data: Path, name: str, path: str, code: str, left_out: str
) -> None:
    path, _, layer = path.partition(":")
    if "*" in path:
        (found,) = sits_data.glob(path)
        path = str(found.relative_to(sits_data))
    address = f"/vsizip/{sits_data / path}" if ".zip" in path else str(sits_data / path)
    taxonomy = load_taxonomy(name, sits_data)
    codes = column(address, code, layer or None)
    assert codes
    assert taxonomy.unknown_codes(codes) == tuple(left_out.split("|") if left_out else ())
    assert taxonomy.ignore.isdisjoint(codes)


def test_wallonia_is_known_by_the_words_after_the_dash(sits_data: Path) -> None:
    path = sits_data / N / "be_wal/LU_ExistingLandUse_SIGEC2022.gml.zip"
    found = column(f"/vsizip/{path}", "description", "ExistingLandUseObject")
    crops = {match[1] for text in found if (match := re.search(" - (.*)$", text))}
    assert len(crops) == 3
    assert load_taxonomy(mapping("be_wal_all_years"), sits_data).unknown_codes(crops) == ()


def test_pastis_has_the_labels_of_its_authors_but_the_background(sits_data: Path) -> None:
    published = json.loads((sits_data / "taxonomies/pastis/label_names.json").read_text())
    pastis = load_taxonomy("pastis")
    assert pastis.unknown_codes(published) == ("0",)
    names = {str(crop.index): crop.name for crop in pastis.classes}
    assert names == {
        code: re.sub(r"\s+", " ", name) for code, name in published.items() if code not in ("0", *pastis.ignore)
    }


def test_the_cropland_data_layer_has_every_value_of_both_legends(sits_data: Path) -> None:
    usda = load_taxonomy("usda-cdl")
    with (sits_data / "taxonomies/cdl/us_usda_cropland.csv").open(encoding="utf-8") as file:
        rows = [(row["original_code"], row["original_name"].strip()) for row in csv.DictReader(file)]
    left_out = usda.unknown_codes(code for code, _ in rows)
    assert sorted(left_out) == sorted(code for code, name in rows if not name)
    assert (len(rows), len(left_out)) == (256, 122)
    assert {str(crop.index): crop.name for crop in usda.classes} == {
        code: name for code, name in rows if name and code not in usda.ignore
    }
    collection = json.loads((sits_data / "taxonomies/cdl/usda_cdl_collection.json").read_text())
    assets = json.dumps(collection["item_assets"]["cropland"])
    values = {int(value) for value in re.findall(r'"value": (\d+)', assets)}
    assert len(values) == 133
    assert usda.unknown_codes(map(str, values)) == ()


TABLES = {
    "at_2021": 95, "be_vlg_2021": 132, "be_wal_all_years": 104, "cz_2023": 159, "de": 209, "de_BW_2022": 91,
    "de_bb_2023": 120, "de_ls_2021": 150, "de_nrw_2021": 182, "dk_2019": 132, "ee_2021": 130, "es_2023": 204,
    "es_ne_2021": 10, "fi_2020": 127, "fr_2018": 156, "fr_other_years": 18, "hr_2020": 11, "ie_2023": 100,
    "lt_2021": 22, "lv_2021": 108, "nl_2020": 149, "nl_other_years": 50, "pt_2021": 84, "ro_no_year": 8,
    "se_2021": 52, "si_2021": 112, "sk_2021": 121,
}  # fmt: skip


CONTRADICTIONS = {
    ("de_BW_2022", "341", "3301060700", "3301060701", "3301060700"),
    ("de_bb_2023", "341", "3301060700", "3301060701", "3301060700"),
    ("nl_2020", "973", "3301082200", "3301082300", "3301080000"),
    ("nl_2020", "974", "3301082200", "3301082300", "3301080000"),
    ("nl_2020", "1051", "3301082200", "3301082300", "3301080000"),
    ("nl_2020", "1052", "3301082200", "3301082300", "3301080000"),
    ("si_2021", "704", "3303070000", "3303060000", "3303000000"),
}
"""Table, code, its HCAT code, the code of the class that its HCAT name names, and what both lie in."""


def test_the_rows_whose_hcat_code_and_name_are_two_classes_are_these_seven(sits_data: Path) -> None:
    with (sits_data / "taxonomies/eurocrops/HCAT3.csv").open(encoding="utf-8-sig", newline="") as file:
        official = {row["HCAT3_name"]: row["HCAT3_code"] for row in csv.DictReader(file)}
    found = set()
    for name in TABLES:
        taxonomy = load_taxonomy(mapping(name), sits_data)
        hcat = {crop.index: crop.hcat for crop in taxonomy.classes}
        said = [note for note in taxonomy.notes if "taken as what both lie in" in note]
        with (sits_data / mapping(name)).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                code, named = row["HCAT3_code"], official.get(row["HCAT3_name"].strip())
                if code in official.values() and named not in (None, code):
                    own = row["original_code"]
                    found.add((name, own, code, named, hcat[taxonomy.codes[own]]))
                    assert any(f"code {own}:" in note and code in note and str(named) in note for note in said)
        assert len(said) == sum(row[0] == name for row in CONTRADICTIONS), name
    assert found == CONTRADICTIONS


def test_the_27_tables_of_eurocrops_leave_no_row_out_and_agree_with_hcat(sits_data: Path) -> None:
    folder = sits_data / "taxonomies/eurocrops/country_mappings"
    assert {path.stem for path in folder.glob("*.csv")} == TABLES.keys()
    for name, n_classes in TABLES.items():
        taxonomy = load_taxonomy(mapping(name), sits_data)
        with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [column for column in rows[0] if column.startswith("original_name")]
        # An independent reading of what each row says.
        wanted = {(row.get("original_code") or row[names[0]]).strip(): row["HCAT3_code"] for row in rows}
        # Further crops of the mixture above: Austria, Spain and Portugal.
        further = wanted.pop("", None)
        assert (further is None) == (not any("several crops" in note for note in taxonomy.notes)), name
        hcat = {crop.index: crop.hcat for crop in taxonomy.classes}
        found = {code: hcat[taxonomy.codes[code]] for code in wanted}
        wanted |= {code: both for table, code, _, _, both in CONTRADICTIONS if table == name}
        # The one code that HCAT 3 lacks: Jerusalem artichoke, known by its name.
        assert found == {code: "3301180000" if value == "3301290900" else value for code, value in wanted.items()}, name
        assert len(taxonomy.classes) == n_classes, name
        assert all(crop == TREE.nodes[str(crop.hcat)].crop for crop in taxonomy.classes)


@pytest.mark.parametrize(
    ("name", "classes", "codes"),
    [
        ("LNF_Katalog_Nutzungsart", 174, 174),
        ("LNF_mit_Kategorisierung_Terensis", 58, 174),
        ("label_hierarchy_mapping", 83, 174),
        ("labels_hierarchy", 48, 80),
        ("labels_hierarchy_seasonality", 42, 133),
        ("labels_hierarchy_seasonality_reduced", 24, 104),
        ("zuericrop_labels", 65, 124),
    ],
)
def test_the_tables_of_swiss_land_use_are_read(sits_data: Path, name: str, classes: int, codes: int) -> None:
    taxonomy = load_taxonomy(f"taxonomies/lnf/{name}.csv", sits_data)
    assert (len(taxonomy.classes), len(taxonomy.codes)) == (classes, codes)
    assert all(code.isdecimal() for code in taxonomy.codes)
