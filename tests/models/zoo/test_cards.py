"""Cards of others, whose values may be anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models.zoo.made import shared_weights

from sits_models.checkpoints import Probe, read_card
from sits_models.zoo.entry import CARD


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("publication", {"period": ["2020"]}, "period should be its first and its last day"),
        ("probe", {"side": -1}, "side of a probe should be from 1 to 4096; got -1"),
        ("probe", {"dates": -1}, "dates of a probe should be from 1 to 4096; got -1"),
        ("probe", {"chips": 10**9}, "chips of a probe should be from 1 to 16"),
        ("probe", {"seed": -1}, "seed of a probe should be from 0"),
        ("probe", {"padding": 4}, "padding of a probe should be from 0 to 3; got 4"),
        ("probe", {"side": 4096, "dates": 4096}, "at most 67108864 pixels on all its dates"),
    ],
)
def test_a_card_with_values_that_cannot_be_is_refused(
    tmp_path: Path, part: str, values: dict[str, object], says: str
) -> None:
    folder = shared_weights(tmp_path)
    card = json.loads((folder / CARD).read_bytes())
    card[part] |= values
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"card\.json is no whole card: .*{says}"):
        read_card(folder)


def test_a_probe_of_before_has_no_padding(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    card = json.loads((folder / CARD).read_bytes())
    del card["probe"]["padding"]
    (folder / CARD).write_text(json.dumps(card))
    assert read_card(folder).probe == Probe(dates=4, side=16)
