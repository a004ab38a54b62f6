"""Archives that mean no good, or are broken, are one sentence each and leave nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import py7zr
import pytest

from sits_pipeline.parcels.archives import Limits, locate
from sits_pipeline.parcels.divided import DividedFile

NO_LIMITS = Limits()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is empty again at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def zipped(path: Path, contents: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return str(path)


@pytest.mark.parametrize(
    "name", ["../a.parquet", "/etc/a.parquet", "x/../../a.parquet", "C:\\a.parquet", "..\\a.parquet"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", {name: b"PAR1", "good.parquet": b"PAR1"})
    with pytest.raises(ValueError, match=r"holds a file named .*, which would lie outside of any folder"):
        locate(path, "good.parquet", NO_LIMITS)


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.parquet")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"holds a\.parquet as a link and not as a file"):
        locate(str(tmp_path / "a.zip"), None, NO_LIMITS)
    (tmp_path / "b.parquet").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive7:
        archive7.write(tmp_path / "b.parquet", "b.parquet")
    with pytest.raises(ValueError, match=r"holds b\.parquet as a link and not as a file"):
        locate(str(tmp_path / "a.7z"), None, NO_LIMITS)


def test_bombs_are_refused_by_size_and_by_ratio(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.gpkg": bytes(3_000_000), "readme.txt": bytes(9_000_000)})
    with pytest.raises(ValueError, match=r"says it unpacks to 0\.0 GB, more than the 0\.0 GB that are allowed"):
        locate(path, None, Limits(total=2_000_000))
    with pytest.raises(ValueError, match=r"unpacks 0\.00 MB to 3 MB, \d+ times as much, which no file of parcels does"):
        locate(path, None, Limits(small=2_000_000))
    assert locate(path, None, NO_LIMITS).target.endswith("a.gpkg")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writestr(bytes(3_000_000), "a.gpkg")
    with pytest.raises(ValueError, match="times as much, which no file of parcels does"):
        locate(str(tmp_path / "a.7z"), None, Limits(small=2_000_000))


def test_a_header_that_lies_about_the_size_unpacks_no_more_than_it_says(tmp_path: Path, temporary: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"a.parquet": bytes(1_000_000)}))
    said = (1_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(said, (1000).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="cannot be read as an archive"):
        locate(str(path), None, NO_LIMITS)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {"a.parquet": os.urandom(5000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 100))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"has 0\.0 GB left; let TMPDIR name a folder with more room"):
        locate(path, None, NO_LIMITS)


def test_broken_encrypted_and_empty_archives_are_one_sentence(tmp_path: Path) -> None:
    good = Path(zipped(tmp_path / "a.zip", {"a.parquet": os.urandom(5000)}))
    (tmp_path / "half.zip").write_bytes(good.read_bytes()[:2500])
    with pytest.raises(ValueError, match=r"half\.zip cannot be read as an archive \(BadZipFile"):
        locate(str(tmp_path / "half.zip"), None, NO_LIMITS)
    wrong = good.read_bytes().replace(good.read_bytes()[2000:2100], bytes(100))
    (tmp_path / "wrong.zip").write_bytes(wrong)
    with pytest.raises(ValueError, match=r"wrong\.zip cannot be read as an archive"):
        locate(str(tmp_path / "wrong.zip"), None, NO_LIMITS)
    (tmp_path / "half.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(40))
    with pytest.raises(ValueError, match=r"half\.7z cannot be read as an archive"):
        locate(str(tmp_path / "half.7z"), None, NO_LIMITS)
    with py7zr.SevenZipFile(tmp_path / "secret.7z", "w", password="p") as archive:
        archive.writestr(b"PAR1", "a.parquet")
    with pytest.raises(ValueError, match=r"secret\.7z is encrypted; unpack it with its password"):
        locate(str(tmp_path / "secret.7z"), None, NO_LIMITS)
    with pytest.raises(ValueError, match=r"holds no vector file \(shp, .*: it holds readme\.txt"):
        locate(zipped(tmp_path / "text.zip", {"readme.txt": b""}), None, NO_LIMITS)
    with pytest.raises(ValueError, match="it holds nothing"):
        locate(zipped(tmp_path / "empty.zip", {}), None, NO_LIMITS)


def test_only_the_chosen_file_and_what_belongs_to_it_are_unpacked(tmp_path: Path, temporary: Path) -> None:
    path = zipped(
        tmp_path / "a.zip",
        {"x/mä.shp": b"1", "x/mä.dbf": b"2", "x/other.txt": b"3", "mä.dbf": b"4", "x/y/mä.dbf": b"5"},
    )
    place = locate(path, None, NO_LIMITS)  # GDAL may read ä as another letter, so that this is not read in place
    (folder,) = temporary.iterdir()
    assert place.target == str(folder / "x" / "mä.shp")
    assert sorted(str(part.relative_to(folder)) for part in folder.rglob("*.*")) == ["x/mä.dbf", "x/mä.shp"]
    assert place.unpacked is not None
    place.unpacked.remove()


def test_what_is_unpacked_goes_when_nobody_holds_it(tmp_path: Path, temporary: Path) -> None:
    place = locate(zipped(tmp_path / "a.zip", {"a.parquet": b"PAR1"}), None, NO_LIMITS)
    assert len(list(temporary.iterdir())) == 1
    del place
    assert list(temporary.iterdir()) == []


def test_a_divided_file_reads_as_its_parts_together(tmp_path: Path) -> None:
    content = bytes(range(250)) * 4
    paths = [tmp_path / f"a.{number:03d}" for number in (1, 2, 3)]
    for path, part in zip(paths, (content[:300], content[300:301], content[301:]), strict=True):
        path.write_bytes(part)
    with io.BufferedReader(DividedFile(paths), buffer_size=16) as file:
        assert file.read() == content
        assert file.seek(-10, os.SEEK_END) == 990
        assert file.read(20) == content[990:]
        file.seek(295)
        assert file.read(10) == content[295:305]
        assert file.tell() == 305
        assert file.read(0) == b""
