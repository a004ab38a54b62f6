"""Write an original dataset down as one dataset of the profile `patches`, or go on where an earlier run stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from sits_pipeline.finish import Outcome, is_finished
from sits_pipeline.folder import Folder
from sits_pipeline.importers.dataset import ImportedDataset
from sits_pipeline.importers.finish import KNOWN_FILES, finish_import, outcome_of
from sits_pipeline.importers.original import Original
from sits_pipeline.importers.shard import import_shard
from sits_pipeline.importers.stamps import changed_shards
from sits_pipeline.journal import CellLines, Journal, segments
from sits_pipeline.prepare import Listener
from sits_pipeline.run import BuiltCells, now
from sits_pipeline.store import CUBE, ROOT, check_version, read_attributes, repair_metadata
from sits_pipeline.store.patches import conclude_patches, create_patches, patch_metadata
from sits_pipeline.values import JsonObject

__all__ = ["import_dataset"]

_MAX_THREADS = 4
"""Each holds one shard, some 300 MB with its copies, so that memory does not grow with the machine."""


def import_dataset(
    original: Original,
    out: str,
    listener: Listener,
    *,
    id: str | None = None,  # noqa: A002  # the field's own name
    threads: int = 0,
) -> Outcome:
    """Write, or take up, the dataset of an original under `out`; its folder is called `id`, or as the original says.

    Shards are computed by so many threads; 0: as many as there are cores, at most four. Raises BlockingIOError where
    another process writes the same dataset, FileExistsError where another one is in its place, and FileNotFoundError or
    ValueError, in one sentence, where files of the original are missing or not of the format: what was written by then
    stands, and the same command goes on. Shards whose files have changed since they were imported are read again.
    """
    facts = original.facts if id is None else replace(original.facts, id=id)
    created, folder = now(), Folder(out).sub(facts.id)
    with Folder(out).lock(facts.id):
        earlier = _standing(folder)
        listener.stage(f"reading the index of {facts.title}")
        dataset = ImportedDataset.of(folder, facts, original.index(), created)
        if earlier is not None:
            dataset = _as_begun(dataset, earlier)
        return _import(dataset, original, listener, earlier, threads or min(_MAX_THREADS, os.cpu_count() or 1))


def _import(
    dataset: ImportedDataset, original: Original, listener: Listener, earlier: JsonObject | None, threads: int
) -> Outcome:
    folder, shards = dataset.folder, dataset.shards()
    if earlier is None:
        _create(dataset)
    else:
        _mend(dataset, earlier, listener)
    done = set() if earlier is None else _unchanged(original, dataset, listener, threads)
    missing = [key for key in shards if key not in done]
    if not missing and is_finished(dataset):
        return outcome_of(dataset, CellLines(folder), built=0)
    journal = Journal(folder)
    # From here on, and until it is merged, the import is under way.
    journal.append(dataset.plan_line)
    if missing:
        listener.stage(f"importing {len(dataset.patches)} patches in {len(missing)} of {len(shards)} shards")
        listener.progress(len(done), len(shards))

    def work(key: tuple[int, int]) -> JsonObject:
        return import_shard(original, dataset, *key)

    try:
        for built, entry in enumerate(in_threads(work, missing, threads), 1):
            journal.append(entry)
            listener.progress(len(done) + built, len(shards))
    finally:
        journal.flush()
    folder.remove_partials()
    listener.stage(f"finishing {dataset.facts.id}")
    return finish_import(dataset, journal, built=len(missing))


def _unchanged(original: Original, dataset: ImportedDataset, listener: Listener, threads: int) -> set[tuple[int, ...]]:
    """Shards that stand, made of the files that the original has now. Raises FileNotFoundError where one is missing."""
    folder = dataset.folder
    done = BuiltCells.read(folder).done
    if done:
        listener.stage(f"comparing files of the original with those that {len(done)} shards were made of")
    changed = done & changed_shards(original, dataset.patches, folder, threads)
    if changed:
        listener.stage(f"files of {len(changed)} shards have changed since they were imported; these are read again")
    return done - changed


def in_threads(
    work: Callable[[tuple[int, int]], JsonObject], keys: Sequence[tuple[int, int]], threads: int
) -> Iterator[JsonObject]:
    """What `work` makes of each key, as it comes; only so many keys are worked on or waited for at a time.

    The first error ends it: what is being worked on is still given out, and then the error is raised.
    """
    waiting: set[Future[JsonObject]] = set()
    left, failed = iter(keys), None
    with ThreadPoolExecutor(threads) as pool:
        while True:
            while failed is None and len(waiting) < threads and (key := next(left, None)) is not None:
                waiting.add(pool.submit(work, key))
            if not waiting:
                break
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                if (error := future.exception()) is None:
                    yield future.result()
                else:
                    failed = failed or error
    if failed is not None:
        raise failed


# What is to be there


def _standing(folder: Folder) -> JsonObject | None:
    """The attribute `sits_cube` of the store that is there; None where there is none.

    Raises FileExistsError where it is no import, ValueError where another release wrote it.
    """
    attributes = read_attributes(folder)
    if attributes is None:
        return None
    check_version(folder, attributes)
    if "imported" not in attributes:
        raise FileExistsError(
            f"{folder.location} holds a dataset that was built, not imported; choose another --out or --id, or remove "
            "that folder"
        )
    return attributes


def _as_begun(dataset: ImportedDataset, earlier: JsonObject) -> ImportedDataset:
    """The dataset with the time and the program of the run that began it.

    Raises FileExistsError where that was of another original or with other options.
    """
    if earlier.get("config_sha256") != dataset.config_sha256:
        raise FileExistsError(
            f"{dataset.folder.location} holds an import of another original, or with other options (configuration "
            f"{str(earlier.get('config_sha256'))[:16]}, this one is {dataset.config_sha256[:16]}); choose another "
            "--out or --id, or remove that folder"
        )
    return dataset.with_attributes({name: earlier[name] for name in ("created", "software")})


def _create(dataset: ImportedDataset) -> None:
    """An empty store, and nothing beside it of an earlier one that was removed."""
    folder = dataset.folder
    folder.remove_partials()
    for name in [*segments(folder), *KNOWN_FILES]:
        folder.remove(name)
    create_patches(folder, dataset.layout)


def _mend(dataset: ImportedDataset, earlier: JsonObject, listener: Listener) -> None:
    """Put right what is no pixel's: leftovers of killed writers go, damaged metadata and coordinates are restored."""
    folder, facts = dataset.folder, dataset.facts
    folder.remove_partials()
    mended = repair_metadata(folder, patch_metadata(dataset.layout))
    written = dataset.layout.with_attributes({name: earlier.get(name) for name in ("complete", "statistics")})
    if folder.read(f"{CUBE}/{ROOT}") != patch_metadata(written)[ROOT]:
        conclude_patches(folder, dataset.layout)
        mended.append(ROOT)
    if mended:
        listener.stage(f"restored metadata of {facts.id}: {', '.join(mended)}")
