"""Region files, taxonomies and location files that somebody wrote to do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sits_catalog.loading import load_region, load_taxonomy
from sits_catalog.locations import read_locations
from sits_catalog.printable import one_line

REGION = """\
id: one
title: a region
season: {start: 2023-04-01, end: 2023-06-30}
place: {bbox: [3.29, 43.6, 3.32, 43.7]}
imagery: {source: earth-search, max_cloud: 80}
parcels: {path: parcels.gpkg, code: crop, code_pattern: '- (.*)$'}
"""
TAXONOMY = "# title: crops\ncode,class,name,hcat,index\n1,wheat,Wheat,3301010000,1\n2,maize,Maize,,2\n"
EUROCROPS = "original_code,original_name,HCAT3_code,HCAT3_name\n1,Weizen,3301010100,common_soft_wheat\n"
LOCATIONS = "id,lon,lat,city,country\na,3.1,43.2,Sète,FR\nb,4,44,,\n"
GEOJSON = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "id": "a", "geometry": {"type": "Point", "coordinates": [3.1, 43.2]}}],
    }
)


def refused(load: Callable[[Path], object], path: Path, text: str) -> str:
    """The sentence that a file is refused with."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # each test looks at the sentence
        load(path)
    return str(caught.value)


def region(path: Path) -> object:
    return load_region(str(path))


def taxonomy(path: Path) -> object:
    return load_taxonomy(str(path))


# Regions


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("title: a region", 'title: "\\e[31mred"', "any.yaml:2: the character U+001B"),
        ("title: a region", 'title: "a\\0b"', "any.yaml:2: the character U+0000"),
        ("title: a region", 'title: "\\ud800"', "any.yaml:2: the character U+D800"),
        ("title: a region", '"\\e]0;x\\a": 1', "any.yaml:2: the character U+001B"),
        ("parcels.gpkg", '"a\\0b.gpkg"', "any.yaml:6: the character U+0000"),
        ("3.29", "1" + ":59" * 50_000, "too long to be read as int"),
        ("3.29", "9" * 100_000, "too long to be read as int"),
        ("2023-06-30", "9999-12-31", "a season lies in the years 1970 to 2200"),
        ("2023-04-01", "0001-01-01", "a season lies in the years 1970 to 2200"),
        ("id: one", "id: ../one", "a region's id names its folder"),
        ("title: a region", "title: !!python/object/apply:os.system [x]", "tag:yaml.org,2002:python/object/apply"),
        ("title: a region", "title: &a [x, x]\ncopies: [*a, *a]", "anchors and aliases"),
        ("title: a region", "title: " + "[" * 1000, "nested more than 16 deep"),
    ],
    ids=range(13),
)
def test_a_hostile_region_file_is_one_sentence(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in REGION
    assert said in refused(region, tmp_path / "any.yaml", REGION.replace(before, after, 1))


# Taxonomies


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,name\n1,\x1b[31m\n", "any.csv:2: the character U+001B"),
        ("code,name\n1,a\x00b\n", "any.csv:2: the character U+0000"),
        ("code,name\n1," + "x" * 100_000, "a cell has 100000 characters, more than 4000"),
        ("code,name\n1," + "x" * 200_000, "field larger than field limit"),
        ("code\n" + "1\n" * 300_000, "a table of crops has at most 200000 lines; this one has 300001"),
        (f"# title: {'x' * 5000}\n{TAXONOMY}", "the title: a cell has"),
        ("code,name\n1,a\n1,b\n", "the code '1' stands twice"),
        ("lnf_codes,2nd_tier\n[1e400],a\n", "lnf_codes should look like [601, 602]"),
        ("lnf_codes,2nd_tier\n" + "[" * 3000 + ",a\n", "lnf_codes should look like [601, 602]"),
    ],
    ids=range(9),
)
def test_a_hostile_taxonomy_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(taxonomy, tmp_path / "any.csv", text)


def test_blanks_in_a_comment_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "any.csv").write_text(f"# title: {' ' * 500_000}\n{TAXONOMY}")
    assert load_taxonomy(str(tmp_path / "any.csv")).title == "crops"


def test_a_long_number_does_not_fill_up_the_others_with_zeros(tmp_path: Path) -> None:
    rows = [f"{code},Weizen,3301010100,x" for code in (*range(1, 200), "9" * 3000)]
    (tmp_path / "any.csv").write_text("original_code,original_name,HCAT3_code,HCAT3_name\n" + "\n".join(rows))
    codes = load_taxonomy(str(tmp_path / "any.csv")).codes
    assert codes["0" * 19 + "7"] == codes["7"]
    assert len(codes) < 200 * 20


# Locations


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("any.csv", "lon,lat,id\n1,2," + "x" * 5000, "at most 200 characters"),
        ("any.csv", "lon,lat,id\n1,2,\x1b[31m\n", "none that nobody sees"),
        ("any.csv", "lon,lat\n" + "1" * 5000 + ",2\n", "lon must be a number of degrees"),
        ("any.csv", "lon,lat,id\n1,2," + "x" * 200_000, "field larger than field limit"),
        ("any.geojson", GEOJSON.replace("3.1", "9" * 400), "lon must be a number of degrees"),
        ("any.geojson", GEOJSON.replace("3.1", "NaN"), "lon must be a number of degrees; got nan"),
        ("any.geojson", GEOJSON.replace('"a"', '"\\ud800"'), "none that nobody sees"),
        ("any.geojson", "[" * 200_000, "is not GeoJSON"),
    ],
    ids=range(8),
)
def test_a_hostile_location_file_is_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    assert said in refused(read_locations, tmp_path / name, text)


@pytest.mark.parametrize(
    ("column", "geo", "said"),
    [
        (pa.array([1]), {"encoding": "WKB"}, "a location is a point"),
        (pa.array(["x" * 30]), {"encoding": "WKB"}, "a location is a point"),
        (pa.array([b""]), None, "is not GeoParquet"),
    ],
)
def test_a_hostile_table_of_locations_is_one_sentence(tmp_path: Path, column: pa.Array, geo: Any, said: str) -> None:
    columns = json.dumps({"primary_column": "geometry", "columns": {"geometry": geo}}) if geo else "[" * 100_000
    pq.write_table(pa.table({"geometry": column}, metadata={"geo": columns}), tmp_path / "any.parquet")
    with pytest.raises(ValueError, match=said):
        read_locations(tmp_path / "any.parquet")


# Whatever is changed


_WORDS = st.sampled_from(
    [
        *"[]{}:,'\"\n#&*!|>-;",
        "\x00",
        "\x1b",
        "\ud800",
        "\u2028",
        "\u202e",
        "null",
        "1e999",
        ".nan",
        "9" * 400,
        "x" * 5000,
    ]
)


def changed(text: str) -> st.SearchStrategy[str]:
    """The text with some of it cut out, repeated, or replaced."""

    def change(edits: list[tuple[int, int, str]]) -> str:
        out = text
        for at, length, word in edits:
            at %= len(out) + 1
            out = out[:at] + word + out[at + length :]
        return out

    return st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), st.one_of(_WORDS, st.text(max_size=3))),
                    min_size=1, max_size=5).map(change)  # fmt: skip


def answer(load: Callable[[Path], object], path: Path, text: str) -> None:
    """Load a file: a value, or a short sentence that can be printed."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert load(path) is not None
    except (ValueError, FileNotFoundError) as error:
        line = one_line(error)
        assert 10 < len(line) < 2100


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "any.yaml": (region, REGION),
    "any.csv": (taxonomy, TAXONOMY),
    "euro.csv": (taxonomy, EUROCROPS),
    "locations.csv": (read_locations, LOCATIONS),
    "locations.geojson": (read_locations, GEOJSON),
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_file_is_a_value_or_one_sentence(tmp_path: Path, name: str, data: st.DataObject) -> None:
    load, text = CASES[name]
    answer(load, tmp_path / name, data.draw(changed(text)))


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=1000, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_thousands_of_changed_files_are_values_or_sentences(tmp_path: Path, name: str, data: st.DataObject) -> None:
    load, text = CASES[name]
    answer(load, tmp_path / name, data.draw(changed(text)))
