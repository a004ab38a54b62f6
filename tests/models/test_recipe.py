from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sits_models.recipe import (
    Augmentation,
    BackboneRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
    Variant,
    dump_recipe,
    list_recipes,
    load_recipe,
    recipe_from_plain,
    recipe_to_plain,
)

SMALL = "name: small\nbackbone:\n  name: unet3df\nsegmentation: {}\n"

names = st.lists(st.text("abcdefB0123456789é: #'", min_size=1), min_size=1, max_size=4, unique=True).map(tuple)
numbers = st.floats(1e-12, 1e6)
date_rules = st.just(DateRule()) | st.builds(
    DateRule, pick=st.sampled_from(["first", "even", "random"]), n=st.integers(1, 99)
)
recipes = st.builds(
    Recipe,
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    source=st.none() | st.text("ab\n: é", max_size=9),
    data=st.builds(
        DataRecipe, bands=st.none() | names, classes=st.none() | names, dates=date_rules, chips=st.none() | st.just(7)
    ),
    augmentation=st.builds(Augmentation, gain=numbers, noise=numbers, drop_dates=st.floats(0, 0.999)),
    backbone=st.builds(
        BackboneRecipe,
        name=st.just("utae"),
        width=st.floats(1e-3, 16),
        variant=st.sampled_from(get_args(Variant)),
        time_channels=st.none() | st.just(("day_of_year", "year")),
    ),
    contrast=st.just(ContrastRecipe(window=5, channels=3)),
    segmentation=st.none(),
    training=st.builds(TrainingRecipe, learning_rate=numbers, weight_decay=numbers, clip_norm=st.none() | numbers),
    notes=names,
)


def written(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(recipe=recipes)
def test_a_recipe_comes_back_from_yaml_and_from_json(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("recipe")
    assert load_recipe(written(folder, dump_recipe(recipe))) == recipe
    assert recipe_from_plain(json.loads(json.dumps(recipe_to_plain(recipe))), name="card") == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_loads_and_bears_the_name_of_its_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert name.startswith("cscl") == (recipe.objective == "contrast")


@pytest.mark.slow
def test_published_recipes_name_their_source_and_laptop_ones_are_small() -> None:
    for name in list_recipes():
        recipe = load_recipe(name)
        if name.endswith(("-laptop", "-demo")):
            assert recipe.backbone.width == 0.25
            seen = recipe.dates_of(recipe.data.dates.n or 99)
            assert seen <= 12
            assert all(24 <= side <= 48 for side in recipe.sides)
        else:
            assert recipe.source is not None
            assert recipe.notes
            assert recipe.backbone.width == 1


def test_the_settings_of_the_papers() -> None:
    france, germany = load_recipe("cscl-france"), load_recipe("segment-germany")
    assert france.contrast == ContrastRecipe()
    assert (france.training.learning_rate, france.training.decay, france.training.decay_every) == (1e-4, 0.975, 1)
    assert (france.data.size, france.data.batch, france.training.epochs) == (48, 32, 50)
    assert (germany.data.size, germany.training.epochs, germany.training.restart_every) == (24, 300, 150)
    assert germany.training.decay_every == 2
    assert not germany.data.background


def test_a_change_keeps_both_of_its_dates() -> None:
    with pytest.raises(ValueError, match=r"of which none can be left out; set augmentation\.drop_dates=0, not 0\.1"):
        load_recipe("oscd-resnet18", changes=["augmentation.drop_dates=0.1"])


def test_nothing_that_is_written_as_null_comes_back_as_the_default(tmp_path: Path) -> None:
    recipe = load_recipe("cscl-demo", changes=["training.validate_every=null"])
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe
    assert recipe_from_plain(recipe_to_plain(recipe), name="card") == recipe


@pytest.mark.parametrize("text", ["32", "'32'"])
def test_a_word_that_looks_like_a_number_may_be_written_as_one(text: str) -> None:
    assert load_recipe("seco-1m", changes=[f"training.precision={text}"]).training.precision == "32"
    with pytest.raises(ValueError, match="got 16"):
        load_recipe("seco-1m", changes=["training.precision=16"])


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".1e-3", "+1e-4"])
def test_a_small_number_may_be_written_with_an_exponent(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + f"training:\n  learning_rate: {text}\n")
    assert load_recipe(path).training.learning_rate == 1e-4
    assert load_recipe("segment-france", changes=[f"training.weight_decay={text}"]).training.weight_decay == 1e-4


def test_a_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, SMALL + "data:\n  classes: ['1e5', '007']\n")).data.classes == ("1e5", "007")


def test_set_changes_keys_at_any_depth_and_keeps_the_others() -> None:
    changes = ["data.dates.n=8", "data.cubes=[a, b]", "backbone.variant=fixed", "training.clip_norm=1", "name=mine"]
    before, after = load_recipe("cscl-demo"), load_recipe("cscl-demo", changes=changes)
    assert after.data == replace(before.data, dates=DateRule(pick="even", n=8), cubes=("a", "b"))
    assert after.backbone == replace(before.backbone, variant="fixed")
    assert after.training == replace(before.training, clip_norm=1)
    assert after.name == "mine"


def test_set_takes_the_last_of_two_and_null_for_nothing() -> None:
    changes = ["data.chips=8", "data.chips=9"]
    assert load_recipe("cscl-demo", changes=changes).data.chips == 9
    assert load_recipe("cscl-demo", changes=[*changes, "data.chips=null"]).data.chips is None


def test_set_opens_a_section_that_the_file_lacks(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, SMALL), changes=["training.epochs=3"]).training == TrainingRecipe(epochs=3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.epochs", "--set takes key=value, such as training.epochs=3; got 'training.epochs'"),
        ("training..epochs=3", "--set takes key=value"),
        ("=3", "--set takes key=value"),
        ("training.epoch=3", "--set training.epoch=3: unknown key 'epoch' under `training`; did you mean 'epochs'"),
        (
            "training.epochs=many",
            "--set training.epochs=many: `training.epochs` should be a whole number, got the text",
        ),
        ("training.epochs=0", "training.epochs is at least 1; got 0"),
        ("training.learning_rate=-1e-4", "training.learning_rate is above 0; got -0.0001"),
        ("training.clip_norm=0", "training.clip_norm is above 0; got 0"),
        ("training.validate_every=0", "training.validate_every is at least 1; got 0"),
        (
            "training={validate_every: null, patience: 3}",
            "training.patience counts validations, and without training.validate_every there are none; got 3: leave it",
        ),
        ("training.schedule=cosin", "did you mean 'cosine'"),
        ("training.schedule=milestones", "training.schedule milestones goes with training.milestones"),
        ("training.milestones=[2]", "goes without training.milestones"),
        ("training.momentum=1", "training.momentum is at least 0 and below 1; got 1"),
        ("training.betas=[0.9, 1]", "training.betas is at least 0 and below 1; got 1"),
        ("training.betas=[0.9]", "`training.betas` has 1 values, which are too few"),
        ("data.dates.pick=first", None),
        ("data.dates.pick=all", "dates: pick 'all' goes without a number n"),
        ("data.dates.n=0", "n is at least 1; got 0"),
        ("data.size=0", "data.size is at least 1; got 0"),
        ("data.labels=3", "`data.labels` should be 1, 2 or 4"),
        ("data.bands=[B02, B02]", "data.bands names at least one, and none twice; got B02, B02"),
        ("data.bands=B02", "`data.bands` should be a list"),
        ("name.first=x", "--set name.first=x: 'name' holds a value, not keys; it has no 'first'"),
        ("augmentation.drop_dates=1", "drop_dates is a probability below 1; got 1"),
        ("backbone.width=0", "backbone.width is a factor above 0"),
        ("contrast.window=4", "contrast.window is odd and at least 3; got 4"),
        (
            "segmentation={}",
            "change (to finetune); it has contrast and segmentation",
        ),
        ("data.cubes=[", "this is not YAML"),
        ("data.cubes=&a [b]", "anchors and aliases"),
        ("training.learning_rate=.inf", "not a finite number"),
    ],
)
def test_a_wrong_value_is_one_sentence(change: str, says: str | None) -> None:
    if says is None:
        load_recipe("cscl-demo", changes=[change])
        return
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        load_recipe("cscl-demo", changes=[change])
    assert "\n" not in str(raised.value)


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + "data:\n  dates:\n    pik: all\n")
    with pytest.raises(ValueError, match=r"recipe\.yaml:7: unknown key 'pik' under `data\.dates`; did you mean 'pick'"):
        load_recipe(path)


def test_a_wrong_type_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.yaml:6: `data\.batch` should be a whole number, got the text"):
        load_recipe(written(tmp_path, SMALL + "data:\n  batch: '8'\n"))


def test_a_recipe_without_a_backbone_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the key 'backbone' is missing"):
        load_recipe(written(tmp_path, "name: x\nsegmentation: {}\n"))


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no recipe named 'cscl-franc'; did you mean 'cscl-france'.*segment-laptop"):
        load_recipe("cscl-franc")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no recipe file .*none\.yaml"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        load_recipe(str(tmp_path / "odd.yaml"))


def test_the_dump_is_plain_yaml() -> None:
    assert yaml.safe_load(dump_recipe(load_recipe("cscl-demo")))["contrast"]["positive_weight"] == 0.125


def test_a_segmentation_recipe_keeps_its_section_when_all_its_values_are_the_defaults() -> None:
    recipe = Recipe(name="x", backbone=BackboneRecipe(name="utae"), segmentation=SegmentationRecipe())
    assert recipe_from_plain(recipe_to_plain(recipe), name="x").segmentation == SegmentationRecipe()
