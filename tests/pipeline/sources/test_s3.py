from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.services.moto import BUCKET, KEY, SECRET, Moto, moto_server

from sits_pipeline.sources import s3
from sits_pipeline.sources.base import CredentialsError
from sits_pipeline.sources.cache import open_cached
from sits_pipeline.sources.s3 import CDSE_ENDPOINT, S3Signer, has_s3_keys
from sits_pipeline.sources.web import Web

HERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """None but the keys of the simulated store."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CDSE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.forget_all()
    yield monkeypatch
    s3.forget_all()


@pytest.fixture(scope="module")
def store() -> Iterator[Moto]:
    with moto_server() as moto:
        yield moto


def test_an_object_is_an_address_below_the_endpoint_that_is_good_for_a_quarter_of_an_hour() -> None:
    parts = urlsplit(S3Signer(HERE).sign("s3://eodata/Sentinel-2/a b%20+c.jp2").url)
    assert (f"{parts.scheme}://{parts.netloc}", parts.path) == (HERE, "/eodata/Sentinel-2/a%20b%2520%2Bc.jp2")
    query = parse_qs(parts.query)
    assert query["X-Amz-Expires"] == ["900"]
    # A range is asked for in a header, which is therefore no part of what was signed.
    assert query["X-Amz-SignedHeaders"] == ["host"]


def test_a_range_of_an_object_is_read(store: Moto) -> None:
    store.write("a/B02 1.jp2", bytes(range(200)))
    web = Web(signer=S3Signer(store.url))
    answer = web.fetch(f"s3://{BUCKET}/a/B02 1.jp2", max_bytes=300, headers={"Range": "bytes=5-9"})
    assert (answer.status, answer.body) == (206, bytes(range(5, 10)))
    assert answer.headers["Content-Range"] == "bytes 5-9/200"
    assert web.fetch(f"s3://{BUCKET}/a/B02 1.jp2", max_bytes=300).body == bytes(range(200))
    with pytest.raises(FileNotFoundError, match=r"gone\.jp2") as caught:
        web.fetch(f"s3://{BUCKET}/gone.jp2", max_bytes=10_000)
    assert "Signature" not in str(caught.value)


def test_an_object_is_read_through_the_cache(store: Moto, tmp_path: Path) -> None:
    store.write("b.tif", os.urandom(200_000))
    file = open_cached(f"s3://{BUCKET}/b.tif", folder=tmp_path, max_bytes=10**9, web=Web(signer=S3Signer(store.url)))
    file.seek(150_000)
    assert file.read(1000) == store.read("b.tif")[150_000:151_000]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.suffix != ".block" and path.is_file())
    assert b"Signature" not in stored


def test_a_signed_address_is_kept_for_half_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now, signed = 0.0, []
    monkeypatch.setattr(s3.time, "monotonic", lambda: now)
    presign = s3._presign
    monkeypatch.setattr(s3, "_presign", lambda *args: signed.append(args[1]) or presign(*args))
    signer = S3Signer(HERE)
    for moment in (0.0, 449.0, 451.0, 900.0):
        now = moment
        signer.sign("s3://eodata/a")
    assert signed == ["s3://eodata/a"] * 2
    signer.sign("s3://eodata/b")
    signer.renew("s3://eodata/a")
    signer.sign("s3://eodata/a")
    assert signed[2:] == ["s3://eodata/b", "s3://eodata/a"]


def test_the_environment_names_another_endpoint_for_the_providers_own(
    environment: pytest.MonkeyPatch,
) -> None:
    assert S3Signer().sign("s3://eodata/a").url.startswith(f"{CDSE_ENDPOINT}/eodata/a?")
    for value, expected in [
        ("mirror.example.org", "https://mirror.example.org/"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/"),
    ]:
        environment.setenv("CDSE_S3_ENDPOINT", value)
        assert S3Signer().sign("s3://eodata/a").url.startswith(expected)
        assert S3Signer(HERE).sign("s3://eodata/a").url.startswith(HERE)


def test_the_store_that_is_written_to_is_not_the_one_that_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-9")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_S3_ENDPOINT"):
        environment.setenv(name, "http://127.0.0.1:2")
    signed = S3Signer().sign("s3://eodata/a").url
    assert signed.startswith(f"{CDSE_ENDPOINT}/eodata/a?")
    assert parse_qs(urlsplit(signed).query)["X-Amz-Credential"][0].split("/")[2] == "default"
    environment.setenv("CDSE_S3_ACCESS_KEY_ID", "AKIAREADING")
    s3.forget_all()
    with pytest.raises(CredentialsError, match="one is set: set both"):
        S3Signer().sign("s3://eodata/a")
    environment.setenv("CDSE_S3_SECRET_ACCESS_KEY", "SECRETreading")
    environment.setenv("AWS_SESSION_TOKEN", "SECRETsession")  # goes with the other keys
    signed = S3Signer().sign("s3://eodata/a").url
    assert parse_qs(urlsplit(signed).query)["X-Amz-Credential"][0].startswith("AKIAREADING/")
    assert "SECRET" not in signed


@pytest.mark.parametrize("name", ["CDSE_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"])
def test_keys_are_found_where_they_are_named(environment: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert not has_s3_keys()
    with environment.context() as inner:
        inner.setenv(name, "a")
        assert has_s3_keys()
    (tmp_path / "credentials").write_text("[default]\n")
    assert has_s3_keys()


def test_addresses_of_other_kinds_are_left_as_they_are() -> None:
    assert S3Signer(HERE).sign("https://example.org/a").url == "https://example.org/a"
    with pytest.raises(ValueError, match=r"an object is s3://bucket/key; got s3://eodata$"):
        S3Signer(HERE).sign("s3://eodata")


def test_missing_credentials_are_told_in_one_sentence_and_found_later(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PermissionError) as caught:
        S3Signer(HERE).sign("s3://eodata/a")
    assert str(caught.value) == (
        f"the S3 store {HERE} asks who reads it: set CDSE_S3_ACCESS_KEY_ID and CDSE_S3_SECRET_ACCESS_KEY, or, where "
        "nothing is written to another S3 store, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile of "
        "~/.aws/credentials in AWS_PROFILE; users of Copernicus Data Space make keys at "
        "https://eodata-s3keysmanager.dataspace.copernicus.eu"
    )
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    with pytest.raises(OSError, match="AWS_SECRET_ACCESS_KEY"):
        S3Signer(HERE).sign("s3://eodata/a")
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert S3Signer(HERE).sign("s3://eodata/a").url


def test_credentials_come_from_the_usual_files_too(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text(f"[cdse]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    environment.setenv("AWS_PROFILE", "cdse")
    assert f"X-Amz-Credential={KEY}" in S3Signer(HERE).sign("s3://eodata/a").url
    s3.forget_all()
    environment.setenv("AWS_PROFILE", "other")
    with pytest.raises(OSError, match="other"):
        S3Signer(HERE).sign("s3://eodata/a")


def test_a_signer_travels_without_keys_and_signatures() -> None:
    signer = S3Signer(HERE)
    signed = signer.sign("s3://eodata/a")
    text = f"{signer!r} {pickle.dumps(signer)!r} {signed!r}"
    assert SECRET not in text
    assert KEY not in text
    assert "Signature" not in text
    assert pickle.loads(pickle.dumps(signer)) == signer
