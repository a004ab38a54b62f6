"""BiConvGRU and BiConvLSTM: a convolutional recurrent network over the dates from each end of the series.

M. Russwurm, M. Körner, "Multi-temporal land cover classification with sequential recurrent encoders", ISPRS
International Journal of Geo-Information 2018, in the form of github.com/michaeltrs/DeepSatModels (ConvBiRNN). One 3x3
convolution a date, shared by both directions, gives x; with convolutions W and U of 3x3 pixels and h = c = 0 at first,

    GRU   r = sigmoid(Wr x + Ur h + br)     u = sigmoid(Wu x + Uu h + bu)
          n = tanh(Wn x + Un (r h) + bn)    h' = (1 - u) h + u n
    LSTM  i, f, o = sigmoid(Wi x + Ui h + bi), likewise f and o     g = tanh(Wg x + Ug h + bg)
          c' = f c + i g                    h' = o tanh(c')

and the embedding is the last h of both directions. DeepSatModels convolves x and h as one map, [W U] [x; h]. Here W
meets the dates all at once and U them one by one, without the first date, where h is 0: the same sums in another order.

Deliberate differences, none of which changes a value of `paper` beyond rounding: the backward direction walks the same
series from its end, where the original is given a reversed copy; padded dates leave the state as it is, wherever they
stand, where the original reads the state of the last real date, which takes padding to stand at the end; the head gives
logits, the original their log-softmax. `variant="fixed"` puts the dates in the order of their days first; dates of one
day stay in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from sits_models.backbones.base import Backbone, Needs, TimeChannel, checkpointed, scaled, with_time_channels
from sits_models.recipe import Variant

__all__ = ["BiConvGRU", "BiConvLSTM", "ConvGRUCell", "ConvLSTMCell", "from_reference"]

FEATURES, HIDDEN = 64, 256
"""Published channels of x, and of the state of a direction."""
PUBLISHED_SIDE = 24
"""Of the chips of MTLCC, pixels."""


class ConvGRUCell(nn.Module):
    """A step of a convolutional GRU; the state is h (B, hidden, H, W)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        whole = nn.Conv2d(inputs + hidden, 3 * hidden, 3)  # r, u, n: weights are drawn as for [x; h]
        self.input_conv = _convolution(whole.weight[:, :inputs], whole.bias)
        self.gates_conv = _convolution(whole.weight[: 2 * hidden, inputs:])
        self.new_conv = _convolution(whole.weight[2 * hidden :, inputs:])

    def forward(self, inputs: Tensor, valid: Tensor, state: Tensor | None = None) -> Tensor:
        """The next state; the same one where `valid` (B, 1, 1, 1) is False. `inputs` is `input_conv` of x."""
        hidden = inputs.shape[1] // 3
        gates, new = inputs[:, : 2 * hidden], inputs[:, 2 * hidden :]
        if state is None:
            return torch.sigmoid(gates[:, hidden:]) * valid * torch.tanh(new)
        reset, update = torch.sigmoid(gates + self.gates_conv(state)).chunk(2, dim=1)
        new = torch.tanh(new + self.new_conv(state * reset))
        return torch.lerp(state, new, update * valid)

    @staticmethod
    def hidden_of(state: Tensor) -> Tensor:
        """h of a state."""
        return state


class ConvLSTMCell(nn.Module):
    """A step of a convolutional LSTM; the state is h and c (2, B, hidden, H, W)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        whole = nn.Conv2d(inputs + hidden, 4 * hidden, 3)  # i, f, o, g
        self.input_conv = _convolution(whole.weight[:, :inputs], whole.bias)
        self.hidden_conv = _convolution(whole.weight[:, inputs:])

    def forward(self, inputs: Tensor, valid: Tensor, state: Tensor | None = None) -> Tensor:
        """The next state; the same one where `valid` (B, 1, 1, 1) is False. `inputs` is `input_conv` of x."""
        sums = inputs if state is None else inputs + self.hidden_conv(state[0])
        enter, forget, leave = torch.sigmoid(sums[:, : sums.shape[1] // 4 * 3]).chunk(3, dim=1)
        cell = enter * torch.tanh(sums[:, sums.shape[1] // 4 * 3 :])
        if state is not None:
            cell = torch.addcmul(cell, forget, state[1])
        following = torch.stack([leave * torch.tanh(cell), cell])
        return following * valid if state is None else torch.where(valid, following, state)

    @staticmethod
    def hidden_of(state: Tensor) -> Tensor:
        """h of a state."""
        return state[0]


def _convolution(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """A 3x3 convolution that begins with copies of these."""
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made


class _BiConvRNN(Backbone):
    """What both share: all but the cell.

    A pixel of the state depends on two pixels more on each side a date (GRU; LSTM: one), so the reach grows with the
    series, and a model may be given longer series than it was trained on: it is applied at the side of training.
    """

    head = "conv3"
    ignores_padding = True
    cell: type[ConvGRUCell | ConvLSTMCell]

    def __init__(
        self,
        bands: int,
        *,
        dates: int,  # noqa: ARG002  # any number of dates will do
        size: int | None = None,
        width: float = 1.0,
        variant: Variant = "paper",
        time_channels: tuple[TimeChannel, ...] | None = None,
        outputs: int | None = None,
    ) -> None:
        """Half of the `outputs` channels come from each direction. Raises ValueError for fewer than 2 of them."""
        super().__init__()
        self.channels = 2 * scaled(HIDDEN, width) if outputs is None else outputs
        if self.channels < 2:
            raise ValueError(f"an embedding of two directions has at least 2 channels; got outputs={outputs}")
        self.variant = variant
        self.time_channels = ("day_of_year",) if time_channels is None else time_channels
        self.needs = Needs(dates=None, size_multiple=1)
        self.tile_size = PUBLISHED_SIDE if size is None else size
        self.ignores_order = variant == "fixed"
        features = scaled(FEATURES, width)
        self.inconv = nn.Conv2d(bands + len(self.time_channels), features, 3, padding=1)
        self.forward_cell = self.cell(features, self.channels - self.channels // 2)
        self.backward_cell = self.cell(features, self.channels // 2)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The last states of both directions, (B, channels, H, W); 0 for a series without a valid date."""
        if self.variant == "fixed":
            order = torch.argsort(day, dim=1, stable=True)
            rows = torch.arange(day.shape[0], device=day.device)[:, None]
            image, valid, day = image[rows, order], valid[rows, order], day[rows, order]
        return self.embed_series(with_time_channels(image, valid, day, self.time_channels), valid)

    def embed_series(self, series: Tensor, valid: Tensor) -> Tensor:
        """The same of bands and time channels (B, T, C, H, W); the dates that `valid` (B, T) marks are taken as they
        stand."""
        t = valid.shape[1]
        frames = series.transpose(0, 1).flatten(0, 1)  # (T*B, C, H, W): all chips of a date are one block
        # On a CPU the gradients of the weights are slower that way, by more than the rest of an LSTM is faster.
        frames = frames.contiguous(memory_format=torch.channels_last if frames.is_cuda else torch.contiguous_format)
        features, known = self.inconv(frames), valid.T  # (T*B, F, H, W), (T, B)
        ends = [
            self._run(self.forward_cell, features, known, range(t)),
            self._run(self.backward_cell, features, known, range(t - 1, -1, -1)),
        ]
        return torch.cat(ends, dim=1)

    def _run(self, cell: ConvGRUCell | ConvLSTMCell, features: Tensor, valid: Tensor, order: range) -> Tensor:
        """The last hidden state of a direction, (B, hidden, H, W)."""
        # With checkpointing the sums of the gates, many times as wide as the features, are not kept either. A CPU is
        # slower on those of all dates, which fit no cache; a GPU on one date after the other.
        late = not features.is_cuda or (self.checkpointing and self.training)
        inputs = features if late else cell.input_conv(features)

        def step(x: Tensor, known: Tensor, *state: Tensor) -> Tensor:
            return cast(Tensor, cell(cell.input_conv(x) if late else x, known[:, None, None, None], *state))

        # Unbound at once: the gradient of one date after the other would each time be that of the whole series.
        dates = inputs.unflatten(0, valid.shape).unbind(0)
        state: tuple[Tensor, ...] = ()
        for t in order:
            state = (checkpointed(self, step, dates[t], valid[t], *state),)
        return cell.hidden_of(state[0])


class BiConvGRU(_BiConvRNN):
    """Gated recurrent units: the better of the two in Russwurm and Körner 2018."""

    cell = ConvGRUCell


class BiConvLSTM(_BiConvRNN):
    """Long short-term memory without peepholes, as in DeepSatModels; of its two states the hidden one is used."""

    cell = ConvLSTMCell


GATES = ("reset_gate", "update_gate", "out_gate")
"""The convolutions of a GRU of the original, in our order."""


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the original (ConvBiRNN of michaeltrs/DeepSatModels, either cell) by the names of our objective.

    Raises ValueError for an entry it does not know, such as those of a second recurrent layer, which is not built here,
    for one that is missing, and for one of another number of dimensions.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of a model on several GPUs
    parts = GATES if any(f".{gate}." in name for name in given for gate in GATES) else ("conv",)
    cells = {f"{direction}_model.cell_list.0": f"{direction}_cell" for direction in ("forward", "backward")}
    kernels = {"inconv": 5, "outconv": 4} | {f"{cell}.{part}": 4 for cell in cells for part in parts}
    known = {f"{name}.weight": n for name, n in kernels.items()} | {f"{name}.bias": 1 for name in kernels}
    for what, names in (
        ("has other entries", [name for name in given if name not in known]),
        ("also has the entries", [name for name in known if name not in given]),
        (
            "has other shapes",
            [f"{name} {tuple(x.shape)}" for name, x in given.items() if x.ndim != known.get(name, x.ndim)],
        ),
    ):
        if names:
            raise ValueError(f"a ConvBiRNN of DeepSatModels of one recurrent layer {what}: {', '.join(names)}")
    first = given["inconv.weight"]
    ours = {"encoder.backbone.inconv.weight": first.flatten(2, 3)}  # (F, C, 1, 3, 3) to (F, C, 3, 3)
    for theirs, name in cells.items():
        weight, bias = (torch.cat([given[f"{theirs}.{part}.{kind}"] for part in parts]) for kind in ("weight", "bias"))
        ours |= {f"encoder.backbone.{name}.{key}": value for key, value in _split(weight, bias, len(first)).items()}
    ours["encoder.backbone.inconv.bias"] = given["inconv.bias"]
    return ours | {f"head.{kind}": given[f"outconv.{kind}"] for kind in ("weight", "bias")}


def _split(weight: Tensor, bias: Tensor, features: int) -> dict[str, Tensor]:
    """Entries of a cell, from the convolution of [x; h] with all gates."""
    hidden = weight.shape[1] - features
    parts = {"input_conv.weight": weight[:, :features], "input_conv.bias": bias}
    if weight.shape[0] == 4 * hidden:
        return parts | {"hidden_conv.weight": weight[:, features:]}
    return parts | {
        "gates_conv.weight": weight[: 2 * hidden, features:],
        "new_conv.weight": weight[2 * hidden :, features:],
    }
