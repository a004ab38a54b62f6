from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sits_models.backbones import build_backbone
from sits_models.objectives import build_objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import BackboneRecipe, DataRecipe, Recipe, SegmentationRecipe
from sits_models.sample import Sample
from sits_models.tiling import Cell, Mosaic, Tile, Tiling, blend_weights, plan_tiling

BANDS = ("B02", "B03", "B04")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


shapes = st.tuples(st.integers(1, 1100), st.integers(1, 600))
halo_tilings = st.builds(
    lambda shape, reach, multiple, max_pixels: plan_tiling(
        shape,
        reach=reach,
        tile_size=None,
        multiple=multiple,
        min_size=multiple,
        max_pixels=max_pixels,
        tile=None,
        pixel_bytes=12,
    ),
    shapes,
    st.integers(0, 40),
    st.sampled_from([1, 4, 8, 16]),
    st.integers(1, 400_000),
)
blended_tilings = st.builds(
    lambda shape, side: plan_tiling(
        shape, reach=None, tile_size=side, multiple=4, min_size=4, max_pixels=1, tile=None, pixel_bytes=12
    ),
    shapes,
    st.sampled_from([48, 64, 128]),
)
tilings = st.one_of(halo_tilings, blended_tilings)


def kept(tiling: Tiling, tile: Tile) -> tuple[slice, slice]:
    """The pixels of the cube that a tile gives, from 0 on."""
    cut = tiling.halo or 0
    first = (tile.row + cut, tile.column + cut)
    side = tiling.tile - 2 * cut
    return (
        slice(max(0, first[0]), max(0, first[0] + side)),
        slice(max(0, first[1]), max(0, first[1] + side)),
    )


@settings(max_examples=15, deadline=None)
@given(tilings)
def test_cells_cover_the_cube_once_and_their_tiles_cover_them(tiling: Tiling) -> None:
    covered = np.zeros(tiling.shape, np.int8)
    for cell in tiling.cells():
        covered[cell.rows, cell.columns] += 1
        seen = np.zeros(tiling.shape, np.bool_)
        for tile in tiling.tiles(cell):
            seen[kept(tiling, tile)] = True
        assert seen[cell.rows, cell.columns].all()
    assert (covered == 1).all()
    assert [cell.number for cell in tiling.cells()] == list(range(len(tiling.cells())))


@settings(max_examples=15, deadline=None)
@given(halo_tilings, st.data())
def test_tiles_with_a_halo_begin_where_pooling_of_the_whole_cube_does(tiling: Tiling, data: st.DataObject) -> None:
    assert tiling.halo is not None
    multiple = next(m for m in (16, 8, 4, 1) if tiling.tile % m == 0 and tiling.halo % m == 0)
    cell = data.draw(st.sampled_from(tiling.cells()))
    for tile in tiling.tiles(cell):
        assert tile.row % multiple == 0
        assert tile.column % multiple == 0


@settings(max_examples=15, deadline=None)
@given(blended_tilings)
def test_blended_tiles_are_of_one_lattice_that_ends_with_the_cube(tiling: Tiling) -> None:
    rows = {tile.row for cell in tiling.cells() for tile in tiling.tiles(cell)}
    last = max(0, tiling.shape[0] - tiling.tile)
    assert min(rows) == 0
    assert max(rows) == last
    assert all(row % tiling.stride == 0 for row in rows - {last})


def test_a_cube_of_three_cells_is_cut_as_worked_out_by_hand() -> None:
    tiling = plan_tiling(
        (600, 1100), reach=27, tile_size=None, multiple=4, min_size=4, max_pixels=320**2, tile=None, pixel_bytes=12
    )
    assert tiling == Tiling(shape=(600, 1100), cell=512, tile=256 + 56, stride=256, halo=28)
    assert tiling.grid == (2, 3)
    last = tiling.cells()[-1]
    assert last == Cell(number=5, row=512, column=1024, height=88, width=76)
    assert tiling.tiles(last) == (Tile(row=484, column=996),)
    assert len(tiling.tiles(tiling.cells()[0])) == 4


def test_tiles_across_the_border_of_two_cells_cost_an_eighth() -> None:
    tiling = plan_tiling(
        (4096, 4096), reach=None, tile_size=128, multiple=8, min_size=8, max_pixels=1, tile=None, pixel_bytes=12
    )
    assert tiling.cell == 1024
    computed = sum(len(tiling.tiles(cell)) for cell in tiling.cells())
    once = len({tile for cell in tiling.cells() for tile in tiling.tiles(cell)})
    assert computed / once < 1.13


@pytest.mark.parametrize("side", [50, 48])
def test_a_side_that_the_model_cannot_take_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=r"tiles of at least 60 px whose sides are multiples of 4; got --tile"):
        plan_tiling(
            (100, 100), reach=27, tile_size=None, multiple=4, min_size=4, max_pixels=1, tile=side, pixel_bytes=12
        )


@pytest.mark.parametrize("size", [2, 24, 48, 512])
def test_weights_are_positive_symmetric_and_begin_without_a_step(size: int) -> None:
    weights = blend_weights(size)
    assert (weights > 0).all()
    torch.testing.assert_close(weights, weights.flip(0))
    assert weights.argmax() in (size // 2 - 1, size // 2)
    if size >= 24:
        assert weights[0] < 2e-5


@settings(max_examples=8, deadline=None)
@given(tiling=tilings, m=st.sampled_from([1, 2]), data=st.data())
def test_what_all_tiles_agree_on_is_what_the_mosaic_holds(tiling: Tiling, m: int, data: st.DataObject) -> None:
    """Logits that say where they are: row and column of the map, at each magnification."""
    cell = data.draw(st.sampled_from(tiling.cells()))
    mosaic = Mosaic(tiling, cell, classes=2, magnification=m)
    side = torch.arange(m * tiling.tile, dtype=torch.float32)
    for tile in tiling.tiles(cell):
        rows, columns = torch.meshgrid(m * tile.row + side, m * tile.column + side, indexing="ij")
        mosaic.add(tile, torch.stack([rows, columns]))
    rows, columns = torch.meshgrid(
        m * cell.row + torch.arange(m * cell.height), m * cell.column + torch.arange(m * cell.width), indexing="ij"
    )
    torch.testing.assert_close(mosaic.logits(), torch.stack([rows, columns]).float(), rtol=1e-6, atol=1e-3)


def test_blending_of_two_tiles_by_hand() -> None:
    tiling = Tiling(shape=(4, 6), cell=512, tile=4, stride=2, halo=None)
    cell = tiling.cells()[0]
    assert tiling.tiles(cell) == (Tile(row=0, column=0), Tile(row=0, column=2))
    mosaic = Mosaic(tiling, cell, classes=1, magnification=1)
    mosaic.add(Tile(row=0, column=0), torch.zeros(1, 4, 4))
    mosaic.add(Tile(row=0, column=2), torch.ones(1, 4, 4))
    # sin^4 of 22.5 and of 67.5 degrees: 0.0214 and 0.7286, whose shares of their sum are 1/35 and 34/35 nearly.
    small, large = 0.0214466, 0.7285534
    expected = torch.tensor([0, 0, small / (small + large), large / (small + large), 1, 1])
    torch.testing.assert_close(mosaic.logits()[0], expected.expand(4, 6))


# With models


def model_of(name: str, *, classes: int = 4, labels: int = 1, dates: int = 4, width: float = 0.0625) -> Segmentation:
    """A model of random weights whose batch statistics are random too, as after training."""
    recipe = Recipe(
        name="test",
        data=DataRecipe(labels=labels),  # type: ignore[arg-type]
        backbone=BackboneRecipe(name=name, width=width),
        segmentation=SegmentationRecipe(),
    )
    torch.manual_seed(5)
    model = build_objective(
        recipe, bands=BANDS, dates=dates, classes=classes, mean=[1000.0] * 3, std=[500.0] * 3
    ).eval()
    assert isinstance(model, Segmentation)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d | torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def image_of(height: int, width: int, *, dates: int = 4) -> Tensor:
    """(T, C, H, W) random reflectance with smooth and rough parts, a part of it not observed."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand((dates, 3, height // 8 + 1, width // 8 + 1), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    image = 200 + 3000 * smooth + 200 * torch.rand((dates, 3, height, width), generator=generator)
    image[0, :, :20, :] = 0
    return image.to(torch.int32).to(torch.uint16)


def sample_of(image: Tensor) -> Sample:
    t, _, h, w = image.shape
    return Sample(
        image=image[None],
        valid=torch.ones((1, t), dtype=torch.bool),
        day=torch.arange(17_600, 17_600 + 30 * t, 30, dtype=torch.int32)[None],
        clear=torch.ones((1, t, h, w), dtype=torch.bool),
        crop=torch.full((1, h, w), -1),
        counted=torch.zeros((1, h, w), dtype=torch.bool),
        parcel=torch.zeros((1, h, w), dtype=torch.int64),
        boundary=torch.zeros((1, h, w), dtype=torch.int16),
        place=torch.zeros((1, 3), dtype=torch.int64),
        bands=BANDS,
    )


def cut(image: Tensor, tile: Tile, side: int) -> Tensor:
    """The pixels of a tile; not observed outside of the image."""
    padded = torch.zeros((*image.shape[:2], side, side), dtype=torch.int32)
    top, left = max(0, tile.row), max(0, tile.column)
    part = image[:, :, top : max(0, tile.row + side), left : max(0, tile.column + side)].to(torch.int32)
    row, column = top - tile.row, left - tile.column
    padded[:, :, row : row + part.shape[2], column : column + part.shape[3]] = part
    return padded.to(torch.uint16)


def mapped(run: Callable[[Tensor], Tensor], image: Tensor, tiling: Tiling, *, classes: int, m: int = 1) -> Tensor:
    """Logits (K, mH, mW) of a whole image by tiles; `run` takes (T, C, side, side) to (K, m side, m side)."""
    height, width = tiling.shape
    result = torch.full((classes, m * height, m * width), torch.nan)
    for cell in tiling.cells():
        mosaic = Mosaic(tiling, cell, classes=classes, magnification=m)
        for tile in tiling.tiles(cell):
            mosaic.add(tile, run(cut(image, tile, tiling.tile)))
        rows = slice(m * cell.row, m * (cell.row + cell.height))
        result[:, rows, m * cell.column : m * (cell.column + cell.width)] = mosaic.logits()
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("name", "labels", "tile"), [("unet3d", 1, 84), ("unet3df", 1, 64), ("unet3df", 2, 76)])
def test_tiles_of_a_unet_with_a_halo_equal_the_whole_image(name: str, labels: int, tile: int) -> None:
    model = model_of(name, labels=labels)
    assert model.reach is not None
    image = image_of(104, 112)
    tiling = plan_tiling(
        (104, 112), reach=model.reach, tile_size=None, multiple=4, min_size=4, max_pixels=1, tile=tile, pixel_bytes=12
    )
    with torch.inference_mode():
        whole = model(sample_of(image))[0]
        tiled = mapped(lambda part: model(sample_of(part))[0], image, tiling, classes=4, m=labels)
    edge = labels * model.reach
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    assert whole[inner].shape[1] >= 40
    assert float((tiled[inner] - whole[inner]).abs().max()) < 1e-5
    assert float(whole[inner].std()) > 1e-3


def test_a_halo_that_is_too_small_is_seen() -> None:
    """The test above can fail: with a halo of 4 pixels, values differ."""
    model, image = model_of("unet3df"), image_of(104, 112)
    tiling = plan_tiling(
        (104, 112), reach=4, tile_size=None, multiple=4, min_size=4, max_pixels=1, tile=40, pixel_bytes=12
    )
    with torch.inference_mode():
        whole = model(sample_of(image))[0]
        tiled = mapped(lambda part: model(sample_of(part))[0], image, tiling, classes=4)
    assert float((tiled - whole)[:, 30:-30, 30:-30].abs().max()) > 1e-3


def steps(values: Tensor, places: set[int], axis: int) -> tuple[float, float]:
    """Mean absolute step from pixel to pixel along an axis: before these places, and elsewhere."""
    step = values.diff(dim=axis).abs().mean(dim=[d for d in range(values.ndim) if d != axis])
    across = torch.zeros(len(step), dtype=torch.bool)
    across[[place - 1 for place in places if 0 < place <= len(step)]] = True
    return float(step[across].mean()), float(step[~across].mean())


def seams(tiling: Tiling, axis: int) -> tuple[set[int], set[int]]:
    """Where tiles begin and end along an axis, and where the map passes from one to the next."""
    tiles = {tile for cell in tiling.cells() for tile in tiling.tiles(cell)}
    starts = sorted({(tile.row, tile.column)[axis] for tile in tiles})
    ends = {edge for start in starts for edge in (start, start + tiling.tile)}
    return ends, {(a + b + tiling.tile) // 2 for a, b in pairwise(starts)}


def even_image(height: int, width: int) -> Tensor:
    """(T, C, H, W) texture that is alike everywhere, so that a step stands out wherever it is."""
    noise = torch.rand((4, 3, height + 8, width + 8), generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.avg_pool2d(noise, 5, 1), 5, 1)
    scaled = 1500 + 500 * (smooth - smooth.mean()) / smooth.std()
    return scaled.clamp(1, 6000).to(torch.int32).to(torch.uint16)


def test_tiles_that_disagree_leave_no_step_at_their_ends() -> None:
    """Each tile is one number of its own: unblended, this would be a step at each end and none elsewhere."""
    tiling = plan_tiling(
        (192, 256), reach=None, tile_size=64, multiple=4, min_size=4, max_pixels=1, tile=None, pixel_bytes=12
    )
    generator = torch.Generator().manual_seed(0)

    def run(part: Tensor) -> Tensor:
        return torch.randn(1, generator=generator)[:, None, None].expand(1, 64, 64)

    blended = mapped(run, image_of(192, 256), tiling, classes=1)
    for axis in (0, 1):
        across, inside = steps(blended, seams(tiling, axis)[0], axis + 1)
        assert across <= 0.01 * inside


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("utae", 32), ("unet2d_clstm", 24)])
def test_models_that_see_the_whole_chip_leave_no_seams(name: str, side: int) -> None:
    model = model_of(name, width=0.25)
    assert model.reach is None
    tiling = plan_tiling(
        (168, 176), reach=None, tile_size=side, multiple=8, min_size=8, max_pixels=1, tile=None, pixel_bytes=12
    )
    with torch.inference_mode():
        logits = mapped(lambda part: model(sample_of(part))[0], even_image(168, 176), tiling, classes=4)
    found = [steps(logits.softmax(dim=0), seams(tiling, axis)[kind], axis + 1) for axis in (0, 1) for kind in (0, 1)]
    across, inside = (sum(values) for values in zip(*found, strict=True))
    assert across <= inside


def test_every_backbone_says_how_it_is_tiled() -> None:
    for name in ("unet3d", "unet3df", "utae", "unet2d_clstm"):
        backbone = build_backbone(BackboneRecipe(name=name, width=0.125), bands=3, dates=4)
        assert (backbone.reach is None) == (backbone.tile_size is not None)
