"""The parts of docs/results.md that the few-label tables stand in, one a comparison."""

from __future__ import annotations

from pathlib import Path

from tests.experiments.few_labels.plan import Comparison
from tests.experiments.pages import replaced

__all__ = ["IMAGES", "PAGE", "section_of", "with_section"]

PAGE = Path(__file__).parents[3] / "docs" / "results.md"
IMAGES = PAGE.parent / "images"


def section_of(one: Comparison, out: Path) -> str:
    """The tables as `sits-model evaluate --few-label` wrote them, two headings deeper, with their picture."""
    _, *lines = (out / one.name / "table.md").read_text("utf-8").splitlines()
    table = "\n".join(f"##{line}" if line.startswith("#") else line for line in lines).strip()
    picture = f"![Simulated data: mIoU over the share of the labels, {one.title}](images/few-labels-{one.name}.png)"
    # Of a single share there is no curve.
    return "\n\n".join([f"### {one.title}", *([picture] if len(one.shares) > 1 else []), table]) + "\n"


def with_section(page: str, one: Comparison, text: str) -> str:
    """The page with this comparison's part replaced; those of others stay as they are."""
    begin, end = (f"<!-- {what}: make few-labels, {one.name} -->" for what in ("begin", "end"))
    return replaced(page, text, begin=begin, end=end)
