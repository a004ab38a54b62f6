"""Sessions of requests whose connections lead where a reach allows, whatever a name is resolved to in between."""

from __future__ import annotations

import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from sits_pipeline.sources.reach import Reach

__all__ = ["limited_session"]


def limited_session(reach: Reach) -> requests.Session:
    """A session that connects to no other host; raises Refused where it is asked to.

    A proxy of the environment is the user's: its address is not looked at, and it resolves names itself.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(reach))
    return session


class _Adapter(HTTPAdapter):
    """Connections without a proxy, each looked at when it is made."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests has it, with pools of our own."""
        super().init_poolmanager(*args, **kwargs)
        plain = type("_Plain", (_Checked, HTTPConnection), {"reach": self._reach})
        secure = type("_Secure", (_Checked, HTTPSConnection), {"reach": self._reach})
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("_PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("_SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }


class _Checked:
    """What a connection does before and after its name is resolved: the address that answers is what counts."""

    reach: Reach
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        self.reach.check_name(self.host, self.port)
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            # Its name may have led elsewhere the second time; nothing was sent yet.
            self.reach.check(self.host, connected.getpeername()[0])
        except BaseException:
            connected.close()
            raise
        return connected
