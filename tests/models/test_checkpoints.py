from __future__ import annotations

import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.samples import make_sample
from tests.models.training import BANDS, CLASSES, DATES, objective_of, recipe_of

from sits_models.backbones import backbone_class, list_backbones
from sits_models.backbones.trunk import SingleDate
from sits_models.checkpoints import (
    CARD,
    WEIGHTS,
    Card,
    Probe,
    Publication,
    from_reference,
    hash_tensors,
    load_model,
    read_card,
    read_reference,
    save_weights,
    transfer,
)
from sits_models.data.cubes import CropEntry, CubeFacts
from sits_models.objectives import ContextContrast, Objective, Segmentation, build_objective
from sits_models.recipe import BackboneRecipe, ClassificationRecipe, DataRecipe, Recipe

RADIOMETRY = {"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1}
CROPS = tuple(
    CropEntry(index=i, code=code, name=f"crop {code}", hcat=hcat, colour="#102030")
    for i, (code, hcat) in enumerate((("0", None), ("c1", "3301010000"), ("c2", None)))
)


def card_of(recipe: Recipe, objective: Objective) -> Card:
    return Card(
        recipe=recipe,
        bands=BANDS,
        dates=DATES,
        classes=CROPS,
        radiometry=RADIOMETRY,
        mean=tuple(objective.encoder.mean.flatten().tolist()),
        std=tuple(objective.encoder.std.flatten().tolist()),
        data={"cubes": [{"region": "tiny", "config_sha256": "a" * 64}]},
        metrics={"validation_miou": 0.25},
    )


def save(folder: Path, recipe: Recipe, *, seed: int = 1) -> tuple[Objective, Card]:
    objective = objective_of(recipe, seed=seed).eval()
    return objective, save_weights(folder, objective, card_of(recipe, objective))


def facts_of(**changes: object) -> CubeFacts:
    values: dict[str, object] = {
        "path": "out/other",
        "region": "other",
        "version": "1.0",
        "bands": BANDS,
        "days": (1, 2),
        "radiometry": {**RADIOMETRY, "baselines": ["04.00"]},
        "statistics": None,
        "classes": (),
        "shape": (64, 64),
        "transform": (10.0, 0.0, 0.0, 0.0, -10.0, 0.0),
        "crs": "EPSG:32631",
        "has_labels": False,
        "finer": (),
        "chunk_px": 64,
        "shard_px": 512,
        "config_sha256": "b" * 64,
        "complete": True,
    }
    return CubeFacts(**{**values, **changes})  # type: ignore[arg-type]


def edit(folder: Path, **changes: object) -> None:
    path = folder / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def model_of(name: str) -> tuple[Objective, Card]:
    """A small model of any backbone: of one date where it takes no series, a classifier where it gives no map."""
    kind = backbone_class(name)
    dates = 1 if issubclass(kind, SingleDate) else DATES
    tiny = recipe_of()
    recipe = replace(tiny, backbone=BackboneRecipe(name=name, width=0.25), data=replace(tiny.data, size=24))
    if kind.stride == 0:
        recipe = replace(recipe, segmentation=None, classification=ClassificationRecipe())
    objective = build_objective(
        recipe, bands=BANDS, dates=dates, classes=CLASSES, mean=(1500.0,) * 3, std=(900.0,) * 3
    ).eval()
    return objective, replace(card_of(recipe, objective), dates=dates)


@pytest.mark.parametrize("name", list_backbones())
def test_a_model_of_any_backbone_is_rebuilt_from_its_two_files_alone(tmp_path: Path, name: str) -> None:
    objective, described = model_of(name)
    card = save_weights(tmp_path, objective, described)
    assert {path.name for path in tmp_path.iterdir()} == {CARD, WEIGHTS}
    loaded = load_model(tmp_path)
    assert loaded.card == card
    assert not loaded.objective.training
    needs = objective.encoder.backbone.needs
    sample = make_sample(bands=BANDS, dates=card.dates, size=needs.size or needs.side_for(16))
    with torch.no_grad():
        assert torch.equal(loaded.objective(sample), objective(sample))


def test_a_pretraining_and_weighted_classes_and_finer_labels_come_back(tmp_path: Path) -> None:
    contrast = recipe_of(contrast=True)
    weighted = replace(recipe_of(), segmentation=replace(recipe_of().segmentation, weights="inverse_frequency"))  # type: ignore[type-var]
    finer = replace(recipe_of(), data=replace(recipe_of().data, labels=4))
    for number, recipe in enumerate((contrast, weighted, finer)):
        objective, _ = save(tmp_path / str(number), recipe)
        loaded = load_model(tmp_path / str(number))
        assert loaded.card.magnification == recipe.data.labels
        assert hash_tensors(loaded.objective.state_dict()) == hash_tensors(objective.state_dict())


def test_the_folder_of_a_run_stands_for_its_weights(tmp_path: Path) -> None:
    save(tmp_path / "weights", recipe_of())
    assert load_model(str(tmp_path)).card == load_model(tmp_path / "weights").card


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    _, card = save(tmp_path, recipe_of())
    written = json.loads((tmp_path / CARD).read_text())
    assert written["format"] == "sits-weights"
    assert written["bands"] == list(BANDS)
    assert [entry["code"] for entry in written["classes"]] == ["0", "c1", "c2"]
    assert written["statistics"] == {"mean": [1500.0] * 3, "std": [900.0] * 3}
    assert set(written["software"]) == {"sits-cubes", "torch", "python"}
    assert read_card(tmp_path).sha256 == card.sha256
    assert len(written["tensors"]) == len(load_model(tmp_path).objective.state_dict())


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no weights\.safetensors with a card\.json"):
        load_model(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match="has no weights yet; run its command again"):
        load_model(tmp_path)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=r"is not the file that its card describes \(\S+\); copy both files again"):
        load_model(tmp_path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "2.0"}, "should be a card of sits-weights 1.1; it says sits-weights 2.0"),
        ({"bands": "B02"}, "is no whole card"),
        ({"statistics": {}}, "is no whole card: 'mean' is missing"),
        ({"dates": "x"}, r"card\.json is no whole card: .*'x'"),
        ({"metrics": {"loss": "low"}}, r"card\.json is no whole card: .*'low'"),
        ({"recipe": []}, r"card\.json is no whole card: keys with values"),
        (
            {"recipe": {"name": "x", "backbone": {"name": "utae"}, "segmentation": {}, "colour": 3}},
            "unknown key 'colour'",
        ),
    ],
)
def test_a_card_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    save(tmp_path, recipe_of())
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=says):
        load_model(tmp_path)


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    (tmp_path / CARD).write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_model(tmp_path)


def safetensors(head: object, data: bytes = b"1234", *, length: int | None = None) -> bytes:
    """A file of these tensors, whatever its head says of them."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def a_tensor(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no safetensors file"),
        (pickle.dumps({"a": 1}), "is no safetensors file"),
        (safetensors({}, length=2**62), "is no safetensors file"),
        (safetensors({}, length=99_000_000), "is no safetensors file"),
        (safetensors(b"[" * 100_000), "is no safetensors file"),
        (safetensors({"a": a_tensor(shape=[2**31, 2**31])}), "is no safetensors file"),
        (safetensors({"a": a_tensor(), "b": a_tensor()}), "is no safetensors file"),
        (safetensors({"a": a_tensor(dtype="F4", shape=[8])}), "holds tensors of the type 'F4', which PyTorch does not"),
        (safetensors({"../a\n\x1b[31m": a_tensor()}), r"describes \(\.\./a\\n\\x1b\[31m, "),
    ],
)
def test_weights_that_lie_are_refused_with_one_printable_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    save(tmp_path, recipe_of())
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=says) as refused:
        load_model(tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("key", "count"), [("dates", 10**9), ("dates", -1), ("bands", ["B02"] * 257)])
def test_a_card_of_a_model_that_would_fill_the_memory_is_refused_before_it_is_built(
    tmp_path: Path, key: str, count: object
) -> None:
    save(tmp_path, recipe_of())
    edit(tmp_path, **{key: count})
    with pytest.raises(ValueError, match=rf"card\.json is no whole card: a model has up to \d+ {key}; got"):
        load_model(tmp_path)


def test_a_card_nested_without_end_is_no_card(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    (tmp_path / CARD).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"card\.json is not JSON"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", '"card"', "3"])
def test_a_card_that_holds_no_keys_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    save(tmp_path, recipe_of())
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ValueError, match=r"card\.json is no card: it should be keys with values, got"):
        load_model(tmp_path)


@pytest.mark.parametrize(("name", "size", "side"), [("utae", 90, 96), ("unet2d_clstm", 24, 24), ("unet3df", 24, None)])
def test_a_model_that_sees_the_whole_chip_is_applied_at_the_side_it_was_trained_at(
    tmp_path: Path, name: str, size: int, side: int | None
) -> None:
    tiny = recipe_of()
    recipe = replace(tiny, backbone=BackboneRecipe(name=name, width=0.25), data=replace(tiny.data, size=size))
    save(tmp_path, recipe)
    assert load_model(tmp_path).objective.encoder.backbone.tile_size == side


def test_a_card_of_another_model_names_each_tensor_that_differs(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    edit(tmp_path, dates=8)
    with pytest.raises(ValueError, match=r"1 of another shape: encoder\.backbone\.fn\.weight \(\(1, 4\), \(1, 8\)\)"):
        load_model(tmp_path)


def test_pretrained_weights_go_over_but_for_similarity_and_head(tmp_path: Path) -> None:
    source, _ = save(tmp_path, recipe_of(contrast=True), seed=1)
    target = objective_of(recipe_of(), seed=2)
    head = {name: tensor.clone() for name, tensor in target.state_dict().items() if name.startswith("head.")}
    report = transfer(target, tmp_path)
    ours, theirs = target.state_dict(), source.state_dict()
    encoder = {name for name in ours if name.startswith("encoder.")}
    assert set(report.loaded) == encoder
    assert all(torch.equal(ours[name], theirs[name]) for name in encoder)
    assert all(torch.equal(ours[name], tensor) for name, tensor in head.items())
    assert set(report.left_out) == {*head, *(name for name in theirs if not name.startswith("encoder."))}
    assert report.whole


def test_the_statistics_of_the_pretraining_go_with_its_weights(tmp_path: Path) -> None:
    recipe = recipe_of(contrast=True)
    objective = objective_of(recipe)
    objective.encoder.mean.fill_(7.0)
    save_weights(tmp_path, objective, card_of(recipe, objective))
    target = objective_of(recipe_of())
    transfer(target, tmp_path)
    assert target.encoder.mean.flatten().tolist() == [7.0, 7.0, 7.0]


def test_a_transfer_between_segmentations_leaves_the_head(tmp_path: Path) -> None:
    source, _ = save(tmp_path, recipe_of(), seed=1)
    target = objective_of(recipe_of(), seed=2)
    assert "head.weight" in transfer(target, tmp_path).left_out
    assert not torch.equal(target.state_dict()["head.weight"], source.state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 0.125}, r"of another shape: .*encoder\.backbone\.en3\.0\.weight"),
        ({"name": "unet2d_clstm"}, r"of another backbone: name is unet3df there, unet2d_clstm here; change backbone"),
        # The same shapes, other computations.
        ({"variant": "fixed"}, r"variant is paper there, fixed here; change backbone of the recipe"),
        ({"time_channels": ("year",)}, r"time_channels is \[day_of_year\] there, \[year\] here"),
    ],
)
def test_weights_of_another_backbone_are_refused_and_change_nothing(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    save(tmp_path, recipe_of(contrast=True))
    target = objective_of(replace(recipe_of(), backbone=replace(recipe_of().backbone, **change)))  # type: ignore[arg-type]
    before = hash_tensors(target.state_dict())
    with pytest.raises(ValueError, match=says):
        transfer(target, tmp_path)
    assert hash_tensors(target.state_dict()) == before


def test_weights_of_other_bands_are_refused_with_both_lists(tmp_path: Path) -> None:
    recipe = recipe_of(contrast=True)
    objective = objective_of(recipe)
    turned = ("B08", "B04", "B02")
    save_weights(tmp_path, objective, replace(card_of(recipe, objective), bands=turned))
    with pytest.raises(
        ValueError, match=r"take the bands B08, B04, B02, this model B02, B04, B08; .*data\.bands=\[B08"
    ):
        transfer(objective_of(recipe_of()), tmp_path)


def trained_on(*versions: str, simulated: bool = False) -> Card:
    cubes = [{"region": "tiny", "version": version, "simulated": simulated} for version in versions]
    return replace(card_of(recipe_of(), objective_of(recipe_of())), data={"cubes": cubes})


def test_a_cube_of_other_bands_is_refused_and_one_of_more_bands_is_not() -> None:
    card = trained_on("1.0")
    card.check_cube(facts_of(bands=("B08", "B03", "B02", "B04")))
    with pytest.raises(
        ValueError,
        match=r"out/other has no B04: the model takes the bands B02, B04, B08, the cube holds B02, B08; build",
    ):
        card.check_cube(facts_of(bands=("B02", "B08")))


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [("level", "L1C", "L2A"), ("scale", 0.001, 0.0001), ("offset_removed", False, True), ("clamp", 0, 1)],
)
def test_a_cube_of_another_level_or_radiometry_is_refused(key: str, value: object, ours: object) -> None:
    says = f"radiometry of out/other is not the model's: {key} is {value}, the model's {ours}; give data such as those"
    with pytest.raises(ValueError, match=says):
        trained_on("1.0").check_cube(facts_of(radiometry={**RADIOMETRY, key: value}))


def test_a_cube_of_another_version_of_the_contract_is_refused() -> None:
    trained_on("1.0").check_cube(facts_of(version="1.7"))
    trained_on("1.9", "1.10").check_cube(facts_of(version="1.0"))
    with pytest.raises(
        ValueError,
        match=r"out/other is a cube of version 2\.0, and the model learnt from cubes of version 1\.10, whose",
    ):
        trained_on("1.9", "1.10").check_cube(facts_of(version="2.0"))
    # Weights of other codes say nothing of cubes.
    card_of(recipe_of(), objective_of(recipe_of())).check_cube(facts_of(version="2.0"))


# What is said of shared weights

PUBLICATION = Publication(
    name="tiny",
    licence="CC-BY-4.0",
    description="Tiny.",
    authors=("A. Person", "B. Person"),
    citation="Person 2026",
    created="2026-01-02T03:04:05Z",
    areas=((3.0, 48.0, 3.5, 48.5), (-60.0, -34.5, -59.5, -34.0)),
    period=("2021-10-01", "2022-09-30"),
)


def test_a_publication_goes_with_the_card(tmp_path: Path) -> None:
    objective = objective_of(recipe_of())
    card = replace(trained_on("1.0", simulated=True), publication=PUBLICATION, probe=Probe(dates=4, side=16))
    saved = save_weights(tmp_path, objective, card)
    assert read_card(tmp_path) == saved
    assert read_card(tmp_path).publication == PUBLICATION
    written = json.loads((tmp_path / CARD).read_text())
    assert (written["version"], written["cube_version"], written["simulated"]) == ("1.1", "1.0", True)
    assert written["publication"]["areas"] == [[3.0, 48.0, 3.5, 48.5], [-60.0, -34.5, -59.5, -34.0]]
    assert written["probe"] == {"seed": 0, "chips": 2, "dates": 4, "side": 16, "padding": 0}


def test_a_card_of_the_first_version_is_read(tmp_path: Path) -> None:
    save(tmp_path, recipe_of())
    card = json.loads((tmp_path / CARD).read_text())
    for key in ("cube_version", "simulated", "publication", "probe"):
        del card[key]
    (tmp_path / CARD).write_text(json.dumps({**card, "version": "1.0"}))
    read = load_model(tmp_path).card
    assert (read.publication, read.probe, read.cube_version, read.simulated) == (None, None, None, False)


@pytest.mark.parametrize(
    ("publication", "says"),
    [
        ({"name": "tiny"}, "'licence' is missing"),
        ({"name": "tiny", "licence": "MIT", "created": "now", "areas": [[1, 2]]}, "not enough values"),
        ({"name": "tiny", "licence": "MIT", "created": "now", "authors": "A"}, "a list, got 'A'"),
        (["tiny"], "keys with values"),
    ],
)
def test_a_publication_that_is_wrong_is_refused(tmp_path: Path, publication: object, says: str) -> None:
    save(tmp_path, recipe_of())
    edit(tmp_path, publication=publication)
    with pytest.raises(ValueError, match=rf"card\.json is no whole card: .*{says}"):
        read_card(tmp_path)


# Weights of the official codes


def reference_of(objective: Objective) -> dict[str, torch.Tensor]:
    """The entries as DeepSatModels names those of a UNet3Df."""
    names = {"encoder.backbone.": "backbone.", "similarity.": "attn_sim.", "head.": "linear_out."}
    names |= {"encoder.magnify.x2.": "conv_out_x2.", "encoder.magnify.x4.": "conv_out_x4."}
    state = {}
    for name, tensor in objective.state_dict().items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
        if prefix is not None:
            flat = tensor[:, :, 0, 0] if name == "head.weight" else tensor
            state[names[prefix] + name.removeprefix(prefix)] = flat.clone()
    return state


def published(*, contrast: bool, labels: int = 1, time_channels: tuple[str, ...] = ("day_of_year",)) -> Objective:
    backbone = BackboneRecipe(name="unet3df", time_channels=time_channels)  # type: ignore[arg-type]
    recipe = replace(recipe_of(contrast=contrast), backbone=backbone, data=DataRecipe(labels=labels))  # type: ignore[arg-type]
    return objective_of(recipe).eval()


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, 4])
@pytest.mark.parametrize("contrast", [True, False])
def test_weights_of_the_official_code_rebuild_a_model_of_the_same_stage(
    tmp_path: Path, contrast: bool, labels: int
) -> None:
    original = published(contrast=contrast, labels=labels, time_channels=("day_of_year", "year"))
    torch.save(reference_of(original), tmp_path / "UNet3Df_50_6000.pth")
    found = from_reference(tmp_path / "UNet3Df_50_6000.pth", architecture="unet3df", bands=BANDS, dates=DATES)
    assert type(found) is (ContextContrast if contrast else Segmentation)
    assert found.encoder.magnification == labels
    assert found.encoder.std.flatten().tolist() == [10000.0] * 3
    ours, theirs = found.state_dict(), original.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not name.endswith((".mean", ".std")))


def test_what_the_official_weights_lack_or_hold_too_much_of_is_named() -> None:
    state = reference_of(published(contrast=False))
    arguments = {"architecture": "unet3df", "bands": BANDS, "dates": DATES}
    without = {name: tensor for name, tensor in state.items() if name != "backbone.en3.0.bias"}
    with pytest.raises(ValueError, match=r"1 missing in the weights: encoder\.backbone\.en3\.0\.bias"):
        from_reference(without, **arguments)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"not the weights of a unet3df of 8 dates: .*fn\.weight \(\(1, 4\), \(1, 8\)\)"
    ):
        from_reference(state, **{**arguments, "dates": 8})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="these weights take 4 channels, which is not 1 bands with 0, 1 or 2"):
        from_reference(state, **{**arguments, "bands": ("B02",)})  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"no reference architecture 'segnet'; weights of these can be read: .*unet2d_clstm"
    ):
        from_reference(state, **{**arguments, "architecture": "segnet"})  # type: ignore[arg-type]
    assert len(state["linear_out.bias"]) == CLASSES


class Trap:
    """Runs when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_something_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="holds more than tensors and plain values, or is broken, and is not loaded"):
        read_reference(tmp_path / "bad.pth")
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"not loaded|no state dict"):
        read_reference(tmp_path / "plain.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_reference(tmp_path / "list.pth")


def test_the_state_dict_within_a_checkpoint_is_found(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2)}}, tmp_path / "last.ckpt")
    assert read_reference(tmp_path / "last.ckpt")["a"].tolist() == [1.0, 1.0]
