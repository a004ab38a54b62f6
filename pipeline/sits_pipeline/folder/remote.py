"""What is behind a URL: how its file system is opened, and its errors as sentences.

S3, of any provider, goes through s3fs: endpoint, region, profile and credentials are botocore's, from the environment
and from `~/.aws`, as for every other tool; and it is what xarray opens `s3://` with. (obstore, also maintained, reads
neither profiles nor the endpoints in them.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from sits_catalog.addresses import without_secrets

__all__ = ["check_answers", "errors_in_words", "is_s3", "open_filesystem", "refuse_secrets", "storage_options"]

_ATTEMPTS = 5
"""Of each request: botocore waits 0 to 1, 2, 4 and 8 s in between, at random."""
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where they are temporary), or AWS_PROFILE"
_RIGHTS = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}
_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("NoAuthTokenError", "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"),
)
"""botocore's errors of credentials that are missing or cannot be had."""
_NO_ANSWER = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError", "HTTPClientError")


def is_s3(location: str) -> bool:
    """Whether a location is in an S3 store."""
    return location.startswith(("s3://", "s3a://"))


def refuse_secrets(location: str) -> None:
    """Raises ValueError for a URL that holds a user, a password or a query: what a log would print."""
    if "://" in location and without_secrets(location) != location:
        raise ValueError(
            f"an address of a dataset has no user, password or query; got one with them for {without_secrets(location)}"
            f": set {_KEYS}"
        )


def storage_options(location: str) -> dict[str, Any]:
    """Options of the fsspec file system of a URL; no secret is among them."""
    # Other processes write here too: a listing that was remembered would miss their files.
    options: dict[str, Any] = {"use_listings_cache": False}
    if not is_s3(location):
        return options
    settings: dict[str, Any] = {"read_timeout": 60, "connect_timeout": 10}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        settings["retries"] = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
    if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        # botocore's own default, a CRC in a trailer, is refused by many stores that are not Amazon's.
        settings["request_checksum_calculation"] = "when_required"
    # One stream a file: no HEAD before each GET, and one part of a large shard in memory instead of ten.
    return {**options, "config_kwargs": settings, "max_concurrency": 1}


def open_filesystem(location: str) -> fsspec.AbstractFileSystem:
    """The file system of a URL; fsspec keeps one a thread."""
    return fsspec.core.url_to_fs(location, **storage_options(location))[0]


def check_answers(filesystem: fsspec.AbstractFileSystem, location: str) -> None:
    """Ask an S3 store for one name.

    Raises ValueError where no store answers, FileNotFoundError where it has no such bucket, PermissionError where it
    does not let us in; each in one sentence that says what to do.
    """
    if not is_s3(location):
        return
    bucket, prefix, _ = filesystem.split_path(location)
    try:
        with errors_in_words(location):
            filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ConnectionError as error:
        raise ValueError(str(error)) from None


@contextmanager
def errors_in_words(location: str) -> Iterator[None]:
    """Errors of a store as one sentence each, in the nearest built-in exception and without what caused them.

    A missing file stays the FileNotFoundError that it is.
    """
    try:
        yield
    except Exception as error:
        said = _in_words(location, error) if is_s3(location) else None
        if said is None:
            raise
        # Not even the cause goes on: botocore's errors carry the answer, with key ids and what was signed.
        raise said from None


def _in_words(location: str, error: Exception) -> Exception | None:
    """What to raise instead; None for an error that is not the store's, or that says enough."""
    if type(error).__module__ == "builtins" and not isinstance(error.__cause__, Exception):
        return None
    code, message = _answer(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    bucket = location.split("/")[2]
    if "ParamValidationError" in kinds or code == "InvalidBucketName" or not bucket:
        return ValueError(f"{location} is no address of a bucket; it is written s3://bucket/prefix")
    if code == "NoSuchBucket":
        return FileNotFoundError(
            f"{location}: the store has no bucket {bucket}; make it, or check the address and AWS_ENDPOINT_URL"
        )
    if kinds & set(_CREDENTIALS):
        return PermissionError(f"{location}: there are no credentials that can be used ({error}); set {_KEYS}")
    if code in _REFUSED:
        return PermissionError(f"{location}: the store refuses the credentials ({code}); check {_KEYS}")
    if code in _DENIED or isinstance(error, PermissionError):
        return PermissionError(
            f"{location}: the store denies access ({code}); these credentials need {_RIGHTS} on it, or other ones are "
            f"to be set with {_KEYS}"
        )
    if "ResponseParserError" in kinds:
        return ConnectionError(f"{location}: what answers is no S3 store; check AWS_ENDPOINT_URL")
    if kinds & set(_NO_ANSWER):
        where = getattr(error, "kwargs", {}).get("endpoint_url")
        at = f" at {without_secrets(str(where)).split('/' + bucket)[0]}" if where else ""
        return ConnectionError(f"{location}: no store answers{at}; check AWS_ENDPOINT_URL and the network, try again")
    if code is not None and not isinstance(error, FileNotFoundError):
        return OSError(f"{location}: the store answered {code}: {message}; run the same command again")
    if "BotoCoreError" in kinds:
        return OSError(f"{location}: the store could not be used: {error}")
    return None


def _answer(error: Exception) -> tuple[str | None, str]:
    """Code and message of a store's answer; s3fs keeps it as the cause."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            said = response.get("Error", {})
            return str(said.get("Code")), str(said.get("Message", ""))
    return None, ""
