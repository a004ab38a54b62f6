"""Recipes as YAML: read with the line of what is wrong, changed by `--set`, written with every value spelt out."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml

from sits_catalog.documents import Document, build, did_you_mean, parse_document
from sits_models.recipe.whole import Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["dump_recipe", "list_recipes", "load_recipe", "recipe_from_plain", "recipe_to_plain"]


def list_recipes() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    names = (entry.name for entry in _shipped().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_recipe(text: str, *, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that `text` names, a shipped one or a YAML file, with changes such as "training.epochs=3".

    Raises ValueError or FileNotFoundError with one sentence: what is wrong, the line it stands on, what there is.
    """
    document = _document(text)
    for change in changes:
        document = _changed(document, change)
    return _built(document)


def recipe_from_plain(data: Mapping[str, object], *, name: str) -> Recipe:
    """The recipe that `recipe_to_plain` gave; `name` is what an error calls it. Raises ValueError."""
    return _built(Document(name, data, {}))


def recipe_to_plain(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values for YAML or JSON, every value spelt out."""
    return _plain_section(recipe)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every value spelt out; `load_recipe` reads it back."""
    plain = recipe_to_plain(recipe)
    # Unicode's own line breaks come back as spaces where PyYAML writes them as they are.
    readable = _LINE_BREAKS.isdisjoint(json.dumps(plain, ensure_ascii=False))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=readable, width=120)


def _shipped() -> Any:
    return files("sits_models") / "recipes"


def _document(text: str) -> Document:
    if text in list_recipes():
        return parse_document((_shipped() / f"{text}.yaml").read_text("utf-8"), f"{text}.yaml")
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"no recipe file {path}; give a YAML file or one of {', '.join(list_recipes())}")
        return parse_document(_text_of(path), str(path))
    known = ", ".join(list_recipes())
    raise ValueError(f"no recipe named {text!r}{did_you_mean(text, list_recipes())}; there is: {known}, or a YAML file")


def _text_of(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_FILE:
        raise ValueError(f"{path} has {size / 1e6:.1f} MB; a recipe has at most {_MAX_FILE // 1_000_000} MB")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8; a recipe is a YAML file") from error


def _built(document: Document) -> Recipe:
    return build(Recipe, dataclasses.replace(document, data=_with_numbers(Recipe, document.data)))


_LINE_BREAKS = frozenset("\x85\u2028\u2029")
_EXPONENT = re.compile(r"[-+]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})[eE][-+]?\d{1,3}")
_MAX_FILE = 1_000_000


def _with_numbers(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The values with 1e-4 as a number wherever a number is asked for: YAML 1.1, which PyYAML reads, has it as text;
    and with 32 as text where that is one of the words to choose from."""
    changed = dict(data)
    for name, hint in get_type_hints(cls).items():
        value, kinds = data.get(name), (hint, *get_args(hint))
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if isinstance(section, type) and isinstance(value, Mapping):
            changed[name] = _with_numbers(section, value)
        elif float in kinds and isinstance(value, str) and _EXPONENT.fullmatch(value) and math.isfinite(float(value)):
            changed[name] = float(value)
        elif isinstance(value, int) and str(value) in get_args(hint):
            changed[name] = str(value)
    return changed


def _changed(document: Document, change: str) -> Document:
    key, equals, value = change.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        raise ValueError(f"--set takes key=value, such as training.epochs=3; got {change!r}")
    origin = f"--set {change}"
    parsed = parse_document(f"value: {value}", origin).data["value"]
    places = {parts[:depth]: origin for depth in range(1, len(parts))} | dict(document.places) | {parts: origin}
    return dataclasses.replace(document, data=_with_value(document.data, parts, parsed, origin), places=places)


def _with_value(data: Mapping[str, Any], parts: tuple[str, ...], value: object, origin: str) -> dict[str, Any]:
    key, *rest = parts
    if not rest:
        return {**data, key: value}
    inner = data.get(key) or {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{origin}: {key!r} holds a value, not keys; it has no {'.'.join(rest)!r}")  # noqa: TRY004
    return {**data, key: _with_value(inner, tuple(rest), value, origin)}


def _plain_section(section: DataclassInstance) -> dict[str, object]:
    """None is left out where a key that is left out means it, and else spelt out."""
    values = {field.name: (getattr(section, field.name), field.default) for field in dataclasses.fields(section)}
    return {name: _plain(value) for name, (value, default) in values.items() if (value, default) != (None, None)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_section(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
