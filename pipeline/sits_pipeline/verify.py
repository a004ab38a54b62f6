"""Prove a dataset: every file against its SHA-256 in the journal, the journal against the cube's cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sits_catalog.cube import VERSION
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, encode_line, is_being_built, segments, split_under_way
from sits_pipeline.store import CUBE
from sits_pipeline.values import JsonObject

__all__ = ["Finding", "files_line", "verify"]

_ROOT = f"{CUBE}/zarr.json"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    file: str
    """Name inside of the dataset."""
    what: str
    incomplete: bool = False
    """The build has not ended, or some sources could not be read; nothing is damaged."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def files_line(hashes: Mapping[str, list[int | str]], journal_sha256: str) -> JsonObject:
    """The journal's last line: size and SHA-256 of every file that no cell line lists, and that of all lines before."""
    line: JsonObject = {"kind": "files", "files": dict(hashes), "journal_sha256": journal_sha256}
    return {**line, "line_sha256": hashlib.sha256(encode_line(line)).hexdigest()}


def verify(folder: Folder, *, progress: Callable[[int, int], None] | None = None, threads: int = 0) -> list[Finding]:
    """All findings; an empty list means that each byte is what the build wrote.

    Reads every file once, in parts, `threads` at a time; 0: two of a disk, eight of a store, which is far away. Raises
    FileNotFoundError where there is no dataset, and as `Folder.check` for a store that does not let us in.
    """
    folder.check()
    if not folder.exists(_ROOT):
        raise FileNotFoundError(f"no dataset in {folder.location}: it has no {CUBE}; give the folder that holds it")
    # A process that died before its first line was whole has begun nothing, and leaves a segment that tells of nothing.
    if not folder.exists(MERGED) or is_being_built(folder) or split_under_way(folder) is not None:
        return [Finding("journal", _not_finished(folder), True)]
    attributes, findings = _attributes(folder), []
    if attributes is None:
        findings.append(Finding(_ROOT, "cannot be read: it is no metadata of a sits-cube"))
    elif attributes.get("version") != VERSION:
        return [_other_version(attributes)]
    journal = _read_merged(folder)
    if isinstance(journal, Finding):
        return [*findings, journal]
    entries, files = journal
    if attributes is not None:
        findings += _completeness(attributes, entries)
    expected = {**{name: (int(size), str(sha)) for name, (size, sha) in files.items()}, **_shards(entries)}
    begun = set(segments(folder))
    sizes = {name: size for name, size in folder.sizes().items() if name not in begun}
    findings += _extra(sizes, expected)
    findings += _hashes(folder, expected, sizes, progress, threads or (2 if folder.is_local else 8))
    return findings


def _not_finished(folder: Folder) -> str:
    if split_under_way(folder) is not None:
        return (
            "a split is under way, so that old and new splits are mixed; run the same sits-cube split command to go on"
        )
    if "imported" in (_attributes(folder) or {}):
        return "the import has not finished; run the same sits-cube import command to go on"
    return "the build has not finished; run the same sits-build command to go on"


def _attributes(folder: Folder) -> JsonObject | None:
    """The attribute `sits_cube`, from the JSON alone; None where it cannot be read."""
    try:
        found = json.loads(folder.read(_ROOT))["attributes"]["sits_cube"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _read_merged(folder: Folder) -> tuple[list[JsonObject], dict[str, list[int | str]]] | Finding:
    data = folder.read(MERGED)
    *lines, last, tail = (b"\n" + data).split(b"\n")
    try:
        entries = [json.loads(line) for line in lines[1:]]
        final = json.loads(last)
        own = final.pop("line_sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        return Finding(MERGED, "is damaged or cut short: a line is no JSON object")
    if tail or final.get("kind") != "files" or hashlib.sha256(encode_line(final)).hexdigest() != own:
        return Finding(MERGED, "is damaged or cut short: its last line does not match its own SHA-256")
    before = data[: len(data) - len(last) - 1]
    if hashlib.sha256(before).hexdigest() != final["journal_sha256"]:
        return Finding(MERGED, "is damaged: its lines do not match the SHA-256 in its last line")
    return entries, final["files"]


def _other_version(attributes: JsonObject) -> Finding:
    found = attributes.get("version")
    return Finding(_ROOT, f"was written as sits-cube {found}; this program knows {VERSION}: use the matching release")


def _completeness(attributes: JsonObject, entries: Iterable[JsonObject]) -> Iterator[Finding]:
    cells: dict[tuple[int, ...], JsonObject] = {}
    for entry in entries:
        if entry["kind"] == "plan" and entry["config_sha256"] != attributes.get("config_sha256"):
            yield Finding(MERGED, "is stale: it belongs to a build with another configuration than the cube")
        if entry["kind"] == "cell":
            cells[tuple(entry["cell"])] = entry
    expected = attributes.get("cells", {}).get("count")
    if expected != len(cells):
        yield Finding(
            MERGED, f"lists {len(cells)} cells, the cube has {expected}: it is stale or the build was cut short"
        )
    unread = sum(bool(entry["failures"]) for entry in cells.values())
    if unread or not attributes.get("complete"):
        yield Finding(
            MERGED,
            f"the cube is not complete: {unread} cells have sources that could not be read; build again to fill them",
            incomplete=True,
        )


def _shards(entries: Iterable[JsonObject]) -> dict[str, tuple[int, str]]:
    """Stored shards by file name; a later line of a cell replaces an earlier one."""
    by_cell = {tuple(entry["cell"]): entry["shards"] for entry in entries if entry["kind"] == "cell"}
    return {
        f"{CUBE}/{key}": (int(size), str(sha)) for shards in by_cell.values() for key, (size, sha) in shards.items()
    }


def _extra(sizes: Mapping[str, int], expected: Mapping[str, tuple[int, str]]) -> Iterator[Finding]:
    for name in sizes:
        if name.endswith(".partial"):
            yield Finding(name, "is left over from an interrupted write")
        elif name not in expected and name != MERGED:
            yield Finding(name, "is not listed in the journal: the journal is stale or the file does not belong here")


def _hashes(
    folder: Folder,
    expected: Mapping[str, tuple[int, str]],
    sizes: Mapping[str, int],
    progress: Callable[[int, int], None] | None,
    threads: int,
) -> list[Finding]:
    findings = []
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda item: _check_file(folder, item[0], sizes, *item[1]), sorted(expected.items()))
        for done, finding in enumerate(results, 1):
            if finding is not None:
                findings.append(finding)
            if progress is not None:
                progress(done, len(expected))
    return findings


def _check_file(folder: Folder, name: str, sizes: Mapping[str, int], size: int, sha256: str) -> Finding | None:
    kind = "shard" if "/c/" in name else "file"
    found = sizes.get(name)
    if found is None:
        return Finding(name, f"{kind} is missing")
    if found != size:
        return Finding(name, f"{kind} has {found} bytes, {size} were written")
    if _sha256(folder, name, size) != sha256:
        return Finding(name, f"{kind} is damaged: its SHA-256 is not the one in the journal")
    return None


def _sha256(folder: Folder, name: str, size: int) -> str:
    digest = hashlib.sha256()
    for part in folder.read_parts(name, size=size):
        digest.update(part)
    return digest.hexdigest()
