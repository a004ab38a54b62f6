from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.models.zoo.made import push_tiny, save_run, wishes

from sits_models.zoo import Registry, default_registry, find_weights, shipped
from sits_models.zoo.entry import CARD, ITEM
from sits_models.zoo.pull import pull
from sits_models.zoo.push import push
from sits_models.zoo.registry import INDEX, PARTIAL


@pytest.fixture(autouse=True)
def _own_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SITS_ZOO", str(tmp_path / "zoo"))


def test_the_registry_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_registry().folder == tmp_path / "zoo"
    monkeypatch.delenv("SITS_ZOO")
    monkeypatch.setenv("XDG_DATA_HOME", "/data/me")
    assert default_registry().folder == Path("/data/me/sits-cubes/zoo")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_registry().folder == Path("/home/me/.local/share/sits-cubes/zoo")


def test_weights_are_found_by_folder_run_name_and_version(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    old = push_tiny(tmp_path, tmp_path / "zoo", seed=1, created="2026-01-01T00:00:00Z").entry
    new = push_tiny(tmp_path, tmp_path / "zoo", seed=2, created="2026-01-02T00:00:00Z").entry
    assert find_weights(str(run)) == run
    assert find_weights(str(run / "weights")) == run / "weights"
    assert find_weights("tiny") == tmp_path / "zoo" / "tiny" / new.version
    assert find_weights(f"tiny@{old.version}") == tmp_path / "zoo" / "tiny" / old.version
    assert find_weights(f"tiny@{old.version[:5]}") == tmp_path / "zoo" / "tiny" / old.version


def test_a_folder_of_maps_that_bears_the_name_is_not_taken_for_the_weights(tmp_path: Path) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    (tmp_path / "tiny" / "map").mkdir(parents=True)
    assert find_weights("tiny") == tmp_path / "zoo" / entry.path


def test_a_run_that_is_not_finished_is_not_another_model(tmp_path: Path) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "recipe.yaml").touch()
    assert find_weights("tiny") == Path("tiny")


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    push_tiny(tmp_path, tmp_path / "zoo")
    with pytest.raises(FileNotFoundError, match=r"no folder tinny, and no weights of this name .*did you mean 'tiny'"):
        find_weights("tinny")
    with pytest.raises(FileNotFoundError, match="no folder tiny@00000000, and no weights"):
        find_weights("tiny@00000000")


def test_weights_of_the_user_go_before_shipped_ones(tmp_path: Path) -> None:
    name = next(entry.name for entry in shipped().entries())
    assert find_weights(name).is_relative_to(shipped().folder)
    entry = push_tiny(tmp_path, tmp_path / "zoo", name=name).entry
    assert find_weights(name) == tmp_path / "zoo" / entry.path


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    card = tmp_path / "zoo" / entry.path / CARD
    card.write_text("{}")
    with pytest.raises(ValueError, match=rf"{entry.version}/card\.json is no card of shared weights"):
        Registry(tmp_path / "zoo").find("tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", [CARD, ITEM])
@pytest.mark.parametrize("text", ["{", None, "\xff"])
def test_one_damaged_folder_leaves_the_others_and_is_named(tmp_path: Path, name: str, text: str | None) -> None:
    registry = Registry(tmp_path / "zoo")
    bad = registry.folder_of(push_tiny(tmp_path, tmp_path / "zoo", name="bad").entry)
    good = push_tiny(tmp_path, tmp_path / "zoo", name="good").entry
    (bad / name).unlink()
    if text is not None:
        (bad / name).write_bytes(text.encode("latin-1"))
    assert registry.entries() == (good,)
    (sentence,) = registry.damaged()
    assert sentence.startswith(f"the weights in {bad} are damaged: ")
    assert registry.find("good") == good
    with pytest.raises(ValueError, match=f"{bad} are damaged"):
        registry.find("bad")
    # The same weights again mend the folder.
    assert push_tiny(tmp_path, tmp_path / "zoo", name="bad").new
    assert registry.damaged() == ()
    assert {entry.name for entry in registry.entries()} == {"bad", "good"}
    assert not (registry.folder / PARTIAL).exists()


def test_a_version_in_the_folder_of_another_is_damaged(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "zoo")
    entry = push_tiny(tmp_path, tmp_path / "zoo").entry
    registry.folder_of(entry).rename(tmp_path / "zoo" / "tiny" / "00000000")
    assert registry.entries() == ()
    assert f"its card.json is that of tiny@{entry.version}" in registry.damaged()[0]


def test_an_index_that_was_not_written_is_written_by_the_next_push_or_pull(tmp_path: Path) -> None:
    registry, index = Registry(tmp_path / "zoo"), tmp_path / "zoo" / INDEX
    push_tiny(tmp_path, tmp_path / "zoo")
    whole = index.read_bytes()
    index.unlink()
    assert not push_tiny(tmp_path, tmp_path / "zoo").new
    assert index.read_bytes() == whole
    push_tiny(tmp_path, tmp_path / "theirs")
    index.write_text("{}")
    assert pull(str(tmp_path / "theirs"), registry=registry).fetched == 0
    assert index.read_bytes() == whole


def test_a_push_that_fails_leaves_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "zoo")
    with pytest.raises(FileNotFoundError), registry.partial("push-tiny") as partial:
        (partial / CARD).rename(partial / "nowhere" / CARD)
    assert not (tmp_path / "zoo" / PARTIAL).exists()


def test_a_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITS_ZOO", "s3://key:SECRET@bucket/zoo")
    with pytest.raises(ValueError, match="are put into a folder of this machine; got s3://bucket/zoo:"):
        default_registry()
    with pytest.raises(ValueError, match="got s3://bucket/zoo"):
        push(str(save_run(tmp_path / "run")), wishes(), registry="s3://bucket/zoo")


def test_a_list_of_weights_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from sits_models.zoo import shipped; shipped().entries()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
