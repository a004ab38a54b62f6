from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.pipeline.sources.range_server import RangeServer
from tests.services.fault_proxy import FAULTS, FaultProxy

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    server = RangeServer(tmp_path)
    yield server
    server.close()


def ask(url: str, path: str = "/file.bin", *, wanted: str = "") -> tuple[int, str | None, bytes]:
    """Status, Retry-After and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path, headers={"Range": wanted} if wanted else {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Retry-After"), answer.read()
    finally:
        connection.close()


def outcome(url: str, path: str) -> str:
    try:
        return str(ask(url, path)[0])
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def test_without_faults_answers_are_those_of_the_server(server: RangeServer) -> None:
    with FaultProxy(server.url, rates={}, seed=0) as proxy:
        assert ask(proxy.url) == (200, None, CONTENT)
        assert ask(proxy.url, wanted="bytes=10-19") == (206, None, CONTENT[10:20])
        assert ask(proxy.url, "/gone.bin?x=1")[0] == 404
        assert not proxy.injected


def test_each_fault_is_what_it_says(server: RangeServer) -> None:
    def always(path: str) -> str | None:
        return path.rpartition("/")[2] if path.startswith("/fault/") else None

    (server.folder / "fault").mkdir()
    for name in FAULTS:
        (server.folder / "fault" / name).write_bytes(CONTENT)
    with FaultProxy(server.url, rates={}, seed=0, slow_s=0.0, always=always, retry_after_s=1.5) as proxy:
        assert ask(proxy.url, "/fault/429") == (429, "2", b"")
        assert ask(proxy.url, "/fault/503") == (503, None, b"")
        with pytest.raises(ConnectionResetError):
            ask(proxy.url, "/fault/reset")
        assert ask(proxy.url, "/fault/slow") == (200, None, CONTENT)
        with pytest.raises(http.client.IncompleteRead) as caught:
            ask(proxy.url, "/fault/truncated")
        assert caught.value.partial == CONTENT[: len(CONTENT) // 2]
        assert ask(proxy.url) == (200, None, CONTENT)
        assert proxy.injected == dict.fromkeys(FAULTS, 1)


def test_retry_after_may_be_in_milliseconds(server: RangeServer) -> None:
    options = {"retry_after_s": 0.25, "retry_after_ms": True}
    with FaultProxy(server.url, rates={"429": 1.0}, seed=0, **options) as proxy:  # type: ignore[arg-type]
        assert ask(proxy.url)[:2] == (429, "250")


def test_the_same_requests_meet_the_same_faults(server: RangeServer) -> None:
    rates = dict.fromkeys(FAULTS, 0.1)
    paths = [f"/file.bin?number={number % 20}" for number in range(60)]
    met = []
    for seed, order in ((1, 1), (1, -1), (2, 1)):
        with FaultProxy(server.url, rates=rates, seed=seed, slow_s=0.0) as proxy:
            seen: dict[str, list[str]] = {}
            for path in paths[::order]:
                seen.setdefault(path, []).append(outcome(proxy.url, path))
            met.append((seen, dict(proxy.injected)))
    assert met[0] == met[1]
    assert met[0] != met[2]
    assert 15 < sum(met[0][1].values()) < 45  # half of 60; five standard deviations


def again(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/file.bin")
    connection.getresponse()


def test_a_closed_proxy_refuses_and_cuts(server: RangeServer) -> None:
    proxy = FaultProxy(server.url, rates={}, seed=0)
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    connection.request("GET", "/file.bin")
    connection.getresponse().read()
    proxy.close()
    with pytest.raises(ConnectionError):
        again(connection)
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.url)
