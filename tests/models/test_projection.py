from __future__ import annotations

import pytest
import torch
from torch import nn

from sits_models.objectives.projection import ProjectionKind, build_projection


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
def test_a_map_is_projected_pixel_by_pixel_as_the_list_of_its_pixels(
    *, hidden: tuple[int, ...], batch_norm: bool
) -> None:
    dense = build_projection(4, hidden=hidden, outputs=2, kind="dense", batch_norm=batch_norm)
    vector = build_projection(4, hidden=hidden, outputs=2, kind="vector", batch_norm=batch_norm)
    state = {name: weight.flatten(1) if weight.ndim == 4 else weight for name, weight in dense.state_dict().items()}
    vector.load_state_dict(state)
    embedded = torch.randn(2, 4, 3, 5)
    pixels = embedded.permute(0, 2, 3, 1).reshape(-1, 4)  # (B*H*W, C)
    torch.testing.assert_close(dense(embedded).permute(0, 2, 3, 1).reshape(-1, 2), vector(pixels))


@pytest.mark.parametrize("kind", ["dense", "vector"])
def test_layers_stand_in_their_order_and_a_bias_that_a_norm_would_take_away_is_left_out(kind: ProjectionKind) -> None:
    with_norm = build_projection(4, hidden=(8,), outputs=3, kind=kind, batch_norm=True)
    assert [name for name, _ in with_norm.named_parameters()] == [
        "0.weight",
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    ]
    assert isinstance(with_norm[2], nn.ReLU)
    without = build_projection(4, hidden=(8,), outputs=3, kind=kind, batch_norm=False)
    assert [name for name, _ in without.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    alone = build_projection(4, hidden=(), outputs=3, kind=kind, batch_norm=True)
    assert [name for name, _ in alone.named_parameters()] == ["0.weight", "0.bias"]


def test_no_vector_at_all_leaves_the_statistics_and_has_gradients_of_0() -> None:
    head = build_projection(4, hidden=(8,), outputs=3, kind="vector", batch_norm=True)
    head(torch.zeros(0, 4)).sum().backward()
    assert head[1].running_mean.tolist() == [0.0] * 8
    assert head[1].running_var.tolist() == [1.0] * 8
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())
