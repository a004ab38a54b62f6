"""A Node process that runs evalscripts: `evaluate.mjs` at the other end of two pipes."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.services.sentinel_hub.errors import Refused

__all__ = ["Node", "Script", "node_path"]

_TIME_LIMIT_S = 60.0

Json = dict[str, Any]


def node_path() -> str | None:
    """Where Node is, None where it is not."""
    return shutil.which("node")


class Script:
    """One evalscript, from its setup to its last pixel."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def setup(self, evalscript: str) -> Json:
        """What its `setup` returns."""
        setup: Json = self._node.ask({"step": "setup", "evalscript": evalscript})[0]["setup"]
        return setup

    def scenes(self, header: Json) -> tuple[list[int], dict[str, Json]]:
        """Which scenes `preProcessScenes` keeps, in its order, and the outputs' bands after `updateOutput`."""
        reply = self._node.ask({"step": "scenes", **header})[0]
        return reply["kept"], reply["bands"]

    def run(self, header: Json, arrays: Sequence[NDArray[np.float32]]) -> tuple[Any, list[bytes]]:
        """`userData`, and the bytes of each output, (band, pixel)."""
        reply, blob = self._node.ask({"step": "run", **header}, b"".join(array.tobytes() for array in arrays))
        ends = np.cumsum([0, *reply["sizes"]])
        return reply["userData"], [blob[start:end] for start, end in itertools.pairwise(ends)]


class Node:
    """The process; started when it is needed, one script at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def script(self) -> Iterator[Script]:
        """The process for one evalscript."""
        with self._lock:
            yield Script(self)

    def ask(self, header: Json, blob: bytes = b"") -> tuple[Json, bytes]:
        """Send a message and wait for the answer. Raises Refused where the script fails."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        text = json.dumps({**header, "bytes": len(blob)}).encode()
        guard = threading.Timer(_TIME_LIMIT_S, process.kill)
        guard.start()
        try:
            process.stdin.write(struct.pack("<I", len(text)) + text + blob)
            process.stdin.flush()
            (length,) = struct.unpack("<I", process.stdout.read(4))
            reply: Json = json.loads(process.stdout.read(length))
            answered = process.stdout.read(reply["bytes"])
        finally:
            guard.cancel()
        if "error" in reply:
            raise Refused(400, f"Failed to evaluate script!\n{reply['error']}", "RENDERER_EXCEPTION")
        return reply, answered

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            node = node_path()
            assert node is not None, "Node is needed to run evalscripts"
            script = Path(__file__).with_name("evaluate.mjs")
            self._process = subprocess.Popen([node, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process
