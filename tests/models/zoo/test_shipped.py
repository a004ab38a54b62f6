"""The weights that come with the package: whole, true, small, and said to be trained on simulated data."""

from __future__ import annotations

import pytest

from sits_models.checkpoints import load_model
from sits_models.zoo import Entry, find_weights, shipped
from sits_models.zoo.complete import verify
from sits_models.zoo.logits import compare_logits
from sits_models.zoo.registry import INDEX, read_index

ENTRIES = shipped().entries()


def test_there_are_some_and_the_index_lists_them() -> None:
    assert "demo-unet3df" in {entry.name for entry in ENTRIES}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert read_index((shipped().folder / INDEX).read_bytes(), origin=INDEX) == ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_each_gives_its_stored_logits_and_is_whole(entry: Entry) -> None:
    folder = shipped().folder_of(entry)
    assert compare_logits(folder, load_model(folder)) is None
    assert verify(folder) == ()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_each_is_small_simulated_and_says_so(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.size < 4_000_000
    assert entry.simulated
    assert entry.licence == "Apache-2.0"
    folder = shipped().folder_of(entry)
    assert "simulated" in (folder / "README.md").read_text()
    card = load_model(folder).card
    assert card.publication is not None
    assert "simulated" in card.publication.description
    assert 0.3 < card.metrics["test_miou"] < 1
    monkeypatch.setenv("SITS_ZOO", "/nowhere")
    assert find_weights(entry.name) == folder
