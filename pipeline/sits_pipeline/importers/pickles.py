"""Pickles of strangers: numpy arrays, numbers, text and plain containers come out of them, and nothing is run."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PlainUnpickler", "load_plain_pickle"]


def _encode_latin1(text: str, encoding: str = "latin1", /) -> bytes:
    """Bytes that are written as a text; pickles know this codec alone."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants the codec {encoding!r}")
    return text.encode("latin1")


def _empty_bytes(*content: object) -> bytes:
    """What protocols 0 to 2 call for bytes without any; a number would ask for so many zeros."""
    if content:
        raise pickle.UnpicklingError("it wants to call bytes with a size or content")
    return b""


class _Ndarray:
    """Stands for numpy.ndarray, which pickles name and never call: a call would allocate any shape."""

    def __new__(cls, *_: object) -> _Ndarray:
        raise pickle.UnpicklingError("it wants to call numpy.ndarray")


_RECONSTRUCT, _SCALAR = np.zeros(1).__reduce__()[0], np.int64(0).__reduce__()[0]


def _reconstruct(kind: object, shape: object, code: object) -> Any:
    """An array without numbers, which its state fills; other shapes than (0,) would allocate what no file holds."""
    if kind is not _Ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"it wants to make an array of {shape} out of nothing")
    return _RECONSTRUCT(np.ndarray, (0,), code)  # type: ignore[operator]


def _scalar(dtype: object, content: object) -> Any:
    """A number; numpy makes one of any size where there is no content."""
    return _SCALAR(dtype, content)  # type: ignore[operator]


_CORES = ("numpy.core", "numpy._core")
"""Where numpy 1 and numpy 2 have what makes an array."""

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): _Ndarray,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0] for core in _CORES},
    ("collections", "OrderedDict"): OrderedDict,
    # What protocols 0 to 2 of Python 3 call for bytes, such as those of an array.
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
}
"""Globals that pickles of arrays, numbers and containers name, and what each is; none of them runs anything."""


class PlainUnpickler(pickle.Unpickler):
    """Refuses every global but those that make numpy arrays, scalars and plain containers."""

    def find_class(self, module: str, name: str, /) -> Any:
        """The global; raises UnpicklingError for any other."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return _ALLOWED[module, name]


def _check_memo(data: bytes) -> None:
    """Raise UnpicklingError where a value is kept under a number that no count leads to: so many places were made."""
    for position, (code, number, _) in enumerate(pickletools.genops(data)):
        if code.name in _PUTS and isinstance(number, int) and number > position:
            raise pickle.UnpicklingError(f"it wants to keep {number} values and has {position}")


_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_BROKEN = (
    *(EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, MemoryError, RuntimeError, struct.error),
)


def load_plain_pickle(path: Path) -> dict[str, Any]:
    """The dictionary of a pickle that Python 2 or 3 wrote, its keys text, without running anything out of it.

    Raises FileNotFoundError, and ValueError with the file's name where it is no pickle, is cut short, holds an object
    other than numbers, text, containers and numpy arrays, or is no dictionary.
    """
    try:
        # latin1: the only encoding that keeps the bytes of arrays which Python 2 wrote.
        data = path.read_bytes()
        _check_memo(data)
        value = PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not read: {error}; a pickle of a dataset holds numpy arrays, numbers, text and containers"
        ) from None
    # Bytes that are no pickle can make its opcodes fail in any of these ways.
    except _BROKEN as error:
        raise ValueError(f"{path} is no pickle, or is cut short ({type(error).__name__}: {error})") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{path} should hold a dictionary with names as keys; it holds a {type(value).__name__}")
    objects = [key for key, array in value.items() if isinstance(array, np.ndarray) and array.dtype.hasobject]
    if objects:
        raise ValueError(f"{path}: {objects[0]} should be an array of numbers; it is one of objects")
    return value
