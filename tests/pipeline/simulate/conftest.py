from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.simulate import Archive, write_archive

BANDS = ("B01", "B02", "B03", "B04", "B8A", "B11")


@pytest.fixture(scope="session")
def extent() -> GeoBox:
    """1.2 km x 1.2 km of zone 31."""
    return GeoBox((120, 120), Affine(10, 0, 525000, 0, -10, 5394000), "EPSG:32631")


@pytest.fixture(scope="session")
def season() -> Season:
    return Season(start=date(2021, 10, 1), end=date(2022, 9, 30))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, extent: GeoBox, season: Season) -> Archive:
    """Twelve dates: every oddity occurs."""
    folder = tmp_path_factory.mktemp("simulated") / "archive"
    return write_archive(folder, extent, season, climate="temperate", dates=12, seed=3, bands=BANDS, safe=True)


@pytest.fixture(scope="session")
def folder(archive: Archive) -> Path:
    return archive.catalog.parent
