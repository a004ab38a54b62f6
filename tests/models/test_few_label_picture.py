"""The curves of few labels: which line is whose."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from sits_models.tasks.few_labels.picture import curves_of
from sits_models.tasks.few_labels.tables import Cell


def cell(start: str, mode: str, share: float, *values: float) -> Cell:
    return Cell(start=start, mode=mode, share=share, unit="parcels", score="miou", values=values, differences=())  # type: ignore[arg-type]


def curves(axes: Axes) -> dict[str, tuple[str, list[float]]]:
    """Colour and heights of each line by its label."""
    lines = zip(*axes.get_legend_handles_labels(), strict=True)
    found = {name: getattr(bars, "lines", [bars])[0] for bars, name in lines}
    return {name: (to_hex(line.get_color()), list(line.get_ydata())) for name, line in found.items()}


def test_a_start_has_one_colour_in_all_panels_and_in_the_legend() -> None:
    """Runs end in any order, so that another start may come first in each panel."""
    cells = (
        *(
            cell("seco", "finetune", 0.01, 0.1),
            cell("random", "finetune", 0.01, 0.2),
            cell("random", "finetune", 1, 0.4),
        ),
        *(cell("random", "probe", 0.01, 0.3, 0.5), cell("seco", "probe", 0.01, 0.6)),
    )
    figure = curves_of(cells, title="Simulated data")
    tuned, probed = map(curves, figure.axes)
    assert tuned["random"][1] == pytest.approx([20, 40])
    assert tuned["seco"][1] == pytest.approx([10])
    assert probed["random"][1] == pytest.approx([40])
    assert tuned["supervised, all labels"][1] == pytest.approx([40, 40])
    assert {name: colour for name, (colour, _) in tuned.items()} == {
        name: colour for name, (colour, _) in probed.items()
    }
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    handles = [getattr(handle, "lines", [handle])[0] for handle in legend.legend_handles]
    assert {text: to_hex(handle.get_color()) for text, handle in zip(texts, handles, strict=True)} == {
        name: colour for name, (colour, _) in tuned.items()
    }
    assert len({colour for colour, _ in tuned.values()}) == 3
