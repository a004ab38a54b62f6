"""Original files, imported and exported in the same layout: the arrays come back as they were."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.importers import test_pastis as small_pastis
from tests.pipeline.importers import test_pastis24 as small_pastis24
from tests.pipeline.importers.chips_in_files import FULL, MTLCC_TILES, mtlcc_tile, write_mtlcc, write_t31tfm
from tests.pipeline.importers.made_up import Silent

from sits_catalog.cube import IGNORE
from sits_pipeline.exporters.deepsatmodels import DeepSatLayout, export_deepsatmodels
from sits_pipeline.exporters.pastis import export_pastis
from sits_pipeline.exporters.whole import Exported
from sits_pipeline.folder import Folder
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.mtlcc import open_mtlcc
from sits_pipeline.importers.original import Original
from sits_pipeline.importers.pastis import open_pastis
from sits_pipeline.importers.pastis24 import open_pastis24
from sits_pipeline.importers.pickles import load_plain_pickle
from sits_pipeline.importers.t31tfm import open_t31tfm
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.store.patches import read_patches


def imported(original: Original, out: Path) -> Folder:
    return Folder(import_dataset(original, str(out), Silent()).location)


def exported(folder: Folder, out: Path, layout: DeepSatLayout) -> Exported:
    return export_deepsatmodels(
        folder, out, layout=layout, overwrite=False, incomplete=False, progress=lambda done, total: None
    )


def as_stored(dn: NDArray[np.int16]) -> NDArray[np.int16]:
    """What the contract keeps of a series (time, band, y, x): observed pixels are 1 and more, others are 0."""
    observed = (dn > 0).any(axis=1, keepdims=True)
    return np.where(observed, np.maximum(dn, 1), 0).astype(np.int16)


def test_pastis_comes_back(tmp_path: Path) -> None:
    root = small_pastis.write_pastis(tmp_path / "PASTIS")
    folder = imported(open_pastis(root, folds=FoldRule()), tmp_path / "out")
    out = tmp_path / "again"
    export_pastis(folder, out, overwrite=False, incomplete=False, progress=lambda done, total: None)
    before, after = (json.loads((path / "metadata.geojson").read_text())["features"] for path in (root, out))
    found = {feature["properties"]["ID_PATCH"]: feature for feature in after}
    assert len(found) == len(before)
    for feature in before:
        wanted = feature["properties"]
        number = wanted["ID_PATCH"]
        assert found[number]["properties"] == {k: v for k, v in wanted.items() if k != "dates-S1A"}
        original, again = np.load(root / f"DATA_S2/S2_{number}.npy"), np.load(out / f"DATA_S2/S2_{number}.npy")
        assert again.dtype == original.dtype
        np.testing.assert_array_equal(again, as_stored(original))
        assert (again == original)[original > 0].all()
        target = np.load(out / f"ANNOTATIONS/TARGET_{number}.npy")
        assert (target.dtype, target.shape) == (np.uint8, (3, small_pastis.SIDE, small_pastis.SIDE))
        np.testing.assert_array_equal(target[0], np.load(root / f"ANNOTATIONS/TARGET_{number}.npy")[0])
        ids = [np.load(path / f"ANNOTATIONS/ParcelIDs_{number}.npy") for path in (root, out)]
        np.testing.assert_array_equal(*ids)
    outlines = [
        geopandas.read_file(path / "metadata.geojson").to_crs(2154).set_index("ID_PATCH").sort_index()
        for path in (root, out)
    ]
    areas = outlines[0].geometry.intersection(outlines[1].geometry).area
    np.testing.assert_allclose(areas, 1280.0**2, rtol=1e-6)


def test_norms_are_the_mean_of_the_patches_of_a_fold(tmp_path: Path) -> None:
    root = small_pastis.write_pastis(tmp_path / "PASTIS")
    folder = imported(open_pastis(root, folds=FoldRule()), tmp_path / "out")
    out = tmp_path / "again"
    export_pastis(folder, out, overwrite=False, incomplete=False, progress=lambda done, total: None)
    norms = json.loads((out / "NORM_S2_patch.json").read_text())
    assert sorted(norms) == sorted({f"Fold_{fold}" for fold in small_pastis.FOLDS.values()})
    for number, fold in small_pastis.FOLDS.items():
        dn = np.load(out / f"DATA_S2/S2_{number}.npy").astype(np.float64)
        pixels = np.moveaxis(dn, 1, -1)[(dn > 0).any(axis=1)]
        np.testing.assert_allclose(norms[f"Fold_{fold}"]["mean"], pixels.mean(axis=0))
        np.testing.assert_allclose(norms[f"Fold_{fold}"]["std"], pixels.std(axis=0, ddof=1))


@pytest.mark.slow
@pytest.mark.parametrize("ranked", [small_pastis24.as_rank_2, small_pastis24.as_rank_3])
@pytest.mark.parametrize("restored", [True, False])
def test_pastis24_comes_back(
    tmp_path: Path, ranked: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], restored: bool
) -> None:
    root = small_pastis24.write_pastis24(tmp_path / "PASTIS24", ranked=ranked)
    metadata = small_pastis24.write_metadata(tmp_path / "metadata.geojson") if restored else None
    folder = imported(open_pastis24(root, metadata=metadata, folds=FoldRule()), tmp_path / "out")
    exported(folder, tmp_path / "again", "pastis24")
    paths = sorted(path.relative_to(root) for path in root.glob("pickle24x24/*"))
    assert paths == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").glob("pickle24x24/*"))
    for path in paths:
        before, after = (pickle.loads((base / path).read_bytes()) for base in (root, tmp_path / "again"))
        np.testing.assert_array_equal(after["img"], before["img"])
        np.testing.assert_array_equal(after["doy"], before["doy"])
        one_map = before["labels"][0] if before["labels"].ndim == 3 else before["labels"]
        assert after["labels"].shape == (1, 24, 24), "the published transform takes labels[0]"
        np.testing.assert_array_equal(after["labels"][0], one_map)
    for fold in range(1, 6):
        name = f"fold-paths/fold_{fold}_paths.csv"
        assert (tmp_path / "again" / name).read_text().split() == (root / name).read_text().split()


def test_windows_of_pastis_are_those_that_its_authors_cut(tmp_path: Path) -> None:
    """Frames by day of the year, windows row by row, what is left at the right and the bottom dropped."""
    root = small_pastis.write_pastis(tmp_path / "PASTIS")
    rng, dates = np.random.default_rng(3), small_pastis.DATES
    series = {n: rng.integers(1, 5000, (len(dates[n]), 10, 56, 56)).astype(np.int16) for n in dates}
    targets = {n: rng.integers(0, 20, (3, 56, 56)).astype(np.uint8) for n in dates}
    for number in dates:
        np.save(root / f"DATA_S2/S2_{number}.npy", series[number])
        np.save(root / f"ANNOTATIONS/TARGET_{number}.npy", targets[number])
        np.save(root / f"ANNOTATIONS/ParcelIDs_{number}.npy", targets[number][0].astype(np.int32))
    folder = imported(open_pastis(root, folds=FoldRule()), tmp_path / "out")
    exported(folder, tmp_path / "windows", "pastis24")
    assert len(list((tmp_path / "windows/pickle24x24").iterdir())) == 4 * 4
    for number, found in dates.items():
        doy = small_pastis24.doys(found)
        by_year = np.argsort(doy, kind="stable")
        for window in range(4):
            sample = load_plain_pickle(tmp_path / f"windows/pickle24x24/{number}_{window}.pickle")
            rows, columns = (slice(24 * at, 24 * at + 24) for at in divmod(window, 2))
            np.testing.assert_array_equal(sample["doy"], doy[by_year])
            np.testing.assert_array_equal(sample["img"], series[number][by_year][:, :, rows, columns])
            np.testing.assert_array_equal(sample["labels"][0], targets[number][0, rows, columns])


@pytest.mark.parametrize("kind", ["tfrecord", "pickle"])
def test_mtlcc_comes_back(tmp_path: Path, kind: str) -> None:
    root = write_mtlcc(tmp_path / "MTLCC", kind=kind)
    folder = imported(open_mtlcc(root), tmp_path / "out")
    exported(folder, tmp_path / "again", "mtlcc")
    there = tmp_path / "again" / FULL
    for name, (data, _) in MTLCC_TILES.items():
        again = load_plain_pickle(there / f"240pkl/{data}/{name}.pickle")
        tile = mtlcc_tile(name, year=2000 + int(data[4:]))
        assert sorted(again) == sorted(tile)
        for field, array in tile.items():
            assert again[field].dtype == array.dtype
            np.testing.assert_array_equal(again[field], array)
    for which in ("train_fold0", "eval", "test_fold0"):
        lists = [(path / f"240/tileids/{which}.tileids").read_text().split() for path in (root / FULL, there)]
        assert lists[0] == lists[1]
    assert (there / "240pkl/train_paths.csv").read_text() == f"{FULL}/240pkl/data16/101.pickle\n"
    assert (there / "240pkl/eval_paths.csv").read_text() == f"{FULL}/240pkl/data16/102.pickle\n"


@pytest.mark.slow
@pytest.mark.parametrize("naming", ["assignments", "masks"])
def test_t31tfm_comes_back(tmp_path: Path, naming: str) -> None:
    chips = write_t31tfm(tmp_path / "T31TFM", naming=naming)
    folder = imported(open_t31tfm(tmp_path / "T31TFM"), tmp_path / "out")
    out = tmp_path / "again"
    exported(folder, out, "t31tfm")
    for path, chip in chips.items():
        again: dict[str, Any] = load_plain_pickle(out / path)
        left_out = {name for name in chip if name.endswith("_x4")} | {"groups", "invalid", "distances"}
        assert chip.keys() - left_out <= again.keys()
        shared = chip["masks"] > 0 if naming == "masks" else (chip["part_ass"] + chip["full_ass"]) > 0
        for name in chip.keys() - left_out - {"labels"}:
            np.testing.assert_array_equal(again[name], chip[name], err_msg=name)
        np.testing.assert_array_equal(again["labels"], np.where(shared, 4, chip["labels"]))
    for name in ("train", "eval"):
        rows = [(base / f"paths/{name}_paths.csv").read_text() for base in (tmp_path / "T31TFM", out)]
        assert rows[0] == rows[1]
    assert imported(open_t31tfm(out), tmp_path / "third").exists("item.json"), "what is exported can be imported"


@pytest.mark.slow
def test_unclassed_ground_of_t31tfm_is_no_background_after_a_round_trip(tmp_path: Path) -> None:
    chips = write_t31tfm(tmp_path / "T31TFM")
    for path, chip in chips.items():
        chip["labels"][:6] = 99  # a crop that the published set does not train
        chip["labels"][6:12] = 0
        (tmp_path / "T31TFM" / path).write_bytes(pickle.dumps(chip))
    first = imported(open_t31tfm(tmp_path / "T31TFM"), tmp_path / "a")
    exported(first, tmp_path / "again", "t31tfm")
    second = imported(open_t31tfm(tmp_path / "again"), tmp_path / "b")
    before, after = (np.asarray(read_patches(folder, "crop_type", slice(0, 3))) for folder in (first, second))
    assert (before[:, :6] == IGNORE).all()
    assert (before[:, 6:12] == 0).any()
    np.testing.assert_array_equal(after, before)


@pytest.mark.slow
def test_published_loaders_make_the_same_chips_of_both(tmp_path: Path) -> None:
    """Our reimplementation of the published transforms, which is held against their outputs elsewhere."""
    pytest.importorskip("torch")
    from sits_models.data.published import france_chip, mtlcc_chip, pastis24_chip

    chips = write_t31tfm(tmp_path / "T31TFM")
    exported(imported(open_t31tfm(tmp_path / "T31TFM"), tmp_path / "a"), tmp_path / "france", "t31tfm")
    write_mtlcc(tmp_path / "MTLCC", kind="tfrecord")
    exported(imported(open_mtlcc(tmp_path / "MTLCC"), tmp_path / "b"), tmp_path / "mtlcc", "mtlcc")
    small_pastis24.write_pastis24(tmp_path / "PASTIS24", ranked=small_pastis24.as_rank_3)
    original = open_pastis24(tmp_path / "PASTIS24", metadata=None, folds=FoldRule())
    exported(imported(original, tmp_path / "c"), tmp_path / "pastis24", "pastis24")
    pairs = [(france_chip, chip, tmp_path / "france" / path) for path, chip in chips.items()]
    tile = tmp_path / "mtlcc" / FULL / "240pkl/data16/101.pickle"
    pairs.append((mtlcc_chip, mtlcc_tile("101", year=2016), tile))
    window = "pickle24x24/10000_7.pickle"
    before = load_plain_pickle(tmp_path / "PASTIS24" / window)
    pairs.append((pastis24_chip, before, tmp_path / "pastis24" / window))
    for published, arrays, path in pairs:
        wanted, found = published(arrays), published(load_plain_pickle(path))
        np.testing.assert_array_equal(found.inputs, wanted.inputs)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.known, wanted.known)
        assert found.known.any()
        assert found.dates == wanted.dates
