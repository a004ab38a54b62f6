"""The benchmark of devices at its smallest on the processor: it runs, and nothing here asks for speed."""

from __future__ import annotations

import pytest
import torch
from tests.gpu import bench
from tests.synthetic import Synthetic

from sits_models.backbones import list_backbones


@pytest.mark.slow
def test_it_prints_three_tables(synthetic: Synthetic, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small = ["--device", "cpu", "--small", "--eager", "--rounds", "1", "--only", "U-TAE"]
        bench.main([*small, "--cube", str(synthetic.folder.path)])
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("### ")] == [
        "### Training steps",
        "### bfloat16 against float32",
        "### Training from a cube",
    ]
    agreement = next(line for line in lines[lines.index("### bfloat16 against float32") :] if "U-TAE" in line)
    cosine, same = (float(cell) for cell in agreement.split("|")[2:4])
    assert cosine > 0.99
    assert same > 0.9
    waiting = [line.split("|") for line in lines if line.startswith("| utae")]
    assert len(waiting) == 2
    assert all(0 <= float(row[6]) <= 1 for row in waiting)


def test_every_backbone_has_a_published_size() -> None:
    contests = {contest.label: contest.backbone for contest in bench.CONTESTS}
    assert {contests[label] for label in bench.PUBLISHED} == set(list_backbones())
    for contest in bench.CONTESTS:
        if contest.label in bench.PUBLISHED:
            assert bench.paper_size(contest).size in (24, 48, 128, 224, 256)
