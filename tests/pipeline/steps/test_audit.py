from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from sits_catalog.region import Season
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.steps.audit import audit_offset
from sits_pipeline.values import AuditSample, Scene

VEGETATION, WATER = 4, 6


def scene(baseline: str = "05.09", *, declared: int = -1000, firm: bool = True) -> Scene:
    return Scene(
        id="S2B_33TWL_20230813_0_L2A",
        provider="earth-search",
        collection="sentinel-2-l2a",
        sensed=datetime(2023, 8, 13, 10, tzinfo=UTC),
        platform="sentinel-2b",
        orbit=122,
        mgrs_tile="33TWL",
        epsg=32633,
        baseline=baseline,
        cloud_cover=1.0,
        footprint=shapely.box(15, 45, 16, 46),
        datatake=None,
        datastrip=None,
        generated=None,
        assets={},
        declared_offset=declared,
        offset_is_firm=firm,
        item={},
    )


def sample(first: int, second: int, *, n: int = 600, code: int = VEGETATION, bands: str = "B02 B04") -> AuditSample:
    one, two = bands.split()
    dn = {one: np.full(n, first, np.uint16), two: np.full(n, second, np.uint16)}
    return AuditSample(dn=dn, scl=np.full(n, code, np.uint8))


@pytest.mark.parametrize(
    ("baseline", "declared", "firm", "medians", "audited", "applied", "refused"),
    [
        # baseline, rule, certain?, (B02, B04) -> what the pixels say, what is added, is the item refused
        ("05.09", -1000, True, (1300, 1250), -1000, -1000, False),  # raw DN, as the provider says
        ("05.09", 0, False, (300, 250), 0, 0, False),  # offset taken out, as the flag says
        ("05.09", -1000, False, (300, 250), 0, 0, False),  # the flag lies: already removed
        ("05.09", 0, False, (1300, 1250), -1000, -1000, False),  # the flag lies: still there
        ("05.09", -1000, True, (300, 250), 0, 0, True),  # a firm rule is contradicted
        ("05.09", -1000, True, (1300, 250), None, -1000, False),  # bands disagree
        ("05.09", 0, False, (1300, 250), None, 0, False),
        ("05.09", -1000, False, (1020, 1020), None, -1000, False),  # between the thresholds
        ("05.09", -1000, False, (1000, 1049), None, -1000, False),
        ("05.09", 0, False, (1050, 1050), -1000, -1000, False),
        ("05.09", -1000, False, (999, 999), 0, 0, False),
        ("04.00", -1000, True, (1300, 1250), -1000, -1000, False),  # the first baseline with an offset
        ("03.01", 0, True, (300, 250), 0, 0, False),  # before 04.00
        ("03.01", 0, True, (1300, 1250), None, 0, False),  # haze: a baseline without offset never gets one
    ],
)
def test_pixels_and_rule_make_a_verdict(
    baseline: str,
    declared: int,
    firm: bool,
    medians: tuple[int, int],
    audited: int | None,
    applied: int,
    refused: bool,
) -> None:
    verdict = audit_offset(scene(baseline, declared=declared, firm=firm), sample(*medians))
    assert (verdict.declared, verdict.audited, verdict.applied, verdict.refused) == (
        declared,
        audited,
        applied,
        refused,
    )
    assert verdict.medians == {"B02": medians[0], "B04": medians[1]}
    assert verdict.n_pixels == 600
    assert (verdict.reason == "") == (audited == declared)


def test_a_lying_flag_is_named_in_the_reason() -> None:
    verdict = audit_offset(scene(firm=False), sample(300, 250))
    assert verdict.reason == (
        "earth-search at baseline 05.09 asks for -1000, but no offset is left in the pixels "
        "(median over vegetation: B02 300, B04 250); the pixels decide"
    )


def test_a_contradicted_firm_rule_says_that_the_item_is_not_used() -> None:
    assert audit_offset(scene(), sample(300, 250)).reason.endswith("the item is not used")


def test_only_vegetation_that_holds_data_counts() -> None:
    dn = np.concatenate([np.full(600, 1300), np.full(900, 200), np.zeros(700)]).astype(np.uint16)
    scl = np.concatenate([np.full(600, VEGETATION), np.full(900, 5), np.full(700, VEGETATION)]).astype(np.uint8)
    verdict = audit_offset(scene(), AuditSample(dn={"B02": dn, "B04": dn}, scl=scl))
    assert (verdict.audited, verdict.n_pixels) == (-1000, 600)


def test_water_decides_where_vegetation_is_too_small() -> None:
    found = sample(80, 40, code=WATER, bands="B8A B11")
    dark: NDArray[np.uint16] = np.full(600, 20, np.uint16)
    verdict = audit_offset(scene(firm=False), AuditSample(dn={"B02": dark, "B04": dark, **found.dn}, scl=found.scl))
    assert (verdict.audited, verdict.medians) == (0, {"B8A": 80, "B11": 40})
    assert "water" in verdict.reason


def test_499_pixels_decide_nothing_and_500_do() -> None:
    few = audit_offset(scene(declared=0, firm=False), sample(1300, 1300, n=499))
    assert (few.audited, few.applied, few.medians) == (None, 0, {})
    assert few.reason.startswith("too few pixels to audit the offset (499 of vegetation, 500 are needed)")
    assert audit_offset(scene(declared=0, firm=False), sample(1300, 1300, n=500)).audited == -1000


def test_without_a_classification_the_rule_applies() -> None:
    verdict = audit_offset(scene(), replace(sample(300, 250), scl=None))
    assert (verdict.audited, verdict.applied, verdict.refused) == (None, -1000, False)
    assert verdict.reason


def test_an_unreadable_sample_leaves_a_firm_rule_standing() -> None:
    verdict = audit_offset(scene(), None)
    assert (verdict.audited, verdict.applied, verdict.refused) == (None, -1000, False)
    assert "could not be read" in verdict.reason


def test_an_unreadable_sample_without_a_firm_rule_makes_the_item_unread() -> None:
    assert audit_offset(scene(firm=False), None).applied is None


@pytest.mark.parametrize("firm", [True, False])
@pytest.mark.parametrize("address", ["https://x.org/B02.tif", "s3://eodata/B02.jp2"])
def test_a_sample_that_a_network_did_not_bring_decides_nothing(address: str, firm: bool) -> None:
    """Its pixels may contradict the rule: the item is read by the next run, once it was looked at."""
    verdict = audit_offset(replace(scene(firm=firm), assets={"B02": address}), None)
    assert (verdict.audited, verdict.applied, verdict.refused) == (None, None, False)
    assert "could not be read" in verdict.reason
    assert "counts as unread" in verdict.reason
    assert audit_offset(replace(scene(), assets={"B02": "/data/B02.tif"}), None).applied == -1000


@pytest.fixture
def sits_data() -> Path:
    if "SITS_DATA" not in os.environ:
        pytest.skip("real scenes are needed: set SITS_DATA to their folder")
    return Path(os.environ["SITS_DATA"])


def test_real_earth_search_items_need_no_offset_although_they_declare_one(sits_data: Path) -> None:
    source = StacSource(str(sits_data / "earthsearch" / "catalog.json"))
    season = Season(start=date(2023, 8, 1), end=date(2023, 8, 31))
    found = source.search(shapely.box(14, 44, 17, 48), season).scenes
    assert len(found) == 2
    for item in found:
        assert item.item["assets"]["blue"]["raster:bands"][0]["offset"] == -0.1
        verdict = audit_offset(item, source.sample(item))
        assert (verdict.declared, verdict.audited, verdict.applied, verdict.reason) == (0, 0, 0, "")
        assert verdict.n_pixels > 10_000
        lying = audit_offset(replace(item, declared_offset=-1000), source.sample(item))
        assert (lying.applied, lying.refused) == (0, False)
