from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from defusedxml.ElementTree import parse

from sits_catalog.sentinel2 import (
    BANDS,
    BOA_OFFSET,
    DEFAULT_BANDS,
    ProductId,
    Scl,
    baseline_key,
    has_boa_offset,
    parse_product_id,
)

# Bands


def test_twelve_bands_in_the_order_of_esa_without_the_cirrus_band() -> None:
    assert " ".join(BANDS) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
    assert all(name == band.name for name, band in BANDS.items())


def test_ten_bands_by_default() -> None:
    assert " ".join(DEFAULT_BANDS) == "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"


def test_each_band_has_its_resolution() -> None:
    by_resolution = {m: " ".join(n for n, b in BANDS.items() if b.resolution_m == m) for m in (10, 20, 60)}
    assert by_resolution == {10: "B02 B03 B04 B08", 20: "B05 B06 B07 B8A B11 B12", 60: "B01 B09"}


def test_numbers_and_wavelengths_are_those_of_a_real_product(sits_data: Path) -> None:
    (metadata,) = sits_data.glob("t31tej/S2A_MSIL2A_20181005*/MTD_MSIL2A.xml")
    root = parse(metadata).getroot()
    assert root is not None
    numbers, wavelengths = {}, {}
    for one in root.iter("Spectral_Information"):
        number = re.fullmatch(r"B(\d+)(A?)", str(one.get("physicalBand")))
        assert number is not None
        name = f"B{number[1]}A" if number[2] else f"B{int(number[1]):02d}"
        numbers[name] = int(str(one.get("bandId")))
        wavelengths[name] = float(str(one.findtext("Wavelength/CENTRAL")))
    assert numbers == {**{name: band.boa_index for name, band in BANDS.items()}, "B10": 10}
    assert all(abs(band.centre_nm - wavelengths[name]) < 0.5 for name, band in BANDS.items())


# Classes


def test_classes_have_the_codes_of_esa() -> None:
    assert [code.value for code in Scl] == list(range(12))
    assert (Scl.CLOUD_SHADOW, Scl.VEGETATION, Scl.WATER, Scl.CLOUD_HIGH, Scl.SNOW_OR_ICE) == (3, 4, 6, 9, 11)


# Baselines


@pytest.mark.parametrize("text", ["04.00", "0400", "N0400", "N04.00", " 04.00 "])
def test_a_baseline_is_read_in_each_spelling(text: str) -> None:
    assert baseline_key(text) == (4, 0)


@pytest.mark.parametrize("text", ["", "4.0", "04.0", "04.000", "V0400", "04,00"])
def test_what_is_no_baseline_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a processing baseline looks like 05\.09 or N0509; got '"):
        baseline_key(text)


def test_baselines_are_ordered_as_numbers() -> None:
    assert sorted(["05.10", "N0209", "0301", "05.09", "04.00", "99.99"], key=baseline_key) == [
        *("N0209", "0301", "04.00", "05.09", "05.10", "99.99")
    ]


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [("00.01", False), ("02.14", False), ("03.01", False), ("04.00", True), ("05.11", True), ("N0510", True)],
)
def test_products_have_an_offset_from_baseline_4_on(baseline: str, *, expected: bool) -> None:
    assert has_boa_offset(baseline) is expected
    assert BOA_OFFSET == -1000


# Product names


@pytest.mark.parametrize("suffix", ["", ".SAFE"])
def test_a_product_name_is_taken_apart(suffix: str) -> None:
    name = "S2B_MSIL2A_20190629T212529_N0212_R043_T06VVN_20201006T080531"
    assert parse_product_id(name + suffix) == ProductId(
        platform="S2B",
        level="L2A",
        sensing=datetime(2019, 6, 29, 21, 25, 29, tzinfo=UTC),
        baseline="02.12",
        orbit=43,
        mgrs_tile="06VVN",
        discriminator=datetime(2020, 10, 6, 8, 5, 31, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "S2A_31TEJ_20180418_0_L2A",
        "S2A_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356.zip",
        "S2A_MSIL2A_20180418T104021_N0207_R008_31TEJ_20180418T125356",
        "S2X_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356",
        # I and O are letters of no tile.
        "S2A_MSIL2A_20180418T104021_N0207_R008_T31TIJ_20180418T125356",
        "S2A_MSIL2A_20180418T104021_N0207_R008_T31OEJ_20180418T125356",
        # The format before December 2016.
        "S2A_USER_PRD_MSIL2A_PDMC_20160418T125356_R008_V20160418T104021_20160418T104021",
        "../S2A_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356",
    ],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a product is named S2x_MSIL2A_<sensing>_"):
        parse_product_id(name)


def test_a_name_with_an_impossible_day_is_refused() -> None:
    with pytest.raises(ValueError, match="does not match format"):
        parse_product_id("S2A_MSIL2A_20181318T104021_N0207_R008_T31TEJ_20180418T125356")


def test_real_product_names_are_taken_apart(sits_data: Path) -> None:
    pattern = re.compile(r"S2[A-D]_MSIL(?:2A|1C)_\w{15}_N\w{4}_R\w{3}_T\w{5}_\w{15}")
    names = {path.name for path in sits_data.rglob("*.SAFE")}
    for path in sits_data.glob("stac/**/*.json"):
        names |= set(pattern.findall(path.read_text()))
    assert len(names) > 20
    for name in names:
        product = parse_product_id(name)
        assert f"_N{product.baseline.replace('.', '')}_R{product.orbit:03d}_T{product.mgrs_tile}_" in name
        assert product.sensing.strftime("%Y%m%dT%H%M%S") in name
