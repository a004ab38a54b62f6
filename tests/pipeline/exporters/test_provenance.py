"""What an export says of its dataset, and what it refuses to say for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.errors import NotGeoreferencedWarning
from tests.pipeline.exporters.made_region import HEIGHT, WIDTH, MadeRegion, make_region
from tests.pipeline.importers import test_pastis24 as small_pastis24
from tests.pipeline.importers.made_up import FACTS, MadeUp, Silent, made_patch

from sits_catalog.cube import IGNORE
from sits_pipeline.exporters.cog import export_cog
from sits_pipeline.exporters.deepsatmodels import DeepSatLayout, export_deepsatmodels
from sits_pipeline.exporters.formats import PASTIS_BANDS
from sits_pipeline.exporters.geotiff import export_geotiff
from sits_pipeline.exporters.pastis import export_pastis
from sits_pipeline.exporters.whole import Exported
from sits_pipeline.folder import Folder
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.pastis24 import open_pastis24
from sits_pipeline.importers.write import import_dataset


def pastis(folder: Folder, out: Path, **options: bool) -> Exported:
    known: dict[str, Any] = {"overwrite": False, "incomplete": False, **options}
    return export_pastis(folder, out, progress=lambda done, total: None, **known)


def deepsat(folder: Folder, out: Path, layout: DeepSatLayout) -> Exported:
    return export_deepsatmodels(
        folder, out, layout=layout, overwrite=False, incomplete=False, progress=lambda done, total: None
    )


def geotiff(folder: Folder, out: Path, *, side: int = 128, **options: bool) -> Exported:
    known: dict[str, Any] = {"overwrite": False, "incomplete": False, **options}
    return export_geotiff(folder, out, side=side, progress=lambda done, total: None, **known)


def made_set(out: Path, rows: Sequence[tuple[str, str, int | None]]) -> Folder:
    """Patches by name, split and fold, with the bands of PASTIS."""
    patches = [
        made_patch(name, [17800, 17805], split=split, fold=fold, original={"ID_PATCH": number, "file": name})
        for number, (name, split, fold) in enumerate(rows)
    ]
    original = MadeUp(patches=patches, facts=replace(FACTS, bands=PASTIS_BANDS))
    return Folder(import_dataset(original, str(out), Silent()).location)


def unread(region: MadeRegion) -> int:
    """Make a corner of the second date one that could not be read; returns its pixels."""
    group = zarr.open_group(region.folder.path / "cube.zarr", mode="r+", use_consolidated=False)
    for name, value in (("quality", 128), ("reflectance", 0)):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array[1, ..., :50, :40] = value
    return 50 * 40


# export.json


@pytest.mark.slow
def test_the_manifest_says_what_was_exported_from_what(tmp_path: Path) -> None:
    pastis(made_set(tmp_path / "set", [("a", "train", None), ("b", "test", None)]), tmp_path / "out")
    said = json.loads((tmp_path / "out/export.json").read_text())
    wanted = {
        "format": "pastis", "dataset": "made-up", "source_format": "pastis", "chronology": "kept", "complete": True,
        "licence": "CC-BY-4.0", "attribution": "nobody", "simulated": False, "unread_pixels": 0,
        "classes": [
            {"index": 1, "code": "wheat", "name": "wheat"}, {"index": 2, "code": "maize", "name": "maize"},
        ],
    }  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted
    region = make_region(tmp_path / "made", simulated=True)
    geotiff(region.folder, tmp_path / "tiff")
    said = json.loads((tmp_path / "tiff/export.json").read_text())
    assert [said[key] for key in ("source_format", "chronology", "licence", "simulated")] == [None, None, None, True]
    assert [row["index"] for row in said["classes"]] == [2, 5, 9]


# Dates


def test_days_of_the_year_are_not_exported_as_dates(tmp_path: Path) -> None:
    root = small_pastis24.write_pastis24(tmp_path / "PASTIS24", ranked=small_pastis24.as_rank_3)
    original = open_pastis24(root, metadata=None, folds=FoldRule())
    folder = Folder(import_dataset(original, str(tmp_path / "set"), Silent()).location)
    out = tmp_path / "out"
    ways: dict[str, Callable[[], Exported]] = {
        "pastis": lambda: pastis(folder, out),
        "geotiff": lambda: geotiff(folder, out),
    }
    for layout, export in ways.items():
        with pytest.raises(ValueError, match=f"the layout {layout} has full dates, .* import it with --metadata"):
            export()
    known: tuple[DeepSatLayout, ...] = ("mtlcc", "t31tfm")
    for name in known:
        # The patches of this small set are smaller than a chip of T31TFM.
        with pytest.raises(ValueError, match="full dates" if name == "mtlcc" else "full dates|cannot be cut"):
            deepsat(folder, out, name)
    assert not out.exists()
    assert deepsat(folder, out, "pastis24").written > 0


# Pixels that could not be read


def test_pixels_that_could_not_be_read_are_counted_apart(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made", complete=False)
    lost = unread(region)
    told = geotiff(region.folder, tmp_path / "out", side=100, incomplete=True)
    assert told.unread == lost
    quality = region.array("quality")[:, :300, :200]
    assert told.unobserved == np.count_nonzero(quality == 0)
    assert any(f"{lost} pixels" in note and "could not be read" in note for note in told.notes)
    assert json.loads((tmp_path / "out/export.json").read_text())["unread_pixels"] == lost
    with rasterio.open(tmp_path / "out/r00000_c00000.tif") as file:
        assert file.tags()["UNREAD_PIXELS"] == str(lost)
    with rasterio.open(tmp_path / "out/r00100_c00000.tif") as file:
        assert file.tags()["UNREAD_PIXELS"] == "0"
    with rasterio.open(tmp_path / "out/r00000_c00000_quality.tif") as file:
        np.testing.assert_array_equal(file.read(), quality[:, :100, :100])
        assert file.descriptions == ("2018-01-03", "2018-01-08", "2018-01-13")


def test_cogs_keep_the_rules_of_all_exports(tmp_path: Path) -> None:
    region, said = make_region(tmp_path / "made", complete=False), list[str]()
    lost, out = unread(region), tmp_path / "out"
    with pytest.raises(ValueError, match="is not complete: parts of it could not be read yet"):
        export_cog(region.folder, out, arrays=["crop_type"])
    assert not out.exists()
    paths = export_cog(region.folder, out, arrays=["quality"], incomplete=True, say=said.append)
    assert len(said) == 1
    assert said[0].startswith(f"{lost} pixels of 1 dates could not be read")
    tags = []
    for path in paths:
        with rasterio.open(path) as file:
            tags.append(file.tags()["UNREAD_PIXELS"])
    assert tags == ["0", str(lost), "0"]
    (out / "crop_type.tif").write_text("precious")
    with pytest.raises(FileExistsError, match=r"crop_type\.tif is there already, 1 of 1 files are; .*--overwrite"):
        export_cog(region.folder, out, arrays=["crop_type"], incomplete=True)
    assert (out / "crop_type.tif").read_text() == "precious"
    export_cog(region.folder, out, arrays=["crop_type"], days=[date(2018, 1, 3)], incomplete=True, overwrite=True)
    with rasterio.open(out / "crop_type.tif") as file:
        assert file.shape == (HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="is in the dataset"):
        export_cog(region.folder, region.folder.path / "cogs", arrays=["crop_type"], incomplete=True)


# Folds


def folds_in(out: Path) -> dict[int, int]:
    features = json.loads((out / "metadata.geojson").read_text())["features"]
    return {feature["properties"]["ID_PATCH"]: feature["properties"]["Fold"] for feature in features}


@pytest.mark.parametrize(
    ("rows", "folds", "left_out"),
    [
        (
            [("a", "train", None), ("b", "none", None), ("c", "test", None)],
            {0: 1, 2: 5},
            {"no split, though others have one": 1},
        ),
        (
            [("a", "train", 2), ("b", "train", None), ("c", "test", 7)],
            {0: 2},
            {"no fold, though others have one": 1, "fold 7, and the layout has folds 1 to 5": 1},
        ),
        ([("a", "none", None), ("b", "none", None)], {0: 1, 1: 1}, {}),
    ],
)
def test_what_is_in_no_split_is_not_trained_with(
    tmp_path: Path, rows: list[tuple[str, str, int | None]], folds: dict[int, int], left_out: dict[str, int]
) -> None:
    told = pastis(made_set(tmp_path / "set", rows), tmp_path / "out")
    assert folds_in(tmp_path / "out") == folds
    assert told.left_out == left_out
    assert all(any(reason in note for note in told.notes) for reason in left_out)


# Windows


def test_windows_whose_parcels_lie_in_the_buffer_alone_are_left_out(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made")
    group = zarr.open_group(region.folder.path / "cube.zarr", mode="r+", use_consolidated=False)
    crops = group["crop_type"]
    assert isinstance(crops, zarr.Array)
    known = np.full((HEIGHT, WIDTH), IGNORE, np.uint16)
    known[:100, :64] = 2
    known[124:128, 144:] = 5  # in the buffer, in the window of column 1
    crops[...] = known
    told = pastis(region.folder, tmp_path / "out")
    assert (told.written, told.left_out) == (1, {"no labelled parcel": 5})
    assert sorted(folds_in(tmp_path / "out")) == [0]


def test_files_of_patches_whose_names_meet_are_all_there(tmp_path: Path) -> None:
    names = ["a b", "a/b", "a_b_1", "a_b_quality"]
    folder = made_set(tmp_path / "set", [(name, "none", None) for name in names])
    told = geotiff(folder, tmp_path / "out")
    series = []
    for path in sorted((tmp_path / "out").glob("*.tif")):
        with pytest.warns(NotGeoreferencedWarning):
            file = rasterio.open(path)
        with file:
            if "BANDS" in file.tags():
                series.append(file.read().tobytes())
    assert told.written == 4
    assert len(set(series)) == 4
    assert len(list((tmp_path / "out").glob("*.tif"))) == 4 * 4


def test_a_window_larger_than_the_region_is_refused(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made")
    with pytest.raises(ValueError, match=r"has 300 x 200 px; windows of 20000 px are larger .* at most 300"):
        geotiff(region.folder, tmp_path / "out", side=20_000)


# What was not finished


def test_an_import_or_a_build_that_was_not_finished_is_said(tmp_path: Path) -> None:
    folder = made_set(tmp_path / "set", [("a", "train", None)])
    (folder.path / "patches.parquet").unlink()
    region = make_region(tmp_path / "made", complete=False)
    (region.folder.path / "chips.parquet").unlink()
    for unfinished, index in ((folder, "patches"), (region.folder, "chips")):
        with pytest.raises(ValueError, match=f"was not finished: it has no {index}.parquet; run the command"):
            pastis(unfinished, tmp_path / "out", incomplete=True)
