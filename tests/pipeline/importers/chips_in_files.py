"""MTLCC and T31TFM_1618 in small: simulated numbers in the files of the published sets."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

MTLCC_KNOWN = (0, 1, 2, 3, 5, 8, 9, 12, 13, 15, 16, 17, 19, 22, 23, 24, 25, 26)
T31TFM_KNOWN = (0, 1, 2, 3, 6, 7, 14, 20, 25, 33, 36, 48, 73)
FULL = Path("data_IJGI18/datasets/full")
MTLCC_TILES = {"101": ("data16", "train_fold0"), "102": ("data16", "eval"), "7": ("data17", "test_fold0")}
MTLCC_DOYS = {"101": [5, 95, 95, 200], "102": [33], "7": [1, 300, 365]}
CHIP = "W799943_N6568107_E827372_S6540681/6541426_800224"
"""Folder and start of the name of a chip: corners as in the published set."""


# MTLCC


def mtlcc_tile(name: str, *, year: int = 2017) -> dict[str, NDArray[Any]]:
    """The arrays of a tile; year as it is in the published TFRecords."""
    rng, frames = np.random.default_rng(int(name)), len(MTLCC_DOYS[name])
    shapes = {"x10": (24, 24, 4), "x20": (12, 12, 6), "x60": (4, 4, 3)}
    tile = {stack: rng.integers(1, 9000, (frames, *shape)).astype(np.int16) for stack, shape in shapes.items()}
    labels = rng.choice(np.array(MTLCC_KNOWN, np.int8), (24, 24))
    return {
        **tile,
        "day": np.array(MTLCC_DOYS[name], np.int16),
        "year": np.full(frames, year, np.int16),
        "labels": np.repeat(labels[np.newaxis], frames, axis=0),
    }


def padded(tile: Mapping[str, NDArray[Any]], frames: int) -> dict[str, NDArray[Any]]:
    """The tile with so many frames of zeros at its end, their labels those of the others."""
    out = {}
    for name, array in tile.items():
        more = np.zeros((frames, *array.shape[1:]), array.dtype)
        out[name] = np.concatenate([array, more if name != "labels" else more + array[:1]])
    return out


def write_mtlcc(root: Path, *, kind: str, padding: int = 0, tiles: Sequence[str] = tuple(MTLCC_TILES)) -> Path:
    """Tiles of two years with their lists, as TFRecords or as pickles, in the clone of MTLCC."""
    for name in tiles:
        year = 2000 + int(MTLCC_TILES[name][0][4:])
        tile = padded(mtlcc_tile(name, year=2017 if kind == "tfrecord" else year), padding)
        folder = root / FULL / ("240" if kind == "tfrecord" else "240pkl") / MTLCC_TILES[name][0]
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "tfrecord":
            write_records(folder / f"{name}.tfrecord.gz", [example_of(tile)])
        else:
            (folder / f"{name}.pickle").write_bytes(pickle.dumps(tile, protocol=4))
    lists = root / FULL / "240/tileids"
    lists.mkdir(parents=True)
    for which in ("train_fold0", "eval", "test_fold0"):
        ids = [name for name in tiles if MTLCC_TILES[name][1] == which]
        (lists / f"{which}.tileids").write_text("\n".join(ids) + "\n")
    return root


# TFRecords and tf.train.Example, by their specifications


def write_records(path: Path, records: Sequence[bytes]) -> None:
    def check(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    with gzip.open(path, "wb", compresslevel=1) as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(length + check(length) + data + check(data))


def example_of(tile: Mapping[str, NDArray[Any]]) -> bytes:
    """A serialized tf.train.Example with the features of MTLCC."""
    features: dict[str, bytes | Sequence[int]] = {}
    for name in ("x10", "x20", "x60", "labels"):
        features[f"{name}/data"] = tile[name].astype("<i8").tobytes()
        features[f"{name}/shape"] = tile[name].shape
    for ours, theirs in (("day", "doy"), ("year", "year")):
        features[f"dates/{theirs}"] = tile[ours].astype("<i8").tobytes()
    features["dates/shape"] = tile["day"].shape
    return serialized(features)


def serialized(features: Mapping[str, bytes | Sequence[int]]) -> bytes:
    def varint(value: int) -> bytes:
        value, out = value & (1 << 64) - 1, bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def message(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = message(1, message(1, value))
        else:
            feature = message(3, message(1, b"".join(map(varint, value))))
        entries += message(1, message(1, name.encode()) + message(2, feature))
    return message(1, entries)


# T31TFM_1618


def t31tfm_chip(year: int, *, naming: str = "assignments", seed: int = 0) -> dict[str, Any]:
    """The arrays of a chip with four frames, two of one day, by either naming of the labels."""
    rng = np.random.default_rng([year, seed])
    chip: dict[str, Any] = {}
    for band in ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"):
        side = {"B02": 48, "B03": 48, "B04": 48, "B08": 48, "B01": 8, "B09": 8, "B10": 8}.get(band, 24)
        chip[band] = rng.integers(1, 12000, (4, side, side)).astype(np.uint16)
    chip |= {"doy": np.array([12, 100, 100, 290]), "year": year}
    shared = rng.choice(3, (48, 48), p=[0.8, 0.1, 0.1])
    chip["labels"] = rng.choice(np.array(T31TFM_KNOWN), (48, 48)).astype(np.float64)
    chip["ids"] = rng.integers(0, 20_000_000, (48, 48)).astype(np.float64)
    chip["ratios"] = (rng.integers(0, 256, (48, 48)) / 255).astype(np.float32)
    if naming == "masks":
        chip |= {"masks": shared.astype(np.float64), "distances": rng.random((48, 48))}
    else:
        chip |= {"part_ass": (shared == 1).astype(np.float64), "full_ass": (shared == 2).astype(np.float64)}
        chip |= {name: np.zeros((48, 48)) for name in ("groups", "invalid")}
        chip |= {f"{name}_x4": np.zeros((192, 192)) for name in ("labels", "ids", "full_ass", "part_ass")}
    return chip


def write_t31tfm(root: Path, *, naming: str = "assignments") -> dict[str, dict[str, Any]]:
    """Three chips of two years and the lists of paths; returns the chips by relative path."""
    chips = {}
    for year, seed, name in ((2016, 0, CHIP), (2016, 1, CHIP[:-3] + "704"), (2018, 0, CHIP)):
        path = f"{year}/pkl_timeseries/{name}_{year}.pickle"
        chips[path] = t31tfm_chip(year, naming=naming, seed=seed)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(pickle.dumps(chips[path], protocol=2))
    (root / "paths").mkdir()
    (root / "paths/train_paths.csv").write_text("".join(f"{path}\n" for path in [*chips][:2]))
    (root / "paths/eval_paths.csv").write_text(f"{[*chips][2]}\n")
    return chips
