"""What a training and an evaluation look like: curves, a confusion matrix, one page for people."""

from sits_models.report.confusion import Unit, confusion_png, write_confusion
from sits_models.report.curves import write_curves
from sits_models.report.document import evaluation_json
from sits_models.report.facts import ClassName, EvaluationFacts, Group, ParcelGroup, UnknownClass
from sits_models.report.page import render_evaluation

__all__ = [
    "ClassName",
    "EvaluationFacts",
    "Group",
    "ParcelGroup",
    "Unit",
    "UnknownClass",
    "confusion_png",
    "evaluation_json",
    "render_evaluation",
    "write_confusion",
    "write_curves",
]
