"""Pages of HTML out of templates: what is filled in is escaped, and what a template asks for must be there."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["compile_template"]

_KEPT = 8
"""Templates that stay compiled: it takes half a second, and a process may write many pages of a kind."""


def compile_template(text: str, **filters: Callable[..., str]) -> Template:
    """A Jinja template, to be rendered any number of times; `filters` are functions that it may call by name.

    >>> page = compile_template("<b>{{ name }}</b> {{ area | hectares }}", hectares=lambda area: f"{area} ha")
    >>> page.render(name="a<b", area=2)
    '<b>a&lt;b</b> 2 ha'
    """
    return _compiled(text, tuple(sorted(filters.items())))


@lru_cache(_KEPT)
def _compiled(text: str, filters: tuple[tuple[str, Callable[..., str]], ...]) -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters)
    return environment.from_string(text)
