"""What others' validators say of a dataset as a build writes it; none of them is asked over a network."""

from __future__ import annotations

import json
from typing import Any

import pystac
import pytest
import zarr
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry
from referencing.jsonschema import DRAFT7
from tests.end_to_end.building import Dataset


def pixel_nodes(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Attributes of every group and pixel array, by path."""
    members = {"": dataset.group, **dict(dataset.group.members(max_depth=None))}
    return {
        path: node.attrs.asdict() for path, node in members.items() if isinstance(node, zarr.Group) or node.ndim >= 2
    }


def test_every_node_passes_the_validator_of_geozarr(small: Dataset) -> None:
    validation = pytest.importorskip(
        "geozarr_toolkit", reason="geozarr-toolkit, which validates the conventions, is not installed"
    )
    nodes = pixel_nodes(small)
    assert len(nodes) == 4 + 10 + 2 + 2 * 3
    for path, attributes in nodes.items():
        found = validation.validate_attrs(attributes)
        assert found == {"spatial": [], "proj": [], "zarr_conventions": []}, path


def test_the_item_of_a_build_passes_the_core_schema(small: Dataset) -> None:
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources([(uri, DRAFT7.create_resource(one)) for uri, one in schemas.items()])
    schema = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    item = json.loads((small.path / "item.json").read_text())
    assert [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(item)] == []


def test_pystac_reads_the_item_and_finds_every_file(small: Dataset) -> None:
    item = pystac.Item.from_file(str(small.path / "item.json"))
    item.make_asset_hrefs_absolute()
    hrefs = {asset.href for asset in item.assets.values()}
    assert {str(path) for path in small.path.iterdir()} - hrefs == {str(small.path / "item.json")}
    assert item.ext.proj.epsg == 32631
    assert item.ext.proj.transform == list(small.transform[:6])
    assert set(item.ext.cube.variables) == set(pixel_nodes(small)) - {"", "overview", "labels_x2", "labels_x4"} - {
        path for path in pixel_nodes(small) if "/" in path
    }
