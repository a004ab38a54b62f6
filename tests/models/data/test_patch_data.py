from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.models.patches import BANDS, FIRST_DAY, TEST, TRAIN, VALIDATION, Held, write_fields

from sits_catalog.cube import BOUNDARY_UNKNOWN, IGNORE, Split
from sits_models.data.classes import BACKGROUND_CODE
from sits_models.data.patch_data import PatchData
from sits_models.data.patch_labels import MEASURED
from sits_models.device import Rank
from sits_models.recipe import DataRecipe, DateRule, FewLabels
from sits_models.sample import IGNORE_INDEX, Sample

RECIPE = DataRecipe(size=6, batch=4, readers=2)


def data_of(*sets: Held, recipe: DataRecipe = RECIPE, **options: object) -> PatchData:
    return PatchData.open(recipe, sets=sets, **options)  # type: ignore[arg-type]


def free_of(*sets: Held, recipe: DataRecipe = RECIPE, **options: object) -> PatchData:
    """As for learning without labels."""
    return data_of(*sets, recipe=recipe, ground="unsplit", **options)


def same(ours: Sequence[Sample], theirs: Sequence[Sample]) -> bool:
    names = ("image", "valid", "day", "clear", "crop", "counted", "parcel", "boundary", "place")
    return len(ours) == len(theirs) and all(
        np.array_equal(getattr(a, name).numpy(), getattr(b, name).numpy())
        for a, b in zip(ours, theirs, strict=True)
        for name in names
    )


def labelled(n: int, *, side: int, **options: object) -> Held:
    """Patches whose labels and parcels differ from pixel to pixel."""
    g = np.random.default_rng(0)
    crops = [g.choice(np.array([0, 1, IGNORE], np.uint16), (side, side)) for _ in range(n)]
    parcels = [g.integers(0, 1000, (side, side)) for _ in range(n)]
    return Held([(side, side)] * n, codes=("a", "b"), crops=crops, parcels=parcels, **options)  # type: ignore[arg-type]


def cut(held: Held, patch: int, row: int, column: int, size: int) -> NDArray[np.uint16]:
    return held.image(patch)[..., row : row + size, column : column + size]


def halves(*crops: tuple[int, int], side: int = 8) -> list[NDArray[np.uint16]]:
    """Maps whose left and right half are of two classes."""
    found = [np.empty((side, side), np.uint16) for _ in crops]
    for one, (left, right) in zip(found, crops, strict=True):
        one[:, : side // 2], one[:, side // 2 :] = left, right
    return found


# Training


def test_chips_are_windows_of_their_patches_and_short_series_are_padded() -> None:
    held = Held([(9, 12), (6, 6), (7, 20)], dates=[2, 3, 1])
    with free_of(held, recipe=replace(RECIPE, chips=40)) as data:
        assert (data.dates, data.batches_in_epoch) == (3, 10)
        drawn = set()
        for sample in data.epoch(0, seed=1):
            assert sample.image.shape == (4, 3, 3, 6, 6)
            for b, (patch, row, column) in enumerate(sample.place.tolist()):
                n = int(sample.valid[b].sum())
                assert n == (2, 3, 1)[patch]
                np.testing.assert_array_equal(sample.image[b, :n].numpy(), cut(held, patch, row, column, 6))
                np.testing.assert_array_equal(sample.clear[b, :n].numpy(), cut(held, patch, row, column, 6)[:, 0] > 0)
                assert sample.day[b].tolist() == [FIRST_DAY, FIRST_DAY + 10, FIRST_DAY + 20][:n] + [0] * (3 - n)
                assert not sample.image[b, n:].view(torch.int16).any()
                assert not sample.clear[b, n:].any()
                drawn.add((patch, row, column))
            assert (sample.crop == IGNORE_INDEX).all()
            assert not sample.counted.any()
            assert not sample.parcel.any()
            assert (sample.boundary == BOUNDARY_UNKNOWN).all()
            assert sample.present is None
    assert len({place for place in drawn if place[0] == 2}) > 5


def test_an_epoch_has_the_chips_that_lie_side_by_side_and_each_patch_its_share_of_them() -> None:
    held = Held([(13, 12), (6, 11), (6, 6), (40, 6)], splits=[TRAIN, TRAIN, TRAIN, VALIDATION])
    with free_of(held, recipe=replace(RECIPE, batch=2)) as data:
        # 2 x 2 and 1 and 1 windows.
        assert data.batches_in_epoch == 3
        places = data.plan(0, seed=0).places
        assert np.bincount(places[:, 0]).tolist() == [4, 1, 1]
    with free_of(held, recipe=replace(RECIPE, batch=2, chips=9)) as data:
        counts = np.stack([np.bincount(data.plan(number, seed=0).places[:, 0]) for number in range(60)])
    # Of 10 chips 6 2/3 and twice 1 2/3, each rounded down or up, and over the epochs as often as that.
    assert (counts.min(axis=0).tolist(), counts.max(axis=0).tolist()) == ([6, 1, 1], [7, 2, 2])
    np.testing.assert_allclose(counts.mean(axis=0), [20 / 3, 5 / 3, 5 / 3], atol=0.3)


def test_patches_of_one_size_are_drawn_alike_often() -> None:
    with free_of(Held([(13, 12)] * 5), recipe=replace(RECIPE, batch=2, chips=12)) as data:
        assert sorted(np.bincount(data.plan(0, seed=0).places[:, 0]).tolist()) == [2, 2, 2, 3, 3]


def test_windows_of_a_patch_are_uniform() -> None:
    held = Held([(8, 7)])
    with free_of(held, recipe=replace(RECIPE, chips=600)) as data:
        places = data.plan(0, seed=3).places
    found, counts = np.unique(places[:, 1:], axis=0, return_counts=True)
    assert found.tolist() == [[row, column] for row in range(3) for column in range(2)]
    # 100 each, with a deviation of 9.
    assert counts.min() > 60


@pytest.mark.parametrize("rule", [DateRule(), DateRule(pick="random", n=2), DateRule(pick="first", n=3)])
@pytest.mark.parametrize("chips", [8, 24])
def test_batches_depend_on_seed_and_epoch_alone(rule: DateRule, chips: int) -> None:
    held = labelled(8, side=9, dates=[2, 3, 4, 3] * 2)

    def batches(number: int, seed: int, start: int = 0, **changes: object) -> list[Sample]:
        recipe = replace(RECIPE, chips=chips, dates=rule, **changes)  # type: ignore[arg-type]
        with data_of(held, recipe=recipe) as data:
            return list(data.epoch(number, seed=seed, start=start))

    expected = batches(0, 7)
    for readers in (1, 3, 5):
        assert same(batches(0, 7, readers=readers), expected)
    # Decoded anew each time: with room for one patch twice as many as in a batch are mixed, here all.
    assert same(batches(0, 7, cache_mb=0), expected)
    assert same(batches(0, 7, start=1), expected[1:])
    assert not same(batches(1, 7), expected)
    assert not same(batches(0, 8), expected)


def test_random_dates_are_drawn_for_each_chip_and_ascend() -> None:
    held = Held([(9, 9)] * 3, dates=[6, 6, 6])
    with free_of(held, recipe=replace(RECIPE, chips=40, dates=DateRule(pick="random", n=2))) as data:
        assert data.dates == 2
        days = torch.cat([sample.day for sample in data.epoch(0, seed=0)])
        images = [image for sample in data.epoch(0, seed=0) for image in sample.image.numpy()]
    positions = ((days - FIRST_DAY) // 10).tolist()
    assert len({tuple(pair) for pair in positions}) > 8
    assert all(first < second for first, second in positions)
    assert all((image[:, 0, 3, 3] // 10_000).tolist() == pair for image, pair in zip(images, positions, strict=True))


def test_a_patch_is_decoded_once_while_its_chips_spread() -> None:
    held = Held([(12, 12)] * 12)
    with free_of(held, recipe=replace(RECIPE, chips=96, batch=4, cache_mb=50)) as data:
        batches = list(data.epoch(0, seed=0))
    assert sorted(held.reads) == list(range(12))
    spread = [len(set(sample.place[:, 0].tolist())) for sample in batches]
    assert np.mean(spread) > 3
    held.reads.clear()
    with free_of(held, recipe=replace(RECIPE, chips=12)) as data:
        list(data.epoch(0, seed=0))
    assert sorted(held.reads) == list(range(12))


@pytest.mark.parametrize("of", [2, 3])
def test_processes_share_every_batch(of: int) -> None:
    held = labelled(5, side=9, splits=[TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION], dates=[2, 3, 1, 2, 3])
    recipe = replace(RECIPE, chips=12)

    def read(rank: Rank, split: Split | None) -> list[Sample]:
        with data_of(held, recipe=recipe, rank=rank) as data:
            return list(data.epoch(0, seed=0) if split is None else data.evaluation(split, size=6))

    for split in (None, VALIDATION):
        whole = read(Rank(), split)
        parts = [read(Rank(number=k, of=of), split) for k in range(of)]
        for number, sample in enumerate(whole):
            mine = [part[number] for part in parts if number < len(part)]
            for name in ("place", "crop", "counted", "parcel"):
                assert torch.equal(torch.cat([getattr(one, name) for one in mine]), getattr(sample, name)), name
            images = [one.image.view(torch.int16) for one in mine]
            assert torch.equal(torch.cat(images), sample.image.view(torch.int16))


def test_patches_that_do_not_fit_into_the_cache_are_read_window_by_window() -> None:
    held = labelled(3, side=12)
    with data_of(held, recipe=replace(RECIPE, chips=24, cache_mb=0)) as data:
        expected = list(data.epoch(0, seed=0))
    assert len(held.reads) == 24
    for sample in expected:
        assert held.crops is not None
        assert held.parcels is not None
        for b, (patch, row, column) in enumerate(sample.place.tolist()):
            window = slice(row, row + 6), slice(column, column + 6)
            crop = held.crops[patch][window].astype(np.int64)
            np.testing.assert_array_equal(sample.crop[b].numpy(), np.where(crop == IGNORE, IGNORE_INDEX, crop))
            np.testing.assert_array_equal(sample.parcel[b].numpy(), held.parcels[patch][window])
    with data_of(held, recipe=replace(RECIPE, chips=24, cache_mb=1)) as data:
        held.reads.clear()
        assert same(list(data.epoch(0, seed=0)), expected)
    assert len(held.reads) == 3


def test_bands_come_by_name_from_sets_that_are_joined() -> None:
    one, two = Held([(9, 9)], path="one"), Held([(6, 6)] * 2, path="two")
    two.facts = replace(two.facts, bands=("B08", "B04", "B02"))
    with free_of(one, two, recipe=replace(RECIPE, bands=("B08", "B02"), chips=12)) as data:
        assert (data.bands, data.patches.owner.tolist()) == (("B08", "B02"), [0, 1, 1])
        for sample in data.epoch(0, seed=0):
            for image, (patch, row, column) in zip(sample.image.numpy(), sample.place.tolist(), strict=True):
                held, number = (one, 0) if patch == 0 else (two, patch - 1)
                order = [2, 0] if patch == 0 else [0, 2]
                np.testing.assert_array_equal(image, cut(held, number, row, column, 6)[:, order])


# Labels


def test_labels_are_the_models_and_the_background_is_a_class_where_it_is_asked_for() -> None:
    crops = halves((0, 2), (1, 3))
    crops[0][0, 0] = IGNORE
    held = Held([(8, 8)] * 2, codes=(BACKGROUND_CODE, "a", "b", "c"), crops=crops)
    with data_of(held, recipe=replace(RECIPE, size=8, classes=("c", "b"), batch=2)) as data:
        assert data.table.codes == (BACKGROUND_CODE, "c", "b")
        assert data.train_pixels().tolist() == [31, 32, 32]
        (sample,) = data.epoch(0, seed=0)
        by_patch = dict(zip(sample.place[:, 0].tolist(), sample.crop.numpy(), strict=True))
        assert np.unique(by_patch[0]).tolist() == [IGNORE_INDEX, 0, 2]
        assert by_patch[0][0].tolist() == [IGNORE_INDEX, 0, 0, 0, 2, 2, 2, 2]
        assert by_patch[1][0].tolist() == [IGNORE_INDEX] * 4 + [1] * 4
        assert sample.counted.all()
    with data_of(held, recipe=replace(RECIPE, background=False)) as data:
        assert data.table.codes == ("a", "b", "c")
        assert data.train_pixels().tolist() == [32, 32, 32]


def test_classes_of_sets_are_joined_by_code_in_the_order_of_the_first() -> None:
    first = Held([(8, 8)], codes=("z", "m"), crops=halves((0, 1)), path="first")
    second = Held([(8, 8)], codes=("a", "z"), crops=halves((0, 1)), path="second")
    with data_of(first, second) as data:
        assert data.table.codes == ("z", "m", "a")
        assert data.train_pixels().tolist() == [64, 32, 32]
    with pytest.raises(ValueError, match="second has no class of code m; it has a, z"):
        data_of(first, second, recipe=replace(RECIPE, classes=("z", "m")))
    with pytest.raises(ValueError, match="third has no labels"):
        data_of(first, Held([(8, 8)], path="third"))


def test_by_class_each_class_is_drawn_alike_often_near_its_pixels() -> None:
    crops = [np.full((64, 64), IGNORE, np.uint16) for _ in range(3)]
    crops[0][:, :] = 0
    crops[1][40:42, 50:52] = 1
    crops[2][:8, :8] = 0
    held = Held([(64, 64)] * 3, codes=("common", "rare"), crops=crops, splits=[TRAIN, TRAIN, TEST])
    recipe = replace(RECIPE, size=16, batch=100, chips=400, sampling="class")
    with data_of(held, recipe=recipe) as data:
        places = data.plan(0, seed=0).places
        rare = places[places[:, 0] == 1]
        assert 150 < len(rare) < 250
        assert not (places[:, 0] == 2).any()
        # A square of 16 px holds the class, and each window a pixel of the square.
        assert rare[:, 1:].min() >= 32 - 15
        assert rare[:, 1:].max() <= 48
        assert (np.unique(rare[:, 1:]) != 32).sum() > 10


def test_few_labels_keep_whole_patches_that_show_every_class() -> None:
    crops = halves(*[(0, 1)] * 18, (2, 0), (0, 1))
    held = Held([(8, 8)] * 20, codes=("a", "b", "c"), crops=crops, splits=[TRAIN] * 19 + [VALIDATION])
    recipe = replace(RECIPE, few=FewLabels(share=0.1, by="block", seed=3))
    with data_of(held, recipe=recipe) as data:
        kept = data.patches.of_split(Split.TRAIN)
        assert 18 in kept
        assert len(kept) == 2
        assert set(data.plan(0, seed=0).places[:, 0]) <= set(kept.tolist())
        assert data.train_pixels().tolist() == [64, 32, 32]
        assert data.kept is not None
        assert data.kept.described(data.table)["classes"] == [
            {"code": "a", "kept": 2, "of": 19}, {"code": "b", "kept": 1, "of": 18}, {"code": "c", "kept": 1, "of": 1},
        ]  # fmt: skip
        assert len(list(data.evaluation(VALIDATION, size=8))) == 1
        (said,) = data.described()
        assert said["patches"] == {"train": 19, "validation": 1}
        few = set(kept.tolist())
    with data_of(held, recipe=replace(recipe, few=FewLabels(share=0.5, by="block", seed=3))) as data:
        assert few < set(data.patches.of_split(Split.TRAIN).tolist())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_where_labels_are_few_patches_without_one_are_left_out_whatever_the_share(share: float) -> None:
    crops = halves((0, 1), (IGNORE, IGNORE), (0, 1), (IGNORE, IGNORE))
    held = Held([(8, 8)] * 4, codes=("a", "b"), crops=crops)
    with data_of(held, recipe=replace(RECIPE, few=FewLabels(share=share, by="block"))) as data:
        kept = set(data.patches.of_split(TRAIN).tolist())
    assert kept <= {0, 2}
    assert len(kept) == round(2 * share)


def test_labels_are_counted_by_square_where_chips_are_drawn_by_class_alone_and_not_at_all_without_a_class() -> None:
    held = labelled(3, side=9)
    expected = [sum(int((crop == k).sum()) for crop in held.crops or ()) for k in (0, 1)]
    for sampling in ("uniform", "class"):
        with data_of(held, recipe=replace(RECIPE, sampling=sampling)) as data:  # type: ignore[arg-type]
            assert data.train_pixels().tolist() == expected
            assert (data._counts.cells is not None) == (sampling == "class")
    held.reads.clear()
    with free_of(held) as data:
        assert data.train_pixels().tolist() == []
    assert held.reads == []


def test_labels_of_patches_are_classes_of_chips_where_there_is_one() -> None:
    present = [[True, False, False], [False, True, True], [False, False, True], [False, False, False]]
    held = Held([(8, 8)] * 4, codes=("a", "b", "c"), present=present)
    with data_of(held, recipe=replace(RECIPE, size=7, classes=("c", "a"))) as data:
        assert data.train_pixels().tolist() == [2, 1]
        for sample in [*data.parcels(TRAIN, size=7), *data.evaluation(TRAIN, size=5), *data.epoch(0, seed=0)]:
            assert sample.present is not None
            order = sample.place[:, 0].tolist()
            assert sorted(order) == [0, 1, 2, 3]
            shown = {0: [False, True], 1: [True, False], 2: [True, False], 3: [False, False]}
            assert sample.present.tolist() == [shown[patch] for patch in order]
            # The second patch has two classes, of which the model knows one: no pixel is known to be of it.
            crops = {0: 1, 1: IGNORE_INDEX, 2: 0, 3: IGNORE_INDEX}
            expected = [crops[patch] for patch in order]
            assert [crop.unique().tolist() for crop in sample.crop] == [[crop] for crop in expected]
            assert sample.counted.all()
    with data_of(held) as data, pytest.raises(ValueError, match="learns one class a patch, and 1 of 4 patches"):
        data.check_one_class()


def test_classes_that_the_model_does_not_know_count_where_a_patch_should_have_one() -> None:
    held = Held([(8, 8)] * 4, codes=("a", "b"), present=[[False, True], *[[True, True]] * 3])
    with data_of(held, recipe=replace(RECIPE, classes=("a",))) as data:
        assert all((sample.crop == IGNORE_INDEX).all() for sample in data.epoch(0, seed=0))
        says = (
            r"3 of 4 patches .* have several, those that data\.classes leaves out among them, the first one number 1 of"
        )
        with pytest.raises(ValueError, match=says):
            data.check_one_class()
    # A patch of which the model knows no class is not labelled.
    held = Held([(8, 8)] * 2, codes=("a", "b", "c"), present=[[True, False, False], [False, True, True]])
    with data_of(held, recipe=replace(RECIPE, classes=("a",))) as data:
        data.check_one_class()


# Evaluation


@settings(max_examples=40)
@given(
    sides=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    size=st.integers(1, 24),
    halo=st.integers(0, 5),
)
def test_an_evaluation_counts_each_pixel_once_and_sees_what_lies_around(
    sides: list[tuple[int, int]], size: int, halo: int
) -> None:
    crops = [np.arange(h * w, dtype=np.uint16).reshape(h, w) % 3 for h, w in sides]
    held = Held(sides, codes=("a", "b", "c"), crops=crops, splits=[TEST] * len(sides))
    counts = [np.zeros(side, np.int64) for side in sides]
    with data_of(held) as data:
        for sample in data.evaluation(TEST, size=size, halo=halo):
            assert sample.image.shape[-2:] == (size + 2 * halo,) * 2
            for b, (patch, row, column) in enumerate(sample.place.tolist()):
                rows, columns = np.nonzero(sample.counted[b].numpy())
                counts[patch][rows + row, columns + column] += 1
                there = crops[patch][rows + row, columns + column]
                np.testing.assert_array_equal(sample.crop[b].numpy()[rows, columns], there)
                assert (sample.crop[b][~sample.counted[b]] == IGNORE_INDEX).all()
                padded = np.pad(held.image(patch), ((0, 0), (0, 0), (30, 30), (30, 30)))
                window = slice(row + 30, row + 30 + size + 2 * halo), slice(column + 30, column + 30 + size + 2 * halo)
                np.testing.assert_array_equal(sample.image[b].numpy(), padded[..., *window])
    assert all((count == 1).all() for count in counts)


def test_validation_goes_on_while_an_epoch_is_read_and_spreads_random_dates() -> None:
    held = Held([(9, 9)] * 4, dates=[5] * 4, splits=[TRAIN, TRAIN, VALIDATION, TEST])
    with free_of(held, recipe=replace(RECIPE, chips=16, dates=DateRule(pick="random", n=3))) as data:
        epoch = iter(data.epoch(0, seed=0))
        next(epoch)
        (first,) = data.evaluation(VALIDATION, size=9)
        assert ((first.day[0] - FIRST_DAY) // 10).tolist() == [0, 2, 4]
        assert first.place.tolist() == [[2, 0, 0]]
        assert len(list(epoch)) == 3


def test_a_classification_sees_the_middle_of_each_patch_of_labelled_pixels() -> None:
    held = Held([(8, 8)] * 3, codes=("a", "b"), crops=halves((0, 1), (1, 0), (0, 0)), splits=[TRAIN, TEST, TEST])
    with data_of(held) as data:
        (sample,) = data.parcels(TEST, size=4)
    assert sample.place.tolist() == [[1, 2, 2], [2, 2, 2]]
    assert sample.counted.sum(dim=(1, 2)).tolist() == [1, 1]
    assert sample.crop[:, 2, 2].tolist() == [0, 0]


# Splits


def test_a_set_without_splits_is_learnt_from_without_labels_alone() -> None:
    held = Held([(9, 9)] * 3, splits=[Split.NONE] * 3, codes=("a", "b"), crops=halves((0, 1), (0, 0), (1, 1), side=9))
    with free_of(held) as data:
        assert data.patches.of_split(TRAIN).tolist() == [0, 1, 2]
        assert data.table.n == 0
        assert list(data.evaluation(VALIDATION, size=6)) == []
    with pytest.raises(ValueError, match="held has no splits, without which labels are not learnt from"):
        data_of(held)


def test_ground_of_all_splits_is_seen_only_where_that_is_asked_for() -> None:
    held = Held([(9, 9)] * 4, splits=[TRAIN, VALIDATION, TEST, Split.NONE], dates=[1, 1, 0, 2])
    with free_of(held) as data:
        assert data.patches.of_split(TRAIN).tolist() == [0]
    with data_of(held, ground="all") as data:
        # The third has no date, so there is nothing to see.
        assert data.patches.of_split(TRAIN).tolist() == [0, 1, 3]


# Statistics


def test_mean_and_deviation_are_of_the_observed_train_pixels() -> None:
    held = Held([(5, 7), (9, 9), (6, 6)], dates=[2, 1, 2], splits=[TRAIN, TEST, TRAIN])
    with free_of(held, recipe=replace(RECIPE, bands=("B08", "B02"))) as data:
        for position, band in enumerate((2, 0)):
            values = np.concatenate([held.image(patch)[:, band].reshape(-1) for patch in (0, 2)])
            values = values[values > 0].astype(np.float64)
            assert data.mean[position] == pytest.approx(values.mean(), rel=1e-12)
            assert data.std[position] == pytest.approx(values.std(), rel=1e-12)
    with free_of(held, recipe=replace(RECIPE, normalize="reflectance")) as data:
        held.reads.clear()
        assert (data.mean, data.std) == ((0.0,) * 3, (10_000.0,) * 3)
        assert not held.reads


def test_so_many_patches_are_measured_and_always_the_same() -> None:
    held = Held([(3, 3)] * 300)
    found = []
    for readers in (1, 4):
        held.reads.clear()
        with free_of(held, recipe=replace(RECIPE, size=3, readers=readers)) as data:
            found.append((data.mean, data.std, sorted(held.reads)))
    assert found[0] == found[1]
    assert len(set(found[0][2])) == MEASURED


def test_a_band_that_was_never_observed_is_named() -> None:
    held = Held([(6, 6)])
    dark = held.image(0)
    dark[:, 1] = 0
    held.image = lambda number: dark  # type: ignore[method-assign]
    with (
        free_of(held) as data,
        pytest.raises(ValueError, match=r"no observed train pixel of B04 in held; use data\.nor"),
    ):
        assert data.mean


# What is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": "parcel"}, "chips of patch sets are drawn by data.sampling=uniform or class; got parcel"),
        ({"sampling": "middle", "background": False}, "drawn by data.sampling=uniform or class; got middle"),
        ({"labels": 2}, "labels of patch sets are of 10 m; set data.labels=1, not 2"),
        ({"start": "spawn"}, "are read by threads; set data.start=threads, not spawn"),
        ({"few": FewLabels(share=0.5)}, "keeps whole patches; set data.few.by=block, not parcel"),
        ({"bands": ("B02", "B99")}, "held has no band B99; it has B02, B04, B08"),
        ({"classes": ("x",)}, "held has no class of code x; it has a, b"),
        ({"readers": 0}, "readers"),
    ],
)
def test_what_patch_sets_do_not_have_is_said(changes: dict[str, object], says: str) -> None:
    held = Held([(8, 8)], codes=("a", "b"), crops=halves((0, 1)))
    with pytest.raises(ValueError, match=says):
        data_of(held, recipe=replace(RECIPE, **changes))  # type: ignore[arg-type]


def test_labels_of_two_kinds_other_radiometry_and_sampling_by_class_of_patches_are_refused() -> None:
    pixels = Held([(8, 8)], codes=("a", "b"), crops=halves((0, 1)), path="pixels")
    places = Held([(8, 8)], codes=("a", "b"), present=[[True, False]], path="places")
    with pytest.raises(ValueError, match="pixels has labels of pixels and places labels of patches"):
        data_of(pixels, places)
    with pytest.raises(ValueError, match=r"whose labels are of patches are drawn by data\.sampling=uniform; got class"):
        data_of(places, recipe=replace(RECIPE, sampling="class"))
    places.facts = replace(places.facts, radiometry={"level": "L1C"})
    with pytest.raises(ValueError, match="differ in radiometry: level is 'L2A' in pixels and 'L1C' in places"):
        free_of(pixels, places)
    with pytest.raises(ValueError, match="no patch set to learn from; give --cube"):
        data_of()


def test_train_patches_of_fewer_dates_than_are_needed_are_counted_and_the_first_is_named() -> None:
    held = Held([(9, 9)] * 5, dates=[2, 1, 3, 1, 1], splits=[TRAIN] * 4 + [TEST])
    with free_of(held) as data:
        data.check_dates(1)
        with pytest.raises(
            ValueError, match=r"have 2 dates at least, and 2 of 4 patches .* first one number 1 of held"
        ):
            data.check_dates(2)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([(9, 9), (5, 9), (9, 4)], r"data\.size is 6, and 2 of 3 patches .* 5 x 9 px: set data\.size=4 or less"),
        ([(9, 9)], None),
    ],
)
def test_a_patch_smaller_than_a_chip_is_refused(sizes: list[tuple[int, int]], says: str | None) -> None:
    with free_of(Held([*sizes, (2, 2)], splits=[TRAIN] * len(sizes) + [TEST])) as data:
        if says is None:
            assert len(data.plan(0, seed=0)) == 1
            # Elsewhere it is padded.
            assert next(data.evaluation(TEST, size=6)).image.shape[-1] == 6
            return
        with pytest.raises(ValueError, match=says):
            data.plan(0, seed=0)


def test_a_set_without_a_train_patch_can_be_evaluated_and_not_learnt_from() -> None:
    held = Held([(8, 8)] * 2, codes=("a", "b"), crops=halves((0, 1), (0, 0)), splits=[TEST, TRAIN], dates=[2, 0])
    with data_of(held, pad_to=5) as data:
        (sample,) = data.evaluation(TEST, size=8)
        assert sample.valid.tolist() == [[True, True, False, False, False]]
        with pytest.raises(ValueError, match="no patch with a date is of the train split"):
            data.plan(0, seed=0)


def test_an_error_of_a_set_is_raised_where_its_batch_is_taken() -> None:
    held = Held([(9, 9)] * 4)

    def torn(*_: object) -> None:
        raise OSError("cannot read a.tif")

    with free_of(held, recipe=replace(RECIPE, chips=16)) as data:
        held.read = torn  # type: ignore[method-assign, assignment]
        with pytest.raises(OSError, match=r"cannot read a\.tif"):
            list(data.epoch(0, seed=0))


def test_a_dataset_is_opened_by_its_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_fields(tmp_path_factory.mktemp("fields"))
    with PatchData.open(replace(RECIPE, size=12), sets=[path]) as data:
        assert (data.bands, data.dates, data.table.codes) == (
            BANDS,
            4,
            (BACKGROUND_CODE, "wheat", "maize"),
        )
        (said,) = data.described()
        assert said["patches"] == {"train": 4, "validation": 1, "test": 1}
        total = data.train_pixels().sum()
        assert total == 4 * (24 * 24 - 3)
        assert sum(int((sample.crop >= 0).sum()) for sample in data.evaluation(TRAIN, size=10)) == total
