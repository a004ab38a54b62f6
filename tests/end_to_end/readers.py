"""Reads a cube by programs that share no code with the project or each other, wherever it lies.

Two of them are not Python's and not everywhere. zarrita.js: the environment variable SITS_ZARRITA names a folder in
which `npm install zarrita @zarrita/storage` was run. GDAL, from 3.13 on: its programs are on the path or in the folder
that SITS_GDAL names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
import zarr.core.sync
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import FsspecStore

ZARRITA, GDAL = "SITS_ZARRITA", "SITS_GDAL"
_SCRIPT = Path(__file__).with_name("read_with_zarrita.mjs")
_REPOSITORY = Path(__file__).parents[2]

JsonObject = dict[str, Any]


# tensorstore


def with_tensorstore(kvstore: JsonObject, path: str) -> tuple[NDArray[Any], JsonObject, tuple[str, ...]]:
    """Values, attributes and names of the dimensions of the array at `path` below this store."""
    below = {**kvstore, "path": f"{kvstore['path']}/{path}/"}
    store = tensorstore.open({"driver": "zarr3", "kvstore": below}, read=True).result()
    metadata = store.spec(retain_context=True).to_json()["metadata"]
    return np.asarray(store.read().result()), dict(metadata.get("attributes", {})), tuple(store.domain.labels)


# zarrs


@contextmanager
def zarrs_pipeline() -> Iterator[None]:
    """Arrays that zarr opens in the block are decoded by zarrs, which may hand nothing back to zarr."""
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
        yield


def with_zarrs(store: Store, path: str) -> NDArray[Any]:
    """Values of an array, in the block of `zarrs_pipeline`."""
    from zarrs import ZarrsCodecPipeline

    array = zarr.open_array(store, path=path, mode="r")
    assert isinstance(array._async_array.codec_pipeline, ZarrsCodecPipeline)
    return np.asarray(array[...])


@contextmanager
def over_http(address: str) -> Iterator[FsspecStore]:
    """A store read over HTTP; its connections are closed at the end, else a later test is warned of them."""
    store = FsspecStore.from_url(address, read_only=True)
    try:
        yield store
    finally:
        session = zarr.core.sync.sync(store.fs.set_session())
        zarr.core.sync.sync(session.close())
        type(store.fs).clear_instance_cache()


# zarrita.js


def with_zarrita(cube: str, paths: Mapping[str, np.dtype[Any]], folder: Path) -> dict[str, tuple[NDArray[Any], Any]]:
    """Values and attributes of arrays, by path, of a cube in a folder or at an http address; skips without zarrita."""
    node, modules = shutil.which("node"), _node_modules()
    if node is None or modules is None:
        why = (
            "node is not installed"
            if node is None
            else f"no folder with it is named by {ZARRITA}; run `npm install zarrita @zarrita/storage` in one"
        )
        print(f"zarrita.js did not read the cube: {why}")
        pytest.skip(f"zarrita.js is not here: {why}")
    # A module is looked for beside and above the file that imports it, and nowhere else.
    place = folder / "zarrita"
    place.mkdir(parents=True)
    script = Path(shutil.copy(_SCRIPT, place))
    (place / "node_modules").symlink_to(modules, target_is_directory=True)
    done = subprocess.run([node, script, cube, place, *paths], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"zarrita.js {found.pop('version')} read {len(found)} arrays of {cube}")
    return {
        path: (_raw(place / f"{path.replace('/', '.')}.bin", paths[path], described["shape"]), described["attributes"])
        for path, described in found.items()
    }


def _node_modules() -> Path | None:
    named = [Path(os.environ[ZARRITA])] if os.environ.get(ZARRITA) else []
    for folder in [*named, *(one / "node_modules" for one in named), _REPOSITORY / "node_modules"]:
        if (folder / "zarrita").is_dir() and (folder / "@zarrita" / "storage").is_dir():
            return folder.resolve()
    return None


def _raw(path: Path, dtype: np.dtype[Any], shape: Iterable[int]) -> NDArray[Any]:
    return np.fromfile(path, dtype).reshape(tuple(shape))


# GDAL


def with_gdal(
    cube: str, path: str, dtype: np.dtype[Any], folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[NDArray[Any], JsonObject]:
    """Values of an array, all but its last two dimensions flattened, and what `gdalinfo -json` says; skips without."""
    name, environment = f'ZARR:"{cube}":/{path}', {**os.environ, **(variables or {})}

    def run(program: str, *words: str) -> str:
        done = subprocess.run(
            [_gdal() / program, *words], capture_output=True, text=True, check=False, timeout=120, env=environment
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    described = json.loads(run("gdalinfo", "-json", name))
    raw = folder / f"{path.replace('/', '.')}.raw"
    run("gdal_translate", "-q", "-of", "ENVI", name, str(raw))
    width, height = described["size"]
    return _raw(raw, dtype, (-1, height, width)), described


def _gdal() -> Path:
    found = shutil.which("gdalinfo", path=os.environ.get(GDAL)) or shutil.which("gdalinfo")
    if found is None:
        pytest.skip(f"GDAL's programs are not here: neither on the path nor in a folder that {GDAL} names")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"GDAL (\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < (3, 13):
        pytest.skip(f"GDAL from 3.13 on reads shards; this is {said.partition(',')[0]}")
    return Path(found).parent
