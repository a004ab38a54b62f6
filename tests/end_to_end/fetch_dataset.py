"""Fetch a dataset from a store, from the host that runs this: python fetch_dataset.py URL FOLDER [--make]

With --make, makes the bucket instead, once the store answers.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import fsspec


def _make(filesystem: fsspec.AbstractFileSystem, bucket: str) -> None:
    said = "no store answered"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            where = {"LocationConstraint": os.environ["AWS_DEFAULT_REGION"]}
            filesystem.call_s3("create_bucket", Bucket=bucket, CreateBucketConfiguration=where)
        except OSError as error:
            said = str(error)
            time.sleep(0.5)
        else:
            return
    sys.exit(said)


def main(url: str, folder: str, *options: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(url)
    if options == ("--make",):
        _make(filesystem, path.partition("/")[0])
        return
    for name in filesystem.find(path):
        target = Path(folder) / name.removeprefix(f"{path}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(filesystem.cat_file(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
