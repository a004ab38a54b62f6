"""How classes of two taxonomies meet, and the commands that show it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sits_catalog.cli import app
from sits_catalog.loading import load_crop_tree, load_taxonomy
from sits_catalog.meetings import count_meetings, meet
from sits_catalog.taxonomy import Taxonomy, parse_taxonomy

TREE = load_crop_tree()


def parse(text: str) -> Taxonomy:
    return parse_taxonomy(text, id="mine", name="mine.csv")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["taxonomies", *words])
    return result.exit_code, result.stdout, result.stderr


def test_classes_are_the_same_or_one_lies_in_the_other_or_they_are_apart() -> None:
    a = parse("code,hcat\ncereal,3301010000\nrye,3301010300\nvines,3303060000\nhedge,\n")
    b = parse("code,hcat\nspring_rye,3301010302\nrye,3301010300\nspuds,3301030000\nhedge,\n")
    meetings = meet(a, b, TREE)
    assert [(x.a and x.a.code, x.relation, x.b and x.b.code) for x in meetings] == [
        ("cereal", "wider", "spring_rye"),
        ("cereal", "wider", "rye"),
        ("rye", "same", "rye"),
        ("rye", "wider", "spring_rye"),
        ("vines", "none", None),
        ("hedge", "none", None),
        (None, "none", "spuds"),
        (None, "none", "hedge"),
    ]
    assert count_meetings(meetings) == {"same": 1, "narrower": 0, "wider": 3, "a without b": 2, "b without a": 2}


def test_codes_that_hcat_lacks_are_apart_unless_they_are_equal() -> None:
    a = parse("code,hcat\nx,3301290900\nroots,3301290000\n")
    b = parse("code,hcat\ny,3301290901\nz,3301290900\n")
    meetings = meet(a, b, TREE)
    assert [(x.a and x.a.code, x.relation, x.b and x.b.code) for x in meetings] == [
        ("x", "same", "z"),
        ("roots", "wider", "y"),
        ("roots", "wider", "z"),
    ]
    back = count_meetings(meet(b, a, TREE))
    assert (back["same"], back["narrower"], back["wider"]) == (1, 2, 0)


def test_the_other_way_round_narrower_and_wider_change_places() -> None:
    pastis, hcat = load_taxonomy("pastis"), load_taxonomy("hcat3")
    there, back = count_meetings(meet(pastis, hcat, TREE)), count_meetings(meet(hcat, pastis, TREE))
    assert (there["same"], there["narrower"], there["wider"]) == (back["same"], back["wider"], back["narrower"])
    assert (there["a without b"], there["b without a"]) == (back["b without a"], back["a without b"])
    assert there["same"] == 17
    assert there["a without b"] == 1


def test_pastis_and_mtlcc_meet_in_ten_crops() -> None:
    code, table, _ = run("map", "pastis", "mtlcc")
    assert code == 0
    assert "5 winter_rapeseed             narrower  4 rape" in table
    assert table.splitlines()[-1] == "same: 9, narrower: 1, wider: 0, a without b: 8, b without a: 7"
    _, text, _ = run("map", "pastis", "mtlcc", "--json")
    found = json.loads(text)
    assert (found["a"], found["b"], found["totals"]["same"]) == ("pastis", "mtlcc", 9)
    assert found["pairs"][0] == {
        "a": {"index": 1, "code": "meadow", "name": "Meadow", "hcat": "3302000000"},
        "relation": "same",
        "b": {"index": 3, "code": "meadow", "name": "meadow", "hcat": "3302000000"},
    }


def test_a_file_can_be_mapped_and_both_be_raised(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("original_code,original_name,HCAT3_code\n1,Roggen,3301010301\n2,Wein,3303060000\n")
    _, table, _ = run("map", str(mine), "demo-crops", "--classes-at", "level-4")
    assert [line.split() for line in table.splitlines()[1:3]] == [
        ["4", "cereal", "same", "4", "cereal"],
        ["345", "vineyards_wine_vine_rebland_grapes", "same", "345", "vineyards_wine_vine_rebland_grapes"],
    ]
    code, _, err = run("map", str(mine), "demo-corps")
    assert code == 2
    assert "no taxonomy named 'demo-corps'" in err


def test_a_shown_taxonomy_can_be_raised_and_says_what_stays() -> None:
    code, table, _ = run("show", "pastis", "--classes-at", "level-4")
    assert code == 0
    assert len(table.splitlines()) == 1 + 10 + 2
    assert table.splitlines()[-2:] == [
        "ignored: 19",
        "note: raised to level-4; classes without an HCAT code stay as they are: fruits_vegetables_flowers",
    ]
    code, out, err = run("show", "pastis", "--classes-at", "level-9")
    assert (code, out) == (2, "")
    assert err == "error: classes are raised to one level of HCAT, level-1 to level-6; got 'level-9'\n"


def test_a_tree_shows_where_classes_hang() -> None:
    code, text, _ = run("show", "mtlcc", "--tree")
    assert code == 0
    lines = text.splitlines()
    assert lines[:4] == [
        "3000000000 characteristics",
        "  3300000000 crop type",
        "    3301000000 arable crops",
        "      3301010000 cereal",
    ]
    assert "          3301010101 winter common soft wheat: 13 winter_wheat" in lines
    _, text, _ = run("show", "hcat3", "--tree")
    assert len(text.splitlines()) == 384
    _, text, _ = run("show", "pastis", "--tree", "--json")
    tree = json.loads(text)
    assert tree["without"] == ["fruits_vegetables_flowers"]
    assert {
        "hcat": "3301030000",
        "name": "potatoes",
        "level": 4,
        "parent": "3301000000",
        "classes": ["potatoes"],
    } in tree["nodes"]
