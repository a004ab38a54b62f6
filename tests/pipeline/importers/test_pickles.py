from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sits_pipeline.importers.pickles import load_plain_pickle


def pickled(path: Path, value: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_numbers_and_containers_come_out_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    value: dict[str, Any] = {
        "img": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "year": np.int64(2018),
        "list": [1, "two", 3.0, None, (True, b"\xff\x00")],
        "ordered": OrderedDict(a=1),
    }
    found = load_plain_pickle(pickled(tmp_path / "a.pickle", value, protocol))
    assert list(found) == list(value)
    for name in ("img", "fortran"):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
    assert (found["year"], found["list"], found["ordered"]) == (2018, value["list"], value["ordered"])


def test_what_python_2_and_numpy_1_wrote_is_read(tmp_path: Path) -> None:
    # The bytes of {"doy": np.array([1, 257], "<i2")} as Python 2.7 with numpy 1 writes them: str for bytes, GLOBAL by
    # the old name of the module.
    data = (
        b"\x80\x02}q\x00U\x03doyq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
        b"\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02i2K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x00\x01\x01tbs."
    )
    (tmp_path / "old.pickle").write_bytes(data)
    np.testing.assert_array_equal(load_plain_pickle(tmp_path / "old.pickle")["doy"], [1, 257])


class Command:
    """Unpickled by the ordinary loader, it runs a command."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.text,)


class Evaluated:
    """Unpickled by the ordinary loader, it evaluates an expression."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.text,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", [Command, Evaluated])
def test_nothing_is_run_out_of_a_hostile_pickle(tmp_path: Path, kind: type[Any], protocol: int) -> None:
    mark = tmp_path / "was-run"
    text = f"touch {mark}" if kind is Command else f"open({str(mark)!r}, 'w').close()"
    hostile = pickled(tmp_path / "hostile.pickle", {"img": np.zeros(2), "x": kind(text)}, protocol)
    with pytest.raises(ValueError, match=r"hostile\.pickle is not read: it wants to call (posix\.system|.*\.eval)"):
        load_plain_pickle(hostile)
    assert not mark.exists()
    with hostile.open("rb") as file:
        pickle.load(file)  # it is hostile indeed
    assert mark.exists()


def test_the_codec_of_old_pickles_opens_no_other_door(tmp_path: Path) -> None:
    (tmp_path / "codec.pickle").write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(ValueError, match="it wants the codec 'rot13'"):
        load_plain_pickle(tmp_path / "codec.pickle")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"c__builtin__\nbytes\n(I4000000000\ntR", "it wants to call bytes"),
        (b"cbuiltins\nbytes\n(I4000000000\ntR", "it wants to call bytes"),
        (b"cnumpy\nndarray\n((I1000000\nI1000000\ntX\x02\x00\x00\x00i8tR", "it wants to call numpy.ndarray"),
        (b"cnumpy\nndarray\n((I1000000\nI1000000\nttX\x02\x00\x00\x00i8\x86\x81", "ndarray|is no pickle"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I4000000000\ntX\x01\x00\x00\x00btR",
            r"it wants to make an array of \(4000000000,\) out of nothing",
        ),
        (
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x0b\x00\x00\x00V2000000000tRtR",
            "is no pickle, or is cut short",
        ),
    ],
)
def test_a_few_bytes_do_not_ask_for_much_memory(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "huge.pickle").write_bytes(b"}X\x01\x00\x00\x00a" + data + b"s.")
    with pytest.raises(ValueError, match=r"huge\.pickle.*" + sentence):
        load_plain_pickle(tmp_path / "huge.pickle")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is no pickle, or is cut short"),
        (b"PK\x03\x04 no pickle at all", "is no pickle, or is cut short|is not read"),
        (pickle.dumps({"img": np.zeros(9)})[:-30], "cut short|is not read"),
        (pickle.dumps([1, 2]), "should hold a dictionary with names as keys; it holds a list"),
        (pickle.dumps({1: 2}), "should hold a dictionary with names as keys"),
        (
            pickle.dumps({"img": np.array([{}, None], object)}),
            "img should be an array of numbers; it is one of objects",
        ),
    ],
)
def test_what_is_no_such_pickle_is_named_in_one_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "broken.pickle").write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_plain_pickle(tmp_path / "broken.pickle")
    assert "broken.pickle" in str(caught.value)


def test_every_cut_of_a_pickle_is_a_value_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"img": np.arange(4), "doy": [1, 2]}, protocol=2)
    for end in range(len(whole)):
        (tmp_path / "cut.pickle").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"cut\.pickle"):
            load_plain_pickle(tmp_path / "cut.pickle")


def test_a_missing_pickle_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_plain_pickle(tmp_path / "none.pickle")
