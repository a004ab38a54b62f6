"""Seven SAFE products of 2018 and 120 French parcels, compared with numbers that were computed without this project.

The data are a window of 353 x 232 pixels; the cube, snapped outwards to the lattice of 60 m, is larger.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.end_to_end.building import Dataset

CLEAR = (2, 4, 5, 6, 7, 11)
"""SCL codes that expected.json calls clear; the cube's own `clear` also takes 2 and 7, and leaves 11 out."""
VEGETATED_OR_BARE = (4, 5, 6, 7)
DATES = ("2018-01-28", "2018-04-18", "2018-06-27", "2018-08-06", "2018-08-26", "2018-09-20", "2018-10-05")


@pytest.fixture(scope="module")
def window(t31tej_area: Dataset, expected: dict[str, Any]) -> tuple[slice, slice]:
    """Rows and columns of the data's own 10 m window in the cubes of all three rules."""
    height, width = expected["t31tej"]["shape_rows_cols"]
    size, _, west, _, _, north = expected["t31tej"]["transform"]
    return t31tej_area.slices(west, north - size * height, west + size * width, north)


def pixels_by_code(dataset: Dataset, window: tuple[slice, slice]) -> Counter[str]:
    """Pixels that each class has won, through `parcel_id` and the table."""
    parcels = dataset.table("parcels")
    codes = dict(zip(parcels.parcel_id, parcels.source_code, strict=True))
    numbers, counts = np.unique(dataset.array("parcel_id")[window], return_counts=True)
    won: Counter[str] = Counter()
    for number, count in zip(numbers, counts, strict=True):
        if number:
            won[codes[number]] += int(count)
    return won


def pixels_by_class(dataset: Dataset, window: tuple[slice, slice]) -> Counter[str]:
    """Pixels of each class, through `crop_type` and its class table."""
    codes = {entry["index"]: entry["code"] for entry in dataset.group["crop_type"].attrs["classes"]}
    numbers, counts = np.unique(dataset.array("crop_type")[window], return_counts=True)
    return Counter({codes[n]: int(c) for n, c in zip(numbers, counts, strict=True) if n in codes})


@pytest.mark.slow
def test_center_rule_labels_the_pixels_that_rasterio_labels(t31tej_center, window, expected):
    wanted = expected["t31tej"]["centre_rule"]
    assert pixels_by_code(t31tej_center, window) == wanted["pixels_per_class"]
    assert pixels_by_class(t31tej_center, window) == wanted["pixels_per_class"]
    n_pixels = t31tej_center.table("parcels").n_pixels
    assert [n_pixels.min(), n_pixels.max()] == wanted["pixels_of_smallest_and_largest_parcel"]
    assert n_pixels.sum() == wanted["labelled_pixels"]
    assert (n_pixels > 0).sum() == wanted["parcels_with_pixels"]


@pytest.mark.slow
def test_all_touched_rule_labels_the_pixels_that_rasterio_labels(t31tej_all_touched, window, expected):
    wanted = expected["t31tej"]["all_touched_rule"]
    assert pixels_by_code(t31tej_all_touched, window) == wanted["pixels_per_class_last_parcel_wins"]
    assert pixels_by_class(t31tej_all_touched, window) == wanted["pixels_per_class_last_parcel_wins"]


@pytest.mark.slow
def test_area_rule_has_the_winners_that_exactextract_has(t31tej_area, window, expected):
    wanted = expected["t31tej"]["exact_area_min_cover_0.5"]
    assert pixels_by_code(t31tej_area, window) == wanted["by_parcel"]["pixels_per_class"]
    assert pixels_by_class(t31tej_area, window) == wanted["by_parcel"]["pixels_per_class"]
    # Three pixels are covered by less than a millionth, which is less than the vertices are known to.
    touched = np.count_nonzero(t31tej_area.array("coverage")[window])
    assert 0 <= wanted["cells_touched_by_any_parcel"] - touched <= 3
    # Nothing is known between the parcels of this file, so that no pixel is background.
    assert not (t31tej_area.array("crop_type") == 0).any()


@pytest.mark.slow
def test_every_parcel_is_in_the_table_and_four_are_too_small_to_win_a_pixel(t31tej_area, expected):
    parcels = t31tej_area.table("parcels")
    wanted = expected["t31tej"]
    assert Counter(parcels.source_code) == wanted["parcels_per_class"]
    assert (parcels.n_pixels == 0).sum() == wanted["parcels"] - 116 == 4
    assert parcels.area_ha.sum() * 1e4 == pytest.approx(wanted["parcel_area_m2"], abs=1.0)
    assert parcels.parcel_id.tolist() == list(range(1, 121))
    assert parcels.source_key.is_monotonic_increasing
    # All valid, all inside, no overlap; ten are made of several parts.
    assert Counter(tuple(flags) for flags in parcels["flags"]) == {(): 110, ("multipart",): 10}


@pytest.mark.slow
def test_no_pixel_of_a_parcel_lies_outside_of_the_data(t31tej_area, t31tej_center, t31tej_all_touched, window):
    for dataset in (t31tej_area, t31tej_center, t31tej_all_touched):
        numbers = dataset.array("parcel_id")
        assert np.count_nonzero(numbers[window]) == np.count_nonzero(numbers)


@pytest.mark.slow
def test_three_rules_share_one_grid_and_one_set_of_pixels(t31tej_area, t31tej_center, t31tej_all_touched):
    for name in ("reflectance", "scl", "quality", "source_index", "coverage", "conflict"):
        for other in (t31tej_center, t31tej_all_touched):
            np.testing.assert_array_equal(other.array(name), t31tej_area.array(name), err_msg=name)


@pytest.mark.slow
def test_scl_is_the_repeated_classification_of_the_products(t31tej_area, window, expected):
    assert [day.isoformat() for day in t31tej_area.days] == list(DATES)
    for scl, day in zip(t31tej_area.array("scl"), DATES, strict=True):
        wanted = expected["t31tej"]["dates"][day]
        # SCL repeated 2 x 2 and cut to the 10 m window; its last row of 20 m pixels reaches 10 m further south.
        # Where SCL says that there is data and all ten bands are 0, nothing is observed and the cube's SCL is 0, too:
        # a single pixel in January, which is 1.2e-5 of the window.
        surplus = Counter({int(code): -n for code, n in wanted["scl_pixels_10m"].items()})
        surplus.update(scl[window].ravel().tolist())
        moved = 1 if day == "2018-01-28" else 0
        assert surplus[0] == moved, day
        assert sum(abs(n) for n in surplus.values()) == 2 * moved, day
        share = np.isin(scl[window], CLEAR).mean()
        assert share == pytest.approx(wanted["clear_fraction_2_4_5_6_7_11"], abs=6e-6)
        share = np.isin(scl[window], VEGETATED_OR_BARE).mean()
        assert share == pytest.approx(wanted["clear_fraction_4_5_6_7"], abs=6e-6)


@pytest.mark.slow
def test_clear_share_of_the_parcels_is_the_expected_one(t31tej_area, t31tej_center, window, expected):
    inside = t31tej_center.array("parcel_id")[window] > 0
    for scl, day in zip(t31tej_area.array("scl"), DATES, strict=True):
        wanted = expected["t31tej"]["dates"][day]["clear_fraction_2_4_5_6_7_11_of_parcel_pixels"]
        assert np.isin(scl[window][inside], CLEAR).mean() == pytest.approx(wanted, abs=5e-6)


@pytest.mark.slow
def test_nodata_is_where_scl_is_0_or_all_bands_are(t31tej_area, window, expected):
    reflectance, scl = t31tej_area.array("reflectance"), t31tej_area.array("scl")
    observed = t31tej_area.array("quality") & 1 > 0
    np.testing.assert_array_equal(observed, (reflectance > 0).all(axis=1))
    np.testing.assert_array_equal(observed, (reflectance > 0).any(axis=1))
    np.testing.assert_array_equal(observed, scl > 0)
    for index, day in enumerate(DATES):
        wanted = expected["t31tej"]["dates"][day]
        nodata = ~observed[index][window]
        moved = 1 if day == "2018-01-28" else 0  # as in the test above
        assert nodata.sum() == wanted["scl_pixels_10m"]["0"] + moved
        # The share of pixels that are 0 in all four 10 m bands is smaller: SCL calls a margin nodata, of which lossy
        # compression has left more than a half with small numbers.
        assert nodata.mean() > wanted["nodata_fraction_10m_all_four_bands_zero"]


@pytest.mark.slow
def test_nothing_is_observed_outside_of_the_files(t31tej_area, window):
    beyond = np.ones(t31tej_area.array("crop_type").shape, bool)
    # The last row of SCL and of the 20 m bands reaches 10 m further south than the 10 m bands.
    beyond[window[0].start : window[0].stop + 1, window[1]] = False
    assert beyond.any()
    for name in ("reflectance", "scl", "quality"):
        assert not t31tej_area.array(name)[..., beyond].any()
    assert (t31tej_area.array("source_index")[:, beyond] == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ndvi_parcel_pixels_clear", "ndvi_parcel_pixels_all"])
def test_ndvi_medians_per_class_and_date(t31tej_area, t31tej_center, window, expected, name):
    red, nir = (t31tej_area.array("reflectance")[:, t31tej_area.bands.index(band)] for band in ("B04", "B08"))
    parcels = t31tej_center.table("parcels")
    codes = dict(zip(parcels.parcel_id, parcels.source_code, strict=True))
    winners = t31tej_center.array("parcel_id")[window]
    members = {code: [n for n, c in codes.items() if c == code] for code in set(codes.values())}
    for index, day in enumerate(DATES):
        b04, b08 = red[index][window].astype(np.float64), nir[index][window].astype(np.float64)
        usable = b04 + b08 > 0
        if name == "ndvi_parcel_pixels_clear":
            usable &= np.isin(t31tej_area.array("scl")[index][window], CLEAR)
        for code, wanted in expected["t31tej"]["dates"][day][name].items():
            chosen = usable & np.isin(winners, members[code])
            ndvi = (b08[chosen] - b04[chosen]) / (b08[chosen] + b04[chosen])
            # Two things may move a median: the cube hides pixels of SCL 0 (58 of the parcels' in January, none that
            # counts as clear), and stores an observed DN of 0 as 1. The medians are rounded to four digits.
            assert wanted["n"] - 58 <= chosen.sum() <= wanted["n"], (day, code)
            if name == "ndvi_parcel_pixels_clear" or day != "2018-01-28":
                assert chosen.sum() == wanted["n"], (day, code)
            hidden = wanted["n"] - chosen.sum()
            tolerance = 1e-4 if not hidden else 2e-3
            assert np.median(ndvi) == pytest.approx(wanted["median"], abs=tolerance), (day, code)


@pytest.mark.slow
def test_medians_of_the_stored_integers_are_those_of_the_files(t31tej_area, window, expected):
    reflectance = t31tej_area.array("reflectance")[:, :, window[0], window[1]]
    for index, day in enumerate(DATES):
        for band, values in zip(t31tej_area.bands, reflectance[index], strict=True):
            wanted = expected["t31tej"]["dates"][day]["band_median_dn_nonzero"][band]
            # Theirs are medians of the native pixels above 0, margin included; ours leave the margin out. An offset
            # of 1000, or a shift of a band by a pixel, would be far off.
            assert np.median(values[values > 0]) == pytest.approx(wanted, rel=0.02), (day, band)


@pytest.mark.slow
def test_lineage_names_the_products_and_their_radiometry(t31tej_area, expected):
    sources = t31tej_area.table("sources").sort_values("date_index")
    assert sources.id.tolist() == [
        expected["t31tej"]["dates"][day]["safe"].removesuffix(".SAFE") for day in sorted(DATES)
    ]
    assert sources.date_index.tolist() == list(range(7))
    assert set(sources.source_index) == {0}
    assert set(sources.status) == {"used"}
    assert set(sources.boa_offset_applied) == {0}
    assert sources.processing_baseline.tolist() == ["02.06", "02.07", *["02.08"] * 5]
    assert set(np.unique(t31tej_area.array("source_index"))) == {0, 255}


@pytest.mark.slow
def test_real_datasets_verify(t31tej_area, t31tej_center, t31tej_all_touched):
    for dataset in (t31tej_area, t31tej_center, t31tej_all_touched):
        assert dataset.complete
        assert dataset.findings() == []
        assert dataset.group.attrs["sits_cube"]["complete"] is True


@pytest.mark.slow
def test_command_verifies_a_real_dataset(t31tej_area):
    command = [sys.executable, "-c", "from sits_pipeline.cli import cube_main; cube_main()", "verify"]
    done = subprocess.run([*command, str(t31tej_area.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
