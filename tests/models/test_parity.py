"""Our outputs against those of the authors' code, case by case of the folder that SITS_PARITY names."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
from tests.models.parity.case import Case, list_cases, parity_folder, read_case

# Prefix of a case's name to the module of tests/models/parity whose `check(case)` compares it.
CHECKS = {
    "biconvgru_": "biconvrnn",
    "boundary_map_": "metrics",
    "cscl_": "cscl",
    "data_": "data",
    "deeplab_": "deeplab",
    "glcnet_full_": "glcnet",
    "glcnet_ntxent_": "nt_xent",
    "glcnet_style_": "glcnet",
    "losses_": "losses",
    "metrics_": "metrics",
    "seco_": "seco",
    "tsvit": "tsvit",
    "unet2d_clstm_": "unet2d_clstm",
    "unet3d_": "unet3d",
    "unet3df_": "unet3d",
    "utae_": "utae",
}


@pytest.mark.skipif(parity_folder() is None, reason="SITS_PARITY names no folder of parity cases; these tests need one")
def test_there_are_cases() -> None:
    assert list_cases()


WHOLE = ("glcnet_full_", "deeplab_ft_")
"""Cases that take seconds each."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(WHOLE)) for name in list_cases()]
)
def test_case(name: str) -> None:
    prefix = max((prefix for prefix in CHECKS if name.startswith(prefix)), key=len, default=None)
    assert prefix is not None, f"nothing here knows how to check the case {name}"
    check: Callable[[Case], None] = importlib.import_module(f"tests.models.parity.{CHECKS[prefix]}").check
    check(read_case(name))
