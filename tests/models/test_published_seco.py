from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.commands import assert_refused, sits_model
from torch import Tensor

from sits_models.checkpoints import load_model, read_card, transfer
from sits_models.checkpoints.published_seco import convert_seco
from sits_models.objectives import build_objective
from sits_models.objectives.seco_checkpoint import PUBLISHED_BANDS, published_layout, published_normalization
from sits_models.recipe import load_recipe


class ModelCheckpoint:
    """As Lightning's, by which its checkpoints of that time name what a callback keeps."""


class Thief:
    """What runs when it is read by a pickle that trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A checkpoint of ResNet-18 with short queues; values are drawn."""
    layout = published_layout(18, bands=3, channels=4, length=6, spaces=3)
    draw = torch.Generator().manual_seed(0)
    found = {name: torch.rand(shape, generator=draw) for name, shape in layout.items()}
    counts = {name: torch.tensor(7) for name in layout if name.endswith("num_batches_tracked")}
    return {**found, **counts, "queue_ptr": torch.tensor([[2], [2], [2]])}


def saved(path: Path, state: Mapping[str, Tensor], **more: object) -> Path:
    """With what Lightning keeps beside the tensors."""
    whole = {
        "epoch": 199,
        "state_dict": dict(state),
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}},
        "hyper_parameters": argparse.Namespace(base_encoder="resnet18", emb_dim=4),
        **more,
    }
    torch.save(whole, path)
    return path


@pytest.mark.slow
def test_a_published_checkpoint_is_a_start_for_a_finetuning(tmp_path: Path, state: dict[str, Tensor]) -> None:
    ended = sits_model("zoo", "convert", saved(tmp_path / "seco.ckpt", state), "--out", tmp_path / "weights")
    assert ended.code == 0, ended.stderr
    assert "finetune" in ended.stdout
    card = read_card(tmp_path / "weights")
    assert (card.recipe.objective, card.recipe.backbone.name, card.bands) == ("seco", "resnet18", PUBLISHED_BANDS)
    pretrained = load_model(tmp_path / "weights").objective.state_dict()
    assert torch.equal(pretrained["key_heads.1.2.bias"], state["heads_k.1.2.bias"])
    assert torch.equal(pretrained["queues.2.keys"], state["queue"][2].T)
    recipe = load_recipe("resnet-laptop", changes=["backbone.width=1"])
    mean, std = (0.0,) * 3, (1.0,) * 3
    finetuned = build_objective(recipe, bands=PUBLISHED_BANDS, dates=1, classes=5, mean=mean, std=std)
    report = transfer(finetuned, tmp_path / "weights")
    assert {name.partition(".")[0] for name in report.loaded} == {"encoder"}
    found = finetuned.state_dict()
    assert torch.equal(found["encoder.backbone.layer3.1.bn2.running_var"], state["encoder_q.6.1.bn2.running_var"])
    assert found["encoder.mean"].flatten().tolist() == pytest.approx(published_normalization()[0])


def test_nothing_that_a_checkpoint_holds_is_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "seco.ckpt", state, callbacks=Thief(tmp_path / "touched"))
    convert_seco(path, tmp_path / "weights")
    assert not (tmp_path / "touched").exists()
    torch.load(path, weights_only=False)  # which would have
    assert (tmp_path / "touched").exists()


def test_what_is_no_such_checkpoint_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    assert_refused(sits_model("zoo", "convert", tmp_path / "none.ckpt", "--out", tmp_path / "out"), "no file")
    (tmp_path / "text.ckpt").write_text("weights")
    assert_refused(
        sits_model("zoo", "convert", tmp_path / "text.ckpt", "--out", tmp_path / "out"),
        "cannot be read as a checkpoint",
    )
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"list\.ckpt has no tensors under state_dict"):
        convert_seco(tmp_path / "list.ckpt", tmp_path / "out")
    few = {name: tensor for name, tensor in state.items() if name != "heads_q.0.0.bias"}
    with pytest.raises(ValueError, match=r"few\.ckpt is no checkpoint of SeCo: .*1 missing: heads_q\.0\.0\.bias"):
        convert_seco(saved(tmp_path / "few.ckpt", few), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileExistsError, match="holds something; give --out a folder that is empty"):
        convert_seco(tmp_path / "few.ckpt", tmp_path)
