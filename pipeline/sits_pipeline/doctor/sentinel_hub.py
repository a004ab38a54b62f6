"""A Sentinel Hub as a build would use it: its address, whether it accepts who we are, and its Catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from sits_catalog.region import Imagery
from sits_pipeline.doctor.finding import Finding, fine, unset, wrong
from sits_pipeline.doctor.services import ask, check_clock, reach
from sits_pipeline.sources.base import SourceError
from sits_pipeline.sources.exchange import Answer
from sits_pipeline.sources.sentinel_hub.deployment import (
    DEPLOYMENTS,
    Deployment,
    Patience,
    read_config,
    resolve_deployment,
)

if TYPE_CHECKING:
    from sentinelhub.config import SHConfig

__all__ = ["check_sentinel_hub"]

_CATALOG = "/api/v1/catalog/1.0.0/collections/sentinel-2-l2a"


def check_sentinel_hub(imagery: Imagery, *, chosen: bool) -> Iterator[Finding]:
    """Address, clock, credentials and Catalog of a deployment; missing credentials are wrong where it is `chosen`."""
    try:
        deployment = resolve_deployment(imagery.deployment, imagery.path, requests_a_minute=0)
    except SourceError as error:
        yield wrong("sentinel-hub address", str(error))
        return
    found, answer = reach("sentinel-hub", f"{deployment.service_url}{_CATALOG}")
    yield found
    if answer is not None:
        yield check_clock("sentinel-hub", answer)
    try:
        config = read_config(deployment, Patience())
    except OSError as error:
        yield (wrong if chosen else unset)("sentinel-hub credentials", " ".join(str(error).split()))
        return
    # Credentials are shown to nobody but the deployment that was asked for.
    found, token = _check_token(deployment, config)
    yield found
    if token is not None and answer is not None:
        yield _check_catalogue(deployment, token)


def _check_token(deployment: Deployment, config: SHConfig) -> tuple[Finding, str | None]:
    """Whether the deployment gives a token for our credentials, and the token."""
    subject = "sentinel-hub credentials"
    form = {
        "grant_type": "client_credentials",
        "client_id": config.sh_client_id,
        "client_secret": config.sh_client_secret,
    }
    try:
        answer = ask(deployment.token_url, body=urlencode(form).encode())
    except OSError as error:
        says = f"where tokens come from, {error}; check the network, and SH_TOKEN_URL where it is set"
        return wrong(subject, says), None
    if answer.status in (400, 401, 403):
        says = (
            f"{deployment.token_url} refuses them (HTTP {answer.status}): id or secret is wrong, or the client was "
            f"made at another deployment{_others(deployment)}, where alone it is known; {deployment.advice}"
        )
        return wrong(subject, says), None
    token = _token_of(answer)
    if token is None:
        return wrong(
            subject,
            f"{deployment.token_url} answers HTTP {answer.status} without a token; check SH_TOKEN_URL where it is set, "
            "or try again later",
        ), None
    return fine(subject, f"accepted by deployment {deployment.name}"), token


def _others(deployment: Deployment) -> str:
    """Where else a client may have been made."""
    places = dict.fromkeys(one.clients_at for one in DEPLOYMENTS.values() if one.clients_at != deployment.clients_at)
    return f" ({' or '.join(places)})"


def _token_of(answer: Answer) -> str | None:
    try:
        token = json.loads(answer.body)["access_token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return token if isinstance(token, str) and token else None


def _check_catalogue(deployment: Deployment, token: str) -> Finding:
    """Whether the service takes the token and has our collection."""
    subject = "sentinel-hub catalogue"
    try:
        answer = ask(f"{deployment.service_url}{_CATALOG}", proof={"Authorization": f"Bearer {token}"})
    except OSError as error:
        return wrong(subject, f"{error}; try again later")
    if answer.status in (401, 403):
        return wrong(
            subject,
            f"{deployment.host} refuses the token that {deployment.token_url} gave (HTTP {answer.status}): they belong "
            "to different deployments, or the account may not use the Catalog; check imagery.deployment, imagery.path "
            "and SH_TOKEN_URL",
        )
    if answer.status >= 300:
        return wrong(subject, f"{deployment.host} answers HTTP {answer.status} for sentinel-2-l2a; try again later")
    return fine(subject, f"{deployment.host} has sentinel-2-l2a")
