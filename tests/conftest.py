from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.synthetic import Synthetic

# Machines that run the tests differ in speed; a slow example is no failure.
settings.register_profile("sits", deadline=None)
settings.load_profile("sits")


def pytest_collection_finish() -> None:
    """What was imported stays to the end: no collection of garbage need look at its million objects again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sits_data() -> Path:
    """The folder of real data that the environment variable SITS_DATA names."""
    folder = os.environ.get("SITS_DATA")
    if not folder:
        pytest.skip("SITS_DATA names no folder of real data; this test needs one")
    return Path(folder)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """A small finished dataset that tests only read."""
    from tests.synthetic import make_dataset  # heavy libraries, for the tests that need them

    return make_dataset(tmp_path_factory.mktemp("synthetic") / "tiny")
