from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.pipeline.patches.scenes import GOOD, SPOT, acquisition, scene

from sits_pipeline.journal import encode_line
from sits_pipeline.patches.place import Chosen, chosen_from, line_of
from sits_pipeline.values import JsonObject

CHOSEN = Chosen(
    spot=SPOT,
    acquisitions=(
        acquisition("2022-01-29", replace(scene("2022-01-29"), twin=scene("2022-01-29", tile="31UEQ"))),
        acquisition("2022-04-23", cloud=None),
    ),
    shift=12,
    reason="",
    refused=((scene("2022-02-01"), replace(GOOD, refused=True, applied=None, reason="a lie")),),
    unusable=(("x", "is no scene"),),
)


def read_back(line: JsonObject) -> Chosen:
    return chosen_from(json.loads(encode_line(line)), SPOT)


def test_a_choice_comes_back_from_the_journal_as_it_was() -> None:
    line = line_of(CHOSEN, "f" * 64, assets=True)
    assert line is not None
    assert (line["kind"], line["patch"], line["id"], line["request_sha256"]) == ("location", 0, "here", "f" * 64)
    assert read_back(line) == CHOSEN


def test_a_location_without_acquisitions_comes_back_with_its_reason() -> None:
    nothing = Chosen(spot=SPOT, acquisitions=(), shift=None, reason="none of 1 shifts ...")
    line = line_of(nothing, "f" * 64, assets=True)
    assert line is not None
    assert read_back(line) == nothing


def test_without_assets_no_address_and_no_path_is_written() -> None:
    local = replace(
        scene("2022-01-29"),
        assets={"B02": "/home/someone/archive/B02.tif"},
        item={"links": [{"rel": "self", "href": "/home/someone/i.json"}], "properties": {}, "collection": "c"},
    )
    line = line_of(replace(CHOSEN, acquisitions=(acquisition("2022-01-29", local),)), "f" * 64, assets=False)
    assert line is not None
    assert b"/home" not in encode_line(line)
    assert b"https:" not in encode_line(line)
    back = read_back(line).acquisitions[0].scenes[0]
    assert (back.id, back.baseline, dict(back.assets)) == (local.id, local.baseline, {})


@pytest.mark.parametrize("address", ["https://x.org/B02.tif?sig=abc", "https://me:word@x.org/B02.tif"])
def test_a_choice_whose_addresses_may_hold_a_secret_is_not_written_down(address: str) -> None:
    signed = replace(scene("2022-01-29"), assets={"B02": address})
    assert line_of(replace(CHOSEN, acquisitions=(acquisition("2022-01-29", signed),)), "0", assets=True) is None
    twin = replace(scene("2022-01-29"), twin=signed)
    assert line_of(replace(CHOSEN, acquisitions=(acquisition("2022-01-29", twin),)), "0", assets=True) is None
