"""The layout of SeCo's published checkpoints: theirs to ours and back, bit by bit.

Code: ServiceNow/seasonal-contrast, models/moco2_module.py. Under `state_dict` of a checkpoint lie queue (sub-spaces,
channels, length) and queue_ptr (sub-spaces, 1); encoder_q and encoder_k, the children of torchvision's ResNet by their
number; and heads_q and heads_k.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sits_models.backbones.trunk import Depth, build_trunk, trunk_channels

__all__ = [
    "PUBLISHED_BANDS",
    "from_published",
    "objective_from_published",
    "objective_to_published",
    "published_layout",
    "published_normalization",
    "to_published",
]

Layout = dict[str, tuple[int, ...]]
"""Shapes by name."""

PUBLISHED_BANDS = ("B04", "B03", "B02")
_STRETCH = ((0, 129), (2, 103), (3, 88))
"""Of each band, in 255ths of reflectance 1: what becomes 0 and 1 (datasets/seco_dataset.py)."""
_IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
"""Mean and deviation of red, green and blue in [0, 1], by which the stretched values are normalized."""

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Of a ResNet; 2, 3, 8 and 9, which rectify, pool and flatten, have no tensors."""
_PARTS = {
    "encoder_q": "encoder.backbone",
    "encoder_k": "key_encoder.backbone",
    "heads_q": "heads",
    "heads_k": "key_heads",
}
_NORMALIZATION = tuple(f"{encoder}.{name}" for encoder in ("encoder", "key_encoder") for name in ("mean", "std"))
"""Of ours; theirs is in the code that reads the images."""


def published_normalization() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and deviations of stored reflectance (x 10000) by which an encoder scales `PUBLISHED_BANDS` as SeCo does.

    SeCo also clips what is darker or brighter than its stretch, and rounds to 8 bits.
    """
    unit = 10_000 / 255
    mean = tuple(unit * (low + m * (high - low)) for (low, high), (m, _) in zip(_STRETCH, _IMAGENET, strict=True))
    return mean, tuple(unit * s * (high - low) for (low, high), (_, s) in zip(_STRETCH, _IMAGENET, strict=True))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The query encoder by torchvision's names, which those of our ResNet are; heads, keys and queues are left out.

    Raises ValueError where one of its tensors is missing or of another shape than those of ResNet-18 or ResNet-50, and
    for any that SeCo has not.
    """
    parts = tuple(f"{part}." for part in _PARTS)
    unknown = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(parts) and name not in ("queue", "queue_ptr")
    }
    trunk = {name: tensor for name, tensor in state.items() if name.startswith("encoder_q.")}
    depth, bands = _trunk_of(trunk)
    _check({**trunk, **unknown}, _numbered(depth, bands, "encoder_q"), depth)
    return {_torchvision(name.removeprefix("encoder_q.")): tensor for name, tensor in trunk.items()}


def to_published(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The query encoder of a checkpoint, from a ResNet without its last layer; what `from_published` takes apart.

    Raises ValueError where a tensor is missing, unknown or of another shape.
    """
    found = {_published("encoder_q", name) or name: tensor for name, tensor in trunk.items()}
    depth, bands = _trunk_of(found)
    _check(found, _numbered(depth, bands, "encoder_q"), depth)
    return found


def objective_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `SeasonalContrast` on a ResNet, without the means and deviations that its images have.

    A checkpoint does not say how full its queues are: they are taken to be full. Raises ValueError where a tensor is
    missing, unknown or of another shape, and for a pointer outside of its queue.
    """
    _check(state, *_layout_of(state))
    ours = {_ours(name): tensor for name, tensor in state.items() if not name.startswith("queue")}
    for i, (keys, pointer) in enumerate(zip(state["queue"], state["queue_ptr"], strict=True)):
        length = keys.shape[1]
        if not 0 <= int(pointer) < length:
            raise ValueError(f"a pointer lies from 0 to {length - 1} in a queue of {length} keys; got {int(pointer)}")
        ours[f"queues.{i}.keys"] = keys.T.contiguous()
        ours[f"queues.{i}.pointer"] = pointer[0].clone()
        ours[f"queues.{i}.filled"] = torch.full_like(pointer[0], length)
    return ours


def objective_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a checkpoint, from that of a `SeasonalContrast` on a ResNet, in the order of the published one.

    Means and deviations of the images are left out, and how full the queues are. Raises ValueError where a tensor is
    missing, unknown or of another shape.
    """
    spaces = sum(name.startswith("queues.") and name.endswith(".keys") for name in state)
    queues = [f"queues.{i}.{name}" for i in range(spaces) for name in ("keys", "pointer", "filled")]
    missing = [name for name in queues if name not in state]
    if not spaces or missing:
        raise ValueError(f"a seasonal contrast has queues; missing: {', '.join(missing) or 'all of them'}")
    kept = [name for name in state if name not in (*_NORMALIZATION, *queues)]
    found = {
        "queue": torch.stack([state[f"queues.{i}.keys"].T for i in range(spaces)]),
        "queue_ptr": torch.stack([state[f"queues.{i}.pointer"].view(1) for i in range(spaces)]),
        **{_theirs(name): state[name] for name in kept},
    }
    layout, depth = _layout_of(found)
    _check(found, layout, depth)
    return {name: found[name] for name in layout}


def published_layout(depth: Depth, *, bands: int, channels: int, length: int, spaces: int) -> Layout:
    """Names and shapes of a checkpoint of ResNet-18 or ResNet-50, in their order."""
    inner = trunk_channels(depth, width=1.0)[1]
    layout: Layout = {"queue": (spaces, channels, length), "queue_ptr": (spaces, 1)}
    for part in ("encoder_q", "encoder_k"):
        layout |= _numbered(depth, bands, part)
    for part in ("heads_q", "heads_k"):
        for i in range(spaces):
            layout |= {f"{part}.{i}.0.weight": (inner, inner), f"{part}.{i}.0.bias": (inner,)}
            layout |= {f"{part}.{i}.2.weight": (channels, inner), f"{part}.{i}.2.bias": (channels,)}
    return layout


def _layout_of(state: Mapping[str, Tensor]) -> tuple[Layout, Depth]:
    depth, bands = _trunk_of(state)
    queue = state.get("queue")
    if queue is None or queue.ndim != 3:
        found = "none" if queue is None else tuple(queue.shape)
        raise ValueError(f"a checkpoint of SeCo has a queue (sub-spaces, channels, length); got {found}")
    spaces, channels, length = queue.shape
    return published_layout(depth, bands=bands, channels=channels, length=length, spaces=spaces), depth


def _trunk_of(state: Mapping[str, Tensor]) -> tuple[Depth, int]:
    """Depth of the query encoder and the bands that it takes; 18 and 3 where its tensors do not tell."""
    first = state.get("encoder_q.0.weight")
    bands = 3 if first is None or first.ndim != 4 else first.shape[1]
    return (50 if "encoder_q.4.0.conv3.weight" in state else 18), bands


def _numbered(depth: Depth, bands: int, part: str) -> Layout:
    """Shapes of a ResNet by the published names."""
    with torch.device("meta"):
        trunk = build_trunk(depth, bands, width=1.0)
    names = {f"{child}.{name}": t for child, module in trunk.items() for name, t in module.state_dict().items()}
    return {_published(part, name) or name: tuple(tensor.shape) for name, tensor in names.items()}


def _published(part: str, name: str) -> str | None:
    """conv1.weight is encoder_q.0.weight of the part encoder_q; None for what is none of a ResNet's."""
    child, _, rest = name.partition(".")
    number = {named: number for number, named in _CHILDREN.items()}.get(child)
    return None if number is None else f"{part}.{number}.{rest}"


def _torchvision(name: str) -> str:
    """0.weight is conv1.weight."""
    number, _, rest = name.partition(".")
    return f"{_CHILDREN.get(number, number)}.{rest}"


def _ours(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{_PARTS[part]}.{_torchvision(rest) if part.startswith('encoder') else rest}"


def _theirs(name: str) -> str:
    """The published name of one of ours; a name that is none of ours stays, to be found unknown."""
    for theirs, part in _PARTS.items():
        if name.startswith(f"{part}."):
            rest = name.removeprefix(f"{part}.")
            return f"{theirs}.{rest}" if theirs.startswith("heads") else _published(theirs, rest) or name
    return name


def _check(state: Mapping[str, Tensor], layout: Layout, depth: Depth) -> None:
    wrong = {
        "missing": [name for name in layout if name not in state],
        "unknown": [name for name in state if name not in layout],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {shape}"
            for name, shape in layout.items()
            if name in state and tuple(state[name].shape) != shape
        ],
    }
    said = [f"{len(names)} {what}: {', '.join(names)}" for what, names in wrong.items() if names]
    if said:
        raise ValueError(f"these are not the tensors of SeCo on a ResNet-{depth}; {'; '.join(said)}")
