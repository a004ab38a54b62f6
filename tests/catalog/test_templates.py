from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from sits_catalog.templates import compile_template


def test_what_is_filled_in_is_escaped_and_filters_are_called() -> None:
    page = compile_template("<b>{{ name }}</b>{{ area | hectares }}", hectares=lambda area: f"{area} ha")
    assert page.render(name="<script>", area=2) == "<b>&lt;script&gt;</b>2 ha"
    assert page.render(name="b", area=3) == "<b>b</b>3 ha"


def test_the_same_text_with_other_filters_is_another_template() -> None:
    one, other = (compile_template("{{ 1 | shown }}", shown=shown) for shown in (lambda _: "one", lambda _: "other"))
    assert (one.render(), other.render()) == ("one", "other")


def test_what_a_template_asks_for_must_be_there() -> None:
    with pytest.raises(UndefinedError, match="name"):
        compile_template("{{ name }}").render()


def test_a_template_is_compiled_once() -> None:
    assert compile_template("{{ 1 }}", shown=str) is compile_template("{{ 1 }}", shown=str)
