"""Confusion matrices, scores and boundary maps."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case

from sits_models.metrics import Scores, boundary_map, confusion_matrix, scores_of

TOLERANCE = 1e-6


def check(case: Case) -> None:
    if case.name.startswith("boundary_map_"):
        _check_boundary_maps(case)
    else:
        _check_metrics(case)


def _check_boundary_maps(case: Case) -> None:
    configuration = case.configuration
    assert configuration["stride"] == 1
    assert configuration["pad_size"] == configuration["nb_size"] // 2
    radius = configuration["nb_size"] // 2
    for name in case.output_names:
        if name.startswith("nonsquare"):
            continue  # the reference scrambles these; ours are tested against a loop in test_boundary.py
        assert name.startswith("edge_"), f"{case.name} has an output that nothing here knows: {name}"
        labels = torch.from_numpy(case.input(name.replace("edge_", "labels_")).astype(np.int64))
        case.compare(name, boundary_map(labels, radius=radius))


def _check_metrics(case: Case) -> None:
    classes = int(case.configuration["n_classes"])
    logits, labels, mask = (torch.from_numpy(case.input(name)) for name in ("logits", "labels", "mask"))
    labels = labels.to(torch.int64)
    predicted = logits.argmax(1)
    np.testing.assert_array_equal(predicted.numpy(), case.input("predicted"))
    assert torch.equal(mask, labels != classes)
    edges = boundary_map(labels)

    def matrix(where: torch.Tensor | None) -> NDArray[np.int64]:
        return confusion_matrix(labels, predicted, classes=classes, ignore_index=classes, where=where).numpy()

    scores = scores_of(matrix(None))
    boundary, interior = scores_of(matrix(edges)), scores_of(matrix(~edges))
    ours: dict[str, NDArray[Any]] = {
        "class": _by_class(scores),
        "micro": np.array(_micro(scores)),
        "macro": np.array(_macro(scores)),
        "confusion": matrix(None),
        "edge": edges.numpy(),
        "boundary_micro": np.array(_micro(boundary)),
        "boundary_macro": np.array(_macro(boundary)),
        "interior_micro": np.array(_micro(interior)),
        "interior_macro": np.array(_macro(interior)),
    }
    for name in case.output_names:
        assert name in ours, f"{case.name} has an output that nothing here knows: {name}"
        stored, facts = case.output(name)
        assert list(ours[name].shape) == facts["full_shape"]
        atol = 0 if facts.get("exact") else TOLERANCE
        np.testing.assert_allclose(ours[name], stored, rtol=0, atol=atol, err_msg=f"{case.name}: {name}")
    _check_fields(case, scores)


def _check_fields(case: Case, scores: Scores) -> None:
    """The dicts of numbers that stand in the description itself."""
    fields = {name: value for name, value in case.facts.items() if name.startswith("get_")}
    assert fields
    for name, stored in fields.items():
        expected = _field(case, name, scores)
        assert stored.keys() == expected.keys(), f"{case.name}: {name}"
        for key, value in stored.items():
            assert abs(value - expected[key]) <= TOLERANCE, f"{case.name}: {name} {key}"


def _field(case: Case, name: str, scores: Scores) -> dict[str, float]:
    kinds = ("Accuracy", "Precision", "Recall", "F1", "IOU")
    if name in ("get_all_metrics_micro", "get_all_metrics_macro"):
        average = name.rsplit("_", 1)[-1]
        values = _micro(scores) if average == "micro" else _macro(scores)
        return {f"{average}_{kind}": value for kind, value in zip(kinds, values, strict=True)}
    if found := re.fullmatch(r"get_mean_metrics(?:_loss_(\d+)_(\d+))?", name):
        loss = {"Loss": float(f"{found[1]}.{found[2]}")} if found[1] else {}
        return dict(zip(kinds, _micro(scores), strict=True)) | loss
    assert name == "get_binary_metrics", f"{case.name} has a field that nothing here knows: {name}"
    logits, labels = torch.from_numpy(case.input("binary_logits")), torch.from_numpy(case.input("binary_labels"))
    binary = scores_of(confusion_matrix(labels.to(torch.int64), (logits > 0).to(torch.int64), classes=2).numpy())
    return {f"micro_{kind}": value for kind, value in zip(kinds, _micro(binary), strict=True)}


def _micro(scores: Scores) -> list[float]:
    """Rows of the reference: accuracy, precision, recall, F1 and IoU."""
    assert scores.overall_accuracy is not None
    assert scores.micro_iou is not None
    return [scores.overall_accuracy] * 4 + [scores.micro_iou]


def _macro(scores: Scores) -> list[float]:
    values = [
        scores.macro_accuracy,
        scores.macro_precision,
        scores.macro_accuracy,
        scores.macro_f1_published,
        scores.miou,
    ]
    return [value for value in values if value is not None]


def _by_class(scores: Scores) -> NDArray[np.float64]:
    """(5, K): the accuracy of a class is its recall; the reference writes 0 for undefined."""
    rows = (scores.recall, scores.precision, scores.recall, scores.f1, scores.iou)
    return np.array([[value or 0.0 for value in row] for row in rows])
