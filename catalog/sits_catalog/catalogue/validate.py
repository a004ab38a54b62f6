"""Whether a catalogue still tells the truth: its files among each other, and the datasets they speak of."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sits_catalog.catalogue.folder import Catalogue, Entry, read_json
from sits_catalog.catalogue.write import dataset_of

__all__ = ["can_check_schemas", "findings"]

JsonObject = dict[str, Any]

_SCHEMAS = "https://schemas.stacspec.org/v1.1.0"
_KINDS = {
    "Catalog": f"{_SCHEMAS}/catalog-spec/json-schema/catalog.json",
    "Collection": f"{_SCHEMAS}/collection-spec/json-schema/collection.json",
    "Feature": f"{_SCHEMAS}/item-spec/json-schema/item.json",
}


def can_check_schemas() -> bool:
    """Whether this machine has what the official core schemas need (`jsonschema`)."""
    return importlib.util.find_spec("jsonschema") is not None


def findings(catalogue: Catalogue) -> Iterator[str]:
    """What is wrong, a sentence each; nothing: all is well.

    Every document against the core schemas of STAC 1.1.0, and not those of extensions, where `can_check_schemas`; every
    link inside of the catalogue; and of every dataset, whether it lies where the catalogue says and is what was added.
    Raises FileNotFoundError where there is no catalogue.
    """
    catalogue.check_exists()
    with catalogue.locked():
        entries = catalogue.entries()
        documents = [
            catalogue.folder / "catalog.json",
            *sorted({entry.folder.parent / "collection.json" for entry in entries}),
            *(entry.folder / f"{entry.id}.json" for entry in entries),
            *(path for entry in entries for path in sorted((entry.folder / "splits").glob("*.json"))),
        ]
        found = list(_document_findings(catalogue.folder, documents)) + list(_table_findings(catalogue, entries))
    yield from found
    for entry in entries:
        yield from _dataset_findings(catalogue, entry)


# Documents


def _document_findings(folder: Path, paths: list[Path]) -> Iterator[str]:
    check = _schema_check() if can_check_schemas() else None
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            document = read_json(path)
        except FileNotFoundError:
            yield f"{name}: missing; run `sits-catalog cubes add` of any dataset to write it again"
            continue
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        if check is not None:
            yield from (f"{name}: {sentence}" for sentence in check(document))
        yield from (f"{name}: {sentence}" for sentence in _link_findings(path, document))


@cache
def _schema_check() -> Any:
    from jsonschema import Draft7Validator  # type: ignore[import-untyped]
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry
    from referencing.jsonschema import DRAFT7

    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources([(uri, DRAFT7.create_resource(one)) for uri, one in schemas.items()])
    validators = {kind: Draft7Validator(schemas[uri], registry=registry) for kind, uri in _KINDS.items()}

    def check(document: JsonObject) -> Iterator[str]:
        validator = validators.get(str(document.get("type")))
        if validator is None:
            yield f"is of the type {document.get('type')!r}, which STAC does not know"
            return
        for error in validator.iter_errors(document):
            where = "/".join(str(part) for part in error.absolute_path)
            yield f"breaks the core schema of STAC 1.1.0 at {where or 'its root'}: {error.message[:200]}"

    return check


def _link_findings(path: Path, document: JsonObject) -> Iterator[str]:
    for link in document.get("links", ()):
        href = str(link.get("href", ""))
        inside = link.get("rel") in ("root", "parent", "collection", "item", "child", "related", "alternate")
        if inside and "://" not in href and not (path.parent / href).is_file():
            yield f"the link {link['rel']} leads to {href}, which is not there"


def _table_findings(catalogue: Catalogue, entries: tuple[Entry, ...]) -> Iterator[str]:
    import pyarrow.parquet as pq

    wanted = {
        "items.parquet": [entry.id for entry in entries],
        "splits.parquet": [split["id"] for entry in entries for split in entry.splits],
    }
    for name, ids in wanted.items():
        path = catalogue.folder / name
        found = pq.read_table(path, columns=["id"])["id"].to_pylist() if path.is_file() else []
        if sorted(found) != sorted(ids):
            yield f"{name}: lists {len(found)} items, the catalogue has {len(ids)}; add any dataset again to write it"


# Datasets


def _dataset_findings(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    files, properties = dataset_of(catalogue, entry), entry.item["properties"]
    again = f"`sits-catalog cubes add {files.location}` takes up what it is now"
    try:
        with files.open("item.json") as file:
            item_sha256 = hashlib.sha256(file.read()).hexdigest()
        journal_sha256 = files.sha256("journal.jsonl")
    except FileNotFoundError:
        yield (
            f"{entry.id}: the dataset is no longer in {files.location}; add it from where it lies now, or take it out "
            f"with `sits-catalog cubes remove {entry.id}`"
        )
        return
    except OSError as error:
        yield f"{entry.id}: {error}"
        return
    if item_sha256 != properties["sits_cube:item_sha256"]:
        yield f"{entry.id}: the dataset in {files.location} has changed since it was added (item.json); {again}"
    elif journal_sha256 != properties["sits_cube:journal_sha256"]:
        yield f"{entry.id}: the dataset in {files.location} has changed since it was added (journal.jsonl); {again}"
