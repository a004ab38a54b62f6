"""A finish that is cut short at each of its files: the next run ends it, byte for byte as one that never was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.end_to_end.archives import SmallArchive, build_here, leftovers, promised, run_here
from tests.end_to_end.interrupted import FINISH, is_concluded, killed_build

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", FINISH)
def test_a_finish_that_is_cut_short_is_done_again(
    archive: SmallArchive, undisturbed: Path, unfinished: Path, tmp_path: Path, name: str, moment: str
) -> None:
    dataset = Path(shutil.copytree(unfinished, tmp_path / "out" / "small"))
    killed_build(archive, dataset, name, moment)
    done = FINISH.index(name) + (moment == "after")
    assert is_concluded(dataset) == (done > FINISH.index("cube.zarr/zarr.json"))
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"], ended.outcome["complete"]) == (0, 0, True)
    assert promised(dataset) == promised(undisturbed)
    assert leftovers(dataset.parent) == []
    for same in ("sources.parquet", "item.json", "config.yaml"):
        assert (dataset / same).read_bytes() == (undisturbed / same).read_bytes()
    assert run_here("sits-cube", "verify", dataset).code == 0
