"""`sits-model export`: a model as one file that other programs run, compared with the model before it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.export import ExportedProgram

from sits_catalog.console import Narrator
from sits_models.checkpoints import Card, load_model
from sits_models.folder import move_whole
from sits_models.tasks.exporting import (
    DEFAULT_OPSET,
    SUFFIXES,
    TOLERANCE,
    Agreement,
    Dimensions,
    Format,
    Program,
    check_format,
    compare,
    data_of,
    input_shape,
    open_program,
    output_shape,
    plan_dimensions,
    shapes_to_try,
    trace,
    write_program,
)
from sits_models.zoo import find_weights

__all__ = ["Exported", "export"]

FORMAT, VERSION = "sits-export", "1.0"
_TYPES = {"image": "float32", "valid": "bool", "day": "int64"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written and compared."""

    path: Path
    size: int
    """Bytes, of all its parts."""
    opset: int | None
    """Version of ONNX's operators; None: not ONNX."""
    inputs: Mapping[str, tuple[int | str, ...]]
    """Shapes by name; sizes that may change are called batch, dates, height and width."""
    output: str
    """logits or embedding."""
    output_shape: tuple[int | str, ...]
    dimensions: Dimensions
    agreements: tuple[Agreement, ...]

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "file": str(self.path),
            "bytes": self.size,
            "opset": self.opset,
            "inputs": {name: {"dtype": _TYPES[name], "shape": list(shape)} for name, shape in self.inputs.items()},
            "output": {"name": self.output, "dtype": "float32", "shape": list(self.output_shape)},
            "dimensions": self.dimensions.to_json(),
            "compared": [agreement.to_json() for agreement in self.agreements],
        }


def export(
    weights: str,
    *,
    to: Format,
    out: str | None,
    narrator: Narrator,
    batch: int | None = None,
    dates: int | None = None,
    size: int | None = None,
    opset: int | None = None,
) -> Exported:
    """Write a model as an ONNX file or a program of torch.export, and return what it takes and how well it agrees.

    `out` None: NAME.onnx or NAME.pt2 in the working folder, by the name of the recipe. `batch`, `dates` and `size`
    None: any number that the model takes, else that of its training. `opset` None: 20.

    Raises ValueError for sizes that the model does not take and where packages are missing, FileNotFoundError where
    there is no model, and RuntimeError where it cannot be exported, or its file does not compute what the model
    computes; no file is left then, and one that was there stays.
    """
    check_format(to, opset)
    narrator.stage("opening the model")
    loaded = load_model(find_weights(weights))
    program = Program(loaded.objective)
    asked = plan_dimensions(program.encoder.backbone, loaded.card, batch=batch, dates=dates, size=size)
    target = _target(out, loaded.card, to)
    narrator.stage("following what it computes")
    traced, dimensions = trace(program, asked)
    narrator.stage("writing the file")
    facts = _facts(loaded.card, program, traced, dimensions)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
        folder = Path(beside)
        version = opset or DEFAULT_OPSET
        write_program(folder / target.name, traced, output=program.output, facts=facts, opset=version)
        narrator.stage("comparing it with the model")
        agreements = compare(program, open_program(folder / target.name), shapes_to_try(dimensions))
        _check(agreements, target)
        # The one that names the others last.
        parts = sorted(folder.iterdir(), key=lambda part: part.name == target.name)
        written = sum(part.stat().st_size for part in parts)
        _move(parts, target)
    return Exported(
        path=target,
        size=written,
        opset=version if to == "onnx" else None,
        inputs={name: input_shape(traced, name) for name in _TYPES},
        output=program.output,
        output_shape=output_shape(traced),
        dimensions=dimensions,
        agreements=agreements,
    )


def _target(out: str | None, card: Card, to: Format) -> Path:
    target = Path(out or f"{card.recipe.name}{SUFFIXES[to]}")
    if target.suffix != SUFFIXES[to]:
        raise ValueError(f"--out is the name of a file that ends with {SUFFIXES[to]} where --to is {to}; got {target}")
    if target.is_dir():
        raise ValueError(f"--out is the name of a file; {target} is a folder")
    return target


def _move(parts: Sequence[Path], target: Path) -> None:
    """Put the parts of a file in the place of the one before, of which nothing is left."""
    stale = data_of(target) if target.is_file() else None
    for part in parts:
        move_whole(part, target.with_name(part.name))
    if stale is not None and stale.name not in {part.name for part in parts}:
        stale.unlink(missing_ok=True)


def _facts(card: Card, program: Program, traced: ExportedProgram, dimensions: Dimensions) -> dict[str, str]:
    """What the file says of itself, JSON by name: all that is needed to use it, and the card that it was made of."""
    text = json.dumps(card.to_json(), sort_keys=True)
    facts: dict[str, object] = {
        "format": f"{FORMAT} {VERSION}",
        "bands": list(card.bands),
        "classes": [{"index": n, "code": entry.code, "name": entry.name} for n, entry in enumerate(card.classes)],
        "radiometry": dict(card.radiometry),
        "inputs": {name: {"dtype": _TYPES[name], "shape": list(input_shape(traced, name))} for name in _TYPES},
        "output": {"name": program.output, "dtype": "float32", "shape": list(output_shape(traced))},
        "dimensions": dimensions.to_json(),
        "weights_sha256": card.sha256,
        "card_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    return {**{name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}, "card.json": text}


def _check(agreements: tuple[Agreement, ...], target: Path) -> None:
    failed = [agreement for agreement in agreements if not agreement.holds]
    if failed:
        raise RuntimeError(
            f"{target} was not written: what it computes is not what the model computes, with differences of "
            f"{'; '.join(map(str, failed))} where {TOLERANCE:.0e} of the largest value is allowed"
        )
