"""Add datasets to a catalogue and take them out of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sits_catalog.catalogue.dataset import DatasetFiles, Finding, read_finding
from sits_catalog.catalogue.entries import SPLITS_SUFFIX, Place, entry_item, family_of, split_items
from sits_catalog.catalogue.families import family_collection, root_catalog, split_collection
from sits_catalog.catalogue.folder import DATASETS, Catalogue, Entry, check_name, encode_json
from sits_catalog.catalogue.page import render_page
from sits_catalog.catalogue.pictures import Picture, pictures_of
from sits_catalog.catalogue.tables import read_tables

__all__ = ["add_dataset", "dataset_of", "items_table", "rebuild", "remove_dataset"]

JsonObject = dict[str, Any]

_MAX_REPORT = 100_000_000


def add_dataset(catalogue: Catalogue, location: str, *, family: str | None = None, name: str | None = None) -> Entry:
    """Add the dataset at `location`, a folder or an address, or put what it holds now in the place of its entry.

    `family` names its collection, by default its id without UTM zone and year; `name` its id, by default its own.
    The dataset is read before the catalogue is locked. Raises FileNotFoundError, ValueError or OSError, one sentence.
    """
    finding = read_finding(location)
    files = finding.files
    if files.is_local and files.path.is_relative_to(catalogue.folder):
        raise ValueError(f"{files.path} lies inside of the catalogue {catalogue.folder}; keep datasets beside it")
    id_ = check_name("the id", name or finding.item["id"], "name the dataset with --id")
    chosen = check_name("the family", family or family_of(id_), "name the family with --family")
    _check_reserved(id_, chosen)
    place = Place(catalogue=catalogue.folder, family=chosen, id=id_)
    written = _checked_files(finding, place)
    with catalogue.locked():
        if not catalogue.exists:
            catalogue.write("catalog.json", encode_json(root_catalog([])))
        before = [entry for entry in catalogue.entries() if entry.id == id_]
        for earlier in before:
            _check_same(catalogue, earlier, finding)
        catalogue.put_entry(chosen, id_, written)
        # In this order a process that is killed leaves one entry too many, which the next to lock the catalogue drops.
        for earlier in before:
            if earlier.family != chosen:
                catalogue.drop_entry(earlier)
        rebuild(catalogue)
    return Entry(place.folder)


def remove_dataset(catalogue: Catalogue, name: str) -> None:
    """Take an entry out, and its family with the last one; the dataset stays as it is.

    Raises ValueError where there is no such entry.
    """
    catalogue.check_exists()
    with catalogue.locked():
        catalogue.drop_entry(catalogue.entry(name))
        rebuild(catalogue)


def dataset_of(catalogue: Catalogue, entry: Entry) -> DatasetFiles:
    """The dataset that an entry speaks of."""
    address = str(entry.item["properties"]["sits_cube:address"])
    return DatasetFiles(address if "://" in address else os.path.normpath(catalogue.folder / address))


def _check_reserved(name: str, family: str) -> None:
    """Raises ValueError for an id or a family that a collection of splits or a path of the page has."""
    if name.endswith(SPLITS_SUFFIX):
        raise ValueError(
            f"the id {name!r} ends with {SPLITS_SUFFIX}, as the collections of splits do; name the dataset with --id"
        )
    if family.endswith(SPLITS_SUFFIX) or family == DATASETS:
        raise ValueError(
            f"the family {family!r} cannot be: the catalogue has {DATASETS!r} and what ends with {SPLITS_SUFFIX} for "
            "its own use; name another with --family"
        )


def _check_same(catalogue: Catalogue, earlier: Entry, finding: Finding) -> None:
    """Raises ValueError where the id belongs to another dataset that still lies where it was, OSError: maybe does."""
    before = dataset_of(catalogue, earlier)
    same = before.path == finding.files.path if before.is_local and finding.files.is_local else before == finding.files
    if same:
        return
    try:
        there = before.has("item.json")
    except OSError as error:
        raise OSError(
            f"{earlier.id!r} is the dataset in {before.location}, and nobody knows whether it is still there: {error}; "
            f"give the one in {finding.files.location} another id with --id, or remove the other: sits-catalog cubes "
            f"remove {earlier.id}"
        ) from error
    if there:
        raise ValueError(
            f"{earlier.id!r} is the dataset in {before.location} already; give the one in {finding.files.location} "
            f"another id with --id, or remove the other: sits-catalog cubes remove {earlier.id}"
        )


def _checked_files(finding: Finding, place: Place) -> dict[str, bytes]:
    """Every file of an entry, out of which a catalogue of it alone was made: a bad one would stop all later work."""
    import pyarrow as pa

    try:
        written = _entry_files(finding, place)
        with tempfile.TemporaryDirectory() as folder:
            trial = Catalogue.at(Path(folder) / "trial", {})
            trial.write("catalog.json", encode_json(root_catalog([])))
            trial.put_entry(place.family, place.id, written)
            rebuild(trial)
    except (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, pa.ArrowException) as error:
        raise ValueError(
            f"{finding.files.location} holds values that the contract does not know ({type(error).__name__}: {error}); "
            "check it with sits-cube verify"
        ) from error
    return written


def _entry_files(finding: Finding, place: Place) -> dict[str, bytes]:
    """Every file of an entry."""
    tables = read_tables(finding.files, str(finding.attributes.get("profile")))
    pictures = _pictures(finding.files)
    item = entry_item(finding, tables, pictures, place)
    files = {f"{place.id}.json": encode_json(item), "outlines.json": _compact(tables.outlines)}
    files |= {f"preview-{number}.png": picture.png for number, picture in enumerate(pictures, 1)}
    splits = split_items(item, tables, place, finding)
    if splits:
        files["splits/collection.json"] = encode_json(split_collection(item, splits))
        files |= {f"splits/{one['id']}.json": encode_json(one) for one in splits}
    return files


def _compact(outlines: JsonObject) -> bytes:
    import json

    return json.dumps(outlines, separators=(",", ":"), allow_nan=False).encode()


def _pictures(files: DatasetFiles) -> tuple[Picture, ...]:
    """Previews of a dataset; a dataset without a report has none."""
    if not files.has("report.html"):
        return ()
    return pictures_of(files.read("report.html", _MAX_REPORT).decode("utf-8", "replace"))


# What follows from the entries


def rebuild(catalogue: Catalogue) -> None:
    """Write all that follows from the entries; the caller holds the lock."""
    catalogue.drop_empty_families()
    entries = catalogue.entries()
    families = {name: list(members) for name, members in groupby(entries, key=lambda entry: entry.family)}
    for name, members in families.items():
        catalogue.write(f"{name}/collection.json", encode_json(family_collection(name, members)))
    for file, items in (
        ("items.parquet", [entry.item for entry in entries]),
        ("splits.parquet", [split for entry in entries for split in entry.splits]),
    ):
        if items:
            catalogue.write(file, items_table(items))
        else:
            (catalogue.folder / file).unlink(missing_ok=True)
    catalogue.write("index.html", render_page(entries))
    catalogue.write("catalog.json", encode_json(root_catalog(list(families))))


def items_table(items: Sequence[JsonObject]) -> bytes:
    """Items as a stac-geoparquet file; where their properties disagree in type, each is kept as one JSON text."""
    import pyarrow as pa
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    rows = [_row(item) for item in items]
    try:
        table = parse_stac_items_to_arrow(rows)
    except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError):
        table = parse_stac_items_to_arrow([_as_text(row) for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        to_parquet(table, path, compression="zstd")
        return path.read_bytes()


def _row(item: JsonObject) -> JsonObject:
    """An item that the format can hold: it knows one kind of box, so that one without a place has NaN in it."""
    if item.get("geometry") is not None:
        return item
    nowhere = {"type": "Polygon", "coordinates": []}
    return {**item, "geometry": nowhere, "bbox": [float("nan")] * 4}


def _as_text(item: JsonObject) -> JsonObject:
    import json

    kept = ("title", "datetime", "start_datetime", "end_datetime", "created", "license", "ml-aoi:split")
    found = {key: item["properties"].get(key) for key in kept}
    properties = {key: None if value is None else str(value) for key, value in found.items()}
    return {
        **{key: item[key] for key in ("type", "stac_version", "stac_extensions", "id", "collection")},
        **{key: item[key] for key in ("geometry", "bbox")},
        "links": [],
        "assets": {},
        "properties": {**properties, "item_json": json.dumps(item, sort_keys=True)},
    }
