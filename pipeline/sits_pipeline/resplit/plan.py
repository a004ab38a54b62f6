"""What new splits are to be, decided for all datasets before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sits_catalog.loading import dump_region
from sits_catalog.region import Region, SplitRule
from sits_pipeline.folder import Folder
from sits_pipeline.parcels.split_areas import read_split_areas
from sits_pipeline.plan import deciding_sha256, split_decisions
from sits_pipeline.resplit.opened import Opened
from sits_pipeline.splits import SplitPlan, areas_sha256, plan_splits
from sits_pipeline.store import CUBE
from sits_pipeline.values import JsonObject

__all__ = ["Decided", "SplitName", "decide", "parent_of", "parse_years", "rules_by_year"]

SplitName = Literal["train", "validation", "test"]
_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
_SPLIT_KEYS = ("splits", "split_rule")


@dataclass(frozen=True, kw_only=True)
class Decided:
    """New splits of one dataset."""

    opened: Opened
    rule: SplitRule
    splits: SplitPlan
    deciding: JsonObject
    """What decides its pixels from now on."""

    @property
    def config_sha256(self) -> str:
        """SHA-256 of that."""
        return deciding_sha256(self.deciding)

    @property
    def region(self) -> Region:
        """Its region with the new rule."""
        return self.opened.region.replace(splits=self.rule)

    @property
    def document(self) -> JsonObject:
        """`config.yaml` as plain values."""
        return {**self.opened.document, "splits": dump_region(self.region)["splits"]}

    @property
    def split_line(self) -> JsonObject:
        """The journal's line of this work."""
        return {"kind": "split", "config_sha256": self.config_sha256, "splits": self.document["splits"]}

    @property
    def plan_line(self) -> JsonObject:
        """The journal's first line when it is done."""
        return {**self.opened.plan_line, "config_sha256": self.config_sha256, "deciding": self.deciding}


def decide(datasets: Sequence[Opened], rule: SplitRule) -> tuple[Decided, ...]:
    """New splits of the zones of one region, decided together, so that a parcel in two zones has one split.

    Raises ValueError for datasets of different regions and where a zone of theirs is left out.
    """
    if rule.file is not None:
        rule = replace(rule, file=str(Path(rule.file).absolute()) if "://" not in rule.file else rule.file)
    if rule.whole is None:
        _check_zones(datasets)
    grids = [opened.layout.geobox for opened in datasets]
    areas = () if rule.file is None else read_split_areas(rule.file, grids)
    names = {int(row["index"]): str(row["name"]) for row in datasets[0].layout.classes}
    splits = plan_splits([opened.parcels for opened in datasets], grids, rule, names=names, areas=areas)
    more = split_decisions(rule, areas_sha256(splits.areas) if areas else None)
    return tuple(
        Decided(opened=opened, rule=rule, splits=splits, deciding={**_without_splits(opened), **more})
        for opened in datasets
    )


def _without_splits(opened: Opened) -> JsonObject:
    return {key: value for key, value in opened.plan_line["deciding"].items() if key not in _SPLIT_KEYS}


def _check_zones(datasets: Sequence[Opened]) -> None:
    """Raises ValueError where not all, and only, the datasets of one region are given."""
    regions = sorted({str(opened.layout.attributes["region"]) for opened in datasets})
    if len(regions) > 1:
        raise ValueError(
            f"splits are decided for one region at a time, here are {' and '.join(regions)}; split them one by one, or "
            "each as a whole with --whole or --by-year"
        )
    given = {opened.name for opened in datasets}
    if len({opened.layout.epsg for opened in datasets}) != len(datasets):
        raise ValueError(f"{' and '.join(sorted(given))} are not the zones of one region; split them one by one")
    missing = sorted({name for opened in datasets for name in _siblings(opened, regions[0])} - given)
    if missing:
        raise ValueError(
            f"{regions[0]} lies in several zones, and a parcel on their border has one split in all of them: "
            f"give {' and '.join(missing)} too"
        )


def _siblings(opened: Opened, region: str) -> list[str]:
    """Names of the datasets beside this one that are zones of its region: those that zones in a row lead to."""
    if opened.name != f"{region}-{opened.layout.epsg}":
        return []
    beside, found, asked = parent_of(opened.folder), [], {opened.layout.epsg}
    following = list(_neighbours(opened.layout.epsg))
    while following:
        epsg = following.pop()
        if epsg in asked:
            continue
        asked.add(epsg)
        if beside.exists(f"{region}-{epsg}/{CUBE}/zarr.json"):
            found.append(f"{region}-{epsg}")
            following += _neighbours(epsg)
    return found


def _neighbours(epsg: int) -> tuple[int, ...]:
    """The zones west and east of one, and the same one beyond the equator."""
    hemisphere, zone = epsg - epsg % 100, epsg % 100
    across = 32600 + 32700 - hemisphere
    return hemisphere + (zone - 2) % 60 + 1, hemisphere + zone % 60 + 1, across + zone


def parent_of(folder: Folder) -> Folder:
    """The folder that a dataset lies in."""
    if folder.is_local:
        return Folder(str(folder.path.absolute().parent))
    return Folder(folder.location.rstrip("/").rpartition("/")[0])


# By year


def parse_years(texts: Iterable[str]) -> dict[int, SplitName]:
    """The split of each year, from texts such as "train=2016,2017".

    >>> parse_years(["train=2016,2017", "test=2018"])
    {2016: 'train', 2017: 'train', 2018: 'test'}
    """
    years: dict[int, SplitName] = {}
    for text in texts:
        word, _, listed = text.partition("=")
        name = next((known for known in _NAMES if known == word.strip()), None)
        numbers = [part.strip() for part in listed.split(",")]
        if name is None or not all(re.fullmatch(r"\d{4}", part) for part in numbers):
            raise ValueError(f"years of a split are written train=2016,2017 (or validation=, test=); got {text!r}")
        for part in numbers:
            if years.setdefault(int(part), name) != name:
                raise ValueError(f"{part} is named for {years[int(part)]} and for {name}; a year is in one split")
    return years


def rules_by_year(datasets: Sequence[Opened], years: Mapping[int, SplitName], buffer_m: float) -> list[SplitRule]:
    """The rule of each dataset: all of it in the split of the year that its season ends in.

    Raises ValueError for a dataset whose year is not named.
    """
    rules = []
    for opened in datasets:
        end = str(opened.layout.attributes["season"]["end"])
        if int(end[:4]) not in years:
            raise ValueError(
                f"the season of {opened.folder.location} ends on {end}, and {end[:4]} is in no split; name it, as in "
                f"train={end[:4]}"
            )
        rules.append(SplitRule(whole=years[int(end[:4])], buffer_m=buffer_m))
    return rules
