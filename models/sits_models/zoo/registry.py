"""Registries: folders that hold weights by name and version, with an index that any web server can serve."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from sits_catalog.addresses import without_secrets
from sits_catalog.documents import did_you_mean
from sits_models.folder import sync, write_whole
from sits_models.zoo.entry import CARD, WEIGHTS, Entry, check_name, is_version, read_entry

__all__ = [
    "INDEX",
    "PARTIAL",
    "Registry",
    "default_registry",
    "find_weights",
    "folder_registry",
    "read_index",
    "shipped",
    "split_name",
]

INDEX = "index.json"
PARTIAL = ".partial"
"""Folder of a registry where weights lie that are not whole yet."""
_FORMAT, _VERSION = "sits-zoo", "1.0"


@dataclass(frozen=True)
class Registry:
    """A folder of weights: `NAME/VERSION/` for each, and `index.json`."""

    folder: Path

    def entries(self) -> tuple[Entry, ...]:
        """All that it holds and that can be read, by name, the latest first."""
        return tuple(entry for path in _folders(self.folder) for entry in self.versions(path.name))

    def damaged(self) -> tuple[str, ...]:
        """A sentence, with the folder, for each version that cannot be read."""
        return tuple(
            found for name in _folders(self.folder) for path in _versions(name) if isinstance(found := _read(path), str)
        )

    def versions(self, name: str) -> tuple[Entry, ...]:
        """All versions of a name that can be read, the latest first."""
        found = [entry for path in _versions(self.folder / name) if isinstance(entry := _read(path), Entry)]
        return tuple(sorted(found, key=_moment, reverse=True))

    def find(self, name: str, version: str | None = None) -> Entry | None:
        """The latest version of a name, or the one that begins so; None where there is none.

        Raises ValueError, naming the folder, where one that may be meant is damaged: an older one is not taken for it.
        """
        found: list[Entry] = []
        for path in _versions(self.folder / name):
            if path.name.startswith(version or ""):
                entry = _read(path)
                if isinstance(entry, str):
                    raise ValueError(entry)
                found.append(entry)
        return max(found, key=_moment, default=None)

    def folder_of(self, entry: Entry) -> Path:
        """Where the files of an entry are."""
        return self.folder / entry.name / entry.version

    def add(self, partial: Path) -> Entry:
        """Move a whole folder of weights in, in place of a damaged one, and write the index anew; the entry."""
        entry = read_entry(partial)
        target = self.folder_of(entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in partial.iterdir():
            sync(path)
        aside = self.folder / PARTIAL / f"replaced-{entry.name}-{entry.version}"
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            target.rename(aside)
        partial.rename(target)
        sync(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
        self.write_index()
        return entry

    @contextmanager
    def partial(self, key: str, *, keep: bool = False) -> Iterator[Path]:
        """A folder for weights that are not whole yet; gone afterwards, unless `keep` and something went wrong."""
        folder = self.folder / PARTIAL / key
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        except BaseException:
            if not keep:
                self._drop(folder)
            raise
        self._drop(folder)

    def _drop(self, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        if not any((self.folder / PARTIAL).iterdir()):
            (self.folder / PARTIAL).rmdir()

    def write_index(self) -> None:
        """What a reader without a listing of folders needs, whole or not at all; as it is where it is right."""
        index = {
            "format": _FORMAT,
            "version": _VERSION,
            "weights": [{**entry.to_json(), "path": entry.path} for entry in self.entries()],
        }
        path, text = self.folder / INDEX, (json.dumps(index, indent=1) + "\n").encode()
        if not path.is_file() or path.read_bytes() != text:
            write_whole(path, text)


def read_index(text: bytes, *, origin: str) -> tuple[Entry, ...]:
    """The entries of an `index.json`, which may come from anywhere. Raises ValueError."""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not JSON: {error}") from error
    if not isinstance(index, dict) or index.get("format") != _FORMAT or not isinstance(index.get("weights"), list):
        raise ValueError(f"{origin} is no index of a registry of weights")
    if str(index.get("version")).partition(".")[0] != _VERSION.partition(".")[0]:
        raise ValueError(
            f"{origin} should be an index of {_FORMAT} {_VERSION}; it says {str(index.get('version'))[:40]!r}"
        )
    return tuple(Entry.from_json(entry, origin=origin) for entry in index["weights"])


def default_registry() -> Registry:
    """The folder that the environment variable SITS_ZOO names, else one among the user's data."""
    chosen = os.environ.get("SITS_ZOO")
    if chosen:
        return folder_registry(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    return Registry((Path(data) if data else Path.home() / ".local" / "share") / "sits-cubes" / "zoo")


def folder_registry(text: str) -> Registry:
    """The registry of a folder on this machine. Raises ValueError for a URL, which would become the name of one."""
    if "://" in text:
        raise ValueError(
            f"weights are put into a folder of this machine; got {without_secrets(text)}: give a folder, and copy it "
            "there with the client of that storage (only `zoo push` knows another place, hf://ORG/REPO)"
        )
    return Registry(Path(text).expanduser())


def shipped() -> Registry:
    """The weights that come with this package."""
    return Registry(Path(str(files("sits_models") / "zoo" / "weights")))


def split_name(text: str) -> tuple[str, str | None]:
    """Name and version of "NAME" or "NAME@VERSION". Raises ValueError for a name that weights cannot have."""
    name, _, version = text.partition("@")
    return check_name(name), version or None


def find_weights(text: str) -> Path:
    """The folder of weights that `text` names: a folder of weights, or of a run, or NAME or NAME@VERSION of the zoo.

    Weights of the user's registry go before those shipped under the same name. Raises FileNotFoundError with the names
    there are; what is no name stays a path, and is for the reader of it to refuse.
    """
    path = Path(text)
    if any((folder / WEIGHTS).is_file() for folder in (path, path / "weights")) or (path / "recipe.yaml").is_file():
        return path
    try:
        name, version = split_name(text)
    except ValueError:
        return path
    registries = (default_registry(), shipped())
    for registry in registries:
        entry = registry.find(name, version)
        if entry is not None:
            return registry.folder_of(entry)
    if path.exists():
        return path
    known = sorted({entry.name for registry in registries for entry in registry.entries()})
    raise FileNotFoundError(
        f"no folder {text}, and no weights of this name in the zoo{did_you_mean(name, known)}; there is: "
        f"{', '.join(known) or 'none'}; or give a folder of weights, or of a finished run"
    )


def _versions(folder: Path) -> list[Path]:
    """What may be a version of the name that a folder bears."""
    return [path for path in _folders(folder) if (path / CARD).is_file() or is_version(path.name)]


def _read(folder: Path) -> Entry | str:
    """The entry of NAME/VERSION, or why there is none."""
    try:
        entry = read_entry(folder)
    except (ValueError, OSError) as error:
        why = str(error)
    else:
        if (entry.name, entry.version) == (folder.parent.name, folder.name):
            return entry
        why = f"its {CARD} is that of {entry.name}@{entry.version}"
    return f"the weights in {folder} are damaged: {why}; pull or push them again, or remove the folder"


def _moment(entry: Entry) -> tuple[str, str]:
    return entry.created, entry.version


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
