"""The tables of the experiment: each arm's scores, and what pretraining changed, pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.table import Table
from tests.experiments.plan import BACKBONES, LABELS, Run
from tests.experiments.rows import Row

__all__ = ["PARTS", "Pair", "pairs_of", "tables_of"]

PARTS = ("overall", "boundary", "interior")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """CSCL and random initialisation where everything else is equal."""

    region: str
    backbone: str
    seed: int
    labels: int
    random: Mapping[str, float]
    """mIoU of each of `PARTS`, per cent."""
    cscl: Mapping[str, float]

    def difference(self, part: str) -> float:
        """CSCL minus random, percentage points."""
        return self.cscl[part] - self.random[part]


def pairs_of(done: Mapping[Run, Row]) -> list[Pair]:
    """All pairs both of whose runs are finished, in the order of the runs."""
    by_place: dict[tuple[str, str, int, int], dict[str, Mapping[str, float]]] = {}
    for run, row in done.items():
        place = (run.region, run.backbone, run.seed, run.labels)
        by_place.setdefault(place, {})[run.arm] = {part: 100 * row[f"miou_{part}"] for part in PARTS}
    return [
        Pair(region=region, backbone=backbone, seed=seed, labels=labels, random=arms["random"], cscl=arms["cscl"])
        for (region, backbone, seed, labels), arms in by_place.items()
        if "random" in arms and "cscl" in arms
    ]


def tables_of(done: Mapping[Run, Row]) -> list[Table]:
    """For labels at 10 m and at 5 m: what pretraining changed, and the scores of both arms in each region."""
    pairs = pairs_of(done)
    tables = []
    for labels in LABELS:
        found = [pair for pair in pairs if pair.labels == labels]
        if found:
            where = "labels at 10 m" if labels == 1 else "x2: input at 10 m, labels at 5 m"
            tables += [_differences(found, where), _scores(found, where, _note(done, labels))]
    return tables


def _differences(pairs: Sequence[Pair], where: str) -> Table:
    rows = []
    for title, of_backbone in _by_backbone(pairs):
        for region, part in _by_region(of_backbone):
            rows.append((title, region, str(len(part)), *(_signed([p.difference(x) for p in part]) for x in PARTS)))
    return Table(
        title=f"Simulated data, {where}: CSCL minus random, percentage points of mIoU (pairs in which CSCL is better)",
        columns=("backbone", "region", "pairs", *PARTS),
        rows=tuple(rows),
    )


def _scores(pairs: Sequence[Pair], where: str, note: str) -> Table:
    rows = []
    for title, of_backbone in _by_backbone(pairs)[:-1]:
        for region, part in _by_region(of_backbone):
            cells = [_spread([arm[x] for arm in arms]) for x in PARTS for arms in _arms(part)]
            rows.append((title, region, *cells))
    columns = [f"{part}, {arm}" for part in PARTS for arm in ("random", "CSCL")]
    return Table(
        title=f"Simulated data, {where}: mIoU on the test split, per cent",
        columns=("backbone", "region", *columns),
        rows=tuple(rows),
        notes=(note,),
    )


def _arms(pairs: Sequence[Pair]) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    return [pair.random for pair in pairs], [pair.cscl for pair in pairs]


def _by_backbone(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Title and pairs of each backbone, and of all together at the end."""
    each = [(learner.title, [pair for pair in pairs if pair.backbone == learner.name]) for learner in BACKBONES]
    return [(title, found) for title, found in each if found] + [("all backbones", list(pairs))]


def _by_region(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """All regions together first."""
    yield "all", list(pairs)
    for region in dict.fromkeys(pair.region for pair in pairs):
        yield region.removeprefix("claim-"), [pair for pair in pairs if pair.region == region]


def _note(done: Mapping[Run, Row], labels: int) -> str:
    """How much was measured and what it took."""
    rows = [row for run, row in done.items() if run.labels == labels]
    regions = []
    for region in dict.fromkeys(row["region"] for row in rows):
        pixels, edge, classes = next(
            (row["pixels_overall"], row["pixels_boundary"], row["classes"]) for row in rows if row["region"] == region
        )
        grouped, share = f"{pixels:,}".replace(",", " "), 100 * edge / pixels
        regions.append(f"{region.removeprefix('claim-')} {grouped} px, {share:.0f} % at a boundary, {classes} classes")
    longest = max(row["cpu_seconds"] for row in rows)
    return f"Test pixels: {'; '.join(regions)}. The longest run took {longest:.0f} s of one core."


def _spread(values: Sequence[float]) -> str:
    """
    >>> _spread([50.0, 52.0, 54.0]), _spread([50.0])
    ('52.0 ± 2.0', '50.0')
    """
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def _signed(values: Sequence[float]) -> str:
    """
    >>> _signed([-1.0, 2.0, 5.0])
    '+2.0 ± 3.0 (2 of 3)'
    """
    mean, better = f"{statistics.mean(values):+.1f}", sum(value > 0 for value in values)
    spread = "" if len(values) < 2 else f" ± {statistics.stdev(values):.1f}"
    return f"{mean}{spread} ({better} of {len(values)})"
