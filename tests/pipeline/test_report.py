from __future__ import annotations

import dataclasses
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from affine import Affine
from tests.synthetic import LEFT, TOP, Synthetic

from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.report import ReportFacts, render_report
from sits_pipeline.report.imagery import date_rows, failure_rows, radiometry, timeline
from sits_pipeline.report.labels import class_rows, parcel_notes, split_rows
from sits_pipeline.report.pictures import burn, look_up, previews


@pytest.fixture(scope="module")
def facts(synthetic: Synthetic) -> ReportFacts:
    return ReportFacts(
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


@pytest.fixture(scope="module")
def html(facts: ReportFacts) -> str:
    return render_report(facts)


class Strict(HTMLParser):
    """Notes what is opened and closed, what is loaded and what is run."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "image"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_it_is_one_well_formed_page_that_loads_and_runs_nothing(html: str) -> None:
    page = Strict()
    page.feed(html)
    assert page.open == []
    assert page.loaded, "there are pictures"
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.handlers == []
    assert "url(" not in html


def test_names_from_files_are_escaped(facts: ReportFacts, html: str) -> None:
    for hostile in ("<script>", "what?<i>", "vine <&> grapes", "<b>odd</b>", "truncated <file>", "lies <outside>"):
        assert hostile not in html
    for shown in ("what?&lt;i&gt;", "vine &lt;&amp;&gt; grapes", "S2X_&lt;b&gt;odd", "truncated &lt;file&gt;"):
        assert shown in html
    region = facts.region.replace(title='"><img src=x onerror=alert(1)>')
    page = Strict()
    page.feed(render_report(dataclasses.replace(facts, region=region)))
    assert page.handlers == []


def test_the_same_facts_give_the_same_page(facts: ReportFacts, html: str) -> None:
    assert render_report(facts) == html


def test_simulated_data_are_called_simulated_in_every_section(html: str) -> None:
    sections = html.split("<section>")[1:]
    assert len(sections) == 9
    assert all('<span class="badge sim">simulated</span>' in section for section in sections)
    assert "Copernicus Sentinel data" not in html


def test_real_data_are_attributed_and_never_called_simulated(facts: ReportFacts) -> None:
    real = dataclasses.replace(facts, attributes={**facts.attributes, "simulated": False})
    text = render_report(real)
    assert "contains modified Copernicus Sentinel data 2021–2022" in text
    assert ">simulated<" not in text
    assert "Nobody &lt;script&gt;. Licence: CC0." in text


def test_a_dataset_that_lacks_something_says_what(facts: ReportFacts, html: str) -> None:
    assert "Not complete" in html
    assert "1 cell has sources that could not be read" in html
    mended = {**facts.cells[0], "failures": []}
    whole = dataclasses.replace(facts, cells=(mended,), attributes={**facts.attributes, "complete": True})
    text = render_report(whole)
    assert "Not complete" not in text
    assert "Everything that covers the cube could be read." in text


def test_a_build_without_a_cell_still_has_a_report(facts: ReportFacts) -> None:
    text = render_report(dataclasses.replace(facts, cells=()))
    assert "1 of 1 cells are not built yet" in text
    assert "No date holds an observation." in text


def test_a_cube_without_parcels_has_no_label_sections(facts: ReportFacts) -> None:
    bare = {**facts.cells[0], "classes": {}, "parcels": {}, "splits": {}}
    text = render_report(
        dataclasses.replace(
            facts,
            region=facts.region.replace(parcels=None),
            plan=dataclasses.replace(facts.plan, splits=None),
            cells=(bare,),
            table=None,
            n_pixels=None,
            split=None,
            taxonomy=None,
        )
    )
    page = Strict()
    page.feed(text)
    assert not re.search(r'id="(classes|splits|parcels)"', text)
    assert page.open == []


def test_dates_show_shares_offsets_and_used_items(facts: ReportFacts, synthetic: Synthetic) -> None:
    first, second, *_, last = date_rows(facts)
    assert first.observed == pytest.approx(1 - 40 / 576)
    assert last.observed == pytest.approx(1 - 30 / 540)
    assert first.clear < first.observed
    assert (first.n_items, first.n_used, first.tiles) == (2, 1, "31UEP, 31UEQ")
    assert first.offsets == "−1000"
    assert second.offsets == "0, −1000"
    assert (first.platforms, second.platforms) == ("S2B", "S2A")
    assert first.cloud_cover == 12.5


def test_bars_of_the_timeline_lie_inside_and_in_order(facts: ReportFacts) -> None:
    drawn = timeline(facts, date_rows(facts))
    lefts = [bar.x for bar in drawn.bars]
    assert lefts == sorted(lefts)
    assert all(0 <= bar.x <= drawn.width - drawn.bar for bar in drawn.bars)
    assert all(0 <= bar.clear <= bar.observed <= drawn.height for bar in drawn.bars)
    assert [label for _, label in drawn.months][:4] == ["Oct 2021", "Nov", "Dec", "Jan 2022"]


def test_metadata_that_lied_are_told_from_those_that_agree(facts: ReportFacts, html: str) -> None:
    found = radiometry(facts)
    assert [item.id for item in found.of("lied")] == ["S2A_31UEP_20220110_1_L2A"]
    assert len(found.of("undecided")) == 4
    assert len(found.of("agrees")) == 3
    assert [status for _, _, status, _ in found.refused] == ["failed", "failed", "superseded"]
    assert '<tr class="lied">' in html


def test_classes_are_counted_in_parcels_pixels_and_hectares(facts: ReportFacts, synthetic: Synthetic) -> None:
    rows = class_rows(facts)
    assert [row.pixels for row in rows] == sorted((row.pixels for row in rows), reverse=True)
    maize = next(row for row in rows if row.name == "maize")
    assert maize.pixels == int((synthetic.crop_type == 2).sum())
    assert maize.hectares == pytest.approx(maize.pixels / 100)
    assert maize.parcels == int((synthetic.table.parcels.crop_type == 2).sum())
    assert sum(maize.shares) == pytest.approx(100, abs=0.1)


def test_splits_count_blocks_parcels_and_pixels(facts: ReportFacts, synthetic: Synthetic) -> None:
    rows = {row.name: row for row in split_rows(facts)}
    assert list(rows)[:3] == ["train", "validation", "test"]
    assert sum(row.blocks or 0 for row in rows.values()) == 5 * 5
    assert sum(row.parcels for row in rows.values()) == len(synthetic.table)
    assert sum(row.share for row in rows.values()) == pytest.approx(100)


def test_parcels_that_need_a_look_are_listed(facts: ReportFacts) -> None:
    notes = parcel_notes(facts)
    assert notes is not None
    assert notes.n_lost == 1
    assert (notes.lost[0].source_key, notes.lost[0].flags) == ("key-00342", "overlaps")
    assert notes.lost[0].square_metres == pytest.approx(578)
    assert {row.name: row.parcels for row in notes.flags} == {"invalid_repaired": 2, "overlaps": 1}
    assert notes.unknown == (("what?<i>", 1),)
    assert notes.dropped == ((17, "it has no geometry"),)


def test_failures_of_one_file_in_many_cells_are_one_row(facts: ReportFacts) -> None:
    cell = facts.cells[0]
    many = [{**cell, "cell": [512 * i, 0, 512, 512]} for i in range(9)]
    (row,) = failure_rows(dataclasses.replace(facts, cells=many))
    assert row.n_cells == 9
    assert row.cells == "(0, 0), (512, 0), (1024, 0), (1536, 0), (2048, 0), (2560, 0), …"


def test_previews_are_spread_over_the_season(facts: ReportFacts) -> None:
    assert [preview.date_index for preview in previews(facts)] == [0, 1, 2, 3]
    assert previews(facts)[0].bands == ("B04", "B03", "B02")


def test_both_ways_to_draw_parcels_give_the_same_map(synthetic: Synthetic) -> None:
    geometries, transform = synthetic.table.parcels.geometry, Affine(17.3, 0, LEFT, 0, -17.3, TOP)
    burnt = burn(geometries, (300, 310), transform)
    assert len(np.unique(burnt)) > 300
    np.testing.assert_array_equal(look_up(geometries, (300, 310), transform), burnt)


def test_long_taxonomies_and_lists_are_cut(facts: ReportFacts) -> None:
    taxonomy = Taxonomy.from_codes([f"code {i:03d}" for i in range(60)])
    pixels = {**facts.cells[0], "classes": {str(i): 100 + i for i in range(61)}}
    text = render_report(dataclasses.replace(facts, taxonomy=taxonomy, cells=(pixels,)))
    assert "and 20 smaller classes" in text


def test_it_is_quick(facts: ReportFacts) -> None:
    started = time.process_time()
    render_report(facts)
    assert time.process_time() - started < 2.5
