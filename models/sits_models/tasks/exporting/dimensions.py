"""Which sizes an exported program takes: any, or one, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from sits_models.backbones.base import Backbone
from sits_models.checkpoints import Card

__all__ = ["Axis", "Dimension", "Dimensions", "plan_dimensions"]

Axis = Literal["batch", "dates", "height", "width"]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """The sizes of one axis."""

    size: int
    """The only one where it is fixed; else that of the model's training, 1 chip in the batch."""
    fixed: str | None = None
    """Why there is only one; None: there are more."""
    least: int = 1
    multiple: int = 1
    """Sizes are multiples of it."""
    trained: int | None = None
    """The side it was trained at, where other sides give other values at the same pixel."""

    def __str__(self) -> str:
        if self.fixed is not None:
            return f"{self.size}: {self.fixed}"
        sizes = "any" if self.multiple == 1 else f"multiples of {self.multiple}"
        bound = f" from {self.least}" if self.least > self.multiple else ""
        return sizes + bound + (f"; trained at {self.trained}" if self.trained else "")

    def to_json(self) -> dict[str, object]:
        """`size` where it is fixed, with the reason; else the sizes that will do."""
        if self.fixed is not None:
            return {"dynamic": False, "size": self.size, "reason": self.fixed}
        trained = {} if self.trained is None else {"trained": self.trained}
        return {"dynamic": True, "least": self.least, "multiple": self.multiple, **trained}


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Those of the three inputs."""

    batch: Dimension
    dates: Dimension
    height: Dimension
    width: Dimension

    def __iter__(self) -> Iterator[tuple[Axis, Dimension]]:
        yield "batch", self.batch
        yield "dates", self.dates
        yield "height", self.height
        yield "width", self.width

    def with_fixed(self, reasons: Mapping[Axis, str]) -> Self:
        """A copy in which these are fixed too."""
        changed = {axis: replace(getattr(self, axis), fixed=reason) for axis, reason in reasons.items()}
        if "batch" in changed:
            changed["batch"] = replace(changed["batch"], size=1)
        return replace(self, **changed)

    def with_least(self, axis: Axis, least: int) -> Self:
        """A copy in which no size of an axis is smaller than that."""
        changed: Dimension = getattr(self, axis)
        larger = max(changed.least, -(-least // changed.multiple) * changed.multiple)
        return replace(self, **{axis: replace(changed, least=larger)})

    def to_json(self) -> dict[str, object]:
        """By their names."""
        return {axis: dimension.to_json() for axis, dimension in self}


def plan_dimensions(
    backbone: Backbone, card: Card, *, batch: int | None, dates: int | None, size: int | None
) -> Dimensions:
    """What can be asked of a backbone: any size where it takes any, and the given one where one is given.

    Raises ValueError for a size or a number of dates that it cannot take.
    """
    needs = backbone.needs
    side = needs.size or size or needs.side_for(backbone.tile_size or card.recipe.data.size)
    _check(backbone, dates=dates, size=size)
    asked = "as asked for"
    across = Dimension(
        size=side,
        fixed=asked if size is not None else _size_reason(backbone),
        least=needs.side_for(1),
        multiple=needs.size_multiple,
        trained=backbone.tile_size,
    )
    return Dimensions(
        batch=Dimension(size=batch or 1, fixed=None if batch is None else asked),
        dates=Dimension(
            size=needs.dates or dates or card.dates, fixed=asked if dates is not None else _dates_reason(backbone)
        ),
        height=across,
        width=across,
    )


def _check(backbone: Backbone, *, dates: int | None, size: int | None) -> None:
    needs, name = backbone.needs, type(backbone).__name__
    if needs.dates is not None and dates not in (None, needs.dates):
        raise ValueError(f"--dates {dates}: this {name} was built for {needs.dates}; leave the option out")
    if size is None:
        return
    if needs.size is not None and size != needs.size:
        raise ValueError(f"--size {size}: this {name} was built for chips of {needs.size} px; leave the option out")
    if size != needs.side_for(size):
        raise ValueError(
            f"--size {size}: {name} takes chips of at least {needs.side_for(1)} px whose sides are multiples of "
            f"{needs.size_multiple}; the next one is {needs.side_for(size)}"
        )


def _size_reason(backbone: Backbone) -> str | None:
    needs = backbone.needs
    return None if needs.size is None else f"this {type(backbone).__name__} was built for chips of {needs.size} px"


def _dates_reason(backbone: Backbone) -> str | None:
    dates, name = backbone.needs.dates, type(backbone).__name__
    if dates is None:
        return None
    return f"this {name} was built for {dates} dates" if dates > 1 else f"{name} takes single dates"
