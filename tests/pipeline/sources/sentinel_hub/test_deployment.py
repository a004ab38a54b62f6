from __future__ import annotations

from pathlib import Path

import pytest

from sits_catalog.region import Imagery
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.base import ServiceSource, SourceError
from sits_pipeline.sources.sentinel_hub import SentinelHubSource, open_sentinel_hub
from sits_pipeline.sources.sentinel_hub.deployment import DEPLOYMENTS, Patience, read_config, resolve_deployment

CDSE = DEPLOYMENTS["cdse"]


def opened(**imagery: object) -> SentinelHubSource:
    return open_sentinel_hub(Imagery(source="sentinel-hub", **imagery), BuildConfig())  # type: ignore[arg-type]


def test_each_deployment_has_its_own_addresses() -> None:
    realm = "/auth/realms/main/protocol/openid-connect/token"
    assert {name: (one.service_url, one.token_url) for name, one in DEPLOYMENTS.items()} == {
        "cdse": (
            "https://sh.dataspace.copernicus.eu",
            "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token",
        ),
        "sentinel-hub": ("https://services.sentinel-hub.com", f"https://services.sentinel-hub.com{realm}"),
        "sentinel-hub-uswest2": (
            "https://services-uswest2.sentinel-hub.com",
            f"https://services.sentinel-hub.com{realm}",
        ),
    }


def test_the_source_is_a_service_with_the_limits_of_its_deployment(no_settings: Path) -> None:
    source = opened(mosaicking="orbit")
    assert isinstance(source, ServiceSource)
    assert (source.deployment, source.mosaicking) == (CDSE, "orbit")
    assert [(one.name, one.at_once, one.a_minute) for one in source.limits] == [("sh.dataspace.copernicus.eu", 8, 300)]
    slow = open_sentinel_hub(Imagery(source="sentinel-hub"), BuildConfig(requests_a_minute=60))
    assert slow.limits[0].a_minute == 60


def test_an_address_of_its_own_takes_tokens_from_where_it_is_told(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = resolve_deployment("cdse", "https://hub.example.org/", requests_a_minute=0)
    assert own.service_url == "https://hub.example.org"
    assert own.token_url == "https://hub.example.org/auth/realms/main/protocol/openid-connect/token"
    no_settings.parent.mkdir(parents=True)
    no_settings.write_text('[default-profile]\nsh_token_url = "https://profile.example.org/token"\n')
    assert resolve_deployment("cdse", own.service_url, requests_a_minute=0).token_url == (
        "https://profile.example.org/token"
    )
    monkeypatch.setenv("SH_TOKEN_URL", "https://token.example.org/token")
    assert resolve_deployment("cdse", own.service_url, requests_a_minute=0).token_url == (
        "https://token.example.org/token"
    )


def test_the_address_of_a_known_deployment_means_that_deployment(no_settings: Path) -> None:
    assert resolve_deployment("sentinel-hub", CDSE.service_url, requests_a_minute=0) == CDSE


@pytest.mark.parametrize(
    "path", ["http://hub.example.org", "hub.example.org", "https://me:w0rd@hub.example.org", "https://h.org/?key=w0rd"]
)
def test_credentials_are_sent_over_https_alone_and_are_no_part_of_an_address(path: str, no_settings: Path) -> None:
    with pytest.raises(SourceError, match="must be an https URL") as caught:
        opened(path=path)
    assert "w0rd" not in str(caught.value)


def test_missing_credentials_are_an_error_that_says_where_to_get_some(no_settings: Path) -> None:
    with pytest.raises(OSError, match=r"SH_CLIENT_ID and SH_CLIENT_SECRET.*deployment cdse, made at https://shapps"):
        read_config(CDSE, Patience())
    assert not no_settings.exists(), "nothing is written into the user's configuration"


def test_credentials_come_from_the_environment_or_a_profile_and_the_deployment_decides_the_rest(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_settings.parent.mkdir(parents=True)
    no_settings.write_text(
        '[default-profile]\nsh_client_id = "one"\nsh_client_secret = "first"\nmax_retries = 3\n'
        'sh_base_url = "https://elsewhere.example.org"\n[other]\nsh_client_id = "two"\nsh_client_secret = "second"\n'
    )
    config = read_config(CDSE, Patience(tries=5))
    assert (config.sh_client_id, config.sh_client_secret) == ("one", "first")
    assert (config.sh_base_url, config.sh_token_url) == (CDSE.service_url, CDSE.token_url)
    assert config.max_retries == 5
    monkeypatch.setenv("SH_PROFILE", "other")
    assert read_config(CDSE, Patience()).sh_client_id == "two"
    monkeypatch.setenv("SH_CLIENT_ID", "three")
    assert read_config(CDSE, Patience()).sh_client_id == "three"
    monkeypatch.setenv("SH_PROFILE", "third")
    with pytest.raises(OSError, match="no profile 'third'"):
        read_config(CDSE, Patience())
    monkeypatch.delenv("SH_PROFILE")
    no_settings.write_text("[default-profile\nsh_client_secret = first")
    with pytest.raises(OSError, match="cannot be read") as caught:
        read_config(CDSE, Patience())
    assert "first" not in str(caught.value)


def test_what_cannot_be_had_of_this_source_is_said_when_it_is_opened() -> None:
    with pytest.raises(SourceError, match="resampling bilinear is not offered with this source"):
        opened(resampling="bilinear")
    with pytest.raises(SourceError, match="the collection sentinel-2-l2a is read; got 'sentinel-2-l1c'"):
        opened(collection="sentinel-2-l1c")
