from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.synthetic import BANDS, Synthetic

from sits_models.data.cubes import Cube, check_radiometry, open_cube


@pytest.fixture
def cube(synthetic: Synthetic) -> Cube:
    return open_cube(synthetic.folder.location)


def copy_of(synthetic: Synthetic, to: Path, **changes: Any) -> str:
    """A copy without pixels, with other entries of `sits_cube`."""
    shutil.copytree(synthetic.folder.location, to, ignore=shutil.ignore_patterns("c", "*.parquet"))
    for name in ("time", "spatial_ref", "chips.parquet"):
        source = Path(synthetic.folder.location) / name
        source = source if source.exists() else Path(synthetic.folder.location) / "cube.zarr" / name
        target = to / source.relative_to(synthetic.folder.location)
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
    path = to / "cube.zarr" / "zarr.json"
    root = json.loads(path.read_text())
    root["attributes"]["sits_cube"].update(changes)
    path.write_text(json.dumps(root))
    return str(to)


def test_a_cube_says_what_it_is(cube: Cube, synthetic: Synthetic) -> None:
    facts = cube.facts
    assert facts.path == synthetic.folder.location
    assert (facts.region, facts.version, facts.bands) == ("tiny", "1.0", BANDS)
    assert facts.days == (18920, 19002, 19084, 19166)
    assert facts.shape == (540, 576)
    assert facts.transform == (10.0, 0.0, 525_000.0, 0.0, -10.0, 5_394_000.0)
    assert facts.crs == "EPSG:32631"
    assert [(entry.index, entry.code, entry.name) for entry in facts.classes] == [
        (1, "c1", "winter wheat"),
        (2, "c2", "maize"),
        (3, "c3", "vine <&> grapes"),
    ]
    assert (facts.has_labels, facts.finer) == (True, (2,))
    assert (facts.chunk_px, facts.shard_px) == (64, 512)
    assert facts.statistics is not None
    assert facts.statistics["B02"]["n"] > 0


def test_a_window_holds_the_pixels_that_were_written(cube: Cube, synthetic: Synthetic) -> None:
    rows, columns = slice(50, 80), slice(500, 576)
    assert np.array_equal(cube.read("reflectance", rows, columns), synthetic.reflectance[:, :, rows, columns])
    assert np.array_equal(cube.read("parcel_id", rows, columns), synthetic.parcel_id[rows, columns])
    finer = cube.read("labels_x2/crop_type", slice(100, 160), slice(1000, 1152))
    assert np.array_equal(finer[::2, 1::2], synthetic.crop_type[rows, columns])


@pytest.mark.parametrize("dates", [(0,), (1, 2), (3, 1), (0, 3)])
def test_dates_come_in_the_order_asked_for(cube: Cube, synthetic: Synthetic, dates: tuple[int, ...]) -> None:
    found = cube.read("quality", slice(190, 210), slice(0, 60), dates=dates)
    assert np.array_equal(found, synthetic.quality[list(dates), 190:210, :60])


def test_reading_leaves_the_configuration_of_zarr_as_it_was(cube: Cube) -> None:
    import zarr

    before = zarr.config.get("codec_pipeline.path")
    cube.read("split", slice(0, 10), slice(0, 10))
    assert zarr.config.get("codec_pipeline.path") == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_reads_what_its_parent_has_read_and_its_child_too(cube: Cube) -> None:
    window = slice(0, 100), slice(0, 100)
    expected = cube.read("quality", *window).sum()

    def check() -> bool:
        return bool(cube.read("quality", *window).sum() == expected)

    pid = os.fork()
    if pid == 0:
        inner = os.fork()
        good = check()
        if inner:
            good = good and os.waitpid(inner, 0)[1] == 0
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert check()


def test_an_array_that_is_not_there_is_named(cube: Cube) -> None:
    with pytest.raises(ValueError, match=r"has no array 'labels_x4/crop_type'"):
        cube.read("labels_x4/crop_type", slice(0, 1), slice(0, 1))


def test_a_handle_that_has_read_travels_without_its_arrays(cube: Cube) -> None:
    cube.read("split", slice(0, 10), slice(0, 10))
    text = pickle.dumps(cube)
    assert len(text) < 5000
    there = pickle.loads(text)
    assert there.facts == cube.facts
    assert np.array_equal(there.read("split", slice(0, 9), slice(0, 9)), cube.read("split", slice(0, 9), slice(0, 9)))


def test_the_folder_of_the_zarr_group_and_a_url_are_the_same_cube(cube: Cube, synthetic: Synthetic) -> None:
    assert open_cube(f"{synthetic.folder.location}/cube.zarr").facts == cube.facts
    remote = open_cube(f"file://{synthetic.folder.location}/")
    window = slice(60, 70), slice(60, 70)
    assert np.array_equal(remote.read("quality", *window), cube.read("quality", *window))
    assert remote.chips(["row"]).equals(cube.chips(["row"]))
    assert len(remote.parcels()) == len(cube.parcels()) == len(synthetic.table.parcels.parcel_id)


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset in .*: it has no cube\.zarr"):
        open_cube(str(tmp_path))


def test_something_else_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cube.zarr").mkdir()
    (tmp_path / "cube.zarr" / "zarr.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"its zarr\.json does not say so"):
        open_cube(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "patches"}, "of the profile 'patches', and this needs a cube of a region: .* no map is made"),
        ({"version": "2.0"}, "a cube of version 2.0; this reads version 1.0"),
        ({"creating": True}, "no finished sits-cube"),
    ],
)
def test_a_cube_of_another_kind_is_refused(
    synthetic: Synthetic, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_cube(copy_of(synthetic, tmp_path / "copy", **changes))


def test_a_cube_that_is_still_being_built_is_refused(synthetic: Synthetic, tmp_path: Path) -> None:
    path = copy_of(synthetic, tmp_path / "copy")
    (tmp_path / "copy" / "journal.jsonl").unlink()
    with pytest.raises(ValueError, match=r"is not finished: it has no journal\.jsonl"):
        open_cube(path)


def test_a_finished_cube_with_unread_sources_opens_and_the_log_says_so(
    synthetic: Synthetic, caplog: pytest.LogCaptureFixture
) -> None:
    assert not open_cube(synthetic.folder.location).facts.complete
    assert "is not complete" in caplog.text


def test_cubes_of_another_radiometry_are_refused_but_not_those_of_other_baselines(
    synthetic: Synthetic, cube: Cube, tmp_path: Path
) -> None:
    radiometry = dict(cube.facts.radiometry)
    other = open_cube(copy_of(synthetic, tmp_path / "a", radiometry={**radiometry, "baselines": ["05.11"]}))
    check_radiometry([cube, other])
    other = open_cube(copy_of(synthetic, tmp_path / "b", radiometry={**radiometry, "level": "L1C"}))
    with pytest.raises(ValueError, match=r"differ in radiometry: level is 'L2A' in .*/tiny and 'L1C' in .*/b;"):
        check_radiometry([cube, cube, other])


def copy_with_pixels(synthetic: Synthetic, to: Path) -> Path:
    shutil.copytree(synthetic.folder.location, to)
    return to


@pytest.mark.parametrize("name", ["reflectance", "time"])
def test_a_cube_without_an_array_that_it_must_have_is_refused(synthetic: Synthetic, tmp_path: Path, name: str) -> None:
    path = copy_with_pixels(synthetic, tmp_path / "copy")
    root = json.loads((path / "cube.zarr" / "zarr.json").read_text())
    root.get("consolidated_metadata", {}).get("metadata", {}).pop(name, None)
    (path / "cube.zarr" / "zarr.json").write_text(json.dumps(root))
    shutil.rmtree(path / "cube.zarr" / name)
    with pytest.raises(ValueError, match=f"the cube in .*/copy has no array '{name}'; build it again"):
        open_cube(str(path))


def test_a_cube_whose_metadata_lacks_a_key_is_refused(synthetic: Synthetic, tmp_path: Path) -> None:
    path = Path(copy_of(synthetic, tmp_path / "copy")) / "cube.zarr" / "zarr.json"
    root = json.loads(path.read_text())
    del root["attributes"]["sits_cube"]["region"]
    path.write_text(json.dumps(root))
    with pytest.raises(ValueError, match=r"copy/cube\.zarr lacks metadata of a cube: 'region'; build it again"):
        open_cube(str(tmp_path / "copy"))


def test_a_shard_that_is_damaged_is_said_with_its_array_and_folder(synthetic: Synthetic, tmp_path: Path) -> None:
    path = copy_with_pixels(synthetic, tmp_path / "copy")
    shard = path / "cube.zarr" / "quality" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)
    with pytest.raises(OSError, match=r"cannot read quality of .*/copy/cube\.zarr: .*; check the dataset with"):
        open_cube(str(path)).read("quality", slice(0, 512), slice(0, 512))


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_a_torn_table_is_named(synthetic: Synthetic, tmp_path: Path, keep: int) -> None:
    path = copy_with_pixels(synthetic, tmp_path / "copy")
    cube = open_cube(str(path))
    for name, read in (("chips", cube.chips), ("parcels", cube.parcels)):
        table = path / f"{name}.parquet"
        table.write_bytes(table.read_bytes()[:keep])
        with pytest.raises(ValueError, match=rf"copy/{name}\.parquet is torn or no Parquet") as raised:
            read()
        assert "Buffer" not in str(raised.value)
    with pytest.raises(ValueError, match="is torn or no Parquet"):
        next(cube.parcel_batches(["split"]))


@pytest.mark.slow
def test_a_bucket_without_the_library_that_reads_it_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['s3fs'] = None\n"
    opening = "from sits_models.data.cubes import open_cube; open_cube('s3://nobody/tiny')"
    ended = subprocess.run([sys.executable, "-c", blocked + opening], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "ValueError: cannot read s3://nobody/tiny/cube.zarr/zarr.json: Install s3fs" in ended.stderr


def test_a_bucket_without_credentials_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed; only buckets need this")
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for key in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(key, str(tmp_path / "none"))
    with pytest.raises(PermissionError, match=r"no access to s3://nobody/tiny/cube\.zarr/zarr\.json: .*credentials"):
        open_cube("s3://nobody/tiny")


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="foo://x is neither a folder nor a URL of a kind that can be read"):
        open_cube("foo://x")


def test_rows_of_one_kind_are_chosen(cube: Cube) -> None:
    every = cube.chips(["kind", "row"])
    assert set(every["kind"]) == {"grid"} or len(set(every["kind"])) == 2
    assert len(cube.chips(["row"], kind="grid")) == (every["kind"] == "grid").sum() == 81
    assert cube.chips(["row"], kind="grid").columns.tolist() == ["row"]
    assert sum(len(batch) for batch in cube.parcel_batches(["split"])) == len(cube.parcels(["split"]))
