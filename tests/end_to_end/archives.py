"""A small archive with parcels and a region file, and the commands run on it as real processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import yaml
import zarr
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from sits_pipeline.cli import build_main, cube_main

EPSG = 32631
LEFT, TOP = 496_020, 4_900_020
"""Upper-left corner of the archive, on the lattice of 60 m and near the zone's middle, where lon/lat is not turned."""
SIDE = 1320
"""Pixels of 10 m along a side of the archive."""
INSET_M = 300.0
BANDS = {"B02": 10, "B04": 10, "B05": 20}
DATES = ("2023-04-05", "2023-05-05", "2023-05-20", "2023-06-14")
EPOCH = "1700000000"

_NAMES = {"B02": "blue", "B04": "red", "B05": "rededge1", "SCL": "scl"}


@dataclass(frozen=True)
class SmallArchive:
    """Two tiles that overlap on every date, of which the less cloudy one comes first: 31TEJ but on the second date."""

    folder: Path
    not_firm: bool

    @property
    def region(self) -> Path:
        """The region file."""
        return self.folder / "small.yaml"

    def item(self, tile: str, day: str) -> str:
        """Id of an item."""
        return f"S2A_{tile}_{day.replace('-', '')}"

    def asset(self, tile: str, day: str, band: str) -> Path:
        """The file of a band."""
        key = _NAMES[band] if self.not_firm else band
        return self.folder / self.item(tile, day) / f"{key}.tif"


def write_small_archive(folder: Path, *, not_firm: bool = False) -> SmallArchive:
    """Write catalogue, scenes, parcels and region file; `not_firm`: as Earth Search, where the pixels decide."""
    archive = SmallArchive(folder, not_firm)
    jobs = [(tile, day) for day in DATES for tile in ("31TEJ", "31TFJ")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: _write_item(archive, *job), jobs))
    links = [{"rel": "item", "href": f"./{archive.item(*job)}/item.json"} for job in jobs]
    catalogue = {"type": "Catalog", "id": "small", "stac_version": "1.0.0", "description": "small", "links": links}
    (folder / "catalog.json").write_text(json.dumps(catalogue))
    write_parcels(folder / "parcels.parquet")
    archive.region.write_text(yaml.safe_dump(region_document(), sort_keys=False))
    return archive


@dataclass(frozen=True)
class RemoteArchive(SmallArchive):
    """The archive behind an address."""

    @property
    def region(self) -> Path:
        """The region file."""
        return self.folder / "remote.yaml"


def remote_archive(archive: SmallArchive, url: str, folder: Path) -> RemoteArchive:
    """A region in `folder` whose imagery lies behind an address, and all else where it is."""
    folder.mkdir(exist_ok=True)
    imagery = {**region_document()["imagery"], "path": f"{url}/catalog.json"}
    parcels = {**region_document()["parcels"], "path": str(archive.folder / "parcels.parquet")}
    document = region_document(imagery=imagery, parcels=parcels)
    (folder / "remote.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return RemoteArchive(folder, archive.not_firm)


def region_document(**changes: Any) -> dict[str, Any]:
    """The region file of the archive, its keys changed as asked for."""
    inner = (LEFT + INSET_M, TOP - SIDE * 10 + INSET_M, LEFT + SIDE * 10 - INSET_M, TOP - INSET_M)
    return {
        "id": "small",
        "season": {"start": "2023-04-01", "end": "2023-06-30"},
        "place": {"bbox": [round(v, 6) for v in transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", *inner)]},
        "imagery": {"source": "stac", "path": "catalog.json", "bands": list(BANDS)},
        "parcels": {"path": "parcels.parquet", "id": "key", "code": "crop"},
        "splits": {"block_m": 1280},
        **changes,
    }


def write_parcels(path: Path, *, crs: str | None = f"EPSG:{EPSG}", move: tuple[float, float] = (0.0, 0.0)) -> Path:
    """400 rectangles of three crops, some of which overlap or touch."""
    x, y = np.meshgrid(np.arange(20) * 640.0 + 350, np.arange(20) * 640.0 + 350)
    boxes = shapely.box(LEFT + x, TOP - y - 430, LEFT + x + 555 + y / 100, TOP - y + 20)
    table = geopandas.GeoDataFrame(
        {
            "key": [f"p{n:03d}" for n in range(400)],
            "crop": [("wheat", "maize", "vines")[n * 7 % 3] for n in range(400)],
        },
        geometry=shapely.transform(boxes.ravel(), lambda points: points + np.array(move)),
        crs=crs,
    )
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            table.to_file(path)
    return path


def _write_item(archive: SmallArchive, tile: str, day: str) -> None:
    folder = archive.folder / archive.item(tile, day)
    folder.mkdir(parents=True)
    first, last = (0, 900) if tile == "31TEJ" else (360, SIDE)
    seed = DATES.index(day) * 2 + (tile == "31TFJ")
    data = _has_data(tile)[:, first:last]
    for band, resolution in BANDS.items():
        _write_file(archive.asset(tile, day, band), _dn(band, resolution, seed, data), resolution, first)
    scl = np.where(data, np.uint8(4), np.uint8(0))[::2, ::2]
    rows, columns = np.mgrid[: scl.shape[0], : scl.shape[1]]
    scl[(scl > 0) & ((rows // 50 + columns // 70 + seed) % 5 == 0)] = 9
    _write_file(archive.asset(tile, day, "SCL"), scl, 20, first)
    (folder / "item.json").write_text(json.dumps(_item(archive, tile, day, first, last)))


def _has_data(tile: str) -> NDArray[np.bool_]:
    """(y, x) of the whole archive: a slanting edge, as of a swath, in steps of 20 m."""
    rows, columns = np.mgrid[: SIDE // 2, : SIDE // 2]
    inside = columns * 2 + rows // 3 < 880 if tile == "31TEJ" else columns * 2 - rows // 3 > 400
    return np.repeat(np.repeat(inside, 2, axis=0), 2, axis=1)


def _dn(band: str, resolution_m: int, seed: int, data: NDArray[np.bool_]) -> NDArray[np.uint16]:
    step = resolution_m // 10
    inside = data[::step, ::step]
    rng = np.random.default_rng([seed, resolution_m, int(band[1:])])
    noise = rng.integers(0, 60, inside.shape)
    # The offset of baseline 05.09 is still in: dark vegetation with its 1000 on top.
    return np.where(inside, 1180 + 40 * seed + noise, 0).astype(np.uint16)


def _write_file(path: Path, dn: NDArray[Any], resolution_m: int, first_column: int) -> None:
    profile = {
        "driver": "COG",
        "height": dn.shape[0],
        "width": dn.shape[1],
        "count": 1,
        "dtype": dn.dtype.name,
        "crs": f"EPSG:{EPSG}",
        "transform": from_origin(LEFT + first_column * 10, TOP, resolution_m, resolution_m),
        "nodata": 0,
        "compress": "deflate",
        "level": 1,
        "blocksize": 256,
        "overview_resampling": "nearest",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(dn, 1)


def _item(archive: SmallArchive, tile: str, day: str, first: int, last: int) -> dict[str, Any]:
    bounds = (LEFT + first * 10, TOP - SIDE * 10, LEFT + last * 10, TOP)
    footprint = shapely.box(*transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", *bounds))
    clear = (tile == "31TEJ") != (day == DATES[1])
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": archive.item(tile, day),
        "collection": "sentinel-2-l2a",
        "geometry": json.loads(shapely.to_geojson(footprint)),
        "bbox": list(footprint.bounds),
        "properties": {
            "datetime": f"{day}T10:{40 + (tile == '31TFJ')}:21Z",
            "platform": "Sentinel-2A",
            "eo:cloud_cover": 5.0 if clear else 20.0,
            "proj:epsg": EPSG,
            "grid:code": f"MGRS-{tile}",
            "s2:processing_baseline": "05.09",
            "sat:relative_orbit": 8,
        },
        "links": [],
        "assets": {
            key: {"href": f"./{key}.tif", "type": "image/tiff"}
            for key in ([_NAMES[band] for band in (*BANDS, "SCL")] if archive.not_firm else (*BANDS, "SCL"))
        },
    }


# Commands


def command(name: str, *arguments: object) -> list[str]:
    """The installed command with its arguments."""
    return [str(Path(sysconfig.get_path("scripts")) / name), *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment of a reproducible build."""
    return {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "OMP_NUM_THREADS": "1"}


def run(name: str, *arguments: object, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in an environment with these variables."""
    return subprocess.run(
        command(name, *arguments),
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def build_arguments(archive: SmallArchive, out: Path, *more: object) -> list[str]:
    """Arguments of `sits-build` for nine cells, two at a time."""
    return [
        "--region", str(archive.region), "--out", str(out), "--cell", "512", "--workers", "2", "--json",
        *map(str, more),
    ]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def outcome(self) -> dict[str, Any]:
        """What `sits-build --json` says of its one dataset."""
        return dict(json.loads(self.stdout)[0])


def run_here(name: str, *arguments: object) -> Ended:
    """Run a command in this process, which saves the seconds that its imports take."""
    main = {"sits-build": build_main, "sits-cube": cube_main}[name]
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return Ended(int(left.value.code or 0), stdout.getvalue(), stderr.getvalue())


def build_here(archive: SmallArchive, out: Path, *more: object) -> Ended:
    """Build the archive's region in this process."""
    return run_here("sits-build", *build_arguments(archive, out, *more))


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command and go on."""
    return subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> bool:
    """`kill -9` of one process, none of its children; whether it was still running."""
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    return running


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(0.005)


# What is on the disk


def promised(dataset: Path) -> dict[str, str]:
    """SHA-256 of the files that promise 5 is about: all of the cube, parcels and chips."""
    files = [p for p in (dataset / "cube.zarr").rglob("*") if p.is_file()]
    files += [dataset / "parcels.parquet", dataset / "chips.parquet"]
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stamps(dataset: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard."""
    shards = [p for p in (dataset / "cube.zarr").rglob("*") if p.is_file() and p.name.isdigit()]
    return {str(p.relative_to(dataset)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in shards}


def leftovers(dataset: Path) -> list[str]:
    """Files and folders that no finished dataset has."""
    return sorted(
        str(p.relative_to(dataset))
        for p in dataset.rglob("*")
        if p.name.endswith((".partial", ".lock")) or p.name == "journal"
    )


def journal_lines(dataset: Path) -> list[dict[str, Any]]:
    """All complete lines of a dataset's journal, whether it is merged or not."""
    files = [dataset / "journal.jsonl", *sorted((dataset / "journal").glob("*.jsonl"))]
    text = "".join(path.read_text() for path in files if path.exists())
    return [json.loads(line) for line in text.split("\n") if line.endswith("}")]


def cells_in_journal(dataset: Path) -> dict[tuple[int, ...], dict[str, Any]]:
    """The journal's cells; a later line replaces an earlier one."""
    return {tuple(line["cell"]): line for line in journal_lines(dataset) if line["kind"] == "cell"}


def pixels(dataset: Path) -> dict[str, NDArray[Any]]:
    """Every pixel array of the root group."""
    group = zarr.open_group(dataset / "cube.zarr", mode="r")
    return {
        name: np.asarray(array[...])
        for name, array in group.arrays()
        if array.shards is not None and array.dtype.kind in "ui"
    }
