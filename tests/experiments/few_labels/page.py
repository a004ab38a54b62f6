"""The section of docs/results.md that the few-label table stands in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.experiments.few_labels.plan import Comparison

__all__ = ["BEGIN", "END", "IMAGES", "PAGE", "section_of"]

PAGE = Path(__file__).parents[3] / "docs" / "results.md"
IMAGES = PAGE.parent / "images"
BEGIN, END = "<!-- begin: make few-labels -->", "<!-- end: make few-labels -->"


def section_of(done: Sequence[Comparison], out: Path) -> str:
    """The tables as `sits-model evaluate --few-label` wrote them, two headings deeper, each with its picture."""
    parts = []
    for one in done:
        _, *lines = (out / one.name / "table.md").read_text("utf-8").splitlines()
        table = "\n".join(f"##{line}" if line.startswith("#") else line for line in lines).strip()
        picture = f"![Simulated data: mIoU over the share of the labels, {one.title}](images/few-labels-{one.name}.png)"
        # Of a single share there is no curve.
        parts += [f"### {one.title}", *([picture] if len(one.shares) > 1 else []), table]
    return "\n\n".join(parts) + "\n"
