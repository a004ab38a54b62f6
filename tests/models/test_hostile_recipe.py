"""Recipes that somebody else wrote to do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sits_models.recipe import Recipe, load_recipe

RECIPE = "name: mine\ntitle: a recipe\nbackbone: {name: utae}\nsegmentation: {}\ntraining: {learning_rate: 0.001}\n"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("title: a recipe", 'title: "\\e[31mred"', "any.yaml:2: the character U+001B"),
        ("title: a recipe", "title: !!python/object/apply:os.system [x]", "the tag tag:yaml.org,2002:python"),
        ("title: a recipe", "title: &a [x]\nnotes: *a", "anchors and aliases"),
        ("title: a recipe", "title: " + "[" * 1000, "nested more than 16 deep"),
        ("0.001", "1e999", "`training.learning_rate` should be a number"),
        ("0.001", ".inf", "is not a finite number"),
        ("0.001", f"'{'1' * 200_000}'", "`training.learning_rate` should be a number"),
        ("a recipe", "x" * 1_200_000, "has 1.2 MB; a recipe has at most 1 MB"),
    ],
    ids=range(8),
)
def test_a_hostile_recipe_is_one_sentence(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in RECIPE
    (tmp_path / "any.yaml").write_text(RECIPE.replace(before, after, 1))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is looked at below
        load_recipe(str(tmp_path / "any.yaml"))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def answer(folder: Path, at: int, length: int, word: str) -> None:
    (folder / "any.yaml").write_text(RECIPE[:at] + word + RECIPE[at + length :], encoding="utf-8")
    try:
        assert isinstance(load_recipe(str(folder / "any.yaml")), Recipe)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # a value is right as well


CHANGES = {
    "at": st.integers(0, len(RECIPE)),
    "length": st.integers(0, 20),
    "word": st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.sampled_from("{}[]:,&*!|>-#")),
}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**CHANGES)
def test_a_changed_recipe_is_a_recipe_or_one_sentence(tmp_path: Path, at: int, length: int, word: str) -> None:
    answer(tmp_path, at, length, word)


@pytest.mark.soak
@settings(max_examples=1500, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**CHANGES)
def test_thousands_of_changed_recipes_are_recipes_or_sentences(tmp_path: Path, at: int, length: int, word: str) -> None:
    answer(tmp_path, at, length, word)
