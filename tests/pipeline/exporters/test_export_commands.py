from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import zarr
from rasterio.errors import NotGeoreferencedWarning
from tests.end_to_end.archives import run_here
from tests.pipeline.exporters.made_region import make_region
from tests.pipeline.importers.made_up import FACTS, MadeUp, Silent

from sits_pipeline.importers.write import import_dataset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "file", "said"),
    [
        (["pastis"], "metadata.geojson", "6 patches or windows in the layout pastis"),
        (["deepsatmodels", "--layout", "pastis24"], "fold-paths/fold_1_paths.csv", "in the layout pastis24"),
        (["deepsatmodels", "--layout", "mtlcc"], "label_names.json", "in the layout mtlcc"),
        (["deepsatmodels", "--layout", "t31tfm"], "paths/train_paths.csv", "in the layout t31tfm"),
        (["geotiff", "--side", "100"], "r00000_c00000.tif", "6 patches or windows in the layout geotiff"),
    ],
)
def test_each_command_writes_its_layout_and_says_what_to_know(
    tmp_path: Path, arguments: list[str], file: str, said: str
) -> None:
    region = make_region(tmp_path / "made")
    out = tmp_path / "out"
    ended = run_here("sits-cube", "export", arguments[0], region.folder.location, "--out", out, *arguments[1:])
    assert ended.code == 0, ended.stderr
    assert (out / file).is_file()
    assert said in ended.stdout
    assert "note: Pixels that were not observed" in ended.stderr
    document = json.loads((out / "export.json").read_text())
    assert (document["dataset"], document["complete"]) == ("made", True)
    again = run_here("sits-cube", "export", arguments[0], region.folder.location, "--out", out, *arguments[1:])
    assert again.code == 2
    assert "choose another --out, or --overwrite" in again.stderr


def test_a_layout_that_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made", n_bands=3)
    ended = run_here("sits-cube", "export", "pastis", region.folder.location, "--out", tmp_path / "out")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.strip().splitlines()[-1].startswith("error: the layout pastis has the bands B02")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_patches_without_a_place_become_geotiffs_without_a_crs(tmp_path: Path) -> None:
    original = MadeUp()
    location = import_dataset(original, str(tmp_path / "set"), Silent()).location
    ended = run_here("sits-cube", "export", "geotiff", location, "--out", tmp_path / "out")
    assert ended.code == 0, ended.stderr
    assert "3 patches have no place in the dataset: their files have no CRS." in ended.stderr
    patch = original.index()[1]
    with pytest.warns(NotGeoreferencedWarning):
        file = rasterio.open(tmp_path / "out/p1.tif")
    with file:
        assert file.crs is None
        assert file.count == len(patch.days) * len(FACTS.bands)
        dn = original.read(patch).dn
        observed = (dn > 0).any(axis=1, keepdims=True)
        np.testing.assert_array_equal(file.read().reshape(dn.shape), np.where(observed, np.maximum(dn, 1), 0))


def test_patches_that_are_smaller_than_a_layout_are_refused(tmp_path: Path) -> None:
    location = import_dataset(MadeUp(), str(tmp_path / "set"), Silent()).location
    ended = run_here("sits-cube", "export", "deepsatmodels", location, "--layout", "mtlcc", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "has patches of 6 x 6 px; windows of 24 px cannot be cut from them" in ended.stderr


def test_metadata_of_a_region_open_in_geopandas_where_the_windows_lie(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made")
    run_here("sits-cube", "export", "pastis", region.folder.location, "--out", tmp_path / "out")
    table = geopandas.read_file(tmp_path / "out/metadata.geojson")
    assert sorted(table["Fold"]) == [1, 2, 4, 4, 5, 5]
    first = table.to_crs(32631).set_index("ID_PATCH").geometry[0]
    assert first.area == pytest.approx(1280**2, rel=1e-6)
    box = region.layout.geobox
    assert first.bounds[0] == pytest.approx(box.affine.c, abs=0.01)
    assert first.bounds[3] == pytest.approx(box.affine.f, abs=0.01)


def test_cogs_of_an_incomplete_dataset_and_over_files_are_asked_for(tmp_path: Path) -> None:
    region = make_region(tmp_path / "made", complete=False)
    group = zarr.open_group(region.folder.path / "cube.zarr", mode="r+", use_consolidated=False)
    quality = group["quality"]
    assert isinstance(quality, zarr.Array)
    quality[1, :10, :10] = 128
    command = ("sits-cube", "export", "cog", region.folder.location, "--out", tmp_path / "out", "--array", "quality")
    refused = run_here(*command)
    assert (refused.code, refused.stdout) == (2, "")
    assert "--incomplete" in refused.stderr
    ended = run_here(*command, "--incomplete")
    assert ended.code == 0, ended.stderr
    assert "note: 100 pixels of 1 dates could not be read when the dataset was built" in ended.stderr
    assert "--overwrite" in run_here(*command, "--incomplete").stderr
    assert run_here(*command, "--incomplete", "--overwrite").code == 0
