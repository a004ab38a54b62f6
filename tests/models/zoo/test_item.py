"""The item is read by pystac's classes of the extension, which stop at version 1.4 of it, and checked against the core
schema that pystac ships; the extension's own schema is shipped by no package."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
from jsonschema import Draft7Validator
from pystac.extensions.classification import Classification
from pystac.extensions.mlm import (
    AssetGeneralMLMExtension,
    MLMExtension,
    ModelInput,
    ModelOutput,
    TaskType,
    ValueScaling,
)
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry
from referencing.jsonschema import DRAFT7
from tests.models.training import recipe_of
from tests.models.zoo.made import push_tiny, save_pretrained, save_run, shared_weights, wishes

from sits_models.checkpoints import load_model
from sits_models.recipe import Recipe, load_recipe
from sits_models.zoo.complete import describe, verify
from sits_models.zoo.entry import ITEM
from sits_models.zoo.item import MLM
from sits_models.zoo.push import push


def item_of(folder: Path, recipe: Recipe | None = None, **changes: object) -> dict[str, Any]:
    run = save_run(folder / "run", recipe)
    pushed = push(str(run), wishes(**changes), registry=str(folder / "zoo"))
    item: dict[str, Any] = json.loads((folder / "zoo" / pushed.entry.path / ITEM).read_bytes())
    return item


def read_by_pystac(item: dict[str, Any]) -> pystac.Item:
    """pystac reads the extension up to 1.4, whose fields those of 1.5 contain."""
    text = json.dumps(item).replace(MLM, "https://stac-extensions.github.io/mlm/v1.4.0/schema.json")
    return pystac.Item.from_dict(json.loads(text))


def assert_core_schema(item: dict[str, Any]) -> None:
    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, DRAFT7.create_resource(schema)) for uri, schema in schemas.items()])
    core = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    assert [error.message for error in Draft7Validator(core, registry=registry).iter_errors(item)] == []


def test_pystac_reads_the_model_out_of_the_item(tmp_path: Path) -> None:
    item = read_by_pystac(item_of(tmp_path, citation="Somebody 2026", authors=("Somebody",)))
    mlm = MLMExtension.ext(item)
    assert (mlm.mlm_name, mlm.architecture, mlm.framework) == ("tiny", "unet3df", "PyTorch")
    assert mlm.tasks == [TaskType.SEMANTIC_SEGMENTATION]
    assert mlm.pretrained is False
    model = load_model(tmp_path / "run").objective
    assert mlm.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert mlm.hyperparameters.to_dict()["training.learning_rate"] == 0.01  # type: ignore[union-attr]
    image, day, valid = [ModelInput(entry.to_dict()) for entry in mlm.input]
    assert image.bands == ["B02", "B04", "B08"]
    assert (image.input.shape, image.input.dim_order[:2]) == ([-1, 4, 3, -1, -1], ["batch", "time"])
    scaling = [ValueScaling(entry) for entry in item.properties["mlm:input"][0]["value_scaling"]]
    assert [(entry.type, entry.mean, entry.stddev) for entry in scaling] == [("z-score", 1500.0, 900.0)] * 3
    assert (day.input.shape, valid.input.shape) == ([-1, 4], [-1, 4])
    (output,) = [ModelOutput(entry.to_dict()) for entry in mlm.output]
    assert output.result.shape == [-1, 3, -1, -1]
    classes = [Classification(entry) for entry in item.properties["mlm:output"][0]["classification:classes"]]
    assert [(entry.value, entry.name, entry.color_hint) for entry in classes] == [
        (0, "crop-0", "102030"),
        (1, "crop-c1", "102030"),
        (2, "crop-c2", "102030"),
    ]
    weights = item.assets["weights"]
    assert AssetGeneralMLMExtension.ext(weights).artifact_type == "safetensors.torch.save_file"
    assert "mlm:model" in (weights.roles or [])
    assert item.properties["providers"][0]["name"] == "Somebody"


def test_the_item_passes_the_core_schema_with_and_without_a_place(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    item = json.loads((folder / ITEM).read_bytes())
    assert_core_schema(item)
    assert item["geometry"] is None
    assert "bbox" not in item
    model = load_model(folder)
    assert model.card.publication is not None
    for areas in (((3.0, 48.0, 3.5, 48.5),), ((3.0, 48.0, 3.5, 48.5), (-60.0, -34.0, -59.0, -33.0))):
        published = replace(model.card.publication, areas=areas, period=("2021-01-01", "2021-12-30"))
        placed = describe(folder, replace(model, card=replace(model.card, publication=published)))
        assert_core_schema(json.loads(json.dumps(placed)))
    assert placed["bbox"] == [-60.0, -34.0, 3.5, 48.5]
    assert pystac.Item.from_dict(json.loads(json.dumps(placed))).common_metadata.start_datetime is not None


def test_what_the_extension_asks_for_is_there(tmp_path: Path) -> None:
    """Rules of https://stac-extensions.github.io/mlm/v1.5.1/schema.json that pystac does not check."""
    item = item_of(tmp_path)
    properties = item["properties"]
    required = {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}
    assert required <= properties.keys()
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in properties["mlm:hyperparameters"])
    named = {band["name"] for band in item["assets"]["weights"]["bands"]}
    for entry in properties["mlm:input"]:
        assert len(entry["input"]["shape"]) == len(entry["input"]["dim_order"])
        assert set(entry["bands"]) <= named
        assert entry["value_scaling"] is None or len(entry["value_scaling"]) == len(entry["bands"])
    assert MLM in item["stac_extensions"]
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [asset["mlm:artifact_type"] for asset in models] == ["safetensors.torch.save_file"]
    assert not any(key.startswith("mlm:") for key in item["assets"]["card"])
    assert all(asset["file:checksum"].startswith("1220") for asset in item["assets"].values())


def test_a_pretraining_gives_an_embedding_and_no_classes(tmp_path: Path) -> None:
    (output,) = item_of(tmp_path, recipe_of(contrast=True))["properties"]["mlm:output"]
    assert output["name"] == "embedding"
    assert output["classification:classes"] == []
    assert output["result"]["dim_order"] == ["batch", "embedding", "height", "width"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "says", "short", "shape"),
    [
        ("seco-laptop", ["seco.queue=64"], "One date.", "1", 1),
        ("glcnet-laptop", [], "One date.", "1", 1),
        ("embedding-earth-laptop", [], "Up to 12 dates of the series.", "up to 12", 12),
        ("embedding-earth-laptop", ["embedding_earth.dates={}"], "All dates of the series.", "24 (all)", 24),
        (
            "embedding-earth-laptop",
            ["embedding_earth.dates={}", "data.dates={pick: even, n: 6}"],
            "6 dates, spread evenly over the series.",
            "6 (even)",
            6,
        ),
        (
            "oscd-resnet18",
            ["data.bands=[B02, B03, B04, B08]", "backbone.width=0.125"],
            "Two dates, which are compared.",
            "2",
            2,
        ),
    ],
)
def test_the_dates_are_those_that_the_model_was_shown(
    tmp_path: Path, name: str, changes: list[str], says: str, short: str, shape: int
) -> None:
    recipe = load_recipe(name, changes=changes)
    run = save_pretrained(tmp_path / "run", recipe, dates=recipe.data.dates.n or 24)
    folder = Path(push(str(run), wishes(), registry=str(tmp_path / "zoo")).place)
    image, day, valid = json.loads((folder / ITEM).read_bytes())["properties"]["mlm:input"]
    assert f"0 = not observed. {says} The model" in image["description"]
    assert [entry["input"]["shape"][1] for entry in (image, day, valid)] == [shape] * 3
    assert f"| dates | {short} |" in (folder / "README.md").read_text()
    assert verify(folder) == ()


def test_finer_labels_are_super_resolution(tmp_path: Path) -> None:
    recipe = replace(recipe_of(), data=replace(recipe_of().data, labels=2))
    assert item_of(tmp_path, recipe)["properties"]["mlm:tasks"] == ["semantic-segmentation", "super-resolution"]


@pytest.mark.parametrize(("licence", "says"), [("CC-BY-4.0", "CC-BY-4.0"), ("LicenseRef-mine", "other")])
def test_the_licence_is_one_that_stac_knows(tmp_path: Path, licence: str, says: str) -> None:
    pushed = push_tiny(tmp_path, tmp_path / "zoo", licence=licence)
    item = json.loads((tmp_path / "zoo" / pushed.entry.path / ITEM).read_bytes())
    assert item["properties"]["license"] == says
