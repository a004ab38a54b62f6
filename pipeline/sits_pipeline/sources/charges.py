"""What the audit of scenes is charged, which comes before there is a plan whose cells could be counted."""

from __future__ import annotations

from collections.abc import Sequence

from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.values import Scene

__all__ = ["audit_cost", "check_audit"]


def audit_cost(source: SceneSource, scenes: Sequence[Scene]) -> Cost:
    """What the samples of scenes may be charged at most; nothing where they are files."""
    if not isinstance(source, ServiceSource):
        return Cost()
    return sum((source.sample_cost(scene) for scene in scenes), Cost())


def check_audit(source: SceneSource, scenes: Sequence[Scene], max_pu: float | None) -> None:
    """Raises ValueError where looking at the scenes alone could pass the bound; nothing is asked of the service."""
    if max_pu is None:
        return
    needed = audit_cost(source, scenes).processing_units
    if needed > max_pu:
        raise ValueError(
            f"the audit of {len(scenes)} scenes alone may take {needed:.1f} processing units, and --max-pu allows "
            f"{max_pu:g}; take a shorter season or a smaller place, or raise --max-pu"
        )
