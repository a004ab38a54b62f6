from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tests.end_to_end.archives import run_here
from tests.pipeline.importers.test_pastis import write_pastis
from tests.pipeline.importers.test_pastis24 import write_metadata, write_pastis24
from tests.pipeline.importers.test_pickles import Command


@pytest.mark.parametrize("command", ["pastis", "pastis24", "mtlcc", "t31tfm"])
def test_every_format_has_a_command_that_explains_itself(command: str) -> None:
    ended = run_here("sits-cube", "import", command, "--help")
    assert ended.code == 0
    assert f"sits-cube import {command} " in ended.stdout
    assert "Exit codes: 0 done" in ended.stdout


def test_pastis_from_the_command_line_is_checked_verified_and_described(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "PASTIS")
    out = str(tmp_path / "out")
    ended = run_here("sits-cube", "import", "pastis", str(root), "--out", out, "--id", "small", "--threads", "2")
    assert (ended.code, ended.stdout.splitlines()[0]) == (0, "small: complete, 1 shards, 1 of them computed now")
    proven = run_here("sits-cube", "verify", f"{out}/small")
    assert (proven.code, proven.stdout) == (0, f"{out}/small: every file is as it was written\n")
    said = run_here("sits-cube", "info", f"{out}/small")
    assert said.code == 0
    assert "imported from pastis, complete" in said.stdout
    assert "4 (2 train, 1 validation, 1 test) of 16 x 16 px, at most 4 dates" in said.stdout
    facts = json.loads(run_here("sits-cube", "info", f"{out}/small", "--json").stdout)
    assert facts["patches"][0]["days"] == ["2018-09-24", "2018-12-31", "2019-03-01", "2019-03-01"]
    again = run_here("sits-cube", "import", "pastis", str(root), "--out", out, "--id", "small", "--json")
    assert json.loads(again.stdout)["built"] == 0


def test_pastis24_from_the_command_line_says_what_became_of_time(tmp_path: Path) -> None:
    root, metadata = write_pastis24(tmp_path / "PASTIS24"), write_metadata(tmp_path / "metadata.geojson")
    out = str(tmp_path / "out")
    ended = run_here(
        *("sits-cube", "import", "pastis24", str(root), "--metadata", str(metadata), "--out", out, "--id", "dated")
    )
    assert ended.code == 0
    assert "their dates were put right" in run_here("sits-cube", "info", f"{out}/dated").stdout
    assert run_here("sits-cube", "import", "pastis24", str(root), "--out", out).code == 0
    assert "their order in time is lost" in run_here("sits-cube", "info", f"{out}/pastis24").stdout


def test_what_is_wrong_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    nothing = run_here("sits-cube", "import", "pastis", str(tmp_path), "--out", out)
    assert nothing.code == 2
    assert "has no metadata.geojson; give the folder of PASTIS" in nothing.stderr
    root = write_pastis24(tmp_path / "PASTIS24")
    hostile = {"img": np.zeros(1), "labels": np.zeros(1), "doy": Command(f"touch {tmp_path}/was-run")}
    (root / "pickle24x24/10000_0.pickle").write_bytes(pickle.dumps(hostile))
    ended = run_here("sits-cube", "import", "pastis24", str(root), "--out", out)
    assert ended.code == 2
    assert "10000_0.pickle is not read: it wants to call posix.system" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "was-run").exists()
    folds = run_here("sits-cube", "import", "pastis24", str(root), "--out", out, "--folds", "1")
    assert (folds.code, "folds are written train/validation/test" in folds.stderr) == (2, True)
