"""Tables of others that become taxonomies, known by their header."""

from __future__ import annotations

from pathlib import Path

import pytest

from sits_catalog.loading import load_crop_tree, load_taxonomy
from sits_catalog.taxonomy import Taxonomy
from sits_catalog.taxonomy_tables import read_taxonomy

TREE = load_crop_tree()
EUROCROPS = "original_code,original_name,translated_name,HCAT3_name,HCAT3_code\n"


def read(text: str) -> Taxonomy:
    return read_taxonomy(text, id="mine", name="mine.csv", tree=TREE)


def named(taxonomy: Taxonomy, *codes: str) -> list[str]:
    classes = {crop.index: crop.code for crop in taxonomy.classes}
    return [classes[taxonomy.codes[code]] for code in codes]


def test_our_own_format_is_read_as_before() -> None:
    assert read("\ufeff# title: T\ncode;class\na;k\nb;k\n").codes == {"a": 1, "b": 1}
    with pytest.raises(ValueError, match=r"mine\.csv:1: unknown column 'crop'"):
        read("code,crop\na,b\n")
    with pytest.raises(ValueError, match="the file is empty"):
        read("\n")


# EuroCrops


def test_a_eurocrops_mapping_takes_names_colours_and_indices_of_hcat() -> None:
    taxonomy = read(EUROCROPS + "BTH,Blé tendre,Soft wheat,winter_common_soft_wheat,3301010101\nMIE,x,,_,3301090400\n")
    assert [(crop.index, crop.code, crop.hcat) for crop in taxonomy.classes] == [
        (6, "winter_common_soft_wheat", "3301010101"),
        (219, "green_silo_maize", "3301090400"),
    ]
    assert all(crop == TREE.nodes[str(crop.hcat)].crop for crop in taxonomy.classes)
    assert named(taxonomy, "BTH", "Blé tendre", "3301010101") == ["winter_common_soft_wheat"] * 3
    assert taxonomy.attribution == "EuroCrops (Schneider et al. 2023), CC BY-SA 4.0"


def test_a_row_without_a_code_is_known_by_its_name_and_so_is_a_table_without_codes() -> None:
    with_codes = read(EUROCROPS + ",Froment d’hiver,,,3301010101\n311,Froment d'hiver,,,3301010101\n")
    assert named(with_codes, "Froment d’hiver", "Froment d'hiver", "311") == ["winter_common_soft_wheat"] * 3
    without = read("original_name,HCAT3_name,HCAT3_code\nAlfalfa,alfalfa_lucerne,3301090301\n")
    assert named(without, "Alfalfa") == ["alfalfa_lucerne"]


def test_two_columns_of_names_are_both_read() -> None:
    taxonomy = read("original_code,original_name_BW,original_name_DE,HCAT3_code\n114,Winter-Dinkel,Dinkel,3301011001\n")
    assert named(taxonomy, "114", "Winter-Dinkel", "Dinkel") == ["winter_spelt"] * 3


def test_a_name_of_two_classes_is_no_code_and_that_is_said() -> None:
    taxonomy = read(EUROCROPS + "200,Haus,,,3301000000\n210,Haus,,,3305000000\n")
    assert taxonomy.unknown_codes(["Haus", "200", "210"]) == ("Haus",)
    assert taxonomy.notes == ("names that stand for several classes and are no codes: Haus",)


def test_a_repeated_code_may_not_have_two_classes() -> None:
    assert len(read(EUROCROPS + "1,a,,,3301010101\n1,b,,,3301010101\n").classes) == 1
    with pytest.raises(
        ValueError, match=r"mine\.csv: the code '1' is winter_common_soft_wheat in one row and winter_rye in another"
    ):
        read(EUROCROPS + "1,a,,,3301010101\n1,b,,,3301010301\n")


def test_a_row_without_code_and_name_is_a_further_crop_of_the_row_above_and_the_first_is_taken() -> None:
    taxonomy = read(EUROCROPS + "606,,Potato / corn,,3301030000\n,,Potato / corn,,3301010600\n607,,,,3301010301\n")
    assert named(taxonomy, "606", "607") == ["potatoes", "winter_rye"]
    assert len(taxonomy.classes) == 2
    assert taxonomy.notes == ("codes of several crops, of which the first is taken: 606",)


def test_lost_zeros_are_read_where_the_table_has_none() -> None:
    lost = read(EUROCROPS + "1,a,,,3301010101\n114,b,,,3301010301\n")
    assert named(lost, "1", "01", "001") == ["winter_common_soft_wheat"] * 3
    assert lost.unknown_codes(["0001", "0114"]) == ("0001", "0114")
    kept = read(EUROCROPS + "001,a,,,3301010101\n114,b,,,3301010301\n20,c,,,3301010301\n")
    assert kept.unknown_codes(["001", "1", "020"]) == ("020", "1")


def test_an_hcat_code_that_does_not_exist_is_taken_by_its_name_or_from_above_and_said() -> None:
    table = EUROCROPS + "TOP,a,,topinambur_jerusalem_artichoke,3301290900\nX,b,,no such crop,3301290999\n"
    taxonomy = read(table)
    assert named(taxonomy, "TOP", "X") == ["topinambur_jerusalem_artichoke", "root_vegetables"]
    assert taxonomy.notes == (
        "code TOP: HCAT 3 has no 3301290900; taken by its name as topinambur_jerusalem_artichoke (3301180000)",
        "code X: HCAT 3 has no 3301290999; taken by the nearest above as root_vegetables (3301290000)",
    )
    with pytest.raises(ValueError, match=r"HCAT 3 has no class 9900000000 \(code 'X'\) and none above it"):
        read(EUROCROPS + "X,b,,,9900000000\n")
    with pytest.raises(ValueError, match="the HCAT code of 'X' should have ten digits, got '33'"):
        read(EUROCROPS + "X,b,,,33\n")


def test_a_code_and_a_name_of_two_nodes_are_what_both_lie_in_and_that_is_said() -> None:
    taxonomy = read(
        EUROCROPS
        + "973,Iris,,iris,3301082200\n704,trsnice,,vineyards_wine_vine_rebland_grapes,3303070000\n"
        + "341,Lein,,flax_linen,3301060700\n389,p,,parsley,3301061227\n"
    )
    assert named(taxonomy, "973", "704", "341") == [
        "flowers_ornamental_plants",
        "permanent_crops_perennial",
        "flax_linseed",
    ]
    assert taxonomy.notes[0] == (
        "code 973: its HCAT code is goldenrod (3301082200) and its HCAT name iris (3301082300); taken as what both lie "
        "in, flowers_ornamental_plants (3301080000)"
    )
    assert len(taxonomy.notes) == 3  # parsley is spelt differently in HCAT 3, and contradicts nothing


def test_a_row_without_an_hcat_code_leaves_its_code_unknown_and_is_said() -> None:
    taxonomy = read(EUROCROPS + "1,a,,,3301010101\n2,b,,,\n")
    assert taxonomy.unknown_codes(["1", "2"]) == ("2",)
    assert taxonomy.notes == ("rows without an HCAT code, which leave their code unknown: 2",)
    with pytest.raises(ValueError, match="no row has both a code and an HCAT code"):
        read(EUROCROPS + "2,b,,,\n")


# Swiss land use


def test_a_catalogue_of_land_use_is_a_class_a_code_with_the_code_as_index() -> None:
    taxonomy = read("\ufeffID,LNF_Code,Nutzung_DE,Nutzung_FR\n501,501,Sommergerste,Orge\n9,998,,Autres\n")
    assert [(crop.index, crop.code, crop.name) for crop in taxonomy.classes] == [
        (501, "501", "Sommergerste"),
        (998, "998", "Autres"),
    ]
    assert taxonomy.attribution == "Codes: Swiss Federal Office for Agriculture"


def test_tiers_of_land_use_are_classes_at_the_finest_that_is_filled() -> None:
    table = "LNF_Code,1st_tier_DE,1st_tier_ENG,2nd_tier_ENG,3rd_tier_old\n501,V,Veg,Annual,Barley\n502,V,Veg,Annual,\n"
    taxonomy = read(table + "900,I,Built,,\n")
    assert [(crop.code, crop.name) for crop in taxonomy.classes] == [("Veg/Annual", "Annual"), ("Built", "Built")]
    assert taxonomy.codes == {"501": 1, "502": 1, "900": 2}


def test_a_row_of_land_use_may_list_its_codes() -> None:
    taxonomy = read('tier_1,tier_2,lnf_codes\nVeg,Meadow,"[601, 602]"\nVeg,Maize,[508]\n')
    assert taxonomy.codes == {"601": 1, "602": 1, "508": 2}
    with pytest.raises(ValueError, match=r"lnf_codes should look like \[601, 602\], got 'all'"):
        read("tier_1,lnf_codes\nVeg,all\n")


def test_a_code_of_land_use_has_one_row() -> None:
    with pytest.raises(ValueError, match=r"mine\.csv: the code 501 stands twice"):
        read("LNF_Code,Nutzung_DE\n501,a\n501,b\n")
    with pytest.raises(ValueError, match=r"mine\.csv: a row has no LNF code"):
        read("LNF_Code,Nutzung_DE\n,a\n")


# Lists of codes


def test_a_list_of_codes_is_a_class_a_code_and_a_name_is_a_code_too() -> None:
    taxonomy = read("original_code,original_name,translated_name\n1,AGROSTIS,Bent\n2,PRAT,\n3,,nothing\n")
    assert [(crop.code, crop.name) for crop in taxonomy.classes] == [("1", "Bent"), ("2", "PRAT")]
    assert taxonomy.codes == {"1": 1, "AGROSTIS": 1, "2": 2, "PRAT": 2}


def test_a_code_of_two_crops_is_no_code_and_never_one_of_them() -> None:
    taxonomy = read("original_code,original_name\n183,GARROFA\n183,ALBERCOC\n40,CIRERER\n40,CIRERER\n")
    assert named(taxonomy, "GARROFA", "ALBERCOC", "40", "CIRERER") == ["GARROFA", "ALBERCOC", "40", "40"]
    assert taxonomy.unknown_codes(["183"]) == ("183",)
    assert taxonomy.notes == ("codes of several names, which are no codes: 183",)


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "crop,kind\na,b\n",
            "mine.csv: no table of crops has the columns crop, kind; a taxonomy has the column code; a Eu",
        ),
        ("HCAT2_name,HCAT2_code\na,b\n", "no table of crops has the columns hcat2_name, hcat2_code"),
        (EUROCROPS + "1,2,3,4,5,6\n", "mine.csv:2: 6 cells, but the header names 5 columns"),
        (EUROCROPS + '1,"2\n', "mine.csv:2: this is not CSV"),
    ],
)
def test_a_table_that_is_none_of_them_is_refused_with_the_columns_that_are_understood(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text)


def test_a_region_names_such_a_table_as_its_taxonomy_and_raises_it(tmp_path: Path) -> None:
    (tmp_path / "at.csv").write_text(EUROCROPS + "1,a,,,3301010101\n2,b,,,3301010301\n")
    assert len(load_taxonomy("at.csv", tmp_path).classes) == 2
    (cereal,) = load_taxonomy("at.csv", tmp_path, classes_at="level-4").classes
    assert cereal.code == "cereal"
