"""A parity case: weights and inputs by rule, stored outputs and the comparison; the README beside them explains."""

from __future__ import annotations

import hashlib
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

from sits_models.sample import IGNORE_INDEX


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
        arrays = {name: _fill(name, tuple(shape), kind, rule) for name, shape, kind in entries}
        assert _sha256(*arrays.values()) == self.facts["fill_sha256"], f"{self.name}: the weights are not those meant"
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def input(self, name: str) -> NDArray[Any]:
        """A stored or regenerated input."""
        facts = next(entry for entry in self.facts["inputs"] if entry["name"] == name)
        final = facts.get("sha256_final", facts["sha256"])
        if facts["npz_key"]:
            values = self.arrays[facts["npz_key"]]
        else:
            values = _draw(facts["recipe"])
            assert _sha256(values) == facts["sha256"], f"{self.name}: the draw of {name} is not the one meant"
            if "then" in facts:
                values = self._changed(values, facts["then"])
        assert _sha256(values) == final, f"{self.name}: the input {name} is not the one meant"
        return values

    def _changed(self, values: NDArray[Any], then: str) -> NDArray[Any]:
        found = re.fullmatch(r"in sample b the last n_pad\[b\] of (\[.*\]) dates are set to 0", then)
        assert found, f"{self.name}: nothing here knows this change of an input: {then}"
        assert self.facts.get("configuration", {}).get("shape_pattern", "NT").startswith("NT")
        changed = values.copy()
        for sample, padded in zip(changed, json.loads(found[1]), strict=True):
            sample[len(sample) - padded :] = 0
        return changed

    def labels_in_loss(self) -> torch.Tensor:
        """The labels, int64, IGNORE_INDEX where they are of the class that the description leaves out of the loss."""
        labels = torch.from_numpy(self.input("labels").astype(np.int64))
        text = " ".join([*(str(entry["recipe"]) for entry in self.facts["inputs"]), *self.facts["notes"]])
        found = re.findall(r"class (\d+) is masked out|label is not (\d+)", text)
        classes = {int(number) for numbers in found for number in numbers if number}
        assert len(classes) <= 1, text
        return labels.masked_fill(labels == classes.pop(), IGNORE_INDEX) if classes else labels

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


def _sha256(*arrays: NDArray[Any]) -> str:
    """Of the bytes of all, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _draw(recipe: str) -> NDArray[np.float32]:
    found = re.match(
        r"default_rng\((\d+)\)\.standard_normal\((\[.*?\])\)\.astype\(float32\) \* float32\((.*?)\)", recipe
    )
    assert found, recipe
    draw = np.random.default_rng(int(found[1])).standard_normal(json.loads(found[2])).astype(np.float32)
    return np.asarray(draw * np.float32(float(found[3])))


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
