"""How the client bears with a hub that is silent, slow, out of quota or not what it seems."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import shapely
from tests.pipeline.sources.sentinel_hub.items import grid, scene
from tests.pipeline.sources.sentinel_hub.scripted_hub import Json, Reply, ScriptedHub, answer, json_reply

from sits_catalog.region import Imagery, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.sentinel_hub import SentinelHubSource, open_sentinel_hub
from sits_pipeline.sources.sentinel_hub.deployment import PATIENCE, Patience, read_config
from sits_pipeline.sources.sentinel_hub.faults import Failed
from sits_pipeline.sources.sentinel_hub.session import Tokens

FIRST = scene()
BRIEF = Patience(first_pause_s=0.001, longest_pause_s=0.01, read_s=0.2, hasty_s=0.1, body_s=0.2, bytes_a_second=1e6)
AREA, SUMMER = shapely.box(4.3, 43.5, 4.6, 44.0), Season(start=date(2023, 8, 1), end=date(2023, 8, 31))


def read(source: SentinelHubSource, side: int = 2) -> str:
    """Why the scene could not be read; empty where it could."""
    (raster,) = source.read([FIRST], grid(side, side), ["B02"], pad=0)
    return "; ".join(failure.error for failure in raster.failures)


def whole(request: Json) -> Reply:
    shape = (request["output"]["height"], request["output"]["width"])
    return answer(np.ones((1, *shape), np.uint16), np.full(shape, 4, np.uint8), np.ones(shape, np.uint8), [0])


# Silence


@dataclass
class Silent:
    """Accepts connections and never answers."""

    listener: socket.socket
    accepted: list[socket.socket] = field(default_factory=list)

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                self.accepted.append(self.listener.accept()[0])


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent(socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=server.accept)
    thread.start()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    thread.join()
    for connection in server.accepted:
        connection.close()
    BREAKER.reset()


def test_a_service_that_accepts_and_never_answers_is_down_and_named(silent: Silent, credentials: None) -> None:
    host = f"127.0.0.1:{silent.listener.getsockname()[1]}"
    opened = open_sentinel_hub(Imagery(source="sentinel-hub", path=f"http://{host}"), BuildConfig())
    source = replace(opened, patience=BRIEF)
    said = [read(source, side=side) for side in (1, 2)]
    assert f"no token from {host}: it sent nothing for 0.1 s (after 2 tries)" in said[0]
    with pytest.raises(ServiceDown, match=f"{host} did not answer 3 requests in a row"):
        read(source, side=3)
    # Two time-outs of the first request, and one of each further one.
    assert len(silent.accepted) == 4


def test_pixels_that_never_come_are_waited_for_twice_and_then_once(source: SentinelHubSource, hub: ScriptedHub) -> None:
    source, over = replace(source, patience=BRIEF), threading.Event()

    def never(request: Json) -> Reply:
        over.wait(60)
        return Reply(reset=True)

    hub.process = never
    try:
        assert "it sent nothing for 0.1 s (after 2 tries)" in read(source, side=1)
        assert "it sent nothing for 0.1 s" in read(source, side=2)
        with pytest.raises(ServiceDown, match=f"{hub.host} did not answer 3 requests in a row"):
            read(source, side=3)
    finally:
        over.set()
    assert len(hub.requests) == 4


def test_a_silent_service_is_named_within_two_minutes_by_default() -> None:
    first, hasty = PATIENCE.limits(hasty=False), PATIENCE.limits(hasty=True)
    # Two tries of the first request, one each of two more, one after another.
    assert first.read_s + 3 * hasty.read_s <= 90
    assert PATIENCE.timeouts == 2


def test_a_body_that_drips_is_given_up(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = lambda request: Reply(body=bytes(4000), drip_s=0.02)
    assert "of 4000 bytes came in" in read(replace(source, patience=BRIEF))


def test_a_token_is_had_before_the_gate_is_passed(source: SentinelHubSource, hub: ScriptedHub) -> None:
    class Watching:
        @contextmanager
        def request(self) -> Iterator[None]:
            assert hub.tokens, "a place in the gate is held while a token is waited for"
            yield

    hub.process = whole
    assert read(replace(source, gate=Watching())) == ""


def test_threads_that_wait_for_one_token_share_its_failure(source: SentinelHubSource, hub: ScriptedHub) -> None:
    config, tokens = read_config(source.deployment, BRIEF), Tokens()
    all_there, asked = threading.Barrier(8), 0

    def failing() -> Reply:
        nonlocal asked
        asked += 1
        time.sleep(0.05)
        return Reply(503)

    hub.token = failing

    def ask(_: int) -> str:
        all_there.wait()
        try:
            return str(tokens.headers(config, source.patience.limits(hasty=False)))
        except Failed as failed:
            return failed.fault.reason

    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(ask, range(8)))
    assert said == {f"no token: {hub.host} answered HTTP 503"}
    assert asked < 8


# Quota and rates


def test_a_quota_that_is_used_up_ends_the_build_with_the_time(source: SentinelHubSource, hub: ScriptedHub) -> None:
    used_up = json_reply({"error": {"message": "Insufficient processing units"}}, 429, Retry_After="3600000")
    hub.process = hub.search = lambda request: used_up
    said = (
        rf"{hub.host}: HTTP 429: Insufficient processing units; a quota is used up until \d{{4}}-\d\d-\d\d \d\d:\d\d "
        "UTC; what is done is kept: go on then, with the same command"
    )
    with pytest.raises(ServiceDown, match=said):
        read(source)
    with pytest.raises(ServiceDown, match="a quota is used up until"):
        source.sample(FIRST)
    assert len(hub.requests) == 2
    with pytest.raises(ServiceDown, match="a quota is used up until"):
        source.find(AREA, SUMMER)


def test_a_token_service_that_is_busy_is_waited_for(source: SentinelHubSource, hub: ScriptedHub) -> None:
    issue, times = hub.token, list[float]()

    def busy_once() -> Reply:
        times.append(time.monotonic())
        return issue() if len(times) > 1 else Reply(429, headers={"Retry-After": "200"})

    hub.token, hub.process = busy_once, whole
    assert read(source) == ""
    # At the address of the service itself: milliseconds.
    assert 0.2 <= times[1] - times[0] < 20


def test_a_busy_token_service_is_not_down(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.token = lambda: Reply(429)
    for side in range(1, 5):
        assert f"no token: {hub.host} answered HTTP 429 (after 16 tries)" in read(source, side=side)


def test_a_token_service_of_its_own_counts_in_seconds(
    hub: ScriptedHub, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ScriptedHub()
    try:
        monkeypatch.setenv("SH_TOKEN_URL", f"{identity.url}/token")
        source = open_sentinel_hub(Imagery(source="sentinel-hub", path=hub.url), BuildConfig())
        identity.token = lambda: Reply(429, headers={"Retry-After": "400"})
        with pytest.raises(ServiceDown, match=f"no token: {identity.host} answered HTTP 429; a quota is used up until"):
            read(source)
    finally:
        identity.close()


# Who asks


def test_a_netrc_does_not_replace_the_token(
    source: SentinelHubSource, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password elsewhere\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub.process = whole
    assert read(source) == ""
    assert (len(hub.requests), len(hub.tokens)) == (1, 1)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_secret_is_not_taken_to_another_server(source: SentinelHubSource, hub: ScriptedHub, status: int) -> None:
    other = ScriptedHub()
    try:
        hub.token = lambda: Reply(status, headers={"Location": f"{other.url}/token"})
        assert "no token: " in (said := read(source))
        assert "redirects to" in said
        assert other.tokens == []
    finally:
        other.close()


def test_a_client_that_is_refused_is_an_error_of_credentials(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.token = lambda: json_reply({"error": "unauthorized_client"}, 401)
    with pytest.raises(
        CredentialsError, match=r"does not accept this client \(unauthorized_client\); set SH_CLIENT_ID"
    ):
        source.sample(FIRST)


def test_words_that_hold_a_short_id_stay_words(
    source: SentinelHubSource, hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SH_CLIENT_ID", "s")
    hub.process = lambda request: json_reply({"error": {"message": "this is no answer"}}, 400)
    assert read(source) == f"{hub.host}: HTTP 400: this is no answer"
