"""Tensors by name into a model, all of them or none, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sits_models.objectives.base import Objective

__all__ = ["LoadReport", "load_into"]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of each tensor when weights met a model."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """In the model and not in the weights."""
    extra: tuple[str, ...] = ()
    """In the weights and not in the model."""
    misshapen: tuple[str, ...] = ()
    """In both, of different shape: "name (shape in the weights, shape in the model)"."""
    left_out: tuple[str, ...] = ()
    """On either side, and not asked for."""

    @property
    def whole(self) -> bool:
        """Whether everything that was asked for was loaded."""
        return not (self.missing or self.extra or self.misshapen)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (
            ("missing in the weights", self.missing),
            ("unknown to the model", self.extra),
            ("of another shape", self.misshapen),
            ("left out as asked", self.left_out),
        ):
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(names)}")
        return "; ".join(parts)


def load_into(
    objective: Objective, tensors: Mapping[str, Tensor], *, part: str, but: tuple[str, ...] = ()
) -> LoadReport:
    """Load the tensors whose name begins with `part` and with none of `but`, all of them or none, and report."""
    ours = objective.state_dict()

    def asked(name: str) -> bool:
        return name.startswith(part) and not name.startswith(but)

    wanted = [name for name in ours if asked(name)]
    offered = [name for name in tensors if asked(name)]
    both = [name for name in wanted if name in tensors]
    fitting = [name for name in both if tensors[name].shape == ours[name].shape]
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in wanted if name not in tensors),
        extra=tuple(name for name in offered if name not in ours),
        misshapen=tuple(
            f"{name} ({tuple(tensors[name].shape)}, {tuple(ours[name].shape)})" for name in both if name not in fitting
        ),
        left_out=tuple(sorted(name for name in {*ours, *tensors} if not asked(name))),
    )
    if report.whole:
        objective.load_state_dict({**ours, **{name: tensors[name] for name in fitting}})
    return report
