"""Files over connections that break, and zip files that want to write elsewhere."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from file_server import Site, zipped

from dermaflux.download import transfer
from dermaflux.errors import InputError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def site(site: Site) -> Site:
    site.files["/file.bin"] = CONTENT
    return site


def fetch(site: Site, work: Path, name: str = "file.bin") -> bytes:
    target = work.parent / "out" / name
    transfer.fetch(f"{site.address}/{name}", target, work, pause=0.001)
    assert not list(work.iterdir())
    return target.read_bytes()


def test_a_cut_file_is_resumed_where_it_stopped(site: Site, work: Path) -> None:
    site.cuts = [3000, 1, 0, 2000]
    assert fetch(site, work) == CONTENT
    starts = [start for _, start in site.requests]
    assert starts == [None, "bytes=3000-", "bytes=3001-", "bytes=3001-", "bytes=5001-"]
    assert fetch(site, work) == CONTENT  # a file that is there is not requested
    assert len(site.requests) == 5


def test_a_failed_download_is_resumed_by_the_next_call(site: Site, work: Path) -> None:
    site.cuts = [3000] + [0] * 6
    with pytest.raises(InputError, match="6 tries.*run the command again to resume it"):
        fetch(site, work)
    assert fetch(site, work) == CONTENT
    assert site.requests[-1][1] == "bytes=3000-"


def test_another_version_of_the_file_is_never_spliced(site: Site, work: Path) -> None:
    site.files["/file.bin"] = b"old" * 3000
    site.cuts = [3000] + [0] * 6
    with pytest.raises(InputError):
        fetch(site, work)
    site.files["/file.bin"], site.etags["/file.bin"] = CONTENT, '"v2"'
    assert fetch(site, work) == CONTENT


@pytest.mark.parametrize("weak", [False, True])
def test_without_ranges_or_a_strong_tag_it_starts_again(site: Site, work: Path, weak: bool) -> None:
    site.ranges = weak
    site.etags["/file.bin"] = 'W/"v1"' if weak else '"v1"'
    site.cuts = [3000]
    assert fetch(site, work) == CONTENT
    assert len(site.requests) == 2


@pytest.mark.parametrize("excess", [b"", b"rubbish"])
def test_a_partial_file_that_is_complete_or_too_long(site: Site, work: Path, excess: bytes) -> None:
    (work / ".file.bin.part").write_bytes(CONTENT + excess)
    (work / ".file.bin.part.version").write_text('"v1"')
    assert fetch(site, work) == CONTENT


def test_a_missing_file_is_reported_at_once_and_a_busy_server_asked_again(
    site: Site, work: Path
) -> None:
    with pytest.raises(InputError, match="404.*absent.bin.*by hand"):
        fetch(site, work, "absent.bin")
    assert len(site.requests) == 1
    site.fails["/file.bin"] = 503
    assert fetch(site, work) == CONTENT


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/tmp/dermaflux-evil.jpg"])
def test_a_zip_file_cannot_write_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(zipped({"fine.jpg": b"x", name: b"evil"}))
    (tmp_path / "into").mkdir()
    with pytest.raises(InputError, match="lies outside"):
        transfer.unpack(tmp_path / "bad.zip", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    assert not (tmp_path / "evil.jpg").exists()


def test_links_and_damage_in_a_zip_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.zip").write_bytes(zipped({}, link="link.jpg"))
    with pytest.raises(InputError, match="is a link"):
        transfer.unpack(tmp_path / "link.zip", tmp_path)
    (tmp_path / "damaged.zip").write_bytes(zipped({"a.jpg": b"x" * 100})[:60])
    with pytest.raises(InputError, match="is damaged"):
        transfer.unpack(tmp_path / "damaged.zip", tmp_path)


def test_a_zip_file_with_a_password_is_not_called_damaged(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.jpg": b"x" * 100}))
    for header in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag "encrypted" of both headers
        content[content.index(header) + (6 if header[2] == 3 else 8)] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    (tmp_path / "into").mkdir()
    with pytest.raises(InputError, match=r"cannot be unpacked here .*; unpack it by hand"):
        transfer.unpack(tmp_path / "locked.zip", tmp_path / "into")


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "\u00e4" * 140 + ".jpg", "y" * 300 + "/a.jpg"])
def test_a_name_that_no_disk_stores_is_refused_before_anything_is_unpacked(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "long.zip").write_bytes(zipped({"fine.jpg": b"x", name: b"y"}))
    with pytest.raises(InputError, match=r"long.zip holds a file with the name .* 255") as caught:
        transfer.unpack(tmp_path / "long.zip", tmp_path / "into")
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "into").exists()
    (tmp_path / "into").mkdir()
    longest = "z" * 251 + ".jpg"
    (tmp_path / "longest.zip").write_bytes(zipped({longest: b"x"}))
    transfer.unpack(tmp_path / "longest.zip", tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == [longest]


@pytest.mark.parametrize("at", range(0, 130, 7))
def test_a_zip_file_with_other_bytes_anywhere_is_one_sentence_or_unpacked(
    at: int, tmp_path: Path
) -> None:
    content = bytearray(zipped({"a.jpg": b"x" * 100}))
    content[at : at + 3] = b"\xff\x00\xff"
    (tmp_path / "a.zip").write_bytes(content)
    (tmp_path / "into").mkdir()
    with contextlib.suppress(InputError):
        transfer.unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not list((tmp_path / "into").rglob("*.part"))


def test_unpacking_replaces_nothing(tmp_path: Path) -> None:
    archive, folder = tmp_path / "some.zip", tmp_path / "a"
    files = {"a/1.jpg": b"first", "a/2.jpg": b"second", "__MACOSX/._1.jpg": b"no"}
    archive.write_bytes(zipped(files))
    transfer.unpack(archive, tmp_path)
    (folder / "2.jpg").unlink()
    (folder / "mine.txt").write_text("mine")
    transfer.unpack(archive, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"1.jpg", "2.jpg", "mine.txt"}
    assert not (tmp_path / "__MACOSX").exists()
    (folder / "1.jpg").write_bytes(b"another image")
    with pytest.raises(InputError, match="13 bytes.*move one of them away"):
        transfer.unpack(archive, tmp_path)
    assert (folder / "1.jpg").read_bytes() == b"another image"
