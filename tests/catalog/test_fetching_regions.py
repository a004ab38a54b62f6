"""What was fetched is found by a region, by the command line, and by what reads parcels; and fiboa-cli as a program."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import shapely
import yaml
from tests.catalog.file_server import FileServer
from typer.testing import CliRunner

from sits_catalog.cli import app
from sits_catalog.cli import parcels as parcels_command
from sits_catalog.fetching import convert_edition, fetch_edition
from sits_catalog.fetching.receipt import write_receipt
from sits_catalog.loading import dump_region, load_national_source, load_parcel_source, load_region, load_taxonomy
from sits_catalog.parcel_source import NationalSource

REGION = """\
id: field
season: {start: 2023-04-01, end: 2023-09-30}
place: {bbox: [15.0, 58.0, 15.1, 58.1]}
parcels: {source: se, year: 2023}
"""
TABLE = b"original_code,original_name,translated_name,HCAT3_name,HCAT3_code\n4,Hostvete,Winter wheat,wheat,3301010101\n"


class Silent:
    def stage(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where fetched parcels lie."""
    monkeypatch.setenv("SITS_PARCELS", str(tmp_path / "parcels"))
    return tmp_path / "parcels"


@pytest.fixture
def swedish(tmp_path: Path) -> Iterator[NationalSource]:
    """Sweden's source, whose edition of 2023 is one made-up field on a server of this machine."""
    with FileServer({"se2023.zip": shapefile(tmp_path), "se_2021.csv": TABLE}) as server:
        national = load_national_source("se")
        edition = replace(national.edition(2023), addresses=(f"{server.url}/se2023.zip",))
        yield replace(national, editions=(edition,), mapping=f"{server.url}/se_2021.csv")


def shapefile(folder: Path) -> bytes:
    """A zip of one square of 100 m near 15 E, 58 N, with the columns of Sweden."""
    import geopandas as gpd

    square = shapely.box(500_000, 6_430_000, 500_100, 6_430_100)
    frame = gpd.GeoDataFrame({"blockid": ["1"], "grdkod_mar": [4]}, geometry=[square], crs="EPSG:3006")
    frame.to_file(folder / "arslager_skiftePolygon.shp")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.glob("arslager_skiftePolygon.*"):
            archive.write(path, path.name)
    return packed.getvalue()


def region_file(folder: Path, text: str = REGION) -> str:
    (folder / "region.yaml").write_text(text)
    return str(folder / "region.yaml")


def test_a_region_finds_what_was_fetched_and_reads_it(folder: Path, swedish: NationalSource, tmp_path: Path) -> None:
    from sits_pipeline.parcels import parcel_bounds

    before = load_region(region_file(tmp_path))
    assert before.parcels is not None
    assert (before.parcels.path, before.taxonomy) == (None, None)
    fetch_edition(swedish, 2023, folder=folder, listener=Silent())
    region = load_region(region_file(tmp_path))
    assert region.parcels is not None
    assert region.parcels.path == str(folder / "se/2023/se2023.zip")
    assert region.taxonomy == str(folder / "se/2023/se_2021.csv")
    assert load_taxonomy(region.taxonomy).classify("4") > 0
    west, south, east, north = parcel_bounds(region.parcels, region.parcels.fetched_path())
    assert 14.99 < west < east < 15.01
    assert 57.9 < south < north < 58.1
    plain = dump_region(region)
    assert dump_region(load_region(region_file(tmp_path, yaml.safe_dump(plain)))) == plain


def test_a_region_keeps_its_own_taxonomy_and_its_own_file(
    folder: Path, swedish: NationalSource, tmp_path: Path
) -> None:
    fetch_edition(swedish, 2023, folder=folder, listener=Silent())
    assert load_region(region_file(tmp_path, REGION + "taxonomy: hcat3\n")).taxonomy == "hcat3"
    own = load_region(region_file(tmp_path), parcels="mine.shp").parcels
    assert own is not None
    assert (own.path, own.member, own.code) == (str(Path("mine.shp").resolve()), None, "grdkod_mar")


@pytest.mark.parametrize("complete", [True, False])
def test_a_file_of_the_user_means_the_same_whatever_was_fetched_here(
    folder: Path, swedish: NationalSource, tmp_path: Path, complete: bool
) -> None:
    before = load_region(region_file(tmp_path), parcels="mine.shp")
    receipt = fetch_edition(swedish, 2023, folder=folder, listener=Silent())
    write_receipt(folder / "se/2023", replace(receipt, complete=complete))
    assert load_region(region_file(tmp_path), parcels="mine.shp") == before
    assert before.taxonomy is None
    own = load_region(region_file(tmp_path), parcels=str(folder / "se/2023/se2023.zip"))
    assert own.taxonomy is None
    fetched = load_region(region_file(tmp_path)).taxonomy
    assert fetched == (str(folder / "se/2023/se_2021.csv") if complete else None)
    assert (
        load_region(region_file(tmp_path, REGION.replace("source: se", "source: fr-rpg, path: a.shp"))).taxonomy
        == "rpg"
    )


def test_parcels_that_were_not_fetched_stop_a_build_with_one_sentence(folder: Path, tmp_path: Path) -> None:
    from sits_pipeline.area import region_area

    around = REGION.replace("{bbox: [15.0, 58.0, 15.1, 58.1]}", "{around: parcels}")
    with pytest.raises(FileNotFoundError, match=r"`sits-catalog parcels fetch se --year 2023`, or name a file .*--par"):
        region_area(load_region(region_file(tmp_path, around)))


def test_a_damaged_record_names_the_line_of_the_region(folder: Path, tmp_path: Path) -> None:
    (folder / "se/2023").mkdir(parents=True)
    (folder / "se/2023/fetched.json").write_text("{")
    with pytest.raises(ValueError, match=r"region\.yaml:4: .*fetched\.json is not a record of fetched parcels"):
        load_region(region_file(tmp_path))


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["parcels", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_fetches_and_says_how_to_use_it(
    folder: Path, swedish: NationalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcels_command, "load_national_source", lambda name: swedish)
    code, out, err = run("fetch", "se", "--year", "2023")
    assert (code, out.splitlines()[0]) == (0, f"fetched: {folder}/se/2023/se2023.zip")
    assert "use it: parcels: {source: se, year: 2023}" in out
    assert "licence: CC0 1.0" in out
    assert f"note: {' '.join((swedish.notes or '').split())}\n" in out
    assert "fetching se2023.zip, 0.0 MB" in err
    other = tmp_path / "elsewhere"
    code, out, _ = run("fetch", "se", "--year", "2023", "--out", str(other), "--no-mapping")
    assert code == 0
    assert f"export SITS_PARCELS={other}" in out
    assert {path.name for path in (other / "se/2023").iterdir()} == {"se2023.zip", "fetched.json", ".lock"}
    assert run("fetch", "se", "--year", "2023", "--again")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("fr-rgp", "--year", "2018"), 2, "did you mean 'fr-rpg'?"),
        (("fr-rpg", "--year", "1999"), 2, "has editions of 2017, 2018"),
        (("eurocrops", "--year", "2021"), 2, "has no addresses to fetch from"),
        (("eurocrops", "--year", "2021", "--with-fiboa"), 2, "fiboa-cli has no converter for eurocrops"),
        (("ch", "--year", "2023", "--with-fiboa"), 2, "fiboa-cli has no converter for ch"),
        (("fi", "--year", "2021", "--with-fiboa"), 2, "known to convert 2023 of fi, not 2021, and might make another"),
    ],
)
def test_a_wrong_source_or_year_is_one_sentence(folder: Path, words: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = run("fetch", *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_list_has_years_licence_and_title_and_the_page_how_to_use_it(folder: Path) -> None:
    rows = {row["id"]: row for row in json.loads(run("--json")[1])}
    assert rows["pt"]["years"] == "2023, 2025"
    assert rows["nl-brp"]["years"] == "2009-2025"
    assert rows["eurocrops"]["years"] == "any"
    assert all(row["licence"] and row["title"] for row in rows.values())
    page = run("show", "fr-rpg")[1]
    assert "fetch it: sits-catalog parcels fetch fr-rpg --year 2024" in page
    assert "id 'id_parcel', code 'code_cultu'" in page
    assert run("show", "eurocrops")[1].rstrip().endswith("use it: parcels: {source: eurocrops, path: FILE}")


# --- fiboa-cli: a tiny executable stands in PATH for it; only how a program is run is tested here ---------------------

STAND_IN = """\
#!{python}
import os, shutil, sys
words = sys.argv[1:]
print("\\x1b[32mwords:", *words)
print("secret seen:", "AWS_SECRET_ACCESS_KEY" in os.environ)
if {code}:
    print("\\x1b[1;31mValueError: Unknown variant\\x1b[0m\\n\\x1b[0m")
    sys.exit({code})
if {made!r}:
    shutil.copy({made!r}, words[words.index("--target") + 1])
"""


def stand_in(folder: Path, *, code: int = 0, made: str = "", name: str = "fiboa") -> dict[str, str]:
    """An environment in whose PATH a program of this name stands."""
    import sys

    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(STAND_IN.format(python=sys.executable, code=code, made=made))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder), "AWS_SECRET_ACCESS_KEY": "hidden"}


def parquet(path: Path, *columns: str, **dates: list[object]) -> str:
    """A table of a row, or of a row a date where a column of dates is given, `_` for its colon."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = max([1, *map(len, dates.values())])
    pq.write_table(pa.table({**{column: ["1"] * rows for column in columns}, **dates}), path)
    return str(path)


def test_a_converter_runs_as_a_program_of_its_own_and_a_region_finds_its_file(folder: Path, tmp_path: Path) -> None:
    made = parquet(tmp_path / "made.parquet", "id", "crop:code", "crop:name", "hcat:code", "geometry")
    environment = stand_in(tmp_path / "bin", made=made)
    receipt = convert_edition(
        load_national_source("se"), 2023, folder=folder, listener=Silent(), environment=environment
    )
    place = folder / "se/2023"
    log = (place / "fiboa.log").read_text()
    assert f"words: convert se --variant 2023 --cache {place}/fiboa-cache --target {place}/se-2023.partial" in log
    assert "secret seen: False" in log
    assert (receipt.converter, receipt.code, receipt.taxonomy) == ("se", "hcat:code", "hcat3")
    source = load_parcel_source("se", 2023)
    assert source.path == str(place / "se-2023.parquet")
    assert (source.id, source.code, source.name, source.crs, source.member) == (
        "id",
        "hcat:code",
        "crop:name",
        None,
        None,
    )
    assert load_region(region_file(tmp_path)).taxonomy == "hcat3"
    (tmp_path / "bin/fiboa").unlink()
    kept = convert_edition(load_national_source("se"), 2023, folder=folder, listener=Silent(), environment=environment)
    assert kept == receipt


def test_uv_runs_the_converter_where_it_is_not_installed(folder: Path, tmp_path: Path) -> None:
    made = parquet(tmp_path / "made.parquet", "id", "crop:code", "geometry")
    environment = stand_in(tmp_path / "bin", made=made, name="uv")
    receipt = convert_edition(
        load_national_source("se"), 2023, folder=folder, listener=Silent(), environment=environment
    )
    log = (folder / "se/2023/fiboa.log").read_text()
    assert "words: tool run --from fiboa-cli fiboa convert se --variant 2023" in log
    assert (receipt.code, receipt.name, receipt.taxonomy) == ("crop:code", None, None)


def test_a_converter_that_fails_or_writes_nothing_good_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    def convert(environment: dict[str, str]) -> None:
        convert_edition(load_national_source("se"), 2023, folder=folder, listener=Silent(), environment=environment)

    with pytest.raises(RuntimeError, match=r"fiboa ended with code 3 and said 'ValueError: Unknown variant'; all of"):
        convert(stand_in(tmp_path / "a", code=3))
    with pytest.raises(RuntimeError, match="fiboa ended well but wrote no se-2023"):
        convert(stand_in(tmp_path / "b"))
    with pytest.raises(RuntimeError, match="without crops; its columns are geometry, id"):
        convert(stand_in(tmp_path / "c", made=parquet(tmp_path / "c.parquet", "id", "geometry")))
    with pytest.raises(RuntimeError, match="which is no GeoParquet file"):
        convert(stand_in(tmp_path / "d", made=__file__))
    with pytest.raises(FileNotFoundError, match="neither fiboa nor uv is in PATH"):
        convert({"PATH": str(tmp_path / "nowhere")})
    assert load_parcel_source("se", 2023).path is None


def test_a_converter_that_makes_another_year_is_not_believed(folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    def convert(name: str, **dates: list[object]) -> None:
        made = parquet(tmp_path / f"{name}.parquet", "id", "crop:code", "geometry", **dates)
        environment = stand_in(tmp_path / name, made=made)
        fi = load_national_source("fi")
        convert_edition(fi, 2023, folder=folder, listener=Silent(), environment=environment, again=True)

    old, new = datetime(2022, 12, 31, 23, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)
    with pytest.raises(
        RuntimeError, match=r"asked for 2023 and wrote parcels of 2022 \(column determination:datetime\)"
    ):
        convert("a", **{"determination:datetime": [old, None]})
    with pytest.raises(RuntimeError, match=r"wrote parcels of 2021 to 2022 \(column determination_datetime\)"):
        convert("b", determination_datetime=["2021-01-01T00:00:00Z", "2022-01-01"])
    assert load_parcel_source("fi", 2023).path is None
    convert("c", **{"determination:datetime": [old, new]})
    convert("d", **{"determination:datetime": pa.nulls(2, pa.timestamp("ms")).to_pylist()})
    assert load_parcel_source("fi", 2023).path == str(folder / "fi/2023/fi-2023.parquet")
