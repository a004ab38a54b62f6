"""This machine and what it is connected to: Python, libraries, the folders of a build, the Dask scheduler."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, cast

from sits_pipeline.config import BuildConfig
from sits_pipeline.doctor.finding import Finding, fine, wrong
from sits_pipeline.folder import Folder

__all__ = ["check_cache", "check_libraries", "check_out", "check_scheduler"]

_OURS = "sits-cubes"
_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "GeoJSON", "GPKG")
_LEAST_FREE_GB = 1.0
_CONNECT_S = 10.0
_ALIKE = ("python", "dask", "distributed", "msgpack", "cloudpickle")
"""What client, scheduler and workers must have in the same version."""


# Python and libraries


def check_libraries() -> Iterator[Finding]:
    """Python, the libraries that this project needs in the versions it needs, and GDAL's drivers."""
    yield fine("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _versions()
    yield _drivers()


def _versions() -> Finding:
    from packaging.requirements import Requirement

    lacking = []
    for text in requires(_OURS) or ():
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            lacking.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(found, prereleases=True):
            lacking.append(f"{need.name} {found} is installed and {need.specifier} is needed")
    if lacking:
        return wrong("libraries", f"{'; '.join(lacking)}: install {_OURS} again in this environment")
    shown = ("rasterio", "zarr", "dask", "pystac-client", "sentinelhub", "s3fs")
    return fine("libraries", ", ".join(f"{name} {version(name)}" for name in (_OURS, *shown)))


def _drivers() -> Finding:
    import rasterio
    from pyogrio import list_drivers

    with rasterio.Env() as environment:
        there = {*environment.drivers(), *list_drivers()}
    lacking = [name for name in _DRIVERS if name not in there]
    if lacking:
        return wrong(
            "GDAL",
            f"{rasterio.__gdal_version__} of rasterio has no driver {', '.join(lacking)}: install rasterio and pyogrio "
            "as wheels, which bring them, instead of building them against a GDAL of the system",
        )
    return fine("GDAL", f"{rasterio.__gdal_version__} with {', '.join(_DRIVERS)}")


# Folders


def check_out(out: str) -> Finding:
    """Whether a dataset could be written there; nothing is left behind."""
    try:
        folder = Folder(out)
        if not folder.is_local:
            folder.check_writable()
            return fine("out", f"{folder.location} can be written, read and cleaned")
        where = _write_near(folder.path)
    except (OSError, ValueError) as error:
        return wrong("out", f"{_sentence(error)}; choose another --out")
    free = shutil.disk_usage(where).free / 1e9
    if free < _LEAST_FREE_GB:
        return wrong(
            "out", f"{out} can be written, but {free:.1f} GB are free on its disk; make room, or choose another"
        )
    return fine("out", f"{out} can be written, {free:.0f} GB are free; --plan says what a build needs")


def check_cache(config: BuildConfig) -> Finding:
    """Whether the folder for bytes of remote files can be written and has room for as many as it may hold."""
    folder = Path(tempfile.gettempdir()) if config.cache is None else config.cache
    name = "of temporary files, since no --cache is given" if config.cache is None else "of --cache"
    try:
        where = _write_near(folder)
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if config.cache else 0
    except OSError as error:
        return wrong("cache", f"{_sentence(error)}; choose another --cache")
    room = (shutil.disk_usage(where).free + held) / 1e9
    if room < config.cache_gb:
        return wrong(
            "cache",
            f"{folder}, the folder {name}, has room for {room:.1f} GB and may grow to {config.cache_gb:g} GB; choose a "
            "--cache on a larger disk, or a smaller --cache-gb",
        )
    return fine("cache", f"{folder}, the folder {name}, has room for {config.cache_gb:g} GB")


def _write_near(folder: Path) -> Path:
    """The folder, or the nearest above it that is there, after a file was written to it and removed."""
    where = next(path for path in (folder, *folder.parents) if path.exists())
    if not where.is_dir():
        raise NotADirectoryError(f"{where} is a file, and a folder is needed there")
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"sits")
            file.flush()
    except OSError as error:
        raise OSError(f"nothing can be written to {where}: {error.strerror}") from error
    return where


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())


# The cluster


def check_scheduler(address: str) -> Finding:
    """Whether a Dask scheduler answers, has workers, and all of them run what we run."""
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]  # theirs
    except (OSError, ValueError) as error:
        return wrong(
            "scheduler",
            f"no Dask scheduler answers at {address} ({_sentence(error)}); start one with `dask scheduler` and give "
            "its address, tcp://host:port",
        )
    with client:
        versions = cast(Mapping[str, Any], client.get_versions())
        programs = client.run(_our_version)
    return _compare(address, versions, programs)


def _our_version() -> str:
    """What a worker has installed of this project."""
    try:
        return version(_OURS)
    except PackageNotFoundError:
        return "none"


def _compare(address: str, versions: Mapping[str, Any], programs: Mapping[str, str]) -> Finding:
    if not programs:
        return wrong("scheduler", f"{address} has no workers; start some with `dask worker {address}`")
    ours = _flat(versions["client"])
    others = {"the scheduler": _flat(versions["scheduler"])}
    others |= {f"worker {name}": _flat(found) for name, found in versions["workers"].items()}
    unlike = [
        f"{who} has {name} {found.get(name)}, this process {ours.get(name)}"
        for who, found in sorted(others.items())
        for name in _ALIKE
        if found.get(name) != ours.get(name)
    ]
    unlike += [
        f"worker {name} has {_OURS} {found}, this process {_our_version()}"
        for name, found in sorted(programs.items())
        if found != _our_version()
    ]
    if unlike:
        more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        return wrong("scheduler", f"{'; '.join(unlike[:3])}{more}: give all of them the same environment")
    return fine("scheduler", f"{address} with {len(programs)} workers, all of the same versions")


def _flat(found: Mapping[str, Any]) -> dict[str, str]:
    """Version by library; Python's with two numbers, as far as it matters."""
    python = str(found["host"].get("python", "")).split(".")
    return {**found["packages"], "python": ".".join(python[:2])}
