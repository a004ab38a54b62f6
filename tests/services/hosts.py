"""Hosts of a network of their own: network namespaces behind one bridge, whose cables can be pulled. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.programs import running_program

__all__ = ["Host", "hosts", "why_no_hosts"]

_NETWORK = "10.213.7"


@dataclass(frozen=True)
class Host:
    """A namespace with one cable."""

    name: str
    address: str
    hub: str
    """Namespace of the bridge."""
    port: str
    """The cable's end there."""

    @contextmanager
    def run(self, command: Sequence[object], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program on this host until the block ends; what it says is in `log`."""
        with running_program(["ip", "netns", "exec", self.name, *command], log, **variables) as process:
            yield process

    def pull(self) -> None:
        """Pull the cable: nothing passes, and nobody is told."""
        _ip("-n", self.hub, "link", "set", self.port, "down")

    def plug(self) -> None:
        """Put it back."""
        _ip("-n", self.hub, "link", "set", self.port, "up")

    def cut(self, seconds: float) -> None:
        """Pull the cable for a while."""
        self.pull()
        time.sleep(seconds)
        self.plug()


def why_no_hosts() -> str | None:
    """Why there can be none here; None: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program ip is not installed"
    probe = f"sits-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    _ip("netns", "delete", probe)
    return None


@contextmanager
def hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """So many hosts that reach each other and nothing else, until the block ends."""
    with ExitStack() as stack:
        hub = f"sits-{os.getpid()}-hub"
        stack.enter_context(_namespace(hub))
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        found = []
        for number in range(1, count + 1):
            host = Host(f"sits-{os.getpid()}-{number}", f"{_NETWORK}.{number}", hub, f"port{number}")
            stack.enter_context(_namespace(host.name))
            _ip("-n", host.name, "link", "add", "cable", "type", "veth", "peer", "name", host.port, "netns", hub)
            _ip("-n", hub, "link", "set", host.port, "master", "bridge", "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "cable")
            _ip("-n", host.name, "link", "set", "cable", "up")
            found.append(host)
        yield tuple(found)


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
