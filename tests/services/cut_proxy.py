"""A TCP proxy on the loopback whose connections can be cut for a while, as by a router that restarts.

with CutProxy(port) as proxy:
    ...  # connect to proxy.port in place of port
    proxy.cut()      # every connection is reset, and new ones are refused
    proxy.restore()  # new ones are let through again
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

__all__ = ["CutProxy"]

_PIECE = 64 * 1024


class CutProxy:
    """Stands in front of 127.0.0.1:`target` until it is closed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        """How many were let through so far."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else a thread that waits in accept keeps it open
        self._listener.close()
        with self._lock:
            open_ones, self._open = self._open, set()
        for one in open_ones:
            with suppress(OSError):
                # No time to linger: RST in place of FIN.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RD)
            one.close()

    def restore(self) -> None:
        """Let new connections through."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._accept()

    def _accept(self) -> None:
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:  # nobody listens there yet
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                    self.connections += 1
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(one)
            one.close()
