from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from sits_pipeline.exporters.replace import MANIFEST, whole_folder
from sits_pipeline.folder import Folder


@pytest.fixture
def dataset(tmp_path: Path) -> Folder:
    (tmp_path / "data/set").mkdir(parents=True)
    return Folder(str(tmp_path / "data/set"))


def write(out: Path, dataset: Folder, text: str, *, overwrite: bool = False) -> None:
    with whole_folder(out, dataset=dataset, overwrite=overwrite) as folder:
        (folder / MANIFEST).write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_does_not_go_into_its_dataset_or_around_it(tmp_path: Path, dataset: Folder) -> None:
    for out in (dataset.path, dataset.path / "x", tmp_path / "data/../data/set/y"):
        with pytest.raises(ValueError, match="is in the dataset"):
            write(out, dataset, "new")
    (tmp_path / "data" / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="would be replaced as well"):
        write(tmp_path / "data", dataset, "new", overwrite=True)
    assert names(dataset.path) == []


def test_the_folder_one_is_in_can_be_written(tmp_path: Path, dataset: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path(), dataset, "new")
    assert (tmp_path / "here" / MANIFEST).read_text() == "new"
    assert names(tmp_path) == ["data", "here"]


_KILLED = """
import os, sys
from pathlib import Path
from sits_pipeline.exporters.replace import whole_folder
from sits_pipeline.folder import Folder
with whole_folder(Path(sys.argv[1]), dataset=Folder(sys.argv[2]), overwrite=True) as folder:
    (folder / "half").write_text("x")
    if sys.argv[3] == "kill":
        os._exit(9)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path, dataset: Folder) -> None:
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", _KILLED, out, dataset.location, "kill"], check=False)
    assert ended.returncode == 9
    assert len(names(tmp_path)) == 2, "the half export is there"
    (tmp_path / ".out.other.0123abcd.partial").mkdir()  # of an export to out.other
    write(out, dataset, "new")
    assert names(tmp_path) == [".out.other.0123abcd.partial", "data", "out"]


def test_an_export_that_lives_is_left_alone(tmp_path: Path, dataset: Folder) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, out, dataset.location, "wait"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as living:  # fmt: skip
        assert living.stdout is not None
        assert living.stdout.readline() == "writing\n"
        with pytest.raises(BlockingIOError, match="another export is writing"):
            write(out, dataset, "new")
        living.communicate("")
    assert names(out) == ["half"]


def test_an_export_killed_between_two_renames_is_put_back(tmp_path: Path, dataset: Folder) -> None:
    moved = tmp_path / ".out.0123abcd.earlier.partial"
    moved.mkdir()
    (moved / MANIFEST).write_text("old")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(tmp_path / "out", dataset, "new")
    assert (tmp_path / "out" / MANIFEST).read_text() == "old"
    assert names(tmp_path) == ["data", "out"]


def test_where_the_last_rename_fails_the_earlier_export_stays(
    tmp_path: Path, dataset: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", Path.replace
    write(out, dataset, "old")

    def refuse(self: Path, target: Path) -> Path:
        if target == out and "earlier" not in self.name:
            raise OSError(errno.EIO, "input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="input/output error"):
        write(out, dataset, "new", overwrite=True)
    assert (out / MANIFEST).read_text() == "old"
    assert names(tmp_path) == ["data", "out"]
