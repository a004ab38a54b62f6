from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sits_models.metrics import (
    RegionMatrices,
    Regions,
    block_keys,
    boundary_map,
    confusion_matrix,
    margins_of,
    size_table,
)
from sits_models.sample import IGNORE_INDEX, Sample

K = 3
REGIONS = Regions(distances_dm=(100, 200), sizes_ha=(1.0,), block_px=4)
SIZES = [size_table(np.arange(1, 6), np.array([0.1, 0.2, 3.0, 4.0, 5.0]), (1.0,)) for _ in range(3)]


def make_sample(seed: int, *, magnification: int = 1, chips: int = 2, side: int = 8) -> Sample:
    g = torch.Generator().manual_seed(seed)
    fine = (chips, side * magnification, side * magnification)
    return Sample(
        image=torch.ones(chips, 1, 1, side, side),
        valid=torch.ones(chips, 1, dtype=torch.bool),
        day=torch.zeros(chips, 1, dtype=torch.int32),
        clear=torch.ones(chips, 1, side, side, dtype=torch.bool),
        crop=torch.randint(-1, K, fine, generator=g),
        counted=torch.ones(fine, dtype=torch.bool),
        parcel=torch.randint(0, 6, fine, generator=g),
        boundary=torch.randint(-300, 300, (chips, side, side), generator=g).to(torch.int16),
        place=torch.tensor([[chip, 4 * chip, 2] for chip in range(chips)]),
        bands=("B04",),
    )


def predicted_for(sample: Sample, seed: int = 9) -> Tensor:
    return torch.randint(0, K, sample.crop.shape, generator=torch.Generator().manual_seed(seed))


def counted(sample: Sample) -> RegionMatrices:
    matrices = RegionMatrices(classes=K, regions=REGIONS, sizes=SIZES)
    matrices.add(sample, predicted_for(sample), edges=boundary_map(sample.crop))
    return matrices


@pytest.mark.parametrize("magnification", [1, 2, 4])
def test_each_region_is_the_matrix_of_its_pixels(magnification: int) -> None:
    sample = make_sample(0, magnification=magnification)
    predicted, found = predicted_for(sample), counted(sample)

    def expected(where: Tensor) -> list[list[int]]:
        rows: list[list[int]] = confusion_matrix(sample.crop, predicted, classes=K, where=where).tolist()
        return rows

    edges = boundary_map(sample.crop)
    assert found.overall.matrix.tolist() == expected(torch.ones_like(edges))
    assert found.boundary.matrix.tolist() == expected(edges)
    assert found.interior.matrix.tolist() == expected(~edges)
    distance = torch.kron(sample.boundary.abs(), torch.ones(1, magnification, magnification, dtype=torch.int16))
    assert list(found.distance_bands) == ["<= 10 m", "10-20 m", "> 20 m"]
    assert found.distance_bands["<= 10 m"].matrix.tolist() == expected(distance <= 100)
    assert found.distance_bands["10-20 m"].matrix.tolist() == expected((distance > 100) & (distance <= 200))
    assert found.distance_bands["> 20 m"].matrix.tolist() == expected(distance > 200)
    assert found.size_classes["<= 1 ha"].matrix.tolist() == expected((sample.parcel == 1) | (sample.parcel == 2))
    assert found.size_classes["> 1 ha"].matrix.tolist() == expected(sample.parcel > 2)


@pytest.mark.parametrize("magnification", [1, 2])
def test_each_block_is_the_matrix_of_its_pixels(magnification: int) -> None:
    sample = make_sample(1, magnification=magnification)
    predicted, found = predicted_for(sample), counted(sample)
    # Chips start at column 2: blocks of 4 px begin at columns 2 and 6 of the chip; chip 1 starts at row 4.
    assert found.block_keys == tuple((c, r + c, col) for c in range(2) for r in range(2) for col in range(3))
    m = magnification
    part = (slice(1, 2), slice(4 * m, 8 * m), slice(2 * m, 6 * m))
    edges = boundary_map(sample.crop)
    for counted_part, where in ((found.overall, edges | ~edges), (found.boundary, edges), (found.interior, ~edges)):
        expected = margins_of(
            confusion_matrix(sample.crop[part], predicted[part], classes=K, where=where[part]).numpy()
        )
        number = found.block_keys.index((1, 2, 1))
        assert counted_part.blocks.hits[number].tolist() == expected.hits.tolist()
        assert counted_part.blocks.truth[number].tolist() == expected.truth.tolist()
        assert counted_part.blocks.guess[number].tolist() == expected.guess.tolist()


def test_the_blocks_of_each_region_add_up_to_it() -> None:
    found = counted(make_sample(1, magnification=2))
    assert found.overall.matrix.any()
    several = [found.overall, found.boundary, found.interior, *found.distance_bands.values()]
    for region in (*several, *found.size_classes.values()):
        whole = margins_of(region.matrix)
        np.testing.assert_array_equal(region.blocks.hits.sum(0), whole.hits)
        np.testing.assert_array_equal(region.blocks.truth.sum(0), whole.truth)
        np.testing.assert_array_equal(region.blocks.guess.sum(0), whole.guess)


def test_the_key_of_a_block_counts_cube_rows_and_columns() -> None:
    keys = block_keys(make_sample(0, magnification=2), 4)
    assert keys.shape == (2, 16, 16)
    assert int(keys[1, 8, 4]) == (1 << 40) | (2 << 20) | 1  # row 4 + 8 / 2 of cube 1, column 2 + 4 / 2
    assert int(keys[0, 0, 0]) == 0


def test_batches_add_up() -> None:
    samples = [make_sample(seed) for seed in range(3)]
    together = RegionMatrices(classes=K, regions=REGIONS, sizes=SIZES)
    for sample in samples:
        together.add(sample, predicted_for(sample), edges=boundary_map(sample.crop))
    each = [counted(sample) for sample in samples]
    np.testing.assert_array_equal(together.overall.matrix, sum(one.overall.matrix for one in each))
    np.testing.assert_array_equal(together.overall.blocks.guess, sum(one.overall.blocks.guess for one in each))
    for name, band in together.distance_bands.items():
        np.testing.assert_array_equal(band.matrix, sum(one.distance_bands[name].matrix for one in each))


def test_pixels_beyond_the_edge_of_a_cube_count_nowhere() -> None:
    sample = make_sample(2)
    crop = sample.crop.clone()
    crop[:, :3] = IGNORE_INDEX
    moved = sample.replace(crop=crop, place=sample.place - torch.tensor([0, 3, 0]))
    found = counted(moved)
    assert min(row for _, row, _ in found.block_keys) == 0
    assert int(found.overall.matrix.sum()) == int((crop != IGNORE_INDEX).sum())


def test_unknown_distances_are_in_no_band() -> None:
    sample = make_sample(3)
    found = counted(sample.replace(boundary=torch.full_like(sample.boundary, -32768)))
    assert not any(band.matrix.any() for band in found.distance_bands.values())
    assert found.overall.matrix.any()


def test_without_labels_everything_stays_empty() -> None:
    sample = make_sample(4)
    found = counted(sample.replace(crop=torch.full_like(sample.crop, IGNORE_INDEX)))
    assert not found.overall.matrix.any()
    assert found.overall.blocks.truth.shape == (0, K)


def test_sizes_are_optional() -> None:
    sample = make_sample(5)
    matrices = RegionMatrices(classes=K, regions=REGIONS)
    matrices.add(sample, predicted_for(sample), edges=boundary_map(sample.crop))
    assert matrices.size_classes == {}


def test_a_parcel_that_the_table_lacks_is_an_error() -> None:
    sample = make_sample(6)
    with pytest.raises(ValueError, match="the size table of a cube lacks the parcel 77"):
        counted(sample.replace(parcel=torch.full_like(sample.parcel, 77)))


def test_a_map_of_another_shape_is_an_error() -> None:
    sample = make_sample(7)
    matrices = RegionMatrices(classes=K, regions=REGIONS)
    with pytest.raises(ValueError, match="edges has the labels' shape"):
        matrices.add(sample, predicted_for(sample), edges=boundary_map(sample.crop)[:, :3])
    with pytest.raises(ValueError, match="predicted has the target's shape"):
        matrices.add(sample, predicted_for(sample)[:, :3], edges=boundary_map(sample.crop))
