"""A real STAC API: `rustac serve` with its backend in memory, on the loopback, over items of ours."""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

_START_S = 30.0


class Rustac:
    """Serves items until it is stopped; it claims neither QUERY nor FILTER, and answers a query with nothing."""

    def __init__(
        self, folder: Path, items: Iterable[Mapping[str, Any]], *, port: int = 0, root: str | None = None
    ) -> None:
        """`port` 0: any free one; `root`: the address that its links are built from, where another stands before it."""
        features = list(items)
        collections = sorted({str(item["collection"]) for item in features})
        path = folder / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "rustac.log"
        program = Path(sysconfig.get_path("scripts"), "rustac")
        own = f"127.0.0.1:{port}"
        addresses = ["--addr", own] if root is None else ["--addr", root, "--bind", own]
        command = [str(program), "serve", str(path), *addresses, "--create-collections"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            self._wait(collections)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _wait(self, collections: list[str]) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"rustac ended: {self.log.read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self.url}/collections", timeout=2) as answer:
                    listed = {one["id"] for one in json.load(answer)["collections"]}
                if listed >= set(collections):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise RuntimeError(f"rustac did not answer within {_START_S} s: {self.log.read_text()[-2000:]}")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
