from __future__ import annotations

from dataclasses import replace

import pytest
from tests.synthetic import Synthetic

from sits_models.data.classes import ClassTable, CropEntry, join_classes, of_older_card
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
    assert table.codes == ("(background)", "maize", "vines", "wheat")
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
    assert join_classes([bare, base], codes=("c1",), background=True).codes == ("(background)", "c1")
    with pytest.raises(ValueError, match="no labels in bare"):
        join_classes([bare], codes=None, background=True)


def test_a_table_counts_from_zero() -> None:
    with pytest.raises(ValueError, match=r"counts from 0; got \[1\]"):
        ClassTable((entry(1, "a"),))


@pytest.mark.parametrize("background", [True, False])
def test_a_crop_of_code_0_is_no_background(base: Cube, background: bool) -> None:
    cube = cube_of(base, "pastis", entry(1, "0", "background"), entry(2, "c2"))
    table = join_classes([cube], codes=None, background=background)
    assert table.has_background == background
    assert table.names == (("background",) if background else ()) + ("background", "c2")
    assert table.lookup(cube.facts)[:3].tolist() == ([0, 1, 2] if background else [-1, 0, 1])


def test_two_classes_of_one_code_and_a_background_that_is_not_first_are_refused(base: Cube) -> None:
    with pytest.raises(ValueError, match="the class table has a twice; keep one"):
        ClassTable((entry(0, "a"), entry(1, "a")))
    with pytest.raises(ValueError, match=r"\(background\) is the first class of a table; got a, "):
        ClassTable((entry(0, "a"), entry(1, "(background)")))
    with pytest.raises(ValueError, match=r"odd has a class of code \(background\), which is no crop"):
        join_classes([cube_of(base, "odd", entry(1, "(background)"))], codes=None, background=False)


def test_the_background_of_an_older_card_is_the_background_and_its_crops_are_crops() -> None:
    old = CropEntry(index=0, code="0", name="background", hcat=None, colour="#e8e8e8")
    table = ClassTable((of_older_card(old), of_older_card(entry(1, "c1"))))
    assert table.has_background
    assert table.codes == ("(background)", "c1")
    assert not ClassTable((of_older_card(entry(0, "0", "wheat")),)).has_background
