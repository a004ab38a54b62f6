"""The catalogue as files: official core schemas, pystac, tables, and what adding and removing leaves behind."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rustac
import shapely
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry
from referencing.jsonschema import DRAFT7
from stac_geoparquet.arrow import stac_table_to_items
from tests.catalog.catalogue.made import TOP, UTM31, make
from tests.synthetic import Synthetic

from sits_catalog.catalogue import Catalogue, add_dataset, findings, remove_dataset
from sits_catalog.catalogue.dataset import read_finding
from sits_catalog.catalogue.entries import family_of

JsonObject = dict[str, Any]
KINDS = {
    "Catalog": "catalog-spec/json-schema/catalog.json",
    "Collection": "collection-spec/json-schema/collection.json",
    "Feature": "item-spec/json-schema/item.json",
}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue.at(tmp_path / "catalogue", {})


def core_errors(document: JsonObject) -> list[str]:
    """What the official core schemas, which pystac ships, say."""
    return [error.message for error in validator(document["type"]).iter_errors(document)]


@functools.cache
def validator(kind: str) -> Draft7Validator:
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources([(uri, DRAFT7.create_resource(one)) for uri, one in schemas.items()])
    return Draft7Validator(schemas[f"https://schemas.stacspec.org/v1.1.0/{KINDS[kind]}"], registry=registry)


def documents(catalogue: Catalogue) -> dict[str, JsonObject]:
    paths = [path for path in catalogue.folder.rglob("*.json") if path.name != "outlines.json"]
    return {path.relative_to(catalogue.folder).as_posix(): json.loads(path.read_text()) for path in paths}


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_everything_passes_the_official_core_schemas(
    catalogue: Catalogue, synthetic: Synthetic, tmp_path: Path
) -> None:
    add_dataset(catalogue, str(synthetic.folder.path))
    add_dataset(catalogue, str(make(tmp_path / "a")))
    add_dataset(catalogue, str(make(tmp_path / "b", name="sets", profile="patches", labels=False)))
    add_dataset(catalogue, str(make(tmp_path / "c", name="nowhere", profile="patches", box=None)))
    found = documents(catalogue)
    assert len(found) == 1 + 4 + 4 + 2 + 6  # catalog, families, datasets, collections of splits and their items
    assert {name: core_errors(document) for name, document in found.items() if core_errors(document)} == {}
    assert list(findings(catalogue)) == []
    broken = {**found["hand/hand-2021/hand-2021.json"], "id": 7}
    assert core_errors(broken)


def test_pystac_walks_it_and_every_link_leads_somewhere(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = make(tmp_path / "data sets" / "a%20&b")
    add_dataset(catalogue, str(dataset), name="spaced")
    root = pystac.Catalog.from_file(str(catalogue.folder / "catalog.json"))
    walked = {item.id: item for _, _, items in root.walk() for item in items}
    assert set(walked) == {"spaced", "spaced-train", "spaced-validate", "spaced-test"}
    spaced = walked["spaced"]
    collection = spaced.get_collection()
    assert collection is not None
    assert collection.id == "spaced"
    assert [child.id for child in collection.get_children()] == ["spaced-splits"]
    hrefs = [asset.get_absolute_href() for asset in spaced.assets.values()]
    hrefs += [link.get_absolute_href() for link in spaced.links if link.rel in ("canonical", "store")]
    from urllib.parse import unquote

    assert all(href is not None and Path(unquote(href)).exists() for href in hrefs)
    assert f"{dataset}/item.json" in [unquote(href) for href in hrefs if href]


def test_splits_are_items_as_ml_aoi_asks(catalogue: Catalogue, tmp_path: Path) -> None:
    """By hand from the published text of ml-aoi v0.2.0, whose schema no package ships: a split of train, validate and
    test; roles label and feature; exactly one label item and at least one feature item, linked as derived_from; both
    kinds of assets; one reference grid; no overlap inside of a collection."""
    entry = add_dataset(catalogue, str(make(tmp_path / "a")))
    splits = {split["properties"]["ml-aoi:split"]: split for split in entry.splits}
    assert list(splits) == ["test", "train", "validate"]
    for split in splits.values():
        assert split["stac_extensions"] == ["https://stac-extensions.github.io/ml-aoi/v0.2.0/schema.json"]
        assert split["collection"] == "hand-2021-splits"
        links = [(link["rel"], link["ml-aoi:role"]) for link in split["links"] if "ml-aoi:role" in link]
        assert links == [("derived_from", "label"), ("derived_from", "feature")]
        roles = {name: asset["ml-aoi:role"] for name, asset in split["assets"].items()}
        assert roles == {"cube": "feature", "labels": "label"}
        assert [name for name, asset in split["assets"].items() if asset.get("ml-aoi:reference-grid")] == ["cube"]
    collection = json.loads((entry.folder / "splits" / "collection.json").read_text())
    assert sorted(collection["summaries"]["ml-aoi:split"]) == ["test", "train", "validate"]


def test_the_ground_of_a_split_is_that_of_its_chips(catalogue: Catalogue, tmp_path: Path) -> None:
    """8, 4 and 4 chips of 640 m; geopandas projects them, independently of us."""
    entry = add_dataset(catalogue, str(make(tmp_path / "a")))
    shapes = {one["properties"]["sits_cube:split"]: shapely.geometry.shape(one["geometry"]) for one in entry.splits}
    metres = geopandas.GeoSeries(shapes, crs="EPSG:4326").to_crs(UTM31)
    assert metres.area.round(-3).to_dict() == {"train": 3_277_000, "validation": 1_638_000, "test": 1_638_000}
    assert metres["train"].bounds[3] == pytest.approx(TOP, abs=0.2)
    for one, other in (("train", "validation"), ("validation", "test"), ("train", "test")):
        assert metres[one].intersection(metres[other]).area < 300  # straight lines in degrees: 0.1 m along 2.6 km
    numbers = {row["name"]: (row["parcels"], row["pixels"]) for row in entry.item["properties"]["sits_cube:splits"]}
    assert numbers == {"train": (8, sum(range(100, 108))), "validation": (4, 438), "test": (4, 454)}


def test_label_fields_and_lineage_stay(catalogue: Catalogue, tmp_path: Path) -> None:
    """label v1.0.1 asks for properties, description and type; a raster has properties null."""
    dataset = make(tmp_path / "a")
    properties = add_dataset(catalogue, str(dataset)).item["properties"]
    assert (properties["label:type"], properties["label:properties"]) == ("raster", None)
    assert properties["label:description"]
    for name in ("item.json", "journal.jsonl"):
        wanted = hashlib.sha256((dataset / name).read_bytes()).hexdigest()
        assert properties[f"sits_cube:{name.split('.')[0]}_sha256"] == wanted
    assert properties["sits_cube:config_sha256"] == "ab" * 32
    assert properties["processing:software"] == {"sits-cubes": "0.1.0"}
    assert (properties["license"], properties["sits_cube:attribution"]) == ("CC-BY-4.0", "Somebody")
    assert properties["sits_cube:bytes"] == 1500 + (dataset / "journal.jsonl").stat().st_size
    classes = {row["name"]: (row["pixels"], row["parcels"]) for row in properties["sits_cube:classes"]}
    assert classes == {"background": (5, 0), "winter wheat": (700, 8), "maize": (0, 8)}


def test_a_licence_in_words_is_other_to_stac_and_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    entry = add_dataset(catalogue, str(make(tmp_path / "a", licence="Licence Ouverte 2.0")))
    assert entry.item["properties"]["license"] == "other"
    assert entry.item["properties"]["sits_cube:licence"] == "Licence Ouverte 2.0"
    assert core_errors(entry.item) == []


def test_a_set_whose_place_nobody_knows_is_in_it(catalogue: Catalogue, tmp_path: Path) -> None:
    entry = add_dataset(catalogue, str(make(tmp_path / "a", name="nowhere", profile="patches", box=None)))
    assert entry.item["geometry"] is None
    assert "bbox" not in entry.item
    assert entry.splits == ()
    shares = entry.item["properties"]["sits_cube:splits"]
    assert [(one["name"], one["patches"]) for one in shares] == [("train", 2), ("test", 2)]
    assert entry.item["properties"]["sits_cube:folds"] == {"1": 2, "2": 2}
    collection = documents(catalogue)["nowhere/collection.json"]
    assert collection["extent"]["spatial"]["bbox"] == [[-180, -90, 180, 90]]
    assert "Nobody knows the place" in collection["description"]


def test_patches_with_a_place_have_splits(catalogue: Catalogue, tmp_path: Path) -> None:
    entry = add_dataset(catalogue, str(make(tmp_path / "a", name="sets", profile="patches")))
    shapes = {one["id"]: shapely.geometry.shape(one["geometry"]) for one in entry.splits}
    assert shapes["sets-train"].equals(shapely.box(3, 48.7, 3.01, 48.71) | shapely.box(3.02, 48.7, 3.03, 48.71))
    assert set(shapes) == {"sets-train", "sets-test"}


def test_the_tables_hold_the_same_items(catalogue: Catalogue, tmp_path: Path) -> None:
    add_dataset(catalogue, str(make(tmp_path / "a")))
    add_dataset(catalogue, str(make(tmp_path / "b", name="nowhere", profile="patches", box=None)))
    table = pq.read_table(catalogue.folder / "items.parquet")
    items = {item["id"]: item for item in stac_table_to_items(table)}
    assert set(items) == {"hand-2021", "nowhere"}
    written = catalogue.entry("hand-2021").item
    assert (
        items["hand-2021"]["properties"]["sits_cube:journal_sha256"]
        == written["properties"]["sits_cube:journal_sha256"]
    )
    assert list(items["hand-2021"]["bbox"]) == written["bbox"]
    read = geopandas.read_parquet(catalogue.folder / "items.parquet").set_index("id")
    assert read.loc["hand-2021", "geometry"].equals(shapely.box(3.0, 48.7, 3.1, 48.76))
    assert read.loc["nowhere", "geometry"].is_empty
    splits = rustac.read_sync(str(catalogue.folder / "splits.parquet"))
    found = {one["id"]: one["properties"]["ml-aoi:split"] for one in splits["features"]}
    assert found == {"hand-2021-train": "train", "hand-2021-validate": "validate", "hand-2021-test": "test"}


def test_adding_again_replaces_and_the_same_dataset_gives_the_same_bytes(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = make(tmp_path / "a")
    add_dataset(catalogue, str(dataset))
    before = tree(catalogue.folder)
    add_dataset(catalogue, str(dataset))
    assert tree(catalogue.folder) == before
    item = json.loads((dataset / "item.json").read_text())
    item["properties"]["title"] = "Another title"
    (dataset / "item.json").write_text(json.dumps(item))
    add_dataset(catalogue, str(dataset), family="others")
    assert [(entry.family, entry.id) for entry in catalogue.entries()] == [("others", "hand-2021")]
    assert catalogue.entry("hand-2021").item["properties"]["title"] == "Another title"
    assert not (catalogue.folder / "hand").exists()
    assert list(findings(catalogue)) == []


@pytest.mark.slow
def test_removing_takes_the_entry_and_an_empty_family_and_never_the_dataset(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b", name="hand-2022")
    add_dataset(catalogue, str(first))
    add_dataset(catalogue, str(second))
    datasets = tree(first), tree(second)
    remove_dataset(catalogue, "hand-2021")
    assert [
        link["href"] for link in documents(catalogue)["hand/collection.json"]["links"] if link["rel"] == "item"
    ] == ["./hand-2022/hand-2022.json"]
    remove_dataset(catalogue, "hand-2022")
    assert (tree(first), tree(second)) == datasets
    left = sorted(path.name for path in catalogue.folder.iterdir())
    assert left == [".lock", "catalog.json", "index.html"]
    assert list(findings(catalogue)) == []
    with pytest.raises(ValueError, match=r"no dataset named 'hand-2021' in .*; it has: nothing"):
        remove_dataset(catalogue, "hand-2021")


@pytest.mark.slow
def test_two_datasets_of_one_id_are_not_taken_for_each_other(catalogue: Catalogue, tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    add_dataset(catalogue, str(first))
    with pytest.raises(ValueError, match=rf"'hand-2021' is the dataset in {first} already; .*another id with --id"):
        add_dataset(catalogue, str(second))
    add_dataset(catalogue, str(second), name="hand-2021-b")
    assert catalogue.entry("hand-2021-b").item["properties"]["sits_cube:original_id"] == "hand-2021"
    moved = first.rename(tmp_path / "moved")
    add_dataset(catalogue, str(moved))
    assert catalogue.entry("hand-2021").item["properties"]["sits_cube:address"] == "../moved"


def test_adds_at_once_lose_none(catalogue: Catalogue, tmp_path: Path) -> None:
    folders = [make(tmp_path / str(i), name=f"set-{i}", labels=False) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda folder: add_dataset(catalogue, str(folder)), folders))
    assert [entry.id for entry in catalogue.entries()] == [f"set-{i}" for i in range(6)]
    assert pq.read_table(catalogue.folder / "items.parquet")["id"].to_pylist() == [f"set-{i}" for i in range(6)]
    assert list(findings(catalogue)) == []


def test_what_a_killed_add_has_left_is_put_right_by_the_next(catalogue: Catalogue, tmp_path: Path) -> None:
    """Killed between moving the old entry away and the new one in its place; and while a file was written."""
    entry = add_dataset(catalogue, str(make(tmp_path / "a")))
    entry.folder.rename(entry.folder.with_name(".hand-2021.old"))
    (entry.folder.parent / ".hand-2021.partial").mkdir()
    (entry.folder.parent / ".collection.json.partial").write_text("{")
    (catalogue.folder / ".index.html.partial").write_text("<")
    assert catalogue.entries() == ()
    add_dataset(catalogue, str(make(tmp_path / "b", name="other")))
    assert [one.id for one in catalogue.entries()] == ["hand-2021", "other"]
    assert [path for path in catalogue.folder.rglob(".*") if path.name != ".lock"] == []


@pytest.mark.slow
def test_validate_says_what_moved_and_what_changed(catalogue: Catalogue, tmp_path: Path) -> None:
    first, second, third = (make(tmp_path / name, name=name) for name in "abc")
    for folder in (first, second, third):
        add_dataset(catalogue, str(folder))
    first.rename(tmp_path / "elsewhere")
    with (second / "journal.jsonl").open("a") as file:
        file.write("{}\n")
    (third / "item.json").write_text((third / "item.json").read_text() + " ")
    said = list(findings(catalogue))
    assert len(said) == 3
    assert said[0].startswith(f"a: the dataset is no longer in {first}; add it from where it lies now")
    assert said[1].startswith(f"b: the dataset in {second} has changed since it was added (journal.jsonl); ")
    assert said[2].startswith(f"c: the dataset in {third} has changed since it was added (item.json); ")


def test_validate_says_what_is_wrong_with_the_catalogue_itself(catalogue: Catalogue, tmp_path: Path) -> None:
    entry = add_dataset(catalogue, str(make(tmp_path / "a")))
    path = entry.folder / "hand-2021.json"
    item = json.loads(path.read_text())
    item["properties"]["created"] = 5
    item["links"].append({"rel": "related", "href": "./gone.json"})
    path.write_text(json.dumps(item))
    (catalogue.folder / "items.parquet").unlink()
    said = "\n".join(findings(catalogue))
    assert "hand/hand-2021/hand-2021.json: breaks the core schema of STAC 1.1.0 at properties/created: 5 is not" in said
    assert "the link related leads to ./gone.json, which is not there" in said
    assert "items.parquet: lists 0 items, the catalogue has 1" in said


class Killed(BaseException):
    """The end of a process, between two of its steps on the disk."""


@pytest.fixture
def kill_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Ends what runs in the block before its n-th step that makes, renames or removes something."""

    @contextmanager
    def before(step: int) -> Iterator[None]:
        steps = iter(range(1, 1000))

        def counted(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            for module, name in (*((os, one) for one in ("rename", "replace", "mkdir", "unlink")), (shutil, "rmtree")):
                patch.setattr(module, name, functools.partial(counted, getattr(module, name)))
            yield

    return before


@pytest.mark.slow
def test_a_dataset_that_moves_to_another_family_is_lost_by_no_kill(
    tmp_path: Path, kill_before: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Killed before each step on the disk: it is there once at least, and once after the next that locks it."""
    dataset, other = (make(tmp_path / name, name=name, labels=False) for name in ("hand", "other"))
    add_dataset(Catalogue.at(tmp_path / "catalogue-0", {}), str(dataset))
    seen = set()
    for step in range(1, 100):
        catalogue = Catalogue(shutil.copytree(tmp_path / "catalogue-0", tmp_path / f"catalogue-{step}"))
        try:
            with kill_before(step):
                add_dataset(catalogue, str(dataset), family="new")
        except Killed:
            families = tuple(entry.family for entry in catalogue.entries())
            with catalogue.locked():
                (kept,) = catalogue.entries()
            assert kept.family == families[-1]
            if families not in seen:
                add_dataset(catalogue, str(other))
                assert [entry.id for entry in catalogue.entries()].count("hand") == 1
                assert list(findings(catalogue)) == []
            seen.add(families)
        else:
            break
    assert seen == {("hand",), ("hand", "new"), ("new",)}
    assert [entry.family for entry in catalogue.entries()] == ["new"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder behind http on the loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def end_headers(self) -> None:
            if self.path.startswith("/whole-files-only/"):
                self.send_header("Accept-Ranges", "none")
            super().end_headers()

        def send_head(self) -> Any:
            if self.path.startswith("/refused/"):
                return self.send_error(403)
            return super().send_head()

    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_dataset_behind_http_is_added_in_place(catalogue: Catalogue, web: tuple[str, Path]) -> None:
    address, folder = web
    make(folder / "a")
    entry = add_dataset(catalogue, f"{address}/a/")
    assert entry.item["properties"]["sits_cube:address"] == f"{address}/a"
    assert entry.item["assets"]["cube"]["href"] == f"{address}/a/cube.zarr"
    assert list(findings(catalogue)) == []
    (folder / "a" / "item.json").unlink()
    assert "hand-2021: the dataset is no longer in" in next(findings(catalogue))


@pytest.mark.slow
def test_a_host_that_does_not_answer_has_not_lost_its_dataset(
    catalogue: Catalogue, web: tuple[str, Path], tmp_path: Path
) -> None:
    """A closed port, then a server that refuses, then one that says 404."""
    address, folder = web
    local, far = make(tmp_path / "local"), make(folder / "far")
    add_dataset(catalogue, f"{address}/far")
    path = catalogue.entry("hand-2021").folder / "hand-2021.json"
    there = path.read_text()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for place in (f"http://127.0.0.1:{closed.getsockname()[1]}/far", f"{address}/refused/far"):
            path.write_text(there.replace(f"{address}/far", place))
            (said,) = findings(catalogue)
            assert said.startswith(f"hand-2021: {place}/item.json cannot be read: ")
            with pytest.raises(OSError, match=rf"'hand-2021' is the dataset in {place}, and nobody knows whether"):
                add_dataset(catalogue, str(local))
            with pytest.raises(OSError, match=rf"^{place}/item\.json cannot be read: "):
                add_dataset(catalogue, place)
            assert catalogue.entry("hand-2021").item["properties"]["sits_cube:address"] == place
    path.write_text(there)
    with pytest.raises(ValueError, match="already"):
        add_dataset(catalogue, str(local))
    (far / "item.json").unlink()
    add_dataset(catalogue, str(local))
    assert catalogue.entry("hand-2021").item["properties"]["sits_cube:address"] == "../local"


def test_a_server_of_whole_files_alone_is_one_sentence(catalogue: Catalogue, web: tuple[str, Path]) -> None:
    address, folder = web
    make(folder / "whole-files-only")
    with pytest.raises(
        OSError, match=rf"^{address}/whole-files-only/[a-z.]+ lies behind a server that hands out whole"
    ):
        add_dataset(catalogue, f"{address}/whole-files-only")


@pytest.mark.parametrize(
    ("name", "family"),
    [("a-splits", None), ("a-splits", "b"), ("a", "b-splits"), ("a", "datasets"), ("datasets", None)],
)
def test_names_of_the_catalogues_own_are_refused(
    catalogue: Catalogue, tmp_path: Path, name: str, family: str | None
) -> None:
    with pytest.raises(ValueError, match=r"name (the dataset with --id|another with --family)$"):
        add_dataset(catalogue, str(make(tmp_path / "a", name=name)), family=family)
    assert not catalogue.folder.exists()


@pytest.mark.slow
def test_a_split_of_too_many_parts_has_no_ground_and_says_so(catalogue: Catalogue, tmp_path: Path) -> None:
    """20 001 patches of train apart from each other, and among them 100 of test, on the same ground in no pixel."""
    dataset = make(tmp_path / "a", name="sets", profile="patches")
    n = 20_001
    left, low = 3 + 0.001 * (np.arange(n + 100) % 200), 48 + 0.001 * (np.arange(n + 100) // 200)
    splits = ["train"] * n + ["test"] * 100
    outlines = geopandas.GeoSeries(shapely.box(left, low, left + 0.0005, low + 0.0005), crs="EPSG:4326")
    table = geopandas.GeoDataFrame({"patch": range(n + 100), "split": splits}, geometry=outlines)
    table.to_parquet(dataset / "patches.parquet")
    entry = add_dataset(catalogue, str(dataset))
    assert [one["id"] for one in entry.splits] == ["sets-test"]
    shares = {one["name"]: one for one in entry.item["properties"]["sits_cube:splits"]}
    assert shares["train"]["ground"] == "not given, as it has 20001 parts"
    assert (shares["train"]["patches"], "ground" in shares["test"]) == (n, False)
    assert list(findings(catalogue)) == []


def test_secrets_do_not_enter(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"https://example\.org/set carries a user, a password") as refused:
        add_dataset(catalogue, "https://me:hunter2@example.org/set?sig=abc")
    assert "hunter2" not in str(refused.value)
    assert "abc" not in str(refused.value)
    dataset = make(tmp_path / "a", title="see https://me:hunter2@example.org/x?sig=abc")
    add_dataset(catalogue, str(dataset))
    for path in catalogue.folder.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes()
            assert b"sig=abc" not in path.read_bytes()


def test_what_is_no_dataset_is_one_sentence(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no finished dataset in .*: it has no item\.json"):
        add_dataset(catalogue, str(tmp_path))
    bad = make(tmp_path / "a")
    for text, sentence in (
        ("{", "is no JSON"),
        ("[]", "should hold a JSON object, got list"),
        ('{"x": NaN}', "NaN is no JSON"),
        ('{"type": "Feature", "id": "a", "properties": {}, "stac_version": "1.0.0"}', "should be of STAC 1.1.0, got"),
        ('{"type": "Feature", "id": "a", "properties": {}, "stac_version": "1.1.0"}', "describes no sits-cube"),
    ):
        (bad / "item.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            add_dataset(catalogue, str(bad))
    assert not catalogue.folder.exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 101, "a\nb"])
def test_an_id_that_could_leave_the_folder_is_refused(catalogue: Catalogue, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        add_dataset(catalogue, str(make(tmp_path / "a", name=name)))
    assert not catalogue.folder.exists()


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files; name an empty or a new folder"):
        Catalogue.at(tmp_path, {})
    (tmp_path / "catalog.json").write_text('{"type": "Catalog"}')
    with pytest.raises(ValueError, match="is a STAC catalogue of something else"):
        Catalogue.at(tmp_path, {})
    with pytest.raises(ValueError, match="a catalogue is a folder of this machine, got the address s3://b/c"):
        Catalogue.at("s3://b/c", {})


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Catalogue.at(None, {}).folder == tmp_path / "catalogue"
    assert Catalogue.at(None, {"SITS_CATALOGUE": str(tmp_path / "x")}).folder == tmp_path / "x"


def test_a_dataset_inside_of_the_catalogue_is_refused(catalogue: Catalogue) -> None:
    make(catalogue.folder / "inner")
    with pytest.raises(ValueError, match="lies inside of the catalogue"):
        add_dataset(catalogue, str(catalogue.folder / "inner"))


def test_reading_a_real_dataset_reads_no_pixels(synthetic: Synthetic) -> None:
    finding = read_finding(str(synthetic.folder.path))
    assert [row["name"] for row in finding.class_table] == ["winter wheat", "maize", "vine <&> grapes"]
    lines = [json.loads(line) for line in (synthetic.folder.path / "journal.jsonl").read_text().splitlines()]
    listed = {f"cube.zarr/{name}" for line in lines for name in line.get("shards", ())}
    listed |= {name for line in lines for name in line.get("files", ())}
    paths = [synthetic.folder.path / name for name in (*listed, "journal.jsonl")]
    assert finding.n_files == len(paths)
    assert finding.size_bytes == sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize(
    ("dataset", "family"),
    [("demo", "demo"), ("t31tfm-2017", "t31tfm"), ("munich-2016-32632", "munich"), ("demo-south", "demo-south")],
)
def test_a_family_is_the_id_without_zone_and_year(dataset: str, family: str) -> None:
    assert family_of(dataset) == family
