from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.catalog.file_server import FileServer
from tests.models.commands import assert_refused, sits_model
from tests.models.zoo.made import push_tiny, save_run

from sits_models.zoo import shipped
from sits_models.zoo.entry import WEIGHTS


@pytest.fixture(autouse=True)
def _own_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SITS_ZOO", str(tmp_path / "zoo"))


def test_a_run_is_pushed_listed_shown_and_verified_by_name(tmp_path: Path) -> None:
    save_run(tmp_path / "run")
    pushed = sits_model("zoo", "push", "run", "--name", "tiny", "--licence", "MIT", "--author", "A", "--author", "B")
    assert pushed.code == 0
    assert "pushed" in pushed.stdout
    (row,) = [line for line in sits_model("zoo", "list").stdout.splitlines() if line.startswith("tiny ")]
    assert row.split()[2:7] == ["unet3df", "3", "3", "4", "0.250"]
    assert "simulated" in row
    shown = sits_model("zoo", "info", "tiny")
    assert "authors" in shown.stdout
    assert "Trained on simulated data" in shown.stdout
    assert json.loads(sits_model("zoo", "info", "tiny", "--json").stdout)["publication"]["authors"] == ["A", "B"]
    verified = sits_model("zoo", "verify", "tiny")
    assert (verified.code, verified.stdout.split(": ")[1]) == (0, "whole and true\n")
    again = sits_model("zoo", "push", "tiny", "--name", "tiny", "--licence", "MIT", "--author", "A", "--author", "B")
    assert "was there; nothing to do" in again.stdout


def test_weights_are_pulled_from_a_server_and_listed_there(tmp_path: Path) -> None:
    entry = push_tiny(tmp_path, tmp_path / "theirs").entry
    files = {
        str(path.relative_to(tmp_path / "theirs")): path.read_bytes() for path in (tmp_path / "theirs").rglob("*.*")
    }
    with FileServer(files) as server:
        listed = json.loads(sits_model("zoo", "list", "--registry", server.url, "--json").stdout)
        assert [(row["name"], row["version"]) for row in listed] == [("tiny", entry.version)]
        pulled = sits_model("zoo", "pull", f"{server.url}/tiny", "--json")
    assert pulled.code == 0
    assert json.loads(pulled.stdout)["fetched"] == 5
    assert (tmp_path / "zoo" / entry.path / WEIGHTS).is_file()
    assert "was there; nothing to do" in sits_model("zoo", "pull", "tiny").stdout


def test_findings_are_listed_a_line_each_and_the_exit_code_says_so(tmp_path: Path) -> None:
    folder = Path(push_tiny(tmp_path, tmp_path / "zoo").place)
    (folder / "README.md").unlink()
    verified = sits_model("zoo", "verify", str(folder))
    assert verified.code == 1
    assert verified.stdout.splitlines() == [
        "there is no README.md; push the weights again",
        "item.json names ./README.md, which is not there",
    ]
    assert len(json.loads(sits_model("zoo", "verify", str(folder), "--json").stdout)["findings"]) == 2


def test_a_damaged_download_is_a_failure_and_wrong_use_is_wrong_use(tmp_path: Path) -> None:
    folder = Path(push_tiny(tmp_path, tmp_path / "theirs").place)
    (folder / "README.md").write_text("Other words.")
    assert_refused(sits_model("zoo", "pull", "theirs/tiny"), "README.md of theirs/tiny/", "damaged", code=1)
    assert_refused(sits_model("zoo", "pull", "nothing"), "no weights named nothing in")
    assert_refused(sits_model("zoo", "info", "nothing"), "no weights of this name in the zoo")
    assert_refused(sits_model("zoo", "verify", "nothing"), "no weights of this name in the zoo")
    run = ["zoo", "push", "run-1", "--name", "tiny"]
    assert_refused(sits_model(*run, "--licence", "Apache 2"), "did you mean 'Apache-2.0'")
    assert sits_model(*run).code == 2


@pytest.mark.parametrize("command", ["list", "info", "pull", "push", "verify"])
def test_help_teaches_by_an_example(command: str) -> None:
    ended = sits_model("zoo", command, "--help")
    assert ended.code == 0
    assert f"sits-model zoo {command}" in " ".join(ended.stdout.split())


def test_shipped_weights_are_listed_as_simulated() -> None:
    listed = {row["name"]: row for row in json.loads(sits_model("zoo", "list", "--json").stdout)}
    assert {entry.name for entry in shipped().entries()} == set(listed)
    assert all(row["simulated"] and row["place"] == "shipped" for row in listed.values())


def test_a_url_is_no_registry_to_write_to_and_a_folder_that_is_not_there_none_to_list(tmp_path: Path) -> None:
    save_run(tmp_path / "run")
    url = "s3://key:SECRET@bucket/zoo"
    for command in (["push", "run", "--name", "tiny", "--licence", "MIT"], ["pull", "run"]):
        refused = sits_model("zoo", *command, "--registry", url)
        assert_refused(refused, "are put into a folder of this machine; got s3://bucket/zoo")
        assert "SECRET" not in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert_refused(
        sits_model("zoo", "list", "--registry", "nowhere"), "no folder nowhere; give the folder of a registry"
    )


def test_a_damaged_folder_is_warned_of_and_the_others_are_listed(tmp_path: Path) -> None:
    bad = Path(push_tiny(tmp_path, tmp_path / "zoo", name="bad").place)
    push_tiny(tmp_path, tmp_path / "zoo", name="good")
    (bad / "card.json").write_text("{")
    listed = sits_model("zoo", "list")
    assert listed.code == 0
    assert f"warning: the weights in {bad} are damaged" in listed.stderr
    assert "good " in listed.stdout


def test_what_others_wrote_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    push_tiny(tmp_path, tmp_path / "zoo", description="\x1b[2JGood.\nname  other", authors=("A\x07",))
    shown = sits_model("zoo", "info", "tiny").stdout
    assert "\ufffd[2JGood.\ufffdname  other" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_a_push_says_where_no_scores_were_found(tmp_path: Path) -> None:
    save_run(tmp_path / "run")
    assert (
        "scores    none of a test split"
        in sits_model("zoo", "push", "run", "--name", "tiny", "--licence", "MIT").stdout
    )
