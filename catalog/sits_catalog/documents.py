"""A YAML file as a checked dataclass: whatever is wrong with it is one sentence with the line it stands on."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

__all__ = ["Document", "build", "did_you_mean", "parse_document"]

_Key = tuple[str | int, ...]

_MAX_DEPTH = 16
_MAX_NUMBER = 2**63
_MAX_DIGITS = 100
"""Characters of a number or a date; numbers to the base of 60 take quadratic time to read."""
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and halves of surrogates: in no name, path or title of a settings file."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "date_type": "a date such as 2018-01-31",
    "date_parsing": "a date such as 2018-01-31",
    "date_from_datetime_parsing": "a date such as 2018-01-31",
    "date_from_datetime_inexact": "a date without a time, such as 2018-01-31",
}


@dataclass(frozen=True)
class Document:
    """The content of a file as plain values, and where each of them stands."""

    name: str
    data: Mapping[str, Any]
    places: Mapping[_Key, str]
    """Path of a value, ("season", "start"), to "file.yaml:7" or to the option that set it."""

    def where(self, path: _Key) -> str:
        """Where a value stands, or the nearest value that holds it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.name

    def with_values(self, section: str, values: Mapping[str, Any], origin: str) -> Document:
        """A copy in which an option (`origin`) sets some keys of a section."""
        before = self.data.get(section) or {}
        if not isinstance(before, Mapping):
            return self
        options: dict[_Key, str] = {(section, key): origin for key in values}
        places = {**self.places, **options}
        places.setdefault((section,), origin)
        return Document(self.name, {**self.data, section: {**before, **values}}, places)


def parse_document(text: str, name: str) -> Document:
    """The document of a YAML text.

    Raises ValueError with the line for bad YAML, a key that stands twice, an alias or a second document.
    """
    try:
        _refuse_tricks(text, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{name}:{line}: this is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: this is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{name}: the file should hold keys with values, such as `id: my-region`")  # noqa: TRY004
    places: dict[_Key, str] = {}
    return Document(name, _plain(root, (), name, places), places)


def _refuse_tricks(text: str, name: str) -> None:
    """Refuses what a settings file does not need and an attacker does: aliases, deep nesting, several documents."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{name}:{line}: anchors and aliases (& and *) are not allowed here; write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"{name}:{line}: values are nested more than {_MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ValueError(f"{name}:{line}: a second document starts here; keep one a file")


def _plain(node: yaml.Node, path: _Key, name: str, places: dict[_Key, str]) -> Any:
    here = f"{name}:{node.start_mark.line + 1}"
    places.setdefault(path, here)
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _plain_mapping(node, path, name, places)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(item, (*path, number), name, places) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _plain_scalar(node, here)
    raise ValueError(f"{here}: the tag {node.tag} is not allowed here")


def _plain_mapping(node: yaml.MappingNode, path: _Key, name: str, places: dict[_Key, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        here = f"{name}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError(f"{here}: a key should be a word")  # noqa: TRY004  # a wrong value in a file, not a type
        key = key_node.value
        _check_seen(key, here)
        if key in values:
            raise ValueError(f"{here}: the key {key!r} stands twice (first: {places[(*path, key)]}); keep one of them")
        places[(*path, key)] = here
        values[key] = _plain(value_node, (*path, key), name, places)
    return values


def _check_seen(text: str, here: str) -> None:
    found = _UNSEEN.search(text)
    if found is not None:
        raise ValueError(f"{here}: the character U+{ord(found[0]):04X}, which nobody sees, is not allowed here")


def _plain_scalar(node: yaml.ScalarNode, here: str) -> str | int | float | bool | None:
    _check_seen(node.value, here)
    if len(node.value) > _MAX_DIGITS and node.tag != "tag:yaml.org,2002:str":
        raise ValueError(f"{here}: {node.value[:40]!r}, ..., is too long to be read as {node.tag.rpartition(':')[2]}")
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise ValueError(f"{here}: {node.value[:40]!r} cannot be read as {node.tag.rpartition(':')[2]}") from error
    if isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
        raise ValueError(f"{here}: {node.value[:40]} is not a finite number of a sensible size")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"{here}: the tag {node.tag} is not allowed here")


def build[T](cls: type[T], document: Document, *, hidden: Iterable[str] = ()) -> T:
    """The document as a dataclass; ValueError with line for unknown keys, wrong types and refused values.

    `hidden` are fields that are no keys of the file.
    """
    _check_keys(cls, document.data, (), document, frozenset(hidden))
    try:
        # JSON in strict mode: a list is a tuple and an ISO text is a date, but "10" is no number and true no 1.
        built: T = _adapter(cls).validate_json(  # type: ignore[arg-type]  # a class can be hashed
            json.dumps(document.data), strict=True
        )
    except ValidationError as error:
        raise ValueError(_sentence(error, document)) from error
    return built


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    # Of a recipe it takes 50 ms to make.
    return TypeAdapter(cls)


def _check_keys(
    cls: type[Any], data: Mapping[str, Any], path: _Key, document: Document, hidden: frozenset[str]
) -> None:
    known = [field.name for field in dataclasses.fields(cls) if field.name not in hidden]
    for key in data:
        if key not in known:
            section = f" under {_dotted(path)}" if path else ""
            raise ValueError(
                f"{document.where((*path, key))}: unknown key {key!r}{section}"
                f"{did_you_mean(key, known)}; known: {', '.join(known)}"
            )
    for name, hint in get_type_hints(cls).items():
        inner = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), None)
        if not isinstance(inner, type):
            continue
        value = data.get(name)
        items = [((name,), value)] if not isinstance(value, list) else [((name, i), v) for i, v in enumerate(value)]
        for where, item in items:
            if isinstance(item, Mapping):
                _check_keys(inner, item, (*path, *where), document, frozenset())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _sentence(error: ValidationError, document: Document) -> str:
    first = error.errors()[0]
    path, kind, value = tuple(first["loc"]), first["type"], first["input"]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind == "missing" and isinstance(path[-1], int):
        what = f"{_dotted(path[:-1])} has {len(value)} values, which are too few"
    elif kind == "missing":
        section = f" under {_dotted(path[:-1])}" if path[:-1] else ""
        what = f"the key {path[-1]!r}{section} is missing"
    elif kind == "value_error":
        what = str(first["ctx"]["error"])
    elif kind == "too_long":
        what = f"{_dotted(path)} has {len(value)} values, expected {first['ctx']['max_length']}"
    elif kind == "literal_error":
        choices = str(first["ctx"]["expected"])
        named = f"a key of {_dotted(path[:-2])}" if path[-1] == "[key]" else _dotted(path)
        hint = did_you_mean(str(value), choices.replace(" or ", ", ").replace("'", "").split(", "))
        what = f"{named} should be {choices}, got {value!r}{hint}"
    elif kind == "dataclass_type":
        what = f"{_dotted(path)} should hold keys with values, got {_short(value)}"
    else:
        expected = _EXPECTED.get(kind)
        wanted = f"should be {expected}" if expected else f"is not right: {first['msg']}"
        what = f"{_dotted(path)} {wanted}, got {_short(value)}"
    return f"{document.where(path)}: {what}{more}"


def _dotted(path: _Key) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"`{text}`"


def _short(value: object) -> str:
    kind = {str: "the text ", bool: "", type(None): "", dict: "keys: ", list: "the list "}.get(type(value), "")
    shown = json.dumps(value)
    return kind + (shown if len(shown) <= 60 else shown[:57] + "...")
