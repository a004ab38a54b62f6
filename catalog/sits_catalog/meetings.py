"""How the classes of two taxonomies meet: each is a node of HCAT, and two nodes lie in each other or apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sits_catalog.crop_tree import CropTree
from sits_catalog.taxonomy import CropClass, Taxonomy

__all__ = ["Meeting", "Relation", "count_meetings", "meet"]

Relation = Literal["same", "narrower", "wider", "none"]


@dataclass(frozen=True)
class Meeting:
    """A class of one taxonomy and one of the other."""

    a: CropClass | None
    """None: no class of A meets `b`."""
    relation: Relation
    """What `a` is to `b`."""
    b: CropClass | None
    """None: no class of B meets `a`."""


def meet(a: Taxonomy, b: Taxonomy, tree: CropTree) -> tuple[Meeting, ...]:
    """All pairs of classes that are the same, or of which one lies in the other; then the classes that meet none.

    Pairs stand in the order of A's classes, for each class the same first, then narrower and wider. Classes meet by
    their HCAT codes alone: one without a code meets none, whatever its name. Only equal codes are the same; a code that
    the tree lacks lies in its nearest node above, and two such codes are apart even where that node is one.
    """
    pairs = [pair for crop in a.classes for pair in _pairs(crop, b.classes, tree)]
    met_a = {pair.a.index for pair in pairs if pair.a is not None}
    met_b = {pair.b.index for pair in pairs if pair.b is not None}
    alone = [Meeting(crop, "none", None) for crop in a.classes if crop.index not in met_a]
    return (*pairs, *alone, *(Meeting(None, "none", crop) for crop in b.classes if crop.index not in met_b))


def count_meetings(meetings: Iterable[Meeting]) -> dict[str, int]:
    """Pairs a relation, and the classes of each taxonomy that meet none."""
    found = Counter(
        meeting.relation if meeting.relation != "none" else "a without b" if meeting.b is None else "b without a"
        for meeting in meetings
    )
    return {name: found[name] for name in ("same", "narrower", "wider", "a without b", "b without a")}


def _pairs(crop: CropClass, others: Iterable[CropClass], tree: CropTree) -> Iterator[Meeting]:
    found = [Meeting(crop, relation, other) for other in others if (relation := _relation(crop, other, tree)) != "none"]
    order: tuple[Relation, ...] = ("same", "narrower", "wider")
    yield from sorted(found, key=lambda pair: order.index(pair.relation))


def _relation(a: CropClass, b: CropClass, tree: CropTree) -> Relation:
    path_a, path_b = ([node.crop.hcat for node in tree.path(crop.hcat)] if crop.hcat else [] for crop in (a, b))
    if not path_a or not path_b:
        return "none"
    if a.hcat == b.hcat:
        return "same"
    if b.hcat in path_a:
        return "narrower"
    return "wider" if a.hcat in path_b else "none"
