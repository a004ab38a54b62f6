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


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


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
