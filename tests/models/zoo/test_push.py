from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.models.test_report import facts_of
from tests.models.zoo.made import CREATED, push_tiny, save_run, shared_weights, wishes
from tests.synthetic import Synthetic

from sits_models.checkpoints import load_model, read_card, save_weights
from sits_models.data.cubes import open_cube
from sits_models.report import evaluation_json
from sits_models.zoo import Registry
from sits_models.zoo.complete import verify
from sits_models.zoo.entry import CARD, FILES, ITEM, LOGITS, README, WEIGHTS
from sits_models.zoo.licences import LICENCES, check_licence
from sits_models.zoo.push import push
from sits_models.zoo.registry import INDEX


def test_a_pushed_folder_is_whole(tmp_path: Path) -> None:
    pushed = push_tiny(tmp_path, tmp_path / "zoo", description="Tiny.", authors=("A. Person",))
    folder = Path(pushed.place)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert {path.name for path in (tmp_path / "zoo").iterdir()} == {"tiny", INDEX}
    assert verify(folder) == ()
    published = read_card(folder).publication
    assert published is not None
    assert (published.name, published.licence, published.created) == ("tiny", "CC-BY-4.0", CREATED)
    assert (published.description, published.authors) == ("Tiny.", ("A. Person",))
    assert (folder / WEIGHTS).read_bytes() == (tmp_path / "run-1" / "weights" / WEIGHTS).read_bytes()


def test_the_page_for_people_says_that_the_data_was_simulated(tmp_path: Path) -> None:
    text = (shared_weights(tmp_path) / README).read_text()
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert "**Trained on simulated data: its figures say nothing about any real place.**" in text
    assert "| validation miou | 0.250 |" in text
    assert "score (simulated data)" in text


def test_the_same_again_changes_nothing_and_others_are_a_new_version(tmp_path: Path) -> None:
    first = push_tiny(tmp_path, tmp_path / "zoo")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo").rglob("*") if path.is_file()}
    again = push_tiny(tmp_path, tmp_path / "zoo", created="2027-01-01T00:00:00Z")
    assert (again.new, again.entry) == (False, first.entry)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo").rglob("*") if path.is_file()}
    other = push_tiny(tmp_path, tmp_path / "zoo", seed=2)
    told = push_tiny(tmp_path, tmp_path / "zoo", description="Better told.")
    assert other.new
    assert told.new
    versions = {entry.version for entry in Registry(tmp_path / "zoo").entries()}
    assert versions == {first.entry.version, other.entry.version, told.entry.version}


def test_pulled_weights_can_be_pushed_on_and_keep_what_was_said(tmp_path: Path) -> None:
    folder = Path(push_tiny(tmp_path, tmp_path / "zoo", authors=("A",), citation="A 2026").place)
    (folder / "LICENSE").write_text("All of it.")
    onward = Path(push(str(folder), wishes(name="other"), registry=str(tmp_path / "zoo")).place)
    published = read_card(onward).publication
    assert published is not None
    assert (published.name, published.authors, published.citation) == ("other", ("A",), "A 2026")
    assert (onward / "LICENSE").read_text() == "All of it."
    assert json.loads((onward / ITEM).read_bytes())["assets"]["licence"]["href"] == "./LICENSE"
    assert verify(onward) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "Tiny Model"}, "lower case letters"),
        ({"licence": "Apache 2.0"}, "no SPDX identifier of a licence is 'Apache 2.0'; did you mean 'Apache-2.0'"),
        ({"licence": "mine"}, "LicenseRef-NAME for a licence of your own"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        push_tiny(tmp_path, tmp_path / "zoo", **changes)
    assert not (tmp_path / "zoo").exists()


def test_licences_are_spdx_identifiers() -> None:
    assert list(LICENCES) == sorted(LICENCES)
    assert check_licence("LicenseRef-farm-data") == "LicenseRef-farm-data"


def test_damaged_weights_are_not_shared(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    data = bytearray((run / "weights" / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (run / "weights" / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that its card describes"):
        push(str(run), wishes(), registry=str(tmp_path / "zoo"))
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        push("nowhere", wishes(), registry=str(tmp_path / "zoo"))


def test_no_path_of_the_training_is_published_but_its_place_and_time_are(tmp_path: Path, synthetic: Synthetic) -> None:
    facts = open_cube(synthetic.folder.location).facts
    run = save_run(tmp_path / "run")
    model = load_model(run)
    recipe = replace(model.card.recipe, data=replace(model.card.recipe.data, cubes=(synthetic.folder.location,)))
    cubes = [{"region": "tiny", "version": "1.0", "config_sha256": facts.config_sha256}]
    save_weights(run / "weights", model.objective, replace(model.card, recipe=recipe, data={"cubes": cubes}))
    folder = Path(push(str(run), wishes(), registry=str(tmp_path / "zoo")).place)
    for path in folder.iterdir():
        assert synthetic.folder.location.encode() not in path.read_bytes()
    published = read_card(folder).publication
    assert published is not None
    ((west, south, east, north),) = published.areas
    assert -180 < west < east < 180
    assert -90 < south < north < 90
    assert published.period is not None
    assert published.period[0] < published.period[1]
    item = json.loads((folder / ITEM).read_bytes())
    assert item["bbox"] == [west, south, east, north]
    assert item["properties"]["start_datetime"] == f"{published.period[0]}T00:00:00Z"


def evaluated(run: Path, *, inside: str = "", parcels: bool = False, cubes: tuple[str, ...] = ("a" * 64,)) -> None:
    """What an evaluation leaves."""
    facts = facts_of()
    facts = replace(facts, model={"Weights": f"run, SHA-256 {read_card(run).sha256}"}, cubes=cubes)
    if parcels:
        facts = replace(facts, overall=None, boundary=None, interior=None)
    folder = run / inside / "evaluation-test"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(evaluation_json(facts)))


@pytest.mark.parametrize("inside", ["", "weights"])
def test_the_test_split_is_told_where_the_run_was_evaluated_on_it(tmp_path: Path, inside: str) -> None:
    run, facts = save_run(tmp_path / "run"), facts_of()
    evaluated(run, inside=inside)
    pushed = push(str(run), wishes(), registry=str(tmp_path / "zoo"))
    metrics = read_card(pushed.place).metrics
    groups = {"": facts.overall, "boundary_": facts.boundary, "interior_": facts.interior}
    expected = {f"test_{prefix}miou": group.scores.miou for prefix, group in groups.items() if group}
    assert {key: value for key, value in metrics.items() if key.endswith("miou")} == {
        "validation_miou": 0.25,
        **expected,
    }
    assert pushed.tested
    assert pushed.entry.miou == expected["test_miou"]


def test_a_parcel_classifier_that_was_evaluated_tells_its_scores_of_parcels(tmp_path: Path) -> None:
    run, parcels = save_run(tmp_path / "run"), facts_of().parcels
    assert parcels is not None
    evaluated(run, parcels=True)
    pushed = push(str(run), wishes(), registry=str(tmp_path / "zoo"))
    assert read_card(pushed.place).metrics == {
        "validation_miou": 0.25,
        "test_parcel_miou": parcels.scores.miou,
        "test_parcel_overall_accuracy": parcels.scores.overall_accuracy,
    }
    assert pushed.entry.miou == parcels.scores.miou
    assert "| test parcel miou |" in (Path(pushed.place) / README).read_text()


@pytest.mark.parametrize("cubes", [("b" * 64,), ("a" * 64, "b" * 64), ()])
def test_scores_of_another_region_are_not_those_of_the_weights(tmp_path: Path, cubes: tuple[str, ...]) -> None:
    run = save_run(tmp_path / "run")
    evaluated(run, cubes=cubes)
    pushed = push(str(run), wishes(), registry=str(tmp_path / "zoo"))
    assert (read_card(pushed.place).metrics, pushed.tested) == ({"validation_miou": 0.25}, False)


def test_scores_of_the_weights_of_an_earlier_run_are_not_taken(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    evaluated(run)
    save_run(tmp_path / "run", seed=2)
    assert not push(str(run), wishes(), registry=str(tmp_path / "zoo")).tested


@pytest.mark.parametrize(
    ("licence", "lines"),
    [
        ("GPL-3.0-or-later", ["license: gpl-3.0"]),
        ("ODbL-1.0", ["license: odbl"]),
        ("EUPL-1.2", ["license: other", "license_name: eupl-1.2"]),
        ("LicenseRef-farm", ["license: other", "license_name: licenseref-farm"]),
    ],
)
def test_the_page_names_the_licence_as_the_hub_does(tmp_path: Path, licence: str, lines: list[str]) -> None:
    text = (Path(push_tiny(tmp_path, tmp_path / "zoo", licence=licence).place) / README).read_text()
    assert text.splitlines()[1 : 1 + len(lines)] == lines
    assert text.splitlines()[1 + len(lines)].startswith("tags: ")


# Verifying


def test_every_finding_is_listed(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    (folder / README).write_text("Other words.")
    (folder / LOGITS).unlink()
    item = json.loads((folder / ITEM).read_bytes())
    item["properties"]["mlm:total_parameters"] = 7
    (folder / ITEM).write_text(json.dumps(item))
    findings = verify(folder)
    assert len(findings) == 4
    assert findings[0] == "there is no logits.safetensors; push the weights again"
    assert "item.json names ./logits.safetensors, which is not there" in findings
    assert "README.md is not the file that item.json describes: its SHA-256 is another" in findings
    assert "item.json does not say what card.json says: mlm:total_parameters differ" in findings


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (WEIGHTS, "is not the file that its card describes|is no safetensors file"),
        (CARD, "card.json is not the file that item.json describes"),
    ],
)
def test_a_flipped_byte_is_found(tmp_path: Path, name: str, says: str) -> None:
    folder = shared_weights(tmp_path)
    data = (folder / name).read_bytes()
    place = data.index(b"tiny") if name == CARD else len(data) - 2
    (folder / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert any(part in finding for finding in verify(folder) for part in says.split("|"))


def test_a_folder_of_a_run_was_never_pushed(tmp_path: Path) -> None:
    findings = verify(save_run(tmp_path) / "weights")
    assert any("says neither name nor licence: the weights were never pushed" in finding for finding in findings)
    assert verify(tmp_path)[:1] == ("there is no weights.safetensors; push the weights again",)


def test_a_licence_that_is_none_is_found(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    card = json.loads((folder / CARD).read_bytes())
    card["publication"]["licence"] = "free"
    (folder / CARD).write_text(json.dumps(card))
    assert any("no SPDX identifier of a licence is 'free'" in finding for finding in verify(folder))


def test_an_item_that_lists_too_little_is_not_whole(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    item = json.loads((folder / ITEM).read_bytes())
    (folder / ITEM).write_text(json.dumps({**item, "assets": {}}))
    assert any("item.json lists no weights.safetensors" in finding for finding in verify(folder))


def test_an_asset_that_is_told_otherwise_is_found(tmp_path: Path) -> None:
    folder = shared_weights(tmp_path)
    item = json.loads((folder / ITEM).read_bytes())
    item["assets"]["weights"]["roles"] = ["thumbnail"]
    (folder / ITEM).write_text(json.dumps(item))
    assert verify(folder) == ("item.json does not say what card.json says: assets differ",)
