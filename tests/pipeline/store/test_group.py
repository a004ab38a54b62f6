from __future__ import annotations

import pytest
import zarr
from tests.pipeline.small_cube import small_layout

from sits_pipeline.folder import Folder
from sits_pipeline.store import (
    CUBE,
    create_cube,
    metadata_files,
    open_cube,
    read_attributes,
    read_layout,
    repair_metadata,
    update_attributes,
)


def test_there_are_no_attributes_before_a_cube_is_there(folder: Folder) -> None:
    assert read_attributes(folder) is None
    create_cube(folder, small_layout((66, 132), region="herault"))
    assert read_attributes(folder) == {"version": "1.0", "profile": "region", "complete": False, "region": "herault"}


def test_a_cube_whose_creation_was_cut_short_counts_as_none(local: Folder) -> None:
    zarr.create_group(local.path / CUBE, attributes={"sits_cube": {"creating": True}})
    assert read_attributes(local) is None


def test_a_creation_that_is_cut_short_anywhere_is_taken_up(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = small_layout((66, 132))
    real = Folder.write
    n_files = len(metadata_files(layout)) + 1
    for survived in (0, 1, n_files // 2, 1, n_files - 1):
        left = survived

        def killed(self: Folder, name: str, data: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            real(self, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                create_cube(local, layout)
        assert read_attributes(local) is None
    create_cube(local, layout)
    assert read_attributes(local) == layout.attributes
    assert {name: local.read(f"{CUBE}/{name}") for name in local.sub(CUBE).files()} == metadata_files(layout)


def test_metadata_that_are_missing_or_differ_are_restored(folder: Folder) -> None:
    layout = small_layout((66, 132))
    create_cube(folder, layout)
    before = {name: folder.read(name) for name in folder.files()}
    files = metadata_files(layout)
    assert repair_metadata(folder, files) == []
    folder.remove(f"{CUBE}/x/c/0")
    folder.write(f"{CUBE}/scl/zarr.json", before[f"{CUBE}/scl/zarr.json"].replace(b"uint8", b"uint9"))
    folder.write(f"{CUBE}/time/c/0", b"")
    assert repair_metadata(folder, files) == ["scl/zarr.json", "time/c/0", "x/c/0"]
    assert {name: folder.read(name) for name in folder.files()} == before


def test_a_group_that_is_no_cube_is_refused(local: Folder) -> None:
    zarr.create_group(local.path / CUBE)
    with pytest.raises(ValueError, match=r"is no sits-cube: its zarr\.json does not say so; choose another --out"):
        read_attributes(local)


def test_changed_attributes_leave_the_others_and_the_arrays_alone(folder: Folder) -> None:
    layout = small_layout((66, 132), region="herault")
    create_cube(folder, layout)
    before = {name: folder.read(name) for name in folder.files()}
    written = update_attributes(folder, layout, {"complete": True, "statistics": {"mean": [0.1, 0.2]}})
    assert folder.read(f"{CUBE}/zarr.json") == written
    expected = {**layout.attributes, "complete": True, "statistics": {"mean": [0.1, 0.2]}}
    assert read_attributes(folder) == expected
    assert open_cube(folder).attrs["proj:code"] == "EPSG:32631"
    after = {name: folder.read(name) for name in folder.files()}
    assert {name for name in after if after[name] != before[name]} == {f"{CUBE}/zarr.json"}
    folder.write(f"{CUBE}/zarr.json", b"{}")
    update_attributes(folder, layout, {"complete": True, "statistics": {"mean": [0.1, 0.2]}})
    assert {name: folder.read(name) for name in folder.files()} == after


def test_a_layout_is_read_back_as_it_was_written(folder: Folder) -> None:
    for layout in (small_layout((66, 132), finer=(2, 4)), small_layout((6, 60), has_labels=False, n_dates=1)):
        create_cube(folder, layout)
        found = read_layout(folder)
        assert found.geobox == layout.geobox
        assert (found.bands, found.days, found.sensing_times) == (layout.bands, layout.days, layout.sensing_times)
        assert (found.has_labels, found.finer) == (layout.has_labels, layout.finer)
        assert found.classes == (layout.classes if layout.has_labels else ())
        assert found.attributes == layout.attributes
