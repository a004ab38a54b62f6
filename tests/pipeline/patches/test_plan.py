from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from tests.pipeline.patches.scenes import HERE

from sits_catalog.region import Imagery, Season
from sits_pipeline.patches.plan import request_sha256
from sits_pipeline.patches.rule import PatchRule, PatchSet

WANTED = PatchSet(
    id="set",
    season=Season(start=date(2021, 1, 1), end=date(2022, 12, 31)),
    imagery=Imagery(source="stac-api", path="https://example.org/v1", bands=("B02", "B04")),
)
QUERY = {"provider": "example", "collection": "sentinel-2-l2a", "url": "https://example.org/v1"}
REQUEST = request_sha256(WANTED, [HERE], QUERY)


def imagery(**changes: Any) -> PatchSet:
    return replace(WANTED, imagery=replace(WANTED.imagery, **changes))


@pytest.mark.parametrize(
    ("wanted", "query"),
    [
        (WANTED, {**QUERY, "url": "https://mirror.example.org/v1"}),
        (WANTED, {**QUERY, "collection": "sentinel-2-c1-l2a"}),
        (WANTED, {**QUERY, "fallback": QUERY}),
        (WANTED, None),
        (imagery(assets={"B02": "blue", "B04": "red"}), QUERY),
        (imagery(max_cloud=20), QUERY),
        (imagery(min_baseline="04.00"), QUERY),
        (replace(WANTED, rule=PatchRule(seed=1)), QUERY),
    ],
)
def test_whatever_decides_the_answer_makes_another_request(wanted: PatchSet, query: dict[str, Any] | None) -> None:
    assert request_sha256(wanted, [HERE], query) != REQUEST
    assert request_sha256(wanted, [HERE], query) == request_sha256(wanted, [HERE], query)


def test_where_a_table_of_items_lies_and_what_is_secret_make_no_other_request() -> None:
    here, there = ({**QUERY, "table": path, "fallback": {"table": path}} for path in ("a.parquet", "/b/c.parquet"))
    assert request_sha256(WANTED, [HERE], here) == request_sha256(WANTED, [HERE], there)
    signed = {**QUERY, "url": "https://me:word@example.org/v1"}
    assert request_sha256(WANTED, [HERE], signed) == REQUEST
