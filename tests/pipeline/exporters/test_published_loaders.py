"""What the authors' own loaders make of a chip, and what ours make of it after an import and an export.

Their outputs lie in the folder that SITS_PARITY names. An observed DN of 0 has become 1: 0.0001 of reflectance.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.importers.chips_in_files import CHIP, FULL
from tests.pipeline.importers.made_up import Silent

from sits_pipeline.exporters.deepsatmodels import DeepSatLayout, export_deepsatmodels
from sits_pipeline.folder import Folder
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.mtlcc import open_mtlcc
from sits_pipeline.importers.original import Original
from sits_pipeline.importers.pastis24 import open_pastis24
from sits_pipeline.importers.pickles import load_plain_pickle
from sits_pipeline.importers.t31tfm import open_t31tfm
from sits_pipeline.importers.write import import_dataset

pytest.importorskip("torch")

CASES = {
    "data_france_": ("t31tfm", f"2017/pkl_timeseries/{CHIP}_2017.pickle"),
    "data_mtlcc_": ("mtlcc", f"{FULL}/240pkl/data16/1.pickle"),
    "data_pastis24_": ("pastis24", "pickle24x24/10000_0.pickle"),
}


def cases() -> list[str]:
    folder = os.environ.get("SITS_PARITY")
    found = sorted(path.stem for path in Path(folder).glob("data_*.json")) if folder else []
    # Finer labels have no place in a set of patches; longer series of MTLCC are drawn at random by its loader.
    return [name for name in found if "_x4" not in name and not ("mtlcc" in name and "cut" in name)]


@pytest.mark.skipif(not cases(), reason="SITS_PARITY names no folder of parity cases; these tests need one")
def test_there_is_a_case_of_each_layout() -> None:
    assert all(any(name.startswith(prefix) for name in cases()) for prefix in CASES)


def opened(layout: str, root: Path) -> Original:
    if layout == "t31tfm":
        return open_t31tfm(root)
    return open_mtlcc(root) if layout == "mtlcc" else open_pastis24(root, metadata=None, folds=FoldRule())


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
def test_the_authors_inputs_and_labels_survive_an_import_and_an_export(name: str, tmp_path: Path) -> None:
    from tests.models.parity.case import read_case

    from sits_models.data.published import france_chip, mtlcc_chip, pastis24_chip

    case = read_case(name)
    layout, path = next(found for prefix, found in CASES.items() if name.startswith(prefix))
    arrays = {entry["name"]: case.input(entry["name"]) for entry in case.facts["inputs"]}
    (tmp_path / "set" / path).parent.mkdir(parents=True)
    (tmp_path / "set" / path).write_bytes(pickle.dumps(arrays))
    location = import_dataset(opened(layout, tmp_path / "set"), str(tmp_path / "out"), Silent()).location
    known: dict[str, DeepSatLayout] = {"t31tfm": "t31tfm", "mtlcc": "mtlcc", "pastis24": "pastis24"}
    export_deepsatmodels(
        Folder(location), tmp_path / "again", layout=known[layout], overwrite=False, incomplete=False,
        progress=lambda done, total: None,
    )  # fmt: skip
    published = {"t31tfm": france_chip, "mtlcc": mtlcc_chip, "pastis24": pastis24_chip}[layout]
    data = case.configuration.get("data_config", case.configuration)
    chip = published(load_plain_pickle(tmp_path / "again" / path), dates=data["max_seq_len"])
    assert chip.dates == case.facts["seq_lengths"]
    inputs, facts = case.output("inputs")
    assert facts["slice"] == "[:, ::5, ::5, :]"
    found = np.moveaxis(chip.inputs, 1, -1)[:, ::5, ::5]
    # PASTIS24 is normalized: a DN more is at most 1 / 1299.
    one = 1e-3 if layout == "pastis24" else 1e-4
    np.testing.assert_allclose(found, inputs, rtol=0, atol=facts["advised_atol"] + one)
    if layout != "pastis24" or arrays["labels"].ndim == 3:
        case.compare("labels", chip.labels[..., None])
        case.compare("unk_masks", chip.known[..., None])
