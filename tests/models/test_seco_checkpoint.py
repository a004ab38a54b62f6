from __future__ import annotations

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from sits_models.backbones.resnet import ResNet18, ResNet50
from sits_models.encoder import Encoder
from sits_models.objectives.seco import SeasonalContrast
from sits_models.objectives.seco_checkpoint import (
    PUBLISHED_BANDS,
    from_published,
    objective_from_published,
    objective_to_published,
    published_normalization,
    to_published,
)
from sits_models.recipe import SeCoRecipe

BANDS = PUBLISHED_BANDS


class Published(nn.Module):
    """A module whose tensors have the published names: torchvision's children in a row, and heads."""

    def __init__(self, name: str, *, channels: int, length: int, spaces: int) -> None:
        super().__init__()
        self.register_buffer("queue", torch.randn(spaces, channels, length))
        self.register_buffer("queue_ptr", torch.arange(1, 1 + spaces)[:, None])
        encoders, heads = [], []
        for _ in range(2):
            network = torchvision.models.get_model(name, weights=None)
            inner = network.fc.in_features
            encoders.append(nn.Sequential(*list(network.children())[:-1], nn.Flatten()))
            rows = [
                nn.Sequential(nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, channels)) for _ in range(spaces)
            ]
            heads.append(nn.ModuleList(rows))
        self.encoder_q, self.encoder_k = encoders
        self.heads_q, self.heads_k = heads


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    return Published("resnet18", channels=4, length=6, spaces=3).eval()


@pytest.fixture
def state(published: Published) -> dict[str, Tensor]:
    return dict(published.state_dict())


def objective_of(*, spaces: int = 3) -> SeasonalContrast:
    encoder = Encoder(ResNet18(3, dates=1), bands=BANDS, mean=[0.0] * 3, std=[1.0] * 3, magnification=1)
    return SeasonalContrast(encoder, SeCoRecipe(mode="seco" if spaces == 3 else "moco", channels=4, queue=6))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def test_the_trunk_goes_to_torchvision_and_back(published: Published, state: dict[str, Tensor]) -> None:
    trunk = from_published(state)
    theirs = torchvision.models.resnet18(weights=None)
    report = theirs.load_state_dict(trunk, strict=False)
    assert (report.missing_keys, report.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    ours = ResNet18(3, dates=1)
    ours.load_state_dict(trunk)
    image = torch.randn(2, 3, 40, 40)
    theirs.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(image), published.encoder_q(image))
    back = to_published(ours.state_dict())
    assert_equal(back, {name: tensor for name, tensor in state.items() if name.startswith("encoder_q.")})


def test_a_whole_checkpoint_goes_to_our_objective_and_back(published: Published, state: dict[str, Tensor]) -> None:
    objective = objective_of()
    report = objective.load_state_dict(objective_from_published(state), strict=False)
    assert set(report.missing_keys) == {
        f"{side}.{name}" for side in ("encoder", "key_encoder") for name in ("mean", "std")
    }
    assert report.unexpected_keys == []
    assert [int(queue.pointer) for queue in objective.queues] == [1, 2, 3]
    assert [int(queue.filled) for queue in objective.queues] == [6, 6, 6]
    assert torch.equal(objective.queues[1].keys[5], state["queue"][1, :, 5])
    assert_equal(objective_to_published(objective.state_dict()), state)
    ours = {name: tensor for name, tensor in objective.state_dict().items() if name not in report.missing_keys}
    assert_equal(
        dict(sorted(objective_from_published(objective_to_published(ours)).items())), dict(sorted(ours.items()))
    )
    image = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        embedded = objective.key_encoder.backbone.eval()(
            image[:, None], torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.int32)
        )
        found = objective.key_heads[2](embedded.mean(dim=(2, 3)))
        torch.testing.assert_close(found, published.heads_k[2](published.encoder_k(image)))


def test_one_sub_space_more_bands_and_fifty_layers() -> None:
    with torch.device("meta"):
        encoder = Encoder(ResNet50(5, dates=1), bands=tuple("abcde"), mean=[0.0] * 5, std=[1.0] * 5, magnification=1)
        state = SeasonalContrast(encoder, SeCoRecipe(mode="moco", channels=4, queue=6)).state_dict()
        published = objective_to_published(state)
    assert len(published) == 2 + 2 * 318 + 2 * 4
    assert published["queue"].shape == (1, 4, 6)
    assert published["encoder_k.0.weight"].shape == (64, 5, 7, 7)
    assert published["heads_q.0.0.weight"].shape == (2048, 2048)
    trunk = from_published(published)
    assert list(trunk) == list(ResNet50(5, dates=1, width=0.03125).state_dict())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_q.1.bias": None}, r"SeCo on a ResNet-18; 1 missing: encoder_q\.1\.bias$"),
        ({"encoder_q.2.bias": torch.zeros(1)}, r"1 unknown: encoder_q\.2\.bias$"),
        ({"encoder_q.conv1.weight": torch.zeros(1)}, r"1 unknown: encoder_q\.conv1\.weight$"),
        ({"queue_full": torch.zeros(1)}, r"1 unknown: queue_full$"),
        ({"encoder_q.1.bias": torch.zeros(3)}, r"1 of another shape: encoder_q\.1\.bias \(3,\) for \(64,\)$"),
    ],
)
def test_a_trunk_that_is_none_is_refused(state: dict[str, Tensor], change: dict[str, Tensor], says: str) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    for reads in (from_published, objective_from_published):
        with pytest.raises(ValueError, match=says):
            reads(changed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads_k.1.2.bias": None}, r"1 missing: heads_k\.1\.2\.bias$"),
        (
            {"encoder_k.0.weight": torch.zeros(1)},
            r"1 of another shape: encoder_k\.0\.weight \(1,\) for \(64, 3, 7, 7\)$",
        ),
        ({"heads_q.3.0.bias": torch.zeros(1)}, r"1 unknown: heads_q\.3\.0\.bias$"),
        ({"queue_ptr": torch.zeros(3)}, r"queue_ptr \(3,\) for \(3, 1\)$"),
        ({"queue": None}, r"has a queue \(sub-spaces, channels, length\); got none"),
        ({"queue": torch.zeros(4, 6)}, r"has a queue \(sub-spaces, channels, length\); got \(4, 6\)"),
        ({"queue_ptr": torch.tensor([[0], [6], [0]])}, "from 0 to 5 in a queue of 6 keys; got 6"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(state: dict[str, Tensor], change: dict[str, Tensor], says: str) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=says):
        objective_from_published(changed)
    assert len(from_published(changed)) == 120  # the query encoder is whole


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"queues.1.filled": None}, r"has queues; missing: queues\.1\.filled$"),
        ({f"queues.{i}.keys": None for i in range(3)}, "has queues; missing: all of them$"),
        ({"encoder.backbone.0.weight": torch.zeros(1)}, r"1 unknown: encoder\.backbone\.0\.weight$"),
        ({"head.weight": torch.zeros(1)}, r"1 unknown: head\.weight$"),
        ({"heads.0.2.bias": torch.zeros(5)}, r"1 of another shape: heads_q\.0\.2\.bias \(5,\) for \(4,\)$"),
        ({"key_encoder.backbone.bn1.bias": None}, r"1 missing: encoder_k\.1\.bias$"),
    ],
)
def test_an_objective_that_is_none_is_refused(change: dict[str, Tensor], says: str) -> None:
    with torch.device("meta"):
        ours = objective_of().state_dict()
    changed = {name: tensor for name, tensor in {**ours, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=says), torch.device("meta"):
        objective_to_published({name: tensor.to("meta") for name, tensor in changed.items()})


def test_a_trunk_of_other_names_is_not_written() -> None:
    trunk = {name: tensor.to("meta") for name, tensor in ResNet18(3, dates=1, width=0.03125).state_dict().items()}
    with pytest.raises(ValueError, match=r"of another shape: encoder_q\.0\.weight \(2, 3, 7, 7\) for \(64, 3, 7, 7\)"):
        to_published(trunk)
    with pytest.raises(ValueError, match=r"; 120 missing: .*; 1 unknown: 0\.weight$"):
        to_published({"0.weight": torch.zeros(1)})


def test_reflectance_is_scaled_as_the_published_images_are() -> None:
    """By way of 8 bits, the stretch of each band, and ImageNet's means and deviations."""
    mean, std = published_normalization()
    encoder = Encoder(ResNet18(3, dates=1, width=0.03125), bands=BANDS, mean=mean, std=std, magnification=1)
    eight_bits = torch.tensor([[51.0, 51.0, 51.0], [129.0, 103.0, 88.0]])
    found = encoder.normalize(eight_bits[:, None, :, None, None] / 255 * 10_000).flatten(1)
    low, high = torch.tensor([0.0, 2.0, 3.0]), torch.tensor([129.0, 103.0, 88.0])
    stretched = (eight_bits - low) / (high - low)
    expected = (stretched - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, expected)
    assert mean[0] == pytest.approx(2453.53, abs=0.01)  # red: 0.485 x 129 / 255
