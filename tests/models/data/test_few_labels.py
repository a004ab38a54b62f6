"""Which labels are kept where few are to be learnt from, in arrays and in a small cube."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.synthetic import Synthetic

from sits_catalog.cube import Split
from sits_models.data.cubes import open_cube
from sits_models.data.few_labels import few_blocks, few_parcels, random_ranks
from sits_models.data.grid import Grid
from sits_models.data.kept_labels import block_px
from sits_models.data.loader import TrainingData
from sits_models.data.sampling import plan_epoch, reached_parcels
from sits_models.recipe import DataRecipe, FewLabels
from sits_models.sample import Sample

CROPS = st.lists(st.integers(-1, 4), max_size=60).map(lambda values: np.array(values, np.int64))
SHARES = st.floats(0.001, 1)
SEEDS = st.integers(0, 2**32)
SMALL = DataRecipe(size=24, batch=4, chips=32, cache_mb=8, sampling="parcel", background=False)


@st.composite
def shown(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Which classes units show."""
    units, classes = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    cells = draw(st.lists(st.booleans(), min_size=units * classes, max_size=units * classes))
    return np.array(cells).reshape(units, classes)


# Parcels


def test_one_per_cent_of_a_class_is_rounded_up_and_at_least_one_parcel() -> None:
    crop = np.repeat([0, 1, 2], [250, 100, 3])
    kept = few_parcels(crop, share=0.01, seed=0)
    assert np.bincount(crop[kept]).tolist() == [3, 1, 1]


def test_a_product_that_floats_make_a_little_more_is_not_rounded_up() -> None:
    assert 0.07 * 100 > 7
    assert few_parcels(np.zeros(100, np.int64), share=0.07, seed=0).sum() == 7


@given(crop=CROPS, share=SHARES, more=SHARES, seed=SEEDS)
def test_of_each_class_so_many_are_kept_and_fewer_lie_among_more(
    crop: NDArray[np.int64], share: float, more: float, seed: int
) -> None:
    share, more = sorted((share, more))
    few, many = (few_parcels(crop, share=part, seed=seed) for part in (share, more))
    assert not (few & ~many).any()
    assert not few[crop < 0].any()
    for one in set(crop[crop >= 0].tolist()):
        n = int((crop == one).sum())
        kept = int(few[crop == one].sum())
        assert max(1, share * n - 1e-6) <= kept < share * n + 1


@given(crop=CROPS, share=SHARES, seed=SEEDS, shuffle=st.randoms(use_true_random=False))
def test_neither_the_order_nor_other_classes_change_which_parcels_are_kept(
    crop: NDArray[np.int64], share: float, seed: int, shuffle: object
) -> None:
    ids = 7 * np.arange(len(crop), dtype=np.int64) + 3
    order = np.random.default_rng(seed).permutation(len(crop))
    kept = set(ids[few_parcels(crop, share=share, seed=seed, ids=ids)].tolist())
    turned = few_parcels(crop[order], share=share, seed=seed, ids=ids[order])
    assert set(ids[order][turned].tolist()) == kept
    alone = crop == 0
    of_one = few_parcels(crop[alone], share=share, seed=seed, ids=ids[alone])
    assert set(ids[alone][of_one].tolist()) == kept & set(ids[alone].tolist())


def test_seeds_keep_different_parcels_and_each_parcel_about_as_often() -> None:
    crop = np.zeros(40, np.int64)
    found = [few_parcels(crop, share=0.25, seed=seed) for seed in range(400)]
    assert len({one.tobytes() for one in found}) > 390
    # 400 draws with a chance of 1/4: a deviation of 8.7; five of them are far out.
    assert np.abs(np.sum(found, axis=0) - 100).max() < 44


@given(crop=CROPS, share=SHARES, more=SHARES, seed=SEEDS)
def test_parcels_that_are_not_reached_are_left_out_and_the_others_stay(
    crop: NDArray[np.int64], share: float, more: float, seed: int
) -> None:
    share, more = sorted((share, more))
    reached = np.random.default_rng(seed).random(len(crop)) < 0.5
    every, part = (few_parcels(crop, share=share, seed=seed, reached=one) for one in (None, reached))
    assert not (part & ~few_parcels(crop, share=more, seed=seed, reached=reached)).any()
    ranks = random_ranks(len(crop), seed=seed)
    for one in set(crop[crop >= 0].tolist()):
        mine = crop == one
        expected = every & reached & mine
        if not expected.any() and (mine & reached).any():
            expected[np.argmin(np.where(mine & reached, ranks, np.uint64(2**64 - 1)))] = True
        assert np.array_equal(part & mine, expected)


def test_a_share_of_nothing_is_refused() -> None:
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="above 0 and up to 1"):
            few_parcels(np.zeros(3, np.int64), share=share, seed=0)
        with pytest.raises(ValueError, match="above 0 and up to 1"):
            few_blocks(np.ones((3, 1), np.bool_), share=share, seed=0)
    with pytest.raises(ValueError, match="an id for each of 3; got 2"):
        few_parcels(np.zeros(3, np.int64), share=1, seed=0, ids=np.arange(2))


# Blocks


def test_blocks_come_in_random_order_first_those_that_show_a_class_which_none_before_them_does() -> None:
    present = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.bool_)
    found = set()
    for seed in range(40):
        order = np.argsort(random_ranks(4, seed=seed)).tolist()
        cover: list[int] = []
        for unit in order:
            if (present[unit] & ~present[cover].any(axis=0)).any():
                cover.append(unit)
        assert np.flatnonzero(few_blocks(present, share=0.01, seed=seed)).tolist() == sorted(cover)
        three = (cover + [unit for unit in order if unit not in cover])[:3]
        assert np.flatnonzero(few_blocks(present, share=0.75, seed=seed)).tolist() == sorted(three)
        found.add(tuple(sorted(cover)))
    assert found == {(0, 3), (0, 1, 3), (0, 2, 3), (1, 2, 3)}


def test_a_block_that_shows_all_classes_is_not_kept_by_every_seed() -> None:
    present = np.concatenate([np.ones((1, 4), np.bool_), np.repeat(np.eye(4, dtype=np.bool_), 10, axis=0)])
    kept = [few_blocks(present, share=0.01, seed=seed) for seed in range(60)]
    assert len({one.tobytes() for one in kept}) > 50
    assert sum(bool(one[0]) for one in kept) < 30


@given(present=shown(), share=SHARES, more=SHARES, seed=SEEDS)
def test_blocks_show_every_class_there_is_and_fewer_lie_among_more(
    present: NDArray[np.bool_], share: float, more: float, seed: int
) -> None:
    share, more = sorted((share, more))
    few, many = (few_blocks(present, share=part, seed=seed) for part in (share, more))
    assert not (few & ~many).any()
    assert np.array_equal(present[few].any(axis=0), present.any(axis=0))
    # As many as the share asks for, or no more than one a class.
    assert few.sum() >= share * len(present) - 1e-6
    assert few.sum() < max(share * len(present) + 1, present.any(axis=0).sum() + 1)


@given(present=shown(), share=SHARES, seed=SEEDS)
def test_the_order_does_not_change_which_blocks_are_kept(present: NDArray[np.bool_], share: float, seed: int) -> None:
    ids = np.arange(len(present), dtype=np.int64) + 100
    order = np.random.default_rng(seed).permutation(len(present))
    kept = set(ids[few_blocks(present, share=share, seed=seed, ids=ids)].tolist())
    turned = few_blocks(present[order], share=share, seed=seed, ids=ids[order])
    assert set(ids[order][turned].tolist()) == kept


# A cube


def data_of(
    synthetic: Synthetic, share: float, *, by: Literal["parcel", "block"] = "parcel", seed: int = 0, **changes: object
) -> TrainingData:
    recipe = replace(SMALL, few=FewLabels(share=share, by=by, seed=seed), **changes)  # type: ignore[arg-type]
    return TrainingData.open(recipe, cubes=[synthetic.folder.location])


def labelled(synthetic: Synthetic) -> dict[int, set[int]]:
    """Of each class of the table the parcels with a pixel of the train split, from the whole arrays."""
    cells = synthetic_cells(synthetic)
    split = pixel_split(synthetic)
    train = (split == Split.TRAIN) & cells
    found: dict[int, set[int]] = {}
    for parcel in np.unique(synthetic.parcel_id[train]).tolist():
        crops = Counter(synthetic.crop_type[train & (synthetic.parcel_id == parcel)].tolist())
        for crop in crops:
            if parcel > 0 and 1 <= crop <= 3:
                found.setdefault(crop - 1, set()).add(parcel)
    return found


def pixel_split(synthetic: Synthetic) -> NDArray[np.uint8]:
    with TrainingData.open(SMALL, cubes=[synthetic.folder.location]) as data:
        height, width = data.cubes[0].facts.shape
        return data.cubes[0].read("split", slice(0, height), slice(0, width))


def synthetic_cells(synthetic: Synthetic) -> NDArray[np.bool_]:
    with TrainingData.open(SMALL, cubes=[synthetic.folder.location]) as data:
        height, width = data.cubes[0].facts.shape
        return (data.grids[0].split == Split.TRAIN).repeat(64, 0).repeat(64, 1)[:height, :width]


def epoch_of(data: TrainingData) -> list[Sample]:
    return list(data.epoch(0, seed=0))


@pytest.mark.parametrize("labels", [1, 2])
def test_parcels_that_are_not_kept_have_no_label_and_chips_show_those_that_are(
    synthetic: Synthetic, labels: int
) -> None:
    known = labelled(synthetic)
    with data_of(synthetic, 0.05, labels=labels) as data:
        assert data.kept is not None
        expected = [int(np.ceil(0.05 * len(known[crop]))) for crop in range(3)]
        assert data.kept.kept.tolist() == data.train_parcels().tolist() == expected
        assert data.kept.of.tolist() == [len(known[crop]) for crop in range(3)]
        assert data.kept.known is not None
        kept = set(np.flatnonzero(data.kept.known[0]).tolist())
        for sample in epoch_of(data):
            shown = sample.crop >= 0
            assert set(sample.parcel[shown].tolist()) <= kept
            # What is hidden is not counted, ground without a parcel among it.
            assert not sample.counted[~torch.isin(sample.parcel, torch.tensor(sorted(kept)))].any()
            assert shown.flatten(1).any(dim=1).all()


def test_train_pixels_are_those_of_the_kept_parcels(synthetic: Synthetic) -> None:
    train = (pixel_split(synthetic) == Split.TRAIN) & synthetic_cells(synthetic)
    with data_of(synthetic, 0.1) as data:
        assert data.kept is not None
        assert data.kept.known is not None
        kept = np.isin(synthetic.parcel_id, np.flatnonzero(data.kept.known[0]))
        expected = [int((train & kept & (synthetic.crop_type == crop)).sum()) for crop in (1, 2, 3)]
        assert data.train_pixels().tolist() == expected


def test_another_size_and_sampling_keep_the_same_parcels_but_for_what_they_cannot_reach(synthetic: Synthetic) -> None:
    kept, reached = [], []
    for size, sampling in ((24, "parcel"), (40, "middle")):
        with (
            data_of(synthetic, 0.3, size=size, sampling=sampling) as data,
            data_of(synthetic, 1.0, size=size, sampling=sampling) as every,
        ):
            assert data.kept is not None
            assert data.kept.known is not None
            kept.append(set(np.flatnonzero(data.kept.known[0]).tolist()))
            assert every.kept is not None
            assert every.kept.middles is not None
            (can_be,) = reached_parcels(every.grids, every.recipe)
            reached.append(set(every.kept.middles[0].parcel[can_be].tolist()))
    assert reached[1] < reached[0]
    assert kept[0] - kept[1]
    assert kept[0] & reached[1] == kept[1]


def test_each_chip_of_few_labels_shows_one_where_parcels_lie_at_corners() -> None:
    # One cell of the split: a single window of 48 px holds its corner pixel, 48 x 48 one in the middle of it.
    split = np.full((3, 3), Split.TEST, np.uint8)
    split[1, 1] = Split.TRAIN
    corners = np.array([[64, 64, 1], [64, 127, 1], [127, 64, 1], [127, 127, 1], [96, 96, 1], [20, 20, 1]], np.int64)
    grid = Grid(height=192, width=192, split=split, crops=np.zeros((1, 3, 3), np.int64), parcels=corners)
    recipe = DataRecipe(chips=100_000, batch=100, size=48, sampling="parcel", readers=1)
    places = plan_epoch([grid, grid], recipe, seed=0, epoch=0).places
    starts = places[:, 1:]
    assert starts.min() >= 64
    assert starts.max() <= 128 - 48
    holds = ((starts[:, None] <= corners[:4, :2]) & (corners[:4, :2] < starts[:, None] + 48)).all(axis=2)
    # Each of ten parcels alike often; at a corner lie the chips of its own and few of those in the middle.
    middle = ~holds.any(axis=1)
    assert abs(middle.mean() - 0.2) < 0.01
    assert abs(holds.mean(axis=0) - 0.2).max() < 0.01
    assert len(np.unique(starts[middle], axis=0)) == 17**2 - 4
    assert np.array_equal(places, plan_epoch([grid, grid], recipe, seed=0, epoch=0).places)


def test_windows_that_hold_a_pixel_are_drawn_as_often_as_the_lattice_leaves_them_whole() -> None:
    # An L of cells: windows over the fourth cell are none of the split.
    split = np.array([[1, 1], [1, 2]], np.uint8)
    parcels = np.array([[60, 60, 1]], np.int64)
    grid = Grid(height=128, width=128, split=split, crops=np.zeros((1, 2, 2), np.int64), parcels=parcels)
    recipe = DataRecipe(chips=20_000, batch=100, size=16, sampling="parcel", readers=1)
    counts = np.zeros((128, 128), int)
    for epoch in range(8):
        places = plan_epoch([grid], recipe, seed=0, epoch=epoch).places
        rows, columns = np.unique(places[:, 1:], axis=0).T
        fits = [(r, c) for r in range(45, 61) for c in range(45, 61) if not (r > 48 and c > 48)]
        assert set(zip(rows.tolist(), columns.tolist(), strict=True)) <= set(fits)
        np.add.at(counts, (places[:, 1], places[:, 2]), 1)
    assert (counts > 0).sum() == len(fits)
    # Windows in one cell are whole for every shift of the lattice, and alike often.
    whole = counts[45:49, 45:49]
    assert abs(whole / whole.mean() - 1).max() < 0.25


def test_smaller_shares_lie_in_larger_ones_and_a_seed_keeps_the_same(synthetic: Synthetic) -> None:
    kept = []
    for share in (0.05, 0.3):
        with data_of(synthetic, share, seed=4) as data:
            assert data.kept is not None
            assert data.kept.known is not None
            kept.append(data.kept.known[0])
    with data_of(synthetic, 0.3, seed=5) as data:
        assert data.kept is not None
        assert data.kept.known is not None
        assert not np.array_equal(data.kept.known[0], kept[1])
    assert not (kept[0] & ~kept[1]).any()


def test_all_labels_hide_none(synthetic: Synthetic) -> None:
    with (
        data_of(synthetic, 1.0) as data,
        TrainingData.open(SMALL, cubes=[synthetic.folder.location]) as every,
        data_of(synthetic, 1.0, by="block") as blocks,
    ):
        assert data.train_pixels().tolist() == every.train_pixels().tolist() == blocks.train_pixels().tolist()
        assert any((sample.counted & (sample.parcel == 0)).any() for sample in epoch_of(data))


@pytest.mark.slow
def test_statistics_and_other_splits_are_those_of_the_whole_cube(synthetic: Synthetic) -> None:
    with TrainingData.open(SMALL, cubes=[synthetic.folder.location]) as every:
        for few in (data_of(synthetic, 0.01), data_of(synthetic, 0.01, by="block")):
            with few:
                assert (few.mean, few.std) == (every.mean, every.std)
                for split in (Split.VALIDATION, Split.TEST):
                    pairs = zip(few.evaluation(split), every.evaluation(split), strict=True)
                    assert all(torch.equal(a.crop, b.crop) and torch.equal(a.image, b.image) for a, b in pairs)


def test_blocks_that_are_not_kept_are_never_seen(synthetic: Synthetic, tmp_path: Path) -> None:
    assert block_px(open_cube(synthetic.folder.location)) == 64  # a grid chip, where the configuration does not say
    shutil.copytree(synthetic.folder.location, tmp_path / "tiny")
    (tmp_path / "tiny/config.yaml").write_text("splits: {block_m: 1280}")
    recipe = replace(SMALL, few=FewLabels(share=0.3, by="block"))
    paths = [str(tmp_path / "tiny")]
    with (
        TrainingData.open(recipe, cubes=paths) as data,
        TrainingData.open(replace(recipe, few=FewLabels(share=1, by="block")), cubes=paths) as every,
    ):
        assert block_px(data.cubes[0]) == 128
        assert data.kept is not None
        kept, train = (one.grids[0].split == Split.TRAIN for one in (data, every))
        blocks = {(row // 2, column // 2) for row, column in np.argwhere(kept).tolist()}
        of = {(row // 2, column // 2) for row, column in np.argwhere(train).tolist()}
        assert len(blocks) == int(np.ceil(0.3 * len(of)))
        # Whole blocks, and no class is lost.
        whole = {(row, column) for row, column in np.argwhere(train).tolist() if (row // 2, column // 2) in blocks}
        assert {(row, column) for row, column in np.argwhere(kept).tolist()} == whole
        assert (data.kept.kept > 0).all()
        assert data.kept.of.max() <= len(of)
        for sample in epoch_of(data):
            for _, row, column in sample.place.tolist():
                assert kept[row // 64 : (row + 23) // 64 + 1, column // 64 : (column + 23) // 64 + 1].all()
        train_px = (pixel_split(synthetic) == Split.TRAIN) & kept.repeat(64, 0).repeat(64, 1)[:540, :576]
        expected = [int((train_px & (synthetic.crop_type == crop)).sum()) for crop in (1, 2, 3)]
        assert data.train_pixels().tolist() == expected


def test_data_json_tells_how_many_of_each_class_are_kept(synthetic: Synthetic) -> None:
    with data_of(synthetic, 0.01) as data:
        assert data.kept is not None
        of = data.kept.of.tolist()
        assert data.kept.described(data.table) == {
            "by": "parcel",
            "classes": [{"code": f"c{n + 1}", "kept": 1, "of": of[n]} for n in range(3)],
        }


def test_parcels_in_the_middle_are_drawn_among_the_kept(synthetic: Synthetic) -> None:
    with data_of(synthetic, 0.1, sampling="middle", chips=None) as data:
        drawn, left_out = data.parcels_in_epoch
        assert (drawn, left_out) == (int(data.train_parcels().sum()), 0)
        assert data.kept is not None
        assert data.train_parcels().tolist() == data.kept.kept.tolist()
        for sample in epoch_of(data):
            assert (sample.crop[:, 12, 12] >= 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": "uniform"}, r"data\.sampling is uniform: set data\.sampling=parcel, or data\.few\.by=block"),
        ({"sampling": "class"}, r"data\.sampling is class: set data\.sampling=parcel"),
        ({"background": True}, r"set data\.background=false, or data\.few\.by=block"),
    ],
)
def test_what_does_not_go_with_few_parcels_is_said(
    synthetic: Synthetic, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(synthetic, 0.1, **changes)
