"""Every benchmark at a tiny size: it runs, and all contestants give the same pixels. Nothing here asks for speed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import zarr
from tests.benchmarks import build, chips, fetch, labels, measure, memory
from tests.benchmarks.contestants import agreement, floor
from tests.benchmarks.contestants.cube_file import write_arrays
from tests.benchmarks.job import ASSETS, grid_of, job_on
from tests.benchmarks.table import Table

from sits_pipeline.plan import cell_memory

SIDE = 120


def silent(_text: str) -> None:
    pass


@pytest.mark.soak
def test_all_contestants_build_the_same_pixels(tmp_path: Path) -> None:
    table, bytes_ = build.bench(tmp_path, side=SIDE, dates=3, repeat=1, threads=2, say=silent)
    assert table.rows[0][3] == 1.0
    assert len(table.rows) == 6
    assert "432 000 values compared each" in table.notes[1]
    needed, sent, unique = (row["MB"] for row in bytes_.as_json()["rows"])
    assert 0 < needed <= sent
    assert unique == sent
    dataset = build.dataset_of(tmp_path, side=SIDE, dates=3, threads=2, say=pytest.fail)
    table, fed = chips.bench(dataset, tmp_path, chips=2, say=silent)
    assert table.title.startswith("Chips of 64 px over 3 dates and 10 bands")
    assert fed.title.startswith("Chips of 48 px over 40 dates and 10 bands")
    assert len(fed.rows) == 8
    assert all(row[1] > 0 for row in fed.rows)
    assert all(row[3] <= 8 for row in fed.rows[4:])
    assert not (tmp_path / "date-major.zarr").exists()
    assert not (tmp_path / "fed").exists()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_memory_of_a_worker_is_that_of_a_small_region_in_one_four_times_as_large(tmp_path: Path) -> None:
    """From sixteen cells on: of fewer, a worker may not have met the fullest. Parcels are held by the first process."""
    (table,) = memory.bench(tmp_path, side=1020, times=(2, 4), threads=2, say=silent)
    small, large = table.as_json()["rows"]
    assert [(row["area"], row["cells"]) for row in (small, large)] == [("1 x", 16), ("4 x", 64)]
    assert large["worker MB"] <= 1.1 * small["worker MB"]
    n_small, n_large = (len(geopandas.read_parquet(tmp_path / f"job-{n}" / "parcels.parquet")) for n in (2, 4))
    assert n_large > 3.5 * n_small > 30_000
    a_parcel = (large["first process MB"] - small["first process MB"]) * 1e3 / (n_large - n_small)
    print(f"worker {small['worker MB']:.0f} and {large['worker MB']:.0f} MB; first process {a_parcel:.1f} KB a parcel")
    assert a_parcel < 15


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_worker_with_one_cell_holds_no_more_than_the_build_takes_it_to(tmp_path: Path) -> None:
    side = 510
    (table,) = memory.bench(tmp_path, side=side, times=(1,), threads=1, say=silent)
    (row,) = table.as_json()["rows"]
    assert row["cells"] == 1
    bound = cell_memory(memory.DATES, len(memory.BANDS), side * side, labels=True, finer=()).first / 1e6
    print(f"worker {row['worker MB']:.0f} MB, bound {bound:.0f} MB")
    assert bound / 1.5 < row["worker MB"] <= bound


@pytest.mark.slow
def test_the_command_prints_json_without_the_name_of_this_machine() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "labels", "--side", "120", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    root = Path(__file__).parents[2]
    out = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout
    assert [table["title"].split(":")[0] for table in json.loads(out)["tables"]] == ["Labels"]
    assert platform.node() not in out
    assert str(root) not in out


def make_arrays(folder: Path, *, wrong: int = 0) -> str:
    reflectance = np.arange(2 * 3 * 64 * 64, dtype=np.uint16).reshape(2, 3, 64, 64)
    reflectance[1, 2, 5, 5] += wrong
    write_arrays(folder, reflectance, np.full((2, 64, 64), 4, np.uint8))
    return str(folder)


def test_a_peer_that_gives_another_pixel_is_found(tmp_path: Path) -> None:
    first, second = make_arrays(tmp_path / "a"), make_arrays(tmp_path / "b", wrong=1)
    with pytest.raises(AssertionError, match="peer gives other reflectance"):
        agreement.compare(first, {"peer": second}, str(tmp_path))


def test_the_floor_repeats_pixels_of_20_m_and_keeps_those_of_10_m(tmp_path: Path) -> None:
    from sits_pipeline.simulate.cogs import write_cog

    grid = grid_of(12)
    larger = grid.pad(6)
    fine = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24)
    coarse = np.arange(12 * 12, dtype=np.uint16).reshape(12, 12)
    write_cog(tmp_path / "B02.tif", fine, larger)
    write_cog(tmp_path / "B11.tif", coarse, larger.zoom_out(2))
    write_cog(tmp_path / "SCL.tif", coarse.astype(np.uint8), larger.zoom_out(2))
    assets = {"blue": "B02", "swir16": "B11", "scl": "SCL"}
    items = {"features": [{"assets": {key: {"href": f"{band}.tif"} for key, band in assets.items()}}]}
    (tmp_path / "items.json").write_text(json.dumps(items))
    geopandas.GeoDataFrame(geometry=[shapely.box(*grid.boundingbox.bbox)], crs=grid.crs).to_parquet(tmp_path / "p")
    job = job_on(tmp_path / "items.json", tmp_path / "p", grid, bands=("B02", "B11"), folder=tmp_path / "job")
    floor.run(job.as_json(), str(tmp_path / "out"), threads=2)
    reflectance = np.asarray(zarr.open_array(tmp_path / "out" / "reflectance")[...])
    assert np.array_equal(reflectance[0, 0], fine[6:18, 6:18])
    assert reflectance[0, 1, :3, :3].tolist() == [[39, 39, 40], [39, 39, 40], [51, 51, 52]]


def test_bytes_that_were_sent_twice_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "b").write_bytes(bytes(50))
    requests = [("a", "bytes=10-29"), ("a", "bytes=20-39"), ("a", "bytes=90-200"), ("b", None), ("a", "bytes=12-14")]
    assert fetch._unique(tmp_path, requests) == 30 + 10 + 50
    assert sum(fetch._length(tmp_path / path, wanted) for path, wanted in requests) == 20 + 20 + 10 + 50 + 3


def test_labels_of_all_contestants_are_of_the_same_parcels() -> None:
    grid = grid_of(SIDE)
    parcels = labels.make_parcels(grid)
    results = {name: work() for name, work in labels.works(parcels, grid).items()}
    ours, (_, numbers) = results[labels.ALL], results[labels.CENTRE]
    assert len(results[labels.EXACT]) == len(parcels) > 25
    assert np.mean(ours.parcel_id == numbers) > 0.95
    inside = shapely.intersection(parcels.geometry, shapely.box(*grid.boundingbox.bbox))
    shares = np.concatenate(results[labels.EXACT]["coverage"].to_list())
    assert shares.sum() * 100 == pytest.approx(shapely.area(inside).sum(), rel=1e-4)
    assert results["of these: coverage"].share.sum() / 1e7 == pytest.approx(shapely.area(inside).sum(), rel=1e-6)


def test_labels_are_timed_for_each_contestant() -> None:
    result = labels.run(side=60, rounds=1)
    assert len(result["ms"]) == 5
    assert min(result["ms"].values()) > 0


def test_repeated_ground_holds_the_same_pixels_and_parcels_of_new_ids(tmp_path: Path) -> None:
    from sits_pipeline.simulate.cogs import write_cog

    grid = grid_of(12)
    values = np.arange(1, 145, dtype=np.uint16).reshape(12, 12)
    assets = {}
    for band in (*memory.BANDS, "SCL"):
        size = 2 if band == "SCL" else 1
        write_cog(tmp_path / f"{band}.tif", values[: 12 // size, : 12 // size], grid.zoom_out(size))
        assets[ASSETS[band]] = {"href": f"{band}.tif"}
    (tmp_path / "items.json").write_text(json.dumps({"features": [{"id": "one", "assets": assets}]}))
    square = shapely.box(*grid.boundingbox.bbox).buffer(-20)
    table = geopandas.GeoDataFrame({"id": ["p", "away"]}, geometry=[square, shapely.affinity.translate(square, 500)])
    table.set_crs(grid.crs).to_parquet(tmp_path / "p")
    ground = memory.repeat_ground(tmp_path / "items.json", tmp_path / "p", grid, times=2, folder=tmp_path / "r")
    with rasterio.open(tmp_path / "r" / "one" / "B04.tif") as dataset:
        assert np.array_equal(dataset.read(1), np.tile(values, (2, 2)))
    parcels = geopandas.read_parquet(ground.parcels)
    assert parcels.id.to_list() == ["p-0-0", "p-0-1", "p-1-0", "p-1-1"]
    assert parcels.geometry.iloc[3].bounds == shapely.affinity.translate(square, 120, -120).bounds


def test_chips_of_both_layouts_are_timed(tmp_path: Path) -> None:
    make_arrays(tmp_path / "cube.zarr")
    result = chips.run(str(tmp_path / "cube.zarr"), str(tmp_path / "copy"), chips=2)
    assert tuple(result["shape"]) == (2, 3, 64, 64)
    assert min(*result["cube"].values(), *result["date-major"].values()) > 0


def test_the_plain_contrast_has_the_loss_and_gradients_of_ours() -> None:
    from tests.benchmarks import cscl

    result = cscl.run(size=(2, 8, 12, 5), rounds=1, threads=1)  # it compares them
    assert result["ratio"][cscl.OURS] == 1
    assert min(result["ms"].values()) > 0


@pytest.mark.soak
def test_contrast_is_timed_and_its_memory_is_that_of_a_fresh_process() -> None:
    from tests.benchmarks import cscl

    speed, memory_ = cscl.bench(sizes=((2, 16, 24, 3),), windows=(3, 11), rounds=1, threads=1, say=silent)
    assert [row[1] for row in speed.rows] == [cscl.OURS, cscl.PLAIN]
    ours, plain = zip(*(row[1:] for row in memory_.rows), strict=True)
    assert plain[-1] > plain[0]
    assert ours[-1] < plain[-1]


def test_the_plain_contrast_of_sampled_pixels_has_the_loss_and_gradients_of_ours() -> None:
    from tests.benchmarks import contrast

    result = contrast.run(chips=3, rounds=1, threads=1)  # it compares them
    assert result["ratio"][contrast.OURS] == 1
    assert min(result["ms"].values()) > 0


def test_the_plain_queues_have_the_loss_gradients_and_keys_of_ours() -> None:
    from tests.benchmarks import queue

    result = queue.run(length=1024, rounds=1, threads=1)  # it compares them
    assert result["ratio"][queue.OURS] == 1
    assert min(result["ms"].values()) > 0


@pytest.mark.soak
def test_sampled_pixels_are_timed_and_their_memory_is_that_of_a_fresh_process() -> None:
    from tests.benchmarks import contrast

    (table,) = contrast.bench(chips=(2, 64), rounds=1, threads=1, say=silent)
    assert [row[:2] for row in table.rows[:2]] == [("2 x 64", contrast.OURS), ("2 x 64", contrast.PLAIN)]
    ours, plain = table.rows[2][-1], table.rows[3][-1]
    assert isinstance(ours, float)
    assert isinstance(plain, float)
    assert ours < plain


def test_every_backbone_has_a_plain_transcription() -> None:
    from tests.benchmarks import backbones

    from sits_models.backbones import list_backbones

    assert {contest.backbone for contest in backbones.CONTESTS} == set(list_backbones())


def test_a_plain_backbone_has_the_logits_loss_and_gradients_of_ours() -> None:
    from tests.benchmarks import backbones

    result = backbones.run(label="U-TAE", rounds=1, threads=1, small=True)  # it compares them
    assert min(result.values()) > 0


@pytest.mark.soak
def test_all_plain_backbones_have_the_logits_loss_and_gradients_of_ours() -> None:
    from tests.benchmarks import backbones

    for contest in backbones.CONTESTS:
        pair = backbones.build_pair(backbones.smallest(contest))
        buffers = {name: buffer.clone() for name, buffer in pair.ours.named_buffers()}
        backbones.compare(pair)
        assert all(buffer.equal(buffers[name]) for name, buffer in pair.ours.named_buffers())


def test_backbones_that_differ_are_found() -> None:
    import torch
    from tests.benchmarks import backbones

    contest = next(contest for contest in backbones.CONTESTS if contest.backbone == "utae")
    pair = backbones.build_pair(backbones.smallest(contest))
    with torch.no_grad():
        next(pair.ours.parameters()).mul_(1.1)
    with pytest.raises(AssertionError):
        backbones.compare(pair)


@pytest.mark.soak
def test_backbones_are_timed_in_fresh_processes() -> None:
    from tests.benchmarks import backbones

    (table,) = backbones.bench(contests=backbones.CONTESTS[:1], rounds=1, threads=1, small=True, say=silent)
    assert [row[:2] for row in table.rows] == [("UNet3D", "(2, 4, 13, 8 x 8)")]
    assert min(table.rows[0][2:]) > 0


def test_a_function_runs_in_a_fresh_process() -> None:
    run = measure.run_fresh("json:dumps", watch=True, obj=[1])
    assert run.result == "[1]"
    assert 0 <= run.seconds < run.process_s
    assert 5 < run.peak_mb < 500


def test_a_function_that_fails_says_how() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)json:loads failed: .*JSONDecodeError"):
        measure.run_fresh("json:loads", s="{")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    with measure.on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_a_table_is_text_markdown_and_json() -> None:
    table = Table(title="T", columns=("", "s", "n"), rows=(("a", 1.234, 12345), ("bc", 123.4, None)), notes=("Why.",))
    assert table.as_text() == "T\n\n       s       n\na   1.23  12 345\nbc   123       -\n(Why.)"
    assert table.as_markdown() == (
        "### T\n\n|  | s | n |\n| --- | --: | --: |\n| a | 1.23 | 12 345 |\n| bc | 123 | - |\n\nWhy."
    )
    assert table.as_json() == {
        "title": "T",
        "rows": [{"": "a", "s": 1.234, "n": 12345}, {"": "bc", "s": 123.4, "n": None}],
        "notes": ["Why."],
    }
