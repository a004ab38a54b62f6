from __future__ import annotations

import copy
from functools import partial
from typing import get_args

import pytest
import torch
from tests.models.meeting import Gather, together
from tests.models.samples import make_sample
from tests.models.sharing import part_of
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.resnet import ResNet18
from sits_models.device import Rank
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss
from sits_models.objectives.momentum import follow
from sits_models.objectives.seco import SUB_SPACES, KeyViews, Mode, SeasonalContrast
from sits_models.objectives.shuffling import Shuffled
from sits_models.recipe import SeCoRecipe

BANDS = ("B04", "B03", "B02")
MODES: tuple[Mode, ...] = get_args(Mode)


class Exact(Encoder):
    """In double precision."""

    def normalize(self, image: Tensor) -> Tensor:
        return super().normalize(image).double()


def objective_of(
    mode: Mode = "seco", *, kind: type[Encoder] = Encoder, frozen: bool = False, seed: int = 0, **options: float
) -> SeasonalContrast:
    """Small, in training mode; batch norms as in evaluation where they are `frozen`."""
    torch.manual_seed(seed)
    backbone = ResNet18(len(BANDS), dates=1, width=0.03125)
    encoder = kind(backbone, bands=BANDS, mean=[5000.0] * 3, std=[2900.0] * 3, magnification=1)
    changes = {"channels": 6, "queue": 10, **options}
    objective = SeasonalContrast(encoder, SeCoRecipe(mode=mode, **changes))  # type: ignore[arg-type]
    # The key side is another one, so that it shows which of them a vector is of.
    with torch.no_grad():
        for parameter in [*objective.key_encoder.parameters(), *objective.key_heads.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    for module in objective.modules():
        if frozen and isinstance(module, nn.BatchNorm2d):
            module.eval()
    return objective


def views_of(objective: SeasonalContrast, *, batch: int = 4, seed: int = 0) -> KeyViews:
    drawn = [
        make_sample(batch=batch, dates=1, bands=BANDS, size=33, seed=10 * seed + number)
        for number in range(1 + len(objective.sub_spaces))
    ]
    return KeyViews(drawn[0], tuple(drawn[1:]))


def part_of_views(views: KeyViews, rank: Rank) -> KeyViews:
    return KeyViews(part_of(views.query, rank), tuple(part_of(key, rank) for key in views.keys))


def in_loops(objective: SeasonalContrast, views: KeyViews) -> tuple[Tensor, list[Tensor]]:
    """The loss of a step after its momentum, and the keys it stores: chip by chip and key by key, from the paper."""
    temperature, spaces = objective.options.temperature, len(objective.sub_spaces)
    query = objective.encoder(views.query).flatten(2).sum(2) / objective.encoder(views.query)[0, 0].numel()
    with torch.no_grad():
        maps = [objective.key_encoder(key) for key in views.keys]
        keys = [found.flatten(2).sum(2) / found[0, 0].numel() for found in maps]
    total, stored = query.new_zeros(()), []
    for i in range(spaces):
        queue = objective.queues[i].keys.clone()
        with torch.no_grad():
            projected = [functional.normalize(objective.key_heads[i](found), dim=1) for found in keys]
        for n, vector in enumerate(query):
            one = objective.heads[i](vector)
            one = one / one.norm()
            others = [*queue]
            if i > 0:
                others += [key for j in range(spaces) if j != i for key in projected[j]]
            best = one @ projected[i][n]
            scores = torch.stack([best, *(one @ other for other in others)]) / temperature
            total = total + (scores.exp().sum().log() - scores[0]) / len(query)
        stored.append(projected[i])
    return total, stored


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frozen", [False, True])
def test_loss_gradients_and_queues_are_those_of_loops(mode: Mode, *, frozen: bool) -> None:
    ours = objective_of(mode, kind=Exact, frozen=frozen, momentum=0.7).double()
    views = views_of(ours)
    theirs = copy.deepcopy(ours)
    follow(theirs.key_encoder, theirs.encoder, momentum=0.7)
    follow(theirs.key_heads, theirs.heads, momentum=0.7)
    expected, stored = in_loops(theirs, views)
    loss = ours.loss(views)
    torch.testing.assert_close(loss.value, expected)
    assert loss.value.dtype == torch.float64
    assert loss.count.item() == 4
    loss.value.backward()
    expected.backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (name.startswith("key_")), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")
    for i, keys in enumerate(stored):
        torch.testing.assert_close(ours.queues[i].keys[:4], keys)
        assert torch.equal(ours.queues[i].keys[4:], theirs.queues[i].keys[4:])
        assert int(ours.queues[i].pointer) == 4


def test_logits_have_the_positive_first_then_the_queue_and_the_other_views() -> None:
    objective = objective_of(queue=16)
    with torch.no_grad():
        _, contrasts = objective.contrasts(views_of(objective, batch=8))
    logits = [contrast.logits(objective.options.temperature) for contrast in contrasts]
    assert [tuple(found.shape) for found in logits] == [(8, 17), (8, 33), (8, 33)]
    for found, contrast, queue in zip(logits, contrasts, objective.queues, strict=True):
        torch.testing.assert_close(found[:, 0], (contrast.query * contrast.positive).sum(1) / 0.07)
        torch.testing.assert_close(found[:, 1:17], contrast.query @ queue.keys.T / 0.07)
        torch.testing.assert_close(contrast.query.norm(dim=1), torch.ones(8))


def test_each_key_view_moves_the_statistics_of_the_key_side_and_the_query_those_of_its_own() -> None:
    objective = objective_of()
    objective.loss(views_of(objective))
    counted = [side.backbone.bn1.num_batches_tracked.item() for side in (objective.encoder, objective.key_encoder)]
    assert counted == [1, 3]


def train(objective: SeasonalContrast, optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    values = []
    for step in steps:
        loss = objective.loss(views_of(objective, batch=3 + step % 2, seed=step))  # 10 is no multiple of them
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        values.append(loss.value.detach())
    return values


def optimizer_of(objective: SeasonalContrast) -> torch.optim.SGD:
    return torch.optim.SGD(objective.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)


def test_a_training_that_is_resumed_goes_on_as_if_undisturbed() -> None:
    undisturbed, resumed = objective_of(momentum=0.9), objective_of(momentum=0.9, seed=1)
    optimizer, other = optimizer_of(undisturbed), optimizer_of(resumed)
    train(undisturbed, optimizer, range(4))
    saved = copy.deepcopy((undisturbed.state_dict(), optimizer.state_dict()))
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    assert [int(queue.pointer) for queue in resumed.queues] == [4, 4, 4]
    ours, theirs = train(undisturbed, optimizer, range(4, 7)), train(resumed, other, range(4, 7))
    assert [value.item() for value in ours] == [value.item() for value in theirs]
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_an_evaluation_changes_nothing_and_exchanges_nothing() -> None:
    objective = objective_of().eval()
    views = views_of(objective)

    def never(*_: object) -> Tensor:
        raise AssertionError("a process may have fewer batches of a validation than others")

    objective.gathered, objective.apart = never, never
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    with torch.no_grad():
        values = [objective.loss(views).value.item() for _ in range(2)]
    assert values[0] == values[1]
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("mode", ["seco", "moco"])
@pytest.mark.parametrize(("chips", "processes"), [(5, 2), (5, 3)])
def test_processes_that_share_a_batch_make_the_step_of_one(mode: Mode, chips: int, processes: int) -> None:
    alone = objective_of(mode, frozen=True, momentum=0.9)
    views = views_of(alone, batch=chips)
    copies = [copy.deepcopy(alone) for _ in range(processes)]

    def work(gathered: Gather, *, number: int) -> Loss:
        objective = copies[number]
        objective.gathered = gathered
        loss = objective.loss(part_of_views(views, Rank(number=number, of=processes)))
        loss.value.backward()
        return loss

    losses = together([partial(work, number=number) for number in range(processes)])
    whole = alone.loss(views)
    whole.value.backward()
    assert [loss.count.item() for loss in losses] == [
        len(range(chips)[Rank(number=number, of=processes).part(chips)]) for number in range(processes)
    ]
    shares = [loss.count / chips for loss in losses]
    summed = sum(share * loss.value for share, loss in zip(shares, losses, strict=True))
    torch.testing.assert_close(summed, whole.value)
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None:
            theirs = [share * one.get_parameter(name).grad for share, one in zip(shares, copies, strict=True)]
            torch.testing.assert_close(sum(theirs), parameter.grad, rtol=1e-4, atol=1e-5)
    for one in copies:
        for ours, found in zip(alone.queues, one.queues, strict=True):
            torch.testing.assert_close(found.keys, ours.keys)
            assert torch.equal(found.keys, copies[0].get_buffer(_name_of(one, found)))
            assert int(found.pointer) == chips
    for monitor in whole.monitors:
        found = sum(share * loss.monitors[monitor] for share, loss in zip(shares, losses, strict=True))
        torch.testing.assert_close(found, whole.monitors[monitor], rtol=1e-4, atol=1e-5)


def _name_of(objective: SeasonalContrast, queue: nn.Module) -> str:
    return next(f"{name}.keys" for name, module in objective.named_modules() if module is queue)


@pytest.mark.parametrize("frozen", [True, False])
def test_shuffled_keys_are_those_of_their_queries(*, frozen: bool) -> None:
    """Without statistics of a batch it does not matter which process encodes a chip; with them it does."""
    objective = objective_of("moco", frozen=frozen)
    views, deal = views_of(objective, batch=7), torch.tensor([6.0, 3.0, 0.0, 5.0, 1.0, 2.0, 4.0])

    def work(gathered: Gather, *, number: int, shuffled: bool) -> Tensor:
        own, rank = copy.deepcopy(objective), Rank(number=number, of=2)
        own.gathered = gathered
        if shuffled:
            own.apart = Shuffled(gathered)
        part = part_of_views(views, rank)
        own.loss(KeyViews(part.query, part.keys, deal[rank.part(7)]))
        return own.queues[0].keys[:7]

    plain, shuffled = (
        together([partial(work, number=number, shuffled=shuffled) for number in range(2)]) for shuffled in (False, True)
    )
    assert torch.equal(*shuffled)
    assert torch.allclose(plain[0], shuffled[0], atol=1e-5) == frozen


def test_weights_of_the_encoder_reach_the_key_side() -> None:
    objective = objective_of()
    objective.catch_up()
    for name, parameter in objective.encoder.named_parameters():
        assert torch.equal(parameter, objective.key_encoder.get_parameter(name))
    for name, parameter in objective.heads.named_parameters():
        assert torch.equal(parameter, objective.key_heads.get_parameter(name))


def test_monitors_tell_a_collapse_and_what_is_recognised() -> None:
    objective = objective_of("moco", frozen=True)
    objective.follow(momentum=0.0)
    view = views_of(objective).query
    monitors = objective.loss(KeyViews(view, (view,))).monitors
    assert set(monitors) == {"accuracy_all", "unit_deviation_all", "effective_rank_all"}
    assert not any(monitor.requires_grad for monitor in monitors.values())
    assert monitors["accuracy_all"].item() == 1.0  # a key that is its query
    assert monitors["unit_deviation_all"].item() > 0.01
    assert monitors["effective_rank_all"].item() > 1.1
    with torch.no_grad():
        last = objective.heads[0][2]
        last.weight.zero_()  # every embedding is the bias of its head
    objective.follow(momentum=0.0)
    monitors = objective.loss(KeyViews(view, (view,))).monitors
    assert monitors["unit_deviation_all"].item() == pytest.approx(0.0, abs=1e-3)
    assert monitors["effective_rank_all"].item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_leaves_queues_in_float32(mode: Mode) -> None:
    objective = objective_of(mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective.loss(views_of(objective))
    loss.value.backward()
    assert loss.value.dtype == torch.float32
    assert all(queue.keys.dtype == torch.float32 for queue in objective.queues)
    torch.testing.assert_close(objective.queues[0].keys.norm(dim=1), torch.ones(10))


def test_names_of_the_encoder_are_those_of_any_objective() -> None:
    objective = objective_of("moco_tp")
    begins = {name.split(".")[0] for name in objective.state_dict()}
    assert begins == {"encoder", "heads", "key_encoder", "key_heads", "queues"}
    assert objective.sub_spaces == SUB_SPACES["moco_tp"] == ("all",)


def test_published_options_are_the_defaults() -> None:
    assert SeCoRecipe() == SeCoRecipe(mode="seco", channels=128, queue=16384, momentum=0.999, temperature=0.07)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "simclr"}, "a mode is moco, moco_tp, seco; got 'simclr'"),
        ({"momentum": 1.5}, r"a momentum lies from 0 to 1; got 1\.5"),
        ({"temperature": 0.0}, r"seco\.temperature is above 0; got 0\.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SeCoRecipe(**options)  # type: ignore[arg-type]


def test_finer_labels_are_refused() -> None:
    encoder = Encoder(ResNet18(3, dates=1, width=0.03125), bands=BANDS, mean=[0.0] * 3, std=[1.0] * 3, magnification=2)
    with pytest.raises(ValueError, match=r"ones 2 times finer are no use to it: set data\.labels=1"):
        SeasonalContrast(encoder, SeCoRecipe(queue=4))


def test_views_that_do_not_fit_are_refused() -> None:
    objective = objective_of("seco")
    views = views_of(objective)
    with pytest.raises(ValueError, match="the mode seco has 3 key views; got 2"):
        objective.loss(KeyViews(views.query, views.keys[:2]))
    with pytest.raises(ValueError, match="views of as many chips; got 4, 4, 2"):
        KeyViews(views.query, (views.keys[0], part_of(views.keys[1], Rank(), slice(2))))
    with pytest.raises(ValueError, match=r"4 chips are dealt out by as many numbers; got \(3,\)"):
        KeyViews(views.query, views.keys, torch.zeros(3))
