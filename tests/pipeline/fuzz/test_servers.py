"""Whatever a server sends or a catalogue on a disk says gives an answer or the documented error, in bounded time."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from requests.structures import CaseInsensitiveDict
from tests.pipeline.fuzz.running import check_sentence, each, run_few, run_for_a_while

from sits_catalog.reach import Reach, Refused
from sits_pipeline.sources.base import SourceError
from sits_pipeline.sources.cache import _content_range
from sits_pipeline.sources.catalogue import read_items
from sits_pipeline.sources.exchange import Answer, Broken, Sent, TimeLimits, _origin, _redirected, exchange, is_web

LIMITS = TimeLimits(connect_s=5.0, read_s=5.0, body_s=5.0, bytes_a_second=1e6)
MOST = 4096
lengths = st.sampled_from(["", "0", "3", "-1", "+3", "3.0", "²", "1e3", "9" * 18, "9" * 5000, "3, 3", " 3 ", "0x3"])
addresses = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "http://[x", "http://[::1", "//[", "http://e.org:99999/", "http://e.org:0/", "https://e.org\\.evil.org/a",
            "/a", "http://user:pw@other.org/", "//other.org/a", "file:///etc/passwd", "?a=b", "", "http://", "HTTP://E.ORG/",
            "http://169.254.169.254/latest", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://\ud800/",
            "http://a\nb/",
        ]
    ),
)  # fmt: skip


# What a server sends


@contextmanager
def saying(sent: bytes) -> Iterator[str]:
    """The address of a server that sends these bytes to each who asks, and hangs up."""
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                if closed.is_set():
                    connection.close()
                    return
                with connection, suppress(OSError):  # whoever asked may hang up first
                    connection.settimeout(10)
                    connection.recv(65536)
                    connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/a?signature=secret"
        finally:
            closed.set()
            socket.create_connection(server.getsockname()).close()
            thread.join(20)


def _here_alone(host: Any, *more: Any, _ask: Any = socket.getaddrinfo, **named: Any) -> Any:
    if host != "127.0.0.1":
        raise socket.gaierror("no network in this test")
    return _ask(host, *more, **named)


def as_answer(sent: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch, saying(sent) as url, each(Broken, OSError):
        patch.setattr(socket, "getaddrinfo", _here_alone)  # a redirect may lead anywhere
        asked = Sent(url=url, method="GET", headers={}, proof={}, body=None, max_bytes=MOST)
        answer = exchange(asked, LIMITS)
        assert len(answer.body) <= MOST


heads = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"Content-Length", b"content-length"]), lengths.map(lambda one: one.encode())),
        st.tuples(st.just(b"Transfer-Encoding"), st.sampled_from([b"chunked", b"gzip, chunked", b"\x00", b""])),
        st.tuples(st.just(b"Location"), addresses.map(lambda one: one.encode(errors="replace"))),
        st.tuples(st.binary(max_size=8), st.binary(max_size=20)),
    ),
    max_size=4,
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"3\r\nabc\r\n0\r\n\r\n", b"-1\r\nabc", b"3;" + b"a" * 70_000, b"ffffffffffffffffff\r\n", b"a" * 5000]
    ),
)
answers = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda status, head, body: (
            b"HTTP/1.1 " + status + b"\r\n" + b"".join(a + b": " + b + b"\r\n" for a, b in head) + b"\r\n" + body
        ),
        st.sampled_from([b"200 OK", b"206", b"302 Found", b"100 Continue", b"999 ?", b"-1 no", b"200" + b" " * 70_000]),
        heads,
        bodies,
    ),
)


def as_range(header: str, size: int) -> None:
    answer = Answer(206, CaseInsensitiveDict({"Content-Range": header}), bytes(size))
    with each(OSError):
        start, stop, whole = _content_range(answer)
        assert 0 <= start <= stop == start + size
        assert whole >= 0


ranges = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda unit, *numbers: f"{unit} {numbers[0]}-{numbers[1]}/{numbers[2]}",
        st.sampled_from(["bytes", "Bytes", "items"]),
        *[st.one_of(lengths, st.integers(-2, 40).map(str))] * 3,
    ),
)


def as_redirect(location: str, status: int) -> None:
    proof = {"Authorization": "Bearer secret"}
    asked = Sent(url="https://e.org/a?b=c", method="GET", headers={}, proof=proof, body=None, max_bytes=MOST)
    with each(OSError):
        sent = _redirected(asked, Answer(status, {"Location": location}, b""))
        assert is_web(sent.url)
        assert sent.proof == ({} if _origin(sent.url) != _origin(asked.url) else proof)


def as_reach(location: str, url: str) -> None:
    for reach in (Reach.of("https://stac.example.org/v1"), Reach.of(location)):
        with each(Refused):
            reach.past(url).check_url(url)


# What a catalogue on a disk says


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), st.just(math.inf), addresses
)
documents = st.recursive(
    scalars, lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(addresses, one, max_size=3)), max_leaves=8
)
links = st.one_of(
    documents,
    st.lists(
        st.fixed_dictionaries(
            {
                "rel": st.sampled_from(["child", "item", "self", 3]),
                "href": st.one_of(
                    st.sampled_from(["./b.json", "catalog.json", "../../x", "b.json\0", "a" * 5000, "/vsicurl/x"]),
                    scalars,
                ),
            }
        ),
        max_size=3,
    ),
)  # fmt: skip
catalogues = st.one_of(
    documents,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Catalog", "Feature", "FeatureCollection", 7])},
        optional={"stac_version": scalars, "links": links, "features": documents},
    ),
)


def as_catalogue(first: object, second: object) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Links to the web are followed by tests of their own; here nothing may be asked.
        patch.setattr("sits_pipeline.sources.catalogue._fetch", _refused)
        for name, document in (("catalog.json", first), ("b.json", second)):
            (Path(folder) / name).write_text(json.dumps(document))
        with each(SourceError):
            for found in read_items(folder):
                assert isinstance(found.item, dict)
                assert Path(found.spot.location).is_relative_to(Path(folder).resolve())


def _refused(_spot: Any) -> bytes:
    raise OSError("no network in this test")


PROPERTIES_OF = {
    "answers": given(answers)(as_answer),
    "ranges": given(ranges, st.integers(0, 40))(as_range),
    "redirects": given(addresses, st.sampled_from([301, 303, 308]))(as_redirect),
    "reach": given(addresses, addresses)(as_reach),
    "catalogues": given(catalogues, catalogues)(as_catalogue),
}
"""What is fuzzed, by the name of its input."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES_OF)
def test_any_input_gives_a_value_or_a_sentence(name: str) -> None:
    run_few(PROPERTIES_OF[name])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PROPERTIES_OF)
def test_for_as_long_as_is_asked_for(name: str) -> None:
    run_for_a_while(name, PROPERTIES_OF[name])


@pytest.mark.parametrize("header", ["bytes 0-2/" + "9" * 5000, "bytes ²-3/4", "bytes 0--1/0", "bytes 3-1/3", ""])
def test_a_range_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(OSError, match=r"no valid Content-Range|announced") as caught:
        _content_range(Answer(206, CaseInsensitiveDict({"Content-Range": header}), b"abc"))
    check_sentence(caught.value)
