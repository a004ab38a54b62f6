"""`sits-model evaluate`: how good a model is, or what a start is worth where labels are few."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sits_catalog.console import DONE, Narrator
from sits_models.cli.options import SIMULATED, AsJson, Changes, DeviceName, WithTraceback, folder_beside, run

if TYPE_CHECKING:
    from sits_models.tasks.few_label import FewLabelGrid, FewLabelOutcome
    from sits_models.tasks.few_labels.plan import Mode

__all__ = ["evaluate"]


class Part(StrEnum):
    """A split to evaluate on."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class By(StrEnum):
    """What of the labels is kept."""

    PARCEL = "parcel"
    BLOCK = "block"


_FEW = "With --few-label: "


def evaluate(
    weights: Annotated[
        str | None,
        typer.Option(help="A finished run, a folder of weights, or a name of the zoo (see `sits-model zoo list`)."),
    ] = None,
    cube: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder or URL of a labelled dataset to evaluate on, or, with --few-label, to learn from; repeatable; "
            "default: the recipe's."
        ),
    ] = None,
    split: Annotated[Part, typer.Option(help="Where to measure.")] = Part.TEST,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; default: evaluation-SPLIT in WEIGHTS or runs/NAME; runs/few-label-RECIPE with "
            "--few-label."
        ),
    ] = None,
    device: DeviceName = "auto",
    few_label: Annotated[
        bool, typer.Option("--few-label", help="Finetune and measure with shares of the labels, from several starts.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help=f"{_FEW}the recipe to finetune, a shipped one or FILE.yaml.")
    ] = None,
    set_: Changes = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_FEW}NAME=WEIGHTS to start from; repeatable; random weights are always one. A {{share}} "
            "and a {seed} in WEIGHTS stand for those of a run: pretraining that reads labels is to read no others than "
            "the run, such as cscl=runs/cscl-{share}-{seed}.",
            metavar="TEXT",
        ),
    ] = None,
    test_cube: Annotated[
        list[str] | None, typer.Option(help=f"{_FEW}a dataset to evaluate on; repeatable; default: those of --cube.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(help=f"{_FEW}shares of the labels of the train split; default: 0.01,0.05,0.1,1.")
    ] = None,
    by: Annotated[By | None, typer.Option(help=f"{_FEW}shares of the parcels of each class, or of the blocks.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help=f"{_FEW}seeds, of weights, draws and which labels are kept; default: 3.")
    ] = None,
    modes: Annotated[
        str | None, typer.Option(help=f"{_FEW}finetune, probe (the encoder stays as it is) or both; default: both.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help=f"{_FEW}runs at a time, one thread each; default: 1.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help=f"{_FEW}say what there is to do, and stop.")] = False,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Measure a model on a split, each pixel once: mIoU, boundary and interior, parcels, intervals, a report page.

    A model that gives one class to a parcel is measured on the labelled parcels, each once. Of a dataset of many small
    places each pixel, or each place where these are labelled, counts once, and there is no page; where a place may have
    several classes, the average precision is measured.

    With --few-label: finetune a recipe with 1, 5, 10 and 100 % of the labels, from random weights and from each
    --start, and write the scores of all runs as a table and a picture. A command that was stopped goes on where it
    stopped.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model evaluate --weights runs/segment-demo

        sits-model evaluate --weights runs/segment-demo --cube out/elsewhere --split validation --out elsewhere

        sits-model evaluate --few-label --recipe segment-laptop --set data.sampling=parcel --set data.background=false
        --cube out/my-region --start cscl=runs/cscl-{share}-{seed} --jobs 2
    """
    only_few = {
        "--recipe": recipe,
        "--set": set_,
        "--start": start,
        "--test-cube": test_cube,
        "--shares": shares,
        "--by": by,
        "--seeds": seeds,
        "--modes": modes,
        "--jobs": jobs,
        "--plan": plan or None,
    }

    def work() -> int:
        if not few_label:
            if given := [name for name, value in only_few.items() if value is not None]:
                raise ValueError(f"{given[0]} goes with --few-label; add that, or leave {given[0]} out")
            if weights is None:
                raise ValueError("give --weights with the model to measure, or --few-label to compare starts")
            return _measure(weights, cube, split, out, device, as_json=json_)
        if weights is not None:
            raise ValueError("--few-label finetunes from each --start NAME=WEIGHTS; give --weights as one of them")
        if recipe is None:
            raise ValueError("--few-label finetunes a recipe; give --recipe (see `sits-model recipes`)")
        if device != "auto":
            raise ValueError(f"--few-label trains where sits-model finetune does; leave --device {device} out")
        grid = _grid(
            recipe,
            set_,
            cubes=cube,
            tests=test_cube,
            starts=start,
            shares=shares,
            by=by,
            seeds=seeds,
            modes=modes,
            split=split,
        )
        folder = str(out or Path("runs") / f"few-label-{grid.recipe.name}")
        return _compare(grid, folder, jobs=1 if jobs is None else jobs, only_plan=plan, as_json=json_)

    run(work, debug=debug)


def _measure(weights: str, cube: list[str] | None, split: Part, out: Path | None, device: str, *, as_json: bool) -> int:
    from sits_models.tasks.evaluate import evaluate as measure

    folder = str(out or folder_beside(weights, f"evaluation-{split.value}"))
    with Narrator() as narrator:
        outcome = measure(weights, cubes=cube, out=folder, split=split.value, narrator=narrator, device=device)
    parts = {
        "overall": outcome.overall,
        "boundary": outcome.boundary,
        "interior": outcome.interior,
        "parcels": outcome.parcels,
    }
    ranking = outcome.ranking
    if as_json:
        scores = {name: None if part is None else part.to_json() for name, part in parts.items()}
        facts = {"folder": str(outcome.folder), "split": split.value, "simulated": outcome.simulated, **scores}
        print(json.dumps({**facts, "average_precision": None if ranking is None else ranking.to_json()}, indent=2))
        return DONE
    for name, part in parts.items():
        if part is not None:
            accuracy, kappa = _share(part.overall_accuracy), _share(part.kappa)
            print(f"{name:9} mIoU {_share(part.miou)}, overall accuracy {accuracy}, kappa {kappa}")
    if ranking is not None:
        print(f"{'overall':9} average precision: micro {_share(ranking.micro)}, macro {_share(ranking.macro)}")
    if outcome.simulated:
        print(SIMULATED)
    print(f"{'report' if outcome.report.suffix == '.html' else 'metrics':9} {outcome.report}")
    return DONE


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


# Few labels


def _grid(
    recipe: str,
    changes: list[str] | None,
    *,
    cubes: list[str] | None,
    tests: list[str] | None,
    starts: list[str] | None,
    shares: str | None,
    by: By | None,
    seeds: int | None,
    modes: str | None,
    split: Part,
) -> FewLabelGrid:
    from sits_models.recipe import load_recipe
    from sits_models.tasks.few_label import FewLabelGrid

    return FewLabelGrid(
        recipe=load_recipe(recipe, changes=changes or ()),
        cubes=tuple(cubes or ()),
        tests=tuple(tests or ()),
        starts=_starts(starts or []),
        shares=_numbers(shares or "0.01,0.05,0.1,1"),
        by=(by or By.PARCEL).value,
        seeds=3 if seeds is None else seeds,
        modes=_modes(modes or "finetune,probe"),
        split=split.value,
    )


def _starts(given: list[str]) -> dict[str, str]:
    starts: dict[str, str] = {}
    for text in given:
        name, equals, weights = text.partition("=")
        if not (name and equals and weights):
            raise ValueError(f"--start is NAME=WEIGHTS, such as cscl=runs/cscl-{{share}}-{{seed}}; got {text!r}")
        if name in starts:
            raise ValueError(f"two starts are called {name}; give one of them another name")
        starts[name] = weights
    return starts


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--shares are numbers above 0 and up to 1, such as 0.01,0.1,1; got {text!r}") from None


def _modes(text: str) -> tuple[Mode, ...]:
    from sits_models.tasks.few_labels.plan import MODES

    modes = tuple(text.split(","))
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"--modes are finetune, probe or both with a comma; got {unknown[0]!r}")
    return cast("tuple[Mode, ...]", modes)


def _compare(grid: FewLabelGrid, folder: str, *, jobs: int, only_plan: bool, as_json: bool) -> int:
    from sits_models.tasks.few_label import evaluate_few_labels, plan_few_labels

    plan = plan_few_labels(grid, out=folder, jobs=jobs)
    if only_plan:
        counts = {"runs": len(plan.runs), "done": len(plan.done), "minutes": round(plan.seconds / 60, 1)}
        facts = {**counts, "notes": list(plan.notes)}
        print(json.dumps(facts, indent=2) if as_json else "\n".join([str(plan), *plan.notes]))
        return DONE
    for note in plan.notes:
        print(note, file=sys.stderr)
    with Narrator() as narrator:
        outcome = evaluate_few_labels(plan, out=folder, narrator=narrator)
    _print_outcome(outcome, as_json=as_json)
    return DONE


def _print_outcome(outcome: FewLabelOutcome, *, as_json: bool) -> None:
    if as_json:
        cells = [
            {
                "start": cell.start,
                "mode": cell.mode,
                "share": cell.share,
                "unit": cell.unit,
                "score": cell.score,
                "values": list(cell.values),
                "differences": list(cell.differences),
            }
            for cell in outcome.cells
        ]
        facts = {"folder": str(outcome.folder), "runs": len(outcome.plan.runs), "simulated": outcome.simulated}
        print(json.dumps({**facts, "scores": cells}, indent=2))
        return
    print(outcome.table.read_text("utf-8"), end="")
    if outcome.simulated:
        print(SIMULATED)
    print(f"table     {outcome.table}")
    print(f"picture   {outcome.picture}")
