"""Items as the peers take them."""

from __future__ import annotations

import json
from pathlib import Path

import pystac

__all__ = ["absolute_items"]


def absolute_items(path: str) -> list[pystac.Item]:
    """The items of a local ItemCollection, their links made absolute."""
    features = json.loads(Path(path).read_text())["features"]
    for feature in features:
        for asset in feature["assets"].values():
            asset["href"] = str(Path(path).parent / asset["href"])
    return [pystac.Item.from_dict(feature) for feature in features]
