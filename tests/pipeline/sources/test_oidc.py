from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.services.token_service import BlobServer, LoopbackServer, OidcService

from sits_pipeline.sources import tokens
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.oidc import OidcSigner
from sits_pipeline.sources.web import Web


@pytest.fixture
def oidc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OidcService]]:
    """Starts services; the environment holds the credentials of the last one."""
    monkeypatch.delenv("CDSE_TOKEN_URL", raising=False)
    services: list[OidcService] = []

    def start(*arguments: float, **options: float) -> OidcService:
        services.append(OidcService(*arguments, **options))
        monkeypatch.setenv("CDSE_USERNAME", services[-1].user)
        monkeypatch.setenv("CDSE_PASSWORD", services[-1].password)
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_requests_bear_a_token_and_addresses_stay_as_they_are(tmp_path: Path, oidc: Callable[..., OidcService]) -> None:
    (tmp_path / "a.jp2").write_bytes(b"pixels")
    service = oidc(30.0)
    blobs = BlobServer(tmp_path, service.admits)
    try:
        web = Web(signer=OidcSigner(service.token_url))
        answer = web.fetch(f"{blobs.url}/a.jp2", max_bytes=100, headers={"Range": "bytes=1-3"})
        assert (answer.status, answer.body) == (206, b"ixe")
        assert web.fetch(f"{blobs.url}/a.jp2", max_bytes=100).body == b"pixels"
        assert (len(service.tokens.texts), blobs.refused) == (1, 0)
        service.tokens.revoke_when_old()
        assert web.fetch(f"{blobs.url}/a.jp2", max_bytes=100).body == b"pixels"
        assert (blobs.refused, service.grants) == (1, ["password", "refresh_token"])
    finally:
        blobs.close()


def test_a_session_is_prolonged_while_it_lasts_and_begun_anew_after_it(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = oidc(600.0, session_s=1000.0)
    signer, url = OidcSigner(service.token_url), f"{service.url}/a.jp2"
    now = 0.0
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    bearers = []
    for moment in (0.0, 299.0, 301.0, 1300.0):  # a token lives 600 s and is replaced 300 s before that
        now = moment
        bearers.append(signer.sign(url).headers["Authorization"])
    assert service.grants == ["password", "refresh_token", "password"]
    assert bearers[0] == bearers[1] == f"Bearer {service.tokens.texts[0]}"
    assert len(set(bearers)) == 3


def test_a_session_that_the_service_ended_is_begun_anew(oidc: Callable[..., OidcService]) -> None:
    service = oidc(30.0)
    signer = OidcSigner(service.token_url)
    signer.sign(f"{service.url}/a.jp2")
    service.sessions.revoke()
    service.tokens.revoke_when_old()
    signer.renew(f"{service.url}/a.jp2")
    assert signer.sign(f"{service.url}/a.jp2").headers
    assert service.grants == ["password", "refresh_token", "password"]


def test_all_threads_share_one_session(oidc: Callable[..., OidcService]) -> None:
    service = oidc()
    signer = OidcSigner(service.token_url)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: signer.sign(f"{service.url}/{n}"), range(64)))
    assert service.grants == ["password"]


def test_the_token_goes_to_hosts_of_the_services_domain_alone(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = oidc()
    monkeypatch.setenv("CDSE_TOKEN_URL", service.token_url)
    signer = OidcSigner()
    for url in ("https://download.dataspace.copernicus.eu/odata/v1/a", f"{service.url}/a"):
        assert signer.sign(url).headers["Authorization"].startswith("Bearer ")
    for url in (
        "https://example.org/a",
        "https://copernicus.eu/a",
        "https://dataspace.copernicus.eu.example.org/a",
        "https://evildataspace.copernicus.eu/a",
        "http://0.0.1/a",
        "http://download.dataspace.copernicus.eu/odata/v1/a",
        "http://127.0.0.1.example.org/a",
        "s3://eodata/a",
    ):
        signed = signer.sign(url)
        assert (signed.url, dict(signed.headers)) == (url, {})


@pytest.mark.parametrize("service", ["https://login.people.example.org/token", "https://127.0.0.1.nip.example/token"])
def test_another_token_service_says_nothing_of_its_neighbours(service: str) -> None:
    signer = OidcSigner(service)
    for url in (
        "https://files.people.example.org/a",
        "https://download.dataspace.copernicus.eu/a",
        "http://127.0.0.1:1/a",
        service.replace("https", "http"),
    ):
        assert dict(signer.sign(url).headers) == {}


def test_a_password_is_not_sent_in_the_open(oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch) -> None:
    oidc()
    monkeypatch.setenv("CDSE_TOKEN_URL", "http://login.example.org/token")
    with pytest.raises(
        CredentialsError, match=r"CDSE_TOKEN_URL names an address of login\.example\.org that is not https"
    ):
        OidcSigner().sign("https://download.dataspace.copernicus.eu/a")


def test_a_password_does_not_follow_a_redirect_to_another_server(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def collect(method: str, path: str, headers: Any, body: bytes) -> tuple[int, object]:
        seen.append(body)
        return 200, {"access_token": "SECRET", "expires_in": 600}

    oidc()
    elsewhere = LoopbackServer(collect)
    sender = LoopbackServer(lambda *_: (307, {}), headers={"Location": f"{elsewhere.url}/token"})
    try:
        with pytest.raises(OSError, match="a request with a body is not sent on") as caught:
            OidcSigner(f"{sender.url}/token").sign(f"{sender.url}/a")
    finally:
        sender.close()
        elsewhere.close()
    assert seen == []
    assert "SECRET" not in str(caught.value)


def test_a_dead_service_is_down_and_asked_again_after_a_while(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = oidc()
    service.refuses = 503
    monkeypatch.setattr("sits_pipeline.sources.web.time.sleep", lambda _s: None)
    signer, url = OidcSigner(service.token_url), f"{service.url}/a"
    for _ in range(5):
        with pytest.raises(ServiceDown, match=r"127\.0\.0\.1 gives no tokens to read with: .* HTTP 503"):
            signer.sign(url)
    assert service.grants == ["password"] * 8  # the tries of one request: the others did not ask
    service.refuses = 0
    now = time.monotonic()
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now + tokens.DOWN_S + 1)
    assert signer.sign(url).headers


@pytest.mark.parametrize("missing", ["CDSE_USERNAME", "CDSE_PASSWORD"])
def test_missing_credentials_are_named(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    service = oidc()
    monkeypatch.delenv(missing)
    with pytest.raises(PermissionError, match="set CDSE_USERNAME and CDSE_PASSWORD") as caught:
        OidcSigner(service.token_url).sign(f"{service.url}/a")
    assert "SECRET" not in str(caught.value)
    assert service.grants == []


def test_refused_credentials_are_named_and_never_told(
    oidc: Callable[..., OidcService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = oidc()
    monkeypatch.setenv("CDSE_PASSWORD", "SECRET of another")
    with pytest.raises(PermissionError, match="refused CDSE_USERNAME and CDSE_PASSWORD") as caught:
        OidcSigner(service.token_url).sign(f"{service.url}/a")
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        assert service.user not in str(error)
        error = error.__cause__


def test_a_signer_travels_without_its_tokens(oidc: Callable[..., OidcService]) -> None:
    service = oidc()
    signer = OidcSigner(service.token_url)
    signed = signer.sign(f"{service.url}/a")
    assert "SECRET" not in f"{signer!r} {pickle.dumps(signer)!r} {signed!r}"
    assert pickle.loads(pickle.dumps(signer)) == signer
