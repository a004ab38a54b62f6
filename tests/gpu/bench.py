"""`python -m tests.gpu.bench`: backbones at the sizes of their publications on one device, in Markdown.

Chips a second and memory of a training step in float32 and bfloat16, compiled and with checkpointing, against plain
transcriptions of the descriptions; how far bfloat16 agrees with float32; and how much of a step is spent waiting for
chips from a cube. `--device cpu --small` runs all of it in little time and says nothing about speed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from tests.benchmarks.backbones import CONTESTS, Contest, Pair, build_pair, compare, smallest, training_step
from tests.benchmarks.table import Table
from torch import Tensor, nn

from sits_models.data.loader import TrainingData
from sits_models.objectives import build_objective
from sits_models.recipe import BackboneRecipe, DataRecipe, DateRule, Recipe, SegmentationRecipe

__all__ = ["agreement_table", "loader_table", "main", "paper_size", "speed_table"]

PUBLISHED: dict[str, tuple[int, int]] = {
    "UNet3D": (48, 32),
    "UNet3Df": (48, 32),
    "UNet2D-CLSTM, ConvLSTM evaluated once": (48, 32),
    "U-TAE": (128, 4),
    "BiConvGRU": (24, 32),
    "BiConvLSTM": (24, 32),
    "TSViT, PASTIS": (24, 16),
    "TSViT, France": (48, 14),
    "TSViT, a class a chip, PASTIS": (24, 16),
    "ResNet-18": (224, 64),
    "ResNet-50": (224, 64),
    "DeepLabV3+ on ResNet-18": (256, 16),
    "DeepLabV3+ on ResNet-50": (256, 16),
}
"""Side of the chips and chips of a batch, as trained by the authors; ResNets with fewer than SeCo's 256."""
DEMO = Path("out/demo")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a training step."""

    seconds: float
    peak_mb: float | None
    """Highest memory of the device during a step; None on a CPU."""


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for and print it."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    names = options.only or tuple(PUBLISHED)
    contests = [paper_size(contest) for contest in CONTESTS if contest.label in names and contest.label in PUBLISHED]
    if options.small:
        contests = [smallest(contest) for contest in contests]
    with _exact_float32():
        tables = [
            speed_table(contests, device, rounds=options.rounds, compiled=not options.eager),
            agreement_table(contests, device, steps=2 if options.small else 50),
            loader_table(options.cube, device, small=options.small),
        ]
    print("\n\n".join([f"{_named(device)}, torch {torch.__version__}", *(table.as_markdown() for table in tables)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.bench", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<number> or cpu (cuda)")
    parser.add_argument("--small", action="store_true", help="smallest chips and batches: to see that it runs")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out, which takes minutes")
    parser.add_argument("--only", action="append", choices=tuple(PUBLISHED), help="one backbone; may be given again")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="steps that count, of each contestant (20)")
    parser.add_argument(
        "--cube",
        type=Path,
        default=DEMO if DEMO.exists() else None,
        metavar="DIR",
        help=f"dataset to read chips from ({DEMO} where it was built, else a small one made up)",
    )
    return parser


def paper_size(contest: Contest) -> Contest:
    """The contest with the side and the batch of the publication."""
    size, batch = PUBLISHED[contest.label]
    return replace(contest, size=size, batch=batch)


# Speed and memory


def speed_table(contests: list[Contest], device: torch.device, *, rounds: int, compiled: bool) -> Table:
    """Chips a second of ours, and ours against the plain one in the same precision."""
    rows = []
    for contest in contests:
        _say(contest.label)
        costs = {name: cost(contest, device, rounds=rounds) for name, cost in _variants(compiled).items()}
        chips = {name: contest.batch / cost.seconds for name, cost in costs.items()}
        rows.append(
            (
                contest.label,
                contest.shape(),
                *(chips.get(name) for name in ("ours", "ours, bf16", "ours, compiled", "ours, checkpointing")),
                chips["ours"] / chips["plain"],
                chips["ours, bf16"] / chips["plain, bf16"],
                *(costs[name].peak_mb for name in ("plain", "ours", "ours, bf16", "ours, checkpointing")),
            )
        )
    columns = ("backbone", "batch (B, T, C, H x W)", "chips/s", "bf16", "bf16, compiled", "checkpointing")
    columns += ("x plain", "bf16, x plain", "plain, MB", "MB", "bf16, MB", "checkpointing, MB")
    notes = (
        f"Forward, cross entropy, backward and Adam; median of {rounds} steps after three that do not count; float32 "
        "without TF32, in ours and in the plain transcription, which take the same weights and batch.",
        "Above 1, ours is faster. MB: highest allocated memory of a step.",
    )
    return Table(title="Training steps", columns=columns, rows=tuple(rows), notes=notes)


Measure = Callable[..., Cost]


def _variants(compiled: bool) -> dict[str, Measure]:
    """How to measure each contestant, by its name."""

    def measure(which: str, *, bf16: bool = False, compiling: bool = False, checkpointing: bool = False) -> Measure:
        def cost(contest: Contest, device: torch.device, *, rounds: int) -> Cost:
            pair = build_pair(contest)
            pair.ours.encoder.backbone.checkpointing = checkpointing
            if compiling:
                pair.ours.encoder.backbone.compile()
            pair = pair.to(device)
            model, loss = (pair.ours, pair.our_loss) if which == "ours" else (pair.plain, pair.plain_loss)
            found = cost_of(training_step(model, _cast(loss, device) if bf16 else loss), device, rounds=rounds)
            del pair, model, loss
            gc.collect()
            return found

        return cost

    variants = {
        "ours": measure("ours"),
        "plain": measure("plain"),
        "ours, bf16": measure("ours", bf16=True),
        "plain, bf16": measure("plain", bf16=True),
        "ours, checkpointing": measure("ours", checkpointing=True),
    }
    return variants | ({"ours, compiled": measure("ours", bf16=True, compiling=True)} if compiled else {})


def _cast(loss: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    def in_half() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss()

    return in_half


def cost_of(step: Callable[[], None], device: torch.device, *, rounds: int) -> Cost:
    """Median seconds of a step, and the highest memory of one."""
    for _ in range(3 if rounds > 1 else 1):  # algorithms are chosen, memory is taken
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return Cost(seconds=median(taken), peak_mb=peak)


# Half precision


def agreement_table(contests: list[Contest], device: torch.device, *, steps: int) -> Table:
    """How near the logits of bfloat16 are to those of float32, of a model that has learnt the batch for some steps."""
    rows = []
    for contest in contests:
        pair = build_pair(contest).to(device)
        if device.type == "cpu":
            compare(pair)
        step = training_step(pair.ours, pair.our_loss)
        for _ in range(steps):
            step()
        _say(f"{contest.label}: bfloat16")
        rows.append((contest.label, *bf16_agreement(pair.ours.eval(), pair, device)))
        del pair, step
        gc.collect()
    note = f"Of a batch that a model from random weights was trained on for {steps} steps of float32; evaluation mode."
    columns = ("backbone", "cosine of the logits", "same class, share", "largest difference, x deviation")
    return Table(title="bfloat16 against float32", columns=columns, rows=tuple(rows), notes=(note,))


def bf16_agreement(model: nn.Module, pair: Pair, device: torch.device) -> tuple[float, float, float]:
    """Cosine of the logits, the share of equal classes, and the largest difference in deviations of the logits."""
    with torch.no_grad():
        exact = model(pair.sample).double()
        with torch.autocast(device.type, torch.bfloat16):
            rough = model(pair.sample).double()
    cosine = torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0)
    same = (exact.argmax(1) == rough.argmax(1)).double().mean()
    return float(cosine), float(same), float((exact - rough).abs().max() / exact.std())


# The loader's share


def loader_table(cube: Path | None, device: torch.device, *, small: bool) -> Table:
    """How much of a step a model waits for chips that readers cut from a cube."""
    rows = []
    with _dataset(cube) as dataset:
        for name in ("utae",) if small else ("unet3df", "utae", "tsvit"):
            for readers, bf16 in ((2, False), (2, True)) if small else ((2, False), (8, False), (8, True)):
                _say(f"{name}: {readers} readers, {'bf16' if bf16 else 'float32'}")
                rows.append(_waiting(dataset, name, device, readers=readers, bf16=bf16, small=small))
    where = "a small simulated dataset" if cube is None else "the dataset"
    columns = ("backbone", "readers", "chips/s", "a step, ms", "of it waiting, ms", "waiting, share")
    notes = (f"Batches from {where}, whole steps with the transfer to the device; files in the page cache.",)
    return Table(title="Training from a cube", columns=columns, rows=tuple(rows), notes=notes)


@contextmanager
def _dataset(cube: Path | None) -> Iterator[str]:
    if cube is not None:
        yield str(cube)
        return
    from tests.synthetic import make_dataset

    with tempfile.TemporaryDirectory(prefix="sits-gpu-bench-") as folder:
        make_dataset(Path(folder) / "cube", n_dates=4)
        yield str(Path(folder) / "cube")


def _waiting(
    dataset: str, name: str, device: torch.device, *, readers: int, bf16: bool, small: bool
) -> tuple[str, int, float, float, float, float]:
    """A row of the table; the first batch, for which readers start, is left out."""
    size, batch, count = (24, 2, 3) if small else (48, 32, 40)
    recipe = Recipe(
        name="loader",
        data=DataRecipe(
            size=size,
            batch=batch,
            dates=DateRule(pick="even", n=4 if small else 16),
            readers=readers,
            chips=batch * count,
        ),
        backbone=BackboneRecipe(name=name, width=0.125 if small else 1.0),
        segmentation=SegmentationRecipe(),
    )
    with TrainingData.open(recipe.data, cubes=[dataset]) as data:
        model = build_objective(
            recipe, bands=data.bands, dates=data.dates, classes=len(data.table.classes), mean=data.mean, std=data.std
        ).to(device)
        optimizer = torch.optim.Adam(model.parameters())
        waited, whole = [], []
        batches = iter(data.epoch(0, seed=0, pin=device.type == "cuda"))
        for _ in range(data.batches_in_epoch):
            started = time.perf_counter()
            sample = next(batches)
            waited.append(time.perf_counter() - started)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                loss = model.loss(sample.to(device, non_blocking=True)).value
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            whole.append(time.perf_counter() - started)
    seconds, waiting = sum(whole[1:]), sum(waited[1:])
    steps = len(whole) - 1
    shown = f"{name}, bf16" if bf16 else name
    return shown, readers, batch * steps / seconds, 1000 * seconds / steps, 1000 * waiting / steps, waiting / seconds


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Convolutions of float32 without TF32, as the models are trained."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
