from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.catalog.file_server import Behaviour, FileServer
from tests.models.zoo.made import push_tiny, shared_weights

from sits_models.zoo import Registry
from sits_models.zoo.complete import verify
from sits_models.zoo.entry import CARD, FILES, ITEM, WEIGHTS, stored_file
from sits_models.zoo.pull import pull
from sits_models.zoo.registry import INDEX, PARTIAL
from sits_models.zoo.sources import Address, TooLargeError


def served(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_in(registry: Path) -> bool:
    return not [path for path in registry.rglob("*") if path.is_file() and PARTIAL not in path.parts]


@pytest.fixture
def ours(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "ours")


@pytest.mark.parametrize("form", ["registry", "name", "version", "folder"])
def test_weights_come_from_a_web_server_whole_and_verified(tmp_path: Path, ours: Registry, form: str) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    with FileServer(served(tmp_path / "zoo")) as server:
        ends = {"registry": "", "name": "/tiny", "version": f"/tiny@{entry.version}", "folder": f"/{entry.path}"}
        pulled = pull(server.url + ends[form], registry=ours)
    assert pulled.entry == entry
    assert pulled.fetched == len(FILES)
    assert served(pulled.folder) == served(tmp_path / "zoo" / entry.path)
    assert verify(pulled.folder) == ()
    assert not (ours.folder / PARTIAL).exists()
    assert ours.entries() == (entry,)


@pytest.mark.parametrize("url", [False, True])
def test_weights_come_from_a_folder(tmp_path: Path, ours: Registry, url: bool) -> None:
    folder = shared_weights(tmp_path)
    pulled = pull(f"file://{folder}" if url else str(folder), registry=ours)
    assert served(pulled.folder) == served(folder)
    assert pull(str(tmp_path / "zoo" / "tiny"), registry=ours).fetched == 0


def test_weights_come_from_a_store_of_another_kind(tmp_path: Path, ours: Registry) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    store = fsspec.filesystem("memory")
    store.put(f"{tmp_path / 'zoo'}/", "/bucket/zoo/", recursive=True)
    try:
        assert pull("memory://bucket/zoo/tiny", registry=ours).entry == entry
        with pytest.raises(FileNotFoundError, match=r"memory://bucket/zoo/none/x holds no item\.json"):
            pull("memory://bucket/zoo/none/x", registry=ours)
    finally:
        store.rm("/bucket", recursive=True)
    with pytest.raises(ValueError, match="cannot read nonsense://bucket/tiny"):
        pull("nonsense://bucket/tiny", registry=ours)


def test_a_question_mark_is_part_of_a_folder_and_begins_the_query_of_a_url() -> None:
    assert Address("/disk/what?/tiny").below("card.json").url == "/disk/what?/tiny/card.json"
    signed = Address("https://example.org/zoo/tiny/?sig=abc")
    assert signed.below("card.json").url == "https://example.org/zoo/tiny/card.json?sig=abc"
    assert (signed.name, signed.parent.url) == ("tiny", "https://example.org/zoo?sig=abc")
    assert [Address(folder).parent.url for folder in ("tiny", "/tiny", "a/tiny")] == [".", "/", "a"]


def test_what_is_there_is_not_fetched_again_and_needs_no_network(tmp_path: Path, ours: Registry) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    with FileServer(served(tmp_path / "zoo")) as server:
        pull(f"{server.url}/tiny", registry=ours)
        server.requests.clear()
        assert pull(f"{server.url}/tiny", registry=ours).fetched == 0
        assert not [path for path, _ in server.requests if path.endswith(".safetensors")]
    assert pull("tiny", registry=ours).fetched == 0
    with pytest.raises(FileNotFoundError, match=r"no weights named other in .*ours"):
        pull("other", registry=ours)


def test_the_latest_of_two_versions_comes_unless_another_is_asked_for(tmp_path: Path, ours: Registry) -> None:
    old = push_tiny(tmp_path, tmp_path / "zoo", seed=1, created="2026-01-01T00:00:00Z").entry
    new = push_tiny(tmp_path, tmp_path / "zoo", seed=2, created="2026-01-02T00:00:00Z").entry
    with FileServer(served(tmp_path / "zoo")) as server:
        assert pull(f"{server.url}/tiny", registry=ours).entry == new
        assert pull(f"{server.url}/tiny@{old.version}", registry=ours).entry == old
        with pytest.raises(FileNotFoundError, match=f"has no tiny@00000000; it has: tiny@{new.version}, tiny@"):
            pull(f"{server.url}/tiny@00000000", registry=ours)
    assert ours.entries() == (new, old)


@pytest.mark.parametrize("name", [WEIGHTS, CARD, ITEM, "logits.safetensors", "README.md"])
def test_a_flipped_byte_in_any_file_is_refused_and_nothing_is_kept(tmp_path: Path, ours: Registry, name: str) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    files = served(tmp_path / "zoo")
    path = f"{entry.path}/{name}"
    data = bytearray(files[path])
    data[len(data) // 2] ^= 1
    with FileServer({**files, path: bytes(data)}) as server:
        with pytest.raises(OSError, match=rf"{name} of .* damaged on its way, or replaced; nothing was kept of it"):
            pull(f"{server.url}/tiny", registry=ours)
        assert nothing_in(ours.folder)
        server.files[path] = files[path]
        assert verify(pull(f"{server.url}/tiny", registry=ours).folder) == ()


def test_an_interrupted_pull_goes_on_with_what_it_has(tmp_path: Path, ours: Registry) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    files = served(tmp_path / "zoo")
    torn = f"{entry.path}/README.md"
    with FileServer({path: data for path, data in files.items() if path != torn}) as server:
        with pytest.raises(FileNotFoundError, match=r"nothing is at http://127\.0\.0\.1:\d+/tiny/.*/README\.md"):
            pull(f"{server.url}/tiny", registry=ours)
        assert nothing_in(ours.folder)
        server.requests.clear()
        server.files = files
        assert pull(f"{server.url}/tiny", registry=ours).entry == entry
        assert f"{entry.path}/{WEIGHTS}" not in [path for path, _ in server.requests]


@pytest.mark.parametrize("behaviour", [Behaviour(cut_after=[10**9] * 4 + [1000]), Behaviour(statuses=[0] * 4 + [500])])
def test_a_server_that_stops_midway_is_said_and_nothing_is_kept(
    tmp_path: Path, ours: Registry, behaviour: Behaviour
) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    with FileServer(served(tmp_path / "zoo"), behaviour) as server:
        with pytest.raises(OSError, match=r"could not be had: .*; run the same command again to go on"):
            pull(f"{server.url}/tiny", registry=ours)
        assert nothing_in(ours.folder)
        assert not list(ours.folder.rglob("*.coming"))
        assert verify(pull(f"{server.url}/tiny", registry=ours).folder) == ()


def test_where_there_is_nothing_it_is_said(tmp_path: Path, ours: Registry) -> None:
    with FileServer({}) as server, pytest.raises(FileNotFoundError, match=r"holds no item\.json of weights and no ind"):
        pull(f"{server.url}/somewhere/tiny?secret=word", registry=ours)
    with FileServer({}) as gone:
        pass
    with pytest.raises(OSError, match=r"could not be had: Cannot connect to host"):
        pull(f"{gone.url}/tiny", registry=ours)
    with pytest.raises(FileNotFoundError, match="holds no item"):
        pull(str(tmp_path / "nowhere"), registry=ours)


def test_a_secret_in_an_address_is_not_said(ours: Registry) -> None:
    with (
        FileServer({}, Behaviour(statuses=[500])) as server,
        pytest.raises(OSError, match="could not be had") as failed,
    ):
        pull(f"{server.url}/tiny?token=hush", registry=ours)
    assert "hush" not in str(failed.value)


def test_a_registry_of_several_weights_asks_which(tmp_path: Path, ours: Registry) -> None:
    for name in ("one", "two"):
        push_tiny(tmp_path, tmp_path / "zoo", name=name)
    with pytest.raises(ValueError, match=r"is a registry of one, two; give .*zoo/NAME"):
        pull(str(tmp_path / "zoo"), registry=ours)


def test_weights_that_were_never_pushed_are_refused(tmp_path: Path, ours: Registry) -> None:
    folder = shared_weights(tmp_path)
    card = json.loads((folder / CARD).read_bytes())
    (folder / CARD).write_text(json.dumps({**card, "publication": None}))
    item = json.loads((folder / ITEM).read_bytes())
    stored = stored_file(folder / CARD)
    item["assets"]["card"] |= {"file:size": stored.size, "file:checksum": f"1220{stored.sha256}"}
    (folder / ITEM).write_text(json.dumps(item))
    with pytest.raises(ValueError, match="holds no weights that were pushed"):
        pull(str(folder), registry=ours)


def test_tensors_that_are_not_those_of_the_card_are_refused(tmp_path: Path, ours: Registry) -> None:
    """Someone exchanged the weights and the hashes of the files, but not those of the tensors."""
    folder = shared_weights(tmp_path)
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor + torch.ones_like(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)
    item = json.loads((folder / ITEM).read_bytes())
    stored = stored_file(folder / WEIGHTS)
    item["assets"]["weights"] |= {"file:size": stored.size, "file:checksum": f"1220{stored.sha256}"}
    (folder / ITEM).write_text(json.dumps(item))
    with pytest.raises(OSError, match=r"the weights of .* are damaged: .* is not the file that its card describes"):
        pull(str(folder), registry=ours)
    assert nothing_in(ours.folder)


def test_an_index_cannot_write_outside(tmp_path: Path, ours: Registry) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    index = json.loads((tmp_path / "zoo" / INDEX).read_bytes())
    index["weights"][0]["files"]["../../escaped"] = {"size": 1, "sha256": "a" * 64}
    (tmp_path / "zoo" / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is no file of weights"):
        pull(str(tmp_path / "zoo"), registry=ours)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.slow
def test_a_killed_pull_leaves_nothing_half(tmp_path: Path, ours: Registry) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    with FileServer(served(tmp_path / "zoo"), Behaviour(stall_after=20_000)) as server:
        code = (
            "import sys; from pathlib import Path; from sits_models.zoo import Registry; "
            "from sits_models.zoo.pull import pull; pull(sys.argv[1], registry=Registry(Path(sys.argv[2])))"
        )
        command = [sys.executable, "-c", code, f"{server.url}/tiny", str(ours.folder)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            while server.behaviour.stall_after is not None and process.poll() is None:
                pass
            process.kill()
        server.go_on.set()
        assert nothing_in(ours.folder)
        pulled = pull(f"{server.url}/tiny", registry=ours)
    assert served(pulled.folder) == served(tmp_path / "zoo" / entry.path)
    assert not (ours.folder / PARTIAL).exists()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_copy_is_mended_by_pulling_again(tmp_path: Path, ours: Registry, name: str) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    folder = pull(str(tmp_path / "zoo" / "tiny"), registry=ours).folder
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with FileServer(served(tmp_path / "zoo")) as server:
        pulled = pull(f"{server.url}/tiny", registry=ours)
        asked = {path.rpartition("/")[2] for path, _ in server.requests if entry.path in path}
    assert pulled.fetched
    assert asked == {CARD, ITEM, name}
    assert (folder / name).read_bytes() == whole
    assert verify(folder) == ()
    assert not (ours.folder / PARTIAL).exists()


def test_a_name_whose_files_are_damaged_is_not_said_to_be_there(tmp_path: Path, ours: Registry) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    folder = pull(str(tmp_path / "zoo" / "tiny"), registry=ours).folder
    (folder / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(
        OSError, match=r"weights\.safetensors is damaged; pull these weights again from where they came"
    ):
        pull("tiny", registry=ours)


def test_what_a_killed_download_from_the_hub_left_is_removed(tmp_path: Path, ours: Registry) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    text = str(tmp_path / "zoo" / "tiny")
    left = ours.folder / PARTIAL / f"pull-{sha256(text.encode()).hexdigest()[:16]}" / "README.md.coming.hub"
    left.mkdir(parents=True)
    (left / "README.md").touch()
    assert {path.name for path in pull(text, registry=ours).folder.iterdir()} == set(FILES)


def test_a_file_that_is_larger_than_it_should_be_is_not_fetched_to_its_end(tmp_path: Path, ours: Registry) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    files = served(tmp_path / "zoo")
    endless = files[f"{entry.path}/README.md"] + bytes(40_000_000)
    coming = tmp_path / "coming"
    with FileServer({"README.md": endless}) as server:
        with pytest.raises(TooLargeError, match=r"README\.md has more bytes than the 1000 that it may have"):
            Address(server.url).fetch("README.md", coming, limit=1000)
        assert coming.stat().st_size < 20_000_000
    with FileServer({**files, f"{entry.path}/README.md": endless}) as server:
        with pytest.raises(OSError, match="has more bytes than"):
            pull(f"{server.url}/tiny", registry=ours)
        assert nothing_in(ours.folder)


@pytest.mark.parametrize(("size", "says"), [(10**15, "more than the"), (15 << 30, "and the disk of .* has")])
def test_weights_that_say_they_are_larger_than_any_or_than_the_disk_are_not_fetched(
    tmp_path: Path, ours: Registry, monkeypatch: pytest.MonkeyPatch, size: int, says: str
) -> None:
    usage = namedtuple("usage", "total used free")  # of a disk that nobody can fill in a test
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**9, 10**9))
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    files = served(tmp_path / "zoo")
    item = json.loads(files[f"{entry.path}/{ITEM}"])
    (large,) = [
        asset for asset in item["assets"].values() if asset["href"].endswith(WEIGHTS) and "logits" not in asset["href"]
    ]
    large["file:size"] = size
    files[f"{entry.path}/{ITEM}"] = json.dumps(item).encode()
    with FileServer(files) as server:
        with pytest.raises(OSError, match=says):
            pull(f"{server.url}/{entry.path}", registry=ours)
        assert f"{entry.path}/{WEIGHTS}" not in [path for path, _ in server.requests]
    assert nothing_in(ours.folder)


def test_a_registry_sends_nobody_into_this_network(
    tmp_path: Path, ours: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    files = served(tmp_path / "zoo")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **more: real("127.0.0.1" if host == "zoo.example.org" else host, *args, **more),
    )
    with FileServer(files) as inner, FileServer(files) as outer:
        path = f"{entry.path}/{WEIGHTS}"
        outer.behaviour.redirect = {path: f"{inner.url}/{path}"}
        named = outer.url.replace("127.0.0.1", "zoo.example.org")
        with pytest.raises(OSError, match=r"redirects where it is not followed: 127\.0\.0\.1 is a loopback address"):
            pull(f"{named}/tiny", registry=ours)
        assert inner.requests == []
        assert nothing_in(ours.folder)
        # Its own host, wherever that is, may send on to itself.
        assert pull(f"{outer.url}/tiny", registry=ours).entry == entry
