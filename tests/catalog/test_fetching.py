"""Fetching a year of parcels from a real server: resumed, checked, and whole or not there at all."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from tests.catalog.file_server import Behaviour, FileServer

from sits_catalog.fetching import Receipt, fetch_edition, read_receipt
from sits_catalog.fetching.edition import held
from sits_catalog.fetching.requesting import check_address
from sits_catalog.parcel_source import NationalSource, ParcelEdition
from sits_catalog.reach import Reach, Refused

MB = 1_000_000


def packed(body: bytes) -> bytes:
    """A zip of one file that is stored as it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("fields.shp"), body)
    return file.getvalue()


def seven_zip(size: int) -> bytes:
    """The header of a 7z archive of `size` bytes (7zFormat.txt), and zeros in place of what it holds."""
    start = (0).to_bytes(8, "little") + (size - 32).to_bytes(8, "little") + bytes(4)
    head = b"7z\xbc\xaf\x27\x1c\0\4" + zlib.crc32(start).to_bytes(4, "little") + start
    return head + bytes(size - 32)


PART = packed(bytes(range(256)) * 4096)  # a bit more than 1 MiB


class Heard:
    """Notes what a fetch says."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[tuple[int, int]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def progress(self, done: int, total: int) -> None:
        self.done.append((done, total))


def source(*addresses: str, sha256: tuple[str, ...] = (), mapping: str | None = None) -> NationalSource:
    return NationalSource(
        id="xx",
        title="Fields",
        provider="Office",
        home="https://example.org",
        licence="CC0 1.0",
        attribution="Office",
        crs="EPSG:3035",
        mapping=mapping,
        editions=(ParcelEdition(year=2020, addresses=addresses, sha256=sha256),),
    )


def fetch(national: NationalSource, folder: Path, *, again: bool = False, tries: int = 3) -> tuple[Receipt, Heard]:
    heard = Heard()
    waits = (0.0,) * tries
    return fetch_edition(national, 2020, folder=folder, listener=heard, again=again, waits_s=waits), heard


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "xx" / "2020").iterdir() if path.name != ".lock"}


def test_all_parts_and_the_table_of_codes_lie_together_with_a_record_of_them(tmp_path: Path) -> None:
    body = seven_zip(1010)[:1006]
    with FileServer({"a/R.7z.001": body, "a/R.7z.002": b"rest", "m.csv": b"original_code\n1\n"}) as server:
        national = source(f"{server.url}/a/R.7z.001", f"{server.url}/a/R.7z.002", mapping=f"{server.url}/m.csv")
        receipt, heard = fetch(national, tmp_path)
    assert files(tmp_path) == {"R.7z.001", "R.7z.002", "m.csv", "fetched.json"}
    plain = json.loads((tmp_path / "xx/2020/fetched.json").read_text())
    assert [(file["name"], file["size"], file["sha256"]) for file in plain["files"]] == [
        ("R.7z.001", 1006, sha(body)),
        ("R.7z.002", 4, sha(b"rest")),
    ]
    assert plain["mapping"]["sha256"] == sha(b"original_code\n1\n")
    assert plain["files"][0]["etag"] == f'"{sha(body)[:16]}"'
    assert receipt == read_receipt(tmp_path / "xx/2020")
    assert receipt.parcels(tmp_path, None) is None
    assert receipt.parcels(tmp_path / "xx/2020", None) == str(tmp_path / "xx/2020/R.7z.001")
    assert any(text.startswith("fetching R.7z.001, 0.0 MB") for text in heard.stages)


def test_progress_counts_mb_to_the_end(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART * 3}) as server:
        _, heard = fetch(source(f"{server.url}/a.zip"), tmp_path)
    assert heard.done[-1] == (3, 4)
    assert [done for done, _ in heard.done] == sorted(done for done, _ in heard.done)


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}) as server:
        national = source(f"{server.url}/a.zip")
        first, _ = fetch(national, tmp_path)
        asked = len(server.requests)
        assert fetch(national, tmp_path)[0] == first
        assert len(server.requests) == asked
        (tmp_path / "xx/2020/a.zip").unlink()
        assert fetch(national, tmp_path)[0] == first
        assert len(server.requests) == asked + 1


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}, Behaviour(cut_after=[600_000, 100_000])) as server:
        receipt, heard = fetch(source(f"{server.url}/a.zip"), tmp_path)
        ranges = [wanted for _, wanted in server.requests]
        tags = [headers.get("If-Range") for headers in server.headers]
        sent = server.sent
    # Bytes are written in pieces of 64 KiB, and what was cut in the midst of one is asked for again.
    assert ranges == [None, f"bytes={9 * 65536}-", f"bytes={10 * 65536}-"]
    assert sent == 600_000 + 100_000 + len(PART) - 10 * 65536
    assert tags[1:] == [f'"{sha(PART)[:16]}"'] * 2
    assert receipt.files[0].sha256 == sha(PART)
    assert files(tmp_path) == {"a.zip", "fetched.json"}
    assert any("trying again" in text for text in heard.stages)


CHILD = """
import sys
from pathlib import Path
from tests.catalog.test_fetching import fetch, source
fetch(source(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_process_goes_on_where_it_was_and_fetches_each_byte_once(tmp_path: Path) -> None:
    body = PART * 2
    stop = 1024 * 1024
    with FileServer({"a.zip": body}, Behaviour(stall_after=stop)) as server:
        command = [sys.executable, "-c", CHILD, f"{server.url}/a.zip", str(tmp_path)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        partial = tmp_path / "xx/2020/a.zip.partial"
        patience = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == stop):
            assert time.monotonic() < patience
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (tmp_path / "xx/2020/a.zip").exists()
        server.go_on.set()
        receipt, _ = fetch(source(f"{server.url}/a.zip"), tmp_path)
        assert server.requests == [("a.zip", None), ("a.zip", f"bytes={stop}-")]
        assert server.sent == len(body)
    assert receipt.files[0].sha256 == sha(body)
    assert (tmp_path / "xx/2020/a.zip").read_bytes() == body


@pytest.mark.parametrize("behaviour", [{"ranges": False}, {"tags": False}])
def test_a_server_without_ranges_or_tags_starts_again(tmp_path: Path, behaviour: dict[str, bool]) -> None:
    with FileServer({"a.zip": PART}, Behaviour(cut_after=[300_000], **behaviour)) as server:
        receipt, _ = fetch(source(f"{server.url}/a.zip"), tmp_path)
        assert server.sent == 300_000 + len(PART)
    assert receipt.files[0].sha256 == sha(PART)


def test_a_file_that_changed_between_two_attempts_is_not_mixed(tmp_path: Path) -> None:
    new = packed(bytes(range(255, -1, -1)) * 4096)
    with FileServer({"a.zip": PART}, Behaviour(cut_after=[300_000], statuses=[0, 503])) as server:
        national = source(f"{server.url}/a.zip")
        with pytest.raises(ConnectionError, match=r"status 503, 1 times in a row; 262144 bytes are kept: run the same"):
            fetch(national, tmp_path, tries=0)
        server.files["a.zip"] = new
        receipt, _ = fetch(national, tmp_path)
        assert server.requests[-1] == ("a.zip", "bytes=262144-")
    assert (tmp_path / "xx/2020/a.zip").read_bytes() == new
    assert receipt.files[0].sha256 == sha(new)


def test_a_download_that_was_whole_but_not_renamed_needs_no_byte(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}, Behaviour(cut_after=[300_000], statuses=[0, 503])) as server:
        national = source(f"{server.url}/a.zip")
        with pytest.raises(ConnectionError):
            fetch(national, tmp_path, tries=0)
        (tmp_path / "xx/2020/a.zip.partial").write_bytes(PART)
        sent = server.sent
        receipt, _ = fetch(national, tmp_path)
        assert server.sent == sent
    assert receipt.files[0].sha256 == sha(PART)


def test_busy_servers_are_asked_again_and_dead_ones_given_up(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}, Behaviour(statuses=[503, 429, 500])) as server:
        receipt, heard = fetch(source(f"{server.url}/a.zip"), tmp_path)
        assert receipt.complete
        assert sum("answered with status" in text for text in heard.stages) == 3
        server.behaviour.statuses[:] = [503] * 9
        with pytest.raises(ConnectionError, match=r"answered with status 503, 4 times in a row"):
            fetch(source(f"{server.url}/a.zip"), tmp_path / "b")
    with pytest.raises(ConnectionError, match=r"a\.zip broke off: .*refused.*3 times in a row; 0 bytes"):
        fetch(source(f"{server.url}/a.zip"), tmp_path / "c", tries=2)


def test_an_answer_shorter_than_it_says_is_an_error(tmp_path: Path) -> None:
    with (
        FileServer({"a.zip": PART}, Behaviour(says_longer=10, ranges=False)) as server,
        pytest.raises(ConnectionError, match="times in a row"),
    ):
        fetch(source(f"{server.url}/a.zip"), tmp_path)
    assert not (tmp_path / "xx/2020/a.zip").exists()


def test_a_part_that_ends_before_the_file_is_continued_where_no_length_was_given(tmp_path: Path) -> None:
    how = Behaviour(lengths=False, cut_after=[300_000], parts_end_at=[300_000, 700_001])
    with FileServer({"a.zip": PART}, how) as server:
        receipt, heard = fetch(source(f"{server.url}/a.zip"), tmp_path)
        ranges = [wanted for _, wanted in server.requests]
    assert ranges == [None, "bytes=262144-", "bytes=300000-", "bytes=700001-"]
    assert (receipt.files[0].size, receipt.files[0].sha256) == (len(PART), sha(PART))
    assert any(f"was to send {len(PART)} bytes and sent 300000" in text for text in heard.stages)


def test_a_file_of_no_bytes_is_refused(tmp_path: Path) -> None:
    with FileServer({"a.csv": b""}) as server, pytest.raises(ValueError, match=r"a\.csv sent a file of 0 bytes; fetch"):
        fetch(source(f"{server.url}/a.csv"), tmp_path)
    assert files(tmp_path) == set()


def test_a_place_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be put into .*file/xx/2020 \(.*\): name a folder .* with --out, or by"):
        fetch(source("https://example.org/a.zip"), tmp_path / "file")


def test_a_fetched_file_that_was_cut_afterwards_is_not_taken(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}) as server:
        receipt, _ = fetch(source(f"{server.url}/a.zip"), tmp_path)
    place = tmp_path / "xx/2020"
    assert receipt.parcels(place, None) == str(place / "a.zip")
    (place / "a.zip").write_bytes(PART[:-1])
    assert receipt.parcels(place, None) is None


def test_another_checksum_than_the_catalog_states_is_refused(tmp_path: Path) -> None:
    with FileServer({"a.zip": PART}) as server:
        good, wrong = (source(f"{server.url}/a.zip", sha256=(text,)) for text in (sha(PART), "0" * 64))
        with pytest.raises(ValueError, match=rf"a\.zip has SHA-256 {sha(PART)} and should have 0000"):
            fetch(wrong, tmp_path)
        assert files(tmp_path) == set()
        assert fetch(good, tmp_path)[0].files[0].sha256 == sha(PART)


def test_again_asks_whether_a_file_changed_and_finds_damage(tmp_path: Path) -> None:
    path = tmp_path / "xx/2020/a.zip"
    with FileServer({"a.zip": PART}) as server:
        national = source(f"{server.url}/a.zip")
        first, _ = fetch(national, tmp_path)
        sent = server.sent
        assert fetch(national, tmp_path, again=True)[0] == first
        assert server.sent == sent
        path.write_bytes(PART[:-1] + b"!")
        again, heard = fetch(national, tmp_path, again=True)
        assert again == first
        assert path.read_bytes() == PART
        assert f"a.zip is damaged: its SHA-256 was {sha(PART)}" in "\n".join(heard.stages)
        server.files["a.zip"] = PART * 2
        changed, heard = fetch(national, tmp_path, again=True)
    assert changed.files[0].sha256 == sha(PART * 2)
    assert f"its SHA-256 was {sha(PART)} and is {sha(PART * 2)}" in heard.stages[-1]


def test_what_is_gone_closed_or_a_page_says_so(tmp_path: Path) -> None:
    with FileServer({"a.zip": b"<!DOCTYPE html><p>We have moved", "b.gml": b"<ows:ExceptionReport/>"}) as server:
        with pytest.raises(FileNotFoundError, match=r"nothing is at http://127.*/gone.zip any more \(status 404\)"):
            fetch(source(f"{server.url}/gone.zip?key=secret"), tmp_path)
        for name in ("a.zip", "b.gml"):
            with pytest.raises(ValueError, match=r"answered with b'<.*, which is no \.(zip|gml) file"):
                fetch(source(f"{server.url}/{name}"), tmp_path)
        server.behaviour.statuses[:] = [403]
        with pytest.raises(PermissionError, match="not open to everybody"):
            fetch(source(f"{server.url}/a.zip"), tmp_path)
    assert files(tmp_path) == set()


def test_redirects_stay_on_https_and_nothing_secret_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password word\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FileServer({"there/a.zip": PART}) as server:
        server.behaviour.redirect = {
            "a.zip": f"{server.url}/there/a.zip",
            "b.zip": "http://example.org/a.zip?token=secret",
            "c.zip": "/c.zip",
        }
        assert fetch(source(f"{server.url}/a.zip"), tmp_path)[0].complete
        assert all("Authorization" not in headers for headers in server.headers)
        with pytest.raises(OSError, match=r"leads elsewhere, which is not followed.*over https alone") as caught:
            fetch(source(f"{server.url}/b.zip"), tmp_path)
        assert "secret" not in str(caught.value)
        with pytest.raises(OSError, match="leads from one address to the next"):
            fetch(source(f"{server.url}/c.zip"), tmp_path)


@pytest.mark.parametrize(
    "where",
    ["https://10.0.0.5/a.zip", "https://169.254.169.254/a.zip", "https://167772165/a.zip", "https://[x",
     "https://inner.example.org/a.zip"],
)  # fmt: skip
def test_redirects_do_not_lead_into_this_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    inner = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.5", 443))]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **more: inner if "inner" in host else real(host, *args, **more)
    )
    with FileServer({"a.zip": PART}) as server:
        server.behaviour.redirect = {"a.zip": where}
        with pytest.raises(OSError, match="leads elsewhere, which is not followed"):
            fetch(source(f"{server.url}/a.zip"), tmp_path)
        assert len(server.requests) == 1


def test_redirects_lead_to_the_host_that_was_asked_wherever_it_is() -> None:
    ours = Reach.of("https://files.intranet/a.zip")
    ours.check("files.intranet", "10.0.0.5")
    for elsewhere in ("http://127.0.0.1:9/a.zip", "http://localhost/a.zip", "https://10.0.0.5/a.zip"):
        with pytest.raises(Refused):
            ours.check_target(elsewhere)
    Reach.of("http://127.0.0.1:8000/a.zip").check_target("http://127.0.0.1:9/a.zip")


@pytest.mark.parametrize(
    "address", ["http://example.org/a.zip", "ftp://example.org/a.zip", "https://me:pass123@example.org/a.zip", "a.zip"]
)
def test_other_addresses_than_open_https_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"over https alone|none is ever sent") as caught:
        check_address(address)
    assert "pass123" not in str(caught.value)


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.\.' is not the name of a file"):
        fetch(source("https://example.org/a/.."), tmp_path)
    with pytest.raises(ValueError, match="is not the name of a file"):
        fetch(source("https://example.org/%2Fetc%2Fpasswd"), tmp_path)


def test_a_full_disk_is_known_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # what shutil says, of a disk that nobody can fill in a test
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 500_000))
    with (
        FileServer({"a.zip": PART}) as server,
        pytest.raises(OSError, match=r"no room for a\.zip: 1\.0 MB are to come and 0\.5 MB are free; make room, or"),
    ):
        fetch(source(f"{server.url}/a.zip"), tmp_path)


def test_two_processes_do_not_fetch_to_one_place(tmp_path: Path) -> None:
    with (
        held(tmp_path / "xx/2020"),
        pytest.raises(BlockingIOError, match="another process is fetching to"),
    ):
        fetch(source("https://example.org/a.zip"), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": []}', '{"files": [{"name": "../a"}], "mapping": null}'])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "fetched.json").write_text(text)
    with pytest.raises(ValueError, match=r"is not a record of fetched parcels .*; remove it and fetch again"):
        read_receipt(tmp_path)


def test_a_half_fetched_edition_goes_on_with_the_missing_part(tmp_path: Path) -> None:
    with FileServer({"a.7z.001": seven_zip(100)[:98]}) as server:
        national = source(f"{server.url}/a.7z.001", f"{server.url}/a.7z.002")
        with pytest.raises(FileNotFoundError):
            fetch(national, tmp_path)
        half = read_receipt(tmp_path / "xx/2020")
        assert half is not None
        assert not half.complete
        assert half.parcels(tmp_path / "xx/2020", None) is None
        server.files["a.7z.002"] = b"2"
        with pytest.raises(
            ValueError, match=r"the 2 parts of .*a\.7z\.001 have 99 bytes, .* should have 100: remove them"
        ):
            fetch(national, tmp_path)
        (tmp_path / "xx/2020/a.7z.002").unlink()
        server.files["a.7z.002"] = b"22"
        receipt, _ = fetch(national, tmp_path)
        assert [path for path, _ in server.requests] == ["a.7z.001", *["a.7z.002"] * 3]
    assert receipt.complete


def test_an_unpacked_file_beside_a_rar_is_found(tmp_path: Path) -> None:
    with FileServer({"K.rar": b"Rar!\x1a\x07"}) as server:
        receipt, _ = fetch(source(f"{server.url}/K.rar"), tmp_path)
    place = tmp_path / "xx/2020"
    assert receipt.parcels(place, "*K_*.shp") == str(place / "K.rar")
    (place / "in").mkdir()
    (place / "in/K_2020.shp").touch()
    assert receipt.parcels(place, "*K_*.shp") == str(place / "in/K_2020.shp")
    assert receipt.parcels(place, "*k_*.SHP") == str(place / "in/K_2020.shp")
    assert replace(receipt, complete=False).parcels(place, None) is None
