"""Where torch computes."""

from __future__ import annotations

import torch

__all__ = ["resolve_device"]


def resolve_device(text: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:<number>` names; auto is a GPU where there is one.

    Raises ValueError for other words, and where torch can use no GPU.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ValueError(f"--device is auto, cpu, cuda or cuda:<number>; got {text!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {text}: this machine has no GPU that torch can use; give --device cpu")
    return device
