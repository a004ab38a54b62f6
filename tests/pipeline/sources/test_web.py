from __future__ import annotations

import http.server
import io
import logging
import multiprocessing
import pickle
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.pipeline.sources.range_server import RangeServer
from tests.services.fault_proxy import FAULTS, FaultProxy

from sits_pipeline.sources.access import Limit, Signed
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.gate import LocalGate
from sits_pipeline.sources.web import Patience, Web, fetch

Handler = http.server.BaseHTTPRequestHandler
LOCALHOST = "127.0.0.1"


def no_pause(_longest_s: float) -> float:
    return 0.0


def whole_pause(longest_s: float) -> float:
    return longest_s


BRISK = Web(patience=Patience(jitter=no_pause))
"""Asks again at once."""


@dataclass
class Requests:
    """What a server was asked."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)
    times: list[float] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[Handler, int], None]) -> Iterator[Requests]:
    """A server whose answer is written by a function of the request and how many came before."""
    asked = Requests()

    class Answering(Handler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            asked.times.append(time.monotonic())
            asked.methods.append(self.command)
            asked.paths.append(self.path)
            asked.headers.append(dict(self.headers.items()))
            asked.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            asked.clients.add(self.client_address)
            answer(self, len(asked.paths) - 1)

        do_GET = do_POST = do_HEAD = handle_any  # noqa: N815

    server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Answering)
    server.daemon_threads = True
    server.block_on_close = False
    asked.url = f"http://{LOCALHOST}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: Handler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response_only(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def always(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler, int], None]:
    return lambda handler, number: reply(handler, status, body, **headers)


def after(failures: int, status: int, **headers: str) -> Callable[[Handler, int], None]:
    """An answer after so many failures."""
    return lambda handler, number: (
        reply(handler, status, **headers) if number < failures else reply(handler, 200, b"at last")
    )


# Answers


def test_status_headers_in_any_case_and_body_are_the_servers() -> None:
    with serving(always(200, b"content", X_Kind="test")) as asked:
        answer = fetch(f"{asked.url}/a?b=c%2Fd&e", max_bytes=100, headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.body, answer.headers["x-kind"], answer.headers.get("X-KIND")) == (
        200,
        b"content",
        "test",
        "test",
    )
    assert asked.paths == ["/a?b=c%2Fd&e"]
    assert asked.headers[0]["Range"] == "bytes=0-9"


def test_method_and_body_are_sent() -> None:
    with serving(always(200, b"{}")) as asked:
        web = Web()
        web.fetch(f"{asked.url}/search", max_bytes=9, method="POST", body=b"{1}", headers={"Content-Type": "a/b"})
        assert web.fetch(asked.url, max_bytes=9, method="HEAD").body == b""
    assert (asked.methods, asked.bodies[0], asked.headers[0]["Content-Type"]) == (["POST", "HEAD"], b"{1}", "a/b")


def chunked(handler: Handler, number: int) -> None:
    handler.send_response_only(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"4\r\nwell\r\n")
    if number == 0:
        handler.close_connection = True  # without the last chunk
    else:
        handler.wfile.write(b"0\r\n\r\n")


def test_a_body_in_chunks_is_complete_with_its_last_one() -> None:
    with serving(chunked) as asked:
        assert BRISK.fetch(asked.url, max_bytes=100).body == b"well"
    assert len(asked.paths) == 2


def test_connections_are_kept_for_threads_that_come_and_go() -> None:
    with serving(always(200, b"content")) as asked:
        for _ in range(5):
            thread = threading.Thread(target=fetch, args=(asked.url,), kwargs={"max_bytes": 100})
            thread.start()
            thread.join()
    assert len(asked.paths) == 5
    assert len(asked.clients) == 1


def _fetch_in_child(url: str) -> None:
    raise SystemExit(0 if fetch(url, max_bytes=100).body == b"content" else 1)


def test_a_forked_process_has_connections_of_its_own() -> None:
    with serving(always(200, b"content")) as asked:
        fetch(asked.url, max_bytes=100)
        process = multiprocessing.get_context("fork").Process(target=_fetch_in_child, args=(asked.url,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert fetch(asked.url, max_bytes=100).body == b"content"
    assert (len(asked.paths), len(asked.clients)) == (3, 2)


def test_a_body_that_passes_the_bound_is_an_error_at_once() -> None:
    with serving(always(200, bytes(101))) as asked:
        assert len(fetch(f"{asked.url}/x", max_bytes=101).body) == 101
        with pytest.raises(OSError, match=r"/x: larger than the 100 bytes that are read at most"):
            fetch(f"{asked.url}/x?sig=SECRET", max_bytes=100)
        assert len(asked.paths) == 2
        assert len(fetch(f"{asked.url}/x", max_bytes=101).body) == 101


# What is tried again


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int) -> None:
    with serving(after(3, status)) as asked:
        assert BRISK.fetch(asked.url, max_bytes=100).body == b"at last"
    assert len(asked.paths) == 4


def half(handler: Handler, number: int) -> None:
    if number < 2:
        handler.send_response_only(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"12345")
        handler.close_connection = True
    else:
        reply(handler, 200, b"1234567890")


def test_a_body_that_broke_off_is_asked_for_again() -> None:
    with serving(half) as asked:
        assert BRISK.fetch(asked.url, max_bytes=100).body == b"1234567890"
    assert len(asked.paths) == 3


def test_after_eight_tries_it_is_an_error_of_one_sentence() -> None:
    said = r"/a\.tif: no answer after 8 tries: HTTP 503 Service Unavailable$"
    with serving(always(503)) as asked, pytest.raises(OSError, match=said) as caught:
        BRISK.fetch(f"{asked.url.replace('//', '//me:word@')}/a.tif?sig=SECRET", max_bytes=100)
    assert len(asked.paths) == 8
    assert not any(secret in str(caught.value) for secret in ("SECRET", "word", "?"))


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (404, FileNotFoundError, "the server has no such file; check the address"),
        (410, FileNotFoundError, "the server has no such file; check the address"),
        (401, PermissionError, "check credentials"),
        (403, PermissionError, "check credentials"),
        (400, OSError, "HTTP 400 Bad Request"),
        (416, OSError, "HTTP 416"),
    ],
)
def test_what_will_not_pass_is_asked_once_and_says_what_to_do(status: int, kind: type[OSError], says: str) -> None:
    with serving(always(status)) as asked, pytest.raises(kind, match=says) as caught:
        BRISK.fetch(f"{asked.url}/a.tif?sig=SECRET", max_bytes=100)
    assert len(asked.paths) == 1
    assert "SECRET" not in str(caught.value)


def test_a_quarter_of_all_requests_may_fail(tmp_path: Path) -> None:
    contents = {f"{number}.bin": bytes([number]) * 1000 for number in range(60)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    server = RangeServer(tmp_path)
    rates = dict.fromkeys(FAULTS, 0.05)
    try:
        with FaultProxy(server.url, rates=rates, seed=3, slow_s=0.001, retry_after_s=0) as proxy:
            for name, content in contents.items():
                assert BRISK.fetch(f"{proxy.url}/{name}", max_bytes=2000).body == content
            assert set(proxy.injected) == set(FAULTS)
    finally:
        server.close()


# Pauses


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("sits_pipeline.sources.web.time.sleep", pauses.append)
    return pauses


def test_pauses_double_up_to_a_bound(slept: list[float]) -> None:
    with serving(always(503)) as asked, pytest.raises(OSError, match="HTTP 503"):
        Web(patience=Patience(jitter=whole_pause)).fetch(asked.url, max_bytes=100)
    assert slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0])


def test_pauses_are_spread_over_their_whole_length(slept: list[float]) -> None:
    with serving(always(503)) as asked:
        for _ in range(20):
            BREAKER.reset()
            with pytest.raises(OSError, match="HTTP 503"):
                Web().fetch(asked.url, max_bytes=100)
    longest = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0]
    shares = [pause / longest[number % 7] for number, pause in enumerate(slept)]
    assert len(shares) == 140
    assert 0 <= min(shares) < 0.2
    assert 0.8 < max(shares) <= 1
    # The mean of 140 uniform numbers: six standard deviations.
    assert 0.5 - 0.15 < sum(shares) / 140 < 0.5 + 0.15


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:09 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 9.0),
        ({"Retry_After": "Wed, 21 Oct 1998 07:28:00 GMT"}, 0.0),
        ({"Retry_After": "86400"}, 60.0),
        ({"Retry_After": "soon"}, 0.0),
        ({"Retry_After": "nan"}, 0.0),
        ({"Retry_After": "-3"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_is_granted_within_a_bound(headers: dict[str, str], pause: float, slept: list[float]) -> None:
    with serving(after(1, 429, **headers)) as asked:
        assert BRISK.fetch(asked.url, max_bytes=100).body == b"at last"
    assert slept == [pause]


def test_who_is_told_to_wait_on_and_on_gives_up(slept: list[float]) -> None:
    with serving(always(429, Retry_After="50")) as asked, pytest.raises(OSError, match="no answer after 3 tries"):
        BRISK.fetch(asked.url, max_bytes=100)
    assert slept == [50.0, 50.0]


# Time-outs


def silent(handler: Handler, number: int) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def trickling(handler: Handler, number: int) -> None:
    handler.send_response_only(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    with suppress(OSError):  # who has had enough goes away
        for _ in range(50):
            handler.wfile.write(b".")
            time.sleep(0.05)
    handler.close_connection = True


def test_a_server_that_says_nothing_is_a_time_out() -> None:
    patience = Patience(jitter=no_pause, read_s=0.3, hasty_s=0.1)
    with serving(silent) as asked, pytest.raises(OSError, match=r"no answer after 2 tries: it sent nothing for 0\.1 s"):
        Web(patience=patience).fetch(asked.url, max_bytes=100)
    assert len(asked.paths) == 2


def test_a_server_that_trickles_is_a_time_out() -> None:
    patience = Patience(jitter=no_pause, body_s=0.2, bytes_a_second=1e6)
    with serving(trickling) as asked, pytest.raises(OSError, match=r"2 tries: only \d+ of 1000000 bytes came in 0 s"):
        Web(patience=patience).fetch(asked.url, max_bytes=2_000_000)
    assert len(asked.paths) == 2


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        url = f"http://{LOCALHOST}:{probe.getsockname()[1]}/a.tif?sig=SECRET"
    with pytest.raises(OSError, match=r"a\.tif: no answer after 8 tries: Connection refused") as caught:
        BRISK.fetch(url, max_bytes=100)
    assert "SECRET" not in str(caught.value)


# A dead service


def test_a_dead_service_is_named_within_a_minute_by_a_single_thread(slept: list[float]) -> None:
    web = Web(patience=Patience(jitter=whole_pause))
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        host = f"{LOCALHOST}:{probe.getsockname()[1]}"
    for name in "ab":
        with pytest.raises(OSError, match="no answer after") as caught:
            web.fetch(f"http://{host}/{name}", max_bytes=100)
        assert not isinstance(caught.value, ServiceDown)
    said = rf"{host} did not answer 3 requests in a row \(last: Connection refused\); try again later"
    for name in "cd":
        with pytest.raises(ServiceDown, match=said):
            web.fetch(f"http://{host}/{name}", max_bytes=100)
    assert sum(slept) < 30


def test_a_silent_service_is_named_within_a_minute_by_a_single_thread() -> None:
    patience = Patience()
    first = patience.limits(hasty=False).read_s + patience.limits(hasty=True).read_s
    assert first + 2 * patience.limits(hasty=True).read_s < 60


def test_one_file_that_always_fails_is_that_files_error_alone() -> None:
    def answer(handler: Handler, number: int) -> None:
        reply(handler, 503 if handler.path.startswith("/bad") else 200, b"good")

    with serving(answer) as asked:
        for number in range(5):
            with pytest.raises(OSError, match=r"bad\.tif: no answer") as caught:
                BRISK.fetch(f"{asked.url}/bad.tif?number={number}", max_bytes=100)
            assert not isinstance(caught.value, ServiceDown)
            assert BRISK.fetch(f"{asked.url}/{number}.tif", max_bytes=100).body == b"good"
    # Eight tries at first; whoever asks for it soon again is less patient.
    assert Counter(path.partition("?")[0] for path in asked.paths)["/bad.tif"] == 8 + 4 * 4


# Redirects and users


def test_redirects_are_followed_to_http_alone() -> None:
    def answer(handler: Handler, number: int) -> None:
        if handler.path.startswith("/old"):
            reply(handler, int(handler.path[-3:]), b"<html>it has moved</html>", Location="/new?x=1")
        elif handler.path == "/loop":
            reply(handler, 302, Location="/loop")
        elif handler.path == "/away":
            reply(handler, 302, Location="file:///etc/passwd")
        else:
            reply(handler, 200, b"new")

    with serving(answer) as asked:
        for status, method in ((301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")):
            assert fetch(f"{asked.url}/old{status}", max_bytes=99).body == b"new"
            Web().fetch(f"{asked.url}/old{status}", max_bytes=99, method="POST", body=b"wish")
            assert asked.methods[-1] == method
            assert asked.bodies[-1] == (b"wish" if method == "POST" else b"")
        with pytest.raises(OSError, match="redirects to something that is not http"):
            fetch(f"{asked.url}/away", max_bytes=99)
        with pytest.raises(OSError, match="more than 10 redirects"):
            fetch(f"{asked.url}/loop", max_bytes=99)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_request_with_a_body_is_redirected_on_its_own_server_alone(status: int) -> None:
    with serving(always(200, b"there")) as other, serving(always(status, Location=f"{other.url}/x")) as asked:
        with pytest.raises(OSError, match="a request with a body is not sent on") as caught:
            Web().fetch(f"{asked.url}/token?sig=SECRET", max_bytes=9, method="POST", body=b"password=SECRET")
        assert "SECRET" not in str(caught.value)
        assert fetch(f"{asked.url}/file", max_bytes=9).body == b"there"
    assert other.methods == ["GET"]


def test_proof_that_a_caller_gives_stays_with_its_host_too() -> None:
    with serving(always(200, b"there")) as other, serving(always(302, Location=f"{other.url}/x")) as asked:
        web = Web(signer=Stamp(asked.url))
        assert web.fetch("s3://bucket/a", max_bytes=9, proof={"X-Key": "SECRET"}).body == b"there"
    assert (asked.headers[0]["X-Key"], asked.headers[0]["Authorization"]) == ("SECRET", "Bearer TOKEN")
    assert "X-Key" not in other.headers[0]


@dataclass(frozen=True)
class Stamp:
    """Signs with a number that grows each time it is renewed; the secret stays in this process."""

    base: str
    renewals: list[str] = field(default_factory=list, compare=False)
    signed: list[str] = field(default_factory=list, compare=False)

    def sign(self, url: str) -> Signed:
        self.signed.append(url)
        path = url.removeprefix("s3://bucket")
        return Signed(
            url=f"{self.base}{path}?sig=SECRET{len(self.renewals)}", headers={"Authorization": "Bearer TOKEN"}
        )

    def renew(self, url: str) -> None:
        self.renewals.append(url)


def test_proof_of_who_asks_stays_with_its_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine {LOCALHOST} login me password NETRC\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving(always(200, b"there", Set_Cookie="session=1")) as other:

        def answer(handler: Handler, number: int) -> None:
            reply(handler, 302, Location=f"{other.url}/x" if handler.path.startswith("/away") else "/away")

        with serving(answer) as asked:
            web = Web(signer=Stamp(asked.url))
            assert web.fetch("s3://bucket/here", max_bytes=9, headers={"Range": "bytes=0-1"}).body == b"there"
            user = asked.url.replace("//", "//me:word@")
            fetch(f"{user}/here", max_bytes=9, headers={"Authorization": "Mine"})
            fetch(f"{asked.url}/here", max_bytes=9)
    sent = [headers.get("Authorization") for headers in asked.headers]
    assert sent == ["Bearer TOKEN", "Bearer TOKEN", "Basic bWU6d29yZA==", "Basic bWU6d29yZA==", None, None]
    assert [headers.get("Authorization") for headers in other.headers] == [None] * 3
    assert other.headers[0]["Range"] == "bytes=0-1"
    assert not any("Cookie" in headers for headers in other.headers)


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(always(200, b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert fetch("http://elsewhere.example/a", max_bytes=99).body == b"by proxy"
    assert proxy.paths == ["http://elsewhere.example/a"]


# Signatures


def test_each_try_is_signed_just_before_it_is_sent() -> None:
    with serving(after(2, 503)) as asked:
        stamp = Stamp(asked.url)
        assert Web(signer=stamp, patience=BRISK.patience).fetch("s3://bucket/a/B02.jp2", max_bytes=9).body == b"at last"
    assert stamp.signed == ["s3://bucket/a/B02.jp2"] * 3
    assert asked.paths == ["/a/B02.jp2?sig=SECRET0"] * 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_signature_is_renewed_once(status: int) -> None:
    with serving(after(1, status)) as asked:
        stamp = Stamp(asked.url)
        assert Web(signer=stamp).fetch("s3://bucket/B02.jp2", max_bytes=9).body == b"at last"
    assert stamp.renewals == ["s3://bucket/B02.jp2"]
    assert asked.paths == ["/B02.jp2?sig=SECRET0", "/B02.jp2?sig=SECRET1"]
    with serving(always(status)) as asked, pytest.raises(PermissionError, match="check credentials") as caught:
        Web(signer=Stamp(asked.url)).fetch("s3://bucket/B02.jp2", max_bytes=9)
    assert len(asked.paths) == 2
    assert "SECRET" not in str(caught.value)


@dataclass(frozen=True)
class Lost:
    """A signer whose address cannot be asked."""

    def sign(self, url: str) -> Signed:
        return Signed(url=f"{url}?sig=SECRET")

    def renew(self, url: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("web", [Web(), Web(signer=Lost())])
def test_an_address_that_is_not_http_is_refused(web: Web) -> None:
    with pytest.raises(OSError, match=r"an http\(s\) URL was expected") as caught:
        web.fetch("s3://bucket/a?sig=SECRET", max_bytes=9)
    assert "SECRET" not in str(caught.value)


def test_logs_hold_no_signature(tmp_path: Path) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with serving(after(1, 503)) as asked:
            Web(signer=Stamp(asked.url), patience=BRISK.patience).fetch("s3://bucket/B02.jp2", max_bytes=9)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert "/B02.jp2" in written.getvalue()
    assert not any(secret in written.getvalue() for secret in ("SECRET", "TOKEN"))


# Gates


def test_the_gate_is_held_while_a_request_is_under_way_and_not_while_pausing() -> None:
    events: list[str] = []

    class Noting:
        @contextmanager
        def request(self) -> Iterator[None]:
            events.append("in")
            yield
            events.append("out")

    def answer(handler: Handler, number: int) -> None:
        events.append("asked")
        reply(handler, 503 if number == 0 else 200)

    def pausing(_longest: float) -> float:
        events.append("pause")
        return 0.0

    with serving(answer) as asked:
        Web(gate=Noting(), patience=Patience(jitter=pausing)).fetch(asked.url, max_bytes=9)
    assert events == ["in", "asked", "out", "pause", "in", "asked", "out"]


def test_it_travels_to_workers() -> None:
    web = Web(gate=LocalGate(Limit(name="here", at_once=2, a_minute=0)), signer=Lost(), patience=Patience(tries=3))
    assert pickle.loads(pickle.dumps(web)) == web


# Servers that never end


def trickling_for_ever(handler: Handler, start: bytes, piece: bytes) -> None:
    with suppress(OSError):  # who has had enough goes away
        handler.wfile.write(start)
        for _ in range(3000):
            handler.wfile.write(piece)
            time.sleep(0.02)
    handler.close_connection = True


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (CHUNKED + b"5;", b"x"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
    ],
    ids=["interim answers", "a header", "the head of a chunk", "what follows the last chunk", "a body without length"],
)
def test_a_try_ends_in_time_whatever_trickles_in(start: bytes, piece: bytes) -> None:
    patience = Patience(jitter=no_pause, connect_s=0.1, read_s=0.1, hasty_s=0.1, body_s=0.1, bytes_a_second=1e6)
    began = time.monotonic()
    with serving(lambda handler, number: trickling_for_ever(handler, start, piece)) as asked:
        with pytest.raises(OSError, match="no answer after 2 tries"):
            Web(patience=patience).fetch(asked.url, max_bytes=10**6)
        assert time.monotonic() - began < 30  # it trickles for a minute, each time
    assert len(asked.paths) == 2


def test_a_handshake_that_trickles_ends_in_time() -> None:
    """The head of a TLS record of 16 KiB, whose bytes come one by one."""
    done = threading.Event()
    with socket.create_server((LOCALHOST, 0)) as listening:

        def answer() -> None:
            for _ in range(2):
                with listening.accept()[0] as connection, suppress(OSError):
                    connection.sendall(b"\x16\x03\x03\x40\x00\x02")
                    while not done.wait(0.02):
                        connection.sendall(b"\x00")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        patience = Patience(jitter=no_pause, connect_s=0.2, read_s=0.2, hasty_s=0.2)
        port = listening.getsockname()[1]
        with pytest.raises(OSError, match="no answer after 2 tries"):
            Web(patience=patience).fetch(f"https://{LOCALHOST}:{port}/a", max_bytes=9)
        done.set()
        thread.join()


def test_a_request_that_ends_in_time_leaves_its_connection_to_the_next() -> None:
    with serving(always(200, b"x" * 100_000)) as asked:
        patience = Patience(connect_s=0.1, read_s=0.1)
        for _ in range(3):
            assert len(Web(patience=patience).fetch(asked.url, max_bytes=10**6).body) == 100_000
            time.sleep(0.45)  # longer than a head may take
        assert len(asked.clients) == 1


# Words of servers that are none


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1e3"])
def test_a_length_that_is_no_number_says_nothing(length: str) -> None:
    def answer(handler: Handler, number: int) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ")
        handler.wfile.write(length.encode("latin-1") + b"\r\n\r\nbody")
        handler.close_connection = True

    with serving(answer) as asked:
        assert BRISK.fetch(asked.url, max_bytes=100).body == b"body"


@pytest.mark.parametrize("location", ["http://[x", "//[", "http://[::1", "http://h:99999/"])
def test_a_redirect_to_what_is_no_address_is_one_sentence(location: str) -> None:
    with serving(always(302, Location=location)) as asked:
        with pytest.raises(OSError, match=r"redirects to something that is not http\(s\)"):
            BRISK.fetch(asked.url, max_bytes=100)
        assert len(asked.paths) == 1
