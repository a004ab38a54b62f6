"""A loopback server that answers OAuth, Catalog and Process as a test scripts it, fault by fault."""

from __future__ import annotations

import io
import json
import socket
import struct
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from tests.services.loopback import Loopback

Json = dict[str, Any]
CLIENT, SECRET = "sh-client-of-a-test", "SECRET-of-a-client-7d1f"


@dataclass
class Reply:
    """What is sent back, and how it goes wrong."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/x-tar"
    truncate: bool = False
    reset: bool = False
    drip_s: float = 0.0
    """Between one byte of the body and the next; 0: all at once."""


def json_reply(document: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers, kind="application/json")


def tiff(values: NDArray[Any], *, interleave: str = "pixel") -> bytes:
    """(band, y, x) as a GeoTIFF."""
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype.name, "interleave": interleave}
    place = {"crs": "EPSG:32631", "transform": from_origin(600_000, 4_900_020, 10, 10)}
    with MemoryFile() as file:
        with file.open(driver="GTiff", compress="deflate", **shape, **place) as dataset:
            dataset.write(values)
        return bytes(file.read())


def tar(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def files_of(
    dn: NDArray[np.uint16], scl: NDArray[np.uint8], tile: NDArray[np.uint8], ranks: list[int]
) -> dict[str, bytes]:
    """The files of a whole answer; `dn` is (band, y, x)."""
    tiles = [{"rank": rank, "dataPath": f"s3://bucket/{rank}"} for rank in ranks]
    return {
        "bands.tif": tiff(dn),
        "scl.tif": tiff(scl[None]),
        "dataMask.tif": tiff((tile[None] > 0).astype(np.uint8)),
        "tile.tif": tiff(tile[None]),
        "userdata.json": json.dumps({"tiles": tiles}).encode(),
    }


def answer(
    dn: NDArray[np.uint16], scl: NDArray[np.uint8], tile: NDArray[np.uint8], ranks: list[int], **headers: str
) -> Reply:
    return Reply(body=tar(files_of(dn, scl, tile, ranks)), headers=headers)


class ScriptedHub(Loopback):
    """Serves on a port of its own; `process` and `search` are asked for each request's reply, by its JSON."""

    def __init__(self) -> None:
        self.process: Callable[[Json], Reply] = lambda request: Reply(404)
        self.search: Callable[[Json], Reply] = lambda request: Reply(404)
        self.token: Callable[[], Reply] = self._new_token
        self.life_s = 3600
        self.tokens: list[str] = []
        self.valid: set[str] = set()
        self.requests: list[Json] = []
        self.searches: list[Json] = []
        super().__init__(_handler(self))

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def _new_token(self) -> Reply:
        token = f"TOKEN-of-a-test-{len(self.tokens)}"
        self.tokens.append(token)
        self.valid.add(f"Bearer {token}")
        return json_reply({"access_token": token, "expires_in": self.life_s, "token_type": "Bearer"})

    def answer(self, path: str, body: bytes, authorization: str) -> Reply:
        if path.endswith("/token"):
            return self.token() if SECRET.encode() in body else json_reply({"error": "invalid_client"}, 401)
        if authorization not in self.valid:
            message = f"You are not authorized with {authorization}"
            return json_reply({"error": {"status": 401, "message": message, "code": "COMMON_UNAUTHORIZED"}}, 401)
        request: Json = json.loads(body)
        if path == "/api/v1/catalog/1.0.0/search":
            self.searches.append(request)
            return self.search(request)
        assert path == "/api/v1/process", path
        self.requests.append(request)
        return self.process(request)


def _handler(hub: ScriptedHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = hub.answer(self.path, body, self.headers.get("Authorization", ""))
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with suppress(ConnectionError):
                for byte in reply.body if reply.drip_s else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(reply.drip_s)
                if not reply.drip_s:
                    self.wfile.write(reply.body[: len(reply.body) // 2] if reply.truncate else reply.body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
