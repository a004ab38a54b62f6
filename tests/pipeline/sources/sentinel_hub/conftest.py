from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.pipeline.sources.sentinel_hub.scripted_hub import CLIENT, SECRET, ScriptedHub

from sits_catalog.region import Imagery
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.sentinel_hub import SentinelHubSource, open_sentinel_hub
from sits_pipeline.sources.sentinel_hub.deployment import Patience


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No credentials and an empty configuration folder of sentinelhub."""
    for name in ("SH_CLIENT_ID", "SH_CLIENT_SECRET", "SH_PROFILE", "SH_TOKEN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return tmp_path / "settings" / "sentinelhub" / "config.toml"


@pytest.fixture
def credentials(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SH_CLIENT_ID", CLIENT)
    monkeypatch.setenv("SH_CLIENT_SECRET", SECRET)
    # oauthlib asks for tokens over https alone, unless it is told so.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    server = ScriptedHub()
    yield server
    server.close()
    BREAKER.reset()


@pytest.fixture
def source(hub: ScriptedHub, credentials: None) -> SentinelHubSource:
    """The source of the scripted hub, whose pauses are short."""
    opened = open_sentinel_hub(Imagery(source="sentinel-hub", path=hub.url), BuildConfig())
    return replace(opened, patience=Patience(first_pause_s=0.001, longest_pause_s=0.01, read_s=5.0))
