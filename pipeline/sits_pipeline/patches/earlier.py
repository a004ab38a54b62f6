"""What an earlier run has left of a location set: the choices that stand, and whether shards rest on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from sits_pipeline.folder import Folder
from sits_pipeline.journal import Journal, read_journal
from sits_pipeline.patches.place import KIND, Chosen, line_of
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.store import check_version, read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["Choices", "Earlier", "check_place", "check_same"]

_UNSETTLED = "unsettled"
"""Kind of the journal's lines about locations whose items could not be looked at."""


def check_place(folder: Folder) -> JsonObject | None:
    """The attribute `sits_cube` of the store that is there; None where there is none.

    Raises ValueError where it is of another release or another profile, before a service is asked for anything.
    """
    attributes = read_attributes(folder)
    if attributes is None:
        return None
    check_version(folder, attributes)
    if attributes.get("profile") != "patches":
        raise ValueError(
            f"{folder.location} holds another dataset, of the profile {attributes.get('profile')!r}, and this build "
            "writes 'patches'; choose another --out, or remove that folder"
        )
    return attributes


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What the journal of a folder says of a request."""

    choices: Mapping[int, JsonObject]
    """The line of each location that was chosen for, by patch."""
    unsettled: frozenset[int]
    """Patches for which an earlier run could not look at an item."""
    is_built: bool
    """Whether the store has a shard: the choices it rests on are replaced by no other."""

    @classmethod
    def read(cls, folder: Folder, request: str) -> Self:
        """From the journal; a later choice replaces an earlier one until a shard is built.

        Raises ValueError where shards were built for another request.
        """
        is_there = read_attributes(folder) is not None
        begun, choices, unsettled = "", dict[int, JsonObject](), set[int]()
        is_built = False
        for entry in read_journal(folder):
            if entry["kind"] == "plan":
                begun = entry.get("request_sha256", "")
            elif entry["kind"] == "cell":
                is_built = is_there
            elif entry.get("request_sha256") != request:
                continue
            elif entry["kind"] == _UNSETTLED:
                unsettled.add(int(entry["patch"]))
            elif entry["kind"] == KIND and not (is_built and int(entry["patch"]) in choices):
                choices[int(entry["patch"])] = entry
        if is_built and begun != request:
            raise ValueError(
                f"{folder.location} holds another dataset (it was asked for with {begun[:12] or 'nothing known'}, this "
                f"build asks with {request[:12]}): locations, season, bands, rule or source differ; choose another "
                "--out, or remove that folder"
            )
        return cls(choices=choices, unsettled=frozenset(unsettled), is_built=is_built)

    def forgotten(self) -> Self:
        """The same where everything is to be searched anew."""
        return type(self)(choices={}, unsettled=frozenset(), is_built=self.is_built)


@dataclass
class Choices:
    """Writes choices into the journal as they are made, so that none is asked for twice.

    They wait until there is one with acquisitions: a set in which no location has any leaves nothing behind.
    """

    journal: Journal
    request: str
    keep: bool
    """Whether to write at all: not where shards are built, since the choices they rest on are in the journal."""
    _waiting: list[JsonObject] = field(default_factory=list)
    _any: bool = False

    def add(self, chosen: Chosen, *, assets: bool) -> None:
        """A choice that stands; `assets`: whether its addresses are kept, see `line_of`."""
        line = line_of(chosen, self.request, assets=assets)
        self._waiting += [line] if line is not None and self.keep else []
        self._any = self._any or bool(chosen.acquisitions)
        if self._any:
            for waiting in self._waiting:
                self.journal.append(waiting)
            self._waiting.clear()

    def unsettle(self, chosen: Chosen) -> None:
        """A choice that another look could change; where that look fails in the next run as well, it will stand."""
        if self.keep:
            self.journal.append({"kind": _UNSETTLED, "request_sha256": self.request, "patch": chosen.spot.patch})


def check_same(folder: Folder, plan: PatchPlan, earlier: Earlier) -> JsonObject | None:
    """The attribute `sits_cube` of the store that is there; None where one is to be created.

    That is also so where another one was begun and has no shard yet. Raises ValueError for a dataset that is not this.
    """
    attributes = check_place(folder)
    if attributes is None or attributes.get("config_sha256") == plan.config_sha256:
        return attributes
    if not earlier.is_built:
        return None
    raise ValueError(
        f"{folder.location} holds another dataset (config_sha256 {str(attributes.get('config_sha256'))[:12]}, this "
        f"build has {plan.config_sha256[:12]}): its shards rest on other items, resampling or mosaicking than this "
        "build chose; leave --search-again out, choose another --out, or remove that folder"
    )
