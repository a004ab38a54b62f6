from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.synthetic import BANDS, Synthetic

from sits_catalog.cube import Split
from sits_models.data.chips import ChipReader, pick_dates
from sits_models.data.chunks import Chunk, ChunkCache, Chunks, ChunksRead, Rectangle, read_chunks
from sits_models.data.classes import join_classes
from sits_models.data.cubes import Cube, open_cube
from sits_models.recipe import DateRule
from sits_models.sample import Sample

ALL = DateRule()


def rule(pick: str, n: int) -> DateRule:
    return DateRule(pick=pick, n=n)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cube(synthetic: Synthetic) -> Cube:
    return open_cube(synthetic.folder.location)


def reader_of(
    *cubes: Cube, bands: tuple[str, ...] = BANDS, dates: DateRule = ALL, labels: int = 1, cache_mb: float = 100
) -> ChipReader:
    table = join_classes(cubes, codes=None, background=True)
    return ChipReader(cubes, table=table, bands=bands, dates=dates, labels=labels, cache_mb=cache_mb)


def places(*rows: tuple[int, int, int]) -> NDArray[np.int64]:
    return np.array(rows, np.int64)


# Dates


def test_the_first_dates_are_the_first() -> None:
    assert pick_dates(rule("first", 3), 24, seed=5).tolist() == [0, 1, 2]


def test_even_dates_hold_the_ends_and_equal_steps() -> None:
    assert pick_dates(rule("even", 5), 9, seed=None).tolist() == [0, 2, 4, 6, 8]
    assert pick_dates(rule("even", 1), 9, seed=None).tolist() == [4]
    assert pick_dates(rule("random", 3), 9, seed=None).tolist() == [0, 4, 8]


def test_a_series_shorter_than_asked_for_gives_all_it_has() -> None:
    for pick in ("first", "even", "random"):
        assert pick_dates(rule(pick, 9), 4, seed=1).tolist() == [0, 1, 2, 3]


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**63 - 1), st.sampled_from(["first", "even", "random"]))
def test_picked_dates_are_distinct_ascending_and_inside(available: int, n: int, seed: int, pick: str) -> None:
    dates = pick_dates(rule(pick, n), available, seed=seed)
    assert len(dates) == min(n, available)
    assert (np.diff(dates) > 0).all()
    assert dates.min() >= 0
    assert dates.max() < available


def test_every_date_is_drawn_alike_often() -> None:
    counts = np.bincount(np.concatenate([pick_dates(rule("random", 4), 8, seed=s) for s in range(2000)]), minlength=8)
    assert abs(counts - 1000).max() < 120


# Pixels


@pytest.mark.slow
@given(st.lists(st.tuples(st.just(0), st.integers(-60, 560), st.integers(-60, 600)), min_size=1, max_size=4))
def test_a_chip_anywhere_equals_the_padded_cube(
    synthetic: Synthetic, cube: Cube, rows: list[tuple[int, int, int]]
) -> None:
    size, margin = 48, 120
    sample = reader_of(cube).read(places(*rows), size=size)
    pad = ((margin, margin), (margin, margin))
    image = np.pad(synthetic.reflectance, ((0, 0), (0, 0), *pad))
    clear = np.pad((synthetic.quality & 0b10111111) == 1, ((0, 0), *pad))
    crop = np.pad(synthetic.crop_type.astype(int), pad, constant_values=65535)
    parcel = np.pad(synthetic.parcel_id, pad)
    for b, (_, row, column) in enumerate(rows):
        window = slice(row + margin, row + margin + size), slice(column + margin, column + margin + size)
        assert np.array_equal(sample.image[b].numpy(), image[:, :, *window])
        assert np.array_equal(sample.clear[b].numpy(), clear[:, *window])
        assert np.array_equal(sample.crop[b].numpy(), np.where(crop[window] == 65535, -1, crop[window]))
        assert np.array_equal(sample.parcel[b].numpy(), parcel[window])
    assert sample.image.dtype == torch.uint16
    assert sample.valid.all()
    assert sample.place.tolist() == [list(row) for row in rows]


def test_outside_of_the_cube_nothing_is_known(cube: Cube) -> None:
    sample = reader_of(cube).read(places((0, -64, -64), (0, -10, 570)), size=64)
    assert not sample.image[0].any()
    assert (sample.crop[0] == -1).all()
    assert (sample.boundary[0] == -32768).all()
    assert (sample.boundary[1, :10] == -32768).all()
    assert (sample.boundary[1, 10:, :6] != -32768).all()
    assert sample.image[1, 1, :, 10:, :6].any()


def test_bands_come_by_name_in_the_order_asked_for(synthetic: Synthetic, cube: Cube) -> None:
    sample = reader_of(cube, bands=("B08", "B02")).read(places((0, 100, 100)), size=20)
    assert sample.bands == ("B08", "B02")
    assert np.array_equal(sample.image[0].numpy(), synthetic.reflectance[:, [3, 0], 100:120, 100:120])


def test_a_band_that_is_missing_is_named(cube: Cube) -> None:
    with pytest.raises(ValueError, match="has no band B05, B12; it has B02, B03, B04, B08"):
        reader_of(cube, bands=("B05", "B02", "B12"))


@pytest.mark.parametrize(("dates", "chosen"), [(rule("first", 2), [0, 1]), (rule("even", 3), [0, 2, 3])])
def test_fewer_dates_are_cut_out(synthetic: Synthetic, cube: Cube, dates: DateRule, chosen: list[int]) -> None:
    sample = reader_of(cube, dates=dates).read(places((0, 50, 60)), size=24)
    assert np.array_equal(sample.image[0].numpy(), synthetic.reflectance[chosen, :, 50:74, 60:84])
    assert sample.day[0].tolist() == [cube.facts.days[date] for date in chosen]


def test_random_dates_are_those_of_the_seed(synthetic: Synthetic, cube: Cube) -> None:
    dates, seeds = rule("random", 2), np.array([1, 5, 1], np.uint64)
    reader = reader_of(cube, dates=dates)
    sample = reader.read(places((0, 50, 60), (0, 50, 60), (0, 50, 60)), size=24, seeds=seeds)
    for b, seed in enumerate(seeds.tolist()):
        chosen = pick_dates(dates, 4, seed=seed)
        assert sample.day[b].tolist() == [cube.facts.days[date] for date in chosen]
        assert np.array_equal(sample.image[b].numpy(), synthetic.reflectance[chosen, :, 50:74, 60:84])
        assert np.array_equal(sample.clear[b].numpy(), (synthetic.quality[chosen, 50:74, 60:84] & 0b10111111) == 1)


def test_shorter_series_are_padded_at_the_end(cube: Cube) -> None:
    sample = reader_of(cube).read(places((0, 50, 60)), size=8, pad_to=6)
    assert sample.valid.tolist() == [[True] * 4 + [False] * 2]
    assert not sample.image[:, 4:].any()
    assert not sample.clear[:, 4:].any()
    assert sample.day[0, 4:].tolist() == [0, 0]
    with pytest.raises(ValueError, match="a chip of 4 dates does not fit into 3"):
        reader_of(cube).read(places((0, 50, 60)), size=8, pad_to=3)


def test_cubes_of_other_length_are_padded_to_the_longest_of_the_batch(cube: Cube) -> None:
    shorter = Cube(replace(cube.facts, days=cube.facts.days[:2]))
    table = join_classes([cube], codes=None, background=True)
    reader = ChipReader([shorter, cube], table=table, bands=BANDS, dates=rule("first", 4), labels=1, cache_mb=9)
    sample = reader.read(places((0, 50, 60), (1, 50, 60)), size=8)
    assert sample.valid.sum(1).tolist() == [2, 4]
    assert torch.equal(sample.image[0, :2].int(), sample.image[1, :2].int())


# Labels


def test_finer_labels_lie_on_their_pixels(synthetic: Synthetic, cube: Cube) -> None:
    coarse = reader_of(cube).read(places((0, 21, 530)), size=48)
    fine = reader_of(cube, labels=2).read(places((0, 21, 530)), size=48)
    assert fine.magnification == 2
    assert torch.equal(fine.crop, coarse.crop.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(fine.parcel, coarse.parcel.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_a_cube_without_the_finer_labels_says_so(cube: Cube) -> None:
    with pytest.raises(ValueError, match="has no labels_x4; build it with finer labels"):
        reader_of(cube, labels=4)


@pytest.mark.parametrize("labels", [1, 2])
def test_labels_of_another_split_are_ignored(cube: Cube, labels: int) -> None:
    place = places((0, 64, 64))
    free = reader_of(cube, labels=labels).read(place, size=64)
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        masked = reader_of(cube, labels=labels).read(place, size=64, split=split)
        own = torch.from_numpy(cube.read("split", slice(64, 128), slice(64, 128)) == split)[None]
        own = own.repeat_interleave(labels, 1).repeat_interleave(labels, 2)
        assert torch.equal(masked.crop, torch.where(own, free.crop, -1))
        assert torch.equal(masked.parcel, free.parcel)


def test_labels_outside_of_the_part_to_keep_are_ignored(cube: Cube) -> None:
    keep = np.array([[1, 4, 2, 8]], np.int64)
    sample = reader_of(cube, labels=2).read(places((0, 3, 3)), size=8, keep=keep)
    assert (sample.crop[0, 2:8, 4:16] != -1).all()
    assert (sample.crop != -1).sum() == 6 * 12


def test_without_a_table_or_labels_there_are_none(cube: Cube) -> None:
    bare = Cube(replace(cube.facts, has_labels=False, classes=()))
    table = join_classes([cube], codes=None, background=True)
    for one, its_table in ((bare, table), (cube, None)):
        reader = ChipReader([one], table=its_table, bands=BANDS, dates=ALL, labels=2, cache_mb=9)
        sample = reader.read(places((0, 100, 100)), size=16)
        assert sample.image.any()
        assert sample.crop.shape == (1, 32, 32)
        assert (sample.crop == -1).all()
        assert not sample.parcel.any()


# Decoding


def test_a_chunk_is_decoded_once_for_all_its_chips(cube: Cube) -> None:
    reader = reader_of(cube)
    rng = np.random.default_rng(0)
    many = np.concatenate([np.zeros((40, 1), np.int64), rng.integers(0, 81, (40, 2))], axis=1)
    around = np.tile(np.array([0, 2, 0, 2]), (40, 1))
    for first in range(0, 40, 8):
        reader.read(many[first : first + 8], size=48, around=around[first : first + 8])
    assert reader.cache.decoded == 4


def test_the_cache_holds_no_more_than_its_bytes(cube: Cube) -> None:
    chunk = 64 * 64 * (4 * 4 * 2 + 4 + 2 + 4 + 2 + 1)
    reader = reader_of(cube, cache_mb=3.5 * chunk / 1e6)
    for row in range(8):
        for column in range(8):
            reader.read(places((0, 64 * row, 64 * column)), size=64)
            assert reader.cache.nbytes <= 3.5 * chunk
    assert reader.cache.nbytes == 3 * chunk
    assert reader.cache.decoded == 64
    reader.read(places((0, 448, 320), (0, 448, 384), (0, 448, 448)), size=64)
    assert reader.cache.decoded == 64


def test_what_no_later_chip_needs_is_forgotten_first(cube: Cube) -> None:
    chunk = 64 * 64 * (4 * 4 * 2 + 4 + 2 + 4 + 2 + 1)
    reader = reader_of(cube, cache_mb=2.5 * chunk / 1e6)
    around, last = np.array([[0, 1, 0, 1]]), np.array([False])
    reader.read(places((0, 0, 0)), size=64, around=around, last=last)
    reader.read(places((0, 0, 64)), size=64, around=np.add(around, [0, 0, 1, 1]), last=~last)
    reader.read(places((0, 0, 128)), size=64, around=np.add(around, [0, 0, 2, 2]), last=last)
    assert reader.cache.decoded == 3
    reader.read(places((0, 0, 0), (0, 0, 128)), size=64)
    assert reader.cache.decoded == 3
    reader.read(places((0, 0, 64)), size=64)
    assert reader.cache.decoded == 4


def test_a_cache_too_small_for_anything_gives_the_same_chips(cube: Cube) -> None:
    many = np.concatenate([np.zeros((30, 1), np.int64), np.random.default_rng(1).integers(0, 480, (30, 2))], axis=1)
    small, large = (reader_of(cube, cache_mb=mb).read(many, size=48) for mb in (0, 100))
    assert torch.equal(small.image.int(), large.image.int())
    assert torch.equal(small.crop, large.crop)


def test_tiles_that_overlap_decode_only_what_is_missing_and_count_no_byte_twice(cube: Cube) -> None:
    chunk = 64 * 64 * (4 * 4 * 2 + 4 + 2 + 4 + 2 + 1)
    reader = reader_of(cube, cache_mb=81 * chunk / 1e6)
    tiles = [places((0, row, column)) for row in range(-30, 390, 70) for column in range(-30, 390, 70)]
    alone = reader_of(cube, cache_mb=0)
    for tile in tiles:
        assert torch.equal(reader.read(tile, size=186).image.int(), alone.read(tile, size=186).image.int())
    touched = {(y // 64, x // 64) for y in range(506) for x in range(506)}
    assert reader.cache.decoded == len(touched) == 64
    assert reader.cache.nbytes == 64 * chunk


def test_what_one_thread_reads_the_others_wait_for(cube: Cube) -> None:
    reader = reader_of(cube)
    begin = threading.Barrier(4)

    def read(number: int) -> Sample:
        begin.wait()
        return reader.read(places((0, 30 * number, 40)), size=150)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    for number, sample in enumerate(found):
        assert torch.equal(sample.crop, reader_of(cube).read(places((0, 30 * number, 40)), size=150).crop)
    assert reader.cache.decoded == 4 * 3


def test_an_error_reaches_those_who_wait_and_the_chunk_is_read_again_later(cube: Cube) -> None:
    cache, begun, go_on = ChunkCache(1000), threading.Event(), threading.Event()
    what = ChunksRead(bands=(0,), dates=(0,), labels=None)

    def fails(where: Rectangle) -> Chunks:
        begun.set()
        go_on.wait(5)
        raise OSError(f"lost {where.top}")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.fetch, [(0, 1, 1)], None, fails)
        begun.wait(5)
        second = pool.submit(cache.fetch, [(0, 1, 1)], None, partial(read_chunks, cube, what=what))
        time.sleep(0.05)
        go_on.set()
        for waiting in (first, second):
            with pytest.raises(OSError, match="lost 1"):
                waiting.result()
    (found,) = cache.fetch([(0, 1, 1)], None, partial(read_chunks, cube, what=what))
    assert found.where == Rectangle(0, 1, 2, 1, 2)


def noting(read: list[Rectangle]) -> Callable[[Rectangle], Chunks]:
    """A reader of chunks without a pixel, that notes what it is asked for."""
    image, clear = np.zeros((1, 1, 0, 0), np.uint16), np.zeros((1, 0, 0), np.bool_)

    def note(where: Rectangle) -> Chunks:
        read.append(where)
        return Chunks(where=where, image=image, clear=clear, crop=None, parcel=None, boundary=None, split=None)

    return note


@given(st.sets(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 4)), max_size=20))
def test_missing_chunks_are_read_in_rectangles_that_hold_them_and_nothing_else(missing: set[Chunk]) -> None:
    read: list[Rectangle] = []
    ChunkCache(0).fetch(sorted(missing), None, noting(read))
    together = [chunk for where in read for chunk in where.chunks()]
    assert sorted(together) == sorted(missing)


def test_a_whole_rectangle_is_read_at_once() -> None:
    read: list[Rectangle] = []
    cache = ChunkCache(0)
    cache.fetch([(0, 3, 4)], Rectangle(0, 3, 5, 4, 6), noting(read))
    cache.fetch(Rectangle(0, 3, 6, 4, 7).chunks(), None, noting(read))
    assert read == [Rectangle(0, 3, 5, 4, 6), Rectangle(0, 3, 5, 6, 7), Rectangle(0, 5, 6, 4, 7)]


@given(
    st.sets(st.tuples(st.just(0), st.integers(0, 4), st.integers(0, 4)), max_size=12),
    st.sets(st.tuples(st.just(0), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_what_comes_along_is_kept_but_not_handed_out(before: set[Chunk], wanted: set[Chunk]) -> None:
    cache = ChunkCache(10**6)
    cache.fetch(sorted(before), None, noting([]))
    found = cache.fetch(sorted(wanted), Rectangle(0, 0, 5, 0, 5), noting([]))
    assert all(any(chunks.where.holds(chunk) for chunk in wanted) for chunks in found)
    assert all(sum(chunks.where.holds(chunk) for chunks in found) == 1 for chunk in wanted)
