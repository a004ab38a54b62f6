"""The dry run and the load do what their tables say; short here, long by hand."""

from __future__ import annotations

import os
import socket
import threading
from datetime import date
from pathlib import Path

import pytest
from tests.benchmarks import load, size
from tests.benchmarks.country import make_items, make_zone

from sits_catalog.region import Season
from sits_pipeline.sources.items import scene_from_item


def holding(second: float, memory_mb: float) -> load.Holding:
    return load.Holding(second=second, memory_mb=memory_mb, files=7, threads=3, sockets=2)


def test_growth_is_that_of_the_straight_line_after_the_warm_up() -> None:
    looks = [holding(second, 1000.0 if second < 900 else 100 + second / 36) for second in range(0, 3601, 60)]
    (before, after, growth), files, threads, sockets = load.fold(looks, since_s=900)
    assert growth == pytest.approx(100)
    assert after - before == pytest.approx(100 * 0.75 * 5 / 6, rel=0.05)
    assert [files, threads, sockets] == [
        (7, 7, pytest.approx(0, abs=1e-6)),
        (3, 3, pytest.approx(0, abs=1e-6)),
        (2, 2, pytest.approx(0, abs=1e-6)),
    ]
    assert load.slope([1.0, 2.0], [1.0, 2.0]) == 0


def test_files_threads_and_sockets_of_a_process_are_counted(tmp_path: Path) -> None:
    before = load.look_at(os.getpid(), 0.0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"), socket.socket():
        during = load.look_at(os.getpid(), 1.0)
    stop.set()
    thread.join()
    assert before is not None
    assert during is not None
    assert (during.files - before.files, during.sockets - before.sockets) == (3, 1)
    assert during.threads - before.threads == 1
    assert load.look_at(2**22 + 1, 0.0) is None


def test_items_of_the_made_up_country_are_scenes_of_its_passes() -> None:
    zone = make_zone(200, name="country")
    items = list(make_items(zone, Season(start=date(2023, 4, 1), end=date(2023, 4, 5))))
    scenes = [scene_from_item(item, str) for item in items]
    assert len({scene.id for scene in scenes}) == len(scenes) > 10
    assert {scene.epsg for scene in scenes} == {zone.epsg}
    assert all(scene.assets.keys() >= {"B02", "B12", "SCL"} for scene in scenes)


@pytest.mark.soak
def test_a_dry_run_is_killed_taken_up_and_complete(tmp_path: Path) -> None:
    growth, ends = size.bench(tmp_path, cells=400, say=print)
    assert [row[0] for row in growth.rows] == list(range(40, 401, 40))
    assert all(isinstance(value, float) and value > 0 for row in growth.rows for value in row[1:])
    assert all(row[1] is not None for row in ends.rows)
