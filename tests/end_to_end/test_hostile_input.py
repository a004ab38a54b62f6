"""Region files and areas written to do harm, given to sits-build: one line that can be printed, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.end_to_end.archives import run_here

REGION = """\
id: one
season: {start: 2023-04-01, end: 2023-06-30}
place: {bbox: [3.29, 43.6, 3.32, 43.7]}
imagery: {source: earth-search}
"""
SEASON = ("--season", "2023-04-01/2023-06-30", "--source", "earth-search")


def refused(folder: Path, name: str, text: str, *more: object) -> str:
    """What a plan of the file says; nothing is written."""
    (folder / name).write_text(text)
    ended = run_here("sits-build", "--region", folder / name, *more, "--plan", "--offline", "--out", folder / "out")
    assert ended.code == 2, ended.stderr
    assert ended.stdout == ""
    assert not (folder / "out").exists()
    lines = ended.stderr.splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 2100
    assert all(letter.isprintable() for letter in lines[0])
    return lines[0]


def area(*rings: Any) -> str:
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("{bbox: [3.29, 43.6, 3.32, 43.7]}", '{file: "\\u202egnp.geojson"}', "\\u202egnp.geojson"),
        ("{bbox: [3.29, 43.6, 3.32, 43.7]}", f"{{file: {'a' * 5000}.geojson}}", "characters left out"),
        (
            "earth-search",
            f"earth-search, bands: [{', '.join(f'X{n}' for n in range(2000))}]",
            "bands must be distinct",
        ),
    ],
    ids=["direction marks", "a long path", "many bands"],
)
def test_a_hostile_region_is_one_printable_line(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert said in refused(tmp_path, "any.yaml", REGION.replace(before, after, 1))


def test_an_area_of_crossing_lines_is_one_sentence(tmp_path: Path) -> None:
    tangle = (np.random.default_rng(1).random((2000, 2)) * 0.05 + [3.3, 43.6]).tolist()
    said = "polygon 0 is of no use as an area: its lines cross or touch one another in more than 1000 places"
    assert said in refused(tmp_path, "any.geojson", area([*tangle, tangle[0]]), *SEASON)


def test_an_area_of_no_numbers_is_one_sentence(tmp_path: Path) -> None:
    text = area([[3.29, 43.6], [3.32, 43.6], [3.32, 43.7], [3.29, 43.6]]).replace("3.29", "NaN")
    assert "any.geojson" in refused(tmp_path, "any.geojson", text, *SEASON)
