from __future__ import annotations

from dataclasses import replace

import pytest
from tests.synthetic import Synthetic

from sits_models.data.classes import ClassTable, CropEntry, join_classes
from sits_models.data.cubes import Cube, open_cube


def entry(index: int, code: str, name: str = "") -> CropEntry:
    return CropEntry(index=index, code=code, name=name or code, hcat=None, colour="#102030")


@pytest.fixture
def base(synthetic: Synthetic) -> Cube:
    return open_cube(synthetic.folder.location)


def cube_of(base: Cube, path: str, *entries: CropEntry) -> Cube:
    return Cube(replace(base.facts, path=path, classes=entries, has_labels=bool(entries)))


def test_classes_of_two_cubes_are_joined_by_code_not_by_index(base: Cube) -> None:
    first = cube_of(base, "first", entry(1, "wheat", "Wheat"), entry(2, "maize"))
    second = cube_of(base, "second", entry(7, "maize"), entry(9, "wheat", "Blé"), entry(3, "vines"))
    table = join_classes([first, second], codes=None, background=True)
    assert table.codes == ("0", "maize", "vines", "wheat")
    assert table.names == ("background", "maize", "vines", "Wheat")
    assert table.n == len(table.colours) == 4
    lookup = table.lookup(second.facts)
    assert lookup.shape == (65536,)
    assert [lookup[index].item() for index in (0, 3, 7, 9, 1, 65535)] == [0, 2, 1, 3, -1, -1]


def test_the_recipe_decides_which_classes_there_are_and_their_order(base: Cube) -> None:
    cube = cube_of(base, "one", entry(1, "a"), entry(2, "b"), entry(3, "c"))
    table = join_classes([cube], codes=("c", "a"), background=False)
    assert table.codes == ("c", "a")
    assert not table.has_background
    assert table.lookup(cube.facts)[:5].tolist() == [-1, 1, -1, 0, -1]


def test_a_code_that_a_cube_lacks_is_named(base: Cube) -> None:
    cubes = [cube_of(base, "one", entry(1, "a"), entry(2, "b")), cube_of(base, "two", entry(1, "a"))]
    with pytest.raises(ValueError, match="two has no class of code b; it has a"):
        join_classes(cubes, codes=("a", "b"), background=True)


def test_a_code_given_twice_is_refused(base: Cube) -> None:
    with pytest.raises(ValueError, match="names c1 twice"):
        join_classes([base], codes=("c1", "c1"), background=True)


def test_a_cube_without_labels_adds_no_class(base: Cube) -> None:
    bare = cube_of(base, "bare")
    assert join_classes([bare, base], codes=("c1",), background=True).codes == ("0", "c1")
    with pytest.raises(ValueError, match="no labels in bare"):
        join_classes([bare], codes=None, background=True)


def test_a_table_counts_from_zero() -> None:
    with pytest.raises(ValueError, match=r"counts from 0; got \[1\]"):
        ClassTable((entry(1, "a"),))
