from __future__ import annotations

import pytest
import torch
import torchvision.models
from tests.models.samples import make_sample

from sits_models.backbones.base import Backbone
from sits_models.backbones.resnet import ResNet18, ResNet50, from_reference
from sits_models.checkpoints import from_reference as model_from_reference
from sits_models.objectives import Classification

RGB = ("B04", "B03", "B02")


def one_date(
    batch: int, size: int, *, bands: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.randn(batch, 1, bands, size, size, generator=torch.Generator().manual_seed(seed))
    return image, torch.ones(batch, 1, dtype=torch.bool), torch.full((batch, 1), 18_500, dtype=torch.int32)


@pytest.mark.parametrize(("name", "kind"), [("resnet18", ResNet18), ("resnet50", ResNet50)])
def test_names_and_outputs_are_those_of_torchvision(name: str, kind: type[ResNet18] | type[ResNet50]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    state = theirs.state_dict()
    with torch.device("meta"):
        ours = kind(3, dates=1)
    assert list(ours.state_dict()) == [key for key in state if not key.startswith("fc.")]
    ours.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("fc.")}, assign=True)
    image, valid, day = one_date(1, 40)
    with torch.no_grad():
        found = ours.eval()(image, valid, day)
        assert found.shape == (1, ours.channels, 2, 2)
        logits = torch.nn.functional.linear(found.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])
        torch.testing.assert_close(logits, theirs(image[:, 0]), rtol=1e-4, atol=1e-4)


def test_weights_are_drawn_as_in_torchvision() -> None:
    torch.manual_seed(0)
    ours, theirs = ResNet18(3, dates=1, width=0.5), torchvision.models.resnet18()
    for key in ("conv1.weight", "layer2.0.conv2.weight", "layer4.0.downsample.0.weight"):
        drawn, published = ours.state_dict()[key], theirs.state_dict()[key]
        # Normal, of variance 2 / fan out: half the channels, twice the variance.
        assert drawn.std() == pytest.approx(float(published.std()) * 2**0.5, rel=0.05)
    assert (ours.state_dict()["layer1.0.bn2.weight"] == 1).all()


def test_imagenet_weights_become_a_classification_with_their_last_layer() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=6).eval()
    state = {key: tensor for key, tensor in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    mean, std = (4000.0, 3000.0, 2000.0), (900.0, 800.0, 700.0)
    objective = model_from_reference(state, architecture="resnet18", bands=RGB, dates=1, mean=mean, std=std)
    assert isinstance(objective, Classification)
    assert objective.encoder.backbone.tile_size == 224
    sample = make_sample(bands=RGB, dates=1, size=33)
    with torch.no_grad():
        normal = objective.encoder.normalize(sample.image)[:, 0]
        torch.testing.assert_close(objective(sample), theirs(normal), rtol=1e-4, atol=1e-5)


def test_entries_that_torchvision_does_not_have_are_named() -> None:
    with pytest.raises(ValueError, match=r"a ResNet of torchvision has other entries: encoder_q\.0\.weight"):
        from_reference({"fc.bias": torch.zeros(2), "encoder_q.0.weight": torch.zeros(1)})


@pytest.mark.parametrize("kind", [ResNet18, ResNet50])
def test_series_are_refused_with_what_to_do(kind: type[ResNet18] | type[ResNet50]) -> None:
    says = r"takes single dates; got 4: set data\.dates=\{pick: even, n: 1\}"
    with pytest.raises(ValueError, match=says):
        kind(3, dates=4)
    backbone = kind(3, dates=1, width=0.125)
    image, valid, day = one_date(2, 8)
    with pytest.raises(ValueError, match=says):
        backbone(image.expand(-1, 4, -1, -1, -1), valid.expand(-1, 4), day.expand(-1, 4))


@pytest.mark.parametrize(("size", "pixels"), [(1, 1), (32, 1), (33, 2), (65, 3)])
def test_any_side_will_do_and_the_map_is_rounded_up(size: int, pixels: int) -> None:
    backbone = ResNet18(3, dates=1, width=0.125).eval()
    with torch.no_grad():
        assert backbone(*one_date(1, size)).shape == (1, 64, pixels, pixels)


def test_statistics_over_one_value_are_refused_in_training_alone() -> None:
    backbone = ResNet18(3, dates=1, width=0.125)
    with pytest.raises(ValueError, match=r"statistics over 1 value in training: give data\.batch at least 2 chips"):
        backbone(*one_date(1, 32))
    assert backbone(*one_date(1, 33)).isfinite().all()
    assert backbone(*one_date(2, 32)).isfinite().all()
    assert backbone.eval()(*one_date(1, 32)).isfinite().all()


def test_outputs_are_the_channels_of_the_last_stage() -> None:
    assert ResNet18(3, dates=1, width=0.125, outputs=7)(*one_date(2, 16)).shape == (2, 7, 1, 1)
    assert ResNet50(3, dates=1, width=0.125, outputs=8)(*one_date(2, 16)).shape == (2, 8, 1, 1)
    with pytest.raises(ValueError, match="last layer of a ResNet-50 has a multiple of 4 channels; got 6"):
        ResNet50(3, dates=1, outputs=6)


def test_time_is_a_further_band_where_it_is_asked_for() -> None:
    backbone = ResNet18(3, dates=1, width=0.125, time_channels=("day_of_year",)).eval()
    image, valid, day = one_date(1, 32)
    with torch.no_grad():
        assert not torch.equal(backbone(image, valid, day), backbone(image, valid, day + 100))
        assert torch.equal(backbone(image, ~valid, day), backbone(torch.zeros_like(image), ~valid, day))


def checkpointed_and_not(backbone: Backbone, size: int) -> None:
    """Values, gradients and running statistics are the same with `checkpointing`."""
    start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    results = []
    for checkpointing in (False, True):
        backbone.load_state_dict(start)
        backbone.zero_grad()
        backbone.checkpointing = checkpointing
        torch.manual_seed(1)
        embedded = backbone(*one_date(2, size))
        embedded.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        results.append([embedded.detach(), gradients, {k: v.clone() for k, v in backbone.state_dict().items()}])
    torch.testing.assert_close(results[1], results[0])


def test_checkpointing_leaves_values_gradients_and_statistics_as_they_are() -> None:
    torch.manual_seed(0)
    checkpointed_and_not(ResNet18(3, dates=1, width=0.125), 33)
