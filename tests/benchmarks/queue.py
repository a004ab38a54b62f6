"""A step of contrasts with queues, as SeCo takes it, against a plain implementation by a table of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.benchmarks.measure import grown_mb, interleaved, run_fresh
from tests.benchmarks.table import Table
from torch import Tensor
from torch.nn import functional

from sits_models.objectives.info_nce import Contrast, info_nce
from sits_models.objectives.queues import Queue

__all__ = ["LENGTHS", "OURS", "PLAIN", "bench", "memory", "run"]

LENGTHS = (4096, 16384, 65536)
"""Keys of a queue; SeCo's is the second."""
QUERIES, CHANNELS, SPACES, TEMPERATURE = 256, 128, 3, 0.07
OURS, PLAIN = "sits_models: gradient made forwards", "plain: joined logits, cross entropy"


def bench(*, lengths: tuple[int, ...], rounds: int, threads: int, say: Callable[[str], None]) -> list[Table]:
    """The table of milliseconds and memory of a step against the length of the queues."""
    say("queues")
    rows = []
    for length in lengths:
        result = run_fresh("tests.benchmarks.queue:run", length=length, rounds=rounds, threads=threads).result
        for name in (OURS, PLAIN):
            plain = name == PLAIN
            peak = run_fresh("tests.benchmarks.queue:memory", length=length, plain=plain, threads=threads).result
            rows.append((str(length), name, result["ms"][name], result["ratio"][name], peak))
    notes = (
        f"{SPACES} sub-spaces, {QUERIES} queries, {CHANNELS} channels, {threads} threads, float32: loss, gradients by "
        f"the queries, and the batch's keys into the queues. Median of {rounds} interleaved rounds after two that do "
        "not count; 'x ours' is the median of the rounds' ratios. Loss, gradients and queues of both agree.",
        "Memory: highest resident of a fresh process, less what it held before the step.",
    )
    columns = ("keys a queue", "", "ms", "x ours", "MB")
    return [Table(title="Queues: a step of SeCo's three contrasts", columns=columns, rows=tuple(rows), notes=notes)]


def run(length: int, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of a step of each contestant, and times over ours; both must give the same."""
    torch.set_num_threads(threads)
    contestants = {OURS: _contestant(length, plain=False), PLAIN: _contestant(length, plain=True)}
    outcomes = [[*step(), *(queue.keys for queue in queues)] for step, queues in contestants.values()]
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    return interleaved({name: step for name, (step, _) in contestants.items()}, rounds=rounds)


def memory(length: int, plain: bool, threads: int) -> float:
    """MB by which the highest resident memory of this process grows in two steps."""
    torch.set_num_threads(threads)
    return grown_mb(_contestant(length, plain=plain)[0])


def _contestant(length: int, *, plain: bool) -> tuple[Callable[[], list[Tensor]], list[Queue]]:
    """A function that takes a step: the loss, and its gradients by the queries; and its queues."""
    torch.manual_seed(0)
    units = [_units(QUERIES) for _ in range(2 * SPACES)]
    queries, keys = [one.requires_grad_() for one in units[:SPACES]], units[SPACES:]
    queues = [Queue(length, channels=CHANNELS) for _ in range(SPACES)]
    places = [0] * SPACES

    def ours(space: int) -> Tensor:
        loss, _ = info_nce(Contrast(queries[space], keys[space], (queues[space].keys,)), temperature=TEMPERATURE)
        queues[space].enqueue(keys[space])
        return loss

    def theirs(space: int) -> Tensor:
        held = queues[space].keys
        positive = (queries[space] * keys[space]).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, queries[space] @ held.clone().T], dim=1) / TEMPERATURE
        loss = functional.cross_entropy(logits, torch.zeros(QUERIES, dtype=torch.int64))
        held[places[space] : places[space] + QUERIES] = keys[space]
        places[space] = (places[space] + QUERIES) % length
        return loss

    def step() -> list[Tensor]:
        for query in queries:
            query.grad = None
        losses = [theirs(space) if plain else ours(space) for space in range(SPACES)]
        loss = torch.stack(losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return [loss.detach(), *(query.grad for query in queries if query.grad is not None)]

    return step, queues


def _units(n: int) -> Tensor:
    return functional.normalize(torch.randn(n, CHANNELS), dim=1)
