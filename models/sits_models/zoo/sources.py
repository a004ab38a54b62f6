"""Where weights come from: a folder, any URL, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urljoin

from sits_catalog.addresses import published_text, without_secrets
from sits_catalog.reach import Reach, Refused

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

__all__ = ["HUB", "Address", "HubRepository", "Source", "TooLargeError"]

HUB = "hf://"
_CONNECT_S, _SILENCE_S = 30, 60


class TooLargeError(OSError):
    """A file is larger than it may be; what is more was not fetched."""


class Source(Protocol):
    """A place that holds files of weights by their plain names."""

    @property
    def address(self) -> str:
        """What an error calls it, without secrets."""

    def fetch(self, name: str, target: Path, *, limit: int) -> None:
        """Copy a file of at most `limit` bytes.

        Raises FileNotFoundError where there is none, TooLargeError where it has more bytes, and OSError where it cannot
        be had.
        """


@dataclass(frozen=True)
class Address:
    """A folder on this machine, or the URL of one, of any kind that fsspec reads."""

    url: str

    @property
    def address(self) -> str:
        """Without user, password and query."""
        return without_secrets(self.url)

    @property
    def parent(self) -> Address:
        """The folder that holds this one."""
        folder, query = self._parts()
        head, slash, _ = folder.rpartition("/")
        return Address((head or slash or ".") + query)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._parts()[0].rpartition("/")[2]

    def below(self, path: str) -> Address:
        """A folder or a file in this one; the query of a URL, which may be a key to all of it, stays behind it."""
        folder, query = self._parts()
        return Address(f"{folder}/{path}{query}")

    def _parts(self) -> tuple[str, str]:
        """Path without a last slash, and query; on a disk a question mark is a character like any other."""
        head, question, query = self.url.partition("?") if "://" in self.url else (self.url, "", "")
        return head.rstrip("/"), question + query

    def fetch(self, name: str, target: Path, *, limit: int) -> None:
        """Copy the file `name` of this folder."""
        import fsspec

        url = self.below(name).url
        with _told(without_secrets(url)):
            filesystem, path = fsspec.core.url_to_fs(url, **_options(url), skip_instance_cache=True)
            if not _is_web(url) and not filesystem.isfile(path):
                raise FileNotFoundError(f"nothing is at {without_secrets(url)}")
            if not _is_web(url):
                _check_size(filesystem.size(path), limit, without_secrets(url))
            filesystem.get_file(path, str(target), callback=_stop_after(limit, without_secrets(url)))


@dataclass(frozen=True)
class HubRepository:
    """A repository of models at the Hugging Face hub, or where the environment variable HF_ENDPOINT points."""

    name: str
    """ORG/REPO."""
    revision: str | None

    @classmethod
    def of(cls, text: str) -> Self:
        """The repository of "hf://ORG/REPO" or "hf://ORG/REPO@REVISION". Raises ValueError for anything else."""
        name, _, revision = text.removeprefix(HUB).partition("@")
        parts = name.strip("/").split("/")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"a repository of the hub is hf://ORG/REPO or hf://ORG/REPO@REVISION; got {text}")
        return cls("/".join(parts), revision or None)

    @property
    def address(self) -> str:
        """As it was given."""
        return f"{HUB}{self.name}" + ("" if self.revision is None else f"@{self.revision}")

    def fetch(self, name: str, target: Path, *, limit: int) -> None:
        """Copy the file `name` of this repository."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        scratch = target.with_name(f"{target.name}.hub")
        with _told(f"{self.address}/{name}"):
            endpoint = os.environ.get("HF_ENDPOINT")
            # The client holds what comes to the size that the hub says here.
            url = hf_hub_url(self.name, name, revision=self.revision, endpoint=endpoint)
            _check_size(get_hf_file_metadata(url, endpoint=endpoint).size, limit, f"{self.address}/{name}")
            try:
                path = hf_hub_download(self.name, name, revision=self.revision, local_dir=scratch, endpoint=endpoint)
                Path(path).replace(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def upload(self, files: Mapping[str, Path], *, message: str) -> None:
        """Put files into the repository in one commit; it is made where there is none."""
        from huggingface_hub import CommitOperationAdd, HfApi

        with _told(self.address):
            api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
            api.create_repo(self.name, exist_ok=True)
            operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
            api.create_commit(self.name, operations, commit_message=message, revision=self.revision)


def _stop_after(limit: int, what: str) -> Callback:
    """What is told of every piece that came, and ends a fetch that brings too many."""
    from fsspec.callbacks import Callback

    class Counting(Callback):  # type: ignore[misc]
        def call(self, *_: Any, **__: Any) -> None:
            _check_size(self.value, limit, what)

    return Counting()


def _check_size(size: int | None, limit: int, what: str) -> None:
    if size is not None and size > limit:
        raise TooLargeError(
            f"{what} has more bytes than the {limit} that it may have: it was replaced, or damaged on its way; nothing "
            "was kept of it"
        )


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _options(url: str) -> dict[str, Any]:
    """A server that says nothing for a minute has stopped, however much it sent before; none sends us inwards."""
    if not _is_web(url):
        return {}
    from aiohttp import ClientTimeout, TraceConfig

    redirects = TraceConfig()
    redirects.on_request_redirect.append(_check_redirect(Reach.of(url)))
    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True, "trace_configs": [redirects]}}


def _check_redirect(reach: Reach) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """What is told of every redirect before it is followed, and ends one that leads too far."""

    async def check(_session: Any, _context: Any, said: Any) -> None:
        headers = said.response.headers
        try:
            reach.check_target(urljoin(str(said.url), headers.get("Location") or headers.get("URI") or ""))
        except (Refused, ValueError) as error:
            raise OSError(f"it redirects where it is not followed: {error}") from error

    return check


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever clients raise becomes an error of one sentence that says what could not be had."""
    try:
        yield
    except TooLargeError:
        raise
    except Exception as error:
        reason, status = _reason(error)
        if status in (404, 410) or (status is None and isinstance(reason, FileNotFoundError)):
            raise FileNotFoundError(f"nothing is at {what}") from error
        if isinstance(reason, PermissionError) or status in (401, 403):
            raise PermissionError(
                f"no access to {what}: give credentials, as the client of this storage reads them"
            ) from error
        if isinstance(reason, ImportError | ValueError) and not isinstance(reason, OSError):
            raise ValueError(f"cannot read {what}: {_sentence(reason)}") from error  # noqa: TRY004  # an address
        raise OSError(f"{what} could not be had: {_sentence(reason)}; run the same command again to go on") from error


def _reason(error: Exception) -> tuple[BaseException, int | None]:
    """What went wrong, and the status of the answer where there was one.

    Whatever keeps the hub's client from asking, it says first that there is no copy on this machine.
    """
    reason: BaseException = error
    if type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ is not None:
        reason = error.__cause__
    status = getattr(reason, "status", None) or getattr(getattr(reason, "response", None), "status_code", None)
    return reason, status if isinstance(status, int) else None


def _sentence(error: BaseException) -> str:
    return published_text(" ".join(str(error).split())) or type(error).__name__
