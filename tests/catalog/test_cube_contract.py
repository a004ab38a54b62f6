from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.cube import (
    ARRAYS,
    BACKGROUND,
    BOUNDARY_UNKNOWN,
    CHIP,
    FINER_ARRAYS,
    IGNORE,
    LABEL_ARRAYS,
    LATTICE_M,
    MAX_ITEMS_A_DATE,
    NO_SOURCE,
    NOT_CLEAR,
    OVERVIEW_FACTOR,
    PIXEL_M,
    PROFILES,
    VERSION,
    Conflict,
    Quality,
    Split,
    inner_chunk,
    lattice_anchor_y,
    shard_side,
)


def test_the_numbers_of_version_1() -> None:
    assert VERSION == "1.0"
    assert PROFILES == ("region", "patches")
    assert (PIXEL_M, LATTICE_M, CHIP, OVERVIEW_FACTOR) == (10, 60, 64, 8)
    assert (BACKGROUND, IGNORE, BOUNDARY_UNKNOWN, NO_SOURCE, MAX_ITEMS_A_DATE) == (0, 65535, -32768, 255, 250)


@pytest.mark.parametrize(
    ("name", "dims", "dtype", "fill"),
    [
        ("reflectance", "time band y x", "uint16", 0),
        ("scl", "time y x", "uint8", 0),
        ("quality", "time y x", "uint8", 0),
        ("source_index", "time y x", "uint8", 255),
        ("crop_type", "y x", "uint16", 65535),
        ("parcel_id", "y x", "uint32", 0),
        ("coverage", "y x", "uint8", 0),
        ("boundary_distance", "y x", "int16", -32768),
        ("conflict", "y x", "uint8", 0),
        ("split", "y x", "uint8", 0),
    ],
)
def test_each_array_has_its_dimensions_type_and_fill_value(name: str, dims: str, dtype: str, fill: int) -> None:
    spec = ARRAYS[name]
    assert (spec.name, " ".join(spec.dims), spec.dtype, spec.fill) == (name, dims, dtype, fill)


def test_there_are_ten_arrays_six_of_them_labels() -> None:
    assert len(ARRAYS) == 10
    assert LABEL_ARRAYS == ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split")
    assert FINER_ARRAYS == ("crop_type", "parcel_id", "coverage")
    assert all(ARRAYS[name].dims == ("y", "x") for name in LABEL_ARRAYS)


def test_bits_of_quality() -> None:
    bits = "OBSERVED CLOUD CLOUD_SHADOW SNOW_OR_ICE SATURATED_OR_DEFECTIVE CIRRUS WATER UNREAD"
    assert [(flag.name, flag.value) for flag in Quality] == [(name, 1 << i) for i, name in enumerate(bits.split())]
    assert NOT_CLEAR == 2 | 4 | 8 | 16 | 32 | 128


def test_bits_of_conflict_and_values_of_split() -> None:
    assert [(flag.name, flag.value) for flag in Conflict] == [
        *(("SAME_CLASS", 1), ("DIFFERENT_CLASSES", 2), ("WHOLLY_INSIDE_TWO", 4))
    ]
    assert [(split.name, split.value) for split in Split] == [
        *(("NONE", 0), ("TRAIN", 1), ("VALIDATION", 2), ("TEST", 3), ("BUFFER", 4))
    ]


# The lattice


def test_northings_are_multiples_of_60_m_in_the_north_and_40_more_in_the_south() -> None:
    assert {lattice_anchor_y(epsg) for epsg in range(32601, 32661)} == {0}
    assert {lattice_anchor_y(epsg) for epsg in range(32701, 32761)} == {40}
    assert 10_000_000 % LATTICE_M == 40


@pytest.mark.parametrize("epsg", [4326, 2154, 32600, 32661, 32700, 32761, 32231])
def test_another_crs_has_no_lattice(epsg: int) -> None:
    with pytest.raises(ValueError, match=rf"a WGS 84 / UTM zone \(EPSG:326zz or EPSG:327zz\); got EPSG:{epsg}"):
        lattice_anchor_y(epsg)


# Chunks and shards


@pytest.mark.parametrize(
    ("n_dates", "n_bands", "side"),
    # 400 MB hold 762 dates and bands at 512 px, 3051 at 256 px and 12207 at 128 px.
    [
        *((1, 1, 512), (76, 10, 512), (762, 1, 512)),
        *((77, 10, 256), (763, 1, 256), (3051, 1, 256)),
        *((3052, 1, 128), (1017, 12, 128), (12207, 1, 128)),
    ],
)
def test_the_side_of_a_shard(n_dates: int, n_bands: int, side: int) -> None:
    assert shard_side(n_dates, n_bands) == side


def test_a_series_that_passes_400_mb_in_the_smallest_shard_is_refused() -> None:
    with pytest.raises(ValueError, match="1018 dates x 12 bands pass 400 MB even in a shard of 128 x 128 pixels"):
        shard_side(1018, 12)


@pytest.mark.parametrize(
    ("n_dates", "n_bands", "dates"),
    # 64 MiB hold 8192 dates and bands of 64 x 64 px.
    [(1, 1, 1), (73, 10, 73), (8192, 1, 8192), (8193, 1, 4097), (819, 10, 819), (820, 10, 410), (12207, 1, 6104)],
)
def test_an_inner_chunk_holds_all_dates_that_fit_into_64_mib(n_dates: int, n_bands: int, dates: int) -> None:
    assert inner_chunk(n_dates, n_bands) == (dates, n_bands, 64, 64)


@given(st.integers(1, 1017), st.integers(1, 12))
def test_a_chunk_never_passes_64_mib_and_is_split_only_where_it_must(n_dates: int, n_bands: int) -> None:
    dates, bands, height, width = inner_chunk(n_dates, n_bands)
    assert dates * bands * height * width * 2 <= 64 * 2**20
    assert (dates == n_dates) == (n_dates * n_bands * 64 * 64 * 2 <= 64 * 2**20)
    assert shard_side(n_dates, n_bands) % CHIP == 0
