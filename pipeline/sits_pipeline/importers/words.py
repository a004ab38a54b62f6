"""Imported datasets in words and as JSON."""

from __future__ import annotations

import io
from collections import Counter

from sits_pipeline.folder import Folder
from sits_pipeline.importers.dataset import chronology_in_words
from sits_pipeline.store.patches import read_patch_layout
from sits_pipeline.values import JsonObject

__all__ = ["dataset_as_json", "dataset_in_words"]


def dataset_as_json(folder: Folder) -> JsonObject:
    """What an imported dataset holds. Raises FileNotFoundError where there is none, ValueError for another profile."""
    layout = read_patch_layout(folder)
    return {
        "location": folder.location,
        "bands": list(layout.bands),
        "height": layout.height,
        "width": layout.width,
        "labels": list(layout.labels),
        "classes": list(layout.classes),
        "patches": _patches(folder),
        "sits_cube": layout.attributes,
    }


def _patches(folder: Folder) -> list[JsonObject]:
    """A row a patch; none while the import has not ended."""
    import pyarrow.parquet as pq

    if not folder.exists("patches.parquet"):
        return []
    columns = ["patch", "id", "n_dates", "days", "split", "fold", "clamped", "crop_counts"]
    rows = pq.read_table(io.BytesIO(folder.read("patches.parquet")), columns=columns).to_pylist()
    return [
        {**row, "days": [day.isoformat() for day in row["days"]], "crop_counts": dict(row["crop_counts"])}
        for row in rows
    ]


def dataset_in_words(facts: JsonObject) -> str:
    """The same for people."""
    cube, rows = facts["sits_cube"], facts["patches"]
    imported = cube["imported"]
    splits = Counter(row["split"] for row in rows)
    divided = ", ".join(f"{count} {'without a split' if name == 'none' else name}" for name, count in splits.items())
    size = f"{facts['height']} x {facts['width']} px"
    lines = [
        f"{cube['region']}: sits-cube {cube['version']}, profile patches, imported from {imported['format']}, "
        f"{'complete' if cube['complete'] else 'INCOMPLETE: the same sits-cube import goes on'}",
        f"  season   {cube['season']['start']} to {cube['season']['end']}",
        f"  time     {chronology_in_words(imported['chronology'])}",
        f"  patches  {cube['patches']['count']} ({divided or 'not finished'}) of {size}, at most "
        f"{cube['patches']['dates']} dates",
        f"  bands    {' '.join(facts['bands'])} ({cube['radiometry']['level']})",
        f"  labels   {' '.join(facts['labels'])}",
        *_classes(facts),
        f"  changed  {_changed(rows)}",
        f"  stored   {cube['cells']['count']} shards of {cube['cells']['patches']} patches",
        f"  licence  {imported['licence']}; {imported['attribution']}",
        f"  made     {cube['created']} by {cube['software']}, configuration {cube['config_sha256'][:16]}",
    ]
    return "\n".join(lines)


def _changed(rows: list[JsonObject]) -> str:
    """How many values were made 1; what is not counted before the import has ended is unknown, not 0."""
    if not rows:
        return "not known before the import has ended"
    return f"{sum(row['clamped'] for row in rows)} values of observed pixels that were 0 or less are 1"


def _classes(facts: JsonObject) -> list[str]:
    """The classes with their pixels."""
    counts: Counter[int] = Counter()
    for row in facts["patches"]:
        counts.update(row["crop_counts"])
    named = [(0, "background"), *((row["index"], row["name"]) for row in facts["classes"]), (65535, "ignored")]
    return [f"    {index:>5}  {name}: {counts[index]} px" for index, name in named if counts[index]]
