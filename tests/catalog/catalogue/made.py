"""Small finished datasets, their files written by hand: what the catalogue reads of a dataset, and no pixels."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import shapely

JsonObject = dict[str, Any]

CLASSES = [
    {"index": 1, "code": "ww", "name": "winter wheat", "hcat": "3301010101", "colour": "#ddcc77"},
    {"index": 2, "code": "mz", "name": "maize", "hcat": "3301010600", "colour": "#4f9d3a"},
]
UTM31 = "EPSG:32631"
DAYS = ("2021-10-07", "2022-09-22")
LEFT, TOP = 500_000, 5_400_000
"""On the central meridian of zone 31: lon 3 exactly, lat about 48.75."""


def png(width: int = 8, height: int = 8) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([90]) * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def report(*captions: str) -> str:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    pictures = "".join(
        f'<img data-role="preview" data-clear="0.9{number}" src="{uri}" alt="{caption}">'
        for number, caption in enumerate(captions)
    )
    return f"<html><body>{pictures}</body></html>"


def item_of(name: str, *, box: Sequence[float] | None, profile: str, labels: bool, **properties: Any) -> JsonObject:
    ground: JsonObject = {"geometry": None}
    if box is not None:
        ground = {"geometry": shapely.geometry.mapping(shapely.box(*box)), "bbox": list(box)}
    labelled = {
        "label:type": "raster",
        "label:properties": None,
        "label:description": "Crop class of each pixel.",
        "label:classes": [{"name": None, "classes": ["background", "winter wheat", "maize"]}],
        "label:overviews": [
            {"counts": [{"name": "background", "count": 5}, {"name": "winter wheat", "count": 700}]},
        ],
    }
    used = ["https://stac-extensions.github.io/label/v1.0.1/schema.json"] if labels else []
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": used,
        "id": name,
        **ground,
        "properties": {
            "title": f"The set {name}",
            "description": "Made up by a test.",
            "datetime": None,
            "start_datetime": "2021-10-07T10:34:13Z",
            "end_datetime": "2022-09-22T10:32:52Z",
            "created": "2026-01-01T00:00:00Z",
            "constellation": "sentinel-2",
            "processing:software": {"sits-cubes": "0.1.0"},
            "processing:lineage": "By hand.",
            "cube:dimensions": {"time": {"type": "temporal", "values": [f"{day}T00:00:00Z" for day in DAYS]}},
            "sits_cube:version": "1.0",
            "sits_cube:profile": profile,
            "sits_cube:complete": True,
            "sits_cube:config_sha256": "ab" * 32,
            **(labelled if labels else {}),
            **properties,
        },
        "links": [{"rel": "store", "href": "./cube.zarr", "type": "application/vnd.zarr; version=3"}],
        "assets": {
            "cube": {"href": "./cube.zarr", "roles": ["data"], "bands": [{"name": "B04"}, {"name": "B08"}]},
            "journal": {"href": "./journal.jsonl", "roles": ["metadata"]},
            "report": {"href": "./report.html", "type": "text/html", "roles": ["overview"]},
        },
    }  # fmt: skip


def make(
    folder: Path,
    *,
    name: str = "hand-2021",
    box: Sequence[float] | None = (3.0, 48.7, 3.1, 48.76),
    profile: str = "region",
    labels: bool = True,
    licence: str = "CC-BY-4.0",
    **properties: Any,
) -> Path:
    """A dataset in `folder`, with the tables that its profile has."""
    (folder / "cube.zarr").mkdir(parents=True)
    item = item_of(name, box=box, profile=profile, labels=labels, **properties)
    (folder / "item.json").write_text(json.dumps(item))
    facts = {
        "version": "1.0",
        "profile": profile,
        "region": name,
        "season": {"start": "2021-10-01", "end": "2022-09-30"},
    }
    facts |= {"radiometry": {"level": "L2A"}, "simulated": True}
    crop_type = {"crop_type": {"attributes": {"classes": CLASSES}}} if labels else {}
    root = {"attributes": {"sits_cube": facts}, "consolidated_metadata": {"metadata": crop_type}}
    (folder / "cube.zarr" / "zarr.json").write_text(json.dumps(root))
    parcels = f"parcels:\n  licence: {licence}\n  attribution: Somebody\n" if licence else ""
    (folder / "config.yaml").write_text(f"id: {json.dumps(name)}\n{parcels}")
    lines = [{"kind": "cell", "shards": {"a": [1000, "0"]}}, {"kind": "files", "files": {"item.json": [500, "0"]}}]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "report.html").write_text(report("View on 2021-10-07", "View on 2022-05-01"))
    if profile == "patches":
        write_patches(folder, located=box is not None)
    elif labels:
        write_region(folder)
    return folder


def chip(row: int, col: int, size_m: int = 640) -> shapely.Polygon:
    left, top = LEFT + col * size_m, TOP - row * size_m
    return shapely.box(left, top - size_m, left + size_m, top)


def write_region(folder: Path) -> None:
    """4 x 4 chips: the two rows in the north are train, then validation and test; a parcel in each chip."""
    splits = ["train", "train", "validation", "test"]
    cells = [(row, col) for row in range(4) for col in range(4)]
    chips = geopandas.GeoDataFrame(
        {"kind": ["grid"] * 16, "split": [splits[row] for row, _ in cells]},
        geometry=[chip(*cell) for cell in cells],
        crs=UTM31,
    )
    chips.to_parquet(folder / "chips.parquet")
    parcels = geopandas.GeoDataFrame(
        {
            "crop_type": [1 + col % 2 for _, col in cells],
            "n_pixels": [100 + i for i in range(16)],
            "split": [splits[row] for row, _ in cells],
            "area_ha": [float(1 + i) for i in range(16)],
        },
        geometry=[chip(*cell).buffer(-100, join_style="mitre") for cell in cells],
        crs=UTM31,
    )
    parcels.to_parquet(folder / "parcels.parquet")


def write_patches(folder: Path, *, located: bool) -> None:
    """Four patches in folds 1 and 2; the second half is for tests."""
    corners = [(3.0, 48.7), (3.02, 48.7), (3.04, 48.7), (3.06, 48.7)]
    outlines = [shapely.box(x, y, x + 0.01, y + 0.01) if located else None for x, y in corners]
    table = geopandas.GeoDataFrame(
        {"patch": [0, 1, 2, 3], "split": ["train", "train", "test", "test"], "fold": [1, 1, 2, 2]},
        geometry=geopandas.GeoSeries(outlines, crs="EPSG:4326"),
    )
    table.to_parquet(folder / "patches.parquet")
