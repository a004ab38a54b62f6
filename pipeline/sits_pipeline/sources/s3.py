"""Objects of a store with the S3 interface as https addresses that are signed for a quarter of an hour."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sits_catalog.addresses import without_secrets
from sits_pipeline.sources.access import Signed
from sits_pipeline.sources.base import CredentialsError

__all__ = ["CDSE_ENDPOINT", "S3Signer", "forget_all", "has_s3_keys"]

CDSE_ENDPOINT = "https://eodata.dataspace.copernicus.eu"
"""Copernicus Data Space; CDSE_S3_ENDPOINT names another one. The usual AWS_ENDPOINT_URL is that of the store which is
written to."""

_LIFE_S = 900
_RENEW_S = 450.0
_MAX_MEMO = 10_000
_CDSE_REGION = "default"
_KEY, _SECRET = "CDSE_S3_ACCESS_KEY_ID", "CDSE_S3_SECRET_ACCESS_KEY"


@dataclass
class _Client:
    """What a process needs to sign for an endpoint."""

    client: Any = field(default=None, repr=False)
    signed: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict, repr=False)
    """By s3 address: until when it is handed out, by `time.monotonic()`, and the signed address."""


_LOCK = threading.Lock()
_CLIENTS: dict[str, _Client] = {}
"""By endpoint."""


@dataclass(frozen=True)
class S3Signer:
    """Signs s3://bucket/key for an endpoint; other addresses are left as they are.

    With CDSE_S3_ACCESS_KEY_ID and CDSE_S3_SECRET_ACCESS_KEY, else with the credentials that botocore finds.
    """

    endpoint: str = CDSE_ENDPOINT

    def sign(self, url: str) -> Signed:
        """An https address of the object that anybody may read for a while; raises OSError without credentials."""
        if not url.startswith("s3://"):
            return Signed(url=url)
        now, endpoint = time.monotonic(), self._address()
        with _LOCK:
            held = _CLIENTS.setdefault(endpoint, _Client())
            until, signed = held.signed.pop(url, (0.0, ""))
            if now >= until:
                client = held.client or _connect(endpoint)
                until, signed = now + _RENEW_S, _presign(client, url, endpoint)
                # One that found no credentials is not kept: they may be there the next time.
                held.client = client
            held.signed[url] = (until, signed)
            if len(held.signed) > _MAX_MEMO:
                held.signed.popitem(last=False)
        return Signed(url=signed)

    def renew(self, url: str) -> None:
        """Forget what was signed for an object; credentials are looked for again."""
        with _LOCK:
            held = _CLIENTS.get(self._address())
            if held is not None and held.signed.pop(url, None) is not None:
                held.client = None

    def _address(self) -> str:
        """The environment names another endpoint for the provider's own alone."""
        named = os.environ.get("CDSE_S3_ENDPOINT", "") if self.endpoint == CDSE_ENDPOINT else ""
        address = named or self.endpoint
        return address if "://" in address else f"https://{address}"


def has_s3_keys() -> bool:
    """Whether the environment or the usual file names S3 keys to read with; no server is asked for any."""
    if any(os.environ.get(name) for name in (_KEY, "AWS_ACCESS_KEY_ID", "AWS_PROFILE")):
        return True
    usual = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return Path(usual).expanduser().is_file()


def forget_all() -> None:
    """Look for credentials anew."""
    with _LOCK:
        _CLIENTS.clear()


def _connect(endpoint: str) -> Any:
    """A client that speaks to no one: it only signs."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},  # the store has no names for its buckets (AWS_VIRTUAL_HOSTING=FALSE)
        # Else a header is part of the signature, and a range request would have to send it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = Session()
        # That of the environment is of the store which is written to.
        region = None if endpoint == CDSE_ENDPOINT else session.get_config_variable("region")
        key, secret = _own_keys()
        return session.create_client(
            "s3",
            region_name=region or _CDSE_REGION,
            endpoint_url=endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise OSError(f"the S3 store {endpoint} cannot be read: {error}") from None


def _own_keys() -> tuple[str | None, str | None]:
    """Those that are for reading alone; None, None: the usual ones."""
    key, secret = (os.environ.get(name) or None for name in (_KEY, _SECRET))
    if (key is None) != (secret is None):
        raise CredentialsError(f"of {_KEY} and {_SECRET} one is set: set both, or neither for the usual AWS ones")
    return key, secret


def _presign(client: Any, url: str, endpoint: str) -> str:
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    # A key is what stands there, never decoded: it may hold what would end the path of another address.
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ValueError(f"an object is s3://bucket/key; got {without_secrets(url)}")
    try:
        signed: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_LIFE_S
        )
    except NoCredentialsError:
        raise CredentialsError(
            f"the S3 store {endpoint} asks who reads it: set {_KEY} and {_SECRET}, or, where nothing is written to "
            "another S3 store, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile of ~/.aws/credentials in "
            "AWS_PROFILE; users of Copernicus Data Space make keys at "
            "https://eodata-s3keysmanager.dataspace.copernicus.eu"
        ) from None
    except BotoCoreError as error:
        raise OSError(f"the S3 store {endpoint} cannot be read: {error}") from None
    return signed
