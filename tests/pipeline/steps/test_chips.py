from __future__ import annotations

import io
import json

import geopandas
import numpy as np
import pyarrow.parquet as pq
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, Split
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.journal import encode_line
from sits_pipeline.steps.chips import ChipFrame, chips_table, count_chips, merge_chips, place_chips, select_chips
from sits_pipeline.values import Parcels, Window

LEFT, TOP = 600_000, 4_900_020


def geobox(height: int, width: int) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")


def frame_of(row: int, column: int, side: int = 64, *, chip_id: str = "parcel-1") -> ChipFrame:
    window = Window(row=row, column=column, height=side, width=side)
    return ChipFrame(chip_id=chip_id, window=window, split=Split.TRAIN)


def parcels_of(*bounds: tuple[float, float, float, float]) -> Parcels:
    """Boxes by west, north, width and height, in metres from the cube's corner."""
    count = len(bounds)
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, count + 1, dtype=np.uint32),
        source_row=np.arange(count),
        crop_type=np.ones(count, np.uint16),
        geometry=np.array([shapely.box(LEFT + x, TOP - y - h, LEFT + x + w, TOP - y) for x, y, w, h in bounds]),
    )


def random_cell(seed: int, height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "clear": rng.random((3, height, width)) < 0.5,
        "crop_type": rng.choice(np.array([0, 1, 7, IGNORE], np.uint16), (height, width)),
        "parcel_id": rng.choice(np.array([0, 3, 4, 90_000], np.uint32), (height, width)),
        "split": rng.choice(np.array([1, 1, 4], np.uint8), (height, width)),
    }


def test_a_chip_by_hand() -> None:
    clear = np.zeros((2, 64, 64), bool)
    clear[0, :32] = True  # exactly half: the date counts
    clear[1, :31] = True
    crop = np.full((64, 64), IGNORE, np.uint16)
    crop[:10], crop[10:12], crop[12] = 5, 2, 0
    parcel = np.zeros((64, 64), np.uint32)
    parcel[:10], parcel[10:12] = 8, 9
    split = np.full((64, 64), Split.TEST, np.uint8)
    split[60:] = Split.BUFFER
    counted = count_chips(Window(row=128, column=64, height=64, width=64), (), clear, crop, parcel, split)
    assert counted["chip_pieces"] == []
    assert counted["chips"] == [
        ["grid-128-64", "grid", 128, 64, 64, 64, 3, 13 * 64, 2, {"0": 64, "2": 128, "5": 640}, 1, 63 * 64, 2]
    ]


def test_chips_are_cut_at_the_cubes_edge() -> None:
    cell = random_cell(0, 70, 130)
    rows = count_chips(Window(row=64, column=0, height=70, width=130), (), *cell.values())["chips"]
    assert [row[2:6] for row in rows] == [
        [64, 0, 64, 64], [64, 64, 64, 64], [64, 128, 64, 2], [128, 0, 6, 64], [128, 64, 6, 64], [128, 128, 6, 2],
    ]  # fmt: skip


@given(seed=st.integers(0, 1000), height=st.integers(1, 140), width=st.integers(1, 140))
@settings(max_examples=20, deadline=None)
def test_grid_chips_equal_a_plain_count(seed: int, height: int, width: int) -> None:
    cell = random_cell(seed, height, width)
    for row in count_chips(Window(row=0, column=0, height=height, width=width), (), *cell.values())["chips"]:
        _, _, top, left, h, w, split, labelled, n_parcels, counts, clear_dates, clear_pixels, n_dates = row
        here = np.s_[top : top + h, left : left + w]
        crop = cell["crop_type"][here]
        assert labelled == np.count_nonzero(crop != IGNORE)
        assert counts == {str(c): int((crop == c).sum()) for c in (0, 1, 7) if (crop == c).any()}
        assert n_parcels == len(set(cell["parcel_id"][here].ravel().tolist()) - {0})
        clear = cell["clear"][:, here[0], here[1]].sum(axis=(1, 2))
        assert (clear_dates, clear_pixels, n_dates) == (int((2 * clear >= h * w).sum()), int(clear.sum()), 3)
        assert split == (1 if (cell["split"][here] == 1).any() else 4)


def test_a_chip_of_buffer_alone_is_buffer_and_one_of_no_block_is_none() -> None:
    clear, window = np.ones((1, 64, 128), bool), Window(row=0, column=0, height=64, width=128)
    split = np.zeros((64, 128), np.uint8)
    split[:, :64] = Split.BUFFER
    assert [row[6] for row in count_chips(window, (), clear, None, None, split)["chips"]] == [4, 0]


@given(
    seed=st.integers(0, 1000),
    cut=st.sampled_from([64, 128]),
    row=st.integers(0, 120),
    column=st.integers(0, 120),
)
@settings(max_examples=25, deadline=None)
def test_pieces_of_a_chip_add_up_to_the_whole(seed: int, cut: int, row: int, column: int) -> None:
    cell = random_cell(seed, 192, 192)
    chip = frame_of(row, column, 72)
    whole = merge_chips([count_chips(Window(row=0, column=0, height=192, width=192), (chip,), *cell.values())])
    cells = []
    for top in range(0, 192, cut):
        for left in range(0, 192, cut):
            window = Window(row=top, column=left, height=min(cut, 192 - top), width=min(cut, 192 - left))
            blocks = [block[..., window.rows, window.columns] for block in cell.values()]
            cells.append(json.loads(json.dumps(count_chips(window, select_chips([chip], window), *blocks))))
    assert merge_chips(reversed(cells)) == json.loads(json.dumps(whole))
    assert whole[-1][1] == "parcel"


def test_parcel_chips_hold_their_parcel_and_stay_inside_of_the_cube() -> None:
    parcels = parcels_of(
        (1500, 1500, 100, 60),  # a small one: 64 px around its middle
        (0, 0, 50, 50),  # in the corner: moved inside
        (1000, 1000, 700, 100),  # 70 px + 4 do not fit 64: 80
        (-300, 0, 200, 200),  # outside
        (3000, 2950, 100, 100),  # over the far edge
    )
    frames = place_chips(parcels, geobox(300, 305), split_of=None)
    assert [(f.chip_id, f.window.row, f.window.column, f.window.height, f.window.width) for f in frames] == [
        ("parcel-1", 121, 123, 64, 64),
        ("parcel-2", 0, 0, 64, 64),
        ("parcel-3", 65, 95, 80, 80),
        ("parcel-5", 236, 241, 64, 64),
    ]


def test_a_huge_parcel_is_cut_and_a_small_cube_cuts_every_chip() -> None:
    (huge,) = place_chips(parcels_of((0, 0, 9000, 9000)), geobox(900, 900), split_of=None)
    assert (huge.window.row, huge.window.height, huge.window.width) == (194, 512, 512)
    (small,) = place_chips(parcels_of((0, 0, 100, 100)), geobox(36, 300), split_of=None)
    assert (small.window.row, small.window.height, small.window.width) == (0, 36, 64)


def test_a_parcel_chip_takes_the_split_of_the_ground_it_touches() -> None:
    asked = []

    def split_of(window: Window) -> Split:
        asked.append(window)
        return Split.BUFFER

    (chip,) = place_chips(parcels_of((0, 0, 50, 50)), geobox(300, 300), split_of=split_of)
    assert chip.split is Split.BUFFER
    assert asked == [chip.window]


def test_the_table_has_the_contracts_columns_and_the_same_bytes_twice() -> None:
    cell, window = random_cell(1, 64, 100), Window(row=0, column=0, height=64, width=100)
    rows = merge_chips([count_chips(window, [frame_of(0, 10, chip_id="parcel-12")], *cell.values())])
    files = []
    for _ in range(2):
        file = io.BytesIO()
        write_geo_table(file, chips_table(rows, geobox(64, 100)))
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert set(pq.read_schema(io.BytesIO(files[0])).metadata) == {b"geo"}
    back = geopandas.read_parquet(io.BytesIO(files[0]))
    assert list(back.columns) == [
        "chip_id", "kind", "row", "col", "height", "width", "split", "labelled_share", "n_parcels", "dominant_crop",
        "crop_counts", "clear_dates", "clear_share", "geometry",
    ]  # fmt: skip
    assert back.chip_id.tolist() == ["grid-0-0", "grid-0-64", "parcel-12"]
    assert back.split.tolist() == ["train"] * 3
    first = back.iloc[0]
    counts = dict(first.crop_counts)
    assert first.dominant_crop == max((1, 7), key=lambda crop: counts[crop])
    assert first.labelled_share == sum(counts.values()) / 4096
    assert first.clear_share == cell["clear"][:, :, :64].mean()
    assert back.geometry.iloc[1].equals(shapely.box(LEFT + 640, TOP - 640, LEFT + 1000, TOP))
    assert back.crs.to_epsg() == 32631


def test_classes_come_in_their_order_whether_or_not_the_row_went_through_the_journal() -> None:
    crop = np.repeat(np.arange(16, dtype=np.uint16), 4)[:, None].repeat(64, axis=1)
    window = Window(row=0, column=0, height=64, width=64)
    counted = count_chips(window, (), np.ones((1, 64, 64), bool), crop, crop.astype(np.uint32), None)
    tables = [chips_table(merge_chips([cell]), geobox(64, 64)) for cell in (counted, json.loads(encode_line(counted)))]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    assert [crop for crop, _ in tables[1].to_pylist()[0]["crop_counts"]] == list(range(16))


def test_without_labels_the_label_columns_are_null() -> None:
    window = Window(row=0, column=0, height=64, width=64)
    counted = count_chips(window, (), np.ones((2, 64, 64), bool), None, None, None)
    row = chips_table(merge_chips([counted]), geobox(64, 64)).to_pylist()[0]
    assert [row[name] for name in ("split", "labelled_share", "n_parcels", "dominant_crop", "crop_counts")] == [
        None
    ] * 5
    assert (row["clear_dates"], row["clear_share"]) == (2, 1.0)


def test_a_tie_goes_to_the_smaller_class_and_background_is_never_dominant() -> None:
    crop = np.zeros((64, 64), np.uint16)
    crop[0], crop[1] = 9, 4
    window = Window(row=0, column=0, height=64, width=64)
    rows = merge_chips([count_chips(window, (), np.ones((1, 64, 64), bool), crop, crop.astype(np.uint32), None)])
    assert chips_table(rows, geobox(64, 64)).to_pylist()[0]["dominant_crop"] == 4
    crop[:2] = 0
    rows = merge_chips([count_chips(window, (), np.ones((1, 64, 64), bool), crop, crop.astype(np.uint32), None)])
    assert chips_table(rows, geobox(64, 64)).to_pylist()[0]["dominant_crop"] is None
