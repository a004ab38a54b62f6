"""What a build asks of a service, and the processing units that it may use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sits_pipeline.cell import CellTask
from sits_pipeline.plan import ZonePlan
from sits_pipeline.plan.zones import Estimate
from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.sources.charges import audit_cost
from sits_pipeline.tasks import cell_costs, task_cost
from sits_pipeline.values import JsonObject

__all__ = ["Budget", "estimate", "plan_audit_cost"]

_ROUNDING_PU = 1e-6


def estimate(source: SceneSource, plan: ZonePlan) -> Estimate:
    """What a dataset costs; requests and processing units of a service as it counts them itself."""
    files = plan.estimate()
    if not isinstance(source, ServiceSource):
        return files
    total = sum((cost for _, cost in cell_costs(source, plan)), Cost())
    audit = plan_audit_cost(source, plan)
    return replace(
        files,
        requests=total.requests,
        processing_units=total.processing_units,
        audit_requests=audit.requests,
        audit_processing_units=audit.processing_units,
    )


def plan_audit_cost(source: SceneSource, plan: ZonePlan) -> Cost:
    """What the audit before a plan was charged at most: scenes of its zone, refused ones included if for their pixels.

    Those of another zone and of too old a baseline were not looked at.
    """
    used = [scene for acquisition in plan.acquisitions for scene in acquisition.scenes]
    refused = [refusal.scene for refusal in plan.refusals if refusal.verdict is not None]
    return audit_cost(source, [*used, *refused])


@dataclass
class Budget:
    """Processing units that a build may use: those it has used, those of the cells under way, and the bound."""

    max_pu: float | None
    """None: as many as it takes."""
    spent: float = 0.0
    """As the service reported them and the journal holds them, earlier runs included."""
    audited: float = 0.0
    """What the audit of this run was charged at most; no journal holds that of earlier ones."""
    exhausted: bool = False
    """Whether a cell was held back."""
    _under_way: dict[tuple[int, ...], float] = field(default_factory=dict)
    """What each cell was thought to need."""
    _thought: float = 0.0
    """What the cells of this run that are done were thought to need, and what they were charged."""
    _charged: float = 0.0

    def check(self, needed: float) -> None:
        """Raises ValueError where the cells that are still to be built need more than is left."""
        if self.max_pu is None or self.spent + self.audited + needed <= self.max_pu + _ROUNDING_PU:
            return
        audit = f" and up to {self.audited:.2f} for its audit" if self.audited else ""
        used = f" beside {self.spent:.1f} that are used already" if self.spent else ""
        raise ValueError(
            f"this build needs {needed:.1f} processing units{audit}{used}, and --max-pu allows {self.max_pu:g}; take a "
            "smaller place, a shorter season or fewer bands, leave cloudy scenes out with imagery.max_cloud, or raise "
            "--max-pu"
        )

    def admit(self, tasks: Iterable[CellTask]) -> Iterator[CellTask]:
        """The tasks, as far as what is left pays for them; it ends before the first that could pass the bound."""
        return self.hold((_key(task), task_cost(task).processing_units, task) for task in tasks)

    def hold[Task](self, tasks: Iterable[tuple[tuple[int, ...], float, Task]]) -> Iterator[Task]:
        """The same of tasks of any kind, each with the journal's key of its cell and the units it needs."""
        for key, needed, task in tasks:
            if self.max_pu is not None and self._committed(needed) > self.max_pu + _ROUNDING_PU:
                self.exhausted = True
                return
            self._under_way[key] = needed
            yield task

    def settle(self, entry: JsonObject) -> None:
        """A cell is done: what it was charged replaces what it was thought to need."""
        charged = entry.get("processing_units", 0.0)
        self._thought += self._under_way.pop(tuple(entry["cell"]), 0.0)
        self._charged += charged
        self.spent += charged

    def check_ended(self, left: int) -> None:
        """Raises RuntimeError where so many cells are left for want of processing units."""
        if self.exhausted:
            raise RuntimeError(
                f"{left} cells are not built: {self.spent + self.audited:.1f} processing units are used and the next "
                f"cell could pass the {self.max_pu:g} of --max-pu, since the service charged more than it was thought "
                "to; "
                "run the same command with a higher --max-pu, which goes on where this one stopped"
            )

    def _committed(self, needed: float) -> float:
        """What will be used once the cells under way and one more are done, by the charges so far."""
        dearer = max(1.0, self._charged / self._thought) if self._thought else 1.0
        return self.spent + self.audited + dearer * (sum(self._under_way.values()) + needed)


def _key(task: CellTask) -> tuple[int, ...]:
    return task.window.row, task.window.column, task.window.height, task.window.width
