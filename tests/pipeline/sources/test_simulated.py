from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.scene_source_contract import SceneSourceTests

from sits_catalog.region import Imagery, Place, Region, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources import SafeSource, SceneSource, StacSource, open_source
from sits_pipeline.sources.simulated import open_simulated
from sits_pipeline.steps.audit import audit_offset

SEASON = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
EXTENT = GeoBox((60, 60), Affine(10, 0, 525_000, 0, -10, 5_394_000), "EPSG:32631")


def region(**imagery: object) -> Region:
    return Region(
        id="tiny",
        season=SEASON,
        place=Place(bbox=(3.34, 48.69, 3.35, 48.70)),
        imagery=Imagery(**{"dates": 12, **imagery}),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[StacSource, Region]:
    return open_simulated(region(), EXTENT, tmp_path_factory.mktemp("simulated") / "archive", None)


class TestSimulatedArchive(SceneSourceTests):
    @pytest.fixture
    def source(self, archive: tuple[StacSource, Region]) -> SceneSource:
        return archive[0]

    @pytest.fixture
    def area(self) -> shapely.Geometry:
        return shapely.box(3.34, 48.69, 3.35, 48.70)

    @pytest.fixture
    def season(self) -> Season:
        return SEASON

    @pytest.fixture
    def geobox(self) -> GeoBox:
        return GeoBox((90, 90), Affine(10, 0, 525_000 - 300, 0, -10, 5_394_000 + 300), "EPSG:32631")

    @pytest.fixture
    def bands(self) -> Sequence[str]:
        return ("B02", "B8A", "B11")


def test_a_simulated_region_gets_the_parcels_of_its_archive(archive: tuple[StacSource, Region]) -> None:
    parcels = archive[1].parcels
    assert parcels is not None
    assert parcels.path is not None
    assert Path(parcels.path).is_file()
    assert (parcels.id, parcels.code, parcels.labelled_area) == ("id", "crop_code", "region")


def test_the_audit_finds_the_offset_that_each_simulated_item_needs(archive: tuple[StacSource, Region]) -> None:
    source, _ = archive
    truth = json.loads((Path(source.location).parent / "truth.json").read_text())["items"]
    scenes = source.search(shapely.box(3, 48, 4, 49), SEASON).scenes
    verdicts = {scene.id: audit_offset(scene, source.sample(scene)) for scene in scenes}
    decided = {name: verdict for name, verdict in verdicts.items() if verdict.audited is not None}
    assert len(decided) > 5
    assert {name: verdict.applied for name, verdict in decided.items()} == {
        name: truth[name]["offset_to_apply"] for name in decided
    }
    assert any(verdict.audited != verdict.declared for verdict in decided.values()), "some flags should lie"


class Zone:
    geobox = EXTENT


def test_the_region_names_its_source(tmp_path: Path) -> None:
    def source(**imagery: object) -> SceneSource:
        return open_source(region(**imagery), [Zone()], tmp_path, BuildConfig(cache=tmp_path / "cache"))[0]

    assert source(source="safe", path="/data/safe") == SafeSource(Path("/data/safe"))
    assert source(source="stac", path="https://x.org/c.json") == StacSource(
        "https://x.org/c.json", tmp_path / "cache", 20 * 10**9
    )
    with pytest.raises(ValueError, match="imagery of source stac needs a path"):
        source(source="stac")


def test_a_simulated_archive_over_two_zones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies in one UTM zone and region tiny in 2"):
        open_source(region(), [Zone(), Zone()], tmp_path, BuildConfig())
