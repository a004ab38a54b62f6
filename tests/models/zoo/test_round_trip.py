"""Weights from one person to another: trained, pushed, served, pulled where nothing of the first is, verified, used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from tests.catalog.file_server import FileServer
from tests.end_to_end.test_model_commands import write_recipe
from tests.models.commands import sits_model
from tests.synthetic import make_dataset

from sits_models.zoo.registry import INDEX

SITS_MODEL = """
import json
import sys
from sits_models.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["sits-model", *arguments]
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise
"""


def elsewhere(home: Path, *commands: list[object]) -> subprocess.CompletedProcess[str]:
    """Commands of `sits-model` in a process that knows nothing of this one but what it is told."""
    home.mkdir()
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    environment = {**kept, "HOME": str(home), "SITS_ZOO": str(home / "zoo"), "OMP_NUM_THREADS": "1"}
    plain = json.dumps([[str(argument) for argument in command] for command in commands])
    command = [sys.executable, "-c", SITS_MODEL, plain]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_weights_predict_the_same_map_wherever_they_are_pulled_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "tiny", height=256, width=256)
    recipe = write_recipe(tmp_path / "tiny.yaml", "tiny", "segmentation", epochs=1)
    run, cube, registry = tmp_path / "run", tmp_path / "tiny", tmp_path / "registry"
    trained = sits_model("finetune", "--recipe", recipe, "--cube", cube, "--out", run, "--set", "data.chips=16")
    assert trained.code == 0, trained.stderr
    pushed = sits_model("zoo", "push", run, "--name", "tiny", "--licence", "CC-BY-4.0", "--registry", registry)
    assert pushed.code == 0, pushed.stderr
    ours = sits_model("predict", "--weights", run, "--cube", cube, "--out", tmp_path / "ours")
    assert ours.code == 0, ours.stderr

    files = {str(path.relative_to(registry)): path.read_bytes() for path in registry.rglob("*") if path.is_file()}
    assert INDEX in files
    home = tmp_path / "another-home"
    with FileServer(files) as server:
        theirs = elsewhere(
            home,
            ["zoo", "pull", f"{server.url}/tiny"],
            ["zoo", "verify", "tiny"],
            ["predict", "--weights", "tiny", "--cube", cube, "--out", "theirs"],
        )
    assert theirs.returncode == 0, theirs.stderr
    assert "tiny@" in theirs.stdout
    assert ": whole and true\n" in theirs.stdout

    first, second = (zarr.open_group(folder / "map.zarr", mode="r") for folder in (tmp_path / "ours", home / "theirs"))
    for name in ("crop_type", "probability", "uncertainty"):
        ours_values, theirs_values = np.asarray(first[name][...]), np.asarray(second[name][...])
        assert np.array_equal(ours_values, theirs_values), name
    assert len(np.unique(np.asarray(first["crop_type"][...]))) > 1
