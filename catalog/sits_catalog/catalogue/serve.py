"""A catalogue on this machine's loopback: the page by a small server of files, the items by `rustac` as a STAC API.

Both answer through servers of ours, which refuse the names of other hosts and let no page of another origin read.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sits_catalog.catalogue.folder import DATASETS, Catalogue, read_json
from sits_catalog.catalogue.loopback import HOST, NOTHING, OwnHandler, Server
from sits_catalog.catalogue.write import dataset_of

__all__ = ["Served", "api_items", "serve"]

JsonObject = dict[str, Any]

_START_S = 60.0
_ANSWER_S = 120.0
_MAX_QUERY = 10_000_000
"""Bytes of a request to the API; a polygon of a country is some hundred thousand."""
_MAX_PATH = 1000
"""Characters of the path of a file."""
_OF_THE_API = ("root", "parent", "collection", "item", "child", "self", "related")
_OF_DATASETS = ("report.html", "item.json")
"""Files of a dataset that the page links to; nothing else of it is handed out."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".parquet": "application/vnd.apache.parquet",
}
_CATALOGUE_PAGE = f"{NOTHING}; img-src 'self'; script-src 'unsafe-inline'"
"""The page narrows this by itself to its own style and script; a header cannot know those of an older page."""
_REPORT = f"{NOTHING}; img-src data:; sandbox"
"""A dataset may be a stranger's: its report runs nothing and is no part of this address, whatever is written in it."""


@dataclass(frozen=True)
class Served:
    """Where a catalogue answers."""

    page: str
    api: str


# The items of the API


def api_items(catalogue: Catalogue) -> tuple[list[JsonObject], list[JsonObject]]:
    """Collections and items for the API; what is relative in the files is absolute here, local paths as file://."""
    entries = catalogue.entries()
    documents = sorted({entry.folder.parent / "collection.json" for entry in entries})
    documents += [entry.folder / "splits" / "collection.json" for entry in entries if entry.splits]
    collections = [_served(read_json(path), path.parent) for path in documents]
    items = [_served(entry.item, entry.folder) for entry in entries]
    items += [_served(split, entry.folder / "splits") for entry in entries for split in entry.splits]
    return collections, items


def _served(document: JsonObject, folder: Path) -> JsonObject:
    """A document with absolute addresses, and without the links that the API makes itself."""

    def absolute(value: JsonObject) -> JsonObject:
        href = str(value["href"])
        if "://" in href:
            return value
        return {**value, "href": Path(os.path.normpath(folder / unquote(href))).as_uri()}

    found = {**document, "links": [absolute(link) for link in document["links"] if link["rel"] not in _OF_THE_API]}
    if "assets" in document:
        found["assets"] = {name: absolute(asset) for name, asset in document["assets"].items()}
    return found


# The API


@contextmanager
def _rustac_serving(catalogue: Catalogue, address: str, port: int) -> Iterator[Callable[[], str | None]]:
    """rustac on `port`, which says in its links that it is `address`; a question whether it has ended, and how."""
    program = _rustac()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        collections, items = api_items(catalogue)
        paths = []
        for number, collection in enumerate(collections):
            paths.append(folder / f"collection-{number}.json")
            paths[-1].write_text(json.dumps(collection))
        paths.append(folder / "items.json")
        paths[-1].write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        log = folder / "rustac.log"
        command = [program, "serve", *map(str, paths), "--addr", address, "--bind", f"{HOST}:{port}"]
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder)

        def ended() -> str | None:
            if process.poll() is None:
                return None
            return f"rustac ended with code {process.returncode}: {log.read_text(errors='replace').strip()[-500:]}"

        try:
            _wait(f"http://{HOST}:{port}", ended)
            yield ended
        finally:
            _stop(process)


def _rustac() -> str:
    found = shutil.which("rustac", path=sysconfig.get_path("scripts")) or shutil.which("rustac")
    if found is None:
        raise OSError(
            "rustac, which serves the STAC API, is not installed; install it with the extra sits-cubes[serve]"
        )
    return found


def _wait(address: str, ended: Callable[[], str | None]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        said = ended()
        if said is not None:
            raise OSError(said)
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  # http on the loopback, made above
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise OSError(f"rustac did not answer at {address} within {_START_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


# The way to the API


class _Gate(Server):
    """Hands requests on to rustac, which answers any host and lets any page read."""

    behind: int
    """Port of rustac."""

    def __init__(self, port: int) -> None:
        super().__init__(port, _GateHandler)


class _GateHandler(OwnHandler):
    server: _Gate

    def do_GET(self) -> None:  # noqa: N802  # named by BaseHTTPRequestHandler
        self._hand_on(None)

    def do_HEAD(self) -> None:  # noqa: N802  # named by BaseHTTPRequestHandler
        self._hand_on(None)

    def do_POST(self) -> None:  # noqa: N802  # named by BaseHTTPRequestHandler
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif len(length) > len(str(_MAX_QUERY)) or int(length) > _MAX_QUERY:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif len(body := self.rfile.read(int(length))) < int(length):
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            self._hand_on(body)

    def _hand_on(self, body: bytes | None) -> None:
        headers = {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}
        connection = http.client.HTTPConnection(HOST, self.server.behind, timeout=_ANSWER_S)
        try:
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        except ValueError:  # a path or a header that no request may have; http.client.InvalidURL is one too
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        except (OSError, http.client.HTTPException):
            self.send_error(HTTPStatus.BAD_GATEWAY)
            return
        finally:
            connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


# The page


class _Pages(Server):
    """Hands out the catalogue's files, and reports and items of its local datasets."""

    def __init__(self, catalogue: Catalogue, port: int) -> None:
        self.catalogue = catalogue
        super().__init__(port, _Handler)

    @property
    def index(self) -> Path:
        """The page."""
        return self.catalogue.folder / "index.html"

    def find(self, path: str) -> Path | None:
        """The file for the path of a request; None: nothing that is handed out."""
        parts = unquote(path.partition("?")[0].partition("#")[0]).strip("/").split("/")
        if parts == [""]:
            return self.index
        if len(path) > _MAX_PATH or any(part.startswith(".") or "\0" in part for part in parts):
            return None
        if parts[0] == DATASETS:
            return self._of_dataset(parts)
        return _inside(self.catalogue.folder, parts) if Path(parts[-1]).suffix in _TYPES else None

    def _of_dataset(self, parts: list[str]) -> Path | None:
        if len(parts) != 3 or parts[2] not in _OF_DATASETS:
            return None
        for entry in self.catalogue.entries():
            files = dataset_of(self.catalogue, entry)
            if entry.id == parts[1] and files.is_local:
                return _inside(files.path.resolve(), [parts[2]])
        return None


def _inside(folder: Path, parts: Sequence[str]) -> Path | None:
    """A file that lies in the folder itself, whatever links lead to; None: there is none."""
    try:
        found = Path(os.path.realpath(folder.joinpath(*parts)))
        return found if found.is_relative_to(folder) and found.is_file() else None
    except OSError:  # of a name that no file can have
        return None


class _Handler(OwnHandler):
    server: _Pages

    def do_GET(self) -> None:  # noqa: N802  # named by BaseHTTPRequestHandler
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # noqa: N802  # named by BaseHTTPRequestHandler
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        try:
            path = self.server.find(self.path)
            data = None if path is None else path.read_bytes()
        except (OSError, ValueError) as error:  # a damaged catalogue, a file that went away
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
            return
        if path is None or data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        if path == self.server.index:
            self.policy = _CATALOGUE_PAGE
            # The page makes commands of where it lies, which the address of a server does not say.
            where = escape(str(self.server.catalogue.folder), quote=True).encode()
            data = data.replace(b'data-folder=""', b'data-folder="' + where + b'"', 1)
        elif path.suffix == ".html":
            self.policy = _REPORT
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _TYPES[path.suffix])
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@contextmanager
def serve(catalogue: Catalogue, *, port: int, api_port: int) -> Iterator[tuple[Served, Callable[[], str | None]]]:
    """Both servers, until the block ends; a port of 0 is any free one.

    Gives where they answer, and a question whether the API has ended, and how. Raises FileNotFoundError where there is
    no catalogue, OSError where a port is taken or rustac is missing or ends.
    """
    catalogue.check_exists()
    with _Gate(api_port) as gate, _Pages(catalogue, port) as pages:
        gate.behind = _free_port()  # once the two others are taken
        serving = _rustac_serving(catalogue, gate.address, gate.behind)
        with serving as ended, gate.running(), pages.running():
            yield Served(page=f"{pages.address}/", api=gate.address), ended
