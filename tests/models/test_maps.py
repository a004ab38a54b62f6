from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray
from tests.synthetic import EPSG, LEFT, TOP, Synthetic

from sits_models.data.classes import ClassTable, CropEntry
from sits_models.data.cubes import open_cube
from sits_models.maps.cog import write_cogs
from sits_models.maps.compute import summarise
from sits_models.maps.parcels import ParcelCounts, count_parcels, judge, write_parcels
from sits_models.maps.picture import Thinned, draw_map, thin_map
from sits_models.maps.store import MapLayout, create_map, read_cell, write_cell
from sits_models.maps.work import Begun, Work, open_work
from sits_models.tiling import Cell, Tiling

CLASSES = (
    CropEntry(index=0, code="0", name="background", hcat=None, colour="#e8e8e8"),
    CropEntry(index=1, code="c2", name="maize", hcat=None, colour="#4f9d3a"),
    CropEntry(index=2, code="c1", name="winter wheat", hcat="3301010101", colour="#e0b040"),
)
TILING = Tiling(shape=(540, 576), cell=512, tile=64, stride=32, halo=None)


def layout_of(*, m: int = 1, probabilities: bool = False, simulated: bool = False) -> MapLayout:
    return MapLayout(
        shape=(m * 540, m * 576),
        transform=(10 / m, 0, LEFT, 0, -10 / m, TOP),
        epsg=EPSG,
        cell=m * 512,
        classes=CLASSES,
        probabilities=probabilities,
        attributes={"version": "1.0"},
        simulated=simulated,
    )


def cell_arrays(cell: Cell, *, m: int = 1) -> dict[str, NDArray[np.generic]]:
    """Stripes of the classes, with an empty corner in the first cell."""
    shape = (m * cell.height, m * cell.width)
    crop = np.broadcast_to((np.arange(shape[1]) // 10 % 3).astype(np.uint16), shape).copy()
    probability = np.full(shape, 200, np.uint8)
    if cell.number == 0:
        crop[:20, :30], probability[:20, :30] = 65535, 255
    return {"crop_type": crop, "probability": probability, "uncertainty": probability // 3}


@pytest.fixture(params=[1, 2])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, MapLayout, int]:
    m: int = request.param
    layout = layout_of(m=m)
    create_map(tmp_path, layout)
    for cell in TILING.cells():
        write_cell(tmp_path, cell, m, cell_arrays(cell, m=m))
    return tmp_path, layout, m


# One pixel after the other


def test_class_probability_and_uncertainty_of_a_pixel() -> None:
    probabilities = np.array(
        [[[1.0, 0.25, 0.5, 0.9]], [[0.0, 0.25, 0.5, 0.1]], [[0.0, 0.25, 0, 0]], [[0, 0.25, 0, 0]]], np.float32
    )
    crop, probability, uncertainty = summarise(probabilities, np.array([[True, True, True, False]]))
    assert crop.tolist() == [[0, 0, 0, 65535]]
    # 254, a quarter and a half of it; entropies of 0, log 4 and log 2 over log 4.
    assert probability.tolist() == [[254, 64, 127, 255]]
    assert uncertainty.tolist() == [[0, 254, 127, 255]]


def test_a_model_of_one_class_is_never_unsure() -> None:
    crop, probability, uncertainty = summarise(np.ones((1, 1, 1), np.float32), np.ones((1, 1), np.bool_))
    assert (crop.item(), probability.item(), uncertainty.item()) == (0, 254, 0)


# Zarr


def test_the_map_opens_in_xarray_with_its_crs_and_corner(made: tuple[Path, MapLayout, int]) -> None:
    import rioxarray  # noqa: F401  # gives datasets the accessor rio

    folder, _, m = made
    with xr.open_zarr(folder / "map.zarr") as opened:
        assert opened.crop_type.dtype == np.uint16
        assert opened.crop_type.dims == ("y", "x")
        assert opened.rio.crs.to_epsg() == EPSG
        assert opened.crop_type.rio.bounds() == (LEFT, TOP - 5400, LEFT + 5760, TOP)
        assert opened.x.values[0] == LEFT + 5 / m
        assert opened.crop_type.values[0, 0] == 65535
        assert opened.crop_type.values[m * 539, 10:40:10].tolist() == [1, 2, 0]
        rows = opened.crop_type.attrs["classes"]
    assert [(row["index"], row["code"], row["name"]) for row in rows] == [
        (0, "0", "background"),
        (1, "c2", "maize"),
        (2, "c1", "winter wheat"),
    ]


def test_a_cell_reads_back_as_it_was_written(made: tuple[Path, MapLayout, int]) -> None:
    folder, _, m = made
    for cell in TILING.cells():
        for name, values in cell_arrays(cell, m=m).items():
            np.testing.assert_array_equal(read_cell(folder, name, cell, m), values)


def test_a_cell_is_a_shard_of_its_own(made: tuple[Path, MapLayout, int]) -> None:
    folder, _, _ = made
    shards = sorted(path.relative_to(folder).as_posix() for path in (folder / "map.zarr/crop_type/c").rglob("*/*"))
    assert shards == [f"map.zarr/crop_type/c/{row}/{column}" for row in (0, 1) for column in (0, 1)]


def test_probabilities_of_all_classes_are_kept_when_asked_for(tmp_path: Path) -> None:
    create_map(tmp_path, layout_of(probabilities=True))
    cell = TILING.cells()[3]
    values = np.arange(3 * cell.height * cell.width, dtype=np.uint8).reshape(3, cell.height, cell.width)
    write_cell(tmp_path, cell, 1, {"probabilities": values})
    with xr.open_zarr(tmp_path / "map.zarr") as opened:
        assert opened.probabilities.dims == ("class", "y", "x")
        np.testing.assert_array_equal(opened.probabilities.values[:, 512:, 512:], values)
        assert opened["class"].values.tolist() == [0, 1, 2]


# GeoTIFF


def test_geotiffs_have_crs_colours_names_and_overviews(made: tuple[Path, MapLayout, int]) -> None:
    folder, layout, m = made
    write_cogs(folder, layout, TILING, m)
    with rasterio.open(folder / "map.tif") as file:
        assert file.crs.to_epsg() == EPSG
        assert file.transform[:6] == layout.transform
        assert file.nodata == 65535
        assert file.colormap(1)[2] == (0xE0, 0xB0, 0x40, 255)
        assert file.tags()["CLASS_1"] == "maize"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        pixels = file.read(1)
    for cell in TILING.cells():
        part = pixels[m * cell.row :, m * cell.column :][: m * cell.height, : m * cell.width]
        np.testing.assert_array_equal(part, cell_arrays(cell, m=m)["crop_type"])
    for name in ("probability", "uncertainty"):
        with rasterio.open(folder / f"{name}.tif") as file:
            assert file.scales == (1 / 254,)
            assert file.nodata == 255
    assert not list(folder.glob("*.partial*"))


def test_a_map_of_simulated_data_says_so(tmp_path: Path) -> None:
    layout = layout_of(simulated=True)
    create_map(tmp_path, layout)
    with xr.open_zarr(tmp_path / "map.zarr") as opened:
        assert opened.attrs["sits_map"]["simulated"] is True
    for path in write_cogs(tmp_path, layout, TILING, 1):
        with rasterio.open(path) as file:
            assert file.tags()["SIMULATED"] == "YES"


def test_a_map_of_real_data_does_not_say_that_it_is_simulated(made: tuple[Path, MapLayout, int]) -> None:
    folder, layout, m = made
    with rasterio.open(write_cogs(folder, layout, TILING, m)[0]) as file:
        assert "SIMULATED" not in file.tags()


# Parcels


def test_counts_of_a_cell_by_hand() -> None:
    parcel = np.array([[7, 7, 7], [0, 3, 3]], np.uint32)
    crop = np.array([[1, 1, 0], [1, 65535, 0]], np.uint16)
    probabilities = np.zeros((2, 2, 3), np.float32)
    probabilities[1] = [[0.8, 0.6, 0.4], [0.9, 0.5, 0.2]]
    probabilities[0] = 1 - probabilities[1]
    counts = count_parcels(parcel, crop, probabilities)
    assert counts.parcel_id.tolist() == [3, 7]
    assert counts.votes.tolist() == [[1, 0], [1, 2]]
    np.testing.assert_allclose(counts.sums / 65535, [[0.8, 0.2], [1.2, 1.8]], atol=1e-4)


def test_counts_of_a_cell_without_parcels_are_empty() -> None:
    counts = count_parcels(np.zeros((2, 2), np.uint32), np.zeros((2, 2), np.uint16), np.ones((3, 2, 2), np.float32))
    assert counts.votes.shape == (0, 3)


def test_counts_of_strips_add_up_to_those_of_the_cell() -> None:
    rng = np.random.default_rng(3)
    parcel = rng.integers(0, 9, (12, 5)).astype(np.uint32)
    crop = rng.integers(0, 3, (12, 5)).astype(np.uint16)
    probabilities = rng.random((3, 12, 5)).astype(np.float32)
    whole = count_parcels(parcel, crop, probabilities)
    parts = [count_parcels(parcel[rows], crop[rows], probabilities[:, rows]) for rows in (slice(0, 7), slice(7, 12))]
    total = ParcelCounts.total(parts)
    for name in ("parcel_id", "votes", "sums"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


def test_the_majority_decides_then_the_order() -> None:
    votes = np.array([[1, 2, 0], [2, 2, 1], [2, 2, 0], [0, 0, 0]])
    sums = 65535 * np.array([[2, 1, 0], [1, 3, 1], [2, 2, 0], [0, 0, 0]])
    verdicts = judge(votes, sums)
    # The second parcel is a tie, in which the first class wins though the second is the more probable.
    assert verdicts.predicted.tolist() == [1, 0, 0, -1]
    np.testing.assert_allclose(verdicts.share, [2 / 3, 2 / 5, 1 / 2, np.nan])
    np.testing.assert_allclose(verdicts.probability, [1 / 3, 1 / 5, 1 / 2, np.nan])


def test_counts_are_kept_by_the_number_of_the_parcel(tmp_path: Path) -> None:
    ids = np.array([1, 50_000, 50_001, 250_000], np.uint32)
    counts = ParcelCounts(
        parcel_id=ids, votes=np.arange(8, dtype=np.uint32).reshape(4, 2), sums=np.zeros((4, 2), np.uint64)
    )
    counts.save(tmp_path / "parcels", 7)
    files = sorted(path.relative_to(tmp_path / "parcels").as_posix() for path in tmp_path.rglob("*.npz"))
    assert files == ["000000/000007.npz", "000001/000007.npz", "000004/000007.npz"]
    first = ParcelCounts.load(tmp_path / "parcels" / files[0])
    assert first.parcel_id.tolist() == [1, 50_000]
    assert first.votes.tolist() == [[0, 1], [2, 3]]


def test_parcels_across_cells_are_put_together(synthetic: Synthetic, tmp_path: Path) -> None:
    """Each parcel of the made cube gets the class it has, but number 2, of which a corner is right."""
    facts = open_cube(str(synthetic.folder.path)).facts
    table = ClassTable(CLASSES)
    crop = table.lookup(facts)[synthetic.crop_type]
    crop[crop < 0] = 0
    second = np.argwhere(synthetic.parcel_id == 2)
    was = int(crop[tuple(second[0])])
    crop[synthetic.parcel_id == 2] = (was + 1) % 3
    crop[tuple(second[0])] = was
    probabilities = np.stack([np.where(crop == index, 0.75, 0.125) for index in range(3)]).astype(np.float32)
    saved = tmp_path / "counts"
    for cell in TILING.cells():
        window = (cell.rows, cell.columns)
        counts = count_parcels(synthetic.parcel_id[window], crop[window].astype(np.uint16), probabilities[:, *window])
        counts.save(saved, cell.number)
    source = f"{synthetic.folder.path}/parcels.parquet"
    n = write_parcels(tmp_path / "parcels.parquet", source, saved, table=table, facts=facts)
    written = geopandas.read_parquet(tmp_path / "parcels.parquet").set_index("parcel_id")
    before = geopandas.read_parquet(source).set_index("parcel_id")
    assert n == len(written) == len(before)
    assert written.crs == before.crs
    assert written.geometry.equals(before.geometry)
    pixels = np.bincount(synthetic.parcel_id.ravel(), minlength=n + 1)[1:]
    assert written.n_pixels.tolist() == pixels.tolist()
    right = written[(written.index != 2) & written.agrees.notna()]
    assert len(right) > 100
    assert right.agrees.all()
    assert (right.predicted_code == right.declared_code).all()
    np.testing.assert_allclose(right.share, 1)
    np.testing.assert_allclose(right.probability, 0.75, atol=1e-4)
    assert not written.loc[2].agrees
    np.testing.assert_allclose(written.loc[2].share, 1 - 1 / pixels[1], rtol=1e-6)
    # The sliver that wins no pixel is listed without a verdict; "c3" is no class of this model.
    assert written.predicted.isna().sum() == (pixels == 0).sum() == 1
    assert written[written.declared_code == "c3"].agrees.isna().all()


# Picture


def test_a_thinned_map_does_not_depend_on_the_cells(
    made: tuple[Path, MapLayout, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, m = made
    monkeypatch.setattr("sits_models.maps.picture._MAX_PX", 100)
    labels = np.arange(540 * 576).reshape(540, 576)
    thinned = thin_map(
        folder, TILING, magnification=m, pixel_m=10, declared=lambda cell: labels[cell.rows, cell.columns]
    )
    whole = np.empty((540 * m, 576 * m), np.uint16)
    for cell in TILING.cells():
        place = (slice(m * cell.row, None), slice(m * cell.column, None))
        whole[place][: m * cell.height, : m * cell.width] = read_cell(folder, "crop_type", cell, m)
    assert thinned.pixel_m == 60
    np.testing.assert_array_equal(thinned.predicted, whole[:: 6 * m, :: 6 * m])
    np.testing.assert_array_equal(thinned.declared, labels[::6, ::6])


def test_the_picture_is_the_same_every_time() -> None:
    predicted = np.array([[0, 1], [2, 65535]], np.uint16).repeat(40, 0).repeat(60, 1)
    thinned = Thinned(
        predicted=predicted,
        uncertainty=np.where(predicted == 65535, 255, 100).astype(np.uint8),
        declared=np.where(predicted == 65535, -1, predicted.astype(np.int64)),
        pixel_m=10,
    )
    first, second = (draw_map(thinned, CLASSES, "A map") for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


# Work


def test_work_begun_with_other_weights_is_refused(tmp_path: Path) -> None:
    work, before = open_work(tmp_path, {"weights": "a", "tile": 48})
    assert before is None
    begun = Begun(identity={"weights": "a", "tile": 48}, threads=2, state="created")
    work.begin(begun)
    assert open_work(tmp_path, {"weights": "a", "tile": 48})[1] == begun
    with pytest.raises(FileExistsError, match=r"begun otherwise \(weights a, now b\); choose another --out"):
        open_work(tmp_path, {"weights": "b", "tile": 48})


def test_what_a_killed_process_left_of_the_beginning_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/made_of.json.partial").write_text("{")
    work, before = open_work(tmp_path, {"weights": "a"})
    assert before is None
    assert not list(tmp_path.rglob("*.partial"))
    (work.path / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty and holds no map"):
        open_work(tmp_path, {"weights": "a"})


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty and holds no map"):
        open_work(tmp_path, {"weights": "a"})


def test_a_line_that_was_cut_short_is_no_finished_cell(tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    work.begin(Begun(identity={}, threads=1))
    work.finish({"cell": 0, "classes": [1]})
    with (work.path / "journal.jsonl").open("ab") as file:
        file.write(b'{"cell": 1, "cla')
    assert list(work.done()) == [0]
    work.finish({"cell": 1, "classes": [2]})
    assert list(work.done()) == [0, 1]
