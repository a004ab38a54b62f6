from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.test_stac import SEASON
from tests.pipeline.sources.tiny_archive import EPSG, LEFT, TOP, catalogue, item, write_archive, write_json

from sits_catalog import reach
from sits_catalog.reach import ALLOW_HOSTS, Reach, Refused
from sits_pipeline.sources.catalogue import Spot
from sits_pipeline.sources.exchange import is_web
from sits_pipeline.sources.oidc import OidcSigner
from sits_pipeline.sources.sas import SasSigner
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.sources.web import Web

PUBLIC = Reach.of("https://stac.example.org/v1")
CLOSE_BY = [
    "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "017700000001", "localhost",
    "LOCALHOST.", "a.localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]", "0.0.0.0", "[::]", "10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200",
    "169.254.169.254", "[fe80::1%25eth0]", "[fd00:ec2::254]", "[fc00::1]", "224.0.0.1", "[ff02::1]", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "192.0.0.192", "127.0.0.1.", "me:word@127.0.0.1", "[fec0::1]", "198.18.0.7",
    "[64:ff9b:1::7f00:1]", "[fd20:ce::254]",
]  # fmt: skip
METADATA = [
    "169.254.169.254", "168.63.129.16", "192.0.0.192", "100.100.100.200", "[fd00:ec2::254]", "[fd20:ce::254]",
    "[fd00:c1::a9fe:a9fe]", "[fd00:42::42]", "[fe80::a9fe:a9fe]", "[::ffff:100.100.100.200]",
]  # fmt: skip


@pytest.mark.parametrize("host", CLOSE_BY)
def test_a_public_catalogue_does_not_lead_into_this_network_however_it_spells_an_address(host: str) -> None:
    with pytest.raises(Refused, match="asked for at public addresses alone") as refused:
        PUBLIC.check_url(f"http://{host}:8080/latest/meta-data")
    # Nobody is told to trust where a cloud hands out the keys of a machine.
    advice = "set the environment variable SITS_ALLOW_HOSTS to"
    assert (advice in str(refused.value)) is ("a link-local address" not in str(refused.value))
    with pytest.raises(ValueError, match="asked for at public addresses alone"):
        Spot("https://stac.example.org/v1", None, PUBLIC).resolve(f"//{host}/a.tif")


@pytest.mark.parametrize(
    "host", ["93.184.216.34", "[2606:2800:220:1::1]", "example.org", "dead.beef", "0x7f.example.org"]
)
def test_public_addresses_and_names_pass(host: str) -> None:
    PUBLIC.check_url(f"https://{host}/a.tif")


def test_what_is_allowed_by_the_environment_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_HOSTS, "minio.intranet, 10.0.0.5")
    PUBLIC.check("MINIO.intranet.", "192.168.1.7")
    PUBLIC.check_url("http://10.5/a.tif")
    with pytest.raises(Refused, match=r"10\.0\.0\.6 is a private address"):
        PUBLIC.check_url("http://10.0.0.6/a.tif")


def test_ends_of_names_networks_and_hosts_with_a_port_are_allowed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_HOSTS, "minio:9000,[fd12::1]:80,fd12::2, .amazonaws.com ,198.18.0.0/15,fd34::/16,.,x/y,")
    PUBLIC.check("minio", "192.168.1.7")
    PUBLIC.check("fd12::1", "fd12::1")
    PUBLIC.check("fd12::2", "fd12::2")
    PUBLIC.check("bucket.s3.eu-central-1.amazonaws.com", "10.0.0.5")  # an interface endpoint
    PUBLIC.check("e84-earth-search.example.org", "198.18.3.4")  # the made-up address of a VPN
    PUBLIC.check("a.example.org", "::ffff:198.18.3.4")
    PUBLIC.check("a.example.org", "fd34::1")
    for host, address in (
        ("amazonaws.com.evil.org", "10.0.0.5"),
        ("evilamazonaws.com", "10.0.0.5"),
        ("a.example.org", "10.0.0.5"),
        ("a.amazonaws.com", "169.254.169.254"),
        ("minio2", "192.168.1.7"),
    ):
        with pytest.raises(Refused):
            PUBLIC.check(host, address)


@pytest.mark.parametrize("host", METADATA)
def test_the_metadata_of_a_cloud_are_asked_for_where_the_environment_names_them_alone(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = host.strip("[]")
    for reach_ in (Reach.of(f"http://{host}/"), Reach.of("http://named.example.org/"), Reach.of("catalog.json")):
        for name in (address, "named.example.org"):
            with pytest.raises(Refused):
                reach_.check(name, address)
    monkeypatch.setenv(ALLOW_HOSTS, "0.0.0.0/0,::/0,.org")
    with pytest.raises(Refused):
        PUBLIC.check("named.example.org", address)
    monkeypatch.setenv(ALLOW_HOSTS, host)
    PUBLIC.check_url(f"http://{host}/")


def test_a_private_catalogue_leads_to_its_own_host_and_no_other() -> None:
    ours = Reach.of("http://user:word@stac.intranet:8080/v1?key=1")
    ours.check("stac.intranet", "10.0.0.5")
    with pytest.raises(Refused, match=r"db\.intranet has the private address 10\.0\.0\.6"):
        ours.check("db.intranet", "10.0.0.6")
    Reach.of("http://127.0.0.1:8000/catalog.json").check_url("http://localhost:9000/a.tif")


def test_documents_on_this_machine_lead_into_its_network_but_not_to_the_metadata_of_its_cloud() -> None:
    ours = Reach.of("catalog.json")
    for address in ("127.0.0.1", "10.0.0.5", "[fd00::1]"):
        ours.check_url(f"http://{address}/a.tif")
    for address in (*METADATA, "224.0.0.1", "0.0.0.0"):  # nothing is bound
        with pytest.raises(Refused):
            ours.check_url(f"http://{address}/a.tif")
    # What a server then names is that server's.
    there = Spot("/data/catalog.json", Path("/data"), ours).resolve("https://stac.example.org/child.json")
    with pytest.raises(ValueError, match=r"10\.0\.0\.5 is a private address"):
        there.resolve("http://10.0.0.5/child.json")


def test_a_redirect_into_this_network_is_refused_before_anything_is_asked_there(
    tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"inside")
    inner = serve(tmp_path)
    outer = serve(tmp_path)
    outer.redirect_to = f"{inner.url}/a.tif"
    monkeypatch.setenv(ALLOW_HOSTS, "outer.example.org")
    resolve_as(monkeypatch, {"outer.example.org": ["127.0.0.1"] * 9})
    url = outer.url.replace("127.0.0.1", "outer.example.org")
    with pytest.raises(OSError, match=r"127\.0\.0\.1 is a loopback address, and what others name or redirect to"):
        Web(reach=PUBLIC).fetch(f"{url}/a.tif", max_bytes=99)
    assert inner.requests == []
    assert len(outer.requests) == 1


def test_what_a_document_here_names_may_be_near_and_what_that_redirects_to_may_not(
    tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"inside")
    inner, outer = serve(tmp_path), serve(tmp_path)
    resolve_as(monkeypatch, {"files.intranet": ["127.0.0.1"] * 99})
    named = outer.url.replace("127.0.0.1", "files.intranet")
    ours = Web(reach=Reach.of("catalog.json"))
    assert ours.fetch(f"{named}/a.tif", max_bytes=99).body == b"inside"
    outer.redirect_to = f"{inner.url}/a.tif"
    with pytest.raises(OSError, match=r"127\.0\.0\.1 is a loopback address, and what others name or redirect to"):
        ours.fetch(f"{named}/a.tif", max_bytes=99)
    assert inner.requests == []
    # Its own host is asked on, as a store does that sends away from one of its ports or paths to another.
    outer.redirect_to = f"{inner.url.replace('127.0.0.1', 'files.intranet')}/a.tif"
    assert ours.fetch(f"{named}/a.tif", max_bytes=99).body == b"inside"


def test_files_of_an_item_that_a_server_sent_are_in_this_network_on_its_host_alone(
    tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item on the web, to which a catalogue on this machine leads; its files are named as of another host."""
    web = tmp_path / "web"
    write_archive(web)
    server = serve(web)
    resolve_as(monkeypatch, {"items.intranet": ["127.0.0.1"] * 99, "files.intranet": ["127.0.0.1"] * 99})
    base, elsewhere = (f"{server.url.replace('127.0.0.1', f'{name}.intranet')}/s2/one" for name in ("items", "files"))
    corner = GeoBox((12, 12), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    for where, is_read in ((base, True), (elsewhere, False)):
        named = item()
        for band in named["assets"]:
            named["assets"][band]["href"] = f"{where}/{band}.tif"
        write_json(web / "s2/one/named.json", named)
        here = write_json(tmp_path / "catalog.json", catalogue(("item", f"{base}/named.json")))
        source = StacSource(str(here), cache=tmp_path / f"cache-{is_read}")
        (scene,) = source.search(shapely.box(-180, -90, 180, 90), SEASON).scenes
        (raster,) = source.read([scene], corner, ["B02"], pad=0)
        assert (not raster.failures) is is_read
        assert is_read or "files.intranet has the loopback address" in raster.failures[0].error


@pytest.mark.parametrize("answers", [["127.0.0.1"] * 9, ["93.184.216.34", "127.0.0.1", "127.0.0.1"]])
def test_a_name_that_leads_into_this_network_is_refused_also_when_it_did_not_at_first(
    answers: list[str], tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(tmp_path)
    resolve_as(monkeypatch, {"rebinding.example.org": answers})
    url = server.url.replace("127.0.0.1", "rebinding.example.org")
    with pytest.raises(OSError, match=r"rebinding\.example\.org has the loopback address 127\.0\.0\.1"):
        Web(reach=PUBLIC).fetch(f"{url}/a.tif", max_bytes=99)
    assert server.requests == []


def test_a_catalogue_that_was_public_is_not_believed_to_be_private_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_SEEN_PUBLIC", set())
    PUBLIC.check("stac.example.org", "10.0.0.5")  # a company's own
    PUBLIC.check("stac.example.org", "93.184.216.34")
    with pytest.raises(Refused, match=r"stac\.example\.org has the private address"):
        PUBLIC.check("stac.example.org", "10.0.0.5")


def test_a_host_of_the_users_may_have_addresses_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(*[None] * 4, ("2606:2800:220:1::1", 443)), (*[None] * 4, ("10.0.0.5", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(reach, "_SEEN_PUBLIC", set())
    for _ in range(2):  # and of these the one that answers counts
        PUBLIC.check_name("stac.example.org", 443)
        PUBLIC.check("stac.example.org", "2606:2800:220:1::1")
    with pytest.raises(Refused, match=r"has the private address 10\.0\.0\.5"):
        PUBLIC.check("stac.example.org", "10.0.0.5")
    with pytest.raises(Refused, match=r"other\.example\.org has the private address"):
        PUBLIC.check_name("other.example.org", 443)


def test_a_server_that_a_document_here_named_is_not_believed_to_move_into_this_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "_SEEN_PUBLIC", set())
    ours = Reach.of("catalog.json")
    ours.check("files.example.org", "93.184.216.34")
    with pytest.raises(Refused):
        ours.past("https://files.example.org/a").check("files.example.org", "10.0.0.5")


def test_a_connection_that_one_catalogue_may_use_is_not_lent_to_another(
    tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"inside")
    server = serve(tmp_path)
    resolve_as(monkeypatch, {"files.intranet": ["127.0.0.1"] * 9})
    url = f"{server.url.replace('127.0.0.1', 'files.intranet')}/a.tif"
    assert Web().fetch(url, max_bytes=99).body == b"inside"
    with pytest.raises(OSError, match=r"files\.intranet has the loopback address"):
        Web(reach=PUBLIC).fetch(url, max_bytes=99)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    ["https://evil.org\\.dataspace.copernicus.eu/a", "https://evil.org\\.blob.core.windows.net/a", "http://a b/", "http://a:x/",
     "http://:80/", "http://me@/a"],
)  # fmt: skip
def test_a_host_that_two_readers_understand_differently_is_none(url: str) -> None:
    assert not is_web(url)
    with pytest.raises(OSError, match="http"):
        Web(signer=OidcSigner()).fetch(url, max_bytes=9)
    with pytest.raises(OSError, match="http"):
        Web(signer=SasSigner()).fetch(url, max_bytes=9)


def resolve_as(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """Names that a hostile server of names answers with one address after another."""
    left = {name: list(answers) for name, answers in names.items()}
    real = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return real(left[host].pop(0) if left.get(host) else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
