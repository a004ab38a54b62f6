"""Source items that change between two runs: the plan says how, and a build does not mix cells of two worlds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from tests.end_to_end.archives import (
    DATES,
    SmallArchive,
    build_here,
    cells_in_journal,
    journal_lines,
    promised,
    run_here,
)

pytestmark = pytest.mark.slow
soak = pytest.mark.soak
FIRST = "S2A_31TEJ_20230405"


@pytest.fixture(scope="module")
def built(undisturbed: Path) -> Path:
    """A folder with the finished dataset, which tests only read."""
    return undisturbed.parent


@pytest.fixture
def changed(archive: SmallArchive, tmp_path: Path) -> SmallArchive:
    """The archive at another place, for tests that change it; files are linked until they are replaced."""
    shutil.copytree(archive.folder, tmp_path / "moved", copy_function=_link)
    return replace(archive, folder=tmp_path / "moved")


def _link(source: str, target: str) -> None:
    os.link(source, target) if source.endswith(".tif") else shutil.copy(source, target)


def item_of(archive: SmallArchive, name: str = FIRST) -> dict[str, Any]:
    return dict(json.loads((archive.folder / name / "item.json").read_text()))


def put(archive: SmallArchive, item: dict[str, Any], name: str = FIRST) -> None:
    (archive.folder / name / "item.json").write_text(json.dumps(item))


# What changes


def an_item_went(archive: SmallArchive) -> None:
    path = archive.folder / "catalog.json"
    catalogue = json.loads(path.read_text())
    catalogue["links"] = [link for link in catalogue["links"] if FIRST not in link["href"]]
    path.write_text(json.dumps(catalogue))


def an_item_came(archive: SmallArchive) -> None:
    name = "S2A_31TEJ_20230606"
    shutil.copytree(archive.folder / FIRST, archive.folder / name)
    item = item_of(archive)
    item["id"] = name
    item["properties"]["datetime"] = "2023-06-06T10:40:21Z"
    put(archive, item, name)
    path = archive.folder / "catalog.json"
    catalogue = json.loads(path.read_text())
    catalogue["links"].append({"rel": "item", "href": f"./{name}/item.json"})
    path.write_text(json.dumps(catalogue))


def another_baseline(archive: SmallArchive) -> None:
    item = item_of(archive)
    item["properties"]["s2:processing_baseline"] = "05.10"
    put(archive, item)


def more_cloud(archive: SmallArchive) -> None:
    item = item_of(archive)
    item["properties"]["eo:cloud_cover"] = 35.0
    put(archive, item)


def another_day(archive: SmallArchive) -> None:
    """The halves of the first date become two dates: the ids, and their order, are what they were."""
    item = item_of(archive)
    item["properties"]["datetime"] = "2023-04-04T10:40:21Z"
    put(archive, item)


def another_footprint(archive: SmallArchive) -> None:
    item = item_of(archive)
    footprint = shapely.from_geojson(json.dumps(item["geometry"]))
    item["geometry"] = json.loads(shapely.to_geojson(shapely.affinity.translate(footprint, 0.04, 0)))
    put(archive, item)


def other_pixels(archive: SmallArchive) -> None:
    """One pixel in eight brighter by one: far too little for a median to tell."""
    path = archive.asset("31TEJ", DATES[0], "B04")
    with rasterio.open(path) as file:
        profile, dn = file.profile, file.read(1)
    path.unlink()
    dn += ((dn > 0) & (np.arange(dn.size).reshape(dn.shape) % 8 == 0)).astype(dn.dtype)
    with rasterio.open(path, "w", **{**profile, "overview_resampling": "nearest"}) as file:
        file.write(dn, 1)


def swapped_addresses(archive: SmallArchive) -> None:
    item = item_of(archive)
    assets = item["assets"]
    assets["B02"], assets["B04"] = assets["B04"], assets["B02"]
    put(archive, item)


def no_classification(archive: SmallArchive) -> None:
    item = item_of(archive)
    del item["assets"]["SCL"]
    put(archive, item)


def dataset_as_begun(built: Path, out: Path) -> Path:
    """The dataset as it was when a part of its cells was built."""
    dataset = shutil.copytree(built / "small", out / "small")
    lines = (dataset / "journal.jsonl").read_text().splitlines(keepends=True)
    (dataset / "journal.jsonl").unlink()
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000001.jsonl").write_text(lines[0])
    (dataset / "journal" / "000002.jsonl").write_text("".join(lines[1:5]))
    return Path(dataset)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(an_item_went, f"this build lacks {FIRST} (baseline 05.09); choose", marks=soak),
        pytest.param(an_item_came, "it lacks S2A_31TEJ_20230606 (baseline 05.09); choose", marks=soak),
        pytest.param(
            another_baseline,
            f"it lacks {FIRST} (baseline 05.10) and this build lacks {FIRST} (baseline 05.09); choose",
            marks=soak,
        ),
        pytest.param(
            more_cloud,
            f"in another order, since their days or cloud cover have changed ({FIRST} where this build has S2A",
            marks=soak,
        ),
        (another_day, f"{FIRST} (its solar day was 2023-04-05 and is 2023-04-04); choose"),
        pytest.param(another_footprint, f"{FIRST} (it lies elsewhere); choose", marks=soak),
        (other_pixels, f"{FIRST} (its pixels are others); choose"),
        pytest.param(swapped_addresses, f"{FIRST} (its pixels are others); choose", marks=soak),
        pytest.param(no_classification, f"{FIRST} (its scene classification came or went", marks=soak),
    ],
    ids=lambda value: value.__name__ if callable(value) else "says",
)
def test_what_changed_is_said_by_the_plan_and_refused_by_the_build(
    built: Path, changed: SmallArchive, tmp_path: Path, change: Callable[[SmallArchive], None], says: str
) -> None:
    dataset = dataset_as_begun(built, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    change(changed)
    plan = run_here("sits-build", "--region", changed.region, "--out", dataset.parent, "--plan")
    assert plan.code == 0, plan.stderr
    (line,) = [line for line in plan.stdout.splitlines() if line.startswith("  there  ")]
    assert says in line
    refused = build_here(changed, dataset.parent)
    assert refused.code == 2
    assert f"error: {line.removeprefix('  there').strip()}\n" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_an_archive_that_was_moved_is_the_same_and_the_build_goes_on(
    built: Path, changed: SmallArchive, tmp_path: Path
) -> None:
    dataset = dataset_as_begun(built, tmp_path / "out")
    plan = run_here("sits-build", "--region", changed.region, "--out", dataset.parent, "--plan")
    assert "  there      this dataset is begun there: a build goes on with it\n" in plan.stdout
    ended = build_here(changed, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 5)
    assert promised(dataset) == promised(built / "small")
    plan = run_here("sits-build", "--region", changed.region, "--out", dataset.parent, "--plan", "--json")
    assert json.loads(plan.stdout)["datasets"][0]["standing"]["state"] == "complete"


@soak
def test_what_a_run_could_not_see_of_an_item_is_remembered(built: Path, changed: SmallArchive, tmp_path: Path) -> None:
    """Its sample cannot be read for one run, after which its pixels are others."""
    dataset = dataset_as_begun(built, tmp_path / "out")
    asset = changed.asset("31TEJ", DATES[0], "B04")
    hidden = asset.rename(asset.with_suffix(".away"))
    assert build_here(changed, dataset.parent).code == 3
    (line,) = [line for line in journal_lines(dataset) if line["kind"] == "plan"]
    assert line["items"][FIRST]["sample"] == next(iter(journal_lines(built / "small")))["items"][FIRST]["sample"]
    hidden.rename(asset)
    other_pixels(changed)
    before = cells_in_journal(dataset)
    refused = build_here(changed, dataset.parent)
    assert refused.code == 2
    assert f"{FIRST} (its pixels are others)" in refused.stderr
    assert cells_in_journal(dataset) == before
