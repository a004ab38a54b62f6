"""What holds for every test of the suite."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketConnectBlockedError


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1"])
def test_no_test_reaches_another_host(address: str) -> None:
    """The first is of a network that is for examples (RFC 5737), and the attempt ends before anything is sent."""
    told = pytest.warns(UserWarning, match="tried to use socket")
    with socket.socket() as one, told, pytest.raises(SocketConnectBlockedError):
        one.connect((address, 80))
