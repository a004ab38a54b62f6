"""Processing units: known before, held while building, and kept in the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
import pytest
import shapely
from odc.geo.geobox import GeoBox
from tests.end_to_end.archives import SmallArchive, cells_in_journal, promised, write_small_archive
from tests.end_to_end.building import Silent

from sits_catalog.loading import load_region
from sits_catalog.region import Season
from sits_pipeline.budget import Budget, estimate
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.finish import Outcome
from sits_pipeline.prepare import Prepared, prepare
from sits_pipeline.show import outcome_in_words, plan_as_json, plan_in_words
from sits_pipeline.sources.access import Cost, Gate, Limit
from sits_pipeline.sources.base import SearchResult, ServiceDown, ServiceSource
from sits_pipeline.sources.charges import check_audit
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.values import JsonObject, Raster, Scene

UNITS = 0.5
"""That a scene of a cell costs."""
NEEDED = UNITS * (2 + 2 + 1) * 3 * 4
"""By three rows of cells on four dates: 31TEJ ends at pixel 900 and is asked for 100 px further, where the last of
three columns has not begun."""


@dataclass(frozen=True)
class Shut:
    """A gate that a build must replace."""

    def request(self) -> AbstractContextManager[object]:
        raise RuntimeError("a request was sent past the gates of the cluster")


@dataclass(frozen=True)
class Metered(StacSource):
    """The archive behind a meter: a service that charges for each scene of a cell `dearer` times what it said."""

    dearer: float = 1.0
    down: bool = False
    audit: float = 0.0
    """What the sample of a scene is charged at most."""
    gate: Gate = field(default_factory=Shut)

    @property
    def query(self) -> JsonObject:
        return {"location": self.location}

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        raise NotImplementedError

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        raise NotImplementedError

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (Limit(name="meter", at_once=8, a_minute=0),)

    def through(self, gates: Mapping[str, Gate]) -> Self:
        return replace(self, gate=gates["meter"])

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        return Cost(requests=len(scenes), processing_units=UNITS * len(scenes))

    def sample_cost(self, scene: Scene) -> Cost:
        return Cost(requests=1, processing_units=self.audit)

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        if self.down:
            raise ServiceDown("meter did not answer; try again later")
        for raster in super().read(scenes, geobox, bands, pad=pad):
            with self.gate.request():
                yield replace(raster, processing_units=UNITS * self.dearer, note="merged by the service")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    return write_small_archive(tmp_path_factory.mktemp("archive"))


def settings(out: Path, **changes: Any) -> BuildConfig:
    return BuildConfig(out=str(out), cell_px=512, workers=1, **changes)


def prepared(archive: SmallArchive, config: BuildConfig, **meter: Any) -> Prepared:
    """The archive's plan, its pixels to be read through a meter."""
    plan = prepare(load_region(str(archive.region)), config, Silent())
    assert isinstance(plan.source, StacSource)
    return replace(plan, source=Metered(plan.source.location, **meter))


def build_metered(archive: SmallArchive, out: Path, *, max_pu: float | None = None, **meter: Any) -> Outcome:
    config = settings(out, max_pu=max_pu)
    (outcome,) = build(prepared(archive, config, **meter), config, Silent())
    return outcome


def charged(out: Path) -> float:
    """Units that the journal holds."""
    return sum(entry.get("processing_units", 0.0) for entry in cells_in_journal(out / "small").values())


def test_the_meter_is_a_service_and_a_catalogue_is_none() -> None:
    assert isinstance(Metered("x"), ServiceSource)
    assert not isinstance(StacSource("x"), ServiceSource)


@pytest.mark.slow
def test_a_plan_says_what_a_service_will_be_asked_for(archive: SmallArchive, tmp_path: Path) -> None:
    plan = prepared(archive, settings(tmp_path))
    cost = estimate(plan.source, plan.zones[0].plan)
    assert (cost.requests, cost.processing_units) == (60, NEEDED)
    assert plan_as_json(plan)["datasets"][0]["estimate"]["processing_units"] == NEEDED
    assert "in 60 requests" in plan_in_words(plan)
    files = prepare(load_region(str(archive.region)), settings(tmp_path), Silent())
    assert "source blocks" in plan_in_words(files)
    assert "PU" not in plan_in_words(files)


@pytest.mark.slow
def test_the_plan_of_sentinel_hub_says_how_much_of_a_free_month_it_takes(archive: SmallArchive, tmp_path: Path) -> None:
    plan = prepared(archive, settings(tmp_path))
    hub = replace(plan.region.imagery, source="sentinel-hub")
    said = plan_in_words(replace(plan, region=plan.region.replace(imagery=hub)))
    n_audited = len(plan.zones[0].found.scenes)
    assert f"up to 0.00 PU in {n_audited} requests more, now and with each command" in said
    # 60 requests, of 10 000.
    share = (60 + n_audited) / 10_000
    assert f"30.0 processing units (PU) of Sentinel Hub; with its audit {share:.1%} of a free month at CDSE" in said
    elsewhere = replace(hub, deployment="sentinel-hub")
    said = plan_in_words(replace(plan, region=plan.region.replace(imagery=elsewhere)))
    assert "30.0 processing units (PU) of Sentinel Hub, from what your account there has" in said
    assert "free month" not in said


def test_a_plan_that_needs_too_much_is_refused_before_anything_is_written(
    archive: SmallArchive, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"needs 30\.0 processing units, and --max-pu allows 29\.9; take a smaller"):
        build_metered(archive, tmp_path / "out", max_pu=29.9)
    assert not (tmp_path / "out" / "small").exists()


@pytest.mark.slow
def test_the_audit_is_part_of_the_estimate_and_of_the_bound(archive: SmallArchive, tmp_path: Path) -> None:
    plan = prepared(archive, settings(tmp_path), audit=0.04)
    audited = len(plan.zones[0].found.scenes)
    cost = estimate(plan.source, plan.zones[0].plan)
    assert (cost.processing_units, cost.audit_requests) == (NEEDED, audited)
    assert cost.audit_processing_units == pytest.approx(0.04 * audited)
    said = rf"needs 30\.0 processing units and up to {0.04 * audited:.2f} for its audit, and --max-pu allows 30;"
    with pytest.raises(ValueError, match=said):
        build_metered(archive, tmp_path / "out", max_pu=NEEDED, audit=0.04)
    assert not (tmp_path / "out" / "small").exists()


@pytest.mark.slow
def test_an_audit_that_alone_could_pass_the_bound_is_refused_before_it_begins(
    archive: SmallArchive, tmp_path: Path
) -> None:
    plan = prepared(archive, settings(tmp_path), audit=0.04)
    scenes = plan.zones[0].found.scenes
    check_audit(plan.source, scenes, None)
    check_audit(plan.source, scenes, 0.04 * len(scenes) + 0.001)
    with pytest.raises(ValueError, match=rf"audit of {len(scenes)} scenes alone may take .* and --max-pu allows 0\.1;"):
        check_audit(plan.source, scenes, 0.1)
    files = prepare(load_region(str(archive.region)), settings(tmp_path), Silent())
    check_audit(files.source, scenes, 0.0)


@pytest.mark.slow
def test_charges_and_remarks_of_a_service_are_kept(archive: SmallArchive, tmp_path: Path) -> None:
    outcome = build_metered(archive, tmp_path, max_pu=NEEDED)
    assert outcome.complete
    # Scenes are read one after another until every pixel is decided, so that some were never asked for.
    assert 0 < outcome.processing_units <= NEEDED
    assert outcome.processing_units == pytest.approx(charged(tmp_path))
    assert f"charged {outcome.processing_units:.1f} processing units" in outcome_in_words(outcome)
    sources = pq.read_table(tmp_path / "small/sources.parquet").to_pandas()
    assert set(sources[sources.status == "used"].reason) == {"merged by the service"}
    again = build_metered(archive, tmp_path, max_pu=NEEDED)
    assert (again.built, again.processing_units) == (0, outcome.processing_units)


@pytest.mark.slow
def test_a_service_that_charges_more_than_it_said_stops_the_build_in_time(
    archive: SmallArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with pytest.raises(RuntimeError, match=r"cells are not built: .* --max-pu, which goes on where this one stopped"):
        build_metered(archive, tmp_path / "out", max_pu=NEEDED, dearer=3.0)
    stopped = charged(tmp_path / "out")
    assert 0 < stopped <= NEEDED
    with pytest.raises(ValueError, match=rf"beside {stopped:.1f} that are used already, and --max-pu allows 30"):
        build_metered(archive, tmp_path / "out", max_pu=NEEDED, dearer=3.0)
    outcome = build_metered(archive, tmp_path / "out", max_pu=10 * NEEDED, dearer=3.0)
    assert outcome.complete
    assert 0 < outcome.built < outcome.cells
    assert outcome.processing_units > stopped
    build_metered(archive, tmp_path / "whole")
    assert promised(tmp_path / "out/small") == promised(tmp_path / "whole/small")


@pytest.mark.slow
def test_a_service_that_answers_nothing_ends_the_build(archive: SmallArchive, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"meter did not answer; try again later; run the same command again"):
        build_metered(archive, tmp_path, down=True)
    outcome = build_metered(archive, tmp_path)
    assert outcome.complete


def test_without_a_bound_nothing_is_held_back() -> None:
    budget = Budget(None)
    budget.check(1e9)
    budget.check_ended(3)
