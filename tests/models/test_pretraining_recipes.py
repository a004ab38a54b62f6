"""Recipes of pretraining without labels: what they refuse, how they are written down, and what they build."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.samples import make_sample

from sits_models.data.draws import Draws
from sits_models.objectives import build_objective
from sits_models.recipe import (
    Augmentation,
    BackboneRecipe,
    Blur,
    ChangeRecipe,
    DataRecipe,
    DateSubset,
    EmbeddingEarthRecipe,
    Geometry,
    GLCNetRecipe,
    InpaintingRecipe,
    JigsawRecipe,
    Jitter,
    Photometry,
    Recipe,
    SeCoRecipe,
    SimCLRRecipe,
    SingleDates,
    dump_recipe,
    list_recipes,
    load_recipe,
    recipe_from_plain,
    recipe_to_plain,
)

LABEL_FREE = tuple(name for name in list_recipes() if load_recipe(name).label_free)
BANDS = ("B02", "B03", "B04", "B08")

shares = st.floats(0, 1)


def geometries_of(least: int) -> st.SearchStrategy[Geometry]:
    """Of views of so many pixels a side at least."""
    return st.builds(
        Geometry,
        sides=st.lists(st.integers(least, 48), max_size=2).map(tuple),
        scale=st.just((0.25, 1.0)),
        aspect=st.just((0.5, 2.0)),
        shared=st.booleans(),
        flips=st.just((0.5, 0.25, 0.125)),
        turns=shares,
        interpolation=st.sampled_from(["bilinear", "nearest"]),
    )


geometries = geometries_of(8)
blurs = st.none() | st.builds(Blur, sigma=st.just((0.1, 2.0))) | st.builds(Blur, kernels=st.just((3, 5)))
jitters = st.none() | st.builds(
    Jitter, brightness=shares, hue=st.floats(0, 0.5), visible=st.just(("B08", "B04", "B03"))
)
photometries = st.builds(
    Photometry,
    gain=shares,
    jitter=jitters,
    grey=shares,
    grey_of=st.sampled_from(["band", "visible"]),
    blur=blurs,
    bands=st.none() | st.just((1, 3)),
)
subsets = st.just(DateSubset()) | st.builds(
    DateSubset, least=st.none() | st.just(2), most=st.just(5), drop=shares.map(lambda x: x / 2)
)
singles = st.builds(SingleDates, n=st.just(1), clear=shares, again=st.booleans())
sections = st.one_of(
    st.builds(
        EmbeddingEarthRecipe,
        key=st.sampled_from(["momentum", "shared"]),
        radius=shares,
        hidden=st.none() | st.just(7),
        dates=subsets,
        geometry=geometries,
        photometry=photometries,
    ).map(lambda section: {"embedding_earth": section}),
    st.builds(
        GLCNetRecipe,
        mode=st.sampled_from(["glcnet", "no_style", "no_global", "no_local"]),
        region=st.integers(1, 8),
        dates=singles,
        first=geometries_of(17),
        second=geometries_of(17),
        photometry=photometries,
    ).map(lambda section: {"glcnet": section}),
    st.builds(SimCLRRecipe, dates=singles, second=geometries, photometry=photometries).map(lambda s: {"simclr": s}),
    st.builds(InpaintingRecipe, side=st.integers(1, 8), geometry=geometries).map(lambda s: {"inpainting": s}),
    st.builds(JigsawRecipe, gap=shares.map(lambda x: x / 2), geometry=geometries).map(lambda s: {"jigsaw": s}),
    st.builds(
        SeCoRecipe,
        mode=st.sampled_from(["moco", "moco_tp", "seco"]),
        again=st.booleans(),
        geometry=geometries,
        photometry=photometries,
    ).map(lambda section: {"seco": section}),
)


@pytest.mark.slow
@settings(max_examples=15)
@given(section=sections, transductive=st.booleans())
def test_a_recipe_comes_back_from_yaml_and_from_json_with_all_options(
    section: dict[str, EmbeddingEarthRecipe], transductive: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = Recipe(
        name="x", data=DataRecipe(transductive=transductive), backbone=BackboneRecipe(name="resnet18"), **section
    )
    path = tmp_path_factory.mktemp("recipe") / "x.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe
    assert recipe_from_plain(json.loads(json.dumps(recipe_to_plain(recipe))), name="card") == recipe


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("embedding-earth-laptop", "embedding_earth.pixels=0", "embedding_earth.pixels is at least 1; got 0"),
        ("embedding-earth-laptop", "embedding_earth.temperature=0", "embedding_earth.temperature is above 0; got 0"),
        ("embedding-earth-laptop", "embedding_earth.momentum=2", "a momentum lies from 0 to 1; got 2"),
        ("embedding-earth-laptop", "embedding_earth.radius=-1", "a radius is 0 px or more; got -1"),
        ("embedding-earth-laptop", "embedding_earth.radius=3", "other images alone need no radius"),
        ("embedding-earth-laptop", "embedding_earth.dates.least=13", "least at most as many as most; got 13, 12"),
        ("embedding-earth-laptop", "embedding_earth.dates={least: 3}", "least = 3 dates go with a number most"),
        ("embedding-earth-laptop", "embedding_earth.dates.drop=1", "drop is a probability below 1; got 1"),
        (
            "embedding-earth-laptop",
            "embedding_earth.geometry.sides=[40]",
            "cuts windows of 40 px, not resized, from chip",
        ),
        ("embedding-earth-laptop", "embedding_earth.geometry.turns=2", "turns is one; got"),
        ("embedding-earth-laptop", "embedding_earth.geometry.flips=[0.5, 0.5, 0.5]", "a sum of at most 1"),
        ("embedding-earth-laptop", "embedding_earth.geometry.scale=[0, 1]", "a least and a largest share of the area"),
        ("embedding-earth-laptop", "embedding_earth.photometry.gain=-1", "are 0 or more"),
        ("embedding-earth-laptop", "embedding_earth.photometry.bands=[3, 2]", "a least and a largest number"),
        ("embedding-earth-laptop", "embedding_earth.negatives=others", "did you mean 'other_images'"),
        ("embedding-earth-laptop", "augmentation.noise=0.01", "as its own section says; leave out augmentation"),
        ("embedding-earth-laptop", "data.labels=2", "embedding_earth reads no labels; set data.labels=1"),
        ("embedding-earth-laptop", "data.few={share: 0.1}", "embedding_earth reads no labels; leave out data.few"),
        ("embedding-earth-laptop", "data.sampling=middle", "set data.sampling=parcel for a embedding_earth"),
        ("embedding-earth-laptop", "training.probe=true", "which embedding_earth is to train; leave it out"),
        ("glcnet-laptop", "glcnet.weight=1.5", "the weight of the global contrast lies from 0 to 1; got 1.5"),
        ("glcnet-laptop", "glcnet.region=49", "glcnet.region is at most the 48 px of a view; got 49"),
        ("glcnet-laptop", "glcnet.dates.n=0", "n is 1 or more"),
        ("glcnet-laptop", "glcnet.photometry={blur: {}}", "a blur has a range of sigma or sizes of kernels"),
        ("glcnet-laptop", "glcnet.photometry={blur: {kernels: [4]}}", "a blur's kernels have odd sizes; got (4,)"),
        ("glcnet-laptop", "glcnet.photometry={jitter: {hue: 0.7}}", "and its hue in [0, 0.5]"),
        ("glcnet-laptop", "data.batch=1", "glcnet tells the views of a chip from those of others; set data.batch=2"),
        ("simclr-laptop", "data.batch=1", "simclr tells the views of a chip from those of others; set data.batch=2"),
        ("simclr-laptop", "simclr.second.aspect=[2, 1]", "a least and a largest width / height"),
        ("seco-laptop", "seco.mode=byol", "should be 'moco', 'moco_tp' or 'seco', got 'byol'"),
        ("seco-laptop", "seco.queue=0", "seco.queue is at least 1; got 0"),
        ("seco-laptop", "seco.clear=2", "seco.clear is a probability in [0, 1]; got 2"),
        ("seco-laptop", "seco.temperature=-1", "seco.temperature is above 0; got -1"),
        ("glcnet-laptop", "glcnet.temperature=0", "glcnet.temperature is above 0; got 0"),
        ("simclr-laptop", "simclr.channels=0", "simclr.channels is at least 1; got 0"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, change: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        load_recipe(name, changes=[change])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        (["data.size=16"], False),
        (["data.size=16", "glcnet.mode=no_local"], False),
        (["glcnet.second.sides=[48, 16]"], False),
        (["data.size=17"], True),
        (["data.size=16", "glcnet.first.sides=[48]", "glcnet.second.sides=[48]"], True),
        (["data.size=16", "glcnet.mode=no_style"], True),
        (["data.size=16", "glcnet.mode=no_global"], True),
    ],
)
def test_a_style_needs_more_than_one_pixel_of_its_map(changes: list[str], fits: bool) -> None:
    changes = ["glcnet.region=8", "glcnet.first.sides=[]", "glcnet.second.sides=[]", *changes]
    if fits:
        assert load_recipe("glcnet-laptop", changes=changes).glcnet is not None
        return
    says = "views of 16 px have a single one: set data.size, or sides of the views, above 16, or glcnet.mode=no_style"
    with pytest.raises(ValueError, match=re.escape(says)):
        load_recipe("glcnet-laptop", changes=changes)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("inpainting={side: 49}", "inpainting.side is at most the 48 px of a view; got 49"),
        ("inpainting={blocks: 0}", "at least 1 block of at least 1 px is hidden; got 0 of 16 px"),
        ("inpainting={weight: -1}", "the weight of what is hidden lies from 0 to 1; got -1"),
        ("jigsaw={orders: 1}", "orders of tiles are 2 to 1512; got 1"),
        ("jigsaw={gap: 1}", "the gap is a share of a tile's side"),
        ("jigsaw={geometry: {sides: [2], scale: [0.5, 1]}}", "views of 2 px cannot be cut into nine tiles with gaps"),
    ],
)
def test_a_wrong_value_of_a_baseline_is_one_sentence(section: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        load_recipe("simclr-laptop", changes=["simclr=null", section])


def test_what_a_backbone_sees() -> None:
    glcnet, jigsaw = load_recipe("glcnet-laptop"), load_recipe("simclr-laptop", changes=["simclr=null", "jigsaw={}"])
    assert (glcnet.sides, glcnet.dates_of(24)) == ((48,), 1)
    assert load_recipe("glcnet-laptop", changes=["glcnet.second.sides=[32, 48]"]).sides == (48, 32)
    assert (jigsaw.sides, jigsaw.dates_of(24)) == ((14,), 1)  # a ninth of 48 px is 16 px
    earth = load_recipe("embedding-earth-laptop")
    assert (earth.sides, earth.dates_of(24), earth.dates_of(8)) == ((24,), 12, 8)
    change = Recipe(name="x", backbone=BackboneRecipe(name="resnet18"), change=ChangeRecipe())
    assert (change.sides, change.dates_of(2)) == ((48,), 1)


@pytest.mark.parametrize("name", [name for name in LABEL_FREE if not name.endswith("-laptop")])
def test_a_shipped_recipe_builds_its_objective(name: str) -> None:
    recipe = load_recipe(name)
    bands = recipe.data.bands or BANDS
    with torch.device("meta"):
        objective = build_objective(
            recipe, bands=bands, dates=24, classes=0, mean=[0.0] * len(bands), std=[1.0] * len(bands)
        )
    assert sum(weight.numel() for weight in objective.parameters() if weight.requires_grad) > 10_000


@pytest.mark.parametrize("name", [name for name in LABEL_FREE if name.endswith("-laptop")])
def test_a_step_of_a_laptop_recipe_moves_its_weights(name: str) -> None:
    recipe = load_recipe(name)
    torch.manual_seed(0)
    objective = build_objective(recipe, bands=BANDS, dates=14, classes=0, mean=[5000.0] * 4, std=[2900.0] * 4)
    sample = make_sample(batch=3, dates=14, bands=BANDS, size=recipe.data.size)
    sample = sample.replace(clear=torch.ones_like(sample.clear))
    draws = Draws.of(torch.Generator().manual_seed(0), chips=3)
    loss = objective.loss(objective.views(sample, Augmentation(), draws))
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert loss.value.isfinite()
    assert loss.count > 0
    learnt = [weight for weight in objective.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learnt)
    assert sum(bool(weight.grad.any()) for weight in learnt if weight.grad is not None) > len(learnt) / 2


def test_views_that_are_resized_may_be_larger_than_the_chip() -> None:
    recipe = load_recipe("simclr-laptop", changes=["simclr.first.sides=[96]", "simclr.second.sides=[96]"])
    assert recipe.sides == (96,)
