from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.commands import assert_refused, sits_model
from tests.models.samples import make_sample
from torch import Tensor

from sits_catalog.console import Narrator
from sits_models.backbones import backbone_class, list_backbones
from sits_models.backbones.base import Backbone, Needs
from sits_models.checkpoints import Card, save_weights
from sits_models.data.cubes import CropEntry
from sits_models.encoder import Encoder
from sits_models.objectives import Objective, Segmentation, build_objective
from sits_models.recipe import (
    BackboneRecipe,
    ChangeRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    MultiLabelRecipe,
    Recipe,
    SegmentationRecipe,
    TransformerRecipe,
    Variant,
)
from sits_models.tasks import export as task
from sits_models.tasks.export import Exported, export
from sits_models.tasks.exporting import (
    Agreement,
    Dimension,
    Dimensions,
    Inputs,
    Program,
    compare,
    draw_inputs,
    open_program,
    plan_dimensions,
    shapes_to_try,
    trace,
    write_program,
)

BANDS = ("B02", "B03", "B04")
SIZE, CLASSES = 16, 4
VARIANTS: tuple[Variant, ...] = ("paper", "fixed")
ALL = [(name, variant) for name in list_backbones() for variant in VARIANTS]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export-a-model.md"


def dates_of(name: str) -> int:
    if name.startswith(("resnet", "deeplab")):
        return 1
    return 8 if name.startswith("unet3d") else 5


def recipe_of(name: str, variant: Variant, *, labels: int = 1, contrast: bool = False) -> Recipe:
    chips = backbone_class(name).stride == 0
    return Recipe(
        name=f"small-{name}",
        data=DataRecipe(bands=BANDS, size=SIZE, labels=labels),  # type: ignore[arg-type]
        backbone=BackboneRecipe(
            name=name,
            variant=variant,
            width=0.125,
            transformer=TransformerRecipe(temporal_depth=2, spatial_depth=1) if name.startswith("tsvit") else None,
        ),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if chips or contrast else SegmentationRecipe(),
        classification=ClassificationRecipe() if chips and not contrast else None,
    )


def model_of(recipe: Recipe) -> tuple[Objective, Card]:
    """A small model whose statistics of batch normalisation are not those of a new one, and its card."""
    dates = dates_of(recipe.backbone.name)
    mean, std = (1500.0, 1200.0, 900.0), (800.0, 700.0, 600.0)
    model = build_objective(recipe, bands=BANDS, dates=dates, classes=CLASSES, mean=mean, std=std).eval()
    for name, buffer in model.named_buffers():
        if "running_mean" in name:
            buffer.normal_(0.0, 0.1)
        elif "running_var" in name:
            buffer.uniform_(0.5, 1.5)
    entries = (("(background)", "background"), ("110", "wheat"), ("120", "maize"), ("130", "Rübe"))
    card = Card(
        recipe=recipe,
        bands=BANDS,
        dates=dates,
        classes=tuple(
            CropEntry(index=i, code=code, name=crop, hcat=None, colour="#808080")
            for i, (code, crop) in enumerate(entries)
        ),
        radiometry={"level": "L2A", "scale": 1e-4, "offset_removed": True, "clamp": True},
        mean=mean,
        std=std,
    )
    return model, card


def weights_of(folder: Path, recipe: Recipe) -> Path:
    """A folder of weights."""
    save_weights(folder, *model_of(recipe))
    return folder


def export_from(weights: Path, **options: object) -> Exported:
    with Narrator() as narrator:
        return export(str(weights), narrator=narrator, **{"out": None, **options})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- the program and its sizes ------------------------------------------------------------------------------------


def test_a_program_gives_what_the_model_gives_for_a_sample() -> None:
    sample = make_sample(bands=BANDS, dates=8, padded=2)
    inputs = Inputs(sample.image.float(), sample.valid, sample.day.long())
    model, _ = model_of(recipe_of("unet3df", "fixed"))
    with torch.no_grad():
        assert torch.equal(Program(model)(*inputs), model(sample))
    pretrained, _ = model_of(recipe_of("unet3df", "fixed", contrast=True))
    program = Program(pretrained)
    assert program.output == "embedding"
    with torch.no_grad():
        assert torch.equal(program(*inputs), pretrained.encoder(sample))
    assert not any(name.startswith("model.similarity") for name in program.state_dict())


def test_a_program_of_several_classes_a_chip_gives_the_logits_of_each() -> None:
    recipe = replace(recipe_of("resnet18", "paper"), segmentation=None, multilabel=MultiLabelRecipe())
    sample = make_sample(bands=BANDS, dates=1)
    model, _ = model_of(recipe)
    program = Program(model)
    assert program.output == "logits"
    with torch.no_grad():
        expected = model(sample)
        assert expected.shape == (len(sample.place), CLASSES)
        assert torch.equal(program(sample.image.float(), sample.valid, sample.day.long()), expected)


@pytest.mark.soak
def test_a_model_of_several_classes_a_chip_is_exported(tmp_path: Path) -> None:
    recipe = replace(recipe_of("resnet18", "paper"), segmentation=None, multilabel=MultiLabelRecipe())
    ended = sits_model("export", "--weights", weights_of(tmp_path / "weights", recipe), "--to", "torch", "--json")
    assert ended.code == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", CLASSES]}
    assert len(facts["compared"]) > 1


def test_changes_between_two_dates_are_not_exported(tmp_path: Path) -> None:
    data = DataRecipe(bands=BANDS, size=SIZE, dates=DateRule(pick="first", n=2))
    recipe = replace(recipe_of("resnet18", "paper"), data=data, segmentation=None, change=ChangeRecipe())
    statistics = {"mean": (1500.0,) * 3, "std": (800.0,) * 3}
    model = build_objective(recipe, bands=BANDS, dates=2, classes=2, **statistics)
    _, card = model_of(recipe_of("resnet18", "paper"))
    save_weights(tmp_path / "weights", model, replace(card, recipe=recipe, classes=card.classes[:2], **statistics))
    ended = sits_model("export", "--weights", tmp_path / "weights", "--to", "torch")
    assert_refused(ended, "these weights tell changes between two dates: give others, such as those of a segmentation")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_drawn_inputs_have_gaps_padding_between_dates_and_a_chip_without_any_date() -> None:
    image, valid, day = draw_inputs(batch=3, dates=8, bands=2, height=12, width=16, seed=0)
    assert image.shape == (3, 8, 2, 12, 16)
    assert image.dtype == torch.float32
    assert 0.05 < (image == 0).all(dim=2).float().mean() < 0.15
    assert valid.tolist() == [[True] * 6 + [False] * 2, [True] * 4 + [False] + [True] * 3, [False] * 8]
    assert image[2].max() > 9000, "what stands in padding is no zero, and must not matter"
    assert day.dtype == torch.int64
    assert (day.diff(dim=1) > 0).all()
    assert draw_inputs(batch=1, dates=1, bands=2, height=4, width=4, seed=0).valid.all()


def test_sizes_are_free_where_a_backbone_leaves_them_free_and_else_say_why() -> None:
    free = planned("unet3df", "fixed")
    assert free.to_json() == {
        "batch": {"dynamic": True, "least": 1, "multiple": 1},
        "dates": {"dynamic": True, "least": 1, "multiple": 1},
        "height": {"dynamic": True, "least": 4, "multiple": 4},
        "width": {"dynamic": True, "least": 4, "multiple": 4},
    }
    assert str(planned("unet3df", "paper").dates) == "8: this UNet3Df was built for 8 dates"
    assert str(planned("resnet18", "paper").dates) == "1: ResNet18 takes single dates"
    assert str(planned("utae", "paper").height) == "multiples of 8 from 16; trained at 16"
    assert str(planned("tsvit", "paper").width) == "16: this TSViT was built for chips of 16 px"
    asked = planned("unet3df", "fixed", batch=2, dates=3, size=8)
    assert [str(dimension) for _, dimension in asked] == [f"{n}: as asked for" for n in (2, 3, 8, 8)]


def planned(name: str, variant: Variant, **options: int) -> Dimensions:
    model, card = model_of(recipe_of(name, variant))
    asked = {"batch": None, "dates": None, "size": None, **options}
    return plan_dimensions(model.encoder.backbone, card, **asked)


def test_the_sizes_to_compare_at_are_the_own_the_least_and_larger_ones() -> None:
    assert shapes_to_try(planned("utae", "fixed")) == ((1, 5, 16, 16), (1, 1, 16, 16), (3, 6, 56, 40))
    assert shapes_to_try(planned("tsvit", "fixed", batch=2)) == ((2, 5, 16, 16), (2, 1, 16, 16), (2, 6, 16, 16))
    assert shapes_to_try(planned("resnet18", "paper", batch=2, size=40)) == ((2, 1, 40, 40),)


def test_a_difference_is_measured_by_the_largest_value_and_nan_is_one() -> None:
    at = {"shape": (1, 2, 8, 8)}
    for largest in (5.7e-6, 0.5, 20.0):
        assert Agreement(**at, difference=0.9e-4 * largest, largest=largest).holds
        assert not Agreement(**at, difference=1.1e-4 * largest, largest=largest).holds
    assert not Agreement(**at, difference=5.7e-6, largest=5.7e-6).holds, "zeros in place of small values"
    assert Agreement(**at, difference=0.0, largest=0.0).holds
    assert not Agreement(**at, difference=math.nan, largest=1.0).holds
    model, _ = model_of(recipe_of("resnet18", "paper"))
    program = Program(model)

    def off(inputs: Inputs) -> Tensor:
        result: Tensor = program(*inputs).clone()
        result[0, 1, 2, 3] += 0.5
        return result

    (found,) = compare(program, off, [(2, 1, 40, 36)])
    assert found.difference == pytest.approx(0.5, abs=1e-4)
    assert found.shape == (2, 1, 40, 36)
    assert not found.holds
    with pytest.raises(RuntimeError, match=r"the model gives \(1, 4, 8, 8\) .* and the exported file \(1, 4, 8, 4\)"):
        compare(program, lambda inputs: program(*inputs)[..., :4], [(1, 1, 8, 8)])


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "18"], "--size 18: UNet3Df takes chips of at least 4 px whose sides are multiples of 4; the next"),
        (["--dates", "7"], "--dates 7: this UNet3Df was built for 8; leave the option out"),
        (["--opset", "17"], "--opset is 18 to 23; got 17"),
        (["--out", "model.pt2"], "--out is the name of a file that ends with .onnx where --to is onnx; got model.pt2"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written(
    options: list[str], says: str, tmp_path: Path
) -> None:
    weights_of(tmp_path / "weights", recipe_of("unet3df", "paper"))
    assert_refused(sits_model("export", "--weights", "weights", "--to", "onnx", *options), says)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_an_opset_is_of_onnx_and_a_side_of_a_transformer_its_own(tmp_path: Path) -> None:
    weights_of(tmp_path / "weights", recipe_of("tsvit", "fixed"))
    to_torch = ["export", "--weights", "weights", "--to", "torch"]
    assert_refused(sits_model(*to_torch, "--opset", "20"), "--opset 20 is of ONNX alone; leave it out with --to torch")
    assert_refused(sits_model(*to_torch, "--size", "24"), "--size 24: this TSViT was built for chips of 16 px")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_one_sentence_says_how_to_get_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    ended = sits_model("export", "--weights", "anywhere", "--to", "onnx")
    assert_refused(ended, f"there is no {missing}: `pip install 'sits-cubes[export]'`")
    assert not list(tmp_path.iterdir())


def test_help_teaches_by_an_example() -> None:
    ended = sits_model("export", "--help")
    assert ended.code == 0
    assert "sits-model export --weights runs/segment-demo --to onnx" in " ".join(ended.stdout.split())


class Wilful(Backbone):
    """A backbone whose operations depend on the values that it is given."""

    channels = 2
    needs = Needs(dates=None, size_multiple=1)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        brightest = image.mean(dim=(0, 1, 3, 4)).argmax().item()
        return image.mean(dim=1)[:, :2] if brightest == 0 else image.sum(dim=1)[:, :2]


@pytest.mark.slow
def test_a_model_that_cannot_be_followed_is_said_to_be_so_in_one_sentence() -> None:
    _, card = model_of(recipe_of("unet3df", "fixed"))
    encoder = Encoder(Wilful(), bands=BANDS, mean=card.mean, std=card.std, magnification=1)
    program = Program(Segmentation(encoder, classes=2, recipe=SegmentationRecipe(), class_weights=None))
    sizes = plan_dimensions(encoder.backbone, card, batch=None, dates=None, size=None)
    with pytest.raises(RuntimeError) as failed:
        trace(program, sizes)
    assert re.fullmatch(
        r"a Wilful of the variant paper cannot be exported, since torch\.export cannot follow what it computes: .+",
        str(failed.value),
    )


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_exported_program_of_fixed_sizes_is_loaded_by_torch_alone(tmp_path: Path) -> None:
    weights = weights_of(tmp_path / "weights", recipe_of("resnet18", "paper"))
    ended = sits_model("export", "--weights", weights, "--to", "torch", "--batch", 2, "--size", 20, "--json")
    assert ended.code == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["file"] == "small-resnet18.pt2"
    assert facts["inputs"]["image"] == {"dtype": "float32", "shape": [2, 1, 3, 20, 20]}
    assert facts["dimensions"]["height"] == {"dynamic": False, "size": 20, "reason": "as asked for"}
    assert [compared["shape"] for compared in facts["compared"]] == [[2, 1, 20, 20]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-resnet18.pt2", "weights"]
    extra = {"card.json": "", "bands": "", "weights_sha256": ""}
    loaded = torch.export.load("small-resnet18.pt2", extra_files=extra)
    card = Card.from_json(json.loads(extra["card.json"]), name="the card in the file")
    assert json.loads(extra["bands"]) == list(BANDS)
    assert json.loads(extra["weights_sha256"]) == card.sha256
    model, _ = model_of(recipe_of("resnet18", "paper"))
    model.load_state_dict(load_tensors(weights))
    inputs = draw_inputs(batch=2, dates=1, bands=3, height=20, width=20, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module()(*inputs), Program(model)(*inputs))


def load_tensors(weights: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(weights / "weights.safetensors")


@pytest.mark.slow
def test_an_onnx_file_says_what_it_takes_and_runs_as_the_page_says(tmp_path: Path) -> None:
    import onnx

    weights = weights_of(tmp_path / "weights", recipe_of("unet3df", "fixed", labels=2))
    ended = sits_model("export", "--weights", weights, "--to", "onnx", "--out", "files/model.onnx")
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("files/model.onnx: ")
    assert lines[1:7] == [
        "takes     image (batch, dates, 3, height, width), valid (batch, dates), day (batch, dates)",
        "gives     logits (batch, 4, 2*height, 2*width)",
        "batch     any",
        "dates     any",
        "height    multiples of 4",
        "width     multiples of 4",
    ]
    assert [line.partition(" at ")[2] for line in lines[7:10]] == [
        "1 x 8 dates x 16 x 16 px",
        "1 x 1 dates x 4 x 4 px",
        "3 x 9 dates x 40 x 24 px",
    ]
    assert lines[10:] == ["equal     to the model, where 1e-04 of the largest value is allowed"]
    assert [path.name for path in Path("files").iterdir()] == ["model.onnx"]

    model = onnx.load("files/model.onnx")
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", 20)]
    written = Path("files/model.onnx").read_bytes()
    assert not any(text in written for text in (b"site-packages", b"program.py", bytes(weights.parent)))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["bands"]) == list(BANDS)
    assert json.loads(facts["classes"])[3] == {"index": 3, "code": "130", "name": "Rübe"}
    assert json.loads(facts["radiometry"])["level"] == "L2A"
    assert Card.from_json(json.loads(facts["card.json"]), name="file").classes[1].name == "wheat"

    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(code.splitlines()) <= 12
    Path("model.onnx").symlink_to("files/model.onnx")
    names: dict[str, object] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    ours, _ = model_of(recipe_of("unet3df", "fixed", labels=2))
    ours.load_state_dict(load_tensors(weights))
    inputs = [torch.from_numpy(names[name]) for name in ("image", "valid", "day")]  # type: ignore[arg-type]
    with torch.no_grad():
        expected = Program(ours)(*inputs)
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, rtol=0, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_kept_and_the_one_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(tmp_path / "weights", recipe_of("resnet18", "paper"))
    (tmp_path / "model.pt2").write_text("the file before")
    (tmp_path / "model.pt2.partial").mkdir()
    (tmp_path / "model.pt2.partial" / "notes").write_text("a folder of the user")

    def open_another(path: Path) -> object:
        run = open_program(path)
        return lambda inputs: run(inputs) + 0.25

    monkeypatch.setattr(task, "open_program", open_another)
    ended = sits_model("export", "--weights", weights, "--to", "torch", "--out", "model.pt2", "--batch", 1)
    assert_refused(ended, "model.pt2 was not written: what it computes is not", "2.5e-01 of", code=1)
    assert (tmp_path / "model.pt2").read_text() == "the file before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2", "model.pt2.partial", "weights"]
    assert (tmp_path / "model.pt2.partial" / "notes").is_file()


def test_the_tensors_of_a_larger_file_before_do_not_stay_beside_a_new_one(tmp_path: Path) -> None:
    target, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"

    def write(*names: str) -> list[str]:
        new = tmp_path / "new"
        new.mkdir()
        for name in names:
            (new / name).write_text("new")
        task._move([new / name for name in names], target)
        new.rmdir()
        return sorted(path.name for path in tmp_path.iterdir())

    data.write_text("of somebody else")
    assert write("model.onnx") == ["model.onnx", "model.onnx.data"]
    assert write("model.onnx.data", "model.onnx") == ["model.onnx", "model.onnx.data"]
    assert data.read_text() == "new"
    assert write("model.onnx") == ["model.onnx"]


def test_no_folder_is_made_for_a_model_that_cannot_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it cannot be followed")

    monkeypatch.setattr(task, "trace", fail)
    weights = weights_of(tmp_path / "weights", recipe_of("resnet18", "paper"))
    with pytest.raises(RuntimeError, match="it cannot be followed"):
        export_from(weights, to="torch", out="some/where/model.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_the_oldest_and_the_newest_opset_agree_too(opset: int, tmp_path: Path) -> None:
    import onnx

    weights = weights_of(tmp_path / "weights", recipe_of("unet3d", "paper"))
    exported = export_from(weights, to="onnx", opset=opset, batch=1, size=16)
    assert exported.opset == opset
    assert [entry.version for entry in onnx.load(exported.path).opset_import if not entry.domain] == [opset]
    assert all(agreement.holds for agreement in exported.agreements)


# --- every backbone -----------------------------------------------------------------------------------------------

QUICK: list[tuple[str, Variant]] = [("unet2d_clstm", "fixed"), ("utae", "fixed"), ("tsvit", "fixed")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), QUICK)
def test_a_traced_backbone_gives_what_the_model_gives_for_batches_of_any_size(name: str, variant: Variant) -> None:
    model, card = model_of(recipe_of(name, variant))
    program = Program(model)
    sizes = plan_dimensions(model.encoder.backbone, card, batch=None, dates=None, size=SIZE)
    traced, sizes = trace(program, sizes)
    module = traced.module()
    found = compare(program, lambda inputs: module(*inputs), shapes_to_try(sizes))
    assert len(found) >= 2
    for agreement in found:
        assert agreement.holds, agreement
    assert sizes.batch.fixed is None


@pytest.mark.soak
@pytest.mark.parametrize(("name", "variant"), ALL)
def test_both_files_of_every_backbone_equal_the_model_and_take_the_sizes_on_the_page(
    name: str, variant: Variant, tmp_path: Path
) -> None:
    model, card = model_of(recipe_of(name, variant))
    program = Program(model)
    sizes = plan_dimensions(model.encoder.backbone, card, batch=None, dates=None, size=None)
    traced, sizes = trace(program, sizes)
    for file in ("model.pt2", "model.onnx"):
        write_program(tmp_path / file, traced, output=program.output, facts={}, opset=20)
        found = compare(program, open_program(tmp_path / file), shapes_to_try(sizes))
        print(f"{name} {variant} {file}: {'; '.join(map(str, found))}")
        assert all(agreement.holds for agreement in found), found
    assert row_of(name, variant, sizes) in PAGE.read_text().splitlines()


def row_of(name: str, variant: Variant, sizes: Dimensions) -> str:
    """The row of a backbone in the table of the page."""
    dates = "any"
    if sizes.dates.fixed is not None:
        dates = "1" if sizes.dates.size == 1 else "those of the training, or `--dates`"
        if "was built for" in sizes.dates.fixed:
            dates = "those of the training"
    return f"| `{name}` | `{variant}` | {chips(sizes.batch)} | {dates} | {side(sizes.height)} |"


def chips(batch: Dimension) -> str:
    return "any" if batch.fixed is None else "1, or `--batch`"


def side(height: Dimension) -> str:
    if height.fixed is not None:
        return "that of the training"
    return str(replace(height, trained=None))
