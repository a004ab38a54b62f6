from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.services.token_service import BlobServer, LoopbackServer, SasService

from sits_pipeline.sources import tokens
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.sas import SAS_TOKEN_URL, SasSigner
from sits_pipeline.sources.tokens import Token, TokenKeeper
from sits_pipeline.sources.web import Web


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PC_SDK_SAS_URL", "PC_SDK_SUBSCRIPTION_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sas() -> Iterator[Callable[..., SasService]]:
    services: list[SasService] = []

    def start(*arguments: float, **options: object) -> SasService:
        services.append(SasService(*arguments, **options))  # type: ignore[arg-type]
        return services[-1]

    yield start
    for service in services:
        service.close()


def sig(url: str) -> str:
    return parse_qs(urlsplit(url).query)["sig"][0]


def test_a_token_follows_the_address_and_serves_until_shortly_before_its_end(sas: Callable[..., SasService]) -> None:
    service = sas(3600.0)
    signer = SasSigner(service.token_url)
    signed = [signer.sign(f"{service.url}/a/{n}.tif").url for n in range(3)]
    assert signed[0].startswith(f"{service.url}/a/0.tif?st=2026")
    assert {sig(url) for url in signed} == {f"{service.tokens.texts[0]}+"}
    assert len(service.tokens.texts) == 1
    assert signer.sign(f"{service.url}/a.tif?x=1").url.startswith(f"{service.url}/a.tif?x=1&st=")


@pytest.mark.parametrize(
    ("life_s", "refreshed_before_end_s"),
    [(3600, 300), (600, 300), (599, 59.9), (300, 30), (1.5, 0.15)],
)
def test_a_token_is_replaced_five_minutes_before_its_end_or_with_a_tenth_of_a_short_life_left(
    life_s: float, refreshed_before_end_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    keeper, fetched = TokenKeeper(), []

    def fetch(last: Token | None) -> Token:
        fetched.append(now)
        return Token(text=f"t{len(fetched)}", expires=now + life_s)

    assert keeper.token("signer", fetch) == "t1"
    now = 1000 + life_s - refreshed_before_end_s - 0.001
    assert keeper.token("signer", fetch) == "t1"
    now = 1000 + life_s - refreshed_before_end_s + 0.001
    assert keeper.token("signer", fetch) == "t2"
    assert keeper.token("another signer", fetch) == "t3"


def test_while_no_other_can_be_had_a_token_serves_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    keeper = TokenKeeper()

    def fail(last: Token | None) -> Token:
        raise OSError("no answer")

    assert keeper.token("signer", lambda last: Token(text="t1", expires=3600)) == "t1"
    now = 3400.0
    assert keeper.token("signer", fail) == "t1"
    now = 3601.0
    with pytest.raises(OSError, match="no answer"):
        keeper.token("signer", fail)


def test_all_threads_share_one_request_for_a_token(sas: Callable[..., SasService]) -> None:
    service = sas(3600.0, delay_s=0.1)
    signer = SasSigner(service.token_url)
    with ThreadPoolExecutor(16) as pool:
        urls = list(pool.map(lambda n: signer.sign(f"{service.url}/{n}").url, range(64)))
    assert len({sig(url) for url in urls}) == len(service.tokens.texts) == 1


def test_threads_refused_with_one_token_fetch_one_other(
    sas: Callable[..., SasService], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "YOUNG_S", 0.0)
    service = sas(3600.0)
    signer = SasSigner(service.token_url)
    signed, refused = threading.Barrier(8), threading.Barrier(8)

    def use(n: int) -> str:
        signer.sign(f"{service.url}/{n}")
        signed.wait(10)
        if n:  # the first one is refused when the others have long got another token
            signer.renew(f"{service.url}/{n}")
            signer.sign(f"{service.url}/{n}")
        refused.wait(10)
        signer.renew(f"{service.url}/{n}") if n == 0 else None
        return sig(signer.sign(f"{service.url}/{n}").url)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(8))) == {f"{service.tokens.texts[1]}+"}
    assert len(service.tokens.texts) == 2


def test_a_refused_address_is_signed_anew_once(tmp_path: Path, sas: Callable[..., SasService]) -> None:
    (tmp_path / "a.tif").write_bytes(b"pixels")
    service = sas(30.0)
    blobs = BlobServer(tmp_path, service.admits)
    try:
        web = Web(signer=SasSigner(service.token_url))
        assert web.fetch(f"{blobs.url}/a.tif", max_bytes=100).body == b"pixels"
        service.tokens.revoke_when_old()
        assert web.fetch(f"{blobs.url}/a.tif", max_bytes=100).body == b"pixels"
        assert (blobs.refused, len(service.tokens.texts)) == (1, 2)
        service.tokens.revoke_when_old()
        blobs.admits = lambda handler: False
        with pytest.raises(PermissionError) as caught:
            web.fetch(f"{blobs.url}/a.tif", max_bytes=100)
        assert (blobs.refused, len(service.tokens.texts)) == (3, 3)
    finally:
        blobs.close()
    assert not any(text in str(caught.getrepr(style="long")) for text in service.tokens.texts)


def test_twenty_refused_files_are_no_reason_for_twenty_tokens(tmp_path: Path, sas: Callable[..., SasService]) -> None:
    service = sas(3600.0)
    blobs = BlobServer(tmp_path, lambda handler: False)
    try:
        web = Web(signer=SasSigner(service.token_url))
        for number in range(20):
            with pytest.raises(PermissionError, match="HTTP 403"):
                web.fetch(f"{blobs.url}/{number}.tif", max_bytes=100)
    finally:
        blobs.close()
    assert len(service.tokens.texts) == 1


def test_a_dead_service_is_down_by_name(sas: Callable[..., SasService], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sits_pipeline.sources.web.time.sleep", lambda _s: None)
    service = sas()
    address, url = service.token_url, f"{service.url}/a.tif"
    service.close()
    asked: list[str] = []
    real = Web.fetch
    monkeypatch.setattr(Web, "fetch", lambda web, url, **options: (asked.append(url), real(web, url, **options))[1])
    for _ in range(5):
        with pytest.raises(ServiceDown, match=r"^127\.0\.0\.1 gives no tokens to read with: .*Connection refused"):
            SasSigner(address).sign(url)
    assert asked == [address]  # eight tries once, not for each file


def test_a_token_that_is_still_good_serves_while_its_service_is_asked_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    keeper, asked = TokenKeeper(), []

    def fail(last: Token | None) -> Token:
        asked.append(now)
        raise ServiceDown("no answer")

    assert keeper.token("signer", lambda last: Token(text="t1", expires=3600)) == "t1"
    for moment in (3400.0, 3401.0, 3429.0, 3431.0):
        now = moment
        assert keeper.token("signer", fail) == "t1"
    assert asked == [3400.0, 3431.0]
    now = 3601.0
    for _ in range(3):
        with pytest.raises(ServiceDown, match="no answer"):
            keeper.token("signer", fail)
    assert asked[2:] == [3601.0]


def test_a_key_does_not_follow_a_redirect_to_another_server(
    sas: Callable[..., SasService], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def collect(method: str, path: str, headers: Any, body: bytes) -> tuple[int, object]:
        seen.append(str(headers))
        return 404, {}

    elsewhere = LoopbackServer(collect)
    sender = LoopbackServer(lambda *_: (302, {}), headers={"Location": f"{elsewhere.url}/token"})
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "SECRETkey")
    try:
        with pytest.raises(FileNotFoundError):
            SasSigner(f"{sender.url}/token").sign(f"{sender.url}/a.tif")
    finally:
        sender.close()
        elsewhere.close()
    assert len(seen) == 1
    assert "SECRETkey" not in seen[0]
    assert "Ocp-Apim" not in seen[0]


def test_the_environment_names_another_root_and_a_key(
    sas: Callable[..., SasService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = sas(key="SECRETkey")
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{service.root}/")
    with pytest.raises(PermissionError, match="HTTP 401") as caught:
        SasSigner().sign(f"{service.url}/a.tif")
    assert service.root in str(caught.value)
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "SECRETkey")
    assert sig(SasSigner().sign(f"{service.url}/a.tif").url)
    assert sig(SasSigner().sign("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B02.tif").url)
    assert SAS_TOKEN_URL == "https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel-2-l2a"


def test_other_hosts_and_signed_addresses_see_no_token(sas: Callable[..., SasService]) -> None:
    service = sas()
    signer = SasSigner(service.token_url)
    for url in (
        "https://example.org/B02.tif",
        "https://blob.core.windows.net.example.org/B02.tif",
        "http://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B02.tif",
        f"{service.url}/a.tif?se=2026&sig=mine",
    ):
        assert signer.sign(url).url == url
    assert service.tokens.texts == []


@pytest.mark.parametrize(
    "says",
    [{}, [], {"token": "", "msft:expiry": "2030-01-01T00:00:00Z"}, {"token": "sig=SECRET"}, b"SECRET",
     {"token": "sig=SECRET", "msft:expiry": "soon"}],
)  # fmt: skip
def test_an_answer_without_a_token_is_an_error_that_quotes_nothing(
    sas: Callable[..., SasService], says: object
) -> None:
    service = sas()
    service.says = says
    with pytest.raises(OSError, match="gave no token: an object with token and msft:expiry was expected") as caught:
        SasSigner(service.token_url).sign(f"{service.url}/a.tif")
    assert "SECRET" not in str(caught.value)


def test_a_token_that_has_ended_already_points_to_the_clock(sas: Callable[..., SasService]) -> None:
    service = sas()
    end = datetime.now(UTC) - timedelta(hours=2)
    service.says = {"token": "sig=SECRET", "msft:expiry": end.isoformat()}
    with pytest.raises(OSError, match=r"is this machine's clock right\?"):
        SasSigner(service.token_url).sign(f"{service.url}/a.tif")


def test_a_signer_travels_without_its_tokens(sas: Callable[..., SasService]) -> None:
    service = sas()
    signer = SasSigner(service.token_url)
    signed = signer.sign(f"{service.url}/a.tif")
    (token,) = service.tokens.texts
    text = f"{signer!r} {pickle.dumps(signer)!r} {signed!r} {pickle.dumps(Web(signer=signer))!r}"
    assert not re.search(f"{token}|SECRET", text)
    assert pickle.loads(pickle.dumps(signer)) == signer
    assert pickle.loads(pickle.dumps(signer)).sign(f"{service.url}/a.tif").url == signed.url
