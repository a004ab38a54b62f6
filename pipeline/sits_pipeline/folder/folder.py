"""The value `Folder`: a folder by path or URL."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import fsspec

from sits_pipeline.folder.disk import check_local, files_below, free_bytes, write_errors_in_words
from sits_pipeline.folder.lock import check_held, held_file, held_object, sync_folder
from sits_pipeline.folder.remote import check_answers, errors_in_words, is_s3, open_filesystem, refuse_secrets

__all__ = ["PART_BYTES", "Folder"]

PART_BYTES = 16 * 2**20
"""Of a file that is read in parts."""


@dataclass(frozen=True)
class Folder:
    """A folder by path or URL (`s3://bucket/prefix`, `memory://x`); small and picklable.

    What a store answers becomes one sentence in the nearest built-in exception. Raises ValueError for a URL with a
    user, a password or a query.
    """

    location: str

    def __post_init__(self) -> None:
        if not self.is_local:
            refuse_secrets(self.location)

    @cached_property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system."""
        return "://" not in self.location or self.location.startswith("file://")

    @property
    def path(self) -> Path:
        """The local path. Raises ValueError for a URL."""
        if not self.is_local:
            raise ValueError(f"a local folder is needed here, got {self.location}")
        return Path(self.location.removeprefix("file://"))

    def sub(self, name: str) -> Folder:
        """A folder inside of this one."""
        return Folder(str(self.path / name) if self.is_local else f"{self.location.rstrip('/')}/{name}")

    def check(self) -> None:
        """Ask a store whether it lets us in; a local folder need not be there.

        Raises ValueError where no store answers, FileNotFoundError where it has no such bucket, PermissionError where
        it refuses us.
        """
        if not self.is_local:
            check_answers(self._fs, self.location)

    def check_writable(self) -> None:
        """`check`, and that a file can be written and removed; nothing stays behind. A local folder need not be there.

        Raises as `check`, and PermissionError for a local folder into which nothing can be written.
        """
        try:
            self.check()
            if self.is_local:
                check_local(self.path)
            else:
                name = f"{uuid.uuid4().hex}.partial"
                self.write(name, b"")
                self.remove(name)
        except (OSError, ValueError) as error:
            if self.is_local or is_s3(self.location):
                raise
            # Other file systems know no words of ours.
            raise ValueError(f"{self.location} cannot be written ({error}); check the address of --out") from error

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        if self.is_local:
            return (self.path / name).read_bytes()
        with self.errors_in_words():
            return bytes(self._fs.cat_file(self._url(name)))

    def read_parts(self, name: str, *, size: int) -> Iterator[bytes]:
        """The bytes of a file of this size, PART_BYTES at a time. Raises FileNotFoundError."""
        if self.is_local:
            with (self.path / name).open("rb") as file:
                while part := file.read(PART_BYTES):
                    yield part
            return
        for start in range(0, size, PART_BYTES):
            yield self.read_range(name, start, min(start + PART_BYTES, size))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` to `stop`, fewer where it ends before. Raises FileNotFoundError."""
        if self.is_local:
            with (self.path / name).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        with self.errors_in_words():
            return bytes(self._fs.cat_file(self._url(name), start=start, end=stop))

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole: locally to a partial file that is synced and renamed, elsewhere in one PUT.

        Raises CannotWrite where a local disk takes no more.
        """
        if self.is_local:
            self.write_parts(name, (data,))
            return
        with self.errors_in_words():
            self._fs.pipe_file(self._url(name), data)

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """The same for a file that comes in parts; on a local disk and in an S3 store few are in memory at a time."""
        if self.is_local:
            self._write_local(name, parts)
        elif is_s3(self.location):
            with self.errors_in_words():
                self._upload(name, parts)
        else:
            self.write(name, b"".join(parts))

    def create(self, name: str, data: bytes) -> None:
        """Write a file that is not there yet, whole. Raises FileExistsError where one with other bytes is."""
        if self.is_local or not is_s3(self.location):
            if self.exists(name):
                raise FileExistsError(f"{self._url(name)} is there already")
            self.write(name, data)
            return
        bucket, key, _ = self._fs.split_path(self._url(name))
        with self.errors_in_words():
            try:
                self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except FileExistsError:
                # Also the answer to a second attempt at a request whose first answer was lost on the way.
                if self.read(name) != data:
                    raise FileExistsError(f"{self._url(name)} is there already: another build has written it") from None

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        if self.is_local:
            return (self.path / name).exists()
        with self.errors_in_words():
            return bool(self._fs.exists(self._url(name)))

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None where there is none."""
        try:
            if self.is_local:
                return (self.path / name).stat().st_size
            with self.errors_in_words():
                info = self._fs.info(self._url(name))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        if self.is_local:
            with self.writing():
                (self.path / name).unlink(missing_ok=True)
            return
        with self.errors_in_words(), suppress(FileNotFoundError):
            self._fs.rm_file(self._url(name))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Size in bytes of every file below a sub-folder (or of the file of this name) by its name in this folder.

        Sorted by name. Of a store this is one request a thousand files.
        """
        if self.is_local:
            top = (self.path / below).absolute()
            if top.is_file():
                return {below: top.stat().st_size}
            outside, inside = len(str(top)) + 1, f"{below}/" if below else ""
            sizes = {f"{inside}{entry.path[outside:]}": entry.stat().st_size for entry in files_below(top)}
        else:
            root = self._fs._strip_protocol(self.location).rstrip("/")
            with self.errors_in_words():
                listed = self._fs.find(f"{root}/{below}".rstrip("/"), detail=True)
            # A name that ends with a slash is a browser's mark for a folder, and no file.
            sizes = {
                name.removeprefix(root).lstrip("/"): int(info["size"])
                for name, info in listed.items()
                if not str(info.get("Key", name)).endswith("/")
            }
        return dict(sorted(sizes.items()))

    def files(self, below: str = "") -> Iterator[str]:
        """Names, relative to this folder, of all files below a sub-folder (or of the file of this name), sorted."""
        yield from self.sizes(below)

    def remove_partials(self) -> None:
        """Remove what a killed writer left behind: partial files, or uploads in parts that were never completed."""
        if self.is_local:
            with self.writing():
                for entry in files_below(self.path):
                    if entry.name.endswith(".partial"):
                        Path(entry.path).unlink(missing_ok=True)
        elif is_s3(self.location):
            self._abort_uploads()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold `<name>.lock` in this folder, so that there is one writer.

        On this machine the system lets go of it when the process ends, however it ends; in an S3 store it is an object
        that is renewed while it is held, and that another builder takes over where its process is gone or it was not
        renewed for 90 s. Other URLs know no locks. Raises BlockingIOError where it is held.
        """
        held = f"another build is writing {self.location}/{name}; wait for it, or choose another --out"
        if self.is_local:
            return held_file(self.path / f"{name}.lock", held)
        if is_s3(self.location):
            return held_object(self._fs, self._url(f"{name}.lock"), held)
        return nullcontext()

    def check_lock(self) -> None:
        """Ask a store whether what is written here is still ours. Raises BlockingIOError where a lock was lost."""
        if is_s3(self.location):
            check_held(self.location)

    def errors_in_words(self) -> AbstractContextManager[None]:
        """Inside of it a store's errors become sentences, whoever talks to the store."""
        return errors_in_words(self.location)

    def writing(self) -> AbstractContextManager[None]:
        """`errors_in_words` for whoever writes; inside of it what a local disk refuses is CannotWrite, one sentence."""
        return write_errors_in_words(self.path) if self.is_local else self.errors_in_words()

    def free_bytes(self) -> int | None:
        """Bytes that can still be written; None where nobody tells, as of a store."""
        return free_bytes(self.path) if self.is_local else None

    @cached_property
    def _fs(self) -> fsspec.AbstractFileSystem:
        with self.errors_in_words():
            return open_filesystem(self.location)

    def _url(self, name: str) -> str:
        return f"{self.location.rstrip('/')}/{name}"

    def _write_local(self, name: str, parts: Iterable[bytes]) -> None:
        target = self.path / name
        with self.writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
            try:
                with partial.open("wb") as file:
                    file.writelines(parts)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
            except BaseException:
                with suppress(OSError):  # what stopped the writing may stop this: the next run removes it
                    partial.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)

    def _upload(self, name: str, parts: Iterable[bytes]) -> None:
        # What is uploaded becomes the file with `commit`, and not when it is closed on an error.
        file = self._fs.open(self._url(name), "wb", autocommit=False)
        try:
            for part in parts:
                file.write(part)
            file.close()
        except BaseException:
            file.discard()
            file.closed = True  # else fsspec closes it again when it is collected
            raise
        file.commit()

    def _abort_uploads(self) -> None:
        """Abort uploads in parts below this folder. They are no files: a store that does not show them keeps them."""
        bucket, prefix, _ = self._fs.split_path(self._url(""))
        with suppress(OSError), self.errors_in_words():
            found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
            for upload in found.get("Uploads", []):
                self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location}
