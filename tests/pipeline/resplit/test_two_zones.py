"""A region of two zones is split as one: a parcel on the border has one split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.end_to_end.archives import promised
from tests.end_to_end.building import Silent
from tests.end_to_end.test_two_zones import region as border

from sits_catalog.region import Region
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.prepare import prepare
from sits_pipeline.resplit import check_splits, split_region

pytestmark = pytest.mark.slow
__all__ = ["border"]


def built(region: Region, out: Path) -> list[Path]:
    config = BuildConfig(out=str(out))
    return [Path(outcome.location) for outcome in build(prepare(region, config, Silent()), config, Silent())]


def test_both_zones_are_split_together_and_one_alone_is_refused(
    border: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    datasets = built(border, tmp_path / "out")
    rule = replace(border.splits, folds=3, fold=3, seed=2)
    with pytest.raises(ValueError, match=r"border lies in several zones, .*: give border-32632 too"):
        split_region([Folder(str(datasets[0]))], rule, Silent())
    done = split_region([Folder(str(path)) for path in datasets], rule, Silent())
    assert [one.complete for one in done] == [True, True]
    for path, other in zip(datasets, built(border.replace(splits=rule), tmp_path / "other"), strict=True):
        assert promised(path) == promised(other)
        assert (path / "report.html").read_bytes() == (other / "report.html").read_bytes()
        assert check_splits(Folder(str(path))).leaks == ()
    shutil.rmtree(datasets[1])
    split_region([Folder(str(datasets[0]))], replace(rule, fold=1), Silent())
