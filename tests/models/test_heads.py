from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from sits_models.heads import Magnify, build_head, head_reach
from sits_models.recipe import HeadKind

KINDS: tuple[HeadKind, ...] = get_args(HeadKind)


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_gives_a_logit_a_class_and_pixel(kind: HeadKind) -> None:
    head = build_head(kind, channels=6, classes=6, variant="paper")
    assert head(torch.randn(2, 6, 5, 7)).shape == (2, 6, 5, 7)


def test_heads_have_the_published_numbers_of_parameters() -> None:
    assert n_parameters(build_head("linear", channels=128, classes=20, variant="paper")) == 2_580
    assert n_parameters(build_head("conv3", channels=128, classes=20, variant="paper")) == 23_060
    assert n_parameters(build_head("double_conv", channels=32, classes=20, variant="paper")) == 15_132
    assert n_parameters(build_head("none", channels=20, classes=20, variant="paper")) == 0


def test_a_linear_head_is_one_weight_vector_a_class() -> None:
    head = build_head("linear", channels=2, classes=3, variant="paper")
    weights = {
        "weight": torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])[:, :, None, None],
        "bias": torch.arange(3.0),
    }
    head.load_state_dict(weights)
    embedding = torch.tensor([3.0, 5.0])[None, :, None, None]
    assert head(embedding).flatten().tolist() == [3.0, 11.0, 0.0]


def test_the_double_convolution_gives_no_negative_logit_as_published_only() -> None:
    embedding = torch.randn(4, 8, 6, 6)
    assert build_head("double_conv", channels=8, classes=5, variant="paper")(embedding).min() >= 0
    assert build_head("double_conv", channels=8, classes=5, variant="fixed")(embedding).min() < 0


def test_a_backbone_without_a_head_gives_one_channel_a_class() -> None:
    with pytest.raises(ValueError, match="gives 8 channels for 5 classes"):
        build_head("none", channels=8, classes=5, variant="paper")


@pytest.mark.parametrize("kind", KINDS)
def test_the_reach_of_a_head_is_what_gradients_reach(kind: HeadKind) -> None:
    head = build_head(kind, channels=3, classes=3, variant="fixed")
    for parameter in head.parameters():
        nn.init.constant_(parameter, 0.1)
    assert touched_by(head, torch.ones(1, 3, 16, 16), 8, 8) == (8 - head_reach(kind), 8 + head_reach(kind))


def touched_by(module: nn.Module, embedding: Tensor, row: int, column: int) -> tuple[int, int]:
    """First and last row of `embedding` that an output pixel depends on."""
    embedding.requires_grad_()
    module.eval()(embedding)[0, 0, row, column].backward()
    assert embedding.grad is not None
    rows = embedding.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    return int(rows[0]), int(rows[-1])


@pytest.mark.parametrize("magnification", [1, 2, 4])
def test_magnifying_multiplies_the_sides_and_reaches_a_pixel_further(magnification: int) -> None:
    magnify = Magnify(6, magnification)
    assert magnify(torch.randn(2, 6, 5, 7)).shape == (2, 6, 5 * magnification, 7 * magnification)
    assert n_parameters(Magnify(128, magnification)) == 147_840 * {1: 0, 2: 1, 4: 2}[magnification]
    for parameter in magnify.parameters():
        nn.init.constant_(parameter, 0.1)
    rows = [touched_by(magnify, torch.ones(1, 6, 16, 16), 8 * magnification + i, 8) for i in range(magnification)]
    assert min(first for first, _ in rows) == 8
    assert max(last for _, last in rows) == 8 + magnify.reach


def test_other_magnifications_are_refused() -> None:
    with pytest.raises(ValueError, match="a magnification is 1, 2 or 4; got 3"):
        Magnify(6, 3)
