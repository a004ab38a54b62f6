from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models.zoo.made import push_tiny, shared_weights

from sits_models import checkpoints
from sits_models.zoo import Registry
from sits_models.zoo.entry import CARD, ITEM, WEIGHTS, Entry, check_name, checksums, read_entry
from sits_models.zoo.registry import INDEX, read_index


@pytest.mark.parametrize("name", ["demo-unet3df", "abc", "x2y", "a-1-b"])
def test_names_are_of_small_letters_digits_and_dashes(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "ab", "2ab", "Demo", "a_b", "-ab", "ab-", "a--b", "../a", "a/b", "/a", "a.b", "é", "a" * 65]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="are named with 3 to 64 lower case letters, digits and single dashes"):
        check_name(name)


def test_the_files_of_the_zoo_are_those_of_checkpoints() -> None:
    assert (WEIGHTS, CARD) == (checkpoints.WEIGHTS, checkpoints.CARD)


def test_an_entry_says_what_the_weights_are(tmp_path: Path) -> None:
    entry = read_entry(shared_weights(tmp_path))
    assert (entry.name, entry.architecture, entry.objective) == ("tiny", "unet3df", "segmentation")
    assert (entry.bands, entry.dates, entry.classes) == (("B02", "B04", "B08"), 4, 3)
    assert (entry.miou, entry.licence, entry.simulated) == (0.25, "CC-BY-4.0", True)
    assert entry.size == sum(path.stat().st_size for path in (tmp_path / "zoo" / entry.path).iterdir())
    assert Entry.from_json(json.loads(json.dumps(entry.to_json())), origin="x") == entry


def index_with(tmp_path: Path, **changes: object) -> bytes:
    push_tiny(tmp_path, tmp_path / "zoo")
    index = json.loads((tmp_path / "zoo" / INDEX).read_bytes())
    index["weights"][0].update(changes)
    return json.dumps(index).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "../../evil"}, "lower case letters"),
        ({"version": "../../.."}, "in a version that is none"),
        ({"files": {}}, "lists no weights.safetensors"),
        ({"files": {"../../.bashrc": {"size": 1, "sha256": "a" * 64}}}, "which is no file of weights"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": "a" * 64}}}, "which is no file of weights"),
        ({"files": {"model.pkl": {"size": 1, "sha256": "a" * 64}}}, "which is no file of weights"),
        ({"files": {CARD: {"size": 1, "sha256": "short"}}}, "SHA-256 'short'"),
        ({"files": {CARD: {"size": -1, "sha256": "a" * 64}}}, "a file of -1 bytes"),
        ({"bands": "B02"}, "a list, got 'B02'"),
        ({"architecture": "\x1b[2Jtsvit"}, r"characters that cannot be shown, in '\\x1b\[2Jtsvit'"),
    ],
)
def test_an_index_from_anywhere_leads_out_of_no_folder(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_index(index_with(tmp_path, **changes), origin="index.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is no index of a registry"),
        (
            b'{"format": "sits-zoo", "version": "2.0", "weights": []}',
            "should be an index of sits-zoo 1.0; it says '2.0'",
        ),
        (b'{"format": "sits-zoo", "version": "1.0", "weights": [3]}', "lists no weights that can be read"),
    ],
)
def test_what_is_no_index_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_index(text, origin="https://example.org/index.json")


@pytest.mark.parametrize("href", ["../card.json", "/etc/passwd", "sub/weights.safetensors", "model.pth"])
def test_an_item_leads_out_of_no_folder(tmp_path: Path, href: str) -> None:
    item = json.loads((shared_weights(tmp_path) / ITEM).read_bytes())
    item["assets"]["card"]["href"] = href
    with pytest.raises(ValueError, match="which is no file of weights; nothing was read"):
        checksums(item, origin="item.json")


def test_the_index_is_that_of_the_folders(tmp_path: Path) -> None:
    for seed in (1, 2):
        push_tiny(tmp_path, tmp_path / "zoo", seed=seed, created=f"2026-01-0{seed}T00:00:00Z")
    registry = Registry(tmp_path / "zoo")
    assert read_index((tmp_path / "zoo" / INDEX).read_bytes(), origin="x") == registry.entries()
    assert [entry.created for entry in registry.entries()] == ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]
