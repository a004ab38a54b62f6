"""HCAT as a tree: level and parent of a class from its ten-digit code, and taxonomies raised to its nodes.

A code is five pairs of digits, and pairs of zeros at its end say that it goes no deeper. Level 1 is 3000000000
(characteristics) and level 2 is 3300000000 (crop type), which the codes have from EAGLE; each further pair is a level
of its own: 3301000000 is level 3 (arable crops), 3301010000 level 4 (cereal), 3301010100 level 5 (common soft wheat)
and 3301010101 level 6 (winter common soft wheat). Source: EuroCrops (Schneider et al. 2023), HCAT 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sits_catalog.cube import IGNORE
from sits_catalog.documents import did_you_mean
from sits_catalog.taxonomy import CropClass, Taxonomy, distinct_colour

__all__ = ["LEVELS", "CropNode", "CropTree", "crop_tree", "hcat_level", "raise_classes"]

LEVELS = range(1, 7)
_DIGITS = re.compile(r"\d{10}")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class CropNode:
    """A class of HCAT and its place in the tree."""

    crop: CropClass
    """As the taxonomy `hcat3` has it; its `hcat` is the node's ten-digit code."""
    level: int
    """1 to 6."""
    parent: str | None
    """Code of the next node above; None at the top."""


@dataclass(frozen=True)
class CropTree:
    """The nodes of HCAT by their ten-digit code, each after its parent."""

    nodes: Mapping[str, CropNode]

    def path(self, hcat: str) -> tuple[CropNode, ...]:
        """The node of a code and those above it, deepest first; a code the tree lacks is its nearest node above."""
        found = next((code for code in (hcat, *_shorter(hcat)) if code in self.nodes), None)
        path = []
        while found is not None:
            path.append(self.nodes[found])
            found = path[-1].parent
        return tuple(path)

    def known(self, text: str) -> CropNode | None:
        """The node that `find` gives, or None."""
        return self.nodes.get(text.strip()) or self._by_name.get(text.strip().lower().replace(" ", "_"))

    def find(self, text: str) -> CropNode:
        """The node of a ten-digit code or a name, with or without underscores; ValueError says what is close."""
        wanted = text.strip()
        node = self.known(wanted)
        if node is None:
            raise ValueError(
                f"HCAT has no class {wanted!r}{did_you_mean(wanted.lower().replace(' ', '_'), self._by_name)}; "
                "`sits-catalog taxonomies show hcat3 --tree` prints them all"
            )
        return node

    def children(self, hcat: str | None) -> tuple[CropNode, ...]:
        """The nodes right below one; None: those at the top."""
        return tuple(node for node in self.nodes.values() if node.parent == hcat)

    @cached_property
    def _by_name(self) -> dict[str, CropNode]:
        return {node.crop.code: node for node in self.nodes.values()}


def hcat_level(hcat: str) -> int:
    """Level of a ten-digit code, 1 to 6.

    >>> [hcat_level(code) for code in ("3000000000", "3300000000", "3301010000", "3301010101")]
    [1, 2, 4, 6]
    """
    if not _DIGITS.fullmatch(hcat):
        raise ValueError(f"an HCAT code has ten digits, got {hcat!r}")
    pairs = [hcat[start : start + 2] for start in range(0, 10, 2)]
    deepest = max((position for position, pair in enumerate(pairs) if pair != "00"), default=0)
    return deepest + 2 if deepest or pairs[0][1] != "0" else 1


def _shorter(hcat: str) -> Iterator[str]:
    """The codes above one, deepest first, whether or not there are nodes of them."""
    for level in range(hcat_level(hcat) - 1, 0, -1):
        kept = 1 if level == 1 else 2 * (level - 1)
        yield hcat[:kept].ljust(10, "0")


def crop_tree(taxonomy: Taxonomy) -> CropTree:
    """The tree of a taxonomy whose classes have an HCAT code each; where a parent is missing, the next one above."""
    classes = {crop.hcat: crop for crop in taxonomy.classes if crop.hcat is not None}
    return CropTree(
        {
            code: CropNode(
                crop=classes[code],
                level=hcat_level(code),
                parent=next((above for above in _shorter(code) if above in classes), None),
            )
            for code in sorted(classes)
        }
    )


# Raising


def raise_classes(taxonomy: Taxonomy, classes_at: str, tree: CropTree) -> Taxonomy:
    """The taxonomy with its classes raised to nodes of HCAT: `level-N`, or names or codes of nodes with commas between.

    A class becomes the deepest of these nodes that it lies in, with HCAT's name, code, colour and index, so that the
    same crop is the same class whatever taxonomy it came from. `level-N` is a depth: a class that HCAT has at a
    coarser level becomes its own node. A class that lies in none of the nodes, or has no HCAT code, stays as it is,
    and the notes say so; where its index is one of HCAT's, it gets the next free one. Raises ValueError for a level or
    node that there is not, and for a taxonomy of which no class can be raised.
    """
    depth, chosen = _targets(classes_at, tree)
    target = {crop.index: _deepest(crop, depth, chosen, tree) for crop in taxonomy.classes}
    kept = [crop for crop in taxonomy.classes if target[crop.index] is None]
    if len(kept) == len(taxonomy.classes):
        with_hcat = sum(crop.hcat is not None for crop in kept)
        raise ValueError(
            f"no class of taxonomy {taxonomy.id!r} can be raised to {classes_at}: {with_hcat} of its {len(kept)} "
            "classes have an HCAT code, and none of those lies in it"
        )
    nodes = {node.crop.index: node for node in target.values() if node is not None}
    raised = [node.crop for _, node in sorted(nodes.items())]
    stayed = {crop.index: new for crop, new in zip(kept, _renumbered(kept, raised, tree), strict=True)}
    index = {old: stayed[old].index if node is None else node.crop.index for old, node in target.items()}
    return replace(
        taxonomy,
        classes=(*raised, *stayed.values()),
        codes={code: index[old] for code, old in taxonomy.codes.items()},
        notes=(*taxonomy.notes, *_said(kept, classes_at)),
    )


def _targets(classes_at: str, tree: CropTree) -> tuple[int, frozenset[str]]:
    """The depth, 0 for none, and the codes that `classes_at` names."""
    words = [word.strip() for word in classes_at.split(",")]
    depth, codes = 0, set()
    for word in words:
        numbered = re.fullmatch(r"level-(\d+)", word)
        if numbered is None:
            codes.add(str(tree.find(word).crop.hcat))
        elif int(numbered[1]) not in LEVELS or depth:
            raise ValueError(f"classes are raised to one level of HCAT, level-1 to level-6; got {classes_at!r}")
        else:
            depth = int(numbered[1])
    return depth, frozenset(codes)


def _deepest(crop: CropClass, depth: int, codes: frozenset[str], tree: CropTree) -> CropNode | None:
    path = tree.path(crop.hcat) if crop.hcat is not None else ()
    return next((node for node in path if node.level <= depth or node.crop.hcat in codes), None)


def _renumbered(kept: list[CropClass], raised: list[CropClass], tree: CropTree) -> Iterator[CropClass]:
    """The classes that stay, with an index and a code that no raised class has."""
    taken = {crop.index for crop in raised} | {node.crop.index for node in tree.nodes.values()}
    owned = {crop.index for crop in kept}
    names = {crop.code for crop in raised}
    free = (index for index in range(max(taken) + 1, IGNORE) if index not in owned)
    for crop in kept:
        if crop.code in names:
            raise ValueError(f"class {crop.code!r} stays as it is, but a class of HCAT has the same code: rename it")
        known = crop.hcat is not None and crop.hcat in tree.nodes and tree.nodes[crop.hcat].crop.index == crop.index
        if known or crop.index not in taken:
            yield crop
        else:
            index = next(free)
            colour = distinct_colour(index) if crop.colour == distinct_colour(crop.index) else crop.colour
            yield replace(crop, index=index, colour=colour)


def _said(kept: list[CropClass], classes_at: str) -> Iterator[str]:
    """Sentences on the classes that stay."""
    for reason, some in (
        ("in none of these classes of HCAT", [crop.code for crop in kept if crop.hcat is not None]),
        ("without an HCAT code", [crop.code for crop in kept if crop.hcat is None]),
    ):
        if some:
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            yield f"raised to {classes_at}; classes {reason} stay as they are: {', '.join(some[:_SHOWN])}{more}"
