"""A service as a build would use it: its address, its catalogue, its credentials, and its clock beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from sits_catalog.addresses import published_text, without_secrets
from sits_catalog.region import Imagery
from sits_pipeline.doctor.finding import Finding, fine, unset, wrong
from sits_pipeline.sources.access import Signer
from sits_pipeline.sources.exchange import Answer, Broken, Sent, TimeLimits, exchange
from sits_pipeline.sources.oidc import OidcSigner
from sits_pipeline.sources.providers import PROVIDERS, Provider, any_api
from sits_pipeline.sources.s3 import S3Signer, has_s3_keys
from sits_pipeline.sources.sas import SasSigner
from sits_pipeline.sources.search import search_items
from sits_pipeline.sources.web import Patience, Web

__all__ = ["ask", "check_api", "check_clock", "document_of", "reach"]

_MAX_BYTES = 5_000_000
_LIMITS = TimeLimits(connect_s=5.0, read_s=15.0, body_s=30.0, bytes_a_second=50_000.0)
_PATIENCE = Patience(tries=2, timeouts=1, connect_s=5.0, read_s=15.0)
"""Somebody waits for an answer."""
_SKEW_S = 300.0
"""More than this between two clocks, and signatures and tokens count as too old or as not yet good."""
_BOX = (5.60, 52.50, 5.61, 52.51)
_SPAN = "2023-06-01T00:00:00Z/2023-06-05T23:59:59Z"
"""A little land in the midst of a tile for a few days, for a search that finds a scene or two."""
_CDSE_HOST = "download.dataspace.copernicus.eu"
_KEYS = "CDSE_S3_ACCESS_KEY_ID and CDSE_S3_SECRET_ACCESS_KEY"
_KEYS_AT = "https://eodata-s3keysmanager.dataspace.copernicus.eu"


def ask(url: str, *, proof: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    """What a server answers, whatever its status: once, without limits; a POST where there is a body of a form.

    Raises OSError with a sentence where nothing comes.
    """
    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
    sent = Sent(url=url, method=method, headers=headers, proof=proof or {}, body=body, max_bytes=_MAX_BYTES)
    try:
        return exchange(sent, _LIMITS)
    except Broken as error:
        raise ConnectionError(f"{without_secrets(url)} does not answer: {error}") from None


def reach(subject: str, url: str) -> tuple[Finding, Answer | None]:
    """Whether a server answers at an address, and what; an answer that refuses is one."""
    try:
        answer = ask(url)
    except OSError as error:
        advice = "check the address, the network and the proxy (HTTPS_PROXY), or try again later"
        return wrong(f"{subject} address", f"{_sentence(error)}; {advice}"), None
    if answer.status >= 500:
        says = f"{without_secrets(url)} answers HTTP {answer.status}: it is in trouble itself; try again later"
        return wrong(f"{subject} address", says), None
    return fine(f"{subject} address", f"{without_secrets(url)} answers"), answer


def check_clock(subject: str, answer: Answer) -> Finding:
    """Whether this machine's clock agrees with a server's."""
    said = answer.headers.get("Date", "")
    try:
        theirs = parsedate_to_datetime(said)
    except ValueError:
        return fine(f"{subject} clock", "the service does not tell its time")
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    if abs(skew) > _SKEW_S:
        way = "ahead of" if skew > 0 else "behind"
        return wrong(
            f"{subject} clock",
            f"this machine's clock is {abs(skew) / 60:.0f} minutes {way} the service's: signatures and tokens will be "
            "refused; set it, best by a time server (timedatectl set-ntp true)",
        )
    return fine(f"{subject} clock", "agrees with this machine's")


# STAC APIs


def check_api(imagery: Imagery, *, chosen: bool) -> Iterator[Finding]:
    """A STAC API: address, clock, collection, a small search, credentials of its assets.

    Credentials that are missing are wrong for a `chosen` source alone.
    """
    provider = PROVIDERS.get(imagery.source) or any_api(imagery.path or "", imagery.assets)
    url, collection = imagery.path or provider.url, imagery.collection or next(iter(provider.collections), None)
    if url.endswith(".parquet"):
        yield fine(f"{provider.name} address", f"{without_secrets(url)}, a table of items, stands for its answers")
    else:
        found, answer = reach(provider.name, url)
        yield found
        if answer is not None:
            yield check_clock(provider.name, answer)
            yield _caught(f"{provider.name} catalogue", lambda: _check_catalogue(provider, url, collection, answer))
    if provider.signing != "none":
        yield _check_signer(provider, chosen=chosen)


def _check_catalogue(provider: Provider, url: str, collection: str | None, answer: Answer) -> Finding:
    subject, shown = f"{provider.name} catalogue", without_secrets(url)
    root = document_of(answer)
    if root is None or "stac_version" not in root or not isinstance(root.get("links"), list):
        return wrong(subject, f"{shown} answers, but is not the root of a STAC API; give the root, https://host/v1")
    if collection is None:
        return wrong(subject, f"no collection is named; set imagery.collection to {_collections(url)}")
    there = ask(f"{url.rstrip('/')}/collections/{collection}")
    if there.status in (404, 410):
        return wrong(subject, f"{shown} has no collection {collection}; set imagery.collection to {_collections(url)}")
    if there.status >= 300:
        return wrong(subject, f"{shown} answers HTTP {there.status} for the collection {collection}; try again later")
    try:
        items = search_items(
            url, Web(patience=_PATIENCE), collection=collection, bbox=_BOX, span=_SPAN, page_size=provider.page_size
        )
    except (OSError, ValueError) as error:
        return wrong(subject, _sentence(error))
    return fine(subject, f"a STAC API with {collection}; a small search found {len(items)} items")


def _collections(url: str) -> str:
    """What the API offers instead, a few of them by name."""
    try:
        found = document_of(ask(f"{url.rstrip('/')}/collections")) or {}
        names = sorted(str(one["id"])[:80] for one in found["collections"])
    except (OSError, KeyError, TypeError):
        return "one that it has"
    sentinel = [name for name in names if "sentinel-2" in name.lower()] or names
    more = f" or one of {len(sentinel) - 5} more" if len(sentinel) > 5 else ""
    return f"{', '.join(sentinel[:5])}{more}" if sentinel else "one that it has (none now)"


def document_of(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer; None for anything else."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# Credentials of assets


def _check_signer(provider: Provider, *, chosen: bool) -> Finding:
    """Whether the proof that an asset of this provider needs can be had, and is accepted."""
    subject = f"{provider.name} credentials"
    if provider.signing == "sas":
        return _signed(subject, SasSigner(), "https://any.blob.core.windows.net/any", "a token was given")
    if has_s3_keys():
        return _check_s3(subject)
    found = _signed(subject, OidcSigner(), f"https://{_CDSE_HOST}/any", "user and password are accepted")
    if found.state == "wrong" and "set CDSE_USERNAME" in found.says:
        says = f"{found.says}; or {_KEYS} to S3 keys of {_KEYS_AT}, which is faster"
        return wrong(subject, says) if chosen else unset(subject, says)
    return found


def _signed(subject: str, signer: Signer, url: str, says: str) -> Finding:
    try:
        signer.sign(url)
    except OSError as error:
        return wrong(subject, _sentence(error))
    return fine(subject, says)


def _check_s3(subject: str) -> Finding:
    """Ask for an object that is not there: a store says so only to those whose keys it accepts."""
    try:
        Web(signer=S3Signer(), patience=_PATIENCE).fetch("s3://eodata/sits-doctor", max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        pass
    except PermissionError as error:
        said = _sentence(error)
        if "CDSE_S3_ACCESS_KEY_ID" in said:
            return wrong(subject, said)
        return wrong(
            subject,
            f"{said}; the keys in {_KEYS} (without them those in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of "
            f"the profile in AWS_PROFILE) are not accepted, make new ones at {_KEYS_AT}: they end on the day that was "
            "chosen there",
        )
    except OSError as error:
        return wrong(subject, _sentence(error))
    return fine(subject, "the S3 keys are accepted")


def _caught(subject: str, check: Callable[[], Finding]) -> Finding:
    """A check whose server stops answering in the middle."""
    try:
        return check()
    except OSError as error:
        return wrong(subject, f"{_sentence(error)}; try again later")


def _sentence(error: Exception) -> str:
    return published_text(" ".join(str(error).split()))
