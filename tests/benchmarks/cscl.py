"""The contrast of each pixel with its window, forwards and backwards, against a plain implementation by unfolding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.benchmarks.measure import grown_mb, interleaved, run_fresh
from tests.benchmarks.table import Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sits_models.objectives.cscl import ContextSimilarity, PairRule, Pairs, Window, window_loss

__all__ = ["SIZES", "WINDOWS", "bench", "memory", "plain_loss", "plain_targets", "run"]

SIZES = ((8, 128, 48, 3), (4, 128, 48, 7))
"""B, C, H = W, k."""
WINDOWS = (3, 5, 7, 11)
"""Those that memory is measured for."""
OURS, PLAIN = "sits_models: one sweep", "plain: unfold, normalize, einsum"


def bench(
    *,
    sizes: tuple[tuple[int, int, int, int], ...],
    windows: tuple[int, ...],
    rounds: int,
    threads: int,
    say: Callable[[str], None],
) -> list[Table]:
    """The tables of milliseconds a step, and of memory against the window."""
    say("cscl")
    rows = []
    for size in sizes:
        result = run_fresh("tests.benchmarks.cscl:run", size=size, rounds=rounds, threads=threads).result
        shape = "({}, {}, {} x {}), k {}".format(*size[:3], size[2], size[3])
        rows += [(shape, name, result["ms"][name], result["ratio"][name]) for name in (OURS, PLAIN)]
    notes = (
        f"Forward and backward of projections, similarity and loss, {threads} threads, float32; median of {rounds} "
        "interleaved rounds after two that do not count; 'x ours' is the median of the rounds' ratios.",
        "The plain one is given its targets, ours makes them from labels. Loss and gradients of both agree.",
    )
    columns = ("batch (B, C, H x W), window", "", "ms", "x ours")
    speed = Table(title="CSCL: loss and gradient of a batch", columns=columns, rows=tuple(rows), notes=notes)
    return [speed, _memory_table(sizes[-1], windows, threads=threads)]


def _memory_table(size: tuple[int, int, int, int], windows: tuple[int, ...], *, threads: int) -> Table:
    b, c, side, _ = size
    rows = []
    for k in windows:
        peaks = [
            run_fresh("tests.benchmarks.cscl:memory", size=(b, c, side, k), plain=plain, threads=threads).result
            for plain in (False, True)
        ]
        rows.append((f"k {k}", *peaks))
    note = "Highest resident memory of a fresh process, less what it held before the step."
    title = f"CSCL: memory of a step against the window, ({b}, {c}, {side} x {side})"
    return Table(title=title, columns=("window", f"{OURS}, MB", f"{PLAIN}, MB"), rows=tuple(rows), notes=(note,))


def run(size: tuple[int, int, int, int], rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of a step of each contestant, and times over ours; both must give the same loss and gradients."""
    torch.set_num_threads(threads)
    steps = {OURS: _step(size, plain=False), PLAIN: _step(size, plain=True)}
    _compare(*(step() for step in steps.values()))
    return interleaved(steps, rounds=rounds)


def memory(size: tuple[int, int, int, int], plain: bool, threads: int) -> float:
    """MB by which the highest resident memory of this process grows in two steps."""
    torch.set_num_threads(threads)
    return grown_mb(_step(size, plain=plain))


def _step(size: tuple[int, int, int, int], *, plain: bool) -> Callable[[], list[Tensor]]:
    """A function that computes the loss and its gradients: the loss, by the embedding, by each parameter."""
    b, c, side, k = size
    torch.manual_seed(0)
    module = ContextSimilarity(c, channels=c, window=Window(size=k), groups=1, cosine=True, relative_position=True)
    embedded = torch.randn(b, c, side, side, requires_grad=True)
    fields = torch.randint(0, 6, (b, -(-side // 6), -(-side // 6)))
    labels = fields.repeat_interleave(6, 1).repeat_interleave(6, 2)[:, :side, :side].contiguous()
    pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
    rule = PairRule()
    targets = plain_targets(labels, k) if plain else None

    def step() -> list[Tensor]:
        embedded.grad = None
        module.zero_grad()
        if targets is None:
            loss, _ = window_loss(embedded, module, pairs, rule=rule)
        else:
            loss = plain_loss(embedded, module, targets, rule.positive_weight)
        loss.backward()
        return [loss.detach(), *(x.grad for x in (embedded, *module.parameters()) if x.grad is not None)]

    return step


def plain_loss(embedded: Tensor, module: ContextSimilarity, targets: Tensor, positive_weight: float) -> Tensor:
    """As one writes it from the formula: windows of keys by `unfold`, relative positions, unit length, products."""
    k = module.window.size
    query, key = module.query_conv(embedded), module.key_conv(embedded)
    b, c, h, w = query.shape
    keys = F.unfold(key, k, padding=k // 2).view(b, c, k, k, h, w)
    rows, columns = module.rel_h.view(c // 2, k, 1), module.rel_w.view(c // 2, 1, k)
    relative = torch.cat([rows.expand(-1, k, k), columns.expand(-1, k, k)])
    keys = F.normalize(keys + relative[..., None, None], dim=1)
    similarity = torch.einsum("bchw,bcijhw->bhwij", F.normalize(query, dim=1), keys)
    return (-positive_weight * targets * similarity + (1 - targets) * similarity).mean()


def plain_targets(labels: Tensor, k: int) -> Tensor:
    """1 where a neighbour has the centre's class, else 0: (B, H, W, k, k)."""
    b, h, w = labels.shape
    padded = F.pad(labels[:, None].to(torch.float32), (k // 2,) * 4, value=-9)
    windows = F.unfold(padded, k).view(b, k, k, h, w)
    return (windows == labels[:, None, None]).to(torch.float32).permute(0, 3, 4, 1, 2).contiguous()


def _compare(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
