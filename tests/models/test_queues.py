from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sits_models.objectives.queues import Queue


def numbered(first: int, n: int, channels: int = 2) -> Tensor:
    """Keys that tell their number."""
    return torch.arange(first, first + n, dtype=torch.float32)[:, None].expand(n, channels)


def test_the_first_keys_are_random_vectors_of_length_one() -> None:
    torch.manual_seed(0)
    queue = Queue(1000, channels=3)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(1000))
    assert queue.keys.mean(dim=0).abs().max() < 0.1  # in all directions
    assert (queue.length, int(queue.pointer), int(queue.filled)) == (1000, 0, 0)


def test_keys_replace_the_oldest_and_wrap_around() -> None:
    queue = Queue(5, channels=2)
    queue.enqueue(numbered(1, 3))
    assert queue.keys[:3, 0].tolist() == [1, 2, 3]
    assert (int(queue.pointer), int(queue.filled)) == (3, 3)
    queue.enqueue(numbered(4, 4))
    assert queue.keys[:, 0].tolist() == [6, 7, 3, 4, 5]
    assert (int(queue.pointer), int(queue.filled)) == (2, 5)
    queue.enqueue(numbered(8, 5))
    assert queue.keys[:, 1].tolist() == [11, 12, 8, 9, 10]
    assert (int(queue.pointer), int(queue.filled)) == (2, 5)


@given(
    length=st.integers(1, 9),
    batches=st.lists(st.integers(0, 20), max_size=8),
    precision=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_it_holds_what_a_list_would(length: int, batches: list[int], precision: torch.dtype) -> None:
    queue = Queue(length, channels=2)
    held, place, first = queue.keys[:, 0].tolist(), 0, 10
    for n in batches:
        queue.enqueue(numbered(first, n).to(precision))
        for number in range(first, first + n):
            held[place] = float(number)
            place = (place + 1) % length
        first += n
    assert queue.keys[:, 0].tolist() == held
    assert int(queue.pointer) == place
    assert int(queue.filled) == min(length, sum(batches))
    assert queue.keys.dtype == torch.float32


def test_a_state_dict_holds_all_of_it() -> None:
    torch.manual_seed(1)
    queue = Queue(7, channels=2)
    queue.enqueue(numbered(1, 5))
    torch.manual_seed(2)
    other = Queue(7, channels=2)
    other.load_state_dict(copy.deepcopy(queue.state_dict()))
    for one in (queue, other):
        one.enqueue(numbered(6, 4))
    assert list(queue.state_dict()) == ["keys", "pointer", "filled"]
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert other.keys[:, 0].tolist() == [8, 9, 3, 4, 5, 6, 7]


def test_no_gradient_follows_a_key_into_the_queue() -> None:
    queue = Queue(4, channels=2)
    queue.enqueue(numbered(1, 3).clone().requires_grad_() * 2)
    assert not queue.keys.requires_grad
    assert queue.keys[:3, 0].tolist() == [2, 4, 6]
    assert not list(queue.parameters())


@pytest.mark.parametrize("shape", [(3, 5), (3,), (3, 4, 1)])
def test_keys_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes keys \(N, 4\); got \(3"):
        Queue(8, channels=4).enqueue(torch.zeros(shape))


@pytest.mark.parametrize(("length", "channels"), [(0, 4), (4, 0)])
def test_an_empty_queue_is_refused(length: int, channels: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 key of at least 1 channel; got {length} keys of {channels}"):
        Queue(length, channels=channels)
