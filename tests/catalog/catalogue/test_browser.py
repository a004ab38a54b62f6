"""The page in a real Chromium: opened from disk, clicked, searched, copied from; and nothing asked of a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.catalog.catalogue import made
from tests.catalog.catalogue.browser import Browser, find_chromium
from tests.catalog.catalogue.made import make
from tests.catalog.catalogue.test_page import HOSTILE
from tests.synthetic import Synthetic

from sits_catalog.catalogue import Catalogue, add_dataset
from sits_catalog.catalogue.serve import serve

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="this machine has no chromium to drive the page with")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, synthetic: Synthetic) -> Catalogue:
    """A synthetic cube, a cube and a set of patches by hand, and a hostile one."""
    folder = tmp_path_factory.mktemp("it's a page")
    found = Catalogue.at(folder / "catalogue", {})
    add_dataset(found, str(synthetic.folder.path))
    add_dataset(found, str(make(folder / "hand", box=(3.0, 48.72, 3.04, 48.76))))
    add_dataset(found, str(make(folder / "sets", name="sets", profile="patches", labels=False)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "CLASSES", [{"index": 1, "code": "x", "name": HOSTILE, "colour": "red"}])
        add_dataset(found, str(make(folder / "evil", name="evil", box=None, title=HOSTILE, description=HOSTILE)))
    return found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        opened.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        yield opened
        assert opened.errors == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


def open_page(browser: Browser, catalogue: Catalogue) -> None:
    browser.open((catalogue.folder / "index.html").as_uri())
    browser.wait("document.querySelectorAll('.card').length === 4")


def text_of(browser: Browser, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def shown(browser: Browser) -> list[str]:
    return list(browser.evaluate("[...document.querySelectorAll('.card')].map((e) => e.dataset.id)"))


def footprint(browser: Browser, name: str) -> tuple[float, float]:
    return browser.middle(f'#map [data-id="{name}"]')


@pytest.mark.slow
def test_a_click_on_a_footprint_shows_its_preview_and_its_command_is_copied(
    browser: Browser, catalogue: Catalogue, tmp_path: Path
) -> None:
    open_page(browser, catalogue)
    browser.click('.card[data-id="hand-2021"]')
    browser.wait("document.querySelector('#map [data-of=hand-2021]') !== null")
    browser.press("Escape")
    browser.wait("document.querySelector('#detail').hidden")
    browser.click(footprint(browser, "hand-2021"))
    browser.wait("!document.querySelector('#detail').hidden")
    assert text_of(browser, "#detail h2") == "The set hand-2021"
    assert browser.wait("document.querySelector('#preview').naturalWidth") == 8
    assert "SIMULATED" in text_of(browser, "#detail .badges")
    rows = browser.evaluate("[...document.querySelectorAll('#classes tbody tr')].map((e) => e.innerText)")
    assert [row.split("\t")[:3] for row in rows] == [
        ["winter wheat", "700", "8"],
        ["maize", "0", "8"],
        ["background", "5", ""],
    ]
    browser.click(".command .copy")
    browser.wait("document.querySelector('.command .copy').dataset.state === 'copied'")
    wanted = f"sits-cube info '{catalogue.folder.parent}/hand'".replace("it's", "it'\\''s")
    assert text_of(browser, ".command code") == wanted
    assert browser.evaluate("navigator.clipboard.readText()") == wanted
    browser.click("#search")
    browser.type("FIELDS nothing")
    browser.wait("document.querySelectorAll('.card').length === 0")
    browser.evaluate("document.querySelector('#search').value = ''")
    browser.type("patches")
    browser.wait("document.querySelectorAll('.card').length === 1")
    assert shown(browser) == ["sets"]
    assert text_of(browser, "#count") == "1 of 4 datasets"


@pytest.mark.soak
def test_served_pages_work_under_their_policies_and_a_hostile_report_does_nothing(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    report = catalogue.folder.parent / "evil" / "report.html"
    report.write_text(
        "<title>evil</title><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
        "<iframe src=/></iframe><form action=/><input autofocus onfocus=\"document.title = 'run'\"></form>"
    )
    with serve(catalogue, port=0, api_port=0) as (where, _), Browser(tmp_path / "profile") as browser:
        browser.open(where.page)
        browser.wait("document.querySelectorAll('.card').length === 4")
        browser.click('.card[data-id="hand-2021"]')
        assert browser.wait("(document.querySelector('#preview') || {}).naturalWidth") == 8
        browser.open(f"{where.page}datasets/hand-2021/report.html")
        assert browser.evaluate("[...document.images].every((one) => one.naturalWidth > 0) && document.images.length")
        assert [one for one in browser.errors if "404" not in one] == []  # the icon that browsers look for
        assert [url for url in browser.requests if not url.startswith((where.page, "data:"))] == []
        browser.open(f"{where.page}datasets/evil/report.html")
        assert browser.evaluate("document.title") == "evil"
        assert browser.evaluate("self.origin") == "null"
        refused = [one for one in browser.errors if "Content Security Policy" in one or "sandboxed" in one]
        assert len(refused) >= 3  # the script, the picture and the frame


@pytest.mark.soak
def test_names_of_strangers_do_nothing(browser: Browser, catalogue: Catalogue) -> None:
    open_page(browser, catalogue)
    browser.click('.card[data-id="evil"]')
    browser.wait("document.querySelector('#detail h2') !== null")
    assert text_of(browser, "#detail h2") == HOSTILE
    assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE in text_of(browser, "#classes")
    assert "place not known" in text_of(browser, "#detail .badges")


@pytest.mark.soak
def test_the_map_is_moved_by_mouse_wheel_and_keys(browser: Browser, catalogue: Catalogue) -> None:
    open_page(browser, catalogue)
    browser.click('.card[data-id="tiny"]')
    browser.wait("document.querySelector('#map [data-of=tiny]') !== null")
    browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def box() -> dict[str, Any]:
        return dict(browser.evaluate("document.querySelector('.foot-print.chosen').getBoundingClientRect().toJSON()"))

    middle, before, scale = browser.middle("#map"), box(), text_of(browser, "#scale")
    browser.drag(middle, (middle[0] + 60, middle[1] - 40))
    left = "document.querySelector('.foot-print.chosen').getBoundingClientRect().left"
    browser.wait(f"Math.abs({left} - {before['left'] + 60}) < 1")
    assert box()["top"] == pytest.approx(before["top"] - 40, abs=1)
    assert box()["width"] == pytest.approx(before["width"], abs=0.1)
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=middle[0], y=middle[1], deltaX=0, deltaY=600)
    browser.wait(f"document.querySelector('#scale').textContent !== {json.dumps(scale)}")
    assert box()["width"] == pytest.approx(before["width"] * 2.718 ** (-600 * 0.0016), rel=0.01)
    browser.evaluate("document.querySelector('#map').focus()")
    wanted = box()["left"] - 50
    browser.press("ArrowRight")
    browser.wait(f"{left} < {wanted}")


@pytest.mark.soak
def test_the_scale_bar_is_as_long_as_it_says(browser: Browser, catalogue: Catalogue) -> None:
    """The synthetic cube is 5760 m wide."""
    open_page(browser, catalogue)
    browser.click('.card[data-id="tiny"]')
    browser.wait("document.querySelector('#map [data-of=tiny]') !== null")
    browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    value, unit = text_of(browser, "#scale").replace("\u202f", "").split()
    metres = float(value) * {"m": 1, "km": 1000}[unit]
    bar = browser.evaluate("document.querySelector('#bar').getBoundingClientRect().width")
    cube = browser.evaluate("document.querySelector('.foot-print.chosen').getBBox().width") * browser.evaluate(
        "document.querySelector('.foot-print.chosen').transform.baseVal[0].matrix.a"
    )
    assert metres / bar == pytest.approx(5760 / cube, rel=0.01)


@pytest.mark.soak
def test_everything_is_done_with_keys_alone(browser: Browser, catalogue: Catalogue) -> None:
    open_page(browser, catalogue)
    browser.press("/")
    browser.wait("document.activeElement.id === 'search'")
    browser.type("tiny")
    browser.wait("document.querySelectorAll('.card').length === 1")
    browser.evaluate("document.querySelector('.card').focus()")
    browser.press("Enter")
    browser.wait("!document.querySelector('#detail').hidden")
    browser.wait("document.activeElement.tagName === 'H2'")
    browser.press("Escape")
    browser.wait("document.querySelector('#detail').hidden")
    browser.evaluate("document.querySelector('#map [data-id=tiny]').focus()")
    browser.press("Enter")
    browser.wait("!document.querySelector('#detail').hidden")


@pytest.mark.soak
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_at_either_width(tmp_path: Path, catalogue: Catalogue, width: int) -> None:
    with Browser(tmp_path / "profile", width=width, dark=True) as browser:
        open_page(browser, catalogue)
        browser.click('.card[data-id="tiny"]')
        browser.wait("!document.querySelector('#detail').hidden")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert browser.errors == []
