"""Which folds of an original train, validate and test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["FoldRule", "parse_folds"]


@dataclass(frozen=True, kw_only=True)
class FoldRule:
    """Folds by their use; one that is not named belongs to no split."""

    train: tuple[int, ...] = (1, 2, 3)
    validation: tuple[int, ...] = (4,)
    test: tuple[int, ...] = (5,)

    def __post_init__(self) -> None:
        every = [*self.train, *self.validation, *self.test]
        if len(set(every)) != len(every):
            raise ValueError(f"each fold has one use; {self} names one twice")

    def __str__(self) -> str:
        return "/".join(",".join(map(str, folds)) for folds in (self.train, self.validation, self.test))

    def split_of(self, fold: int | None) -> Literal["none", "train", "validation", "test"]:
        """Split of a patch in this fold."""
        if fold in self.train:
            return "train"
        if fold in self.validation:
            return "validation"
        return "test" if fold in self.test else "none"

    def notes(self, folds: Iterable[int | None]) -> list[str]:
        """What to say of a set whose patches are in these folds.

        Raises ValueError where the rule names a fold without any patch. The default rule alone may: it is that of the
        whole set, of which somebody may have a part.
        """
        there = {fold for fold in folds if fold is not None}
        named = {*self.train, *self.validation, *self.test}
        absent, unused = sorted(named - there), sorted(there - named)
        found = ", ".join(map(str, sorted(there))) or "none"
        if absent and self != FoldRule():
            raise ValueError(f"folds {self} name fold {absent[0]}, which no patch is in; folds that are there: {found}")
        notes = [f"No patch is in fold {', '.join(map(str, absent))}."] if absent and there else []
        if unused:
            notes.append(f"Patches of fold {', '.join(map(str, unused))} are in no split: folds {self} do not name it.")
        return notes


def parse_folds(text: str) -> FoldRule:
    """The rule that an option says: train, validation and test, such as 1,2,3/4/5. Raises ValueError.

    >>> parse_folds("2,3,4/5/1").split_of(1)
    'test'
    """
    try:
        train, validation, test = (
            tuple(int(fold) for fold in part.split(",") if fold.strip()) for part in text.split("/")
        )
    except ValueError:
        raise ValueError(f"folds are written train/validation/test, such as 1,2,3/4/5; got {text!r}") from None
    return FoldRule(train=train, validation=validation, test=test)
