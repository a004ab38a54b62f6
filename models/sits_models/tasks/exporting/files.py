"""The files of an exported program: torch.export's .pt2 and ONNX, written and opened again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from sits_models.tasks.exporting.program import Inputs
from sits_models.tasks.exporting.tracing import input_shape, output_shape

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

__all__ = ["DEFAULT_OPSET", "OPSETS", "SUFFIXES", "Format", "check_format", "data_of", "open_program", "write_program"]

Format = Literal["torch", "onnx"]
SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}
OPSETS = range(18, 24)
"""ONNX's versions of its operators that torch's exporter writes."""
DEFAULT_OPSET = 20
_RUNTIMES = ("onnx", "onnxscript", "onnxruntime")


def check_format(to: Format, opset: int | None) -> None:
    """Raises ValueError where a format cannot be written, for an option that is not its own or missing packages."""
    if to == "torch":
        if opset is not None:
            raise ValueError(f"--opset {opset} is of ONNX alone; leave it out with --to torch")
        return
    if opset is not None and opset not in OPSETS:
        raise ValueError(f"--opset is {OPSETS.start} to {OPSETS.stop - 1}; got {opset}")
    for name in _RUNTIMES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"--to onnx needs {', '.join(_RUNTIMES)}, and there is no {name}: `pip install 'sits-cubes[export]'`"
            ) from error


def data_of(path: Path) -> Path:
    """Where a file that would be too large leaves its tensors."""
    return path.with_name(f"{path.name}.data")


def write_program(path: Path, traced: ExportedProgram, *, output: str, facts: Mapping[str, str], opset: int) -> None:
    """Write a traced program, with what is known of it, into a file whose suffix says how.

    An ONNX file that would be larger than 2 GB, which the format forbids, leaves its tensors in a second file beside
    it, NAME.onnx.data. Raises RuntimeError with one sentence for operations that ONNX does not have.
    """
    if path.suffix == SUFFIXES["torch"]:
        torch.export.save(traced, path, extra_files=dict(facts))
        return
    program = _onnx_program(traced, output, opset)
    _name_sizes(program, traced)
    program.model.metadata_props.update(facts)
    program.save(path, external_data=None)


def open_program(path: Path) -> Callable[[Inputs], Tensor]:
    """What a written file computes, by the means of those who use it: torch.export.load, or onnxruntime on the CPU."""
    if path.suffix == SUFFIXES["torch"]:
        module = torch.export.load(path).module()

        def run_torch(inputs: Inputs) -> Tensor:
            with torch.inference_mode():
                result: Tensor = module(*inputs)
            return result

        return run_torch
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of sizes that it finds out while it runs
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run_onnx(inputs: Inputs) -> Tensor:
        (result,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs._asdict().items()})
        return torch.from_numpy(result)

    return run_onnx


def _onnx_program(traced: ExportedProgram, output: str, opset: int) -> ONNXProgram:
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(Inputs._fields),
            output_names=[output],
            opset_version=opset,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RuntimeError(f"the model cannot be exported to ONNX, try --to torch: {_cause(error)}") from error
    assert program is not None
    return program


def _stable_sort(self: Any, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
    """aten::sort.stable, which torch's exporter lacks: TopK puts equal values in the order of their places."""
    from onnxscript import opset18 as op

    length = op.Shape(self, start=dim, end=None if dim == -1 else dim + 1)
    return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)


def _cause(error: BaseException) -> str:
    """The first line of what was wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _name_sizes(program: ONNXProgram, traced: ExportedProgram) -> None:
    """Sizes that may change are called batch, dates, height and width in place of the symbols of the trace."""
    import onnx_ir

    for value in program.model.graph.inputs:
        value.shape = onnx_ir.Shape(input_shape(traced, str(value.name)))
    for value in program.model.graph.outputs:
        value.shape = onnx_ir.Shape(output_shape(traced))
