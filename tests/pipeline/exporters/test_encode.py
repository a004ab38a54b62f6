from __future__ import annotations

import pickle
import pickletools
from typing import Any

import numpy as np
import pytest

from sits_catalog.cube import IGNORE
from sits_pipeline.exporters.encode import ClassNumbers, int16_of, plain_pickle, stack_of
from sits_pipeline.exporters.formats import MTLCC_CODES, T31TFM_CODES
from sits_pipeline.exporters.views import ViewFacts
from sits_pipeline.exporters.whole import Tally


def facts(*codes: str, **changes: Any) -> ViewFacts:
    rows = tuple({"index": 10 * number, "code": code, "name": code} for number, code in enumerate(codes, 1))
    known: dict[str, Any] = {
        "name": "made", "bands": (), "side": (1, 1), "labels": ("crop_type",), "classes": rows, "has_splits": False,
        "has_folds": False,
        "imported": None, "whole": True, "attributes": {},
    }  # fmt: skip
    return ViewFacts(**{**known, **changes})


def test_pickles_name_no_module_that_older_numpy_lacks() -> None:
    sample = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "b": np.zeros((0, 2)),
        # Bytes that look like the name of the module stay as they are.
        "c": np.frombuffer(b"cnumpy._core.multiarray\n_reconstruct\n" * 3, np.uint8),
        "year": 2018,
        "scalar": np.float32(0.5),
    }
    data = plain_pickle(sample)
    named = [str(argument) for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"]
    assert "numpy.core.multiarray _reconstruct" in named
    assert not any("_core" in name for name in named)
    found = pickle.loads(data)
    assert list(found) == list(sample)
    for name, value in sample.items():
        np.testing.assert_array_equal(found[name], value)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype


def test_coarser_pixels_are_rounded_means_of_what_was_observed() -> None:
    image = np.array([[[1, 2, 0, 0], [4, 4, 0, 9]]], np.uint16)
    observed = image > 0
    np.testing.assert_array_equal(stack_of(image, observed, 2), [[[3, 9]]])  # 11 / 4 = 2.75
    np.testing.assert_array_equal(stack_of(image, observed & False, 2), [[[0, 0]]])
    np.testing.assert_array_equal(stack_of(image, observed, 1), image)


def test_a_value_that_was_repeated_comes_back_as_it_was() -> None:
    coarse = np.random.default_rng(0).integers(1, 65536, (3, 4, 4)).astype(np.uint16)
    fine = np.repeat(np.repeat(coarse, 6, axis=1), 6, axis=2)
    np.testing.assert_array_equal(stack_of(fine, np.ones_like(fine, np.bool_), 6), coarse)


def test_values_that_int16_cannot_hold_are_counted() -> None:
    tally = Tally()
    found = int16_of(np.array([0, 32767, 32768, 65535], np.uint16), tally)
    assert found.tolist() == [0, 32767, 32767, 32767]
    assert tally.clipped == 2


def test_classes_are_numbered_from_1_and_void_comes_last() -> None:
    numbers = ClassNumbers.consecutive(facts("wheat", "maize"))
    crop_type = np.array([[0, 10, 20, IGNORE]], np.uint16)
    assert numbers.encode(crop_type).tolist() == [[0, 1, 2, 3]]
    assert numbers.encode(crop_type).dtype == np.uint8
    assert numbers.document()["void"] == 3
    with pytest.raises(ValueError, match="crop_type holds 7, which its class table does not have"):
        numbers.encode(np.array([[7]], np.uint16))
    assert ClassNumbers.consecutive(facts(*map(str, range(254)))).void == 255
    with pytest.raises(ValueError, match="has 255 classes; the layout's label arrays are bytes"):
        ClassNumbers.consecutive(facts(*map(str, range(255))))


def test_classes_get_numbers_that_the_published_loader_knows() -> None:
    own = ClassNumbers.of_codes(facts("26", "1"), MTLCC_CODES, "mtlcc")
    assert own.numbers == {10: 26, 20: 1}
    others = ClassNumbers.of_codes(facts("wheat", "4", "maize", "oat"), MTLCC_CODES, "mtlcc")
    assert others.numbers == {10: 1, 20: 2, 30: 3, 40: 5}
    assert others.encode(np.array([[0, IGNORE, 40]], np.uint16)).tolist() == [[0, 0, 5]]
    with pytest.raises(ValueError, match="has 18 classes; the published loader of mtlcc knows 17"):
        ClassNumbers.of_codes(facts(*(f"c{n}" for n in range(18))), MTLCC_CODES, "mtlcc")


def test_the_shipped_taxonomies_have_the_classes_of_the_published_loaders_in_their_order() -> None:
    from sits_catalog.loading import load_taxonomy

    for name, codes in (("mtlcc", MTLCC_CODES), ("t31tfm-1618", T31TFM_CODES)):
        taxonomy = load_taxonomy(name)
        assert [taxonomy.classify(str(code)) for code in codes] == list(range(1, len(codes) + 1))
        assert len(taxonomy.classes) == len(codes)
