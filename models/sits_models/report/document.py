"""The figures of an evaluation as JSON, each with what it was computed from."""

from __future__ import annotations

from sits_models.report.facts import EvaluationFacts, Group

__all__ = ["FORMAT", "evaluation_json"]

FORMAT = "sits-evaluation 1"


def evaluation_json(facts: EvaluationFacts) -> dict[str, object]:
    """All figures of an evaluation as plain values; undefined scores are None."""
    intervals = {"iou_intervals": [_pair(ends) for ends in facts.class_intervals]}
    pixels = facts.unit == "pixel"
    return {
        "format": FORMAT,
        "title": facts.title,
        "regions": list(facts.regions),
        "cubes": [{"config_sha256": sha256} for sha256 in facts.cubes],
        "split": facts.split,
        "simulated": facts.simulated,
        "model": dict(facts.model),
        "classes": [{"index": k, "code": crop.code, "name": crop.name} for k, crop in enumerate(facts.classes)],
        "unit": facts.unit,
        "overall": {**_group(facts.main), **intervals} if pixels else None,
        "boundary": _group_or_none(facts.boundary),
        "interior": _group_or_none(facts.interior),
        "by_distance": [_group(group) for group in facts.distances],
        "parcels": _group_or_none(facts.parcels) if pixels else {**_group(facts.main), **intervals},
        "by_parcel_size": [
            {"name": row.name, "parcels": _group(row.parcels), "pixels": _group_or_none(row.pixels)}
            for row in facts.sizes
        ],
        "not_counted": {
            f"{facts.unit}s": facts.not_counted,
            "share": facts.not_counted_share,
            "classes": [{"code": crop.code, "name": crop.name, f"{facts.unit}s": crop.count} for crop in facts.unknown],
        },
        "not_observed": None if pixels else {"parcels": facts.unobserved},
        "windows": {"size_px": facts.window, "halo_px": facts.halo},
        "bootstrap": {
            "blocks": facts.blocks,
            "block_m": facts.block_m,
            "resamples": facts.resamples,
            "level": facts.level,
        },
        "software": facts.software,
    }


def _group_or_none(group: Group | None) -> dict[str, object] | None:
    return None if group is None else _group(group)


def _group(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "scores": group.scores.to_json(),
        "intervals": {key: list(ends) for key, ends in group.intervals.items()},
        "confusion": group.matrix.tolist(),
    }


def _pair(ends: tuple[float, float] | None) -> list[float] | None:
    return None if ends is None else list(ends)
