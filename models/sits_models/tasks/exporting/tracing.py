"""From a model to a graph of its operations, for as many sizes as they allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from sits_models.tasks.exporting.dimensions import Axis, Dimensions
from sits_models.tasks.exporting.program import Inputs, Program, draw_inputs

__all__ = ["input_shape", "output_shape", "trace"]

AXES: dict[str, dict[int, Axis]] = {
    "image": {0: "batch", 1: "dates", 3: "height", 4: "width"},
    "valid": {0: "batch", 1: "dates"},
    "day": {0: "batch", 1: "dates"},
}
"""Where each dimension stands in the shapes of the inputs."""
_UNROLLED = "the dates are computed one after the other, each by a part of the program"
_FIXED = "an operation of the model could be traced for one size alone"
_EXAMPLE_SIDE = 96
"""A side at which no map inside a model is a single pixel, for which operations have branches of their own."""


def trace(program: Program, dimensions: Dimensions) -> tuple[ExportedProgram, Dimensions]:
    """The graph of a program, and the sizes that it takes: those asked for, but the ones its operations fix.

    Raises RuntimeError with one sentence where the model cannot be traced.
    """
    while True:
        try:
            traced = _traced(program, dimensions)
        except torch._dynamo.exc.UserError as error:  # sizes that contradict the operations
            axes = [axis for axis in _open(dimensions) if axis != "dates"]
            found: dict[Axis, str] = dict.fromkeys([a for a in axes if a != "batch"] or axes, _FIXED)
            if not found:
                raise _no_graph(program, error) from error
        except Exception as error:
            raise _no_graph(program, error) from error
        else:
            found = {axis: _FIXED for axis in _settled_axes(traced) if axis in _open(dimensions)}
            if not found.keys() - {"dates"}:
                return _cleaned(traced), _bounded(traced, dimensions.with_fixed(dict.fromkeys(found, _UNROLLED)))
        dimensions = dimensions.with_fixed({axis: reason for axis, reason in found.items() if axis != "dates"})


def input_shape(traced: ExportedProgram, name: str) -> tuple[int | str, ...]:
    """Of an input: numbers, and batch, dates, height and width for what may change."""
    return tuple(AXES[name].get(place, size) if isinstance(size, str) else size for place, size in _sizes(traced, name))


def output_shape(traced: ExportedProgram) -> tuple[int | str, ...]:
    """Of the output: a multiple of an input's side is called so, such as 2*height; any other size by its place."""
    (result,) = traced.graph.output_node().args[0]
    image = _placeholders(traced)["image"].meta["val"].shape
    return tuple(_name(size, place, image) for place, size in enumerate(result.meta["val"].shape))


def _name(size: int | torch.SymInt, place: int, image: Sequence[int | torch.SymInt]) -> int | str:
    if isinstance(_number(size), int):
        return int(size)
    for there, axis in AXES["image"].items():
        if isinstance(_number(image[there]), str):
            ratio = (size.node.expr / image[there].node.expr).simplify()  # type: ignore[union-attr]
            if ratio.is_Integer:
                return axis if ratio == 1 else f"{ratio}*{axis}"
    return f"output_{place}"


def _sizes(traced: ExportedProgram, name: str) -> list[tuple[int, int | str]]:
    return list(enumerate(map(_number, _placeholders(traced)[name].meta["val"].shape)))


def _number(size: int | torch.SymInt) -> int | str:
    """A size of a graph, as a number also where an operation has fixed it later, else torch's symbol."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression) if expression.is_number else str(expression)


def _placeholders(traced: ExportedProgram) -> dict[str, torch.fx.Node]:
    return {node.name: node for node in traced.graph.nodes if node.op == "placeholder"}


def _open(dimensions: Dimensions) -> list[Axis]:
    return [axis for axis, dimension in dimensions if dimension.fixed is None]


def _settled_axes(traced: ExportedProgram) -> list[Axis]:
    """Axes of one size, or of sizes up to a bound that is of the example and not of the model."""
    ranges = _ranges(traced)
    return [axis for axis in AXES["image"].values() if axis not in ranges or ranges[axis].upper.is_Integer]


def _bounded(traced: ExportedProgram, dimensions: Dimensions) -> Dimensions:
    """The sizes from those on that the operations can take."""
    for axis, found in _ranges(traced).items():
        # From 2 on means that a size of 1 was not looked at apart; torch does not check it either.
        if found.lower > 2:
            dimensions = dimensions.with_least(axis, int(found.lower))
    return dimensions


def _ranges(traced: ExportedProgram) -> dict[Axis, ValueRanges[Any]]:
    """Those of the sizes that may change."""
    shape = _placeholders(traced)["image"].meta["val"].shape
    return {
        axis: traced.range_constraints[shape[place].node.expr]
        for place, axis in AXES["image"].items()
        if isinstance(_number(shape[place]), str)
    }


def _example(program: Program, dimensions: Dimensions) -> Inputs:
    """Inputs to trace with; the sizes that are not fixed are no two alike, lest two be taken for one."""
    height, width = (
        side.size if side.fixed is not None else side.multiple * (-(-_EXAMPLE_SIDE // side.multiple) + more)
        for side, more in ((dimensions.height, 0), (dimensions.width, 1))
    )
    dates, batch = dimensions.dates.size, dimensions.batch.size
    if dimensions.batch.fixed is None:
        batch = next(n for n in (5, 7, 11, 13) if n not in (dates, height, width))
    return draw_inputs(batch=batch, dates=dates, bands=len(program.encoder.bands), height=height, width=width, seed=0)


def _traced(program: Program, dimensions: Dimensions) -> ExportedProgram:
    inputs = _example(program, dimensions)
    settings = torch.fx.experimental._config
    # As torch's own exporter to ONNX has it: that a size may be 1 makes no branch of its own.
    oblivious = settings.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    sizes = {axis: _allowed(axis, dimensions) for axis, _ in dimensions}
    shapes = {name: {place: sizes[axis] for place, axis in axes.items()} for name, axes in AXES.items()}
    with oblivious, torch.no_grad():
        return torch.export.export(program, tuple(inputs), dynamic_shapes=shapes, strict=False)


def _allowed(axis: Axis, dimensions: Dimensions) -> Any:  # of types that torch.export keeps to itself
    dimension = dict(dimensions)[axis]
    if dimension.fixed is not None:
        return Dim.STATIC
    if dimension.multiple == 1:
        return Dim.AUTO(min=1)  # fixed where the operations fix it
    return dimension.multiple * Dim(f"{axis}_steps", min=-(-dimension.least // dimension.multiple))


def _cleaned(traced: ExportedProgram) -> ExportedProgram:
    """The same without what does not belong into a file.

    That is: conditions on sizes that torch found while it looked for the best layout in memory, such as "another batch
    than 1" (the graph computes the same with such sizes, as the comparison with the model shows; equalities stay, and
    so do bounds and fixed sizes, which torch keeps elsewhere); the example's values; and where in this machine's
    folders each operation was found.
    """
    traced._guards_code = [guard for guard in traced._guards_code if " == " in guard]
    traced.example_inputs = None
    for node in traced.graph.nodes:
        node.meta.pop("stack_trace", None)
    return traced


def _no_graph(program: Program, error: Exception) -> RuntimeError:
    backbone = program.encoder.backbone
    said = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return RuntimeError(
        f"a {type(backbone).__name__} of the variant {backbone.variant} cannot be exported, since torch.export cannot "
        f"follow what it computes: {said}"
    )
