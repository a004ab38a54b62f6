"""The plan and the tables of the experiment; the runs themselves take half an hour."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.experiments.__main__ import BEGIN, END, PAGE, plan_of, with_tables
from tests.experiments.plan import Budget, Run, arms_of, runs_of
from tests.experiments.results import tables_of
from tests.synthetic import Synthetic

BUDGET = Budget(pretrain_epochs=4, finetune_epochs=6, steps_an_epoch=40)


def runs(tmp_path: Path) -> list[Run]:
    return list(runs_of(tmp_path / "out", cubes=Path("out"), budget=BUDGET, regions=("demo",), seeds=(0, 1, 2)))


def finish(run: Run, miou: float) -> None:
    scores = {"scores": {"miou": miou, "overall_accuracy": 0.9, "count": 10_000}}
    run.metrics.parent.mkdir(parents=True)
    found = {"overall": scores, "boundary": scores, "interior": scores, "parcels": scores, "classes": [{}] * 13}
    run.metrics.write_text(json.dumps(found))


def test_one_arm_has_as_many_finetuning_steps_as_cscl_and_one_as_many_in_all() -> None:
    random, cscl, longer = arms_of(BUDGET)
    assert random.finetune_epochs == cscl.finetune_epochs
    assert longer.finetune_epochs == cscl.pretrain_epochs + cscl.finetune_epochs
    assert random.pretrain_epochs == longer.pretrain_epochs == 0


def test_finetuning_differs_between_arms_by_its_epochs_alone(tmp_path: Path) -> None:
    random, cscl, longer = (run.finetuning() for run in runs(tmp_path)[:3])
    assert (random.data, random.backbone, random.segmentation) == (cscl.data, cscl.backbone, cscl.segmentation)
    assert random.training == cscl.training
    assert longer.training.epochs == 10
    assert cscl.backbone.name == "unet3df"
    assert cscl.backbone.width == 0.25


def test_both_stages_of_cscl_see_the_same_kind_of_chips(tmp_path: Path) -> None:
    run = runs(tmp_path)[1]
    pretraining = run.pretraining()
    assert pretraining is not None
    assert pretraining.data == run.finetuning().data
    assert pretraining.backbone == run.finetuning().backbone
    assert pretraining.data.chips == 16 * 40


def test_another_budget_has_folders_of_its_own(tmp_path: Path) -> None:
    other = next(runs_of(tmp_path / "out", cubes=Path("out"), budget=Budget(size=32)))
    assert other.folder.parts[-4] != runs(tmp_path)[0].folder.parts[-4]


def test_the_plan_counts_what_is_left(tmp_path: Path) -> None:
    planned = runs(tmp_path)
    finish(planned[0], 0.5)
    assert plan_of(planned).startswith("9 runs of 240 to 400 steps, 1 done; the others take about ")


def test_tables_give_spread_and_differences_of_equal_seeds(tmp_path: Path) -> None:
    planned = runs(tmp_path)
    scores = {"random": (0.50, 0.52, 0.54), "cscl": (0.53, 0.54, 0.55), "random-longer": (0.56, 0.56, 0.56)}
    for run in planned:
        finish(run, scores[run.arm.name][run.seed])
    table, differences = tables_of(planned)
    assert table.rows[0][:4] == ("random", "0", "240", "52.0 ± 2.0")
    assert table.rows[1][:4] == ("CSCL", "160", "240", "54.0 ± 1.0")
    assert table.rows[2][:4] == ("random, longer", "0", "400", "56.0 ± 0.0")
    assert differences.rows[0][1] == "+2.0 ± 1.0 (+3.0, +2.0, +1.0)"
    assert differences.rows[1][1] == "-2.0 ± 1.0 (-3.0, -2.0, -1.0)"
    assert table.notes == ("3 seeds; 10 000 labelled pixels, 100 % of them at a boundary, 10 000 parcels, 13 classes.",)


def test_seeds_that_are_not_done_are_left_out(tmp_path: Path) -> None:
    planned = runs(tmp_path)
    finish(planned[0], 0.5)
    table, differences = tables_of(planned)
    assert table.rows[0][3] == "50.0"
    assert table.rows[1][3] == "-"
    assert differences.rows[0][1] == "-"


def test_the_page_has_a_place_for_the_tables() -> None:
    page = with_tables(PAGE.read_text(), "| a table |")
    assert f"{BEGIN}\n\n| a table |\n{END}" in page
    assert with_tables(page, "| another |").count("table |") == 0


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="found them 0 times"):
        with_tables("nothing", "| a table |")


@pytest.mark.slow
def test_each_arm_is_carried_out_once(synthetic: Synthetic, tmp_path: Path) -> None:
    from tests.experiments.work import carry_out

    cube = synthetic.folder.path
    budget = Budget(size=16, dates=4, batch=16, steps_an_epoch=2, pretrain_epochs=1, finetune_epochs=1, width=0.0625)
    planned = list(runs_of(tmp_path, cubes=cube.parent, budget=budget, regions=(cube.name,), seeds=(0,)))
    for run in planned:
        carry_out(run)
    assert all(run.done for run in planned)
    assert [(run.folder / "pretrain").exists() for run in planned] == [False, True, False]
    weights = planned[1].folder / "finetune" / "weights" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    carry_out(planned[1])
    assert weights.stat().st_mtime_ns == before
    table, _ = tables_of(planned)
    assert "±" not in table.rows[1][3]
    assert float(table.rows[1][3]) >= 0
