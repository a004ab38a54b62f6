"""What the columns of a file mean: those the source names, or those of a convention that files follow."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sits_catalog.parcel_source import ParcelSource
from sits_pipeline.parcels.files import VectorFile

__all__ = ["CodePattern", "check_columns", "code_pattern", "recognise"]

_FIBOA = "fiboa / vecorel"
_CONVENTIONS: tuple[tuple[str, str, str | None], ...] = (
    # HCAT first: it means the same in every file, a national code only together with its list.
    (_FIBOA, "hcat:code", "hcat:name"),
    (_FIBOA, "ec:hcat_code", "ec:hcat_name"),
    ("EuroCrops", "EC_hcat_c", "EC_hcat_n"),
    (_FIBOA, "crop:code", "crop:name"),
    (_FIBOA, "hcat:name", None),
    ("EuroCrops", "EC_hcat_n", None),
    (_FIBOA, "crop:name", None),
)
"""Convention, column of codes, column of names; https://fiboa.org/crop-extension and EuroCrops' wiki."""


_OF_BUSINESSES = frozenset({"ico", "id_uz", "cvr", "journalnr", "identifikator_be"})
"""Columns of Czechia (business, farmer), Denmark (business, application) and Switzerland (business), in lower case."""


def recognise(file: VectorFile, source: ParcelSource) -> tuple[ParcelSource, tuple[str, ...]]:
    """The source with columns of a known convention where it names no code, and a note that says so.

    Only exact names of fiboa, vecorel and EuroCrops count; nothing is guessed from any other name or from values.
    """
    if source.code is not None:
        return source, ()
    known = next((columns for columns in _CONVENTIONS if columns[1] in file.names), None)
    if known is None:
        return source, ()
    convention, code, name = known
    named = source.name or (name if name in file.names else None)
    key = source.id or ("id" if convention == _FIBOA and file.names.count("id") == 1 else None)
    used = [f"crop codes from {code!r}"]
    used += [f"names from {named!r}"] if named and not source.name else []
    used += [f"ids from {key!r}"] if key and not source.id else []
    note = (
        f"the region file names no column of crop codes for {file.path}; {', '.join(used)} were taken, as {convention} "
        "names them; to have others, name them under parcels: code, name and id"
    )
    return dataclasses.replace(source, code=code, name=named, id=key), (note,)


def check_columns(file: VectorFile, source: ParcelSource) -> None:
    """Raise ValueError for a column that is not there, or there twice, or tells whose the parcels are."""
    for key, name in (("id", source.id), ("code", source.code), ("name", source.name)):
        if name is None:
            continue
        if name.casefold() in _OF_BUSINESSES:
            raise ValueError(
                f"{file.path}: column {name!r} (parcels: {key}) holds the number of a business, which is kept out of "
                "every cube; name the parcel's own column, or none"
            )
        if name not in file.names:
            raise ValueError(
                f"{file.path} has no column {name!r} (parcels: {key}); it has {', '.join(file.names) or 'no columns'}"
            )
        if file.names.count(name) > 1:
            raise ValueError(
                f"{file.path} has {file.names.count(name)} columns {name!r} (parcels: {key}), and which one is meant "
                "nobody can say; rename them"
            )


_SEARCHED = 300
"""Characters of a text that may hold a code."""
_REPEATS = 4
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\??|[)|?]|[*+]\??|\{\d*,?\d*\}", re.DOTALL)
"""What of a regular expression tells how often it can repeat; escapes and sets of characters, so that they do not."""


def _may_run_for_ever(pattern: str) -> bool:
    """Whether a search may take more than a low power of the text's length: repeats or choices within what repeats."""
    open_, repeats = [False], 0
    end, was_open = -1, False
    for part in _PARTS.finditer(pattern):
        word, is_next = part[0], part.start() == end
        if word.startswith("("):
            open_.append(False)
        elif word == ")" and len(open_) > 1:
            end, was_open = part.end(), open_.pop()
            open_[-1] |= was_open
        elif word in ("|", "?"):
            open_[-1] = True
        elif word[0] in "*+{":
            if is_next and was_open:
                return True
            open_[-1] = True
            repeats += word[0] != "{" or word.endswith(",}")
    return repeats > _REPEATS


@dataclass(frozen=True, kw_only=True)
class CodePattern:
    """Takes the crop code out of a longer text."""

    regex: re.Pattern[str] | None
    """None: all of the text is the code."""

    def codes(self, texts: NDArray[np.object_]) -> NDArray[np.object_]:
        """The first group of the pattern in each text; the whole text where it does not match, None for None."""
        if self.regex is None:
            return texts
        codes = np.empty(len(texts), dtype=object)
        codes[:] = [self._code(text) for text in texts]
        return codes

    def _code(self, text: str | None) -> str | None:
        assert self.regex is not None
        found = None if text is None or len(text) > _SEARCHED else self.regex.search(text)
        return text if found is None else ((found.group(1) or "").strip() or None)

    def notes(self, path: str, texts: NDArray[np.object_]) -> tuple[str, ...]:
        """A sentence where some of the texts do not match, or with no code; ValueError where that holds for all."""
        if self.regex is None:
            return ()
        counted = Counter(text for text in texts if text is not None)
        other = {text: n for text, n in counted.items() if not self.regex.search(text)}
        empty = {text: n for text, n in counted.items() if self._code(text) is None}
        notes = []
        for found, verb, fate in (
            (other, "do not match", "were kept whole"),
            (empty, "have nothing in the group of", "count as none"),
        ):
            if not found:
                continue
            first = f"{next(iter(found))!r}, say"
            if len(found) == len(counted):
                raise ValueError(
                    f"no crop code of {path} {'matches' if found is other else 'has anything in the group of'} "
                    f"parcels: code_pattern {self.regex.pattern!r} ({first}); correct it"
                )
            notes.append(
                f"{sum(found.values())} of {counted.total()} crop codes of {path} {verb} code_pattern "
                f"{self.regex.pattern!r} and {fate} ({first})"
            )
        return tuple(notes)


def code_pattern(pattern: str | None) -> CodePattern:
    """The pattern of a source; ValueError where it is no regular expression with a group."""
    if pattern is None:
        return CodePattern(regex=None)
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"parcels: code_pattern {pattern!r} is no regular expression: {error}") from error
    if _may_run_for_ever(pattern):
        raise ValueError(
            f"parcels: code_pattern {pattern[:80]!r} repeats what repeats already, or repeats without a bound more "
            f"than {_REPEATS} times, which may take for ever; write it simpler"
        )
    if not regex.groups:
        raise ValueError(f"parcels: code_pattern {pattern!r} needs a group around the code, as in '- (.*)$'")
    return CodePattern(regex=regex)
