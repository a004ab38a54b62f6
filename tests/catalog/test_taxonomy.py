"""Taxonomies: source code to class, unknown codes, and the CSV they are read from."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.cube import IGNORE
from sits_catalog.loading import list_taxonomies, load_taxonomy
from sits_catalog.taxonomy import CropClass, Taxonomy, distinct_colour, parse_taxonomy


def parse(text: str) -> Taxonomy:
    return parse_taxonomy(text, id="mine", name="mine.csv")


def test_several_source_codes_make_one_class() -> None:
    taxonomy = parse("code,class,name\nBTH,wheat,Wheat\nBDH,wheat,\nMIS,maize,Maize\nORH,,\n")
    assert [(crop.index, crop.code, crop.name) for crop in taxonomy.classes] == [
        (1, "wheat", "Wheat"),
        (2, "maize", "Maize"),
        (3, "ORH", "ORH"),
    ]
    assert taxonomy.codes == {"BTH": 1, "BDH": 1, "MIS": 2, "ORH": 3}


def test_unknown_missing_and_ignored_codes_are_ignored_never_background() -> None:
    taxonomy = parse("code,ignore\nwheat,\nother,yes\n")
    assert [taxonomy.classify(code) for code in ("wheat", "other", "tulip", None, "")] == [1] + [IGNORE] * 4


def test_unknown_codes_are_listed_once_and_sorted() -> None:
    taxonomy = parse("code,ignore\nwheat,\nother,yes\n")
    assert taxonomy.unknown_codes(["tulip", "wheat", None, "other", "apple", "tulip"]) == ("apple", "tulip")


def test_an_hcat_code_is_a_source_code_where_one_class_alone_has_it() -> None:
    alone = parse("code,hcat\nwheat,3301010101\n")
    assert alone.codes == {"wheat": 1, "3301010101": 1}
    shared = parse("code,hcat\nwheat,3301010101\ndurum,3301010101\n")
    assert shared.codes == {"wheat": 1, "durum": 2}
    ignored = parse("code,hcat,ignore\nwheat,3301010101,\n3301010101,,yes\n")
    assert ignored.classify("3301010101") == IGNORE


def test_title_attribution_semicolons_and_a_byte_order_mark_are_read() -> None:
    taxonomy = parse("\ufeff# title: Two crops\n# attribution: me\n# a remark\ncode;name\nw;Wheat, soft\n")
    assert (taxonomy.title, taxonomy.attribution) == ("Two crops", "me")
    assert taxonomy.classes[0].name == "Wheat, soft"


def test_given_indexes_stay_and_missing_colours_follow_them() -> None:
    taxonomy = parse("index,code,colour\n7,a,#AABBCC\n3,b,\n")
    assert [(crop.index, crop.colour) for crop in taxonomy.classes] == [(7, "#aabbcc"), (3, distinct_colour(3))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv: the file is empty; the first line should name the columns code, class"),
        ("code\n", "mine.csv: no row makes a class"),
        ("code,ignore\nx,yes\n", "mine.csv: no row makes a class"),
        ("crop,name\na,b\n", "mine.csv:1: unknown column 'crop'; a taxonomy has the columns code, class"),
        ("name,hcat\na,\n", "mine.csv:1: the column 'code' is missing"),
        ("code\na\nb\na\n", r"mine.csv:4: the code 'a' stands twice \(first: mine.csv:2\)"),
        ("# title: x\ncode,colour\na,red\n", "mine.csv:3: the colour of class 'a' should look like #1a2b3c, got 'red'"),
        ("code,index\na,0\n", "mine.csv:2: the index of class 'a' must lie in 1..65534, got 0"),
        ("code,index\na,65535\n", "mine.csv:2: the index of class 'a' must lie in 1..65534, got 65535"),
        ("code,index\na,one\n", "mine.csv:2: the index of class 'a' should be a whole number, got 'one'"),
        ("code,index\na,1\nb,\n", "mine.csv: class 'b' has no index, but others have"),
        ("code,index\na,1\nb,1\n", "classes 'a' and 'b' share the index 1"),
        ("code,hcat\na,33\n", "mine.csv:2: the HCAT code of class 'a' should have ten digits, got '33'"),
        ("code,class,name\na,k,K\nb,k,L\n", "mine.csv:3: name of class 'k' is 'L', but 'K' at mine.csv:2"),
        ("code,ignore\na,maybe\n", "mine.csv:2: ignore should be yes or no, got 'maybe'"),
        ("code,class,ignore\na,k,yes\n", "mine.csv:2: the code 'a' is ignored, so it cannot belong to class 'k'"),
        ("code,name\na,b,c\n", "mine.csv:2: 3 cells, but the header names 2 columns"),
        ("code,name\n,b\n", "mine.csv:2: the code is empty"),
        ('code,name\na,"b\n', "mine.csv:2: this is not CSV"),
    ],
)
def test_a_bad_taxonomy_is_refused_with_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_without_a_taxonomy_each_distinct_code_is_a_class() -> None:
    taxonomy = Taxonomy.from_codes(["b", None, "a", "b"])
    assert taxonomy.codes == {"a": 1, "b": 2}
    assert [crop.code for crop in taxonomy.classes] == ["a", "b"]


def test_a_column_of_keys_is_not_a_column_of_codes() -> None:
    with pytest.raises(ValueError, match="65535 distinct crop codes are more than the 65534 classes"):
        Taxonomy.from_codes(str(number) for number in range(65535))


@given(st.lists(st.one_of(st.none(), st.text())))
def test_from_codes_knows_every_code_and_does_not_depend_on_order(codes: list[str | None]) -> None:
    taxonomy = Taxonomy.from_codes(codes)
    assert taxonomy.unknown_codes(codes) == ()
    assert taxonomy == Taxonomy.from_codes(reversed(codes))
    assert sorted(taxonomy.codes.values()) == list(range(1, len(taxonomy.classes) + 1))


def test_colours_stay_distinct_for_hundreds_of_classes() -> None:
    colours = [distinct_colour(index) for index in range(1, 1001)]
    assert len(set(colours)) == 1000
    assert colours[0] == distinct_colour(1)


def test_classes_that_cannot_be_are_refused_in_code_as_well() -> None:
    with pytest.raises(ValueError, match=r"must lie in 1\.\.65534"):
        CropClass(index=IGNORE, code="a", name="a")
    with pytest.raises(ValueError, match="two classes of one code"):
        Taxonomy(id="t", classes=(CropClass(index=1, code="a", name="a"), CropClass(index=2, code="a", name="a")))


def test_the_demo_has_twelve_crops_with_hcat_codes_that_exist() -> None:
    demo, hcat = load_taxonomy("demo-crops"), load_taxonomy("hcat3")
    assert len(demo.classes) == 12
    assert len({crop.colour for crop in demo.classes}) == 12
    known = {crop.hcat for crop in hcat.classes}
    assert all(crop.hcat in known for crop in demo.classes)
    assert demo.classify("other") == IGNORE
    assert "other" in demo.ignore


def test_hcat_finds_a_class_by_name_and_by_ten_digits() -> None:
    hcat = load_taxonomy("hcat3")
    assert hcat.classify("winter_durum_hard_wheat") == hcat.classify("3301010201") != IGNORE
    assert hcat.classify("aspargus") == hcat.classify("3301200000")
    assert len(hcat.codes) == 2 * len(hcat.classes) + 2
    assert len({crop.colour for crop in hcat.classes}) == len(hcat.classes)


def test_hcat_is_the_published_list_in_its_order() -> None:
    data = os.environ.get("SITS_DATA")
    if data is None:
        pytest.skip("SITS_DATA names no folder with the published HCAT3.csv")
    with (Path(data) / "taxonomies/eurocrops/HCAT3.csv").open(encoding="utf-8-sig", newline="") as file:
        published = [(row["HCAT3_name"], row["HCAT3_code"]) for row in csv.DictReader(file)]
    hcat = load_taxonomy("hcat3")
    assert [(crop.code, crop.hcat) for crop in hcat.classes] == published
    assert [crop.index for crop in hcat.classes] == list(range(1, len(published) + 1))
    assert all(crop.colour == distinct_colour(crop.index) for crop in hcat.classes)


def test_every_shipped_taxonomy_loads_and_has_a_title_and_an_attribution() -> None:
    shipped = {"demo-crops", "hcat3", "mtlcc", "pastis", "rpg", "rpg-groups", "t31tfm-1618", "usda-cdl"}
    assert set(list_taxonomies()) == shipped
    for name in list_taxonomies():
        taxonomy = load_taxonomy(name)
        assert taxonomy.id == name
        assert taxonomy.title
        assert taxonomy.attribution


def test_a_taxonomy_file_is_found_from_the_folder_of_the_region(tmp_path: Path) -> None:
    (tmp_path / "my-crops.csv").write_text("code\nwheat\n")
    taxonomy = load_taxonomy("my-crops.csv", tmp_path)
    assert (taxonomy.id, taxonomy.codes) == ("my-crops", {"wheat": 1})


def test_a_taxonomy_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no taxonomy named 'hcat4'; the catalog has: demo-crops, hcat3, mtlcc, .*; did"
    ):
        load_taxonomy("hcat4")
    with pytest.raises(FileNotFoundError, match=r"no taxonomy file .*absent\.csv"):
        load_taxonomy("absent.csv", tmp_path)
    (tmp_path / "latin.csv").write_bytes("code\nmaïs\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load_taxonomy("latin.csv", tmp_path)
