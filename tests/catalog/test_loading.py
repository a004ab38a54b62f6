"""Regions from names, files and boxes; every error of a region file names its line."""

from __future__ import annotations

import json
import os
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.loading import dump_region, list_regions, load_region, load_taxonomy, parse_season
from sits_catalog.region import Region
from sits_catalog.sentinel2 import BANDS

MINIMAL = """\
id: mine
place: {bbox: [3.293, 43.617, 3.320, 43.647]}
season: {start: 2018-01-01, end: 2018-12-31}
"""

FULL = """\
id: t31tej-2018
title: Vineyards and cereals in the Herault, 2018
place: {bbox: [3.293, 43.617, 3.320, 43.647]}
season: {start: 2018-01-01, end: 2018-12-31}
imagery: {source: safe, path: safe/, bands: [B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12], max_cloud: 100}
parcels: {path: parcels/france_data_2018.shp, id: null, code: EC_hcat_n, name: null, crs: null, labelled_area: parcels}
taxonomy: hcat3
labels: {rule: area, min_coverage: 0.5, finer: [2, 4]}
splits: {block_m: 2560, buffer_m: 100, shares: {train: 0.6, validation: 0.2, test: 0.2}, seed: 0}
"""

SEASON = "2023-10-01/2024-09-30"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_region(text: str, name: str = "region.yaml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_region


# --- what a region is read from -------------------------------------------------------------------------------------


def test_every_shipped_region_loads_under_its_own_name() -> None:
    assert set(list_regions()) >= {"demo", "demo-south"}
    for name in list_regions():
        region = load_region(name)
        assert region.id == name
        if region.taxonomy is not None:
            assert load_taxonomy(region.taxonomy, region.folder).classes
        else:  # no parcels, or codes that the table that is fetched with them knows
            assert region.parcels is None or region.parcels.source is not None


def test_the_region_file_of_the_design_is_read_key_by_key(write: Any, tmp_path: Path) -> None:
    region = load_region(write(FULL))
    assert region.id == "t31tej-2018"
    assert region.place.bbox == (3.293, 43.617, 3.32, 43.647)
    assert (region.season.start, region.season.end) == (date(2018, 1, 1), date(2018, 12, 31))
    assert (region.imagery.source, region.imagery.max_cloud) == ("safe", 100.0)
    assert region.imagery.bands[-1] == "B12"
    assert region.parcels is not None
    assert (region.parcels.id, region.parcels.code) == (None, "EC_hcat_n")
    assert region.labels.finer == (2, 4)
    assert region.resolve("safe/") == str(tmp_path / "safe")


def test_all_but_id_season_and_place_can_be_left_out(write: Any) -> None:
    region = load_region(write(MINIMAL))
    assert (region.parcels, region.taxonomy, region.imagery.source) == (None, None, "simulated")


def test_dates_may_be_quoted(write: Any) -> None:
    text = MINIMAL.replace("2018-01-01", "'2018-01-01'")
    assert load_region(write(text)).season.start == date(2018, 1, 1)


def test_a_box_is_west_south_east_north() -> None:
    region = load_region("3.293, 43.617, 3.32, 43.647", season=SEASON)
    assert region.place.bbox == (3.293, 43.617, 3.32, 43.647)
    assert region.id == "box-e3.293-n43.617-e3.32-n43.647"
    assert load_region("-3.5,-40.5,-3.4,-40", season=SEASON).id == "box-w3.5-s40.5-w3.4-s40"


def test_a_geojson_file_is_the_area_and_gives_the_id(write: Any, tmp_path: Path) -> None:
    region = load_region(write("{}", "Mein Gebiet (Süd).geojson"), season=SEASON)
    assert region.id == "mein-gebiet-s-d"
    assert region.place.file is not None
    assert region.resolve(region.place.file) == str(tmp_path / "Mein Gebiet (Süd).geojson")


@pytest.mark.parametrize("area", ["3.2,43.6,3.3,43.7", "area.geojson"])
def test_an_area_without_a_season_says_how_to_give_one(write: Any, area: str) -> None:
    text = write("{}", area) if area.endswith("json") else area
    with pytest.raises(ValueError, match=r"has no season; add --season .*2023-10-01/2024-09-30"):
        load_region(text)


def test_options_override_the_file_and_their_paths_start_from_the_working_folder(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    file = write(FULL)
    monkeypatch.chdir(tmp_path / "work")
    region = load_region(file, season=SEASON, source="stac", source_path="catalog.json", parcels="fields.gpkg")
    assert region.season.start == date(2023, 10, 1)
    assert (region.imagery.source, region.imagery.path) == ("stac", str(tmp_path / "work/catalog.json"))
    assert region.parcels is not None
    assert (region.parcels.path, region.parcels.code) == (str(tmp_path / "work/fields.gpkg"), "EC_hcat_n")
    remote = load_region(file, source="stac", source_path="https://example.org/catalog.json")
    assert remote.imagery.path == "https://example.org/catalog.json"


def test_another_source_does_not_keep_the_path_of_the_former(write: Any) -> None:
    with pytest.raises(ValueError, match="--source: the source stac needs the catalogue's file or address"):
        load_region(write(FULL), source="stac")


API = """
id: api
season: {start: 2023-01-01, end: 2023-12-31}
place: {bbox: [3.2, 43.6, 3.3, 43.7]}
imagery: {source: stac-api, path: "https://x.org/v1", collection: s2, fallback: cdse,
  fallback_path: "https://me:SECRET@y.org/v1", assets: {B02: blue, SCL: scl}}
"""


def test_an_api_of_ones_own_has_a_table_of_assets_that_another_source_does_not_keep(write: Any) -> None:
    imagery = load_region(write(API)).imagery
    assert (imagery.collection, imagery.assets) == ("s2", {"B02": "blue", "SCL": "scl"})
    mirror = load_region(write(API), source="stac-api", source_path="https://mirror.org/v1").imagery
    assert (mirror.path, mirror.assets) == ("https://mirror.org/v1", imagery.assets)
    other = load_region(write(API), source="earth-search").imagery
    assert (other.path, other.collection, other.assets, other.fallback) == (None, None, None, None)
    assert other.fallback_path is None
    assert dump_region(load_region(write(API)))["imagery"]["fallback_path"] == "https://y.org/v1"


@pytest.mark.parametrize(
    ("imagery", "message"),
    [
        ("{source: stac-api}", r"region\.yaml:5: the source stac-api needs the address of the API's root"),
        ("{source: cdse, assets: {B02: blue}}", "`assets` is for the source stac-api; the names of cdse are known"),
        ("{source: stac-api, path: x, assets: {B10: a, blue: b}}", "which asset holds it; got B10, blue"),
        ("{source: stac-api, path: x, assets: {}}", "which asset holds it; got none"),
        ("{source: cdse, fallback_path: 'https://x.org/v1'}", "no `fallback` is named"),
        ("{source: cdse, fallback: cdse}", "the fallback is the source itself, cdse; name another"),
    ],
)
def test_keys_that_a_source_has_not_are_errors_of_one_sentence(write: Any, imagery: str, message: str) -> None:
    text = API.replace("\n".join(API.splitlines()[4:]), f"imagery: {imagery}")
    with pytest.raises(ValueError, match=message):
        load_region(write(text))


def test_parcels_can_be_given_to_a_box() -> None:
    region = load_region("3.2,43.6,3.3,43.7", season=SEASON, parcels="/data/fields.gpkg")
    assert region.parcels is not None
    assert region.parcels.path == "/data/fields.gpkg"


def test_a_shipped_parcel_source_fills_in_what_the_file_leaves_out(write: Any) -> None:
    text = MINIMAL + "parcels: {source: fr-rpg, year: 2018, name: LIBELLE}\n"
    region = load_region(write(text), parcels="/data/PARCELLES_GRAPHIQUES.shp")
    assert region.parcels is not None
    assert (region.parcels.code, region.parcels.name, region.parcels.labelled_area) == (
        "CODE_CULTU",
        "LIBELLE",
        "region",
    )


def test_a_shipped_parcel_source_that_was_not_fetched_loads_without_a_path(write: Any, tmp_path: Path) -> None:
    text = MINIMAL + "parcels: {source: fr-rpg, year: 2018}\n"
    region = load_region(write(text))
    assert region.parcels is not None
    assert (region.parcels.path, region.taxonomy) == (None, "rpg")
    assert load_region(write(text + "taxonomy: null\n")).taxonomy is None
    plain = dump_region(region)
    assert dump_region(load_region(write(yaml.safe_dump(plain), "again.yaml"))) == plain
    with pytest.raises(ValueError, match=r"region.yaml:4: no parcel source named 'fr-rgp'"):
        load_region(write(text.replace("rpg", "rgp")))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nl22", f"no region named 'nl22'; the catalog has: {', '.join(list_regions())}"),
        ("demmo", "did you mean 'demo'?"),
        ("3.2,43.6,3.3", "a box is four numbers, W,S,E,N in degrees; got 3"),
        ("48.6,117,48.7,117.2", "latitude seems to come first: did you mean 117.0,48.6,117.2,48.7?"),
        ("179.9,-17,-179.9,-16.9", "antimeridian is not supported"),
    ],
)
def test_a_wrong_name_or_box_says_what_there_is(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_region(text, season=SEASON)


@pytest.mark.parametrize("season", ["2023", "2023-10-01", "2023-10-01/", "2023-13-01/2024-01-01", "20231001/20240930"])
def test_a_season_option_is_two_days(season: str) -> None:
    with pytest.raises(ValueError, match="a season is its first and last day, such as 2023-10-01/2024-09-30; got"):
        parse_season(season)


def test_a_reversed_season_says_so() -> None:
    with pytest.raises(ValueError, match="season ends on 2023-10-01, before it starts on 2024-09-30; swap"):
        load_region("demo", season="2024-09-30/2023-10-01")


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("title:", "titel:", "region.yaml:2: unknown key 'titel'; did you mean 'title'?; known: id, season"),
        (
            "max_cloud:",
            "max_clouds:",
            "region.yaml:5: unknown key 'max_clouds' under `imagery`; did you mean 'max_cloud'?",
        ),
        ("id: t31tej-2018", "id: t31tej-2018\nfolder: /", "region.yaml:2: unknown key 'folder'"),
        ("2018-01-01", "yesterday", "region.yaml:4: `season.start` should be a date such as 2018-01-31, got the text"),
        ("2018-01-01", "2019-01-01", "region.yaml:4: season ends on 2018-12-31, before it starts on 2019-01-01"),
        ("max_cloud: 100", "max_cloud: '100'", "region.yaml:5: `imagery.max_cloud` should be a number, got the text"),
        ("max_cloud: 100", "max_cloud: yes", "region.yaml:5: `imagery.max_cloud` should be a number, got true"),
        ("max_cloud: 100", "max_cloud: .nan", "region.yaml:5: .nan is not a finite number"),
        ("max_cloud: 100", "max_cloud: 100, seed: 0x" + "f" * 5000, "region.yaml:5: '0xff"),
        (
            "source: safe",
            "source: saef",
            "region.yaml:5: `imagery.source` should be 'simulated', 'stac', 'safe', 'earth-search',",
        ),
        ("source: safe", "source: saef", "got 'saef'; did you mean 'safe'?"),
        (", 43.647]", "]", "region.yaml:3: `place.bbox` has 3 values, which are too few"),
        ("43.647]", "43.647, 5]", "region.yaml:3: `place.bbox` has 5 values, expected 4"),
        ("finer: [2, 4]", "finer: [3]", "region.yaml:8: `labels.finer[0]` should be 2 or 4, got 3"),
        ("finer: [2, 4]", "finer: 2", "region.yaml:8: `labels.finer` should be a list, got 2"),
        (
            "train: 0.6",
            "trian: 0.6",
            "region.yaml:9: a key of `splits.shares` should be 'train', 'validation' or 'test', got 'trian'",
        ),
        ("train: 0.6", "train: 0.7", "region.yaml:9: the shares of the splits must be positive and sum to 1"),
        ("id: t31tej-2018", "id: 2018", "region.yaml:1: `id` should be text, got 2018"),
        ("id: t31tej-2018", "id: 'a/b'", "region.yaml: a region's id names its folder"),
        ("id: t31tej-2018\n", "", "region.yaml: the key 'id' is missing"),
        ("start: 2018-01-01, ", "", "region.yaml:4: the key 'start' under `season` is missing"),
        ("taxonomy: hcat3", "taxonomy: hcat3\ntaxonomy: x", "region.yaml:8: the key 'taxonomy' stands twice (first: "),
        ("{rule: area", "{rule: area, rule: center", "region.yaml:8: the key 'rule' stands twice"),
        ("title: Vine", "title: [Vine", "region.yaml:3: this is not YAML"),
        ("taxonomy: hcat3", "taxonomy: &x hcat3", "region.yaml:7: anchors and aliases"),
        ("taxonomy: hcat3", "taxonomy: *x", "region.yaml:7: anchors and aliases"),
        ("taxonomy: hcat3", "taxonomy: !!python/name:os.system x", "region.yaml:7: 'x' cannot be read as"),
        ("taxonomy: hcat3", "taxonomy: !!timestamp x", "region.yaml:7: 'x' cannot be read as timestamp"),
        (
            "taxonomy: hcat3",
            "taxonomy: !!binary aGk=",
            "region.yaml:7: the tag tag:yaml.org,2002:binary is not allowed",
        ),
        ("taxonomy: hcat3", "taxonomy: !!set {a, b}", "region.yaml:7: the tag"),
        ("taxonomy: hcat3", "taxonomy: " + "[" * 50_000, "region.yaml:7: values are nested more than 16 deep"),
        ("taxonomy: hcat3", "taxonomy: hcat3\n---\nid: x", "region.yaml:8: a second document starts here"),
        ("taxonomy: hcat3", "? [a]\n: b", "region.yaml:7: a key should be a word"),
        ("parcels: {", "parcels: 7\nx: {", "region.yaml:7: unknown key 'x'"),
        (
            "labels: {rule: area, min_coverage: 0.5, finer: [2, 4]}",
            "labels: area",
            "`labels` should hold keys with values",
        ),
    ],
)
def test_a_mistake_in_a_region_file_is_one_sentence_with_its_line(
    write: Any, replace: str, by: str, message: str
) -> None:
    assert replace in FULL
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_region(write(FULL.replace(replace, by, 1)))
    assert "\n" not in str(caught.value)


@given(text=st.one_of(st.text(), st.integers(0, len(FULL)).map(lambda cut: FULL[:cut])), where=st.integers(0, 400))
def test_no_text_in_a_region_file_is_anything_but_a_region_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str, where: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(FULL[:where] + text, encoding="utf-8")
    try:
        assert isinstance(load_region(str(path)), Region)
    except ValueError as error:
        assert str(error).count("any.yaml") >= 1  # noqa: PT017  # both ends are right


def test_a_region_file_that_cannot_be_read_says_why(write: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no region file absent\.yaml"):
        load_region("absent.yaml")
    with pytest.raises(FileNotFoundError, match=r"no file absent\.geojson"):
        load_region("absent.geojson")
    with pytest.raises(ValueError, match=r"has 1\.2 MB; a region file has at most 1 MB"):
        load_region(write("# " + "x" * 1_200_000))
    with pytest.raises(ValueError, match="should hold keys with values"):
        load_region(write(""))
    with pytest.raises(ValueError, match="this is not YAML"):
        load_region(write("\x07"))
    (tmp_path / "latin.yaml").write_bytes("title: Hérault".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load_region(str(tmp_path / "latin.yaml"))
    with pytest.raises(ValueError, match="is none of them"):
        load_region(str(tmp_path))


def test_a_place_file_that_is_not_there_names_its_line(write: Any) -> None:
    text = MINIMAL.replace("{bbox: [3.293, 43.617, 3.320, 43.647]}", "{file: area.geojson}")
    with pytest.raises(FileNotFoundError, match=r"region\.yaml:2: there is no file .*area\.geojson"):
        load_region(write(text))


@pytest.mark.parametrize("source", ["stac", "safe"])
def test_an_archive_on_disk_or_web_needs_its_path(write: Any, source: str) -> None:
    with pytest.raises(ValueError, match=rf"region\.yaml:4: the source {source} needs .*--source-path"):
        load_region(write(MINIMAL + f"imagery: {{source: {source}}}\n"))


# --- what is written back -------------------------------------------------------------------------------------------


def test_a_dumped_region_loads_as_the_same_region(write: Any, tmp_path: Path) -> None:
    region = load_region(write(FULL))
    plain = dump_region(region)
    assert json.loads(json.dumps(plain)) == plain
    again = load_region(write(yaml.safe_dump(plain), "again.yaml"))
    assert dump_region(again) == plain
    assert plain["imagery"]["path"] == str(tmp_path / "safe")
    assert "folder" not in plain


def test_a_dumped_shipped_parcel_source_loads_again(write: Any) -> None:
    region = load_region(write(MINIMAL + "parcels: {source: fr-rpg, year: 2023, path: rpg.gpkg, id: null}\n"))
    assert region.parcels is not None
    assert region.parcels.id is None
    plain = dump_region(region)
    assert dump_region(load_region(write(yaml.safe_dump(plain), "again.yaml"))) == plain


def test_a_dumped_region_holds_no_secret(write: Any) -> None:
    text = MINIMAL + "imagery: {source: stac, path: 'https://me:pass@example.org/c.json?sig=secret#part'}\n"
    assert dump_region(load_region(write(text)))["imagery"]["path"] == "https://example.org/c.json"


_DAYS = st.dates(date(2015, 7, 1), date(2030, 1, 1))


@st.composite
def region_files(draw: st.DrawFn) -> dict[str, Any]:
    start, west, south = draw(_DAYS), draw(st.floats(-180, 179)), draw(st.floats(-80, 83))
    return {
        "id": draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)),
        "title": draw(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)),
        "season": {"start": start, "end": start + timedelta(days=draw(st.integers(0, 800)))},
        "place": {"bbox": [west, south, west + draw(st.floats(0.01, 1)), south + draw(st.floats(0.01, 1))]},
        "imagery": {
            "bands": draw(st.lists(st.sampled_from(list(BANDS)), min_size=1, unique=True)),
            "max_cloud": draw(st.floats(0, 100)),
        },
        "labels": {
            "rule": draw(st.sampled_from(["area", "center", "all_touched"])),
            "finer": draw(st.lists(st.sampled_from([2, 4]), unique=True)),
        },
        "splits": {"seed": draw(st.integers(0, 2**32))},
    }


@pytest.mark.slow
@given(content=region_files())
def test_every_region_survives_a_round_trip(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("regions")
    (folder / "one.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    first = load_region(str(folder / "one.yaml"))
    (folder / "two.yaml").write_text(yaml.safe_dump(dump_region(first)), encoding="utf-8")
    second = load_region(str(folder / "two.yaml"))
    assert isinstance(first, Region)
    assert first == second
    assert first.season.start == content["season"]["start"]
    assert list(first.imagery.bands) == content["imagery"]["bands"]


def test_the_real_parcels_and_scenes_can_be_named_in_a_region_file(write: Any) -> None:
    data = os.environ.get("SITS_DATA")
    if data is None:
        pytest.skip("SITS_DATA names no folder with the t31tej scenes and parcels")
    root = Path(data) / "t31tej"
    text = FULL.replace("safe/", str(root)).replace("parcels/france", str(root / "parcels/france"))
    region = load_region(write(text))
    assert region.parcels is not None
    assert region.parcels.path is not None
    assert Path(region.resolve(region.parcels.path)).is_file()
    area = load_region(str(root / "aoi.geojson"), season="2018-01-01/2018-12-31")
    assert area.id == "aoi"
