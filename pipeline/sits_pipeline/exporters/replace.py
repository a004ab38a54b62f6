"""A new folder that takes the place of an earlier export, whole or not at all, whenever a process ends."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sits_pipeline.folder import Folder

__all__ = ["MANIFEST", "check_outside", "whole_folder"]

MANIFEST = "export.json"
"""What was exported, and the mark of a folder that another export may replace."""


@contextmanager
def whole_folder(out: Path, *, dataset: Folder, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, and is removed where something fails before.

    What a killed export to `out` left is removed, or put back where it was `out` itself. Raises FileExistsError where
    `out` is there and not empty: unless `overwrite`, and then where no export wrote it; BlockingIOError while another
    export writes it; ValueError where it is in the dataset, or around it.
    """
    out = out.resolve()
    check_outside(out, dataset)
    _check_free(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(out)
    _check_free(out, overwrite=overwrite)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    held = _hold(partial)
    try:
        yield partial
        _swap(partial, out)
    finally:
        if partial.exists():
            shutil.rmtree(partial)
        if held is not None:
            os.close(held)


def check_outside(out: Path, dataset: Folder) -> None:
    """Raises ValueError where `out` is the dataset's folder, in it, or around it."""
    if not dataset.is_local:
        return
    out, there = out.resolve(), dataset.path.resolve()
    if out.is_relative_to(there):
        raise ValueError(f"{out} is in the dataset {there}, which holds its own files alone; choose another --out")
    if there.is_relative_to(out) and (out / MANIFEST).exists():
        raise ValueError(f"{out} holds the dataset {there}, which would be replaced as well; choose another --out")


def _check_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder for the export")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{out} is there and not empty; choose another --out, or --overwrite to replace an export"
        )
    if not (out / MANIFEST).is_file():
        raise FileExistsError(
            f"{out} was not written by an export (it has no {MANIFEST}), so it is not replaced; choose another --out"
        )


def _swap(partial: Path, out: Path) -> None:
    """Put `partial` in the place of `out`; where that fails, `out` stays what it was."""
    earlier = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.earlier.partial") if out.exists() else None
    if earlier is not None:
        out.replace(earlier)
    try:
        partial.replace(out)
    except BaseException:
        if earlier is not None:
            earlier.replace(out)
        raise
    if earlier is not None:
        shutil.rmtree(earlier)


def _hold(folder: Path) -> int | None:
    """A descriptor of the folder, locked as long as this process lives; None where another one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed export to `out` left; an earlier export that it had just moved away is put back."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}(\.earlier)?\.partial")
    left = [path for path in out.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    earlier = [path for path in left if path.name.endswith(".earlier.partial")]
    for path in left:
        if path in earlier:
            continue
        held = _hold(path)
        if held is None:
            raise BlockingIOError(f"another export is writing {out}; wait for it, or choose another --out")
        os.close(held)
        shutil.rmtree(path)
    for path in earlier:
        if out.exists():
            shutil.rmtree(path)
        else:
            path.replace(out)
