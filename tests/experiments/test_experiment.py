"""The plan, the rows, the tables and the picture of the experiment; the runs themselves take an hour."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.experiments.__main__ import BEGIN, END, PAGE, markdown_of, plan_of
from tests.experiments.pages import replaced
from tests.experiments.picture import draw
from tests.experiments.plan import BACKBONES, REGIONS, Budget, Learner, Run, region_file, runs_of
from tests.experiments.results import pairs_of, tables_of
from tests.experiments.rows import Row, append_row, done_of, read_rows
from tests.synthetic import Synthetic

BUDGET = Budget()


def runs() -> list[Run]:
    return list(runs_of(budget=BUDGET))


def row_of(run: Run, miou: float) -> Row:
    return {
        "key": run.key, "region": run.region, "miou_overall": miou, "miou_boundary": miou - 0.1,
        "miou_interior": miou + 0.1, "pixels_overall": 10_000, "pixels_boundary": 2_500, "classes": 13,
        "cpu_seconds": 30.0, "threads": 1, "machine": "x86_64", "python": "3.12", "torch": "2", "sits-cubes": "0.1",
        "commit": "abc",
    }  # fmt: skip


def test_the_grid_is_three_backbones_regions_and_seeds_in_two_arms_at_two_resolutions() -> None:
    planned = runs()
    assert len(planned) == 3 * 3 * 3 * 2 * 2
    assert len({run.key for run in planned}) == len(planned)
    assert [run.seed for run in planned] == sorted(run.seed for run in planned)  # seed by seed


def test_both_arms_have_as_many_steps() -> None:
    for learner in BACKBONES:
        random, cscl = runs_of(budget=BUDGET, backbones=(learner,), regions=REGIONS[:1], seeds=(0,), labels=(1,))
        assert random.steps == cscl.steps == learner.steps
        assert random.pretraining_steps == 0
        assert 0 < cscl.pretraining_steps < cscl.finetuning_steps


def test_arms_differ_by_their_steps_alone_and_cscl_is_as_published() -> None:
    random, cscl = runs()[:2]
    of_arm = {"arm": "cscl", "pretraining_steps": 1, "finetuning_steps": 1, "pretraining_rate": 0.0}
    assert replace(random, **of_arm) == replace(cscl, **of_arm)
    first, second = cscl.pretraining(), cscl.finetuning()
    assert (first.data, first.backbone, first.augmentation) == (second.data, second.backbone, second.augmentation)
    assert first.contrast is not None
    published = (first.contrast.window, first.contrast.positive_weight, first.contrast.mask_self, first.contrast.same)
    assert published == (3, 0.125, False, "class")


def test_another_choice_is_another_run() -> None:
    run = runs()[0]
    others = (
        replace(run, seed=7),
        replace(run, learning_rate=1.0),
        replace(run, budget=replace(BUDGET, size=32)),
        replace(run, contrast=(("same", "parcel"),)),
        replace(run, region_sha256="another"),
    )
    assert len({run.key, *(other.key for other in others)}) == 6
    assert replace(run).key == run.key


@pytest.mark.parametrize("region", REGIONS)
def test_the_regions_are_simulated_and_say_so(region: str) -> None:
    values = yaml.safe_load(region_file(region).read_text("utf-8"))
    assert values["id"] == region
    assert values["imagery"]["source"] == "simulated"
    assert values["title"].startswith("Simulated")
    assert values["labels"]["finer"] == [2]


def test_finished_runs_are_known_again_and_a_torn_row_is_none(tmp_path: Path) -> None:
    path, planned = tmp_path / "rows.jsonl", runs()
    assert read_rows(path) == []
    append_row(path, row_of(planned[0], 0.5))
    append_row(path, row_of(planned[1], 0.6))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(done_of(read_rows(path), planned)) == planned[:1]
    append_row(path, row_of(planned[1], 0.6))
    assert path.read_bytes() == whole
    assert list(done_of(read_rows(path), planned)) == planned[:2]


def test_the_first_of_two_rows_of_a_run_counts(tmp_path: Path) -> None:
    run = runs()[0]
    assert done_of([row_of(run, 0.5), row_of(run, 0.9)], [run])[run]["miou_overall"] == 0.5


def test_a_line_that_is_no_row_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"key": "a"}) + "\n{}\n")
    with pytest.raises(ValueError, match=r"line 2 of .* is no row of a run"):
        read_rows(path)


def test_the_plan_counts_what_is_left() -> None:
    planned = runs()
    done = {run: row_of(run, 0.5) for run in planned[:8]}
    assert plan_of(planned, done, jobs=2).startswith("108 runs, 8 done; the other 100 take about 25 minutes, 2 at a")


def small_grid() -> dict[Run, Row]:
    """One backbone at 10 m in two regions with two seeds: differences of 1, 3, 5 and -1 points."""
    planned = list(runs_of(budget=BUDGET, backbones=BACKBONES[:1], regions=REGIONS[:2], seeds=(0, 1), labels=(1,)))
    scores = iter([0.50, 0.51, 0.50, 0.53, 0.50, 0.55, 0.50, 0.49])
    return {run: row_of(run, next(scores)) for run in planned}


def test_tables_pair_what_is_equal_but_for_the_arm() -> None:
    done = small_grid()
    pairs = pairs_of(done)
    assert [round(pair.difference("boundary"), 9) for pair in pairs] == [1, 3, 5, -1]
    differences, scores = tables_of(done)
    assert differences.rows[0] == ("UNet3Df", "all", "4", *["+2.0 ± 2.6 (3 of 4)"] * 3)
    assert differences.rows[1] == ("UNet3Df", "temperate", "2", *["+3.0 ± 2.8 (2 of 2)"] * 3)
    assert differences.rows[3][0] == "all backbones"
    assert scores.rows[2][:6] == ("UNet3Df", "mediterranean", "50.0 ± 0.0", "51.0 ± 2.8", "40.0 ± 0.0", "41.0 ± 2.8")
    assert scores.notes == (
        "Test pixels: temperate 10 000 px, 25 % at a boundary, 13 classes; mediterranean 10 000 px, 25 % at a "
        "boundary, 13 classes. The longest run took 30 s of one core.",
    )


def test_a_run_without_its_partner_is_in_no_table() -> None:
    done = small_grid()
    last = list(done)[-1]
    assert len(pairs_of({run: row for run, row in done.items() if run != last})) == 3


def test_the_picture_is_drawn_from_an_unfinished_grid_too(tmp_path: Path) -> None:
    draw(pairs_of(small_grid()), tmp_path / "images" / "claim.png")
    assert (tmp_path / "images" / "claim.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_a_place_for_the_tables() -> None:
    text = markdown_of(runs(), small_grid())
    assert text.startswith("8 of 108 runs. x86_64, Python 3.12, torch 2, sits-cubes 0.1 (abc), 1 thread a run.")
    page = replaced(PAGE.read_text("utf-8"), text, begin=BEGIN, end=END)
    assert f"{BEGIN}\n\n{text}\n{END}" in page
    assert replaced(page, "| another |", begin=BEGIN, end=END).count("UNet3Df | all") == 0


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="found them 0 times"):
        replaced("nothing", "| a table |", begin=BEGIN, end=END)


@pytest.mark.slow
def test_a_grid_is_carried_out_once_and_both_arms_see_the_same_chips(synthetic: Synthetic, tmp_path: Path) -> None:
    from tests.experiments.runner import run_all

    from sits_catalog.cube import Split

    cube = synthetic.folder.path
    learner = Learner(name="unet3df", title="UNet3Df", steps=4, batch=4, learning_rate=1e-3, pretraining_rate=1e-3)
    budget = Budget(size=16, dates=4, width=0.0625)
    planned = list(runs_of(budget=budget, regions=(cube.name,), backbones=(learner,), seeds=(0,), labels=(1,)))
    rows, said = tmp_path / "rows.jsonl", list[str]()
    for _ in range(2):
        run_all(planned, rows, cubes=cube.parent, split=Split.TEST, jobs=1, commit="abc", say=said.append)
    assert len(said) == len(read_rows(rows)) == 2
    random, cscl = (done_of(read_rows(rows), planned)[run] for run in planned)
    assert (random["pretraining_steps"], cscl["pretraining_steps"]) == (0, 1)
    assert random["pixels_overall"] == cscl["pixels_overall"] > 0
    assert 0 < random["pixels_boundary"] < random["pixels_overall"]
    for part in ("overall", "boundary", "interior"):
        assert 0 <= cscl[f"miou_{part}"] <= 1
    assert (random["threads"], random["commit"], random["split"]) == (1, "abc", "test")
