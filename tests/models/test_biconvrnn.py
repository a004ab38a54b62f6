from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.biconvrnn import BiConvGRU, BiConvLSTM, ConvGRUCell, ConvLSTMCell, from_reference
from sits_models.checkpoints import from_reference as model_from_reference
from sits_models.heads import build_head

BANDS, SIZE = 3, 6
Variant = Literal["paper", "fixed"]
KINDS = (BiConvGRU, BiConvLSTM)
each_kind = pytest.mark.parametrize("kind", KINDS)


def model(
    kind: type[BiConvGRU] | type[BiConvLSTM], variant: Variant = "paper", **changes: int
) -> BiConvGRU | BiConvLSTM:
    torch.manual_seed(0)
    return kind(BANDS, dates=4, width=1 / 32, variant=variant, **changes).eval()


def series(batch: int, dates: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, dates, BANDS, SIZE, SIZE, generator=generator)
    day = 18536 + torch.randint(1, 30, (batch, dates), generator=generator).cumsum(1)
    return image, torch.ones(batch, dates, dtype=torch.bool), day.to(torch.int32)


def whole(cell: ConvGRUCell | ConvLSTMCell) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution of [x; h] with all gates."""
    parts = [cell.gates_conv, cell.new_conv] if isinstance(cell, ConvGRUCell) else [cell.hidden_conv]
    bias = cell.input_conv.bias
    assert bias is not None
    return torch.cat([cell.input_conv.weight, torch.cat([part.weight for part in parts])], dim=1), bias


def by_the_equations(cell: ConvGRUCell | ConvLSTMCell, features: list[Tensor]) -> Tensor:
    """The last h of features (1, F, H, W), date by date, each gate a convolution of [x; h]."""
    weight, bias = whole(cell)
    n = len(weight) // (3 if isinstance(cell, ConvGRUCell) else 4)

    def gate(number: int, x: Tensor, h: Tensor) -> Tensor:
        rows = slice(number * n, (number + 1) * n)
        return functional.conv2d(torch.cat([x, h], dim=1), weight[rows], bias[rows], padding=1)

    h = c = torch.zeros(1, n, SIZE, SIZE)
    for x in features:
        if isinstance(cell, ConvGRUCell):
            r, u = gate(0, x, h).sigmoid(), gate(1, x, h).sigmoid()
            h = (1 - u) * h + u * gate(2, x, r * h).tanh()
        else:
            i, f, o = (gate(number, x, h).sigmoid() for number in range(3))
            c = f * c + i * gate(3, x, h).tanh()
            h = o * c.tanh()
    return h


@each_kind
@pytest.mark.parametrize("known", [[0, 1, 2, 3], [1, 3], [2]])
def test_states_are_those_of_the_equations_over_the_valid_dates(
    kind: type[BiConvGRU] | type[BiConvLSTM], known: list[int]
) -> None:
    backbone = model(kind)
    frames = torch.randn(2, 4, BANDS + 1, SIZE, SIZE)
    valid = torch.zeros(2, 4, dtype=torch.bool)
    valid[0, known], valid[1] = True, True
    with torch.no_grad():
        found = backbone.embed_series(frames, valid)
        features = [backbone.inconv(frames[:1, t]) for t in known]
        expected = [
            by_the_equations(backbone.forward_cell, features),
            by_the_equations(backbone.backward_cell, features[::-1]),
        ]
    torch.testing.assert_close(found[:1], torch.cat(expected, dim=1), atol=1e-6, rtol=1e-5)


@each_kind
def test_a_state_of_no_date_is_zero(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    image, valid, day = series(2, 3, seed=1)
    valid[1] = False
    with torch.no_grad():
        found = model(kind)(image, valid, day)
    assert (found[1] == 0).all()
    assert (found[0] != 0).any()


@each_kind
def test_only_fixed_puts_the_dates_in_the_order_of_their_days(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    image, valid, day = series(2, 4, seed=2)
    order = torch.tensor([2, 0, 3, 1])
    mixed = (image[:, order], valid[:, order], day[:, order])
    with torch.no_grad():
        paper, fixed = model(kind)(image, valid, day), model(kind, "fixed")(image, valid, day)
        assert torch.equal(paper, fixed)
        assert torch.equal(model(kind, "fixed")(*mixed), fixed)
        assert (model(kind)(*mixed) - paper).abs().max() > 1e-4


@each_kind
def test_dates_of_one_day_stay_in_the_order_in_which_they_stand(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    image, valid, day = series(1, 3, seed=2)
    day[0, 1] = day[0, 0]
    swapped = torch.tensor([1, 0, 2])
    with torch.no_grad():
        fixed = model(kind, "fixed")(image, valid, day)
        assert torch.equal(fixed, model(kind)(image, valid, day))
        assert (model(kind, "fixed")(image[:, swapped], valid, day) - fixed).abs().max() > 1e-4


@each_kind
def test_checkpointing_leaves_values_and_gradients_as_they_are(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    image, valid, day = series(2, 4, seed=3)
    valid[1, 2:] = False
    usual, saving = model(kind).train(), model(kind).train()
    saving.checkpointing = True
    found = [backbone(image, valid, day) for backbone in (usual, saving)]
    torch.testing.assert_close(found[1], found[0])
    for embedded in found:
        embedded.square().mean().backward()
    for (name, ours), theirs in zip(saving.named_parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_the_gates_of_the_dates_are_not_kept_where_they_are_computed_again() -> None:
    image, valid, day = series(2, 8, seed=4)
    kept = []
    for checkpointing in (False, True):
        backbone = model(BiConvGRU).train()
        backbone.checkpointing = checkpointing
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.update({tensor.data_ptr(): tensor.numel()}) or tensor,  # type: ignore[misc]
            lambda tensor: tensor,
        ):
            embedded = backbone(image, valid, day)
        kept.append(sum(sizes.values()))
        assert embedded.requires_grad
    assert kept[1] < 0.6 * kept[0]


def test_the_published_models_have_the_published_numbers_of_parameters() -> None:
    def count(classes: int, time_channels: tuple[Literal["day_of_year", "year"], ...]) -> int:
        backbone = BiConvGRU(13, dates=16, time_channels=time_channels)
        head = build_head("conv3", channels=backbone.channels, classes=classes, variant="paper")
        return sum(p.numel() for p in [*backbone.parameters(), *head.parameters()])

    assert count(20, ("day_of_year",)) == 4_525_524
    assert count(18, ("day_of_year", "year")) == 4_516_882


@pytest.mark.parametrize("outputs", [2, 7])
@each_kind
def test_any_number_of_outputs_is_shared_by_two_directions(
    kind: type[BiConvGRU] | type[BiConvLSTM], outputs: int
) -> None:
    image, valid, day = series(1, 2, seed=5)
    assert model(kind, outputs=outputs)(image, valid, day).shape == (1, outputs, SIZE, SIZE)
    with pytest.raises(ValueError, match="at least 2 channels; got outputs=1"):
        model(kind, outputs=1)


def test_weights_are_drawn_as_for_the_convolution_of_both_inputs() -> None:
    torch.manual_seed(0)
    cell = ConvGRUCell(64, 256)
    weight, bias = whole(cell)
    bound = (320 * 9) ** -0.5  # of PyTorch's convolutions: 1 / sqrt(fan in)
    for values in (weight[:, :64], weight[:, 64:], bias):
        assert 0.95 * bound < values.abs().max() <= bound


def theirs_of(state: dict[str, Tensor], features: int = 2) -> dict[str, Tensor]:
    """Entries of the original, by the names of DeepSatModels, from ours."""
    renamed = {"inconv.bias": state["inconv.bias"], "inconv.weight": state["inconv.weight"][:, :, None]}
    for direction in ("forward", "backward"):
        start, cell = f"{direction}_model.cell_list.0", f"{direction}_cell"
        if f"{cell}.hidden_conv.weight" in state:
            parts = [state[f"{cell}.input_conv.weight"], state[f"{cell}.hidden_conv.weight"]]
            renamed[f"{start}.conv.weight"] = torch.cat(parts, dim=1)
            renamed[f"{start}.conv.bias"] = state[f"{cell}.input_conv.bias"]
            continue
        hidden = torch.cat([state[f"{cell}.gates_conv.weight"], state[f"{cell}.new_conv.weight"]])
        both = torch.cat([state[f"{cell}.input_conv.weight"], hidden], dim=1)
        # The original lists them in an order of its own.
        for gate, weight, bias in reversed(
            [*zip(("reset", "update", "out"), both.chunk(3), state[f"{cell}.input_conv.bias"].chunk(3), strict=True)]
        ):
            renamed |= {f"{start}.{gate}_gate.weight": weight, f"{start}.{gate}_gate.bias": bias}
    return renamed


@each_kind
def test_weights_of_the_original_come_back_by_our_names(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    backbone = model(kind)
    head = nn.Conv2d(backbone.channels, 5, 3, padding=1)
    state = theirs_of(dict(backbone.state_dict()))
    state |= {f"outconv.{name}": tensor for name, tensor in head.state_dict().items()}
    found = from_reference({f"module.{name}": tensor for name, tensor in state.items()})
    expected = {f"encoder.backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    expected |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_whole_model_is_read_with_its_classes_and_its_channels_of_time() -> None:
    backbone = BiConvGRU(4, dates=3, time_channels=("day_of_year", "year"))
    state = theirs_of(dict(backbone.state_dict()))
    head = nn.Conv2d(512, 7, 3, padding=1)
    state |= {f"outconv.{name}": tensor for name, tensor in head.state_dict().items()}
    # The inner convolution comes first in the original.
    objective = model_from_reference(state, architecture="biconvgru", bands=("B02", "B03", "B04", "B08"), dates=3)
    read = objective.encoder.backbone
    assert read.time_channels == ("day_of_year", "year")
    assert read.tile_size == 24
    image, valid, day = torch.randn(1, 3, 4, 4, 4), torch.ones(1, 3, dtype=torch.bool), torch.arange(3)[None] + 18000
    with torch.no_grad():
        assert torch.equal(read(image, valid, day), backbone(image, valid, day))
    with pytest.raises(ValueError, match="take 6 channels, which is not 3 bands with 0, 1 or 2"):
        model_from_reference(state, architecture="biconvgru", bands=("B02", "B03", "B04"), dates=3)
    with pytest.raises(ValueError, match=r"these are not the weights of a biconvlstm .*hidden_conv"):
        model_from_reference(state, architecture="biconvlstm", bands=("B02", "B03", "B04", "B08"), dates=3)


def test_a_second_recurrent_layer_and_foreign_entries_are_named() -> None:
    known = {"inconv.weight": torch.zeros(2, 1, 1, 3, 3), "forward_model.cell_list.1.conv.bias": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"one recurrent layer has other entries: forward_model\.cell_list\.1\.conv"):
        from_reference(known)
    with pytest.raises(ValueError, match=r"also has the entries: inconv\.weight, outconv\.weight, forward"):
        from_reference({"outconv.bias": torch.zeros(1)})
    # A file that was cut off.
    with pytest.raises(ValueError, match=r"also has the entries: outconv\.weight, .*inconv\.bias"):
        from_reference({"inconv.weight": torch.zeros(2, 1, 1, 3, 3)})
    state = theirs_of(dict(model(BiConvGRU).state_dict()))
    state |= {"outconv.weight": torch.zeros(1, 16, 3, 3), "outconv.bias": torch.zeros(1)}
    state["inconv.weight"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"has other shapes: inconv\.weight \(2,\)"):
        from_reference(state)


@pytest.mark.slow
@each_kind
def test_a_series_can_be_exported_and_its_padding_stays_free(kind: type[BiConvGRU] | type[BiConvLSTM]) -> None:
    image, valid, day = series(2, 3, seed=6)
    backbone = model(kind, "fixed")
    exported = torch.export.export(backbone, (image, valid, day)).module()
    valid[1, 1] = False
    with torch.no_grad():
        torch.testing.assert_close(exported(image, valid, day), backbone(image, valid, day))
