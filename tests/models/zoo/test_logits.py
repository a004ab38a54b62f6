from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models.test_checkpoints import model_of
from tests.models.training import BANDS, recipe_of
from tests.models.zoo.made import push_tiny, save_pretrained, save_run, shared_weights, wishes
from torch import nn

from sits_models.backbones import list_backbones
from sits_models.backbones.deeplab import DeepLab
from sits_models.checkpoints import Probe, load_model
from sits_models.objectives import Objective
from sits_models.recipe import load_recipe
from sits_models.zoo.entry import ITEM, LOGITS
from sits_models.zoo.logits import TOLERANCE, compare_logits, compute_logits, make_probe, probe_sample, write_logits
from sits_models.zoo.push import push


def test_the_input_of_a_probe_follows_from_its_rule() -> None:
    probe = Probe(seed=7, chips=2, dates=4, side=3)
    sample = probe_sample(probe, BANDS)
    stream = hashlib.shake_256(b"sits-logits 7").digest(2 * 2 * 4 * 3 * 9)
    for place in (0, 1, 5, 215):
        number = stream[2 * place] + 256 * stream[2 * place + 1]
        expected = 0 if number % 17 == 0 else 1 + number % 6000
        assert int(sample.image.reshape(-1)[place]) == expected
    assert sample.day.tolist() == [[18_993, 19_083, 19_173, 19_263]] * 2
    assert sample.valid.all()


def test_some_pixels_of_a_probe_are_not_observed() -> None:
    image = probe_sample(Probe(dates=12, side=16), BANDS).image.numpy()
    assert 0.05 < float(np.mean(image == 0)) < 0.07
    assert int(image.max()) == 6000


@pytest.mark.parametrize("name", list_backbones())
def test_every_backbone_takes_a_probe(name: str) -> None:
    objective, card = model_of(name)
    probe = make_probe(objective, card)
    first, second = (compute_logits(objective, card, probe)["logits"] for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape[:2] == (2, 3)


def test_weights_give_their_stored_logits_on_the_same_machine(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    model = load_model(folder)
    assert compare_logits(folder, model) is None
    assert model.card.probe is not None
    stored, computed = load_file(folder / LOGITS), compute_logits(model.objective, model.card, model.card.probe)
    assert float((stored["logits"] - computed["logits"]).abs().max()) <= 1e-6 * float(stored["logits"].abs().max())


def test_a_pretraining_stores_its_embedding(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", recipe_of(contrast=True))
    folder = tmp_path / "zoo" / push(str(run), wishes(), registry=str(tmp_path / "zoo")).entry.path
    assert set(load_file(folder / LOGITS)) == {"embedding"}
    assert compare_logits(folder, load_model(folder)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", ["glcnet={}", "simclr={}", "jigsaw={orders: 20}", "seco={queue: 64}", "inpainting={}"]
)
def test_a_deeplab_whose_decoder_was_not_trained_stores_its_joined_branches(section: str, tmp_path: Path) -> None:
    recipe = load_recipe("glcnet-laptop", changes=["backbone.width=0.0625", "glcnet=null", section])
    run = save_pretrained(tmp_path / "run", recipe, dates=24)
    folder = Path(push(str(run), wishes(), registry=str(tmp_path / "zoo")).place)
    model = load_model(folder)
    backbone = model.objective.encoder.backbone
    assert isinstance(backbone, DeepLab)
    assert model.card.probe is not None
    side = model.card.probe.side
    (output,) = json.loads((folder / ITEM).read_bytes())["properties"]["mlm:output"]
    stored = load_file(folder / LOGITS)["embedding"]
    with torch.no_grad():
        for weight in backbone.decoder.parameters():
            weight.fill_(torch.nan)
    if section == "inpainting={}":  # which fills in through the decoder
        assert stored.shape == (2, backbone.channels, side // 4, side // 4)
        assert output["description"] == "One embedding for 4 x 4 pixels."
        assert "nan apart" in str(compare_logits(folder, model))
        return
    assert stored.shape == (2, backbone.context_channels, side // 16, side // 16)
    assert output["description"].startswith("One embedding for 16 x 16 pixels, of the joined branches")
    assert output["result"]["shape"] == [-1, backbone.context_channels, -1, -1]
    assert compare_logits(folder, model) is None
    frame = model.objective.encoder.normalize(probe_sample(model.card.probe, model.card.bands).image)[:, 0]
    with torch.no_grad():
        assert torch.allclose(backbone.encode(frame)[1], stored, atol=1e-5)


def test_a_model_that_computes_otherwise_is_told_by_how_much(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    model = load_model(folder)
    with torch.no_grad():
        model.objective.get_parameter("head.bias")[0] += 1.0
    assert "give other logits than were stored: 1 apart" in str(compare_logits(folder, model))
    with torch.no_grad():
        model.objective.get_parameter("head.bias")[0] = torch.nan
    assert "give other logits than were stored: nan apart" in str(compare_logits(folder, model))


def test_stored_logits_that_are_none_are_told(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    model = load_model(folder)
    write_logits(folder / LOGITS, {"logits": torch.zeros(2, 3, 8, 8)})
    assert "should hold logits of the shape (2, 3, 16, 16); it holds (2, 3, 8, 8)" in str(compare_logits(folder, model))
    write_logits(folder / LOGITS, {"others": torch.zeros(1)})
    assert "it holds none" in str(compare_logits(folder, model))
    (folder / LOGITS).write_bytes(b"torn")
    assert "logits.safetensors cannot be read" in str(compare_logits(folder, model))
    without = replace(model, card=replace(model.card, probe=None))
    assert "says not what the stored logits are of" in str(compare_logits(folder, without))


def test_two_seeds_are_two_models(tmp_path: Path) -> None:
    for seed in (1, 2):
        push_tiny(tmp_path, tmp_path / "zoo", seed=seed)
    first, second = (load_file(path) for path in sorted((tmp_path / "zoo").glob(f"tiny/*/{LOGITS}")))
    assert not torch.equal(first["logits"], second["logits"])


def test_the_last_dates_of_the_last_chip_are_padding_that_holds_numbers() -> None:
    sample = probe_sample(Probe(dates=8, side=3, padding=2), BANDS)
    assert sample.valid.tolist() == [[True] * 8, [True] * 6 + [False] * 2]
    assert sample.image[1, 6:].numpy().any()


def test_a_probe_is_wide_and_has_padding_where_the_model_can_tell() -> None:
    probes = {name: make_probe(*model_of(name)) for name in ("unet3df", "resnet18", "deeplab_resnet18", "tsvit")}
    assert {name: probe.padding for name, probe in probes.items()} == {
        "unet3df": 1,
        "resnet18": 0,
        "deeplab_resnet18": 0,
        "tsvit": 1,
    }
    assert probes["unet3df"].side == 16
    assert min(probes["resnet18"].side, probes["deeplab_resnet18"].side) >= 64


def convolutions(objective: Objective) -> list[nn.Conv2d]:
    return [part for part in objective.modules() if isinstance(part, nn.Conv2d) and max(part.dilation) > 1]


def test_each_changed_dilation_is_noticed() -> None:
    objective, card = model_of("deeplab_resnet18")
    probe = make_probe(objective, card)
    stored = compute_logits(objective, card, probe)["logits"]
    dilated = convolutions(objective)
    assert dilated
    for part in dilated:
        before = part.dilation, part.padding
        part.dilation = part.padding = (3 * part.dilation[0],) * 2
        apart = float((compute_logits(objective, card, probe)["logits"] - stored).abs().max())
        assert apart > TOLERANCE * float(stored.abs().max())
        part.dilation, part.padding = before


def test_a_dropped_mask_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, card = model_of("tsvit")
    backbone, probe = objective.encoder.backbone, make_probe(objective, card)
    stored, embed = compute_logits(objective, card, probe)["logits"], backbone.embed
    monkeypatch.setattr(backbone, "embed", lambda image, valid, day: embed(image, torch.ones_like(valid), day))
    apart = (compute_logits(objective, card, probe)["logits"] - stored).abs().amax(dim=(1, 2, 3))
    assert float(apart[0]) == 0
    assert float(apart[1]) > TOLERANCE * float(stored.abs().max())
