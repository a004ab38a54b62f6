"""On a machine with two GPUs: two processes, whose batch norms see the whole batch, train as one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.models import sharing

from sits_models.engine import METRICS, Processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has no two CUDA devices to share a batch"),
]

ROOT = Path(__file__).parents[2]
MOVING = ("unet3df", "unet2d_clstm", "utae")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_batch_norms_of_two_gpus_see_the_whole_batch(tmp_path: Path) -> None:
    cases = [f"moving-{name}" for name in MOVING]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*run, "-m", "tests.models.sharing", str(tmp_path), *cases]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=280, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in MOVING:
        one = sharing.train(name, tmp_path / name, Processes(), frozen=False, epochs=5).state_dict()
        first, second = (torch.load(tmp_path / f"moving-{name}" / f"weights-{k}.pt", weights_only=True) for k in (0, 1))
        assert list(first) == list(one)
        assert all(torch.equal(first[key], second[key]) for key in first)
        # Rounding moves weights that no loss sees, such as a bias before a batch norm; losses do not feel them.
        for ours, theirs in zip(rows(tmp_path / f"moving-{name}"), rows(tmp_path / name), strict=True):
            for column in ("train_loss", "validation_loss"):
                assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-2), (name, column)
