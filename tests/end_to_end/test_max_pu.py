"""What a Sentinel Hub will charge is said beforehand, held to, and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.end_to_end.archives import cells_in_journal, run_here
from tests.end_to_end.building import extent, simulated_land
from tests.end_to_end.hub_land import environment_of, needs_node, products
from tests.services.sentinel_hub.service import SentinelHub

from sits_catalog.region import Region

pytestmark = [pytest.mark.slow, needs_node]

BANDS = ("B02", "B04", "B8A", "B11")


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """Three cells in a row."""
    grid = extent(width=1080, height=96)
    return simulated_land(tmp_path_factory.mktemp("land"), grid, bands=BANDS, dates=3, seed=7, safe=True)


@pytest.fixture
def hub(land: Region) -> Iterator[SentinelHub]:
    with SentinelHub(products(land)) as hub, environment_of(hub):
        yield hub


def arguments(land: Region, hub: SentinelHub, folder: Path) -> tuple[str, ...]:
    """Options that build the land without its parcels."""
    document = {
        "id": "land",
        "season": {"start": str(land.season.start), "end": str(land.season.end)},
        "place": {"file": land.place.file},
        "imagery": {"source": "sentinel-hub", "path": hub.url, "bands": list(BANDS)},
    }
    (folder / "land.yaml").write_text(yaml.safe_dump(document))
    return "--region", str(folder / "land.yaml"), "--out", str(folder / "out"), "--cell", "512"


def test_units_are_planned_bounded_and_kept(land: Region, hub: SentinelHub, tmp_path: Path) -> None:
    options = arguments(land, hub, tmp_path)
    said = run_here("sits-build", *options, "--plan", "--json")
    (planned,) = (dataset["estimate"] for dataset in json.loads(said.stdout)["datasets"])
    needed, requests = planned["processing_units"], planned["requests"]
    assert planned["cells"] == 3
    assert f"{needed:.1f} processing units (PU) of Sentinel Hub" in run_here("sits-build", *options, "--plan").stdout

    most = planned["audit_processing_units"]
    bound = needed + most

    hub.forget()
    beyond = run_here("sits-build", *options, "--plan", "--max-pu", most - 0.01)
    assert beyond.code == 2
    assert f"alone may take {most:.1f} processing units, and --max-pu allows {most - 0.01:g}; take a" in beyond.stderr
    assert hub.requests_of("process") == []

    refused = run_here("sits-build", *options, "--max-pu", bound - 0.01)
    assert refused.code == 2
    said = (
        f"needs {needed:.1f} processing units and up to {most:.2f} for its audit, and --max-pu allows {bound - 0.01:g}"
    )
    assert said in refused.stderr
    audited, audit_requests = hub.spent, len(hub.requests_of("process"))
    assert 0 < audited <= most
    assert audit_requests <= planned["audit_requests"]
    assert not (tmp_path / "out" / "land").exists()

    hub.forget()
    built = run_here("sits-build", *options, "--max-pu", bound, "--json")
    assert built.code == 0, built.stderr
    (outcome,) = json.loads(built.stdout)
    print(f"planned {needed:.3f} PU in {requests} requests; the service charged {hub.spent - audited:.3f} PU for cells")
    print(f"and {audited:.3f} PU for the {audit_requests} requests of the audit")
    assert (built.code, outcome["complete"]) == (0, True)
    assert outcome["processing_units"] == pytest.approx(hub.spent - audited, rel=1e-4)
    assert outcome["processing_units"] <= needed + 1e-6
    entries = cells_in_journal(tmp_path / "out" / "land").values()
    assert sum(entry["processing_units"] for entry in entries) == pytest.approx(outcome["processing_units"])
    assert len(hub.requests_of("process")) - audit_requests <= requests
