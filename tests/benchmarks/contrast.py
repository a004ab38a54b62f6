"""Contrast of sampled pixels, forwards and backwards, against a plain implementation by a matrix of similarities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.benchmarks.measure import grown_mb, interleaved, run_fresh
from tests.benchmarks.table import Table
from torch import Tensor
from torch.nn import functional

from sits_models.objectives.nt_xent import nt_xent
from sits_models.objectives.sampled_pixels import NearPixels, SampledPixels

__all__ = ["CHIPS", "OURS", "PLAIN", "bench", "memory", "plain_loss", "run"]

CHIPS = (16, 64, 256)
"""Of a batch: each gives so many sampled pixels."""
PIXELS, CHANNELS, SIDE, RADIUS, TEMPERATURE = 64, 128, 64, 3.0, 0.1
OURS, PLAIN = "sits_models: blocks of queries", "plain: matrix, mask, log-softmax"


def bench(*, chips: tuple[int, ...], rounds: int, threads: int, say: Callable[[str], None]) -> list[Table]:
    """The table of milliseconds and memory of a step against the number of sampled pixels."""
    say("contrast")
    rows = []
    for number in chips:
        result = run_fresh("tests.benchmarks.contrast:run", chips=number, rounds=rounds, threads=threads).result
        for name in (OURS, PLAIN):
            plain = name == PLAIN
            peak = run_fresh("tests.benchmarks.contrast:memory", chips=number, plain=plain, threads=threads).result
            rows.append((f"{number} x {PIXELS}", name, result["ms"][name], result["ratio"][name], peak))
    notes = (
        f"Forward and backward of NT-Xent of one direction, {CHANNELS} channels, {threads} threads, float32; negatives "
        f"of an image nearer than {RADIUS:g} px are left out. Median of {rounds} interleaved rounds after two that do "
        "not count; 'x ours' is the median of the rounds' ratios. Loss and gradients of both agree.",
        "Memory: highest resident of a fresh process, less what it held before the step.",
    )
    columns = ("sampled pixels", "", "ms", "x ours", "MB")
    title = "Dense NT-Xent: loss and gradient of a batch of sampled pixels"
    return [Table(title=title, columns=columns, rows=tuple(rows), notes=notes)]


def run(chips: int, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of a step of each contestant, and times over ours; both must give the same loss and gradients."""
    torch.set_num_threads(threads)
    steps = {OURS: _step(chips, plain=False), PLAIN: _step(chips, plain=True)}
    _compare(*(step() for step in steps.values()))
    return interleaved(steps, rounds=rounds)


def memory(chips: int, plain: bool, threads: int) -> float:
    """MB by which the highest resident memory of this process grows in two steps."""
    torch.set_num_threads(threads)
    return grown_mb(_step(chips, plain=plain))


def _step(chips: int, *, plain: bool) -> Callable[[], list[Tensor]]:
    """A function that computes the loss and its gradients: the loss, by the queries, by the keys."""
    torch.manual_seed(0)
    n = chips * PIXELS
    queries, keys = (torch.randn(n, CHANNELS, requires_grad=True) for _ in range(2))
    places = torch.stack([torch.randperm(SIDE**2)[:PIXELS] for _ in range(chips)]).flatten()
    pixels = SampledPixels(
        image=torch.arange(chips).repeat_interleave(PIXELS), ground=torch.stack([places // SIDE, places % SIDE], dim=1)
    )

    def step() -> list[Tensor]:
        queries.grad = keys.grad = None
        if plain:
            loss = plain_loss(queries, keys, pixels)
        else:
            near = NearPixels.of(pixels, pixels, radius=RADIUS, other_images=False)
            loss = nt_xent(queries, keys, torch.arange(n), temperature=TEMPERATURE, no_negative=near)
        loss.backward()
        return [loss.detach(), *(x.grad for x in (queries, keys) if x.grad is not None)]

    return step


def plain_loss(queries: Tensor, keys: Tensor, pixels: SampledPixels) -> Tensor:
    """As one writes it from the formula: all similarities, what is no negative masked, the diagonal of a softmax."""
    scores = functional.normalize(queries, dim=1) @ functional.normalize(keys, dim=1).T / TEMPERATURE
    same = pixels.image[:, None] == pixels.image
    near = torch.cdist(pixels.ground.to(scores.dtype), pixels.ground.to(scores.dtype)) < RADIUS
    hidden = (same & near).fill_diagonal_(fill_value=False)
    return -functional.log_softmax(scores.masked_fill(hidden, -torch.inf), dim=1).diagonal().mean()


def _compare(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
