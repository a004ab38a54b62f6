"""What a user may get wrong: one clear sentence, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
import yaml
import zarr
from tests.end_to_end.archives import (
    EPSG,
    Ended,
    SmallArchive,
    build_here,
    region_document,
    run,
    run_here,
    write_parcels,
    write_small_archive,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    return write_small_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def finished(archive: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished dataset."""
    out = tmp_path_factory.mktemp("out")
    assert build_here(archive, out).code == 0
    return out


def files(folder: Path) -> dict[str, int]:
    """Everything below a folder, with its time."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_refused(ended: Ended, *says: str, code: int = 2) -> None:
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.stderr.endswith(sentence + "\n")
    for part in says:
        assert part in sentence


def build_with(archive: SmallArchive, out: Path, *more: object, **changes: Any) -> Ended:
    """Build with some keys of the region file changed; it stands in the archive's folder while it is read."""
    region = archive.folder / f"changed-{out.parent.name}.yaml"
    region.write_text(yaml.safe_dump(region_document(**changes), sort_keys=False))
    try:
        return run_here("sits-build", "--region", region, "--out", out, "--cell", "512", *more)
    finally:
        region.unlink()


def parcels(path: Path, **keys: str) -> dict[str, Any]:
    return {"parcels": {"path": str(path), "id": "key", "code": "crop", **keys}}


# Parcels


def test_parcels_without_a_crs_are_refused(archive: SmallArchive, tmp_path: Path) -> None:
    path = write_parcels(tmp_path / "parcels.shp", crs=None)
    assert_refused(build_with(archive, tmp_path / "out", **parcels(path)), str(path), "states no CRS", "parcels: crs")
    assert not (tmp_path / "out").exists()


def test_parcels_with_swapped_axes_are_refused(archive: SmallArchive, tmp_path: Path) -> None:
    table = geopandas.read_parquet(archive.folder / "parcels.parquet").to_crs(4326)
    table.geometry = shapely.transform(table.geometry.to_numpy(), lambda points: points[:, ::-1])
    table.to_parquet(tmp_path / "swapped.parquet")
    ended = build_with(archive, tmp_path / "out", **parcels(tmp_path / "swapped.parquet"))
    assert_refused(ended, "with x and y swapped they would meet", "longitude (easting) first")
    assert not (tmp_path / "out").exists()


def test_parcels_elsewhere_are_refused(archive: SmallArchive, tmp_path: Path) -> None:
    path = write_parcels(tmp_path / "parcels.parquet", move=(50_000, 0))
    ended = build_with(archive, tmp_path / "out", **parcels(path))
    assert_refused(ended, "no parcel of", "the parcels lie at", "the region at")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["code", "id"])
def test_an_unknown_column_is_refused_with_those_there_are(archive: SmallArchive, tmp_path: Path, key: str) -> None:
    ended = build_with(archive, tmp_path / "out", **parcels(archive.folder / "parcels.parquet", **{key: "LC1"}))
    assert_refused(ended, "no column 'LC1'", "it has key, crop")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["parcels.gpkg", "parcels.shp", "parcels.geojson", "parcels.parquet", "parcels.zip"])
def test_a_text_that_calls_itself_a_vector_file_is_refused(archive: SmallArchive, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("dear sirs,\nplease find attached the parcels\n")
    assert_refused(build_with(archive, tmp_path / "out", **parcels(tmp_path / name)), name, "cannot be read")
    assert not (tmp_path / "out").exists()


def test_a_missing_parcels_file_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build_with(archive, tmp_path / "out", **parcels(tmp_path / "none.gpkg"))
    assert_refused(ended, "none.gpkg", "no such file")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    path = write_parcels(tmp_path / "parcels.parquet")
    path.chmod(0)
    assert_refused(build_with(archive, tmp_path / "out", **parcels(path)), "parcels.parquet")
    assert not (tmp_path / "out").exists()


def test_an_unknown_crs_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    path = write_parcels(tmp_path / "parcels.shp", crs=None)
    ended = build_with(archive, tmp_path / "out", **parcels(path, crs="EPSG:99999"))
    assert_refused(ended, "EPSG:99999")
    assert not (tmp_path / "out").exists()


def test_parcel_chips_need_parcels(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build_with(archive, tmp_path / "out", "--chips", "parcel", parcels=None)
    assert_refused(ended, "--chips parcel needs parcels", "--parcels")
    assert not (tmp_path / "out").exists()


# Place, season, scenes


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("3.32,43.6,3.29,43.7", "west 3.32 is greater than east 3.29"),
        ("3.29,43.7,3.32,43.6", "south 43.7 is greater than north 43.6"),
        ("-41.5,172.0,-41.4,172.1", "latitude seems to come first"),
        ("3.29,43.6,3.32", "four numbers"),
        ("3.29,43.6,3.29,43.7", "no area"),
        ("179.9,10,-179.9,10.1", "antimeridian"),
    ],
)
def test_a_box_in_the_wrong_order_is_refused(tmp_path: Path, box: str, says: str) -> None:
    ended = run_here("sits-build", "--region", box, "--season", "2023-04-01/2023-06-30", "--out", tmp_path / "out")
    assert_refused(ended, says)
    assert not (tmp_path / "out").exists()


def test_a_box_without_a_season_is_refused(tmp_path: Path) -> None:
    assert_refused(run_here("sits-build", "--region", "3.2,43.6,3.3,43.7", "--out", tmp_path / "out"), "--season")
    assert not (tmp_path / "out").exists()


def test_a_reversed_season_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    reversed_ = {"start": "2023-06-30", "end": "2023-04-01"}
    assert_refused(build_with(archive, tmp_path / "out", season=reversed_), "swap start and end")
    assert_refused(build_with(archive, tmp_path / "out", "--season", "2023-06-30/2023-04-01"), "swap start and end")
    assert_refused(build_with(archive, tmp_path / "out", "--season", "April"), "first and last day")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_region_without_scenes_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    season = {"start": "2020-04-01", "end": "2020-06-30"}
    ended = build_with(archive, tmp_path / "out", season=season)
    assert_refused(ended, "has no scene over", "2020-04-01 and 2020-06-30", "check the season, the place and the path")
    place = {"bbox": [12.0, 50.0, 12.1, 50.1]}
    assert_refused(build_with(archive, tmp_path / "out", place=place, parcels=None), "has no scene over", "11.979")
    imagery = {"source": "stac", "path": "catalog.json", "bands": ["B02"], "max_cloud": 1}
    assert_refused(build_with(archive, tmp_path / "out", imagery=imagery), "none of the 8 scenes", "cloudy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"hello": 1}', "not a STAC catalogue"),
        ('{"type": "Catalog", "links": 3}', "links"),
    ],
)
def test_a_catalogue_that_is_none_is_refused(archive: SmallArchive, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "catalog.json").write_text(text)
    assert_refused(build_with(archive, tmp_path / "out", "--source-path", tmp_path / "catalog.json"), says)
    assert not (tmp_path / "out").exists()


def test_a_catalogue_that_is_not_there_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build_with(archive, tmp_path / "out", "--source-path", tmp_path / "none.json")
    assert_refused(ended, "no STAC catalogue at", "none.json")
    ended = build_with(archive, tmp_path / "out", "--source", "safe", "--source-path", tmp_path / "none")
    assert_refused(ended, "none")
    assert not (tmp_path / "out").exists()


# The region file


def region_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("id: small", "id: small\ncolour: red"), ("mine.yaml:2: ", "colour")),
        (lambda text: text.replace("  code: crop", "  code: crop\n  cod: crop"), ("mine.yaml:22: ", "'cod'")),
        (lambda text: text.replace("- B05", "- B5"), ("B5", "bands must be")),
        (lambda text: text.replace("id: small", "id: Small Region"), ("Small Region",)),
        (lambda text: text.replace("  bbox:", "  box:"), ("box",)),
        (lambda text: text.replace("source: stac", "source: landsat"), ("landsat",)),
        (lambda text: text.replace("block_m: 1280", "block_m: 1000"), ("block_m", "640")),
        (lambda text: text + "taxonomy: none.csv\n", ("none.csv",)),
        (lambda text: text + "  : ]\n", ("mine.yaml",)),
        (lambda text: "", ("mine.yaml",)),
    ],
)
def test_a_region_file_with_a_mistake_is_refused_with_the_place_of_it(
    archive: SmallArchive, tmp_path: Path, change: Callable[[str], str], says: tuple[str, ...]
) -> None:
    text = archive.region.read_text().replace("catalog.json", str(archive.folder / "catalog.json"))
    text = text.replace("parcels.parquet", str(archive.folder / "parcels.parquet"))
    changed = change(text)
    assert changed != text
    ended = run_here("sits-build", "--region", region_file(tmp_path, changed), "--out", tmp_path / "out")
    assert_refused(ended, *says)
    assert not (tmp_path / "out").exists()


def test_an_unknown_region_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert_refused(
        run_here("sits-build", "--region", "dmo", "--out", tmp_path / "out"), "'dmo'", "demo", "did you mean"
    )
    assert_refused(run_here("sits-build", "--region", tmp_path, "--out", tmp_path / "out"), str(tmp_path))
    assert_refused(run_here("sits-build", "--region", tmp_path / "a.yaml", "--out", tmp_path / "out"), "a.yaml")
    assert_refused(run_here("sits-build", "--region", tmp_path / "a.geojson", "--out", tmp_path / "out"), "a.geojson")
    assert not (tmp_path / "out").exists()


def test_a_cell_that_is_not_made_of_whole_shards_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    assert_refused(build_with(archive, tmp_path / "out", "--cell", "700"), "whole shards of 512 px", "700")
    assert not (tmp_path / "out").exists()


def test_memory_that_is_too_small_for_a_cell_leaves_nothing_behind(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build_here(archive, tmp_path / "out", "--memory", "0.01")
    assert_refused(ended, "the cell at row 0, column 0 needs", "even shard by shard", "--memory", code=1)
    assert not (tmp_path / "out" / "small").exists()


def test_a_band_that_the_source_does_not_have_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    imagery = {"source": "stac", "path": "catalog.json", "bands": ["B01", "B02", "B8A"]}
    ended = build_with(archive, tmp_path / "out", imagery=imagery)
    assert_refused(ended, "the source has bands B02, B04, B05, the region asks for B01, B8A: name imagery.bands")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_time_that_is_none_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    ended = run("sits-build", "--region", archive.region, "--out", tmp_path / "out", SOURCE_DATE_EPOCH="abc")
    says = "SOURCE_DATE_EPOCH must be seconds since 1970-01-01 as a whole number; got 'abc'"
    assert_refused(Ended(ended.returncode, ended.stdout, ended.stderr), says)
    assert not (tmp_path / "out").exists()


# What stands at --out already


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"imagery": {"source": "stac", "path": "catalog.json", "bands": ["B02", "B04"]}},
        {"season": {"start": "2023-04-01", "end": "2023-05-31"}},
        {"labels": {"rule": "center"}},
        {"parcels": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_cube_at_the_place_is_refused_and_left_alone(
    archive: SmallArchive, finished: Path, changes: dict[str, Any]
) -> None:
    before = files(finished)
    assert_refused(build_with(archive, finished, **changes), "holds another cube", "config_sha256", "--out")
    assert files(finished) == before


@pytest.mark.slow
def test_a_build_goes_on_with_the_cells_and_chips_it_was_begun_with(archive: SmallArchive, finished: Path) -> None:
    before = files(finished)
    assert_refused(build_here(archive, finished, "--cell", "1024"), "cells of 512 px", "leave --cell out")
    assert_refused(build_here(archive, finished, "--chips", "parcel"), "begun with --chips grid")
    assert files(finished) == before


def foreign_group(folder: Path) -> None:
    zarr.create_group(folder / "small" / "cube.zarr", attributes={"mine": 1})


def foreign_array(folder: Path) -> None:
    zarr.create_array(folder / "small" / "cube.zarr", shape=(3,), dtype="u1")


def foreign_old_group(folder: Path) -> None:
    zarr.create_group(folder / "small" / "cube.zarr", zarr_format=2, attributes={"mine": 1})


def damaged_root(folder: Path) -> None:
    (folder / "small" / "cube.zarr").mkdir(parents=True)
    (folder / "small" / "cube.zarr" / "zarr.json").write_text("{")


def photographs(folder: Path) -> None:
    (folder / "small" / "cube.zarr").mkdir(parents=True)
    (folder / "small" / "cube.zarr" / "wedding.jpg").write_bytes(b"smile")


def file_for_the_cube(folder: Path) -> None:
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "cube.zarr").write_text("a file")


def file_for_the_dataset(folder: Path) -> None:
    folder.mkdir()
    (folder / "small").write_text("a file")


def file_for_out(folder: Path) -> None:
    folder.write_text("a file")


@pytest.mark.parametrize(
    "put",
    [
        foreign_group,
        foreign_array,
        foreign_old_group,
        damaged_root,
        photographs,
        file_for_the_cube,
        file_for_the_dataset,
        file_for_out,
    ],
)
def test_what_is_no_cube_is_refused_and_left_alone(
    archive: SmallArchive, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    put(tmp_path / "out")
    before = files(tmp_path)
    assert_refused(build_here(archive, tmp_path / "out"), str(tmp_path / "out"), "choose another --out")
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a_damaged_journal_is_refused(archive: SmallArchive, finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    path = out / "small" / "journal.jsonl"
    path.write_text(path.read_text().replace('"kind"', '"kind', 1))
    assert_refused(build_here(archive, out), "line 1 of the journal is damaged")


def test_verify_of_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    assert_refused(run_here("sits-cube", "verify", tmp_path), "no dataset in", "cube.zarr")
    assert_refused(run_here("sits-cube", "info", tmp_path), "no dataset in", "cube.zarr")


# Processes


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_fails_the_build(archive: SmallArchive, tmp_path: Path) -> None:
    """Nothing the user wrote is wrong, so it counts as a failure, not as wrong use."""
    ended = build_here(archive, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert_refused(ended, "no Dask scheduler answers at tcp://127.0.0.1:9", "dask scheduler", code=1)
    again = build_here(archive, tmp_path / "out")
    assert again.code == 0, again.stderr


@pytest.mark.slow
def test_the_installed_command_says_one_sentence(archive: SmallArchive, tmp_path: Path) -> None:
    ended = run(
        "sits-build", "--region", archive.region, "--out", tmp_path / "out", "--season", "2020-04-01/2020-06-30"
    )
    assert_refused(Ended(ended.returncode, ended.stdout, ended.stderr), "has no scene over")
    assert not (tmp_path / "out").exists()


def test_the_command_without_arguments_shows_its_help() -> None:
    ended = run_here("sits-build")
    # The runner of the tests may put its own name in front.
    assert re.search(r"Usage: .*sits-build", ended.stdout + ended.stderr)
    assert "--region" in ended.stdout + ended.stderr
    assert run_here("sits-cube").code == ended.code


# Options


def test_something_has_to_be_built(tmp_path: Path) -> None:
    assert_refused(run_here("sits-build", "--plan", "--out", tmp_path / "out"), "--region", "--locations")


TWO_YEARS = ("--season", "2021-01-01/2023-06-30")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parcels", "p.gpkg"], "--parcels cannot be used with --locations"),
        (["--chips", "parcel", "--cell", "512"], "--chips parcel and --cell cannot be used with --locations"),
        ([], "--locations needs --source and --season"),
        (["--source", "eopf"], "--locations needs --source and --season"),
        (["--source", "landsat", *TWO_YEARS], "--source is one of simulated, stac"),
        (["--source", "stac", *TWO_YEARS], "--source stac needs --source-path, its catalogue or table of items"),
        (["--source", "safe", *TWO_YEARS], "--source safe needs --source-path, the folder that holds its products"),
        (["--source", "stac-api", *TWO_YEARS], "--source stac-api needs --source-path, the address of the API's root"),
        (["--source", "eopf", "--season", "2021"], "a season is its first and last day"),
        (["--source", "eopf", "--season", "2021-01-01/2021-02-01"], "begin it earlier"),
    ],
)
def test_options_that_make_no_sense_with_locations_are_refused(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "some.csv").write_text("lon,lat\n4.2,44.2\n")
    ended = run_here("sits-build", "--locations", tmp_path / "some.csv", "--out", tmp_path / "out", *options)
    assert_refused(ended, says)
    assert ended.stderr.count("\n") == 1, "before any stage begins"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("none.csv", None, "no file "),
        ("latin.csv", b"id,lon,lat\nK\xf6ln,6.96,50.94\n", "latin.csv is not UTF-8 text"),
        ("odd.geojson", b'{"type": "FeatureCollection", "features": [1]}', "feature 1: must be a Feature; got 1"),
    ],
)
def test_a_wrong_file_of_locations_is_one_sentence(tmp_path: Path, name: str, data: bytes | None, says: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    out = ("--out", tmp_path / "out", "--source", "eopf", *TWO_YEARS)
    assert_refused(run_here("sits-build", "--locations", tmp_path / name, *out), says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--max-pu", "inf"], "max_pu is a number of processing units"),
        (["--source", "stac-api"], "needs the address of the API's root"),
    ],
)
def test_options_of_services_are_checked(tmp_path: Path, options: list[str], says: str) -> None:
    assert_refused(run_here("sits-build", "--region", "demo", "--out", tmp_path / "out", *options), says)
    assert not (tmp_path / "out").exists()


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    ended = run_here("sits-build", "--region", "dmo", "--debug", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: ")


def test_a_plan_writes_nothing(archive: SmallArchive, tmp_path: Path) -> None:
    ended = build_here(archive, tmp_path / "out", "--plan")
    assert ended.code == 0, ended.stderr
    plan = json.loads(ended.stdout)["datasets"][0]
    assert (plan["crs"], plan["estimate"]["cells"], len(plan["dates"])) == (f"EPSG:{EPSG}", 9, 4)
    assert not (tmp_path / "out").exists()
