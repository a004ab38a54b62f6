from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.tiny_archive import EPSG, LEFT, TOP, item

from sits_pipeline.lineage import encode_sources, source_items
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.values import Acquisition, Refusal, Scene, Verdict

VERDICT = Verdict(declared=0, audited=None, applied=0, medians={}, n_pixels=0, refused=False, reason="")


def scene_of(document: dict[str, Any]) -> Scene:
    return scene_from_item(document, str)


def plan_of(*scenes: Scene, refused: tuple[Scene, ...] = ()) -> ZonePlan:
    geobox = GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    extent = shapely.box(*geobox.boundingbox.bbox)
    zone = Zone(name="tiny", geobox=geobox, area=extent, clip_to_strip=False)
    verdicts = (VERDICT,) * len(scenes)
    return ZonePlan(
        zone=zone,
        bands=("B02",),
        acquisitions=(Acquisition(day=scenes[0].sensed.date(), scenes=scenes, verdicts=verdicts),),
        refusals=tuple(Refusal(scene=one, status="cloudy", reason="clouds") for one in refused),
        splits=None,
        cell_px=512,
        config_sha256="0" * 64,
    )


def table_of(items: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    path = folder / "sources.parquet"
    path.write_bytes(encode_sources(items))
    return pq.read_table(path).to_pandas().set_index("id")


def test_an_item_with_a_box_and_no_geometry_lies_where_its_box_does(tmp_path: Path) -> None:
    boxed = {**item("boxed"), "geometry": None}
    solid = {**item("solid"), "geometry": None, "bbox": [4.2, 44.2, -10.0, 4.3, 44.3, 900.0]}
    plan = plan_of(scene_of(item("usual")), scene_of(boxed), refused=(scene_of(solid),))
    table = table_of(source_items(plan, (), (), {}), tmp_path)
    usual, other = (shapely.from_wkb(table.geometry[name]) for name in ("usual", "boxed"))
    assert shapely.equals(usual, other)
    assert table.bbox["boxed"] == table.bbox["usual"]
    assert table.bbox["solid"] == {"xmin": 4.2, "ymin": 44.2, "xmax": 4.3, "ymax": 44.3}


@pytest.mark.parametrize("geometry", [None, {"type": "Nonsense"}, "nowhere"])
def test_an_unusable_item_is_listed_whatever_its_geometry_is(tmp_path: Path, geometry: object) -> None:
    broken = UnusableItem(id="broken", reason="no footprint", item={**item("broken"), "geometry": geometry})
    table = table_of(source_items(plan_of(scene_of(item("usual"))), (broken,), (), {}), tmp_path)
    assert shapely.is_empty(shapely.from_wkb(table.geometry["broken"]))
    assert (table.status["broken"], table.reason["broken"]) == ("failed", "no footprint")
    assert json.loads(table.item_json["broken"])["geometry"] == geometry


def test_addresses_are_published_without_their_secrets(tmp_path: Path) -> None:
    document = item("signed", preview="https://me:SECRET@example.org/p?sig=SECRET")
    document["links"] = [{"rel": "self", "href": "https://me:SECRET@example.org/item.json?token=SECRET"}]
    document["assets"]["B02"] = {"href": "https://example.org/B02.tif?sig=SECRET"}
    scene = scene_of(document)
    broken = UnusableItem(id="broken", reason="no baseline", item=document)
    items = source_items(plan_of(scene), (broken,), (), {})
    assert "SECRET" not in json.dumps(items)
    assert items[0]["assets"]["B02"]["href"] == "https://example.org/B02.tif"
    assert "SECRET" in scene.assets["B02"], "a read needs it"
    assert table_of(items, tmp_path).preview["signed"] == "https://example.org/p"


def test_what_a_service_said_of_a_read_stands_beside_the_reason(tmp_path: Path) -> None:
    plan = plan_of(scene_of(item("plain")), scene_of(item("merged")), scene_of(item("torn")))
    failures = [{"day": "2023-08-13", "item": "torn", "band": "B02", "error": "cut"}]
    notes = {"merged": ("merged by the service",), "torn": ("read from cdse: earth-search did not answer",)}
    table = table_of(source_items(plan, (), failures, notes), tmp_path)
    assert table.reason["plain"] == ""
    assert table.reason["merged"] == "merged by the service"
    assert table.reason["torn"] == "not read in places: B02: cut; read from cdse: earth-search did not answer"
