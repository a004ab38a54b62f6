"""Curves, the picture of a confusion matrix, and the page of an evaluation."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sits_models.metrics import scores_of
from sits_models.report import (
    ClassName,
    EvaluationFacts,
    Group,
    ParcelGroup,
    UnknownClass,
    confusion_png,
    evaluation_json,
    render_evaluation,
    write_confusion,
    write_curves,
)
from sits_models.report.confusion import shares_of
from sits_models.report.curves import read_curves
from sits_models.report.page import class_rows

NAMES = ("background", "winter common soft wheat", "vine <&> grapes", "maize")
MATRIX = np.array([[50, 6, 0, 4], [10, 80, 10, 0], [0, 0, 0, 0], [3, 0, 2, 15]], np.int64)


def group_of(matrix: NDArray[np.int64], name: str = "all", **intervals: tuple[float, float]) -> Group:
    return Group(name=name, matrix=matrix, scores=scores_of(matrix), intervals=intervals)


def facts_of(matrix: NDArray[np.int64] = MATRIX, names: tuple[str, ...] = NAMES) -> EvaluationFacts:
    half = matrix // 2
    return EvaluationFacts(
        title="Segmentation <of> the demo",
        model={"Weights": "runs/a <b>", "Bands": "B02 B03"},
        regions=("demo", "demo-south"),
        split="test",
        simulated=True,
        classes=tuple(ClassName(f"c{k}", name, "#4f9d3a") for k, name in enumerate(names)),
        overall=group_of(matrix, miou=(0.4, 0.6), overall_accuracy=(0.7, 0.9)),
        boundary=group_of(half, "boundary"),
        interior=group_of(matrix - half, "interior"),
        class_intervals=tuple((0.2, 0.5) if k else None for k in range(len(names))),
        distances=(group_of(half, "<= 10 m", miou=(0.11, 0.22)),),
        parcels=group_of(half // 4, "parcels", miou=(0.31, 0.42), overall_accuracy=(0.51, 0.62)),
        sizes=(
            ParcelGroup(
                name="<= 0.5 ha",
                parcels=group_of(half // 4, "<= 0.5 ha", overall_accuracy=(0.13, 0.24)),
                pixels=group_of(half, "<= 0.5 ha", miou=(0.33, 0.44)),
            ),
        ),
        unknown=(UnknownClass("x9", "hops <i>", 15), UnknownClass("(background)", "background", 5)),
        blocks=12,
        block_m=1280,
        resamples=1000,
        level=0.95,
        halo=28,
        window=120,
        credits=("Imagery: simulated.",),
        software="sits-cubes 0",
    )


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


class Balance(HTMLParser):
    """Finds tags that are never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_shares_are_of_the_row_and_unknown_for_an_absent_class() -> None:
    shares = shares_of(MATRIX)
    assert shares[1].tolist() == [0.1, 0.8, 0.1, 0.0]
    assert np.isnan(shares[2]).all()


def test_a_confusion_matrix_is_drawn_alike_twice_and_grows_with_its_classes(tmp_path: Path) -> None:
    write_confusion(MATRIX, NAMES, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == confusion_png(MATRIX, NAMES)
    larger = confusion_png(np.eye(20, dtype=np.int64), [f"class {k}" for k in range(20)])
    assert size_of(larger)[0] > size_of(confusion_png(MATRIX, NAMES))[0]


def test_a_matrix_without_a_pixel_is_drawn() -> None:
    assert size_of(confusion_png(np.zeros((4, 4), np.int64), NAMES))[0] > 100


def test_names_that_do_not_fit_the_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 names is square with as many rows; got \(3, 3\)"):
        confusion_png(np.zeros((3, 3), np.int64), NAMES)


def test_curves_count_epochs_from_one_and_skip_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train_loss,train_loss_step,val_miou,note\n0,9,2.0,1.9,,a\n0,9,,,0.1,\n1,19,1.5,1.2,,\n1,19,,,0.3,\n"
    )
    curves = {curve.name: curve for curve in read_curves(path)}
    assert set(curves) == {"train_loss", "val_miou"}
    assert curves["train_loss"].epochs == (1, 2)
    assert curves["train_loss"].values == (2.0, 1.5)
    assert curves["val_miou"].values == (0.1, 0.3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch,train_loss\n",
        "epoch,train_loss\n0,1.0\n",
        "epoch,train_loss,val_miou\n0,1.0,0.2\n1,nan,0.3\n",
    ],
    ids=["empty", "no epoch", "one epoch", "not a number"],
)
def test_curves_are_drawn_however_little_there_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    write_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert size_of((tmp_path / "curves.png").read_bytes())[0] > 300


def test_no_figure_stays_open(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    (tmp_path / "metrics.csv").write_text("epoch,train_loss\n0,1.0\n")
    write_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    confusion_png(MATRIX, NAMES)
    assert plt.get_fignums() == []


def test_the_page_is_one_whole_document_that_fetches_nothing() -> None:
    page = render_evaluation(facts_of())
    parser = Balance()
    parser.feed(page.removeprefix("\n"))
    assert parser.open == []
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert page == render_evaluation(facts_of())


def test_names_from_files_are_escaped() -> None:
    page = render_evaluation(facts_of())
    assert "vine &lt;&amp;&gt; grapes" in page
    assert "<of>" not in page
    assert "<b>'" not in page
    assert "runs/a &lt;b&gt;" in page


def test_the_page_says_that_data_are_simulated_only_where_they_are() -> None:
    assert "made-up fields" in render_evaluation(facts_of())
    assert "made-up fields" not in render_evaluation(replace(facts_of(), simulated=False))


def test_the_page_of_an_evaluation_without_a_pixel_says_so() -> None:
    none = group_of(np.zeros((4, 4), np.int64))
    facts = replace(
        facts_of(), overall=none, boundary=none, interior=none, distances=(), sizes=(), parcels=None,
        class_intervals=(None,) * 4, blocks=0,
    )  # fmt: skip
    page = render_evaluation(facts)
    assert "there is nothing to measure" in page
    assert "nan" not in page.lower().replace("nanum", "")


def test_distances_parcels_and_sizes_have_their_intervals_on_the_page() -> None:
    page = render_evaluation(facts_of())
    for interval in ("11.0–22.0", "31.0–42.0", "51.0–62.0", "13.0–24.0", "33.0–44.0"):
        assert interval in page
    assert "≤ 0.5 ha" in page


def test_pixels_that_count_nowhere_are_told_with_their_share() -> None:
    page, document = render_evaluation(facts_of()), evaluation_json(facts_of())
    assert "20 labelled pixels of this split (10.0 %)" in page  # beside 180 that are counted
    assert "hops &lt;i&gt; (15 pixels), background (5 pixels)" in page
    assert document["not_counted"] == {
        "pixels": 20,
        "share": 0.1,
        "classes": [
            {"code": "x9", "name": "hops <i>", "pixels": 15},
            {"code": "(background)", "name": "background", "pixels": 5},
        ],
    }
    assert "does not know" not in render_evaluation(replace(facts_of(), unknown=()))


def test_the_page_says_what_the_windows_see() -> None:
    assert "28 px around each chip of 64 px" in render_evaluation(facts_of())
    assert "applied to windows of 128 px" in render_evaluation(replace(facts_of(), halo=0, window=128))


def test_classes_stand_by_their_pixels_and_say_what_they_are_taken_for() -> None:
    rows = class_rows(facts_of())
    assert [row.name for row in rows] == ["winter common soft wheat", "background", "maize", "vine <&> grapes"]
    assert rows[1].confused == "winter common soft wheat"
    assert rows[1].confused_share == 0.1
    assert rows[3].support == 0  # predicted, though no label has it
    assert rows[0].iou.value == 80 / (100 + 86 - 80)


def test_a_class_on_neither_side_has_no_row() -> None:
    matrix = np.zeros((4, 4), np.int64)
    matrix[0, 0] = 3
    assert [row.name for row in class_rows(facts_of(matrix))] == ["background"]


def test_figures_in_the_document_carry_what_they_come_from() -> None:
    document = evaluation_json(facts_of())
    overall = document["overall"]
    assert isinstance(overall, dict)
    assert overall["confusion"] == MATRIX.tolist()
    assert overall["intervals"]["miou"] == [0.4, 0.6]
    assert overall["scores"]["support"] == [60, 100, 0, 20]
    assert overall["iou_intervals"][0] is None
    assert document["simulated"] is True


def test_pictures_of_simulated_data_say_so(tmp_path: Path) -> None:
    assert confusion_png(MATRIX, NAMES, simulated=True) != confusion_png(MATRIX, NAMES)
    (tmp_path / "metrics.csv").write_text("epoch,train_loss\n0,1.0\n1,0.5\n")
    for name, simulated in (("real", False), ("made up", True)):
        write_curves(tmp_path / "metrics.csv", tmp_path / f"{name}.png", simulated=simulated)
    assert (tmp_path / "real.png").read_bytes() != (tmp_path / "made up.png").read_bytes()
