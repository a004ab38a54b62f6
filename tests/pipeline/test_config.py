from __future__ import annotations

from pathlib import Path

import pytest

from sits_pipeline.config import BuildConfig


@pytest.mark.parametrize("out", ["there/out", "./there/out", "file://there/out"])
def test_a_local_folder_is_meant_from_the_working_folder(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = BuildConfig(out=out, cache=Path("cache"))
    assert config.out == str(tmp_path / "there/out")
    assert config.cache == tmp_path / "cache"


def test_an_absolute_folder_stays_as_it_is(tmp_path: Path) -> None:
    assert BuildConfig(out=str(tmp_path), cache=tmp_path).out == str(tmp_path)
    assert BuildConfig(out=f"file://{tmp_path}").out == str(tmp_path)
    assert BuildConfig(out=str(tmp_path), cache=tmp_path).cache == tmp_path


@pytest.mark.parametrize("out", ["s3://bucket/prefix", "memory://cubes"])
def test_the_address_of_an_object_store_stays_as_it_is(out: str) -> None:
    assert BuildConfig(out=out).out == out


def test_without_a_cache_there_is_none() -> None:
    assert BuildConfig().cache is None


@pytest.mark.parametrize("units", [-1.0, float("nan"), float("inf")])
def test_a_bound_on_processing_units_is_a_number(units: float) -> None:
    with pytest.raises(ValueError, match="max_pu is a number of processing units, 0 or more; got"):
        BuildConfig(max_pu=units)


def test_a_rate_of_requests_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"requests_a_minute is 0 \(the provider's limit\) or more; got -1"):
        BuildConfig(requests_a_minute=-1)
