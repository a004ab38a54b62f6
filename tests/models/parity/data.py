"""Tensors that the published loaders hand to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case

from sits_models.data.published import PublishedChip, france_chip, mtlcc_chip, pastis24_chip
from sits_models.objectives.cscl import PairRule, Pairs, Window, pairs_in_windows


def check(case: Case) -> None:
    kind = case.name.split("_")[1]
    checks = {"france": _check_france, "mtlcc": _check_mtlcc, "pastis24": _check_pastis24}
    assert kind in checks, f"nothing here knows the data set of {case.name}"
    checks[kind](case)


def _check_france(case: Case) -> None:
    model, data = case.configuration["model_config"], case.configuration["data_config"]
    magnification = model.get("output_magnification", 1)
    assert model.get("label_magnification", magnification) == magnification
    chip = france_chip(_arrays(case), dates=data["max_seq_len"], size=model["img_res"], magnification=magnification)
    suffix = "" if magnification == 1 else f"_x{magnification}"
    assert chip.ids is not None
    ours = _tensors(chip) | {f"ids{suffix}": chip.ids[..., None]} | _targets(case, chip, model)
    _compare(case, chip, ours)


def _check_mtlcc(case: Case) -> None:
    model, data = case.configuration["model_config"], case.configuration["data_config"]
    arrays, dates, size = _arrays(case), data["max_seq_len"], model["img_res"]
    chip = mtlcc_chip(arrays, dates=dates, size=size)
    if len(arrays["day"]) > dates:
        days = arrays["day"]
        chip = mtlcc_chip(
            arrays,
            dates=dates,
            size=size,
            picked=_drawn(case, "inputs", days),
            picked_backward=_drawn(case, "inputs_backward", days[::-1])
            if "inputs_backward" in case.output_names
            else None,
        )
    assert chip.backward is not None
    backward = np.moveaxis(chip.backward, 1, -1)
    _compare(case, chip, _tensors(chip) | {"inputs_backward": backward} | _targets(case, chip, model))


def _check_pastis24(case: Case) -> None:
    configuration, arrays = case.configuration, _arrays(case)
    chip = pastis24_chip(arrays, dates=configuration["max_seq_len"], size=configuration["img_res"])
    # Of labels of rank 2 the reference keeps the first row alone: nothing to compare with.
    skipped = ("labels", "unk_masks") if arrays["labels"].ndim == 2 else ()
    _compare(case, chip, _tensors(chip), skipped=skipped)


def _arrays(case: Case) -> dict[str, NDArray[Any]]:
    return {entry["name"]: case.input(entry["name"]) for entry in case.facts["inputs"]}


def _tensors(chip: PublishedChip) -> dict[str, NDArray[Any]]:
    """Ours by the names and in the order of axes of the reference."""
    return {
        "inputs": np.moveaxis(chip.inputs, 1, -1),
        "labels": chip.labels[..., None],
        "unk_masks": chip.known[..., None],
    }


def _targets(case: Case, chip: PublishedChip, model: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Where asked for: whether each neighbour is of the pixel's class, (H', W', k, k)."""
    if "cscl_labels" not in case.output_names:
        return {}
    window = Window(size=model["cscl_win_size"], stride=model["cscl_win_stride"], dilation=model["cscl_win_dilation"])
    labels = torch.from_numpy(chip.labels)[None]
    pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
    same, _ = pairs_in_windows(pairs, window, rule=PairRule())
    return {"cscl_labels": same[0].to(torch.float32).numpy()}


def _drawn(case: Case, output: str, days: NDArray[Any]) -> list[int]:
    """Which dates of a series the reference drew for an output.

    `days` are those of the series drawn from, which is reversed for `inputs_backward`. The description gives the
    numbers; whichever way it counts them, the stored channel of days tells which of its lists is meant.
    """
    stored, _ = case.output(output)
    drawn = np.rint(stored[:, 0, 0, -2] * np.float32(365.0001)).astype(int)
    for numbers in _lists_of_numbers(case):
        for order in (numbers, [len(days) - 1 - number for number in numbers]):
            if len(order) == len(drawn) and max(order) < len(days) and np.array_equal(days[order], drawn):
                return order
    assert len(set(days.tolist())) == len(days), f"{case.name}: the dates drawn for {output} cannot be told"
    return [int(np.flatnonzero(days == day)[0]) for day in drawn]


def _lists_of_numbers(case: Case) -> list[list[int]]:
    """Every list of whole numbers >= 0 in the description or among its arrays."""
    stack: list[Any] = [value.tolist() for value in case.arrays.values() if value.ndim == 1]
    stack += [value for key, value in case.facts.items() if key not in ("inputs", "outputs", "configuration")]
    found = []
    while stack:
        value = stack.pop()
        if isinstance(value, list) and value and all(type(number) is int and number >= 0 for number in value):
            found.append(value)
        elif isinstance(value, dict | list):
            stack += value.values() if isinstance(value, dict) else value
    return found


def _compare(case: Case, chip: PublishedChip, ours: dict[str, NDArray[Any]], *, skipped: tuple[str, ...] = ()) -> None:
    assert "inputs" in case.output_names
    for name in case.output_names:
        assert name in ours, f"{case.name} has an output that nothing here knows: {name}"
        if name not in skipped:
            case.compare(name, ours[name])
    assert chip.dates == case.facts["seq_lengths"]
