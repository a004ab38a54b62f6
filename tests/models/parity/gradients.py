"""Gradients against those of the authors' code: by the input, and how long those by the weights are."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tests.models.parity.case import Case
from torch import Tensor, nn

ZERO = 1e-12
"""Gradients whose float64 norm is below this share of the largest are 0: those of biases in front of a batch norm."""


def check_gradients(
    case: Case, model: nn.Module, by_x: Tensor | None, *, rename: Callable[[str], str], unused: Collection[str]
) -> None:
    """After a backward pass: `by_x` is in the reference's order of axes, `rename` gives our name of its entries.

    `unused` are entries of the reference that shape no output; their gradients are not looked at.
    """
    if "grad_x" in case.output_names:
        assert by_x is not None
        case.compare("grad_x", by_x)
        case.compare_direction("grad_x", by_x)
    norms = {name: norm for name, norm in case.facts.get("grad_norms", {}).items() if name not in unused}
    exact = case.facts.get("grad_norms_float64", {})
    largest = max((exact[name] for name in norms), default=0.0)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in norms.items():
        gradient = found[rename(name)]
        ours = 0.0 if gradient is None else float(gradient.norm())
        if exact[name] > ZERO * largest:
            assert abs(ours - norm) <= 0.01 * norm, (
                f"{case.name}: the gradient of {name} is {ours:.4g} long, not {norm:.4g}"
            )
        else:
            assert ours <= 1e-4 * largest, f"{case.name}: the gradient of {name} is {ours:.4g} long, not 0"
