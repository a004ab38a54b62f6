"""Fetch a dataset from a store, from the host that runs this: python fetch_dataset.py URL FOLDER [--make]

With --make, makes the bucket instead, once the store answers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import fsspec


def main(url: str, folder: str, *options: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(url)
    if options == ("--make",):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                filesystem.mkdir(path.partition("/")[0])
            except OSError:
                time.sleep(0.5)
            else:
                return
        sys.exit("no store answered")
    for name in filesystem.find(path):
        target = Path(folder) / name.removeprefix(f"{path}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(filesystem.cat_file(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
