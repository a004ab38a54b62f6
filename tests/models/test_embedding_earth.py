from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.samples import make_sample
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones import backbone_class, build_backbone, list_backbones
from sits_models.backbones.base import Backbone, Needs
from sits_models.encoder import Encoder
from sits_models.objectives import nt_xent as blocks
from sits_models.objectives.embedding_earth import EmbeddingEarth, MatchedViews
from sits_models.objectives.sampled_pixels import NearPixels, SampledPixels
from sits_models.recipe import BackboneRecipe, EmbeddingEarthRecipe
from sits_models.sample import Sample

BANDS = ("B02", "B03", "B04")
SIZE = 4


class PixelByPixel(Backbone):
    """The mean over time of each pixel, and a linear map of it."""

    needs = Needs(dates=None, size_multiple=1)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.map = nn.Conv2d(len(BANDS), channels, 1)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        mean = image.to(self.map.weight.dtype).mean(dim=1)
        found: Tensor = self.map(mean)
        return found


def encoder_of(backbone: Backbone, *, magnification: int = 1) -> Encoder:
    return Encoder(backbone, bands=BANDS, mean=[5000.0] * 3, std=[2500.0] * 3, magnification=magnification)


def objective_of(options: EmbeddingEarthRecipe, *, seed: int = 0) -> EmbeddingEarth:
    torch.manual_seed(seed)
    return EmbeddingEarth(encoder_of(PixelByPixel()), options=options).double()


def views_of(
    *, chips: int = 3, pixels: int = 4, counted: float = 0.7, seed: int = 0, size: int = SIZE, second: int | None = None
) -> MatchedViews:
    """Pixels of two views drawn by chance, whose ground may repeat; the second view may have other sides."""
    draw = torch.Generator().manual_seed(seed)
    other = second or size

    def below(n: int, *shape: int) -> Tensor:
        return torch.randint(0, n, shape, generator=draw)

    return MatchedViews(
        first=make_sample(batch=chips, bands=BANDS, size=size, seed=seed),
        second=make_sample(batch=chips, bands=BANDS, size=other, seed=seed + 1),
        first_pixel=below(size**2, chips, pixels),
        second_pixel=below(other**2, chips, pixels),
        counted=torch.rand(chips, pixels, generator=draw) < counted,
        ground=below(4, chips, pixels, 2),
    )


def in_loops(objective: EmbeddingEarth, views: MatchedViews) -> Tensor:
    """Pixel by pixel and query by query, as the formula has it."""
    options = objective.options
    chips, n = views.counted.shape
    listed = [(b, i) for b in range(chips) for i in range(n) if views.counted[b, i]]

    def embed(encoder: nn.Module, projection: nn.Module) -> list[Tensor]:
        found = []
        for sample, pixels in ((views.first, views.first_pixel), (views.second, views.second_pixel)):
            embedded = encoder(sample)
            rows = []
            for b, i in listed:
                row, column = divmod(int(pixels[b, i]), sample.image.shape[-1])
                rows.append(embedded[b, :, row, column])
            found.append(projection(torch.stack(rows)))
        return found

    queries = embed(objective.encoder, objective.projection)
    keys = queries
    if objective.key_encoder is not None and objective.key_projection is not None:
        with torch.no_grad():
            keys = embed(objective.key_encoder, objective.key_projection)
    total = queries[0].new_zeros(())
    for one, other in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i, (b, s) in enumerate(listed):
            summed = queries[0].new_zeros(())
            for j, (c, t) in enumerate(listed):
                away = math.dist(views.ground[b, s].tolist(), views.ground[c, t].tolist())
                near = options.negatives == "other_images" or away < options.radius or away == 0
                if i == j or b != c or not near:
                    summed = (
                        summed + (functional.cosine_similarity(one[i], other[j], dim=0) / options.temperature).exp()
                    )
            right = functional.cosine_similarity(one[i], other[i], dim=0) / options.temperature
            total = total - right + summed.log()
    return total / (2 * len(listed))


def moved(objective: EmbeddingEarth) -> EmbeddingEarth:
    """With a second network that is another than the first."""
    for second in (objective.key_encoder, objective.key_projection):
        if second is not None:
            with torch.no_grad():
                for parameter in second.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
    return objective


@settings(max_examples=40)
@given(
    chips=st.integers(1, 4),
    pixels=st.integers(1, 4),
    counted=st.sampled_from([0.5, 1.0]),
    key=st.sampled_from(["momentum", "shared"]),
    rule=st.sampled_from([("all", 0.0), ("all", 1.0), ("all", 1.5), ("all", 9.0), ("other_images", 0.0)]),
    training=st.booleans(),
    block=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_loops(
    chips: int,
    pixels: int,
    *,
    counted: float,
    key: Literal["momentum", "shared"],
    rule: tuple[Literal["all", "other_images"], float],
    training: bool,
    block: int,
    seed: int,
) -> None:
    options = EmbeddingEarthRecipe(key=key, negatives=rule[0], radius=rule[1], momentum=0.9, temperature=0.3)
    objective = moved(objective_of(options, seed=seed)).train(training)
    views = views_of(chips=chips, pixels=pixels, counted=counted, seed=seed, second=SIZE + 1)
    if views.counted.sum() < 2 or (training and chips == 1 and rule[0] == "other_images"):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_SIMILARITIES", block)
        found = objective.loss(views)
    expected = in_loops(objective, views)
    torch.testing.assert_close(found.value, expected)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (found.value, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
    assert found.count == (0 if chips == 1 and rule[0] == "other_images" else 2 * views.counted.sum())


def test_the_loss_is_the_mean_of_both_directions() -> None:
    """Two pixels, of embeddings (1, 0, 0) and (0, 1, 0) in the first view and twice (1, 0, 0) in the second, t = 1.

    By hand: from the first view every score is that of the positive, log 2 twice. From the second the first pixel has
    1 against 0, log(1 + 1/e), and the second 0 against 1, log(1 + e).
    """
    objective = objective_of(EmbeddingEarthRecipe(key="shared", temperature=1.0))
    backbone = objective.encoder.backbone
    assert isinstance(backbone, PixelByPixel)
    with torch.no_grad():
        backbone.map.weight.copy_(torch.eye(3)[:, :, None, None])
        backbone.map.bias.zero_()  # type: ignore[union-attr]  # it has one
    objective.projection = nn.Sequential()
    views = views_of(chips=1, pixels=2, counted=1.1, size=2)
    image = torch.full((1, 4, 3, 2, 2), 5000.0)  # which is 0 once normalized, and 7500 is 1
    image[:, :, 0, 0, 0] = image[:, :, 1, 0, 1] = 7500.0
    views = replace(
        views,
        first=views.first.replace(image=image),
        second=views.second.replace(image=image),
        first_pixel=torch.tensor([[0, 1]]),
        second_pixel=torch.tensor([[0, 0]]),
        ground=torch.tensor([[[0, 0], [0, 9]]]),
    )
    turned = replace(views, first_pixel=views.second_pixel, second_pixel=views.first_pixel)
    by_hand = (math.log(2) + (math.log(1 + 1 / math.e) + math.log(1 + math.e)) / 2) / 2
    for found in (objective.loss(views), objective.loss(turned)):
        assert found.value.item() == pytest.approx(by_hand)
        assert found.monitors["accuracy"].item() == 0.25
        assert found.count.item() == 4


@pytest.mark.parametrize("key", ["momentum", "shared"])
def test_the_order_of_the_chips_does_not_count(key: Literal["momentum", "shared"]) -> None:
    objective = objective_of(EmbeddingEarthRecipe(key=key, radius=2.0))
    views, order = views_of(chips=4), torch.tensor([2, 0, 3, 1])

    def turned(sample: Sample) -> Sample:
        names = ("image", "valid", "day", "clear", "crop", "counted", "parcel", "boundary", "place")
        return sample.replace(**{name: getattr(sample, name)[order] for name in names})

    other = MatchedViews(
        first=turned(views.first),
        second=turned(views.second),
        first_pixel=views.first_pixel[order],
        second_pixel=views.second_pixel[order],
        counted=views.counted[order],
        ground=views.ground[order],
    )
    one, two = copy.deepcopy(objective).loss(views), copy.deepcopy(objective).loss(other)
    torch.testing.assert_close(two.value, one.value)
    torch.testing.assert_close(two.monitors, one.monitors)


def test_what_does_not_count_may_be_anything() -> None:
    objective, views = objective_of(EmbeddingEarthRecipe(radius=1.5)), views_of()
    hidden = ~views.counted
    other = replace(
        views,
        first_pixel=views.first_pixel.masked_fill(hidden, -1),
        second_pixel=views.second_pixel.masked_fill(hidden, 10**6),
        ground=views.ground.masked_fill(hidden[:, :, None], -7),
    )
    assert copy.deepcopy(objective).loss(other).value == copy.deepcopy(objective).loss(views).value


@pytest.mark.parametrize(("negatives", "keys"), [("all", 12), ("other_images", 9)])
def test_constant_embeddings_give_the_logarithm_of_the_number_of_keys(
    negatives: Literal["all", "other_images"], keys: int
) -> None:
    """Three pixels of each of four chips; of other images are nine, and the positive is one more."""
    objective = objective_of(EmbeddingEarthRecipe(negatives=negatives)).eval()
    backbone = objective.encoder.backbone
    with torch.no_grad():
        for network in (objective.encoder, objective.key_encoder):
            assert isinstance(network, Encoder)
            for parameter in network.backbone.parameters():
                parameter.fill_(0.0)
    assert isinstance(backbone, PixelByPixel)
    with torch.no_grad():
        objective.projection[-1].bias.fill_(1.0)
        assert objective.key_projection is not None
        objective.key_projection[-1].bias.fill_(1.0)
    views = replace(
        views_of(chips=4, pixels=3, counted=1.1), ground=torch.arange(3)[None, :, None].expand(4, 3, 2).contiguous()
    )
    found = objective.loss(views)
    assert found.value.item() == pytest.approx(math.log(keys + (negatives == "other_images")), abs=1e-6)
    assert found.monitors["accuracy"].item() == 0
    assert found.monitors["effective_rank"].item() == pytest.approx(1.0, abs=1e-6)


def test_near_ground_of_the_same_image_is_no_negative_and_that_of_another_is() -> None:
    pixels = SampledPixels(
        image=torch.tensor([0, 0, 0, 1, 1]), ground=torch.tensor([[0, 0], [0, 2], [3, 4], [0, 0], [0, 0]])
    )

    def hidden(radius: float, *, other_images: bool = False) -> list[list[int]]:
        near = NearPixels.of(pixels, pixels, radius=radius, other_images=other_images)
        every = near(slice(0, 5))
        assert torch.equal(every, torch.cat([near(slice(row, row + 1)) for row in range(5)]))
        assert near(slice(2, 2)).shape == (0, 5)
        return [row.nonzero().flatten().tolist() for row in every]

    assert hidden(0.0) == [[0], [1], [2], [3, 4], [3, 4]]
    assert hidden(2.0) == hidden(0.0)  # 2 px away is not nearer than 2 px
    assert hidden(2.1) == [[0, 1], [0, 1], [2], [3, 4], [3, 4]]
    assert hidden(5.0) == [[0, 1], [0, 1, 2], [1, 2], [3, 4], [3, 4]]
    assert hidden(0.0, other_images=True) == [[0, 1, 2]] * 3 + [[3, 4]] * 2


def test_keys_of_the_momentum_network_have_no_gradient_and_follow_in_training_alone() -> None:
    objective, views = moved(objective_of(EmbeddingEarthRecipe(momentum=0.75))), views_of()
    assert objective.key_encoder is not None
    second, first = (network.backbone.map.weight for network in (objective.key_encoder, objective.encoder))
    before = second.clone()
    objective.eval().loss(views)
    assert torch.equal(second, before)
    objective.train().loss(views).value.backward()
    torch.testing.assert_close(second, 0.75 * before + 0.25 * first)
    assert second.grad is None
    assert first.grad is not None
    assert first.grad.any()


def test_shared_keys_need_no_second_network_and_pull_at_both_views() -> None:
    objective, views = objective_of(EmbeddingEarthRecipe(key="shared")), views_of()
    assert not any(name.startswith("key_") for name, _ in objective.named_parameters())
    assert set(objective_of(EmbeddingEarthRecipe()).state_dict()) - set(objective.state_dict()) == {
        f"key_{name}" for name in objective.state_dict()
    }
    # With a momentum of 0 the second network is the first, but for the gradient through the keys.
    of_momentum = objective_of(EmbeddingEarthRecipe(momentum=0.0)).train()
    by_second, by_itself = of_momentum.loss(views).value, objective.train().loss(views).value
    torch.testing.assert_close(by_second, by_itself)
    by_second.backward()
    by_itself.backward()
    one, other = (network.encoder.backbone.map.weight.grad for network in (objective, of_momentum))
    assert one is not None
    assert other is not None
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("counted", [0, 1])
def test_a_batch_without_a_pair_of_pixels_has_the_loss_0_and_gradients_of_0(counted: int) -> None:
    objective, views = objective_of(EmbeddingEarthRecipe()), views_of()
    mask = torch.zeros_like(views.counted)
    mask[0, :counted] = True
    found = objective.loss(replace(views, counted=mask))
    found.value.backward()
    assert found.value.item() == found.count.item() == found.monitors["accuracy"].item() == 0
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)
    assert all(buffer.isfinite().all() for buffer in objective.buffers())


def parted(views: MatchedViews, chips: slice) -> MatchedViews:
    def part(sample: Sample) -> Sample:
        names = ("image", "valid", "day", "clear", "crop", "counted", "parcel", "boundary", "place")
        return sample.replace(**{name: getattr(sample, name)[chips] for name in names})

    return MatchedViews(
        first=part(views.first),
        second=part(views.second),
        first_pixel=views.first_pixel[chips],
        second_pixel=views.second_pixel[chips],
        counted=views.counted[chips],
        ground=views.ground[chips],
    )


class Meeting:
    """Two threads that exchange tensors, with their gradients."""

    def __init__(self) -> None:
        self.brought: dict[int, Tensor] = {}
        self.barrier = threading.Barrier(2, timeout=20)

    def of(self, rank: int) -> Callable[[Tensor], Tensor]:
        def gathered(tensor: Tensor) -> Tensor:
            self.brought[rank] = tensor
            self.barrier.wait()
            joined = torch.cat([self.brought[0], self.brought[1]])
            self.barrier.wait()
            return joined

        return gathered


@pytest.mark.parametrize("negatives", ["all", "other_images"])
@pytest.mark.parametrize("key", ["momentum", "shared"])
def test_two_processes_of_unequal_parts_have_the_loss_and_gradients_of_one(
    key: Literal["momentum", "shared"], negatives: Literal["all", "other_images"]
) -> None:
    alone = moved(objective_of(EmbeddingEarthRecipe(key=key, negatives=negatives))).train()
    for module in alone.modules():
        if isinstance(module, nn.BatchNorm1d):  # which would see the part of a process
            module.eval()
    views, meeting = views_of(chips=5), Meeting()
    two = [copy.deepcopy(alone) for _ in range(2)]
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def work(rank: int) -> None:
        two[rank].gathered = meeting.of(rank)
        loss = two[rank].loss(parted(views, (slice(0, 2), slice(2, 5))[rank]))
        found[rank] = (loss.value, loss.count)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = alone.loss(views)
    total = sum(count for _, count in found.values())
    assert total == expected.count
    value = sum((value * count / total for value, count in found.values()), torch.zeros(()))
    torch.testing.assert_close(value, expected.value)
    value.backward()
    expected.value.backward()
    for (name, parameter), one, other in zip(
        alone.named_parameters(), two[0].parameters(), two[1].parameters(), strict=True
    ):
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert one.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(one.grad + other.grad, parameter.grad, msg=name)


def test_validation_exchanges_nothing() -> None:
    objective, called = objective_of(EmbeddingEarthRecipe()), []

    def gathered(tensor: Tensor) -> Tensor:
        called.append(len(tensor))
        return tensor

    objective.gathered = gathered
    objective.eval().loss(views_of())
    assert called == []
    objective.train().loss(views_of())
    assert set(called) == {3}


@pytest.mark.parametrize("name", [name for name in list_backbones() if backbone_class(name).stride == 1])
def test_every_backbone_with_an_embedding_a_pixel_trains(name: str) -> None:
    backbone = build_backbone(BackboneRecipe(name=name, width=0.125), bands=3, dates=4, size=16)
    objective = EmbeddingEarth(encoder_of(backbone), options=EmbeddingEarthRecipe(radius=2.0))
    found = objective.loss(views_of(chips=2, pixels=16, size=16))
    found.value.backward()
    assert found.value.isfinite()
    assert 1 < found.monitors["effective_rank"].item() <= objective.encoder.channels
    for parameter in [*objective.encoder.parameters(), *objective.projection.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_other_backbones_and_finer_labels_are_refused() -> None:
    resnet = build_backbone(BackboneRecipe(name="resnet18", width=0.125), bands=3, dates=1, size=32)
    with pytest.raises(
        ValueError, match=r"contrasts single pixels and ResNet.* gives one embedding for .*: choose a dense"
    ):
        EmbeddingEarth(encoder_of(resnet), options=EmbeddingEarthRecipe())
    logits = build_backbone(BackboneRecipe(name="unet3d", width=0.125), bands=3, dates=4, outputs=5)
    with pytest.raises(ValueError, match="this UNet3D gives logits: build it without a number of outputs"):
        EmbeddingEarth(encoder_of(logits), options=EmbeddingEarthRecipe())
    with pytest.raises(ValueError, match=r"makes them 2 times finer: set data\.labels=1"):
        EmbeddingEarth(encoder_of(PixelByPixel(), magnification=2), options=EmbeddingEarthRecipe())


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"embedding_earth\.temperature is above 0; got 0"):
        EmbeddingEarthRecipe(temperature=0.0)
    with pytest.raises(ValueError, match=r"a momentum lies from 0 to 1; got 1\.5"):
        EmbeddingEarthRecipe(momentum=1.5)
    with pytest.raises(ValueError, match=r"a radius is 0 px or more; got -1"):
        EmbeddingEarthRecipe(radius=-1.0)
    with pytest.raises(ValueError, match=r"need no radius within an image; got 2\.0: set it to 0"):
        EmbeddingEarthRecipe(radius=2.0, negatives="other_images")
    lonely = objective_of(EmbeddingEarthRecipe(negatives="other_images"))
    with pytest.raises(ValueError, match=r"two chips a batch at least; got 1: raise data\.batch"):
        lonely.loss(views_of(chips=1))


def test_views_that_do_not_belong_together_are_refused() -> None:
    views = views_of()
    with pytest.raises(ValueError, match=r"ground of 3 chips with 4 pixels each is \(3, 4, 2\); got \(3, 4\)"):
        replace(views, ground=views.first_pixel)
    with pytest.raises(ValueError, match="two views of 3 chips have as many each; got 3 and 2"):
        replace(views, second=make_sample(batch=2, bands=BANDS))


@pytest.mark.parametrize("key", ["momentum", "shared"])
def test_a_few_steps_tell_pixels_apart(key: Literal["momentum", "shared"]) -> None:
    """The second view is the first with noise, mirrored; which pixel is which it knows by its values alone."""
    torch.manual_seed(0)
    objective = EmbeddingEarth(
        encoder_of(PixelByPixel(8)), options=EmbeddingEarthRecipe(key=key, momentum=0.9, radius=1.5)
    )
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(0)
    losses, size = [], 8
    for step in range(40):
        first = make_sample(batch=4, bands=BANDS, size=size, seed=step)
        noise = 100 * torch.randn(first.image.shape, generator=draw)
        image = (first.image.float() + noise).clamp(min=1).where(first.image.float() > 0, 0.0).flip(-1)
        pixel = torch.stack([torch.randperm(size**2, generator=draw)[:16] for _ in range(4)])
        row, column = pixel // size, pixel % size
        views = MatchedViews(
            first=first,
            second=first.replace(image=image),
            first_pixel=pixel,
            second_pixel=row * size + size - 1 - column,
            counted=torch.ones_like(pixel, dtype=torch.bool),
            ground=torch.stack([row, column], dim=2),
        )
        optimizer.zero_grad()
        found = objective.loss(views)
        found.value.backward()
        optimizer.step()
        losses.append(found)
    assert losses[-1].value < 0.5 * losses[0].value
    assert losses[-1].monitors["accuracy"] > 0.9
    assert losses[-1].monitors["effective_rank"] > 2
