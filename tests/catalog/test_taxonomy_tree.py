"""HCAT as a tree, and classes raised to its nodes."""

from __future__ import annotations

import pytest

from sits_catalog.crop_tree import LEVELS, crop_tree, hcat_level, raise_classes
from sits_catalog.cube import IGNORE
from sits_catalog.loading import load_crop_tree, load_taxonomy
from sits_catalog.taxonomy import Taxonomy, parse_taxonomy

HCAT = load_taxonomy("hcat3")
TREE = load_crop_tree()


def parse(text: str) -> Taxonomy:
    return parse_taxonomy(text, id="mine", name="mine.csv")


def named(taxonomy: Taxonomy, *codes: str) -> list[str]:
    """Code of the class of each source code."""
    classes = {crop.index: crop.code for crop in taxonomy.classes}
    return [classes[taxonomy.codes[code]] for code in codes]


def test_a_level_is_a_pair_of_digits_and_the_first_pair_is_two_levels() -> None:
    codes = ["3000000000", "3300000000", "3301000000", "3301010000", "3301010100", "3301010101"]
    assert [hcat_level(code) for code in codes] == list(LEVELS)
    # A pair 00 inside of a code is no end of it.
    assert hcat_level("3301000001") == 6
    with pytest.raises(ValueError, match="ten digits, got '33'"):
        hcat_level("33")


def test_every_node_of_hcat_3_but_the_top_has_its_parent_one_level_above() -> None:
    assert len(TREE.nodes) == len(HCAT.classes) == 384
    assert [node.crop.code for node in TREE.nodes.values() if node.parent is None] == ["characteristics"]
    assert all(TREE.nodes[node.parent].level == node.level - 1 for node in TREE.nodes.values() if node.parent)
    assert [sum(node.level == level for node in TREE.nodes.values()) for level in LEVELS] == [1, 1, 9, 60, 193, 120]


def test_the_path_of_a_class_goes_up_to_the_top() -> None:
    path = [node.crop.code for node in TREE.path("3301010201")]
    assert path == [
        "winter_durum_hard_wheat",
        "durum_hard_wheat",
        "cereal",
        "arable_crops",
        "crop_type",
        "characteristics",
    ]
    assert {node.crop.code for node in TREE.children("3301010400")} == {
        "winter_barley",
        "spring_barley",
        "unspecified_season_barley",
    }


def test_a_code_that_hcat_3_lacks_is_its_nearest_node_above() -> None:
    # 3301290900 stands in EuroCrops' French and Dutch tables; HCAT 3 has nothing there.
    assert TREE.path("3301290900")[0].crop.code == "root_vegetables"
    assert TREE.path("9900000000") == ()


def test_a_missing_parent_is_jumped_over() -> None:
    gap = crop_tree(parse("code,hcat\ntop,3300000000\nwheat,3301010101\n"))
    assert gap.nodes["3301010101"].parent == "3300000000"


def test_a_node_is_found_by_code_and_by_name_with_or_without_underscores() -> None:
    assert {TREE.find(text).crop.index for text in ("cereal", " Cereal", "3301010000")} == {4}
    assert TREE.find("winter barley") is TREE.find("winter_barley")
    with pytest.raises(ValueError, match="HCAT has no class 'cereals'; did you mean 'cereal'"):
        TREE.find("cereals")


def test_codes_go_to_their_ancestor_at_a_level_with_the_name_and_index_of_hcat() -> None:
    raised = raise_classes(HCAT, "level-4", TREE)
    assert named(raised, "winter_durum_hard_wheat", "3301010101", "cereal", "potatoes") == ["cereal"] * 3 + ["potatoes"]
    # What HCAT has at a coarser level alone is a class of its own: grassland has no level 4.
    assert named(raised, "pasture_meadow_grassland_grass", "arable_crops") == [
        "pasture_meadow_grassland_grass",
        "arable_crops",
    ]
    assert len(raised.classes) == 1 + 1 + 9 + 60
    assert all(crop in HCAT.classes for crop in raised.classes)
    assert raised.unknown_codes(HCAT.codes) == ()
    assert raised.notes == ()


def test_one_crop_is_one_class_whatever_taxonomy_it_was_raised_from() -> None:
    pastis, mtlcc, rpg = (load_taxonomy(name, classes_at="level-4") for name in ("pastis", "mtlcc", "rpg"))
    french = named(pastis, "2", "1", "8")
    assert french == named(rpg, "BTH", "PPH", "VRC")
    assert french == ["cereal", "pasture_meadow_grassland_grass", "vineyards_wine_vine_rebland_grapes"]
    assert pastis.codes["2"] == mtlcc.codes["22"] == rpg.codes["BTH"] == TREE.find("cereal").crop.index


def test_nodes_can_be_named_and_the_deepest_wins() -> None:
    raised = raise_classes(HCAT, "cereal, 3301010400, level-2", TREE)
    assert named(raised, "winter_barley", "winter_rye", "potatoes", "characteristics") == [
        "barley",
        "cereal",
        "crop_type",
        "characteristics",
    ]


def test_what_lies_in_no_named_node_stays_and_is_said() -> None:
    mine = parse("code,hcat,index\nwheat,3301010101,1\nspud,3301030000,2\nhedge,,7\n")
    raised = raise_classes(mine, "cereal", TREE)
    assert named(raised, "wheat", "spud", "hedge") == ["cereal", "spud", "hedge"]
    assert raised.notes == (
        "raised to cereal; classes in none of these classes of HCAT stay as they are: spud",
        "raised to cereal; classes without an HCAT code stay as they are: hedge",
    )
    # Indices 2 and 7 are others' in HCAT.
    assert [crop.index for crop in raised.classes] == [4, 385, 386]
    assert raised.codes == {"wheat": 4, "3301010101": 4, "spud": 385, "3301030000": 385, "hedge": 386}


@pytest.mark.parametrize(
    ("classes_at", "message"),
    [
        ("level-7", "one level of HCAT, level-1 to level-6; got 'level-7'"),
        ("level-3,level-4", "one level of HCAT, level-1 to level-6; got 'level-3,level-4'"),
        ("cereal,,", "HCAT has no class ''"),
        ("corn", "HCAT has no class 'corn'"),
        ("citrus plantations", "no class of taxonomy 'mine' can be raised to citrus plantations: 1 of its 2 classes"),
    ],
)
def test_a_wrong_target_is_refused_with_what_was_meant(classes_at: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        raise_classes(parse("code,hcat\nwheat,3301010101\nhedge,\n"), classes_at, TREE)


def test_a_class_that_stays_cannot_have_the_code_of_one_that_was_raised_to() -> None:
    mine = parse("code,name,hcat\nwheat,Wheat,3301010101\ncereal,Mixed,\n")
    with pytest.raises(ValueError, match="class 'cereal' stays as it is, but a class of HCAT has the same code"):
        raise_classes(mine, "cereal", TREE)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["hcat3", "pastis", "rpg", "usda-cdl"])
def test_raising_keeps_every_code_and_makes_no_more_classes(name: str, level: int) -> None:
    taxonomy = load_taxonomy(name)
    raised = raise_classes(taxonomy, f"level-{level}", TREE)
    assert raised.codes.keys() == taxonomy.codes.keys()
    assert raised.ignore == taxonomy.ignore
    assert len(raised.classes) <= len(taxonomy.classes)
    assert set(raised.codes.values()) == {crop.index for crop in raised.classes}
    assert all(crop.hcat is None or hcat_level(crop.hcat) <= level for crop in raised.classes)
    assert all(1 <= crop.index < IGNORE for crop in raised.classes)
