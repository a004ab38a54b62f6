"""Neither a signature nor a password of an address is in what is said or kept about parcels."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import geopandas
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_pipeline.parcels import ParcelTable, parcel_bounds, read_parcels
from sits_pipeline.parcels.shown import cleaned, shown
from sits_pipeline.plan.lattice import to_lonlat

LEFT, TOP = 600_000, 4_900_020
SECRETS = "SIGNED", "PASSWORD"


class _Quiet(SimpleHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log_error(self, *said: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server of the files in `tmp_path`, with a user and a password in its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://me:PASSWORD@127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write(path: Path) -> None:
    fields = [shapely.box(LEFT + x, TOP - 200, LEFT + x + 100, TOP - 100) for x in (100, 300)]
    frame = geopandas.GeoDataFrame({"key": ["a", "b"], "crop": ["1 - w", "v"]}, geometry=fields, crs=32631)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_crs(4326).to_file(path, engine="pyogrio")


def open_parcels(path: str, *, east: float = 0, **source: str) -> ParcelTable:
    extent = GeoBox((120, 120), Affine(10, 0, LEFT + east, 0, -10, TOP), "EPSG:32631")
    area = to_lonlat(shapely.box(*extent.boundingbox.bbox), 32631)
    (table,) = read_parcels(ParcelSource(path=path, **source), path, None, area=area, extents=[extent])  # type: ignore[arg-type]
    return table


@pytest.mark.parametrize("name", ["a.parquet", "a.geojson"])
def test_a_signed_address_is_read_and_its_secrets_are_nowhere(
    tmp_path: Path, host: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sits_pipeline")
    write(tmp_path / name)
    address = f"{host}/{name}?sig=SIGNED"
    table = open_parcels(address, id="key", code="crop", code_pattern="- (.+)$", crs="EPSG:2154")
    assert sorted(table.source_code) == ["v", "w"]
    said = [*table.notes]
    assert len(said) == 2
    bad: list[dict[str, str]] = [{"id": "none"}, {"code": "crop", "code_pattern": "(q)"}, {"member": "x"}]
    for source in bad:
        said.append(refusal(address, **source))
    said.append(refusal(address, east=90_000))
    said.append(refusal(f"{host}/none-{name}?sig=SIGNED"))
    (tmp_path / f"broken-{name}").write_text("nothing")
    said.append(refusal(f"{host}/broken-{name}?sig=SIGNED"))
    for text in (*said, caplog.text):
        assert not [secret for secret in SECRETS if secret in text]
    assert all("127.0.0.1" in text for text in said)


def refusal(address: str, *, east: float = 0, **source: str) -> str:
    """What the user sees of the error: sentence and causes."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1") as caught:
        open_parcels(address, east=east, **source)
    # Without source lines, which hold the secrets of this file.
    return "".join(part for one in _chain(caught.value) for part in traceback.format_exception_only(one))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what a traceback shows before it."""
    yield error
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before)


def test_the_bounds_of_a_signed_address_are_known(tmp_path: Path, host: str) -> None:
    write(tmp_path / "a.parquet")
    address = f"{host}/a.parquet?sig=SIGNED"
    west, *_ = parcel_bounds(ParcelSource(path=address), address)
    assert 4.2 < west < 4.3


def test_only_addresses_are_shortened() -> None:
    assert shown("/data/a#1?.gpkg") == "/data/a#1?.gpkg"
    assert shown("/vsizip//vsicurl/https://u:p@h.org/a b.zip?s=1 2/x.shp") == "/vsizip//vsicurl/https://h.org/a b.zip"
    assert shown("/vsicurl?url=https%3A%2F%2Fh.org%2Fa%3Fsig%3D1") == "/vsicurl"
    assert cleaned("'/vsicurl/https://h.org/a?s=SIGNED'\nno s=SIGNED", "https://h.org/a?s=SIGNED") == (
        "'/vsicurl/https://h.org/a' no ..."
    )
