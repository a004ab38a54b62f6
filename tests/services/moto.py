"""An S3 store on this machine: `moto_server` as a process of its own, with a bucket in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fsspec.asyn
import zarr.core.sync
from s3fs import S3FileSystem

__all__ = ["BUCKET", "KEY", "REGION", "SECRET", "Moto", "forget_stores", "moto_server"]

BUCKET = "cubes"
KEY, SECRET = "AKIASIMULATED0000001", "SECRETsecretSECRETsecretSECRETsecretSECR"
REGION = "eu-central-1"


@dataclass(frozen=True)
class Moto:
    """A running store."""

    url: str

    def environment(self, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
        """What a process needs to find it: the usual variables, and none of the machine's own configuration."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str = "s3") -> Any:
        """A client that shares nothing with the project's own."""
        return _client(self.url, service)

    def keys(self, prefix: str = "") -> list[str]:
        """Names of the objects of the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """All bytes of an object."""
        return bytes(self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def write(self, key: str, data: bytes) -> None:
        """Put an object."""
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data)

    def demand_credentials(self) -> None:
        """From here on check keys, signatures and policies, as a store does."""
        # Anything but a form, which moto would look for elsewhere.
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=b"0", headers=headers, method="POST")
        urllib.request.urlopen(request).close()

    def user(self, name: str, *actions: str) -> tuple[str, str]:
        """Key and secret of a new user who may do these actions."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=name, PolicyName="some", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]


@cache
def _client(url: str, service: str) -> Any:
    """One a store: to make one reads all of the service's description, which takes as long as many requests."""
    import boto3

    session = boto3.session.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION)
    return session.client(service, endpoint_url=url)


@contextmanager
def moto_server() -> Iterator[Moto]:
    """A store with an empty bucket, until the end of the context."""
    program = Path(sysconfig.get_path("scripts")) / "moto_server"
    port = free_port()
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        store = Moto(f"http://127.0.0.1:{port}")
        _wait_for(store, process)
        store.client().create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield store
    finally:
        forget_stores()
        process.terminate()
        process.wait(30)


def forget_stores() -> None:
    """Close the file systems that this process has opened: the next store would be taken for theirs.

    One that is merely dropped leaves an open session to the garbage collector, which warns of it in whatever test
    runs then. zarr opens its own, on a loop of its own.
    """
    for opened in S3FileSystem._cache.values():
        creator = getattr(opened, "_s3creator", None)
        if creator is None:
            continue  # nothing was asked of it
        if opened.asynchronous:
            zarr.core.sync.sync(creator.__aexit__(None, None, None))
        else:
            fsspec.asyn.sync(opened.loop, creator.__aexit__, None, None, None, timeout=30)
    S3FileSystem.clear_instance_cache()


def free_port() -> int:
    """A port that nobody listens at: moto_server does not say which one it chose."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(store: Moto, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{store.url}/moto-api/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"moto_server does not answer at {store.url}")
