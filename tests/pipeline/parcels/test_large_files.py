"""One region of a large simulated country is opened in bounded memory and with little reading.

Bytes are counted by the kernel (rchar of /proc/self/io: all that read() and pread() gave the process, from the disk
or from the page cache), in a fresh process and after a first small file has loaded the libraries. Mapped pages would
not be in that number, so the process also says whether the file is mapped; neither GDAL nor pyarrow does it here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from tests.pipeline.parcels.country import (
    NORTH,
    SIDE,
    WEST,
    Country,
    Opened,
    open_in_fresh_process,
    write_geoparquet,
    write_with_gdal,
)


def write(path: Path, country: Country, *, row_group: int) -> Path:
    if path.suffix == ".parquet":
        write_geoparquet(path, country, row_group=row_group)
    else:
        write_with_gdal(path, country)
    return path


def check_parcels(opened: Opened, country: Country, *, west: float, north: float, pixels: int) -> None:
    """Exactly the parcels that the grid of squares puts within 110 m."""
    box = west - 110, north - 10 * pixels - 110, west + 10 * pixels + 110, north + 110
    expected = country.near(*box)
    assert opened.keys == [f"SIM-{number:08d}" for number in expected]
    assert opened.hectares == pytest.approx(shapely.area(country.shapes(expected)).sum() / 1e4)
    assert not opened.mapped


@pytest.mark.parametrize(
    "suffix", [".parquet", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".gpkg", ".fgb"))]
)
def test_a_region_of_a_country_reads_its_own_part_of_the_file(tmp_path: Path, suffix: str) -> None:
    country = Country(rows=100, columns=200)
    path = write(tmp_path / f"country{suffix}", country, row_group=625)
    small = write(tmp_path / f"small{suffix}", Country(rows=100, columns=2), row_group=625)
    place = {"west": WEST, "north": NORTH - 40 * SIDE, "pixels": 100}
    opened = open_in_fresh_process(path, small, **place, whole_rows=1000)
    check_parcels(opened, country, **place)
    assert opened.bytes_read < 0.2 * path.stat().st_size
    assert "only the rows near the region were searched for ids that repeat" in opened.notes[0]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_a_region_of_two_million_parcels_opens_in_bounded_memory(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    country = Country(rows=1000, columns=2000)
    assert country.n == 2_000_000
    path = write(tmp_path / f"country{suffix}", country, row_group=20_000)
    small = write(tmp_path / f"small{suffix}", Country(rows=1000, columns=2), row_group=20_000)
    place = {"west": WEST, "north": NORTH - 500 * SIDE, "pixels": 1024}
    opened = open_in_fresh_process(path, small, **place, whole_rows=200_000)
    with capsys.disabled():
        print(
            f"\n{suffix}: {len(opened.keys)} of {country.n} simulated parcels, {path.stat().st_size / 1e6:.0f} MB; "
            f"read {opened.bytes_read / 1e6:.1f} MB = {opened.bytes_read / path.stat().st_size:.2%}, "
            f"peak {opened.peak_mb:.0f} MB, {opened.seconds:.1f} s"
        )
    check_parcels(opened, country, **place)
    assert opened.peak_mb < 1500
    assert opened.bytes_read < 0.05 * path.stat().st_size

    without = open_in_fresh_process(path, small, **place, whole_rows=200_000, with_taxonomy=False)
    with capsys.disabled():
        print(
            f"{suffix} without a taxonomy: read {without.bytes_read / path.stat().st_size:.2%}, "
            f"peak {without.peak_mb:.0f} MB, {without.seconds:.1f} s"
        )
    assert without.classes == 37
    assert without.peak_mb < 1500
    assert np.any(["name a taxonomy" in note for note in without.notes])
