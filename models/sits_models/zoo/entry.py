"""One set of shared weights as a registry lists it: name, version, what it is, and the hash of each of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from sits_catalog.stac import StoredFile
from sits_models.recipe import ObjectiveName

__all__ = [
    "CARD",
    "FILES",
    "ITEM",
    "LICENCE",
    "LOGITS",
    "README",
    "WEIGHTS",
    "Entry",
    "check_name",
    "checksums",
    "is_version",
    "read_entry",
    "stored_file",
    "version_of",
]

# Written out, so that a list of weights needs no torch.
WEIGHTS, CARD, LOGITS, ITEM = "weights.safetensors", "card.json", "logits.safetensors", "item.json"
README, LICENCE = "README.md", "LICENSE"
FILES = (WEIGHTS, CARD, LOGITS, ITEM, README)
"""What every folder of shared weights holds; the text of the licence may stand beside them. Nothing else is read."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SHORTEST, _LONGEST = 3, 64
"""The MLM extension of STAC asks for three characters, a letter first."""
_VERSION = re.compile(r"[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MULTIHASH = "1220"
"""SHA-256 and its length of 32 bytes, in the notation of the file extension of STAC."""
_PIECE = 1 << 20
_MIOU = ("test_miou", "test_parcel_miou", "validation_miou")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A version of some weights."""

    name: str
    version: str
    """The first 8 hex digits of the SHA-256 of `card.json`, which holds that of each tensor."""
    architecture: str
    objective: str
    """What it was trained for, by the name of the section of its recipe."""
    bands: tuple[str, ...]
    dates: int
    classes: int
    miou: float | None
    """Of the test split where the card has it, else of the validation split; a parcel classifier's is of parcels."""
    licence: str
    simulated: bool
    created: str
    files: Mapping[str, StoredFile]

    @property
    def path(self) -> str:
        """Its folder below that of a registry."""
        return f"{self.name}/{self.version}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {**dataclasses.asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_json(cls, value: object, *, origin: str) -> Self:
        """The entry of plain values that may come from anywhere; `origin` is what an error calls them.

        Raises ValueError where something is missing, or a name could lead out of a folder.
        """
        try:
            data = _mapping(value)
            entry = cls(
                name=check_name(str(data["name"])),
                version=_text(data["version"]),
                architecture=_text(data["architecture"]),
                objective=_text(data["objective"]),
                bands=tuple(map(_text, _list(data["bands"]))),
                dates=int(str(data["dates"])),
                classes=int(str(data["classes"])),
                miou=None if data["miou"] is None else float(str(data["miou"])),
                licence=_text(data["licence"]),
                simulated=data["simulated"] is True,
                created=_text(data["created"]),
                files={str(name): _file(_mapping(file)) for name, file in _mapping(data["files"]).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{origin} lists no weights that can be read: {error}") from error
        if not _VERSION.fullmatch(entry.version):
            raise ValueError(f"{origin} lists {entry.name} in a version that is none: {entry.version!r}")
        _check_files(entry.files, origin)
        return entry


def check_name(name: str) -> str:
    """The name. Raises ValueError where it is not one that weights may have."""
    if not (_NAME.fullmatch(name) and _SHORTEST <= len(name) <= _LONGEST):
        raise ValueError(
            f"weights are named with {_SHORTEST} to {_LONGEST} lower case letters, digits and single dashes, a letter "
            f"first, such as demo-unet3df; got {name!r}"
        )
    return name


def is_version(text: str) -> bool:
    """Whether a version could be called so."""
    return _VERSION.fullmatch(text) is not None


def version_of(card: bytes) -> str:
    """The version of weights with this `card.json`."""
    return hashlib.sha256(card).hexdigest()[:8]


def stored_file(path: Path) -> StoredFile:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return StoredFile(size=path.stat().st_size, sha256=digest.hexdigest())


def checksums(item: object, *, origin: str) -> dict[str, StoredFile]:
    """Size and SHA-256 of the files that a STAC item has as assets beside it.

    Raises ValueError where an asset has none, or is no file of shared weights.
    """
    files: dict[str, StoredFile] = {}
    try:
        for asset in map(_mapping, _mapping(_mapping(item)["assets"]).values()):
            found = str(asset["file:checksum"])
            name = str(asset["href"]).removeprefix("./")
            files[name] = _file({"size": asset["file:size"], "sha256": found.removeprefix(_MULTIHASH)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{origin} is no STAC item of weights: {error} is missing or of a wrong kind") from error
    _check_files({**files, ITEM: StoredFile(size=0, sha256="0" * 64)}, origin)
    return files


def read_entry(folder: Path) -> Entry:
    """The entry of a folder of shared weights. Raises ValueError or FileNotFoundError where it is none."""
    text = (folder / CARD).read_bytes()
    read, item = _json(folder / CARD), _json(folder / ITEM)
    try:
        card = _mapping(read)
        recipe, publication = _mapping(card["recipe"]), _mapping(card["publication"])
        metrics = _mapping(card["metrics"])
        summary = {
            "name": publication["name"],
            "version": version_of(text),
            "architecture": _mapping(recipe["backbone"])["name"],
            "objective": next(kind for kind in get_args(ObjectiveName) if kind in recipe),
            "bands": card["bands"],
            "dates": card["dates"],
            "classes": len(_list(card["classes"])),
            "miou": next((metrics[key] for key in _MIOU if key in metrics), None),
            "licence": publication["licence"],
            "simulated": card["simulated"],
            "created": publication["created"],
        }
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"{folder / CARD} is no card of shared weights: {error}; push the weights first") from error
    files = checksums(item, origin=str(folder / ITEM))
    files[ITEM] = stored_file(folder / ITEM)
    plain = {name: dataclasses.asdict(file) for name, file in files.items()}
    return Entry.from_json({**summary, "files": plain}, origin=str(folder))


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _check_files(files: Mapping[str, StoredFile], origin: str) -> None:
    unknown = sorted(set(files) - {*FILES, LICENCE})
    if unknown:
        raise ValueError(f"{origin} lists {unknown[0]!r}, which is no file of weights; nothing was read")
    missing = [name for name in FILES if name not in files]
    if missing:
        raise ValueError(f"{origin} lists no {missing[0]}; push the weights again")


def _text(value: object) -> str:
    """As it may be shown: a control character would speak to the terminal."""
    text = str(value)
    if not text.isprintable():
        raise ValueError(f"characters that cannot be shown, in {text[:40]!r}")
    return text


def _file(data: Mapping[str, object]) -> StoredFile:
    size, sha256 = int(str(data["size"])), str(data["sha256"])
    if size < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError(f"a file of {size} bytes with the SHA-256 {sha256!r}")
    return StoredFile(size=size, sha256=sha256)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"keys with values, got {str(value)[:40]!r}")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"a list, got {str(value)[:40]!r}")
    return value
