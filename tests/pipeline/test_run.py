from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sits_catalog.console import FAILED, WRONG_USE, guarded
from sits_pipeline.run import in_words, with_earlier_units
from sits_pipeline.sources.base import ServiceDown


def entries(error: Exception) -> Iterator[dict[str, Any]]:
    """What a cluster gives whose second cell raises."""
    yield {"kind": "cell"}
    raise error


def code_of(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and sentence of a build whose worker raises."""

    def work() -> int:
        return len(list(in_words(entries(error), unit="a cell")))

    with pytest.raises(SystemExit) as left:
        guarded(work, debug=False)
    return int(left.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("operands could not be broadcast"), "ValueError: operands could not be broadcast; this is a fault"),
        (FileNotFoundError("no such file: x"), "a cell could not be built: no such file: x; run the same command"),
        (PermissionError("read-only"), "a cell could not be built: read-only"),
        (
            ServiceDown("api.example.org did not answer; try again later"),
            "error: api.example.org did not answer; try again later; run the same command again, which goes on where",
        ),
        (MemoryError("choose smaller cells"), "error: choose smaller cells"),
        (KeyError("B04"), "KeyError: 'B04'; this is a fault of the program"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_a_failure_and_no_wrong_use(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = code_of(error, capsys)
    assert (code, FAILED) == (1, 1)
    assert code != WRONG_USE
    assert says in text


def test_units_of_a_cell_that_is_read_again_add_up() -> None:
    earlier = {(0, 0, 512, 512): 1.5}
    again = {"cell": [0, 0, 512, 512], "processing_units": 2.0}
    assert with_earlier_units(again, earlier)["processing_units"] == 3.5
    assert with_earlier_units({"cell": [0, 0, 512, 512]}, earlier)["processing_units"] == 1.5
    assert with_earlier_units({"cell": [0, 512, 512, 512]}, earlier) == {"cell": [0, 512, 512, 512]}
