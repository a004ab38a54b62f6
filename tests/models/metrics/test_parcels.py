from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sits_models.metrics import ParcelVotes, decide, size_table
from sits_models.sample import IGNORE_INDEX

quick = settings(deadline=None, max_examples=60)


def voted(predicted: list[int], target: list[int], parcel: list[int], *, classes: int = 3) -> ParcelVotes:
    votes = ParcelVotes(classes=classes)
    maps = [torch.tensor(values).reshape(1, 1, -1) for values in (predicted, target, parcel)]
    votes.add(maps[0], target=maps[1], parcel=maps[2], cube=torch.tensor([0]), block=torch.zeros_like(maps[0]))
    return votes


def test_the_majority_of_its_pixels_is_the_class_of_a_parcel() -> None:
    found = voted([1, 1, 2, 0, 0], [1, 1, 1, 2, 2], [4, 4, 4, 9, 9]).majority()
    assert found.parcel.tolist() == [4, 9]
    assert found.predicted.tolist() == [1, 0]
    assert found.target.tolist() == [1, 2]
    assert found.pixels.tolist() == [3, 2]
    assert found.share.tolist() == [pytest.approx(2 / 3), 1.0]


def test_a_tie_goes_to_the_smaller_class() -> None:
    assert voted([2, 1, 2, 1, 0], [0] * 5, [7] * 5).majority().predicted.tolist() == [1]


def test_pixels_without_a_parcel_or_a_label_do_not_vote() -> None:
    found = voted([2, 2, 2, 1], [0, IGNORE_INDEX, IGNORE_INDEX, 0], [0, 5, 5, 5]).majority()
    assert found.parcel.tolist() == [5]
    assert found.predicted.tolist() == [1]
    assert found.pixels.tolist() == [1]


def test_parcels_of_two_cubes_with_one_id_are_two() -> None:
    votes = ParcelVotes(classes=2)
    parcel = torch.full((2, 1, 1), 2**32 - 1)  # the largest uint32
    crop = torch.tensor([0, 1]).reshape(2, 1, 1)
    votes.add(crop, target=crop, parcel=parcel, cube=torch.tensor([0, 3]), block=torch.zeros_like(crop))
    found = votes.majority()
    assert found.cube.tolist() == [0, 3]
    assert found.parcel.tolist() == [2**32 - 1, 2**32 - 1]
    assert votes.counted().matrix.tolist() == [[1, 0], [0, 1]]


def test_a_parcel_counts_once_however_large() -> None:
    assert voted([1] * 9 + [0], [1] * 9 + [1], [1] * 9 + [2]).counted().matrix.tolist() == [
        [0, 0, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


def test_nothing_seen_is_an_empty_vote() -> None:
    votes = ParcelVotes(classes=2)
    assert votes.majority().parcel.tolist() == []
    assert votes.counted().matrix.tolist() == [[0, 0], [0, 0]]


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60),
    st.integers(1, 7),
)
def test_batches_vote_as_the_whole_does(pixels: list[tuple[int, int]], size: int) -> None:
    votes = ParcelVotes(classes=4)
    for start in range(0, len(pixels), size):
        part = torch.tensor(pixels[start : start + size]).T
        crop, parcel = part[0].reshape(1, 1, -1), part[1].reshape(1, 1, -1)
        votes.add(crop, target=crop, parcel=parcel, cube=torch.tensor([0]), block=torch.zeros_like(crop))
        votes._predicted.read()  # merges between batches, as it does when many wait
    found = votes.majority()
    counts = {id_: Counter(crop for crop, parcel in pixels if parcel == id_) for id_ in {p for _, p in pixels} - {0}}
    expected = {id_: min(count, key=lambda crop: (-count[crop], crop)) for id_, count in counts.items()}
    assert dict(zip(found.parcel.tolist(), found.predicted.tolist(), strict=True)) == expected
    assert found.pixels.tolist() == [counts[id_].total() for id_ in sorted(counts)]


def test_memory_grows_with_parcels_and_not_with_pixels() -> None:
    votes = ParcelVotes(classes=2)
    crop, parcel = torch.zeros(1, 64, 64, dtype=torch.int64), torch.arange(1, 4097).reshape(1, 64, 64)
    for _ in range(60):
        votes.add(crop, target=crop, parcel=parcel, cube=torch.tensor([0]), block=torch.zeros_like(crop))
    assert votes._predicted._waiting_length <= 65536 + 4096
    assert len(votes._predicted.read()[0]) == 4096
    assert votes.majority().pixels.tolist() == [60] * 4096


def test_maps_of_several_shapes_are_an_error() -> None:
    crop = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"maps are \(B, H, W\)"):
        ParcelVotes(classes=2).add(
            crop, target=crop, parcel=crop[:, :1], cube=torch.tensor([0]), block=torch.zeros_like(crop)
        )


def test_most_votes_decide_and_of_a_tie_the_smaller_class() -> None:
    assert decide(np.array([[0, 3, 2], [2, 0, 2], [0, 1, 1], [0, 0, 0]])).tolist() == [1, 0, 1, 0]


def test_many_parcels_are_decided_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 3, 400).tolist(), [0] * 400, generator.integers(0, 40, 400).tolist()
    whole = voted(*pixels).majority()
    monkeypatch.setattr("sits_models.metrics.parcels._AT_ONCE", 7)
    parts = voted(*pixels).majority()
    assert parts.predicted.tolist() == whole.predicted.tolist()
    assert parts.share.tolist() == whole.share.tolist()
    assert parts.pixels.sum() == sum(parcel > 0 for parcel in pixels[2])


def test_a_parcel_belongs_to_the_block_of_its_first_pixel_in_whatever_order_it_is_seen() -> None:
    crop, parcel = torch.tensor([[[1, 1, 0, 2]]]), torch.tensor([[[7, 7, 5, 5]]])
    label = torch.tensor([[[1, -1, 0, 0]]])
    votes, first, second = ParcelVotes(classes=3), torch.tensor([[[9, 2, 4, 4]]]), torch.tensor([[[3, 3, 8, 8]]])
    for block in (first, second):
        votes.add(crop, target=label, parcel=parcel, cube=torch.tensor([0]), block=block)
    assert votes.majority().block.tolist() == [4, 3]  # 2 lies in a pixel that is not counted
    counted = votes.counted()
    assert counted.blocks.truth.tolist() == [[0, 1, 0], [1, 0, 0]]  # block 3, then block 4
    assert counted.blocks.hits.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert counted.blocks.guess.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_sizes_are_looked_up_by_id() -> None:
    table = size_table(np.array([1, 2, 4], np.uint32), np.array([0.5, 0.6, 9.0]), (0.5, 1.0))
    assert table.tolist() == [-1, 0, 1, -1, 2]
    with pytest.raises(ValueError, match="limits of size classes rise"):
        size_table(np.array([1]), np.array([1.0]), (2.0, 1.0))


def test_parcels_are_told_apart_by_size() -> None:
    votes = voted([1, 1, 0], [1, 0, 0], [1, 2, 3], classes=2)
    table = size_table(np.array([1, 2, 3]), np.array([0.1, 5.0, 5.0]), (1.0,))
    small, large = votes.counted_by_size([table], groups=2)
    assert small.matrix.tolist() == [[0, 0], [0, 1]]
    assert large.matrix.tolist() == [[1, 1], [0, 0]]
    assert large.blocks.guess.tolist() == [[1, 1]]
