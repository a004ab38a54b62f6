"""The plan and the section of the few-label table; its runs take hours."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experiments.few_labels.__main__ import pretrain
from tests.experiments.few_labels.page import PAGE, section_of, with_section
from tests.experiments.few_labels.plan import COMPARISONS, ELSEWHERE, HERE, SEEDS, Comparison, pretrainings
from tests.synthetic import BANDS, Synthetic

from sits_models.recipe import dump_recipe, load_recipe

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: one.name)
def test_what_is_pretrained_fits_what_is_finetuned(comparison: Comparison) -> None:
    finetuned = load_recipe(str(FOLDER / f"{comparison.recipe}.yaml"))
    assert not finetuned.pretrains
    for one in pretrainings(comparison):
        pretrained = load_recipe(str(FOLDER / f"{one.recipe}.yaml"), changes=one.changes)
        assert pretrained.pretrains
        assert pretrained.backbone == finetuned.backbone
        # Who reads labels reads those of the finetuning with this seed and share, but where that is the question.
        if pretrained.label_free or one.folder.startswith("cscl-of-all-labels"):
            assert pretrained.data.few is None
        else:
            assert pretrained.data.few is not None
            assert (pretrained.data.few.by, pretrained.data.few.seed) == ("parcel", pretrained.training.seed)
            assert one.folder == f"cscl-{pretrained.data.few.share:g}-{pretrained.data.few.seed}"
            # Then parcels that are kept are the same ones, and are reached by both.
            for name in ("size", "sampling", "background", "classes", "labels"):
                assert getattr(pretrained.data, name) == getattr(finetuned.data, name)


@pytest.mark.soak
def test_finished_weights_of_another_recipe_are_not_taken(
    synthetic: Synthetic, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cube = synthetic.folder.path
    wanted = next(pretrainings(next(one for one in COMPARISONS if one.name == "deeplab")))
    wanted = replace(wanted, region=cube.name)
    folder = tmp_path / "pretrained" / wanted.folder
    folder.mkdir(parents=True)
    changes = [*wanted.changes, "glcnet.region=6", f"data.bands=[{', '.join(BANDS)}]"]
    (folder / "recipe.yaml").write_text(
        dump_recipe(load_recipe(str(FOLDER / f"{wanted.recipe}.yaml"), changes=changes))
    )
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(subprocess.CalledProcessError):
        pretrain([wanted], cube.parent, tmp_path, jobs=1)
    said = " ".join(capfd.readouterr().err.split())
    assert "holds a run of another recipe (glcnet.region is 6 there, 12 here)" in said


def test_every_method_is_there_and_two_of_them_in_full() -> None:
    every = {start.recipe for one in COMPARISONS for start in one.starts}
    assert every == {f"pretrain-{name}" for name in ("cscl", "embedding-earth", "glcnet", "seco")}
    main = [one for one in COMPARISONS if one.shares == (0.01, 0.1, 1.0)]
    assert {start.recipe for one in main for start in one.starts} == every
    more = [one for one in COMPARISONS if one.modes == ("finetune", "probe")]
    assert all({start.region for start in one.starts} == {HERE, ELSEWHERE} for one in more)
    assert all(0.05 in one.shares for one in more)
    assert len(more) == 2
    assert len(SEEDS) == 3


def test_weights_of_one_folder_are_one_pretraining() -> None:
    by_folder: dict[str, set[object]] = {}
    for one in COMPARISONS:
        for pretraining in pretrainings(one):
            by_folder.setdefault(pretraining.folder, set()).add(pretraining)
    assert all(len(found) == 1 for found in by_folder.values())


def test_the_section_holds_each_table_below_its_title(tmp_path: Path) -> None:
    one = COMPARISONS[0]
    (tmp_path / one.name).mkdir()
    (tmp_path / one.name / "table.md").write_text(
        "# Few labels: x\n\n3 of 3 runs.\n\n## Simulated data, fine-tuned, pixels\n\n| a |\n"
    )
    text = section_of(one, tmp_path)
    assert text.startswith(f"### {one.title}\n\n![Simulated data: ")
    assert "\n\n#### Simulated data, fine-tuned, pixels\n\n| a |\n" in text
    assert "# Few labels: x" not in text


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: one.name)
def test_each_comparison_has_its_part_of_the_page(comparison: Comparison) -> None:
    before = PAGE.read_text("utf-8")
    page = with_section(before, comparison, "### These tables\n")
    assert page.count("### These tables\n") == 1
    assert with_section(page, comparison, "### These tables\n") == page
    others = [one.title for one in COMPARISONS if one != comparison]
    assert [page.count(f"### {title}\n") for title in others] == [before.count(f"### {title}\n") for title in others]
