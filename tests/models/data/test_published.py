from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sits_models.data.published import (
    FRANCE_BANDS,
    FRANCE_CLASSES,
    MTLCC_CLASSES,
    PASTIS_CLASSES,
    france_chip,
    mtlcc_chip,
    pastis24_chip,
)
from sits_models.sample import IGNORE_INDEX

SIDES = {"B02": 48, "B03": 48, "B04": 48, "B08": 48, "B01": 8, "B09": 8, "B10": 8}


def france(dates: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    g = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        band: g.integers(0, 9000, (dates, SIDES.get(band, 24), SIDES.get(band, 24))).astype(np.uint16)
        for band in FRANCE_BANDS
    }
    arrays["doy"] = np.sort(g.choice(np.arange(1, 366), dates, replace=False))
    for suffix, side in {"": 48, "_x2": 96, "_x4": 192}.items():
        arrays[f"labels{suffix}"] = g.integers(0, 168, (side, side)).astype(np.float32)
        arrays[f"ids{suffix}"] = g.integers(0, 500, (side, side)).astype(np.float32)
        arrays[f"full_ass{suffix}"] = (g.random((side, side)) < 0.1).astype(np.float32)
        arrays[f"part_ass{suffix}"] = (g.random((side, side)) < 0.1).astype(np.float32)
    return arrays


def mtlcc(dates: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    g = np.random.default_rng(seed)
    shapes = {"x10": (24, 24, 4), "x20": (12, 12, 6), "x60": (4, 4, 3)}
    arrays: dict[str, NDArray[Any]] = {
        name: g.integers(0, 9000, (dates, *shape)).astype(np.int16) for name, shape in shapes.items()
    }
    arrays["day"] = np.sort(g.choice(np.arange(1, 366), dates, replace=False)).astype(np.int16)
    arrays["year"] = np.full(dates, 2017, np.int16)
    arrays["labels"] = np.broadcast_to(g.integers(0, 27, (24, 24)).astype(np.int8), (dates, 24, 24))
    return arrays


def pastis(dates: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    g = np.random.default_rng(seed)
    return {
        "img": g.integers(0, 9000, (dates, 10, 24, 24)).astype(np.int16),
        "doy": np.sort(g.integers(1, 366, dates)),
        "labels": g.integers(0, 20, (3, 24, 24)).astype(np.uint8),
    }


def bilinear(image: NDArray[Any], size: int) -> NDArray[np.float64]:
    """An independent resize: pixel centres are mapped on pixel centres, beyond the outermost the value stays."""
    places = (np.arange(size) + 0.5) * image.shape[-1] / size - 0.5
    where = np.stack(np.meshgrid(places, places, indexing="ij"))
    return np.asarray(map_coordinates(image.astype(np.float64), where, order=1, mode="nearest"))


def test_a_long_series_of_france_keeps_its_first_dates() -> None:
    arrays = france(20)
    chip = france_chip(arrays)
    assert chip.inputs.shape == (16, 14, 48, 48)
    assert chip.inputs.dtype == np.float32
    assert chip.dates == 16
    np.testing.assert_allclose(chip.inputs[:, 13, 5, 7], arrays["doy"][:16] / 365.0001, rtol=1e-6)


def test_a_short_series_of_france_is_padded_with_zeros() -> None:
    chip = france_chip(france(4))
    assert chip.dates == 4
    assert not chip.inputs[4:].any()
    assert chip.inputs[3, 13].min() > 0


@pytest.mark.parametrize("band", ["B04", "B8A", "B09"])
def test_bands_stand_in_their_order_at_the_finest_resolution(band: str) -> None:
    arrays = france(2)
    found = france_chip(arrays).inputs[1, FRANCE_BANDS.index(band)]
    np.testing.assert_allclose(found, bilinear(arrays[band][1], 48) * 1e-4, atol=1e-6)


def test_codes_of_france_become_20_classes_and_unknown() -> None:
    arrays = france(1)
    for name in ("full_ass", "part_ass"):
        arrays[name] = np.zeros((48, 48), np.float32)
    expected = {1: 0, 2: 1, 3: 2, 6: 3, 14: 11, 20: 12, 25: 13, 33: 14, 36: 17, 48: 18, 73: 19}
    arrays["labels"] = np.arange(48 * 48).reshape(48, 48).astype(np.float32) % 168
    chip = france_chip(arrays)
    assert {code: int(chip.labels.flat[code]) for code in expected} == expected
    assert all(chip.labels.flat[code] == FRANCE_CLASSES for code in (0, 4, 5, 15, 32, 37, 167))
    assert np.bincount(chip.labels.flat[:168])[:20].tolist() == [1] * 20
    np.testing.assert_array_equal(chip.known, chip.labels < 20)
    np.testing.assert_array_equal(chip.crop, np.where(chip.labels == 20, IGNORE_INDEX, chip.labels))


def test_pixels_that_parcels_share_are_unknown_by_either_name() -> None:
    arrays = france(1)
    old = france_chip(arrays)
    assert not old.known[(arrays["full_ass"] + arrays["part_ass"]) > 0].any()
    new = {name: values for name, values in arrays.items() if "_ass" not in name}
    new["masks"] = np.where(arrays["full_ass"] > 0, 2, arrays["part_ass"])
    np.testing.assert_array_equal(france_chip(new).labels, old.labels)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_finer_labels_come_from_their_own_rasters(m: int) -> None:
    arrays = france(2)
    suffix = "" if m == 1 else f"_x{m}"
    chip = france_chip(arrays, magnification=m)  # type: ignore[arg-type]
    assert chip.labels.shape == (48 * m, 48 * m)
    assert chip.inputs.shape == (16, 14, 48, 48)
    assert chip.ids is not None
    np.testing.assert_array_equal(chip.ids, arrays[f"ids{suffix}"])
    assert not chip.known[arrays[f"full_ass{suffix}"] > 0].any()


def test_a_smaller_chip_is_cut_from_the_middle_of_image_and_labels() -> None:
    arrays = france(2)
    whole, part = france_chip(arrays, magnification=2), france_chip(arrays, magnification=2, size=24)
    np.testing.assert_array_equal(part.inputs, whole.inputs[..., 12:36, 12:36])
    np.testing.assert_array_equal(part.labels, whole.labels[24:72, 24:72])
    with pytest.raises(ValueError, match="48 x 48 px has no middle of 64 x 64"):
        france_chip(arrays, size=64)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"has the array 'labels_x4'; this one has .*labels_x2"):
        france_chip({name: values for name, values in france(1).items() if name != "labels_x4"}, magnification=4)


def test_mtlcc_has_both_time_channels_and_every_stack_at_10_m() -> None:
    arrays = mtlcc(11)
    chip = mtlcc_chip(arrays)
    assert chip.inputs.shape == (16, 15, 24, 24)
    assert chip.dates == 11
    assert not chip.inputs[11:].any()
    np.testing.assert_allclose(chip.inputs[:11, 13, 0, 0], arrays["day"] / 365.0001, rtol=1e-6)
    assert (chip.inputs[:11, 14] == 1).all()
    for channel, (name, band) in {0: ("x10", 0), 3: ("x10", 3), 4: ("x20", 0), 10: ("x60", 0), 12: ("x60", 2)}.items():
        expected = bilinear(arrays[name][2, :, :, band], 24) * 1e-4
        np.testing.assert_allclose(chip.inputs[2, channel], expected, atol=1e-6)


def test_codes_of_mtlcc_become_17_classes_and_unknown() -> None:
    arrays = mtlcc(1)
    arrays["labels"] = (np.arange(576).reshape(1, 24, 24) % 27).astype(np.int8)
    labels = mtlcc_chip(arrays).labels
    expected = {1: 0, 2: 1, 3: 2, 5: 3, 8: 4, 9: 5, 12: 6, 13: 7, 15: 8, 16: 9, 17: 10, 19: 11, 22: 12, 26: 16}
    assert {code: int(labels.flat[code]) for code in expected} == expected
    assert all(labels.flat[code] == MTLCC_CLASSES for code in (0, 4, 6, 21))
    one_map = dict(arrays, labels=arrays["labels"][0])
    np.testing.assert_array_equal(mtlcc_chip(one_map).labels, labels)


def test_a_series_read_backwards_is_padded_at_its_end() -> None:
    chip = mtlcc_chip(mtlcc(5))
    assert chip.backward is not None
    np.testing.assert_array_equal(chip.backward[:5], chip.inputs[:5][::-1])
    assert not chip.backward[5:].any()


def test_a_long_series_of_mtlcc_keeps_its_first_dates_in_both_directions() -> None:
    chip = mtlcc_chip(mtlcc(20))
    assert chip.backward is not None
    np.testing.assert_array_equal(chip.backward, chip.inputs[::-1])
    assert chip.dates == 16


def test_dates_can_be_picked_in_each_direction() -> None:
    arrays = mtlcc(20)
    every = mtlcc_chip(arrays, dates=20)
    assert every.backward is not None
    picked, backward = [0, 2, 19], [1, 5, 6]
    chip = mtlcc_chip(arrays, dates=4, picked=picked, picked_backward=backward)
    assert chip.backward is not None
    np.testing.assert_array_equal(chip.inputs[:3], every.inputs[picked])
    np.testing.assert_array_equal(chip.backward[:3], every.backward[backward])
    assert chip.dates == 3
    with pytest.raises(ValueError, match=r"at most 4 of the dates 0 to 19 can be picked; got \[20\]"):
        mtlcc_chip(arrays, dates=4, picked=[20])


def test_pastis24_is_normalised_before_it_is_padded() -> None:
    arrays = pastis(43)
    chip = pastis24_chip(arrays)
    assert chip.inputs.shape == (60, 11, 24, 24)
    assert chip.dates == 43
    assert not chip.inputs[43:].any()
    np.testing.assert_allclose(chip.inputs[:43, 10, 0, 0], arrays["doy"] / 365.0001, rtol=1e-6)
    expected = (arrays["img"][7, 0].astype(np.float64) - 1165.94) / 1942.62
    np.testing.assert_allclose(chip.inputs[7, 0], expected, atol=1e-4)


def test_labels_of_pastis24_may_be_one_map_or_several() -> None:
    arrays = pastis(3)
    chip = pastis24_chip(arrays)
    np.testing.assert_array_equal(chip.labels, arrays["labels"][0])
    np.testing.assert_array_equal(pastis24_chip(dict(arrays, labels=arrays["labels"][0])).labels, chip.labels)
    np.testing.assert_array_equal(chip.known, chip.labels != PASTIS_CLASSES)
    assert chip.known[chip.labels == 0].all()  # background counts


def test_a_long_series_of_pastis24_keeps_its_first_dates() -> None:
    arrays = pastis(20)
    np.testing.assert_array_equal(pastis24_chip(arrays, dates=8).inputs, pastis24_chip(arrays).inputs[:8])
