"""The page as a file: names of strangers stay text, nothing comes from elsewhere, what is cut is said."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pyproj import Transformer
from tests.catalog.catalogue import made
from tests.catalog.catalogue.made import LEFT, TOP, UTM31, make, png
from tests.synthetic import Synthetic

from sits_catalog.catalogue import Catalogue, add_dataset, tables
from sits_catalog.catalogue.entries import best_picture
from sits_catalog.catalogue.pictures import Picture, pictures_of
from sits_pipeline.report import ReportFacts, render_report
from sits_pipeline.report.pictures import previews

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> {{script}} \u2028 '\"&amp;"


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.found[-1][0] if self.found else "", data))


def page_of(folder: Path, **kind: Any) -> tuple[str, Elements]:
    catalogue = Catalogue.at(folder / "catalogue", {})
    add_dataset(catalogue, str(make(folder / "a", **kind)))
    text = (catalogue.folder / "index.html").read_text()
    elements = Elements()
    elements.feed(text)
    return text, elements


def data_of(text: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return list(json.loads(found[1])["datasets"])


def test_names_of_strangers_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"index": 1, "code": HOSTILE, "name": HOSTILE, "hcat": HOSTILE, "colour": "red;background:url(x)"}]
    monkeypatch.setattr(made, "CLASSES", rows)
    text, elements = page_of(tmp_path, title=HOSTILE, description=HOSTILE, licence="")
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [tag for tag, attributes in elements.found if tag == "img" or "onerror" in attributes]
    (dataset,) = data_of(text)
    assert (dataset["title"], dataset["description"]) == (HOSTILE, HOSTILE)
    assert dataset["classes"][1]["name"] == HOSTILE
    assert text.count("</script>") == 2


def test_the_policy_lets_its_own_script_and_style_work_and_nothing_else(tmp_path: Path) -> None:
    text, elements = page_of(tmp_path)
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, content in re.findall(r"<(style|script)>(.*?)</\1>", text, re.S):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    text, elements = page_of(tmp_path)
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) == {"http://www.w3.org/2000/svg"}  # the name of a language
    asked = [a.get("src") or a.get("href") for _, a in elements.found if a.get("src") or a.get("href")]
    assert asked == ["hand/hand-2021/hand-2021.json"]
    assert not re.search(r"\bfetch\(|XMLHttpRequest|innerHTML|\beval\(", text)


def test_it_says_simulated_also_without_scripts(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path)
    assert re.search(r"<noscript>.*The set hand-2021 \(SIMULATED\)", text, re.S)
    assert data_of(text)[0]["simulated"] is True


def test_the_largest_parcels_are_drawn_and_what_is_cut_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 parcels, the last of which is the largest; it lies in the south-eastern chip."""
    monkeypatch.setattr(tables, "MAX_OUTLINES", 3)
    text, _ = page_of(tmp_path)
    outlines = data_of(text)[0]["outlines"]
    assert (outlines["kind"], outlines["total"], len(outlines["rows"])) == ("parcels", 16, 3)
    crop, split, ring = outlines["rows"][0]
    assert (crop, split) == (2, "test")
    lon = outlines["origin"][0] + outlines["step"] * max(sum(ring[: 2 * i + 1 : 2]) for i in range(len(ring) // 2))
    lat = outlines["origin"][1] + outlines["step"] * min(sum(ring[1 : 2 * i + 2 : 2]) for i in range(len(ring) // 2))
    corner = Transformer.from_crs(UTM31, 4326, always_xy=True).transform(LEFT + 2460, TOP - 2460)
    assert (lon, lat) == pytest.approx(corner, abs=2e-5)


def test_pictures_are_those_the_report_marks_and_only_png() -> None:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    text = (
        f'<img src="{uri}" alt="map"><img data-role="preview" data-clear="0.75" src="{uri}" alt="2021-10-07 &lt;b&gt;">'
        '<img data-role="preview" src="data:image/svg+xml;base64,PHN2Zz4="><img data-role="preview" src="http://x/y.png">'
        f'<img data-role="preview" src="data:image/png;base64,{base64.b64encode(b"no png").decode()}">'
        '<img data-role="preview" src="data:image/png;base64,###">'
    )
    (picture,) = pictures_of(text)
    assert (picture.png, picture.caption, picture.clear) == (png(), "2021-10-07 <b>", 0.75)


def test_a_report_without_marks_gives_the_pictures_that_have_a_day() -> None:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    old = f'<img src="{uri}" alt="View on 2021-10-07"><img src="{uri}" alt="Map of the crop classes">'
    assert [picture.caption for picture in pictures_of(old)] == ["View on 2021-10-07"]
    assert pictures_of("<p>no picture") == ()


def test_the_clearest_picture_is_shown_first() -> None:
    cloud, field = Picture(b"a", "", 0.4), Picture(b"a", "", 1.0)
    assert best_picture([]) is None
    assert best_picture([cloud, field, field, field, cloud]) == 2
    assert best_picture([Picture(b"cloud", "", None), Picture(b"many fields", "", None), cloud]) == 1


@pytest.mark.slow
def test_the_report_of_a_build_marks_its_previews(synthetic: Synthetic) -> None:
    facts = ReportFacts(
        folder=synthetic.folder,
        region=synthetic.region,
        plan=synthetic.plan,
        cells=synthetic.cells,
        attributes=synthetic.attributes,
        table=synthetic.table,
        n_pixels=synthetic.n_pixels,
        split=synthetic.split,
        taxonomy=synthetic.taxonomy,
        unusable=synthetic.unusable,
    )
    found, drawn = pictures_of(render_report(facts)), previews(facts)
    assert len(found) == len(drawn) > 1
    days = [str(synthetic.plan.acquisitions[preview.date_index].day) for preview in drawn]
    assert [picture.caption for picture in found] == [f"Simulated view on {day}" for day in days]
    shares = [facts.date_pixels("clear")[preview.date_index] / facts.n_built_pixels for preview in drawn]
    assert [picture.clear for picture in found] == pytest.approx(shares, abs=1e-4)
