"""A parity case: weights and inputs by rule, stored outputs and the comparison; the README beside the cases explains."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """One description with its arrays."""

    name: str
    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = self.facts["configuration"]
        return configuration

    @property
    def in_train_mode(self) -> bool:
        return str(self.facts["mode"]).startswith("train")

    def weights(self) -> dict[str, torch.Tensor]:
        """The reference's state dict, by its own names."""
        rule = self.facts["fill_rule"]
        entries = self.facts["state_dict"]
        return {name: torch.from_numpy(_fill(name, tuple(shape), kind, rule)) for name, shape, kind in entries}

    def input(self, name: str) -> NDArray[Any]:
        """A stored or regenerated input."""
        facts = next(entry for entry in self.facts["inputs"] if entry["name"] == name)
        if facts["npz_key"]:
            return self.arrays[facts["npz_key"]]
        found = re.match(
            r"default_rng\((\d+)\)\.standard_normal\((\[.*?\])\)\.astype\(float32\) \* float32\((.*?)\)",
            facts["recipe"],
        )
        assert found, facts["recipe"]
        draw = np.random.default_rng(int(found[1])).standard_normal(json.loads(found[2])).astype(np.float32)
        return np.asarray(draw * np.float32(float(found[3])))

    def output(self, name: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """A stored output and its facts: slice, advised_atol, exact."""
        facts = next(entry for entry in self.facts["outputs"] if entry["name"] == name)
        return self.arrays[facts["npz_key"]], facts

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(entry["name"] for entry in self.facts["outputs"])

    def compare(self, name: str, ours: torch.Tensor | NDArray[Any] | float) -> None:
        """Assert that our output `name`, whole, equals the stored one within the stated tolerance."""
        stored, facts = self.output(name)
        values = ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        assert list(values.shape) == facts["full_shape"], f"{name}: shape {values.shape}, not {facts['full_shape']}"
        if "slice" in facts:
            values = values[_slices(facts["slice"])]
        assert values.shape == stored.shape
        if facts.get("exact"):
            np.testing.assert_array_equal(values, stored, err_msg=f"{self.name}: {name}")
            return
        gap = float(np.max(np.abs(values.astype(np.float64) - stored.astype(np.float64)), initial=0.0))
        limit = facts["advised_atol"]
        assert gap <= limit, f"{self.name}: {name} differs by {gap:.3g}, more than {limit}"

    def compare_direction(self, name: str, ours: torch.Tensor) -> None:
        """Assert that a gradient points where the stored one does: cosine above 0.999."""
        stored, facts = self.output(name)
        values = ours.detach().cpu().numpy()
        if "slice" in facts:
            values = values[_slices(facts["slice"])]
        a, b = values.astype(np.float64).ravel(), stored.astype(np.float64).ravel()
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        assert cosine > 0.999, f"{self.name}: {name} has cosine {cosine:.6f}"


def parity_folder() -> Path | None:
    """The folder of cases that the environment variable SITS_PARITY names."""
    folder = os.environ.get("SITS_PARITY")
    return Path(folder) if folder else None


def list_cases() -> list[str]:
    """Names of all cases, sorted; none where SITS_PARITY is not set."""
    folder = parity_folder()
    return sorted(path.stem for path in folder.glob("*.json")) if folder else []


def read_case(name: str) -> Case:
    folder = parity_folder()
    assert folder is not None
    facts = json.loads((folder / f"{name}.json").read_text())
    arrays = dict(np.load(folder / facts["npz"])) if "npz" in facts else {}
    return Case(name, facts, arrays)


def _fill(name: str, shape: tuple[int, ...], kind: str, rule: str) -> NDArray[Any]:
    if not kind.startswith("float"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape).astype(np.float32) * np.float32(0.05)
    last = name.rsplit(".", 1)[-1]
    if re.fullmatch(r"running_var(_\d+)?", last):
        values = np.abs(values) + np.float32(0.5)
    elif last == "weight" and len(shape) == 1:
        values = np.float32(1) + values
    elif rule == "balanced" and len(shape) >= 2:
        values = values * np.float32(20.0 / math.sqrt(int(np.prod(shape[1:]))))
    return np.asarray(values, np.float32).reshape(shape)


def _slices(text: str) -> tuple[slice | int, ...]:
    parts = []
    for part in text.strip("[]").split(","):
        numbers = [int(number) if number.strip() else None for number in part.split(":")]
        parts.append(slice(*numbers) if ":" in part else numbers[0])
    return tuple(parts)  # type: ignore[arg-type]
