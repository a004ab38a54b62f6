"""Columns that a source names, those of known conventions, and codes inside of longer texts."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_pipeline.parcels import ParcelTable, read_parcels
from sits_pipeline.parcels.columns import code_pattern
from sits_pipeline.plan.lattice import to_lonlat

LEFT, TOP = 600_000, 4_900_020
EXTENT = GeoBox((120, 120), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
AREA = to_lonlat(shapely.box(LEFT, TOP - 1200, LEFT + 1200, TOP), 32631)


def read(path: Path, **source: str) -> ParcelTable:
    parcels = ParcelSource(path=str(path), **source)  # type: ignore[arg-type]
    (table,) = read_parcels(parcels, str(path), None, area=AREA, extents=[EXTENT])
    return table


def write(path: Path, **columns: list[str | None]) -> Path:
    """Two fields, or as many as the columns have rows."""
    n = len(next(iter(columns.values())))
    fields = [shapely.box(LEFT + x, TOP - 100, LEFT + x + 90, TOP) for x in range(0, 100 * n, 100)]
    frame = geopandas.GeoDataFrame(columns, geometry=fields, crs=32631)
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("columns", "code", "names", "said"),
    [
        (
            {"id": "ab", "crop:code": "wv", "crop:name": "WV"}, "wv", "WV",
            "'crop:code', names from 'crop:name', ids from 'id' were taken, as fiboa / vecorel",
        ),
        (
            {"id": "ab", "crop:code": "wv", "hcat:code": "12", "hcat:name": "xy"}, "12", "xy",
            "'hcat:code', names from 'hcat:name', ids from 'id' were taken",
        ),
        (
            {"EC_hcat_c": "12", "EC_hcat_n": "xy", "crop": "wv"}, "12", "xy",
            "'EC_hcat_c', names from 'EC_hcat_n' were taken, as EuroCrops",
        ),
        ({"EC_hcat_n": "xy"}, "xy", "xy", "'EC_hcat_n' were taken, as EuroCrops"),
    ],
)  # fmt: skip
def test_columns_of_a_known_convention_are_taken_and_said(
    tmp_path: Path, columns: dict[str, str], code: str, names: str, said: str
) -> None:
    table = read(write(tmp_path / "a.parquet", **{name: list(text) for name, text in columns.items()}))
    assert sorted(zip(table.source_code, table.crop_name, strict=True)) == sorted(zip(code, names, strict=True))
    (note,) = table.notes
    assert "names no column of crop codes" in note
    assert said in note
    if "id" in columns:
        assert table.source_key.tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["crop_code", "code", "CROP:CODE", "EC_HCAT_C", "crop", "gewascode"])
def test_no_other_column_is_ever_guessed(tmp_path: Path, name: str) -> None:
    table = read(write(tmp_path / "a.parquet", **{name: ["w", "v"], "id": ["a", "b"]}))
    assert table.notes == ()
    assert table.source_code.tolist() == [None, None]
    assert all(len(key) == 16 for key in table.source_key)


def test_what_the_source_names_goes_before_the_convention(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", **{"id": ["a", "b"], "crop:code": ["w", "v"], "mine": ["1", "2"]})
    table = read(path, code="mine")
    assert sorted(table.source_code) == ["1", "2"]
    assert table.notes == ()
    assert read(path, id="mine").source_key.tolist() == ["1", "2"]


def test_a_pattern_takes_the_code_out_of_a_sentence(tmp_path: Path) -> None:
    texts = ["Type: 321 - Blé", "Type: 12 - Maïs", "Type: 321 - Blé", None]
    table = read(
        write(tmp_path / "a.parquet", text=texts, key=list("abcd")), id="key", code="text", code_pattern=r"- (.+)$"
    )
    assert table.source_code.tolist() == ["Blé", "Maïs", "Blé", None]
    assert [crop.code for crop in table.taxonomy.classes] == ["Blé", "Maïs"]
    assert table.notes == ()


def test_texts_that_do_not_match_are_kept_whole_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", text=["1 - w", "odd", "2 - v", "odd"], key=list("abcd"))
    table = read(path, id="key", code="text", code_pattern=r"- (.+)$")
    assert table.source_code.tolist() == ["w", "odd", "v", "odd"]
    assert "2 of 4 crop codes of" in table.notes[0]
    assert "kept whole ('odd', say)" in table.notes[0]
    with pytest.raises(ValueError, match=r"no crop code of .* matches parcels: code_pattern '\(x\)' \('1 - w', say\)"):
        read(path, code="text", code_pattern="(x)")


def test_a_pattern_needs_a_group_and_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"needs a group around the code, as in"):
        code_pattern("- .*")
    with pytest.raises(ValueError, match=r"code_pattern '\(' is no regular expression"):
        code_pattern("(")
    texts = np.array(["a- ", None], dtype=object)
    assert code_pattern("-(.*)").codes(texts).tolist() == [None, None]


def test_texts_whose_group_is_empty_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", text=["1 - w", "2 - ", "odd", "2 - "], key=list("abcd"))
    table = read(path, id="key", code="text", code_pattern=r"-(.*)$")
    assert table.source_code.tolist() == ["w", None, "odd", None]
    whole, nothing = table.notes
    assert "1 of 4 crop codes of" in whole
    assert "2 of 4 crop codes of" in nothing
    assert r"have nothing in the group of code_pattern '-(.*)$' and count as none ('2 -', say)" in nothing
    with pytest.raises(ValueError, match=r"no crop code of .* has anything in the group of parcels: code_pattern"):
        read(write(path, text=["1 - ", "2 - "]), code="text", code_pattern=r"-(.*)$")


@pytest.mark.parametrize("name", ["ICO", "id_uz", "CVR", "Journalnr", "identifikator_be"])
@pytest.mark.parametrize("key", ["id", "code", "name"])
def test_the_number_of_a_business_is_not_read(tmp_path: Path, name: str, key: str) -> None:
    path = write(tmp_path / "a.parquet", **{name: ["1", "2"], "crop": ["w", "v"]})
    with pytest.raises(ValueError, match=rf"column '{name}' \(parcels: {key}\) holds the number of a business"):
        read(path, **{key: name})
