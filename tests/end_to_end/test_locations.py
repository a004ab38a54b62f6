"""`sits-build --locations`: 50 simulated locations, compared with the archive's files, killed, taken up, damaged."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
import yaml
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.windows import from_bounds
from tests.end_to_end.archives import (
    Ended,
    command,
    journal_lines,
    kill,
    leftovers,
    run_here,
    start,
    wait_for,
)
from tests.end_to_end.building import EPSG, FIRST_X, FIRST_Y, Silent, build_region, extent, place_of
from tests.services.moto import BUCKET, moto_server

from sits_catalog.cube import check
from sits_catalog.locations import Location, read_locations
from sits_catalog.region import Imagery, Region, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.patches import (
    PatchSet,
    build_locations,
    dataset_as_json,
    dataset_in_words,
    plan_as_json,
    plan_in_words,
    plan_locations,
)
from sits_pipeline.simulate import write_archive
from sits_pipeline.sources import StacSource
from sits_pipeline.sources.access import Cost, Gate, Limit
from sits_pipeline.sources.base import SearchResult, ServiceDown
from sits_pipeline.values import AuditSample, Raster, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEASON = Season(start=date(2020, 9, 1), end=date(2022, 9, 30))
BANDS = ("B02", "B04", "B05", "B8A")
SIDE, DATES = 276, 5
N_LOCATIONS, A_SHARD = 50, 21
"""5 dates x 4 bands x 276 x 276 px x 2 bytes = 3.05 MB a patch, of which 21 fit into 64 MB: three shards."""


@dataclass(frozen=True)
class Places:
    """A simulated archive, 50 locations in it, and the files that tell `sits-build` of both."""

    folder: Path

    @property
    def catalog(self) -> Path:
        return self.folder / "archive" / "catalog.json"

    @property
    def locations(self) -> Path:
        return self.folder / "places.csv"

    def arguments(self, out: Path, *more: object) -> list[str]:
        return [
            "--region", str(self.folder / "places.yaml"), "--locations", str(self.locations), "--out", str(out),
            "--workers", "2", "--json", *map(str, more),
        ]  # fmt: skip

    def build(self, out: Path, *more: object) -> Ended:
        return run_here("sits-build", *self.arguments(out, *more))

    @cached_property
    def items(self) -> dict[str, dict[str, Any]]:
        """The archive's items by id, each with the folder of its files."""
        found = {}
        for path in (self.folder / "archive").rglob("*.json"):
            item = json.loads(path.read_text())
            if item.get("type") == "Feature":
                found[item["id"]] = {**item, "folder": path.parent}
        return found

    @cached_property
    def offsets(self) -> dict[str, int]:
        """What has to be added to the DN of each item, as the simulation knows and no item says."""
        truth = json.loads((self.folder / "archive" / "truth.json").read_text())
        return {name: int(entry["offset_to_apply"]) for name, entry in truth["items"].items()}

    def asset(self, item: str, band: str) -> Path:
        return Path(self.items[item]["folder"] / f"{band}.tif")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("places")
    grid = extent(width=600, height=540)
    write_archive(folder / "archive", grid, SEASON, climate="temperate", dates=100, seed=3, bands=BANDS)
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)
    with (folder / "places.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "lon", "lat"])
        for number in range(N_LOCATIONS):
            x, y = FIRST_X + 1500 + number % 10 * 333, FIRST_Y - 1450 - number // 10 * 611
            rows.writerow([f"place-{number:02d}", *map(repr, to_lonlat.transform(x, y))])
    region = {
        "id": "places",
        "season": {"start": SEASON.start.isoformat(), "end": SEASON.end.isoformat()},
        "place": {"bbox": [3.3, 48.6, 3.5, 48.7]},
        "imagery": {"source": "stac", "path": "archive/catalog.json", "bands": list(BANDS)},
    }
    (folder / "places.yaml").write_text(yaml.safe_dump(region))
    return Places(folder)


@dataclass(frozen=True)
class Built:
    """A finished dataset, read with zarr, pandas and pyarrow alone."""

    path: Path

    @cached_property
    def group(self) -> zarr.Group:
        return zarr.open_group(self.path / "cube.zarr", mode="r")

    @cached_property
    def table(self) -> pd.DataFrame:
        return pq.read_table(self.path / "patches.parquet").to_pandas()

    def array(self, name: str, patch: int) -> NDArray[Any]:
        return np.asarray(self.group[name][patch])

    @cached_property
    def promised(self) -> dict[str, str]:
        return promised(self.path)


def promised(dataset: Path) -> dict[str, str]:
    """SHA-256 of the files that a build gives back byte for byte."""
    files = [path for path in (dataset / "cube.zarr").rglob("*") if path.is_file()]
    files.append(dataset / "patches.parquet")
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("undisturbed")
    ended = places.build(out)
    assert ended.code == 0, ended.stderr
    assert (ended.outcome["complete"], ended.outcome["cells"], ended.outcome["built"]) == (True, 3, 3)
    return Built(out / "places")


@pytest.fixture
def dataset(built: Built, tmp_path: Path) -> Path:
    """A copy of the finished dataset, for tests that damage it."""
    return Path(shutil.copytree(built.path, tmp_path / "out" / "places"))


# What is in it


def test_every_location_has_five_distinct_dates_about_three_months_apart(built: Built) -> None:
    table = built.table
    assert list(table.patch) == list(range(N_LOCATIONS))
    assert list(table.id) == [f"place-{number:02d}" for number in range(N_LOCATIONS)]
    assert (table.status == "built").all()
    days = np.asarray(built.group["day"][...])
    assert days.shape == (N_LOCATIONS, DATES)
    assert (np.abs(np.diff(days, axis=1) - 84) <= 14).all()
    epoch = date(1970, 1, 1)
    assert days.tolist() == [[(day - epoch).days for day in row] for row in table.days]
    assert all(SEASON.start <= day <= SEASON.end for row in table.days for day in row)
    assert len(set(table["shift"])) > 30, "each location has a shift of its own"
    np.testing.assert_array_equal(np.stack(table.observed_share), np.ones((N_LOCATIONS, DATES)))


def test_patches_lie_on_the_lattice_around_their_points(places: Places, built: Built) -> None:
    to_metres = Transformer.from_crs(4326, EPSG, always_xy=True)
    for at, row in zip(read_locations(places.locations), built.table.itertuples(), strict=True):
        a, b, left, d, e, top = row.transform
        x, y = to_metres.transform(at.lon, at.lat)
        assert (row.epsg, a, b, d, e, left % 60, top % 60) == (EPSG, 10, 0, 0, -10, 0, 0)
        assert abs(left + 1380 - x) <= 30.01
        assert abs(top - 1380 - y) <= 30.01
        outline = shapely.from_wkb(row.geometry)
        assert shapely.contains(outline, shapely.Point(at.lon, at.lat))


def read_by_hand(path: Path, transform: tuple[float, ...]) -> NDArray[np.uint16]:
    """Pixels of a file around a patch, repeated to 10 m; 0 outside of the file."""
    left, top = transform[2], transform[5]
    with rasterio.open(path) as file:
        window = from_bounds(left, top - 10 * SIDE, left + 10 * SIDE, top, file.transform)
        factor = round(file.transform.a / 10)
        rows, columns = round(window.row_off), round(window.col_off)
        size = SIDE // factor
        found = file.read(1, window=((rows, rows + size), (columns, columns + size)), boundless=True, fill_value=0)
    return np.asarray(found.astype(np.uint16).repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize("patch", [0, 7, 20, 21, 33, 41, 42, 49])
def test_pixels_are_those_of_the_archives_files(places: Places, built: Built, patch: int) -> None:
    """First and last of each shard and a few between; scenes in their order, offset as the simulation knows it."""
    row = built.table.iloc[patch]
    reflectance, index = built.array("reflectance", patch), built.array("source_index", patch)
    scl, quality = built.array("scl", patch), built.array("quality", patch)
    for step, items in enumerate(row["items"]):
        expected = np.zeros((len(BANDS), SIDE, SIDE), np.int64)
        classes, source = np.zeros((SIDE, SIDE), np.uint8), np.full((SIDE, SIDE), 255, np.uint8)
        for position, item in enumerate(items):
            dn = np.stack([read_by_hand(places.asset(item, band), row["transform"]) for band in BANDS]).astype(np.int64)
            found = read_by_hand(places.asset(item, "SCL"), row["transform"]).astype(np.uint8)
            fresh = (source == 255) & (found > 0) & (dn > 0).any(axis=0)
            values = np.where(dn == 65535, 65535, np.maximum(dn + places.offsets[item], 1))
            expected[:, fresh] = values[:, fresh]
            classes[fresh], source[fresh] = found[fresh], position
        np.testing.assert_array_equal(reflectance[step], expected)
        np.testing.assert_array_equal(scl[step], classes)
        np.testing.assert_array_equal(index[step], source)
        assert (quality[step] & 1 == 1).all()
        cloudy = np.isin(classes, (8, 9))
        np.testing.assert_array_equal(quality[step] & 2 > 0, cloudy)
        saturated = (expected == 65535).any(axis=0) | (classes == 1)
        clear = ~np.isin(classes, (3, 8, 9, 10, 11)) & ~saturated
        assert row["clear_share"][step] == pytest.approx(clear.mean(), abs=1e-6)


def test_no_other_day_of_a_window_was_less_cloudy_and_filled_the_patch(places: Places, built: Built) -> None:
    """The choice against a plain search over all days: by footprints and by the files' own pixels."""
    by_day: dict[date, list[str]] = defaultdict(list)
    newest: dict[tuple[str, str, str], str] = {}
    for name, item in places.items.items():
        properties = item["properties"]
        key = (properties["datetime"][:16], name.split("_")[1], properties["platform"])
        newest[key] = max(newest.get(key, name), name, key=lambda n: _baseline(places.items[n]))
        by_day[date.fromisoformat(properties["datetime"][:10])].append(name)
    used = {name for row in built.table["items"] for items in row for name in items}

    @cache
    def clouds(day: date, patch: int) -> float | None:
        """Of the least cloudy order of the day's scenes; None where they leave a pixel."""
        row = built.table.iloc[patch]
        outline = shapely.from_wkb(row["geometry"])
        covered, cloud, seen = shapely.Polygon(), None, np.zeros((SIDE, SIDE), bool)
        scenes = sorted(by_day.get(day, ()), key=lambda name: places.items[name]["properties"]["eo:cloud_cover"])
        for name in scenes:
            covered = covered.union(shapely.from_geojson(json.dumps(places.items[name]["geometry"])))
            seen |= read_by_hand(places.asset(name, "SCL"), row["transform"]) > 0
            if cloud is None and covered.covers(outline):
                cloud = float(places.items[name]["properties"]["eo:cloud_cover"])
        return cloud if seen.all() else None

    better = []
    for patch in (0, 13, 27, 49):
        row = built.table.iloc[patch]
        for step, day in enumerate(row["days"]):
            middle = SEASON.end - timedelta(days=int(row["shift"]) + 84 * (DATES - 1 - step))
            assert abs((day - middle).days) <= 7
            window = [middle + timedelta(days=offset) for offset in range(-7, 8)]
            others = {other: clouds(other, patch) for other in window if SEASON.start <= other <= SEASON.end}
            least = min(cloud for cloud in others.values() if cloud is not None)
            if row["cloud_cover"][step] > least + 1e-6:
                better.append((patch, day, row["cloud_cover"][step], least))
    assert better == []
    assert used <= set(places.items)


def _baseline(item: dict[str, Any]) -> str:
    return str(item["properties"].get("s2:processing_baseline", item["properties"].get("processing:version")))


def test_sources_tell_of_every_item_of_every_patch_and_date(built: Built) -> None:
    sources = pq.read_table(built.path / "sources.parquet").to_pandas()
    used = sources[sources.status == "used"]
    listed = {(int(r.patch), int(r.date_index), int(r.source_index)): r.id for r in used.itertuples()}
    expected = {
        (int(row.patch), step, position): item
        for row in built.table.itertuples()
        for step, items in enumerate(row.items)
        for position, item in enumerate(items)
    }
    assert listed == expected
    assert set(used.boa_offset_applied) == {0, -1000}


def test_xarray_and_zarr_open_it_and_the_contract_holds(built: Built) -> None:
    assert check(built.path) == []
    array = built.group["reflectance"]
    assert isinstance(array, zarr.Array)
    assert array.shape == (N_LOCATIONS, DATES, len(BANDS), SIDE, SIDE)
    assert (array.chunks[0], array.shards[0] if array.shards else None) == (1, A_SHARD)
    with xr.open_zarr(built.path / "cube.zarr", mask_and_scale=False) as found:
        one = found.isel(patch=30).sel(band="B8A")
        np.testing.assert_array_equal(one.reflectance.values, built.array("reflectance", 30)[:, 3])
        assert found.quality.dtype == np.uint8
    attributes = built.group.attrs["sits_cube"]
    assert isinstance(attributes, dict)
    assert (attributes["profile"], attributes["simulated"], attributes["complete"]) == ("patches", True, True)
    facts = dataset_as_json(Folder(str(built.path)))
    assert len(facts["patches"]) == N_LOCATIONS
    assert "patches  50 (50 built), 5 dates, 276 px" in dataset_in_words(facts)


def test_statistics_are_those_of_all_clear_pixels(built: Built) -> None:
    attributes = built.group.attrs["sits_cube"]
    assert isinstance(attributes, dict)
    quality = np.asarray(built.group["quality"][...])
    clear = (quality & 1 > 0) & (quality & (2 | 4 | 8 | 16 | 32 | 128) == 0)
    for position, band in enumerate(BANDS):
        values = np.asarray(built.group["reflectance"][:, :, position])[clear] / 10_000
        found = attributes["statistics"][band]
        assert found["n"] == len(values)
        assert found["mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert found["std"] == pytest.approx(values.std(), abs=1e-6)


def test_the_report_is_one_page_that_says_it_is_simulated(built: Built) -> None:
    page = (built.path / "report.html").read_text()
    assert "Simulated data" in page
    assert page.count("<circle") == N_LOCATIONS
    assert page.count("data:image/png;base64,") == 4 * DATES


# Killed, taken up, damaged


@pytest.mark.soak
def test_the_python_entry_gives_the_same_bytes_whatever_the_number_of_workers(
    places: Places, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    wanted = PatchSet(id="places", season=SEASON, imagery=Imagery(source="stac", path=str(places.catalog), bands=BANDS))
    config = BuildConfig(out=str(tmp_path), workers=1)
    outcome = build_locations(read_locations(places.locations), wanted, config, Silent())
    assert outcome.complete
    assert promised(tmp_path / "places") == built.promised


def after_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def after_lines(dataset: Path, kind: str, more: int) -> Callable[[], bool]:
    def count() -> int:
        return sum(line["kind"] == kind for line in journal_lines(dataset))

    before = count()
    return lambda: count() >= before + more


def after_written(path: Path) -> Callable[[], bool]:
    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before = stamp()
    return lambda: stamp() != before


@pytest.mark.soak
def test_a_build_killed_again_and_again_ends_as_one_never_killed(places: Places, built: Built, tmp_path: Path) -> None:
    """Each instant is tried until a kill lands there, in a folder of its own where the build was faster."""
    rng = random.Random(4)
    instants: list[tuple[str, Callable[[Path], Callable[[], bool]]]] = [
        ("early", lambda dataset: after_seconds(rng.uniform(0, 2))),
        ("choosing", lambda dataset: after_lines(dataset, "location", 7)),
        ("choosing again", lambda dataset: after_lines(dataset, "location", 20)),
        ("created", lambda dataset: after_written(dataset / "cube.zarr" / "zarr.json")),
        ("a shard", lambda dataset: after_lines(dataset, "cell", 1)),
        ("another", lambda dataset: after_lines(dataset, "cell", 1)),
        ("patches", lambda dataset: after_written(dataset / "patches.parquet")),
    ]
    landed: list[str] = []
    attempt = 0
    while len(landed) < len(instants):
        attempt += 1
        assert attempt <= 8, f"a build of 50 patches is too quick to be killed: {landed}"
        dataset = tmp_path / f"out-{attempt}" / "places"
        arguments = command("sits-build", *places.arguments(dataset.parent))
        for name, instant in instants[len(landed) :]:
            come = instant(dataset)
            process = start(arguments)
            wait_for(lambda come=come, process=process: come() or process.poll() is not None, seconds=120)
            if not kill(process):
                break
            landed.append(name)
        assert_ends_as(places, built, dataset)


def assert_ends_as(places: Places, built: Built, dataset: Path) -> None:
    """Taken up, it becomes what a build that nobody disturbed has written."""
    ended = places.build(dataset.parent)
    assert (ended.code, ended.outcome["complete"]) == (0, True), ended.stderr
    assert promised(dataset) == built.promised
    assert leftovers(dataset.parent) == []
    assert run_here("sits-cube", "verify", dataset).code == 0
    assert sorted(path.name for path in dataset.iterdir()) == sorted(path.name for path in built.path.iterdir())


def test_a_finished_build_does_nothing_again(places: Places, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    ended = places.build(dataset.parent)
    assert (ended.code, ended.outcome["complete"], ended.outcome["built"]) == (0, True, 0)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_verify_is_content_and_names_a_flipped_byte(dataset: Path) -> None:
    assert run_here("sits-cube", "verify", dataset).code == 0
    for name in ("cube.zarr/reflectance/c/1/0/0/0/0", "patches.parquet", "cube.zarr/day/c/0/0", "report.html"):
        path = dataset / name
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 3] ^= 0x10
        path.write_bytes(flipped)
        ended = run_here("sits-cube", "verify", dataset)
        assert ended.code == 1
        assert ended.stdout.startswith(f"{name}: ") or f"\n{name}: " in ended.stdout
        path.write_bytes(data)


def test_a_missing_shard_and_damaged_metadata_are_restored(places: Places, built: Built, dataset: Path) -> None:
    (dataset / "cube.zarr" / "reflectance" / "c" / "2" / "0" / "0" / "0" / "0").unlink()
    (dataset / "cube.zarr" / "scl" / "zarr.json").write_text("{}")
    ended = places.build(dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 1)
    assert promised(dataset) == built.promised
    assert run_here("sits-cube", "verify", dataset).code == 0


@pytest.mark.soak
def test_a_source_that_cannot_be_read_is_listed_and_read_by_the_next_run(
    places: Places, built: Built, tmp_path: Path
) -> None:
    row = built.table.iloc[3]
    item = row["items"][1][0]
    touched = {int(r.patch) for r in built.table.itertuples() if any(item in items for items in r.items)}
    with hidden(places.asset(item, "B05")):
        ended = places.build(tmp_path / "out")
        assert (ended.code, ended.outcome["complete"]) == (3, False)
        assert {failure["item"] for failure in ended.outcome["failures"]} == {item}
        assert {failure["patch"] for failure in ended.outcome["failures"]} == touched
    found = Built(tmp_path / "out" / "places")
    states = {int(r.patch): r.status for r in found.table.itertuples()}
    assert states == {patch: "unread" if patch in touched else "built" for patch in range(N_LOCATIONS)}
    assert f"{item} B05: " in found.table.iloc[3]["reason"]
    quality, before = found.array("quality", 3), built.array("quality", 3)
    lost = quality[1] == 128
    assert lost.any()
    np.testing.assert_array_equal(lost, built.array("source_index", 3)[1] == 0)
    assert (found.array("reflectance", 3)[1][:, lost] == 0).all()
    np.testing.assert_array_equal(quality[[0, 2, 3, 4]], before[[0, 2, 3, 4]])
    assert run_here("sits-cube", "verify", found.path).code == 3
    again = places.build(tmp_path / "out")
    assert (again.code, again.outcome["complete"]) == (0, True), again.stderr
    assert again.outcome["built"] == len({patch // A_SHARD for patch in touched})
    assert promised(found.path) == built.promised


@contextmanager
def hidden(path: Path) -> Iterator[None]:
    away = path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        away.rename(path)


def few(places: Places) -> tuple[Location, ...]:
    """One shard of locations."""
    return tuple(read_locations(places.locations)[:6])


def few_of(places: Places, catalog: Path | None = None, **changes: Any) -> PatchSet:
    imagery = Imagery(source="stac", path=str(catalog or places.catalog), bands=BANDS)
    return PatchSet(**{"id": "few", "season": SEASON, "imagery": imagery, **changes})


@pytest.fixture(scope="module")
def few_built(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Built:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "1700000000")
        out = tmp_path_factory.mktemp("few")
        assert build_locations(few(places), few_of(places), BuildConfig(out=str(out), workers=1), Silent()).complete
    return Built(out / "few")


@pytest.fixture
def few_out(few_built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a copy of the finished dataset of six locations is."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    shutil.copytree(few_built.path, tmp_path / "out" / "few")
    return tmp_path / "out"


def test_other_locations_or_another_season_do_not_take_the_place_of_these_nor_touch_them(
    places: Places, few_out: Path
) -> None:
    config, (first, *others) = BuildConfig(out=str(few_out), workers=1), few(places)
    before = {path: path.read_bytes() for path in few_out.rglob("*") if path.is_file()}
    moved = (replace(first, lon=first.lon + 0.001), *others)
    shorter = few_of(places, season=Season(start=SEASON.start, end=SEASON.end - timedelta(days=1)))
    for locations, wanted in ((others, few_of(places)), (moved, few_of(places)), ((first, *others), shorter)):
        with pytest.raises(ValueError, match=r"holds another dataset .*choose another --out"):
            build_locations(locations, wanted, config, Silent())
    assert {path: path.read_bytes() for path in few_out.rglob("*") if path.is_file()} == before
    assert run_here("sits-cube", "verify", few_out / "few").code == 0


def test_a_dataset_of_a_region_is_left_as_it_is(places: Places, tmp_path: Path) -> None:
    grid = extent(left=100, top=100, width=96, height=96)
    region = Region(
        id="few", season=Season(start=date(2022, 5, 1), end=date(2022, 6, 1)), place=place_of(grid, tmp_path / "area"),
        imagery=Imagery(source="stac", path=str(places.catalog), bands=BANDS),
    )  # fmt: skip
    dataset = build_region(region, tmp_path / "out", workers=1)
    assert (dataset.complete, dataset.findings()) == (True, [])
    with pytest.raises(ValueError, match=r"of the profile 'region', and this build writes 'patches'; choose another"):
        build_locations(few(places), few_of(places), BuildConfig(out=str(tmp_path / "out")), Silent())
    assert dataset.findings() == []


def linked(places: Places, folder: Path) -> Path:
    """The archive by another name, so that its catalogue can be changed; pixels are those of the archive."""
    shutil.copytree(places.folder / "archive", folder, copy_function=os.link)
    return folder / "catalog.json"


def test_an_item_that_goes_and_comes_back_leaves_a_finished_set_as_it_is(
    places: Places, few_built: Built, few_out: Path, tmp_path: Path
) -> None:
    catalog = linked(places, tmp_path / "archive")
    wanted, config = few_of(places, catalog), BuildConfig(out=str(few_out), workers=1)
    item = few_built.table.iloc[2]["items"][3][0]
    (described,) = [path for path in catalog.parent.rglob("*.json") if json.loads(path.read_text()).get("id") == item]
    links = [path for path in catalog.parent.rglob("*.json") if described.name in path.read_text()]
    with without_links(links, described):
        with pytest.raises(ValueError, match=rf"are gone from the source, and shards .*{item}.*put them back"):
            build_locations(few(places), wanted, config, Silent())
        with pytest.raises(ValueError, match=r"rest on other items, .*leave --search-again out"):
            build_locations(few(places), wanted, replace(config, search_again=True), Silent())
        assert run_here("sits-cube", "verify", few_out / "few").code == 0
    again = build_locations(few(places), wanted, config, Silent())
    assert (again.complete, again.built) == (True, 0)
    assert promised(few_out / "few") == few_built.promised
    assert run_here("sits-cube", "verify", few_out / "few").code == 0


@contextmanager
def without_links(documents: Sequence[Path], target: Path) -> Iterator[None]:
    """Documents of a catalogue while no link of theirs leads to an item."""
    before = {path: path.read_text() for path in documents}
    for path, text in before.items():
        document = json.loads(text)
        if "links" in document and document.get("type") != "Feature":
            kept = [link for link in document["links"] if not _leads_to(path, link, target)]
            path.unlink()  # the other name of the file stays as it is
            path.write_text(json.dumps({**document, "links": kept}))
    try:
        yield
    finally:
        for path, text in before.items():
            path.write_text(text)


def _leads_to(path: Path, link: dict[str, Any], target: Path) -> bool:
    return "://" not in link["href"] and (path.parent / link["href"]).resolve() == target.resolve()


@pytest.mark.soak
def test_a_fault_that_passes_while_choosing_ends_in_the_same_choices(
    places: Places, few_built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classification, or the bands of an audit, that cannot be read in one run and can in the next."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for band, row in (("SCL", 1), ("B04", 4)):
        item, out = few_built.table.iloc[row]["items"][2][0], tmp_path / band
        config = BuildConfig(out=str(out), workers=1)
        with (
            hidden(places.asset(item, band)),
            pytest.raises(RuntimeError, match=rf"locations are not chosen yet, .*{item}.*run the same command again"),
        ):
            build_locations(few(places), few_of(places), config, Silent())
        assert not (out / "few" / "cube.zarr").exists()
        assert build_locations(few(places), few_of(places), config, Silent()).complete
        assert promised(out / "few") == few_built.promised
        assert run_here("sits-cube", "verify", out / "few").code == 0


def test_a_fault_that_lasts_is_built_as_unread_by_the_second_run_and_mended_by_a_later_one(
    places: Places, few_built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    item, config = few_built.table.iloc[1]["items"][2][0], BuildConfig(out=str(tmp_path / "out"), workers=1)
    with hidden(places.asset(item, "B04")):
        with pytest.raises(RuntimeError, match="are not chosen yet"):
            build_locations(few(places), few_of(places), config, Silent())
        second = build_locations(few(places), few_of(places), config, Silent())
    assert (second.complete, {failure["item"] for failure in second.failures}) == (False, {item})
    assert run_here("sits-cube", "verify", tmp_path / "out" / "few").code == 3
    lines = journal_lines(tmp_path / "out" / "few")
    assert {name for line in lines if line["kind"] == "location" for name in line.get("unread", ())} == {item}
    third = build_locations(few(places), few_of(places), config, Silent())
    assert (third.complete, third.built) == (True, 1)
    assert promised(tmp_path / "out" / "few") == few_built.promised


def test_a_location_beside_the_archive_is_listed_with_the_reason_and_lost_to_nobody(
    places: Places, tmp_path: Path
) -> None:
    wanted = PatchSet(id="two", season=SEASON, imagery=Imagery(source="stac", path=str(places.catalog), bands=BANDS))
    (here, *_), away = read_locations(places.locations), Location("away", 3.9, 48.2)
    outcome = build_locations((away, here), wanted, BuildConfig(out=str(tmp_path), workers=1), Silent())
    assert outcome.complete
    assert outcome.refused == ("1 of 2 locations, for want of acquisitions: away",)
    found = Built(tmp_path / "two")
    assert list(found.table.status) == ["no acquisition", "built"]
    assert found.table.iloc[0]["reason"] == "no acquisition was found that covers the whole patch"
    assert list(found.table.n_dates) == [0, 5]
    assert (np.asarray(found.group["day"][0]) == -2147483648).all()
    assert not found.array("quality", 0).any()
    assert found.array("quality", 1).any()
    assert check(found.path) == []
    assert run_here("sits-cube", "verify", found.path).code == 0


def test_where_no_location_has_acquisitions_nothing_is_written(places: Places, tmp_path: Path) -> None:
    wanted = PatchSet(id="none", season=SEASON, imagery=Imagery(source="stac", path=str(places.catalog), bands=BANDS))
    with pytest.raises(ValueError, match=r"none of the 1 locations has acquisitions .*check the season"):
        build_locations((Location("away", 3.9, 48.2),), wanted, BuildConfig(out=str(tmp_path)), Silent())
    assert not (tmp_path / "none").exists()


def test_a_simulated_season_with_too_few_dates_says_which_number_to_raise(places: Places, tmp_path: Path) -> None:
    here = read_locations(places.locations)[0]
    season = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
    wanted = few_of(places, season=season, imagery=Imagery(source="simulated", dates=4, bands=("B02", "B04")))
    with pytest.raises(ValueError, match=r"imagery.dates 4 in 365 days, .* set imagery.dates to 73 or so"):
        build_locations((here,), wanted, BuildConfig(out=str(tmp_path)), Silent())
    assert not (tmp_path / "few").exists()


def test_a_plan_says_what_would_be_built_and_writes_nothing(places: Places, tmp_path: Path) -> None:
    ended = places.build(tmp_path / "out", "--plan")
    assert ended.code == 0
    facts = json.loads(ended.stdout)
    assert (facts["patches"], facts["shards"], len(facts["locations"])) == (N_LOCATIONS, 3, N_LOCATIONS)
    assert all(len(place["days"]) == DATES for place in facts["locations"])
    assert not (tmp_path / "out" / "places").exists()


# A service


@dataclass(frozen=True)
class Service:
    """The archive behind an API: a source that counts how often it is searched and sampled."""

    files: StacSource
    log: Path
    units: float = 0.0
    """Processing units that a scene of a patch costs."""
    dearer: float = 1.0
    """How many times what it said it charges."""

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        self._note("search")
        return self.files.search(area, season)

    def sample(self, scene: Scene) -> AuditSample:
        self._note("sample")
        return self.files.sample(scene)

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        for raster in self.files.read(scenes, geobox, bands, pad=pad):
            yield replace(raster, processing_units=self.units * self.dearer)

    @property
    def query(self) -> dict[str, Any]:
        return {}

    def find(self, area: shapely.Geometry, season: Season) -> list[dict[str, Any]]:
        raise AssertionError("search is asked")

    def scenes_from(self, items: Sequence[dict[str, Any]], area: shapely.Geometry, season: Season) -> SearchResult:
        raise AssertionError("search is asked")

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (Limit(name="archive", at_once=3, a_minute=0),)

    def through(self, gates: Mapping[str, Gate]) -> Service:
        assert set(gates) == {"archive"}
        return self

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        return Cost(requests=len(scenes), processing_units=self.units * len(scenes))

    def sample_cost(self, scene: Scene) -> Cost:
        return Cost(requests=1, processing_units=self.units / 100)

    def _note(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what}\n")

    def asked(self) -> dict[str, int]:
        """How often since the last time."""
        words = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return {what: words.count(what) for what in set(words)}


def test_a_service_is_asked_once_a_location_and_never_again(
    places: Places, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(StacSource(str(places.catalog)), tmp_path / "log")
    monkeypatch.setattr("sits_pipeline.patches.prepare.open_source", lambda region, *_: (service, region))
    wanted = PatchSet(id="few", season=SEASON, imagery=Imagery(source="stac-api", path="http://x/", bands=BANDS))
    locations, config = read_locations(places.locations)[:6], BuildConfig(out=str(tmp_path / "out"), workers=1)
    first = build_locations(locations, wanted, config, Silent())
    dataset, asked = tmp_path / "out" / "few", service.asked()
    assert (first.complete, first.built, asked["search"]) == (True, 1, 6)
    items = {item for row in Built(dataset).table["items"] for date_items in row for item in date_items}
    assert asked["sample"] >= len(items)
    before = promised(dataset)
    again = build_locations(locations, wanted, config, Silent())
    assert (again.complete, again.built, service.asked()) == (True, 0, {})
    (dataset / "cube.zarr" / "scl" / "c" / "0" / "0" / "0" / "0").unlink()
    restored = build_locations(locations, wanted, config, Silent())
    assert (restored.complete, restored.built, service.asked()) == (True, 1, {})
    anew = build_locations(locations, wanted, replace(config, search_again=True), Silent())
    assert (anew.complete, anew.built, service.asked()["search"]) == (True, 0, 6)
    assert promised(dataset) == before
    assert run_here("sits-cube", "verify", dataset).code == 0
    for patch in range(6):
        np.testing.assert_array_equal(Built(dataset).array("reflectance", patch), built.array("reflectance", patch))


def test_a_choice_that_was_journaled_before_a_kill_is_not_asked_for_again(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search of the fourth location ends the first run, as a service that is down does."""
    service = Service(StacSource(str(places.catalog)), tmp_path / "log")
    locations, config = read_locations(places.locations)[:6], BuildConfig(out=str(tmp_path / "out"), workers=1)
    fourth = shapely.Point(locations[3].lon, locations[3].lat)

    @dataclass(frozen=True)
    class Failing(Service):
        def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
            if shapely.distance(shapely.centroid(area), fourth) < 1e-3:
                raise ServiceDown("https://x/ answers nothing")
            return super().search(area, season)

    wanted = PatchSet(id="few", season=SEASON, imagery=Imagery(source="stac-api", path="http://x/", bands=BANDS))
    failing = Failing(service.files, service.log)
    monkeypatch.setattr("sits_pipeline.patches.prepare.open_source", lambda region, *_: (failing, region))
    with pytest.raises(ServiceDown, match="answers nothing"):
        build_locations(locations, wanted, config, Silent())
    kept = sum(line["kind"] == "location" for line in journal_lines(tmp_path / "out" / "few"))
    assert kept == 3
    service.asked()
    monkeypatch.setattr("sits_pipeline.patches.prepare.open_source", lambda region, *_: (service, region))
    assert build_locations(locations, wanted, config, Silent()).complete
    assert service.asked()["search"] == 3


# What a service charges


def use(patched: pytest.MonkeyPatch, service: Service) -> None:
    patched.setattr("sits_pipeline.patches.prepare.open_source", lambda region, *_: (service, region))


def metered(places: Places, log: Path, *, dearer: float = 1.0) -> tuple[Service, PatchSet]:
    """A service of which a scene of a patch costs 1 unit and a look at an item 0.01."""
    imagery = Imagery(source="stac-api", path="http://x/", bands=BANDS)
    service = Service(StacSource(str(places.catalog)), log, units=1.0, dearer=dearer)
    return service, few_of(places, imagery=imagery)


def test_a_plan_of_a_service_says_what_it_will_be_asked_for_and_charge(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, wanted = metered(places, tmp_path / "log")
    use(monkeypatch, service)
    away = Location("away", 3.9, 48.2)
    plan = plan_locations((*few(places), away), wanted, BuildConfig(out=str(tmp_path / "out")), Silent())
    facts, said = plan_as_json(plan), plan_in_words(plan)
    assert (facts["requests"], facts["processing_units"]) == (facts["scenes"], facts["scenes"])
    looked_at = service.asked()["sample"]
    assert facts["audit_processing_units"] == pytest.approx(0.01 * looked_at)
    assert f"GB of pixels in {facts['scenes']} requests" in said
    assert f"charged    {facts['scenes']:.1f} processing units (PU) of Sentinel Hub, beside 0." in said
    assert "not found  away: no acquisition was found that covers the whole patch" in said
    assert not (tmp_path / "out" / "few").exists()


def test_units_of_looks_and_of_shards_are_held_under_the_bound(
    places: Places, few_built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, wanted = metered(places, tmp_path / "log")
    use(monkeypatch, service)
    config = BuildConfig(out=str(tmp_path / "out"), workers=1)
    plan = plan_locations(few(places), wanted, config, Silent())
    looks, reads = plan.audit_units, plan_as_json(plan)["processing_units"]
    assert looks > 0.1

    service.asked()
    with pytest.raises(RuntimeError, match=r"not all acquisitions are chosen: .*higher --max-pu, which goes on"):
        build_locations(few(places), wanted, replace(config, max_pu=looks - 0.05), Silent())
    assert service.asked()["sample"] == round((looks - 0.05) / 0.01)
    with pytest.raises(ValueError, match=rf"needs {reads:.1f} processing units beside .*--max-pu allows"):
        build_locations(few(places), wanted, replace(config, max_pu=looks + reads - 0.5), Silent())
    assert not (tmp_path / "out" / "few" / "cube.zarr").exists()
    kept = [line for line in journal_lines(tmp_path / "out" / "few") if line["kind"] == "location"]
    assert sum(line.get("processing_units", 0.0) for line in kept) >= looks - 1e-6

    service.asked()
    outcome = build_locations(few(places), wanted, replace(config, max_pu=2 * looks + reads), Silent())
    assert (outcome.complete, service.asked()) == (True, {})
    assert 0 < outcome.processing_units <= reads


@pytest.mark.soak
def test_a_service_that_charges_more_than_it_said_is_stopped_in_time(
    places: Places, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards; the second would pass the bound."""
    service, wanted = metered(places, tmp_path / "log", dearer=2.0)
    use(monkeypatch, service)
    locations, config = read_locations(places.locations), BuildConfig(out=str(tmp_path / "out"), workers=1)
    plan = plan_locations(locations, wanted, config, Silent())
    bound = plan.audit_units + plan_as_json(plan)["processing_units"]
    with pytest.raises(RuntimeError, match=r"are not built: .*run the same command with a higher --max-pu"):
        build_locations(locations, wanted, replace(config, max_pu=bound), Silent())
    cells = [line for line in journal_lines(tmp_path / "out" / "few") if line["kind"] == "cell"]
    assert 0 < len(cells) < 3
    outcome = build_locations(locations, wanted, config, Silent())
    assert (outcome.complete, outcome.built) == (True, 3 - len(cells))
    np.testing.assert_array_equal(
        Built(tmp_path / "out" / "few").array("reflectance", 49), built.array("reflectance", 49)
    )


# An object store


@pytest.mark.soak
def test_a_set_is_written_to_an_object_store_and_taken_up_there(
    places: Places, few_built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with moto_server() as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        config = BuildConfig(out=f"s3://{BUCKET}/sets", workers=1)
        assert build_locations(few(places), few_of(places), config, Silent()).complete
        prefix = "sets/few/"
        stored = {key.removeprefix(prefix): store.read(key) for key in store.keys(prefix)}
        assert {name: hashlib.sha256(stored[name]).hexdigest() for name in few_built.promised} == few_built.promised
        assert "journal.jsonl" in stored
        assert not [name for name in stored if name.startswith("journal/")]
        assert run_here("sits-cube", "verify", f"s3://{BUCKET}/sets/few").code == 0
        store.client().delete_object(Bucket=BUCKET, Key=f"{prefix}cube.zarr/scl/c/0/0/0/0")
        again = build_locations(few(places), few_of(places), config, Silent())
        assert (again.complete, again.built) == (True, 1)
        assert run_here("sits-cube", "verify", f"s3://{BUCKET}/sets/few").code == 0
