"""The real client of the Hugging Face hub against a hub on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.models.zoo.made import save_run, wishes
from tests.services.hub import Hub

from sits_models.zoo import Registry
from sits_models.zoo.complete import verify
from sits_models.zoo.entry import CARD, FILES, WEIGHTS
from sits_models.zoo.pull import pull
from sits_models.zoo.push import push
from sits_models.zoo.sources import HubRepository


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def push_to(hub: Hub, folder: Path, *, seed: int = 1, **changes: object) -> object:
    return push(str(save_run(folder / f"run-{seed}", seed=seed)), wishes(**changes), registry="hf://org/tiny")


def test_weights_go_to_the_hub_and_come_back_equal(tmp_path: Path, hub: Hub) -> None:
    pushed = push(str(save_run(tmp_path / "run")), wishes(), registry="hf://org/tiny")
    assert (pushed.new, pushed.place) == (True, "hf://org/tiny")
    (commit,) = hub.repositories["org/tiny"]
    assert set(commit) == set(FILES)
    pulled = pull("hf://org/tiny", registry=Registry(tmp_path / "ours"))
    assert pulled.entry == pushed.entry
    assert {path.name: path.read_bytes() for path in pulled.folder.iterdir()} == commit
    assert verify(pulled.folder) == ()
    assert pull("hf://org/tiny", registry=Registry(tmp_path / "ours")).fetched == 0


def test_the_same_again_makes_no_commit_and_an_old_revision_stays_within_reach(tmp_path: Path, hub: Hub) -> None:
    push_to(hub, tmp_path)
    push_to(hub, tmp_path, created="2027-01-01T00:00:00Z")
    assert len(hub.repositories["org/tiny"]) == 1
    push_to(hub, tmp_path, seed=2)
    assert len(hub.repositories["org/tiny"]) == 2
    registry = Registry(tmp_path / "ours")
    latest = pull("hf://org/tiny", registry=registry)
    first = pull(f"hf://org/tiny@{hub.revision('org/tiny', 0)}", registry=registry)
    assert (latest.folder / WEIGHTS).read_bytes() == hub.repositories["org/tiny"][1][WEIGHTS]
    assert (first.folder / WEIGHTS).read_bytes() == hub.repositories["org/tiny"][0][WEIGHTS]


def test_a_flipped_byte_at_the_hub_is_refused(tmp_path: Path, hub: Hub) -> None:
    push_to(hub, tmp_path)
    data = bytearray(hub.repositories["org/tiny"][0][WEIGHTS])
    data[-3] ^= 1
    hub.repositories["org/tiny"][0][WEIGHTS] = bytes(data)
    with pytest.raises(OSError, match=r"weights\.safetensors of hf://org/tiny has .* it was damaged on its way"):
        pull("hf://org/tiny", registry=Registry(tmp_path / "ours"))
    assert Registry(tmp_path / "ours").entries() == ()


def test_what_is_not_at_the_hub_is_said(tmp_path: Path, hub: Hub) -> None:
    registry = Registry(tmp_path / "ours")
    with pytest.raises(FileNotFoundError, match=r"nothing is at hf://org/none/card\.json"):
        pull("hf://org/none", registry=registry)
    push_to(hub, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing is at hf://org/tiny@v9/card\.json"):
        pull("hf://org/tiny@v9", registry=registry)
    hub.fail[CARD] = 403
    with pytest.raises(PermissionError, match=r"no access to hf://org/tiny/card\.json"):
        pull("hf://org/tiny", registry=registry)


def test_a_hub_that_cannot_be_asked_is_not_taken_for_an_empty_one(tmp_path: Path, hub: Hub) -> None:
    push_to(hub, tmp_path)
    hub.fail[CARD] = 403
    with pytest.raises(PermissionError, match="no access to"):
        push_to(hub, tmp_path, seed=2)
    assert len(hub.repositories["org/tiny"]) == 1


@pytest.mark.parametrize("text", ["hf://tiny", "hf://", "hf://a/b/c", "hf:///b"])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a repository of the hub is hf://ORG/REPO or hf://ORG/REPO@REVISION"):
        HubRepository.of(text)


@pytest.mark.parametrize("licence", ["GPL-3.0-or-later", "ODbL-1.0", "0BSD", "LicenseRef-farm"])
def test_the_hub_knows_the_licence(tmp_path: Path, hub: Hub, licence: str) -> None:
    push_to(hub, tmp_path, licence=licence)
    assert len(hub.repositories["org/tiny"]) == 1


def test_a_file_that_the_hub_says_to_be_too_large_is_not_fetched(tmp_path: Path, hub: Hub) -> None:
    push_to(hub, tmp_path)
    hub.repositories["org/tiny"][0]["README.md"] += bytes(1000)
    with pytest.raises(OSError, match=r"hf://org/tiny/README\.md has more bytes than the \d+ that it may have"):
        pull("hf://org/tiny", registry=Registry(tmp_path / "ours"))
    assert Registry(tmp_path / "ours").entries() == ()
