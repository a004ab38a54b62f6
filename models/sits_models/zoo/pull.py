"""`sits-model zoo pull`: weights from anywhere into a registry, every byte checked, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sits_catalog.stac import StoredFile
from sits_models.folder import lock_folder
from sits_models.zoo.entry import CARD, ITEM, Entry, checksums, read_entry, stored_file
from sits_models.zoo.registry import INDEX, Registry, read_index, shipped, split_name
from sits_models.zoo.sources import HUB, Address, HubRepository, Source

__all__ = ["Pulled", "pull", "remote_entries"]

_LARGEST_JSON = 32 << 20
"""Bytes of an index, an item or a card: far more than any has."""
_LARGEST_WEIGHTS = 16 << 30
"""Bytes of all files together; they are read into memory to be checked."""


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What became of a pull."""

    entry: Entry
    folder: Path
    fetched: int
    """Files that came; 0 where the weights were there already."""


def pull(text: str, *, registry: Registry) -> Pulled:
    """Bring the weights that `text` names into a registry.

    A name that is there, or is shipped, is left where it is; else a folder of weights, a registry with "/NAME" or
    "/NAME@VERSION" behind it (both as a folder or as a URL), or hf://ORG/REPO[@REVISION]. Files come into a partial
    folder, in which a later pull goes on; they move into the registry when each has its SHA-256. Of weights that are
    there and damaged, what is not as it should be is fetched again.

    Raises FileNotFoundError where there are no weights, ValueError where they are none that were pushed, and OSError
    where a file could not be had or is damaged.
    """
    there = _already_there(text, registry)
    if there is not None:
        return there
    registry.folder.mkdir(parents=True, exist_ok=True)
    key = f"pull-{sha256(text.encode()).hexdigest()[:16]}"
    with lock_folder(registry.folder), registry.partial(key, keep=True) as partial:
        source, listed = _locate(text, partial)
        # The card says which weights these are; where they are there, nothing else is fetched.
        for name in (CARD, ITEM):
            known = None if listed is None else listed.files[name]
            _fetch(source, name, partial, known, again=True, limit=_LARGEST_JSON)
        files = _described(source, partial)
        _check_room(source, files, partial)
        _check_same(source, CARD, partial, files[CARD])
        coming = _coming(source, partial)
        stored = registry.folder_of(coming)
        whole = [name for name, file in coming.files.items() if _is(stored / name, file)]
        if len(whole) == len(coming.files):
            registry.write_index()  # of a pull that was stopped before it
            return Pulled(entry=coming, folder=stored, fetched=0)
        for name in whole:
            shutil.copyfile(stored / name, partial / name)
        fetched = 2 + sum(_fetch(source, name, partial, file) for name, file in files.items() if name != CARD)
        _check_tensors(source, partial)
        _drop_strangers(partial, {*files, ITEM})
        entry = registry.add(partial)
    return Pulled(entry=entry, folder=registry.folder_of(entry), fetched=fetched)


def remote_entries(text: str, scratch: Path) -> tuple[Entry, ...]:
    """What the index of a registry at an address lists."""
    place = Address(text)
    target = scratch / INDEX
    try:
        place.fetch(INDEX, target, limit=_LARGEST_JSON)
    except FileNotFoundError:
        raise FileNotFoundError(f"{place.address} is no registry of weights: it has no {INDEX}") from None
    return read_index(target.read_bytes(), origin=f"{place.address}/{INDEX}")


def _already_there(text: str, registry: Registry) -> Pulled | None:
    try:
        name, version = split_name(text)
    except ValueError:
        return None
    for known in (registry, shipped()):
        entry = known.find(name, version)
        if entry is not None:
            folder = known.folder_of(entry)
            damaged = [name for name, file in entry.files.items() if not _is(folder / name, file)]
            if damaged:
                raise OSError(f"{folder / damaged[0]} is damaged; pull these weights again from where they came")
            return Pulled(entry=entry, folder=folder, fetched=0)
    if Path(text).is_dir():
        return None
    raise FileNotFoundError(
        f"no weights named {text} in {registry.folder}, and none are shipped; to pull others give their folder, URL or "
        "hf://ORG/REPO"
    )


def _locate(text: str, scratch: Path) -> tuple[Source, Entry | None]:
    """Where the files are, and what a registry says of them."""
    if text.startswith(HUB):
        return HubRepository.of(text), None
    place = Address(text)
    if _has(place, ITEM, scratch):
        return place, None
    if _has(place, INDEX, scratch):
        entries = _entries(place, scratch)
        names = sorted({entry.name for entry in entries})
        if len(names) != 1:
            raise ValueError(
                f"{place.address} is a registry of {', '.join(names) or 'no weights'}; give {place.address}/NAME"
            )
        return _of_registry(place, entries, names[0], None)
    name, version = _name_of(place)
    if name is None or not _has(place.parent, INDEX, scratch):
        raise FileNotFoundError(f"{place.address} holds no {ITEM} of weights and no {INDEX} of a registry")
    return _of_registry(place.parent, _entries(place.parent, scratch), name, version)


def _of_registry(place: Address, entries: tuple[Entry, ...], name: str, version: str | None) -> tuple[Address, Entry]:
    found = [entry for entry in entries if entry.name == name and entry.version.startswith(version or "")]
    if not found:
        known = ", ".join(f"{entry.name}@{entry.version}" for entry in entries) or "none"
        wanted = name if version is None else f"{name}@{version}"
        raise FileNotFoundError(f"the registry {place.address} has no {wanted}; it has: {known}")
    latest = max(found, key=lambda entry: (entry.created, entry.version))
    return place.below(latest.path), latest


def _name_of(place: Address) -> tuple[str | None, str | None]:
    try:
        return split_name(place.name)
    except ValueError:
        return None, None


def _entries(place: Address, scratch: Path) -> tuple[Entry, ...]:
    return read_index((scratch / INDEX).read_bytes(), origin=f"{place.address}/{INDEX}")


def _has(place: Address, name: str, scratch: Path) -> bool:
    try:
        place.fetch(name, scratch / name, limit=_LARGEST_JSON)
    except FileNotFoundError:
        return False
    return True


# Files


def _check_room(source: Source, files: Mapping[str, StoredFile], partial: Path) -> None:
    """Raise OSError where the sizes that a stranger states are more than weights have, or than there is room for."""
    here = {path.name: path.stat().st_size for path in partial.iterdir()}
    total = sum(file.size for name, file in files.items() if here.get(name) != file.size)
    if total > _LARGEST_WEIGHTS:
        raise OSError(
            f"{source.address} says that its files have {total / 1e9:.1f} GB, more than the "
            f"{_LARGEST_WEIGHTS / 1e9:.1f} GB that weights may have; where that is right, fetch them by hand"
        )
    free = shutil.disk_usage(partial).free
    if total > free:
        raise OSError(
            f"the weights of {source.address} have {total / 1e9:.1f} GB and the disk of {partial.parent} has "
            f"{free / 1e9:.1f} GB left; make room"
        )


def _fetch(
    source: Source,
    name: str,
    partial: Path,
    expected: StoredFile | None,
    *,
    again: bool = False,
    limit: int = _LARGEST_WEIGHTS,
) -> bool:
    """Fetch a file into the partial folder, whole and of its hash; False where it lies there already."""
    target = partial / name
    if not again and expected is not None and _is(target, expected):
        return False
    coming = partial / f"{name}.coming"
    try:
        source.fetch(name, coming, limit=limit if expected is None else min(limit, expected.size))
        if expected is not None:
            _check_same(source, f"{name}.coming", partial, expected)
        coming.replace(target)
    finally:
        coming.unlink(missing_ok=True)
    return True


def _is(path: Path, file: StoredFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and stored_file(path) == file


def _check_same(source: Source, name: str, partial: Path, expected: StoredFile) -> None:
    found = stored_file(partial / name)
    if found != expected:
        plain = name.removesuffix(".coming")
        raise OSError(
            f"{plain} of {source.address} has {found.size} bytes and the SHA-256 {found.sha256}, and should have "
            f"{expected.size} and {expected.sha256}: it was damaged on its way, or replaced; nothing was kept of it"
        )


def _described(source: Source, partial: Path) -> dict[str, StoredFile]:
    origin = f"{ITEM} of {source.address}"
    try:
        item = json.loads((partial / ITEM).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not JSON: {error}") from error
    return checksums(item, origin=origin)


def _coming(source: Source, partial: Path) -> Entry:
    """What a card and an item say of their weights. Raises ValueError where they were never pushed."""
    try:
        return read_entry(partial)
    except ValueError as error:
        raise ValueError(f"{source.address} holds no weights that were pushed: {error}") from error


def _check_tensors(source: Source, partial: Path) -> None:
    from sits_models.checkpoints import check_tensors

    try:
        check_tensors(partial)
    except ValueError as error:
        raise OSError(f"the weights of {source.address} are damaged: {error}") from error


def _drop_strangers(partial: Path, names: set[str]) -> None:
    """What earlier attempts left: the index, and files of another version of these weights."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)  # of a download from the hub that was killed
        elif path.name not in names:
            path.unlink()
