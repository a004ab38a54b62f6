"""The item is checked against the official core schema, which pystac ships; the extensions' schemas are not shipped by
any package, so that what they ask for is written out here as rules."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, date, datetime
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry
from referencing.jsonschema import DRAFT7

from sits_catalog.stac import EXTENSIONS, ClassCount, CubeFacts, StoredFile, cube_item

JsonObject = dict[str, Any]

FACTS = CubeFacts(
    id="tiny",
    title="Tiny",
    description="A tiny cube.",
    epsg=32631,
    transform=(10.0, 0.0, 525000.0, 0.0, -10.0, 5394000.0),
    shape=(120, 60),
    geometry={"type": "Polygon", "coordinates": [[[3.3, 48.6], [3.4, 48.6], [3.4, 48.7], [3.3, 48.7], [3.3, 48.6]]]},
    bbox=(3.3, 48.6, 3.4, 48.7),
    centroid=(48.65, 3.35),
    days=(date(2021, 12, 30), date(2022, 1, 4)),
    start=datetime(2021, 12, 30, 10, 50, 20, tzinfo=UTC),
    end=datetime(2022, 1, 4, 10, 40, 21, tzinfo=UTC),
    created=datetime(2026, 1, 1, tzinfo=UTC),
    bands=("B02", "B8A", "B11"),
    platforms=("sentinel-2a",),
    classes=(
        ClassCount(index=0, name="background", n_pixels=10),
        ClassCount(index=1, name="maize", n_pixels=7000),
    ),
    finer=(2,),
    files={
        "parcels.parquet": StoredFile(size=7, sha256="ab" * 32),
        "config.yaml": StoredFile(size=8, sha256="cd" * 32),
    },
    source_links=(("S2A_1", "https://example.com/1.json"), ("S2A_2", "/home/me/2.json")),
    n_source_items=2,
    software={"sits-cubes": "0.1.0"},
    lineage="Made by hand.",
    sits_cube={"version": "1.0", "complete": True},
)


@pytest.fixture(scope="module")
def core() -> Draft7Validator:
    """The official schema of a STAC 1.1.0 item, with all that it refers to."""
    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, DRAFT7.create_resource(schema)) for uri, schema in schemas.items()])
    uri = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    return Draft7Validator(schemas[uri], registry=registry)


def without_labels() -> CubeFacts:
    return dataclasses.replace(FACTS, classes=None, finer=())


@pytest.mark.parametrize("facts", [FACTS, without_labels()], ids=["labels", "no labels"])
def test_the_item_passes_the_official_core_schema(facts: CubeFacts, core: Draft7Validator) -> None:
    item = json.loads(json.dumps(cube_item(facts), allow_nan=False))
    assert [error.message for error in core.iter_errors(item)] == []


def test_the_core_schema_is_really_at_work(core: Draft7Validator) -> None:
    item = cube_item(FACTS)
    del item["properties"]["start_datetime"]
    assert any("start_datetime" in error.message for error in core.iter_errors(item))


def test_every_field_with_a_prefix_has_its_extension_and_the_other_way_round() -> None:
    prefixes = {
        "cube": "datacube", "eo": "eo", "file": "file", "label": "label", "processing": "processing",
        "proj": "projection", "raster": "raster", "zarr": "zarr", "sits_cube": None,
    }  # fmt: skip
    for facts in (FACTS, without_labels()):
        item = cube_item(facts)
        found = {key.partition(":")[0] for key in _keys(item) if re.fullmatch(r"[a-z_]+:[a-z_]+", key)}
        wanted = {EXTENSIONS[name] for prefix in found if (name := prefixes[prefix]) is not None}
        assert wanted == set(item["stac_extensions"])


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for part in value.values() for key in _keys(part))]
    if isinstance(value, list):
        return [key for part in value for key in _keys(part)]
    return []


def test_projection_fields_describe_the_grid_by_corners() -> None:
    """projection v2.0.0: proj:code is a string, proj:shape is (height, width), the transform has six numbers."""
    properties = cube_item(FACTS)["properties"]
    assert properties["proj:code"] == "EPSG:32631"
    assert properties["proj:shape"] == [120, 60]
    assert properties["proj:transform"] == [10, 0, 525000, 0, -10, 5394000]
    assert properties["proj:bbox"] == [525000, 5392800, 525600, 5394000]
    assert properties["proj:centroid"] == {"lat": 48.65, "lon": 3.35}
    assert "proj:epsg" not in properties


def test_dimensions_name_axis_extent_and_values_as_datacube_asks() -> None:
    """datacube v2.3.0: spatial needs type, axis and extent; temporal type and extent and no axis; others values."""
    dimensions = cube_item(FACTS)["properties"]["cube:dimensions"]
    assert dimensions["x"] == {
        "type": "spatial",
        "axis": "x",
        "reference_system": 32631,
        "extent": [525005, 525595],
        "step": 10,
        "description": "pixel centres",
    }
    assert dimensions["y"]["extent"] == [5392805, 5393995]
    assert dimensions["y"]["step"] == -10
    assert dimensions["time"]["type"] == "temporal"
    assert dimensions["time"]["extent"] == ["2021-12-30T00:00:00Z", "2022-01-04T00:00:00Z"]
    assert "axis" not in dimensions["time"]
    assert dimensions["band"] == {"type": "bands", "values": ["B02", "B8A", "B11"]}


def test_variables_use_dimensions_that_exist() -> None:
    """datacube v2.3.0: a variable needs dimensions and type `data` or `auxiliary`."""
    properties = cube_item(FACTS)["properties"]
    for variable in properties["cube:variables"].values():
        assert set(variable["dimensions"]) <= properties["cube:dimensions"].keys()
        assert variable["type"] in ("data", "auxiliary")
    assert properties["cube:variables"]["crop_type"]["nodata"] == 65535
    assert "crop_type" not in cube_item(without_labels())["properties"]["cube:variables"]


def test_label_fields_are_those_of_a_raster() -> None:
    """label v1.0.1: a raster has properties null, and classes whose name is null; counts are integers."""
    properties = cube_item(FACTS)["properties"]
    assert properties["label:type"] == "raster"
    assert properties["label:properties"] is None
    assert properties["label:classes"] == [{"name": None, "classes": ["background", "maize"]}]
    counts = [{"name": "background", "count": 10}, {"name": "maize", "count": 7000}]
    assert properties["label:overviews"] == [{"counts": counts}]


def test_bands_say_what_an_integer_means() -> None:
    """raster v2.0.0: scale and offset are numbers on the band; eo v2.0.0: wavelengths are micrometres."""
    asset = cube_item(FACTS)["assets"]["cube"]
    assert asset["type"] == "application/vnd.zarr; version=3"
    assert (asset["zarr:zarr_format"], asset["zarr:node_type"], asset["zarr:consolidated"]) == (3, "group", True)
    assert asset["bands"][1] == {
        "name": "B8A",
        "eo:common_name": "nir08",
        "eo:center_wavelength": 0.8647,
        "gsd": 20,
        "data_type": "uint16",
        "nodata": 0,
        "unit": "1",
        "raster:scale": 0.0001,
        "raster:offset": 0.0,
        "raster:spatial_resolution": 10,
    }


def test_a_checksum_is_a_sha256_multihash() -> None:
    assets = cube_item(FACTS)["assets"]
    assert assets["parcels"]["file:checksum"] == "1220" + "ab" * 32
    assert assets["parcels"]["file:size"] == 7
    assert "file:size" not in assets["chips"]


def test_only_web_addresses_become_links_and_never_more_than_a_hundred() -> None:
    links = [link["href"] for link in cube_item(FACTS)["links"] if link["rel"] == "derived_from"]
    assert links == ["https://example.com/1.json"]
    many = dataclasses.replace(
        FACTS, source_links=tuple((f"S{i}", f"https://example.com/{i}.json") for i in range(101)), n_source_items=101
    )
    assert [link["rel"] for link in cube_item(many)["links"]] == ["store"]
    assert cube_item(many)["assets"]["sources"]["roles"] == ["source", "metadata"]


def test_a_cube_without_parcels_has_no_such_assets() -> None:
    item = cube_item(without_labels())
    assert list(item["assets"]) == ["cube", "chips", "sources", "journal", "report", "config"]
    assert not [key for key in item["properties"] if key.startswith("label:")]
