"""The figures of an evaluation as JSON, each with what it was computed from."""

from __future__ import annotations

from sits_models.report.facts import EvaluationFacts, Group

__all__ = ["FORMAT", "evaluation_json"]

FORMAT = "sits-evaluation 1"


def evaluation_json(facts: EvaluationFacts) -> dict[str, object]:
    """All figures of an evaluation as plain values; undefined scores are None."""
    return {
        "format": FORMAT,
        "title": facts.title,
        "regions": list(facts.regions),
        "split": facts.split,
        "simulated": facts.simulated,
        "model": dict(facts.model),
        "classes": [{"index": k, "code": crop.code, "name": crop.name} for k, crop in enumerate(facts.classes)],
        "overall": {**_group(facts.overall), "iou_intervals": [_pair(ends) for ends in facts.class_intervals]},
        "boundary": _group(facts.boundary),
        "interior": _group(facts.interior),
        "by_distance": [_group(group) for group in facts.distances],
        "parcels": None if facts.parcels is None else _group(facts.parcels),
        "by_parcel_size": [
            {"name": row.name, "parcels": _group(row.parcels), "pixels": _group(row.pixels)} for row in facts.sizes
        ],
        "not_counted": {
            "pixels": facts.not_counted,
            "share": facts.not_counted_share,
            "classes": [{"code": crop.code, "name": crop.name, "pixels": crop.pixels} for crop in facts.unknown],
        },
        "windows": {"size_px": facts.window, "halo_px": facts.halo},
        "bootstrap": {
            "blocks": facts.blocks,
            "block_m": facts.block_m,
            "resamples": facts.resamples,
            "level": facts.level,
        },
        "software": facts.software,
    }


def _group(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "scores": group.scores.to_json(),
        "intervals": {key: list(ends) for key, ends in group.intervals.items()},
        "confusion": group.matrix.tolist(),
    }


def _pair(ends: tuple[float, float] | None) -> list[float] | None:
    return None if ends is None else list(ends)
