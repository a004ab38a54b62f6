from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.models.commands import assert_refused, sits_model

from sits_models.recipe import list_recipes, load_recipe

COMMANDS = ("pretrain", "finetune", "evaluate", "predict")
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from sits_models.cli import main
sys.argv = ["sits-model", *sys.argv[1:]]
main()
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_recipes_are_listed_with_a_title_each() -> None:
    ended = sits_model("recipes")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == list(list_recipes())
    assert json.loads(sits_model("recipes", "--json").stdout)["cscl-france"].startswith("Published pretraining")


def test_a_printed_recipe_is_a_file_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(sits_model("recipes", "segment-laptop").stdout)
    assert load_recipe("mine.yaml") == load_recipe("segment-laptop")
    assert yaml.safe_load(sits_model("recipes", "segment-laptop").stdout)["training"]["optimizer"] == "adam"
    assert json.loads(sits_model("recipes", "segment-laptop", "--json").stdout)["name"] == "segment-laptop"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_an_example(command: str) -> None:
    ended = sits_model(command, "--help")
    assert ended.code == 0
    assert f"sits-model {command} --" in " ".join(ended.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_without_torch_one_sentence_says_how_to_get_it(command: str, tmp_path: Path) -> None:
    options = {
        "pretrain": ["--recipe", "cscl-demo"],
        "finetune": ["--recipe", "segment-demo"],
        "evaluate": ["--weights", "runs/x"],
        "predict": ["--weights", "runs/x", "--cube", "out/demo"],
    }
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, command, *options[command]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: sits-model needs torch and what comes with it")
    assert "make setup" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_recipes_need_no_torch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "recipes"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0
    assert "cscl-demo" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pretrain", "--recipe", "cscl-dem"], "no recipe named 'cscl-dem'; did you mean 'cscl-demo'"),
        (["pretrain", "--recipe", "none.yaml"], "no recipe file none.yaml"),
        (["pretrain", "--recipe", "cscl-demo", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["pretrain", "--recipe", "cscl-demo", "--set", "training.epochs"], "--set takes key=value"),
        (["pretrain", "--recipe", "cscl-laptop"], "names no cube; give --cube"),
        (["pretrain", "--recipe", "segment-demo"], "is of segmentation; give it to finetune"),
        (["finetune", "--recipe", "cscl-demo"], "is of pretraining; give it to pretrain"),
        (["finetune", "--recipe", "segment-demo", "--cube", "nowhere"], "nowhere"),
        (["finetune", "--recipe", "segment-demo", "--weights", "nowhere"], "no folder nowhere"),
        (["evaluate", "--weights", "nowhere"], "no folder nowhere"),
        (["predict", "--weights", "nowhere", "--cube", "out"], "no folder nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    assert_refused(sits_model(*arguments), says)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "card.json is no card: it should be keys with values, got '[]'"),
        ("{", "card.json is not JSON"),
        ("{}", "card.json should be a card of sits-weights 1.1; it says None None"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_card_that_is_none_is_said_in_one_sentence(command: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "card.json").write_text(text)
    (tmp_path / "weights" / "weights.safetensors").write_bytes(b"")
    more = ["--cube", "nowhere"] if command == "predict" else []
    assert_refused(sits_model(command, "--weights", "weights", "--out", "out", *more), says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_device_can_be_chosen(command: str) -> None:
    assert "--device" in sits_model(command, "--help").stdout


def test_debug_shows_where_an_error_came_from() -> None:
    ended = sits_model("pretrain", "--recipe", "cscl-dem", "--debug")
    assert ended.code == 2
    assert "Traceback" in ended.stderr
