"""Splitting anew, from the folders of datasets to what has become of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sits_catalog.region import SplitRule
from sits_pipeline.folder import Folder
from sits_pipeline.prepare import Listener
from sits_pipeline.resplit.carry_out import Resplit, as_it_is, carry_out, is_done
from sits_pipeline.resplit.groups import PatchSplits
from sits_pipeline.resplit.opened import Opened, open_finished
from sits_pipeline.resplit.patch_rules import by_rule, by_year
from sits_pipeline.resplit.patch_set import PatchSet, open_patches, split_patches
from sits_pipeline.resplit.plan import Decided, decide, parent_of, parse_years, rules_by_year
from sits_pipeline.store import read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["split_by_year", "split_region"]


def split_region(folders: Sequence[Folder], rule: SplitRule, listener: Listener) -> tuple[Resplit, ...]:
    """Give the datasets of one region, one a zone, the splits of a rule; with `rule.whole` of any regions.

    A set of patches is split by patch; its rule's file is a table of name and split. Raises ValueError or
    FileNotFoundError, before anything is written, for datasets that cannot be split so, and BlockingIOError where
    another process writes one of them.
    """
    if _are_patches(folders):
        told: JsonObject = {name: getattr(rule, name) for name in rule.__dataclass_fields__}
        return _split_patches(folders, lambda opened: by_rule(opened.table, rule, _classes(opened)), told, listener)
    return _split(folders, lambda datasets: decide(datasets, rule), listener)


def split_by_year(
    folders: Sequence[Folder], years: Sequence[str], listener: Listener, *, buffer_m: float
) -> tuple[Resplit, ...]:
    """Put each dataset as a whole into the split of the year that its season ends in; `years`: "train=2016,2017".

    Of a set of patches each patch, by the year of its last day. Raises as `split_region`, also for a dataset or a patch
    whose year is not named.
    """
    named = parse_years(years)
    if _are_patches(folders):
        told: JsonObject = {
            "years": {int(year): str(name) for year, name in sorted(named.items())},
            "buffer_m": buffer_m,
        }
        return _split_patches(
            folders, lambda opened: by_year(opened.layout.days, _names(opened), named), told, listener
        )

    def decide_all(datasets: Sequence[Opened]) -> tuple[Decided, ...]:
        rules = rules_by_year(datasets, named, buffer_m)
        return tuple(decide([opened], rule)[0] for opened, rule in zip(datasets, rules, strict=True))

    return _split(folders, decide_all, listener)


def _split(
    folders: Sequence[Folder], decide_all: Callable[[Sequence[Opened]], tuple[Decided, ...]], listener: Listener
) -> tuple[Resplit, ...]:
    places = [folder.location.rstrip("/") for folder in folders]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise ValueError(f"{' and '.join(twice)} is given twice; name each dataset once")
    with _locked(folders):
        listener.stage("reading parcels")
        decided = decide_all([open_finished(folder) for folder in folders])
        return tuple(as_it_is(one) if is_done(one) else carry_out(one, listener) for one in decided)


def _are_patches(folders: Sequence[Folder]) -> bool:
    """Whether the datasets are sets of patches. Raises ValueError where only some are."""
    found = {(read_attributes(folder) or {}).get("profile") == "patches" for folder in folders}
    if len(found) > 1:
        raise ValueError("sets of patches and cubes of regions are split by different rules; split them one by one")
    return found == {True}


def _names(opened: PatchSet) -> list[str]:
    return [str(name) for name in opened.table["name"].to_pylist()]


def _classes(opened: PatchSet) -> dict[int, str]:
    return {int(row["index"]): str(row["name"]) for row in opened.layout.classes}


def _split_patches(
    folders: Sequence[Folder],
    decide_one: Callable[[PatchSet], PatchSplits],
    told: JsonObject,
    listener: Listener,
) -> tuple[Resplit, ...]:
    with _locked(folders):
        opened = [open_patches(folder) for folder in folders]
        decided = [decide_one(one) for one in opened]
        return tuple(split_patches(one, splits, told, listener) for one, splits in zip(opened, decided, strict=True))


@contextmanager
def _locked(folders: Sequence[Folder]) -> Iterator[None]:
    """Hold the locks under which the builds of these datasets write them."""
    locks = {(parent_of(folder).location, _lock_name(folder)) for folder in folders}
    with ExitStack() as stack:
        for parent, name in sorted(locks):
            stack.enter_context(Folder(parent).lock(name))
        yield


def _lock_name(folder: Folder) -> str:
    """The region's name, which its build locks; the folder's own where that was given another name."""
    region = str((read_attributes(folder) or {}).get("region", ""))
    name = folder.path.absolute().name if folder.is_local else folder.location.rstrip("/").rpartition("/")[2]
    return region if region and name.startswith(region) else name
