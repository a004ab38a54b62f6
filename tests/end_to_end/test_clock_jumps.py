"""A wall clock that jumps by hours, as after a laptop's sleep or a correction of the time: nothing is lost or refused.

What a build waits for is timed by the monotonic clock, and the age of a lock in a store by the store's own. The jumping
clock is a library of a few lines, compiled here: libfaketime breaks the sleep of Python from 3.11 on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.end_to_end.archives import (
    SmallArchive,
    build_arguments,
    build_here,
    cells_in_journal,
    command,
    environment,
    leftovers,
    promised,
    run_here,
    wait_for,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

HOUR = 3600
LOOK_S = 2

_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) {
    char text[32] = {0};
    int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    return size > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int answer = (int)syscall(SYS_clock_gettime, clock, now);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (where) *where = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no C compiler for the library that moves the clock")
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_CLOCK)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self._file = folder / "offset"
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self._file)}

    def jump(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of the true time."""
        part = self._file.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_the_clock_of_these_tests_jumps(clock: Clock) -> None:
    clock.jump(7 * HOUR)
    seen = subprocess.run(["date", "+%s"], env={**os.environ, **clock.environment}, capture_output=True, check=True)
    true = subprocess.run(["date", "+%s"], capture_output=True, check=True)
    assert abs(int(seen.stdout) - int(true.stdout) - 7 * HOUR) < 60


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_build_whose_clock_jumps_forward_and_back_ends_equal(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, clock: Clock, kind: str
) -> None:
    dataset = tmp_path / "out" / "small"
    # The scheduler looks every two seconds, and not every five minutes, whether a worker is silent for too long.
    often = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{LOOK_S} s"}
    process = subprocess.Popen(
        command("sits-build", *build_arguments(archive, tmp_path / "out", "--kind", kind)),
        env={**environment(), **clock.environment, **often},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def has_ended() -> bool:
        return process.poll() is not None

    jumped = 0.0
    try:
        for cells, ahead in ((1, 7 * HOUR), (3, -30 * HOUR), (5, 400 * 24 * HOUR), (7, 0)):
            wait_for(lambda least=cells: has_ended() or len(cells_in_journal(dataset)) >= least, seconds=300)
            assert not has_ended(), process.communicate()
            clock.jump(ahead)
            jumped = jumped or time.monotonic()
        _, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - jumped > LOOK_S, "the scheduler may not have looked at its workers since the clock jumped"
    assert process.returncode == 0, stderr
    print(f"{kind}: complete after jumps by 7 h, -30 h and 400 days; {stderr.count('tried again')} cells tried again")
    assert promised(dataset) == promised(undisturbed)
    assert leftovers(dataset.parent) == []


def test_a_dataset_of_the_future_is_taken_up_and_proved(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, clock: Clock
) -> None:
    """Begun by a machine whose clock is a year ahead; `created` is what that machine said."""
    clock.jump(365 * 24 * HOUR)
    variables = {**environment(), **clock.environment}
    del variables["SOURCE_DATE_EPOCH"]
    build = command("sits-build", *build_arguments(archive, tmp_path / "out"))
    dataset = tmp_path / "out" / "small"
    process = subprocess.Popen(build, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(cells_in_journal(dataset)) >= 3 or process.poll() is not None, seconds=300)
    process.kill()
    process.wait(30)
    root = dataset / "cube.zarr" / "zarr.json"
    created = json.loads(root.read_text())["attributes"]["sits_cube"]["created"]
    ended = build_here(archive, tmp_path / "out")
    assert (ended.code, ended.outcome["complete"]) == (0, True)
    assert json.loads(root.read_text())["attributes"]["sits_cube"]["created"] == created
    assert run_here("sits-cube", "verify", dataset).code == 0
    same = {name: digest for name, digest in promised(dataset).items() if name != "cube.zarr/zarr.json"}
    assert same.items() <= promised(undisturbed).items()
