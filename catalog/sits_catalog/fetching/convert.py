"""fiboa-cli as a separate program: it fetches and converts one year of a source to GeoParquet.

It is looked up as `fiboa` in PATH, or run by `uv` in an environment of its own, and never imported: its pinned
libraries clash with those of this project.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sits_catalog.fetching.download import Listener
from sits_catalog.fetching.edition import held
from sits_catalog.fetching.receipt import FetchedFile, Receipt, read_receipt, sha256_of, write_receipt
from sits_catalog.parcel_source import NationalSource

__all__ = ["convert_edition"]

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "TZ", "TERM"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_KEPT_PREFIXES = ("LC_", "XDG_", "UV_", "PYENV_")
_LOG = "fiboa.log"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""Sequences that colour a terminal (ECMA-48, 5.4)."""
_DATES = ("determination:datetime", "determination_datetime")
_FIBOA = ("id", "hcat:code", "crop:code", "crop:name")


def convert_edition(
    national: NationalSource,
    year: int,
    *,
    folder: Path,
    listener: Listener,
    environment: Mapping[str, str],
    again: bool = False,
) -> Receipt:
    """A year of a source as GeoParquet under `folder`/ID/YEAR, made by its converter of fiboa-cli.

    Of `environment` the program sees only what it needs to run. Raises ValueError for a source without a converter and
    for a year that it is not known to make, FileNotFoundError where neither fiboa nor uv is there, RuntimeError where
    it fails or makes another year: a converter with one fixed address ignores which year it is asked for.
    """
    if national.converter is None:
        raise ValueError(
            f"fiboa-cli has no converter for {national.id} of which is known that it makes the year it is asked for; "
            "fetch it without --with-fiboa"
        )
    if year not in national.converter_years:
        years = ", ".join(map(str, national.converter_years)) or "no year"
        raise ValueError(
            f"fiboa-cli is known to convert {years} of {national.id}, not {year}, and might make another year of it; "
            "fetch it without --with-fiboa"
        )
    name = f"{national.id}-{year}.parquet"
    with held(folder / national.id / str(year)) as place:
        former = read_receipt(place)
        if former is not None and former.converter and not again and former.parcels(place, None) is not None:
            return former
        partial = place / f"{national.id}-{year}.partial.parquet"
        partial.unlink(missing_ok=True)
        cache = place / "fiboa-cache"
        command = (*_program(environment), "convert", national.converter, "--variant", str(year))
        listener.stage(f"running fiboa convert {national.converter}; it says more in {place / _LOG}")
        _run((*command, "--cache", str(cache), "--target", str(partial)), place / _LOG, environment)
        receipt = _receipt(national, year, partial, name)
        partial.replace(place / name)
        write_receipt(place, receipt)
        shutil.rmtree(cache, ignore_errors=True)
    return receipt


def _program(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What starts fiboa."""
    path = environment.get("PATH", os.defpath)
    if found := shutil.which("fiboa", path=path):
        return (found,)
    if found := shutil.which("uv", path=path):
        return (found, "tool", "run", "--from", "fiboa-cli", "fiboa")
    raise FileNotFoundError(
        "neither fiboa nor uv is in PATH: install fiboa-cli in an environment of its own (uv does it by itself), or "
        "fetch without --with-fiboa"
    )


def _run(command: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> None:
    """Runs a command to its end; RuntimeError with its last line for a failure."""
    seen = {key: text for key, text in environment.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=seen, check=False
        )
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        plain = (_COLOUR.sub("", line).strip() for line in reversed(lines))
        last = next((line for line in plain if line), "nothing")
        raise RuntimeError(f"fiboa ended with code {done.returncode} and said {last[:200]!r}; all of it is in {log}")


def _receipt(national: NationalSource, year: int, partial: Path, name: str) -> Receipt:
    """What is known of a converted file; RuntimeError where it is none, has no crops, or is of another year."""
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowInvalid

    if not partial.is_file():
        raise RuntimeError(f"fiboa ended well but wrote no {partial.name}; see {partial.parent / _LOG}")
    try:
        names = set(pq.read_schema(partial).names)
    except ArrowInvalid as error:
        raise RuntimeError(f"fiboa wrote {partial}, which is no GeoParquet file: {error}") from error
    has = {column: column if column in names else None for column in _FIBOA}
    code = has["hcat:code"] or has["crop:code"] or has["crop:name"]
    if code is None:
        raise RuntimeError(f"fiboa wrote {partial} without crops; its columns are {', '.join(sorted(names))}")
    _check_year(partial, next((column for column in _DATES if column in names), None), year)
    file = FetchedFile(name=name, address="", size=partial.stat().st_size, sha256=sha256_of(partial))
    return Receipt(
        source=national.id,
        year=year,
        files=(file,),
        converter=national.converter,
        id=has["id"],
        code=code,
        name=has["crop:name"],
        taxonomy="hcat3" if code == "hcat:code" else None,
    )


def _check_year(partial: Path, column: str | None, year: int) -> None:
    """RuntimeError where the parcels have dates, and none of the year.

    Some sources date each geometry, so that a year's parcels may have dates of others as well.
    """
    if column is None:
        return
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    dates = pc.unique(
        pc.utf8_slice_codeunits(pc.cast(pq.read_table(partial, columns=[column])[column], "string"), 0, 4)
    )
    years = sorted({int(text) for text in dates.to_pylist() if text is not None and text.isdecimal()})
    if years and year not in years:
        found = str(years[0]) if len(years) == 1 else f"{years[0]} to {years[-1]}"
        raise RuntimeError(
            f"fiboa was asked for {year} and wrote parcels of {found} (column {column}); they are kept as {partial} "
            "and not taken: fetch the year without --with-fiboa"
        )
