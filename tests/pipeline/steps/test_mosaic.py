from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sits_pipeline.steps.mosaic import Layer, mosaic
from sits_pipeline.values import Frame

N_BANDS = 3


def empty_frame(n_bands: int, shape: tuple[int, int]) -> Frame:
    """A frame without an observation."""
    return Frame(
        reflectance=np.zeros((n_bands, *shape), np.uint16),
        scl=np.zeros(shape, np.uint8),
        quality=np.zeros(shape, np.uint8),
        source_index=np.full(shape, 255, np.uint8),
    )


def layer(index: int, observed: list[int], *, scl: int = 4, bits: int = 0) -> Layer:
    """A read scene on a row of pixels; band b of scene i is 100 * (i + 1) + b everywhere."""
    width = len(observed)
    values = 100 * (index + 1) + np.arange(N_BANDS)[:, None, None]
    return Layer(
        source_index=index,
        render=lambda out: np.copyto(out, np.broadcast_to(values, (N_BANDS, 1, width)).astype(np.uint16)),
        scl=np.full((1, width), scl, np.uint8),
        bits=np.full((1, width), bits, np.uint8),
        observed=np.array([observed], bool),
        unread=None,
    )


def unread_layer(index: int, unread: list[int]) -> Layer:
    shape = (1, len(unread))
    return Layer(
        source_index=index,
        render=None,
        scl=np.full(shape, 4, np.uint8),
        bits=np.zeros(shape, np.uint8),
        observed=np.zeros(shape, bool),
        unread=np.array([unread], bool),
    )


def test_the_first_scene_that_observes_a_pixel_gives_all_its_bands() -> None:
    frame = empty_frame(N_BANDS, (1, 4))
    missed = mosaic([layer(0, [1, 0, 0, 0]), layer(1, [1, 1, 0, 0], scl=9, bits=2)], frame, None)
    assert missed == ()
    assert frame.source_index.tolist() == [[0, 1, 255, 255]]
    assert frame.reflectance[:, 0].T.tolist() == [[100, 101, 102], [200, 201, 202], [0, 0, 0], [0, 0, 0]]
    assert frame.scl.tolist() == [[4, 9, 0, 0]]
    assert frame.quality.tolist() == [[1, 1 | 2, 0, 0]]


def test_a_cloudy_first_scene_is_not_replaced_by_a_clear_later_one() -> None:
    frame = empty_frame(N_BANDS, (1, 1))
    mosaic([layer(0, [1], scl=9, bits=2), layer(1, [1])], frame, None)
    assert frame.source_index.tolist() == [[0]]
    assert frame.quality.tolist() == [[3]]


def test_a_scene_that_observes_everything_fills_the_frame_at_once() -> None:
    frame = empty_frame(N_BANDS, (1, 2))
    mosaic([layer(7, [1, 1], scl=6, bits=64)], frame, None)
    assert frame.source_index.tolist() == [[7, 7]]
    assert frame.quality.tolist() == [[65, 65]]
    assert frame.reflectance[2].tolist() == [[802, 802]]


def test_an_unread_scene_blocks_later_ones_but_not_earlier_ones() -> None:
    frame = empty_frame(N_BANDS, (1, 4))
    missed = mosaic([layer(0, [1, 0, 0, 0]), unread_layer(1, [1, 1, 0, 0]), layer(2, [1, 1, 1, 0])], frame, None)
    assert missed == (1,)
    assert frame.quality.tolist() == [[1, 128, 1, 0]]
    assert frame.source_index.tolist() == [[0, 255, 2, 255]]
    assert frame.reflectance[0].tolist() == [[100, 0, 300, 0]]
    assert frame.scl.tolist() == [[4, 0, 4, 0]]


def test_an_unread_scene_below_observed_pixels_is_not_missed() -> None:
    frame = empty_frame(N_BANDS, (1, 2))
    assert mosaic([layer(0, [1, 0]), unread_layer(1, [1, 0])], frame, None) == ()
    assert frame.quality.tolist() == [[1, 0]]


def test_every_scene_that_left_pixels_unread_is_named_once() -> None:
    frame = empty_frame(N_BANDS, (1, 3))
    assert mosaic(
        [unread_layer(3, [1, 1, 0]), unread_layer(5, [1, 1, 0]), unread_layer(9, [0, 1, 1])], frame, None
    ) == (
        3,
        9,
    )
    assert frame.quality.tolist() == [[128, 128, 128]]


def test_pixels_outside_of_the_strip_stay_unobserved_and_are_never_unread() -> None:
    frame = empty_frame(N_BANDS, (1, 3))
    inside = np.array([[True, False, True]])
    assert mosaic([unread_layer(0, [1, 1, 0]), layer(1, [1, 1, 1])], frame, inside) == (0,)
    assert frame.quality.tolist() == [[128, 0, 1]]
    assert frame.source_index.tolist() == [[255, 255, 1]]
    assert inside.tolist() == [[True, False, True]]


def asked_for(layers: list[Layer], inside: NDArray[np.bool_] | None) -> int:
    """How many of lazy layers a mosaic takes."""
    taken = 0

    def lazy() -> Iterator[Layer]:
        nonlocal taken
        for one in layers:
            taken += 1
            yield one

    mosaic(lazy(), empty_frame(N_BANDS, (1, 2)), inside)
    return taken


def test_layers_are_not_asked_for_once_every_pixel_is_decided() -> None:
    assert asked_for([layer(0, [1, 0]), layer(1, [0, 1]), layer(2, [1, 1])], None) == 2
    assert asked_for([layer(0, [1, 0]), unread_layer(1, [0, 1]), layer(2, [1, 1])], None) == 2
    assert asked_for([layer(0, [1, 0]), layer(1, [0, 0])], None) == 2


def test_no_layer_is_asked_for_where_nothing_lies_in_the_strip() -> None:
    assert asked_for([layer(0, [1, 1])], np.array([[False, False]])) == 0


def test_only_the_part_in_the_strip_has_to_be_filled() -> None:
    assert asked_for([layer(0, [1, 0]), layer(1, [1, 1])], np.array([[True, False]])) == 1


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 1), min_size=6, max_size=6)), max_size=5), st.data())
def test_a_mosaic_agrees_with_a_loop_over_pixels(scenes: list[tuple[bool, list[int]]], data: st.DataObject) -> None:
    layers = [layer(i, mask) if read else unread_layer(i, mask) for i, (read, mask) in enumerate(scenes)]
    inside = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    frame = empty_frame(N_BANDS, (1, 6))
    missed = mosaic(layers, frame, np.array([inside]))

    expected_missed = set()
    for pixel in range(6):
        index, quality, values = 255, 0, [0] * N_BANDS
        for i, (read, mask) in enumerate(scenes):
            if inside[pixel] and mask[pixel]:
                index, quality, values = (
                    (i, 1, [100 * (i + 1) + b for b in range(N_BANDS)]) if read else (255, 128, values)
                )
                expected_missed |= set() if read else {i}
                break
        assert frame.source_index[0, pixel] == index
        assert frame.quality[0, pixel] == quality
        assert frame.reflectance[:, 0, pixel].tolist() == values
    assert missed == tuple(sorted(expected_missed))
