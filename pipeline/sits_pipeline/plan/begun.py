"""What a dataset was begun from, and how a plan differs from that: other items, or items in another state.

`config_sha256` covers the items' ids and baselines. What else an item brings may change in an archive from one run to
the next: when it was sensed, where it lies, which offset its pixels hold, the pixels. Cells that were built before and
cells that are built after would then be of two worlds, so that the journal keeps the state of each item.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.plan.zones import ZonePlan
from sits_pipeline.values import Acquisition, AuditSample, JsonObject, Scene, Verdict

__all__ = ["Begun", "item_states", "sample_digest", "with_earlier_states"]

_SPLIT_KEYS = ("splits", "split_rule")
"""Entries of what decides a cube that tell of its splits alone (`plan.split_decisions`)."""
_NEAR = 0.005
"""Degrees by which a footprint may be drawn otherwise: half of what a scene is asked for beyond its own."""
_OTHER_AREA = 0.02
"""Share of its area by which it may."""
_SHOWN = 5


# States


def item_states(acquisitions: Iterable[Acquisition]) -> JsonObject:
    """By item: what decides its pixels beside its id and baseline, as plain values; what is not known is left out."""
    return {
        scene.id: _state(acquisition, scene, verdict)
        for acquisition in acquisitions
        for scene, verdict in zip(acquisition.scenes, acquisition.verdicts, strict=True)
    }


def _state(acquisition: Acquisition, scene: Scene, verdict: Verdict) -> JsonObject:
    footprint = [*shapely.bounds(scene.footprint).tolist(), float(shapely.area(scene.footprint))]
    state: JsonObject = {
        "provider": scene.provider,
        "day": acquisition.day.isoformat(),
        "scl": "SCL" in scene.assets,
        "footprint": [round(value, 4) for value in footprint],
    }
    if verdict.applied is not None:
        state["offset"] = verdict.applied
    # Where there is a second provider, either may have given the sample.
    if verdict.sample and scene.twin is None:
        state["sample"] = verdict.sample
    checksums = _checksums(scene)
    if checksums:
        state["checksums"] = checksums
    return state


def _checksums(scene: Scene) -> str:
    """12 digits over the checksums that the item states of its assets; empty where it states none."""
    assets = scene.item.get("assets")
    found = {
        name: asset["file:checksum"]
        for name, asset in (assets.items() if isinstance(assets, dict) else ())
        if isinstance(asset, dict) and "file:checksum" in asset
    }
    return _digits(json.dumps(found, sort_keys=True, default=str).encode()) if found else ""


def sample_digest(sample: AuditSample) -> str:
    """12 digits of the SHA-256 of a sample's pixels; empty where it has none."""
    bands: dict[str, NDArray[np.uint16] | NDArray[np.uint8]] = dict(sample.dn)
    if sample.scl is not None:
        bands["SCL"] = sample.scl
    if not any(values.size for values in bands.values()):
        return ""
    parts = [name.encode() + np.ascontiguousarray(values).tobytes() for name, values in sorted(bands.items())]
    return _digits(b"".join(parts))


def _digits(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def with_earlier_states(states: Mapping[str, JsonObject], earlier: Mapping[str, JsonObject]) -> JsonObject:
    """The states of a plan, with what earlier runs knew and this one could not see.

    >>> with_earlier_states({"a": {"day": "2023-04-05"}}, {"a": {"offset": -1000}, "b": {"offset": 0}})
    {'a': {'offset': -1000, 'day': '2023-04-05'}}
    """
    return {name: {**earlier.get(name, {}), **state} for name, state in states.items()}


# Differences


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What the dataset that stands in a place was begun from."""

    config_sha256: str
    deciding: JsonObject
    """What that is the SHA-256 of; empty where the journal does not say."""
    states: JsonObject
    """By item; empty where the journal does not say."""

    @classmethod
    def of(cls, config_sha256: str, plan_lines: Sequence[JsonObject]) -> Self:
        """From the attribute of the cube and the journal's lines of kind `plan`, oldest first."""
        states: JsonObject = {}
        for line in plan_lines:
            states |= with_earlier_states(line.get("items", {}), states)
        first = plan_lines[0] if plan_lines else {}
        return cls(config_sha256=config_sha256, deciding=first.get("deciding") or {}, states=states)

    def difference(self, plan: ZonePlan) -> str:
        """How it differs from a plan, as the end of a sentence that begins with its place; empty where it does not."""
        if self.config_sha256 != plan.config_sha256:
            if self._only_splits_differ(plan):
                return (
                    "was built or split by other splits than this build asks for, and nothing else differs; go on with "
                    "the section splits of its config.yaml, or choose another --out"
                )
            return (
                f"holds another cube (config_sha256 {self.config_sha256[:12]}, this build has "
                f"{plan.config_sha256[:12]}): {self._other_items(plan)}; choose another --out, or remove that folder"
            )
        changes = list(self._changes(plan))
        if not changes:
            return ""
        return (
            f"was begun from other states of its items, which are not to be mixed with those of now: "
            f"{_some(changes, ', ')}; choose another --out, or remove that folder"
        )

    def _only_splits_differ(self, plan: ZonePlan) -> bool:
        then, today = (
            {key: value for key, value in deciding.items() if key not in _SPLIT_KEYS}
            for deciding in (self.deciding, _through_json(plan.deciding))
        )
        return bool(then) and then == today

    def _other_items(self, plan: ZonePlan) -> str:
        """The items that came or went, or their order; else what may differ."""
        today, then = (_items(deciding) for deciding in (plan.deciding, self.deciding))
        if not then or today == then:
            other = [_WORDS.get(key, key) for key in _other_keys(self.deciding, _through_json(plan.deciding))]
            return (
                f"it has other {', '.join(other)}" if other else "region, season, bands, items, parcels or rules differ"
            )
        came, went = sorted(set(today) - set(then)), sorted(set(then) - set(today))
        parts = [f"{what} {_some(_named(items), ', ')}" for what, items in _lists(came, went) if items]
        if parts:
            return " and ".join(parts)
        first, second = next((a, b) for a, b in zip(then, today, strict=False) if a != b)
        return (
            "it has the same items in another order, since their days or cloud cover have changed "
            f"({first[0]} where this build has {second[0]})"
        )

    def _changes(self, plan: ZonePlan) -> Iterator[str]:
        """One text an item whose state is another; of what one of the two does not know nothing is said."""
        for name, today in item_states(plan.acquisitions).items():
            then = self.states.get(name, {})
            said = list(_state_changes(then, today)) if then else []
            if said:
                yield f"{name} ({', '.join(said)})"


_WORDS = {"area": "region", "grid": "place", "labels": "label rule", "labelled_area": "labelled area"}


def _state_changes(then: JsonObject, today: JsonObject) -> Iterator[str]:
    """What changed of an item. Copies of other providers differ in all but the day and what they offer."""
    own = then.get("provider") == today.get("provider")
    words = {
        "day": "its solar day was {then} and is {today}",
        "scl": "its scene classification came or went",
        **({"offset": "its BOA offset was {then} and is {today}", "sample": "its pixels are others"} if own else {}),
        **({"checksums": "the checksums of its files are others"} if own else {}),
    }
    for key, text in words.items():
        if key in then and key in today and then[key] != today[key]:
            yield text.format(then=then[key], today=today[key])
    if own and not _same_footprint(then.get("footprint", ()), today["footprint"]):
        yield "it lies elsewhere"


def _same_footprint(then: Sequence[float], today: Sequence[float]) -> bool:
    if len(then) != len(today):
        return True
    moved = max(abs(a - b) for a, b in zip(then[:4], today[:4], strict=True))
    return moved <= _NEAR and abs(then[4] - today[4]) <= _OTHER_AREA * max(then[4], today[4])


def _items(deciding: JsonObject) -> list[tuple[str, str]]:
    """Id and baseline of each item, in the order in which they fill pixels."""
    return [(str(name), str(baseline)) for name, baseline in deciding.get("items", ())]


def _lists(
    came: list[tuple[str, str]], went: list[tuple[str, str]]
) -> tuple[tuple[str, list[tuple[str, str]]], tuple[str, list[tuple[str, str]]]]:
    return ("it lacks", came), ("this build lacks", went)


def _named(items: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name} (baseline {baseline})" for name, baseline in items]


def _other_keys(then: JsonObject, today: JsonObject) -> list[str]:
    """Entries that are not the same; none where one of the two does not say."""
    return sorted(key for key in then.keys() | today.keys() if then.get(key) != today.get(key)) if then else []


def _through_json(deciding: JsonObject) -> JsonObject:
    """As what stands in a journal has gone."""
    return dict(json.loads(json.dumps(deciding)))


def _some(texts: Sequence[str], between: str) -> str:
    return between.join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
