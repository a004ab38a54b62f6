"""Who runs a Sentinel Hub, where it answers, how much it may be asked, and who we are to it.

Addresses: sentinelhub-py's guide "Configuration" and documentation.dataspace.copernicus.eu, "Sentinel Hub,
Authentication". Limits: 300 requests a minute is what both give their smallest accounts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sits_catalog.addresses import without_secrets
from sits_pipeline.sources.access import Limit
from sits_pipeline.sources.base import CredentialsError, SourceError
from sits_pipeline.sources.web import Patience, is_web

if TYPE_CHECKING:
    from sentinelhub.config import SHConfig

__all__ = [
    "DEPLOYMENTS",
    "PATIENCE",
    "Deployment",
    "Patience",
    "read_config",
    "resolve_deployment",
]

TOKEN_URL = "SH_TOKEN_URL"  # noqa: S105  # the name of a variable
"""Environment variable: where tokens for a service at an address of its own come from."""

_REQUESTS_A_MINUTE = 300
_TOKEN = "/protocol/openid-connect/token"  # noqa: S105  # a path
_REALM = f"/auth/realms/main{_TOKEN}"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One Sentinel Hub; small, picklable, without a secret."""

    name: str
    service_url: str
    token_url: str
    clients_at: str
    """Where its users make OAuth clients; empty: unknown."""
    at_once: int = 8
    a_minute: int = _REQUESTS_A_MINUTE

    @property
    def host(self) -> str:
        """Host and port of the service."""
        return urlsplit(self.service_url).netloc

    @property
    def limit(self) -> Limit:
        """What all workers together may ask."""
        return Limit(name=self.host, at_once=self.at_once, a_minute=self.a_minute)

    @property
    def advice(self) -> str:
        """What to do about credentials that are missing or not accepted."""
        made = f"made at {self.clients_at}" if self.clients_at else "made in the service's dashboard"
        return (
            "set SH_CLIENT_ID and SH_CLIENT_SECRET (or a profile of sentinelhub's config.toml, SH_PROFILE) to an OAuth "
            f"client of deployment {self.name}, {made}"
        )


DEPLOYMENTS: dict[str, Deployment] = {
    one.name: one
    for one in (
        Deployment(
            name="cdse",
            service_url="https://sh.dataspace.copernicus.eu",
            token_url=f"https://identity.dataspace.copernicus.eu/auth/realms/CDSE{_TOKEN}",
            clients_at="https://shapps.dataspace.copernicus.eu/dashboard/",
        ),
        Deployment(
            name="sentinel-hub",
            service_url="https://services.sentinel-hub.com",
            token_url=f"https://services.sentinel-hub.com{_REALM}",
            clients_at="https://apps.sentinel-hub.com/dashboard/",
            at_once=16,
        ),
        Deployment(
            name="sentinel-hub-uswest2",
            service_url="https://services-uswest2.sentinel-hub.com",
            token_url=f"https://services.sentinel-hub.com{_REALM}",
            clients_at="https://apps.sentinel-hub.com/dashboard/",
            at_once=16,
        ),
    )
}
"""By the names of `Imagery.deployment`."""


PATIENCE = Patience(first_pause_s=0.25, longest_pause_s=30.0, read_s=45.0, hasty_s=15.0)
"""For a service that computes its answers before it sends them."""


def resolve_deployment(name: str, path: str | None, *, requests_a_minute: int) -> Deployment:
    """The deployment of a name, or the service at the address `path`; raises SourceError.

    The tokens of a service at an address of its own come from the environment variable SH_TOKEN_URL, from the profile
    of sentinelhub's configuration file where that names another address than the package does, or from the service.
    """
    found = DEPLOYMENTS[name]
    if path is not None:
        service = _address(path, "imagery.path")
        known = next((one for one in DEPLOYMENTS.values() if one.service_url == service), None)
        token = (
            os.environ.get(TOKEN_URL) or (known and known.token_url) or _token_url_of_profile() or f"{service}{_REALM}"
        )
        host = urlsplit(service).netloc
        base = known or Deployment(name=host, service_url=service, token_url="", clients_at="")
        found = replace(base, token_url=_address(token, TOKEN_URL))
    return replace(found, a_minute=requests_a_minute) if requests_a_minute else found


def read_config(deployment: Deployment, patience: Patience) -> SHConfig:
    """The usual configuration of `sentinelhub`, asking this deployment; raises CredentialsError where there are none.

    Credentials come from SH_CLIENT_ID and SH_CLIENT_SECRET or from the configuration file, never from a region.
    """
    config = _usual_config()
    if not (config.sh_client_id and config.sh_client_secret):
        raise CredentialsError(f"no credentials for {deployment.host}: {deployment.advice}")
    config.sh_base_url = deployment.service_url
    config.sh_token_url = deployment.token_url
    # The package's default is to try for ever; tries are counted by `client`, which asks it for one at a time.
    config.max_retries = patience.tries
    config.max_download_attempts = 1
    config.download_timeout_seconds = patience.read_s
    return config


def _usual_config() -> SHConfig:
    """Raises CredentialsError. Where there is no file none is written, as SHConfig() would."""
    from sentinelhub.config import SHConfig

    profile = os.environ.get("SH_PROFILE")
    problem = ""
    try:
        if Path(SHConfig.get_config_location()).exists():
            return SHConfig()
        if not profile:
            names = ("sh_client_id", "sh_client_secret")
            return SHConfig(use_defaults=True, **{name: os.environ.get(name.upper(), "") for name in names})
        problem = f"SH_PROFILE names profile {profile!r}, but there is no sentinelhub configuration file"
    except KeyError:
        named = profile or "default-profile"
        problem = f"sentinelhub's configuration file has no profile {named!r}; name one as SH_PROFILE"
    except (TypeError, ValueError):
        problem = "sentinelhub's configuration file cannot be read; check it with `sentinelhub.config --show`"
    raise CredentialsError(problem)


def _token_url_of_profile() -> str | None:
    from sentinelhub.config import SHConfig

    try:
        named = str(_usual_config().sh_token_url)
    except OSError as error:
        raise SourceError(str(error)) from None
    return None if named == SHConfig(use_defaults=True).sh_token_url else named


def _address(url: str, name: str) -> str:
    """A URL without its last slash; raises SourceError where secrets would travel in the open."""
    bare = without_secrets(url)
    if not is_web(url) or bare != url:
        raise SourceError(f"{name} must be an https URL without password and query, got {bare!r}")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise SourceError(f"{name} must be an https URL: credentials are sent there; got {bare!r}")
    return url.rstrip("/")
