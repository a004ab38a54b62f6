"""Classes with too few pixels, folded into `other`."""

from __future__ import annotations

import json

import pytest

from sits_catalog.cube import IGNORE
from sits_catalog.folding import fold_classes
from sits_catalog.taxonomy import CropClass, Taxonomy, parse_taxonomy

CROPS = parse_taxonomy(
    "index,code,class,name,hcat\n1,wheat,,Wheat,3301010101\n,WHT,wheat,,\n2,rye,,,3301010301\n5,hemp,,,\n9,flax,,,\n",
    id="mine",
    name="mine.csv",
)


def pixels(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


# As CSCL: 20 000 to train with, 2 000 to evaluate.
RULE = {"train": 20_000, "test": 2_000}
PIXELS = {1: pixels(90_000, 100, 30_000), 2: pixels(20_000, 0, 2_000), 5: pixels(19_999, 9_000, 9_000)}


def test_a_class_with_fewer_pixels_than_asked_for_becomes_other_at_the_next_index() -> None:
    folding = fold_classes(CROPS, PIXELS, RULE)
    assert folding is not None
    assert [crop.code for crop in folding.taxonomy.classes] == ["wheat", "rye", "flax", "other"]
    assert (folding.into.index, folding.into.hcat) == (10, None)
    assert folding.taxonomy.codes == {
        "wheat": 1,
        "WHT": 1,
        "3301010101": 1,
        "rye": 2,
        "3301010301": 2,
        "hemp": 10,
        "flax": 9,
    }
    assert [folding.index_of(index) for index in (0, 1, 2, 5, 9, IGNORE)] == [0, 1, 2, 10, 9, IGNORE]


def test_the_record_says_which_class_why_and_by_which_rule() -> None:
    folding = fold_classes(CROPS, {**PIXELS, 9: pixels(0, 0, 7)}, RULE)
    assert folding is not None
    record = folding.record()
    assert json.loads(json.dumps(record)) == record
    assert record["min_pixels"] == RULE
    assert record["into"] == {"index": 10, "code": "other"}
    assert record["classes"] == [
        {"index": 5, "code": "hemp", "name": "hemp", "hcat": None, "pixels": PIXELS[5], "lacking": ["train"]},
        {
            "index": 9,
            "code": "flax",
            "name": "flax",
            "hcat": None,
            "pixels": pixels(0, 0, 7),
            "lacking": ["train", "test"],
        },
    ]


def test_nothing_is_folded_where_all_have_enough_or_nothing_is_asked_for() -> None:
    assert fold_classes(CROPS, PIXELS, {}) is None
    assert fold_classes(CROPS, PIXELS, {"train": 19_999}) is None


def test_a_class_that_does_not_occur_stays_as_it_is() -> None:
    folding = fold_classes(CROPS, {**PIXELS, 9: pixels(0, 0, 0)}, RULE)
    assert folding is not None
    assert [folded.crop.code for folded in folding.classes] == ["hemp"]


def test_a_class_other_that_is_there_takes_them_in() -> None:
    own = parse_taxonomy("code,index,hcat\nwheat,1,\nother,2,3399000000\nhemp,3,\n", id="mine", name="mine.csv")
    folding = fold_classes(own, {1: pixels(9, 9, 9), 2: pixels(1, 0, 0), 3: pixels(1, 0, 0)}, {"train": 5})
    assert folding is not None
    assert folding.into is own.classes[1]
    assert [crop.code for crop in folding.taxonomy.classes] == ["wheat", "other"]
    assert folding.taxonomy.codes == {"wheat": 1, "other": 2, "3399000000": 2, "hemp": 2}


def test_a_rule_that_no_class_meets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the 3 classes has the min_pixels asked for \(90001 in train\)"):
        fold_classes(CROPS, PIXELS, {"train": 90_001})


def test_other_takes_the_first_gap_where_the_last_index_is_taken() -> None:
    last = Taxonomy(id="t", classes=tuple(CropClass(index=i, code=str(i), name="x") for i in (1, 3, IGNORE - 1)))
    folding = fold_classes(last, {1: pixels(9, 0, 0), 3: pixels(1, 0, 0)}, {"train": 5})
    assert folding is not None
    assert folding.into.index == 2
