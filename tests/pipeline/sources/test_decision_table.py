"""Which offset is added to an item's DN: every provider's rule, met by pixels that agree with it and that do not.

What providers serve, and what stands in their pixels, over items as they were served (baselines 00.01 to
05.11) and over items of the archive writer, some of whose flags lie on purpose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tests.pipeline.sources.test_simulated import EXTENT, SEASON, region
from tests.pipeline.sources.test_stac import EVERYWHERE

from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.simulated import open_simulated
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.steps.audit import audit_offset
from sits_pipeline.values import AuditSample, Scene

ITEMS = "earthsearch/boa_offset_items"
TILES = "earthsearch/sentinel-2-l2a"
V1 = "stac/earth_search_v1/exchanges"
PC = "stac/planetary_computer"
V0 = "stac/earth_search_v0"

Pixels = Literal["dark", "bright", "between", "few", "files"]


@dataclass(frozen=True)
class Row:
    """Items of a file, and what is known of them."""

    file: str
    collection: str
    provider: str
    baseline: str
    declared: int
    firm: bool
    n_items: int = 1


ROWS = (
    Row(f"{ITEMS}/S2A_33TWN_20161202_0_L2A.json", "sentinel-2-l2a", "earth-search", "00.01", 0, firm=False),
    Row(f"{ITEMS}/S2A_33TWN_20210629_0_L2A.json", "sentinel-2-l2a", "earth-search", "03.00", 0, firm=False),
    Row(f"{ITEMS}/S2A_33TWN_20220122_0_L2A.json", "sentinel-2-l2a", "earth-search", "03.01", 0, firm=False),
    Row(f"{ITEMS}/S2B_33TWN_20220130_0_L2A.json", "sentinel-2-l2a", "earth-search", "04.00", 0, firm=False),
    Row(f"{ITEMS}/S2B_33TWN_20220226_0_L2A.json", "sentinel-2-l2a", "earth-search", "04.00", -1000, firm=False),
    *(
        Row(f"{TILES}/{name}/{name}.json", "sentinel-2-l2a", "earth-search", "05.09", 0, firm=False)
        for name in ("S2B_33TWL_20230813_0_L2A", "S2B_33TWM_20230813_0_L2A")
    ),
    Row(f"{V0}/S2A_28QCH_20200714_0_L2A.json", "sentinel-s2-l2a-cogs", "earth-search", "02.14", 0, firm=False),
    Row(f"{V1}/search_two_collections_1.json", "sentinel-2-l2a", "earth-search", "05.09", 0, firm=False),
    Row(f"{V1}/search_filter_cql2_2.json", "sentinel-2-l2a", "earth-search", "05.11", 0, firm=False, n_items=2),
    Row(f"{V1}/search_filter_cql2_3.json", "sentinel-2-l2a", "earth-search", "05.11", 0, firm=False, n_items=4),
    Row(f"{V1}/search_filter_cql2_2.json", "sentinel-2-c1-l2a", "earth-search", "05.11", -1000, firm=True, n_items=3),
    Row(f"{V1}/search_filter_cql2_3.json", "sentinel-2-c1-l2a", "earth-search", "05.11", -1000, firm=True, n_items=3),
    *(
        Row(f"{PC}/{name}", "sentinel-2-l2a", "planetary-computer", "02.12", 0, firm=True, n_items=n_items)
        for name, n_items in (
            ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", 1),
            ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json", 1),
            ("search_20200606_tall_strip.geojson", 9),
            ("search_2020_jun_jul_35MNM.geojson", 13),
            ("exchanges/search_datetime_window_1.json", 33),
        )
    ),
)
"""`declared` of Earth Search's sentinel-2-l2a: by the flag and the baseline, never by `raster:offset`, which says -0.1
of every item from 04.00 on."""

REFUSED = "refused"


def decided(row: Row, pixels: Pixels) -> int | str:
    """The offset that is added, by hand: the table that the audit implements."""
    if pixels in ("few", "between"):
        return row.declared
    if row.baseline < "04.00":
        return 0  # No processing before 04.00 added one, however bright its vegetation.
    seen = 0 if pixels == "dark" else -1000
    return REFUSED if row.firm and seen != row.declared else seen


def sample(pixels: Pixels) -> AuditSample:
    """600 pixels of vegetation, or 499, whose medians the pixels stand for."""
    blue, red = {"dark": (380, 420), "bright": (1380, 1420), "between": (990, 1060), "few": (380, 420)}[pixels]
    n_pixels = 499 if pixels == "few" else 600
    dn = {band: np.full(n_pixels, value, np.uint16) for band, value in (("B02", blue), ("B04", red))}
    return AuditSample(dn=dn, scl=np.full(n_pixels, 4, np.uint8))


def items_of(path: Path, collection: str) -> list[dict[str, Any]]:
    """The items of a collection in a file: an item, an answer, or an exchange that holds one."""
    document = json.loads(path.read_text())
    body = document["response"]["body"] if "response" in document else document
    body = json.loads(body) if isinstance(body, str) else body
    return [one for one in body.get("features", [body]) if one.get("collection") == collection]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[StacSource, dict[str, Scene], dict[str, int]]:
    """A simulated archive, its scenes, and the offset that each really needs."""
    source, _ = open_simulated(region(), EXTENT, tmp_path_factory.mktemp("table") / "archive", None)
    scenes = {scene.id: scene for scene in source.search(EVERYWHERE, SEASON).scenes}
    truth = json.loads((Path(source.location).parent / "truth.json").read_text())["items"]
    return source, scenes, {name: truth[name]["offset_to_apply"] for name in scenes}


def real_case(row: Row, pixels: Pixels, data: Path) -> None:
    found = items_of(data / row.file, row.collection)
    assert len(found) == row.n_items
    for item in found:
        scene = scene_from_item(item, lambda href: str((data / row.file).parent / str(href)))
        known = (scene.provider, scene.baseline, scene.declared_offset, scene.offset_is_firm)
        assert known == (row.provider, row.baseline, row.declared, row.firm)
        read = StacSource("").sample(scene) if pixels == "files" else sample(pixels)
        verdict = audit_offset(scene, read)
        expected = 0 if pixels == "files" else decided(row, pixels)
        assert (REFUSED if verdict.refused else verdict.applied) == expected


CASES = [(row, pixels) for row in ROWS for pixels in ("dark", "bright", "between", "few")]
# Of two tiles the pixels are there: 287 and less is their median, though `raster:offset` says that an offset is left.
CASES += [(row, "files") for row in ROWS if row.file.startswith(TILES)]
CASES += [("archive", lies) for lies in (True, False)]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("row", "pixels"),
    CASES,
    ids=lambda value: f"{value.file}:{value.collection}" if isinstance(value, Row) else str(value),
)
def test_the_offset_is_decided_by_rule_and_pixels(row: Row | str, pixels: Any, request: pytest.FixtureRequest) -> None:
    if isinstance(row, Row):
        real_case(row, pixels, request.getfixturevalue("sits_data"))
        return
    source, scenes, truth = request.getfixturevalue("archive")
    chosen = [scene for scene in scenes.values() if (scene.declared_offset != truth[scene.id]) == pixels]
    verdicts = [audit_offset(scene, source.sample(scene)) for scene in chosen]
    seen = [(scene, verdict) for scene, verdict in zip(chosen, verdicts, strict=True) if verdict.audited is not None]
    assert seen
    for scene, verdict in seen:
        assert (verdict.applied, verdict.refused) == (truth[scene.id], False)
        assert bool(verdict.reason) == pixels, "a flag that lies is named"
    # Too few pixels of a kind: the flag is all there is, and the reason says so.
    for verdict in (verdict for verdict in verdicts if verdict.audited is None):
        assert verdict.applied == verdict.declared
        assert "the provider's rule" in verdict.reason
