"""A model as a program that runs without this project: its inputs and sizes, its files, and the proof that they agree.

One export is a `Program`, traced once over its `Dimension`s, written in a `format` and compared with the model it was
made of.
"""

from __future__ import annotations

from sits_models.tasks.exporting.agreement import TOLERANCE, Agreement, compare, shapes_to_try
from sits_models.tasks.exporting.dimensions import Dimension, Dimensions, plan_dimensions
from sits_models.tasks.exporting.files import (
    DEFAULT_OPSET,
    SUFFIXES,
    Format,
    check_format,
    data_of,
    open_program,
    write_program,
)
from sits_models.tasks.exporting.program import Inputs, Program, draw_inputs
from sits_models.tasks.exporting.tracing import input_shape, output_shape, trace

__all__ = [
    "DEFAULT_OPSET",
    "SUFFIXES",
    "TOLERANCE",
    "Agreement",
    "Dimension",
    "Dimensions",
    "Format",
    "Inputs",
    "Program",
    "check_format",
    "compare",
    "data_of",
    "draw_inputs",
    "input_shape",
    "open_program",
    "output_shape",
    "plan_dimensions",
    "shapes_to_try",
    "trace",
    "write_program",
]
