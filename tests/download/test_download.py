"""Downloads against a local server that cuts connections and speaks the ISIC and Kaggle APIs."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from dermaflux.download import datasets, transfer
from dermaflux.download.datasets import Collection, Kaggle, OpenFiles
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Counts
from dermaflux.sources.registry import SOURCES


@dataclass
class Site:
    """What the server has, how it misbehaves, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers end, one per answer."""
    fails: dict[str, int] = field(default_factory=dict)
    """Path -> status with which it is answered once."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Files with range requests, ISIC API v2 as isic-cli 12 calls it, Kaggle's as kagglehub 1."""

    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        address = urlparse(self.path)
        self.site.asked.append((self.path, self.headers.get("Range")))
        status = self.site.fails.pop(address.path, None)
        if status is not None:
            self._send(status, b"no", "text/plain")
        elif address.path.startswith("/api/v2/"):
            self._isic(address.path.removeprefix("/api/v2/"), parse_qs(address.query))
        elif address.path in self.site.files:
            self._file(address.path)
        else:
            self._send(404, b"absent", "text/plain")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.site.asked.append((self.path, None))
        if self.path.endswith("/GetDataset"):
            self._json({"currentVersionNumber": 3})
        elif self.path.endswith("/DownloadDataset"):
            self.send_response(302)
            self.send_header("Location", f"{self.site.address}/kaggle.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        cut = self.site.cuts.pop(0) if self.site.cuts and len(body) > 500 else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), "application/json")

    def _file(self, path: str) -> None:
        content, etag = self.site.files[path], self.site.etags.get(path, '"v1"')
        headers = {"ETag": etag, **({"Accept_Ranges": "bytes"} if self.site.ranges else {})}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, etag)
        if not (match and same and self.site.ranges):
            self._send(200, content, "application/octet-stream", **headers)
        elif int(match[1]) >= len(content):
            headers["Content_Range"] = f"bytes */{len(content)}"
            self._send(416, b"", "text/plain", **headers)
        else:
            start = int(match[1])
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], "application/octet-stream", **headers)

    def _isic(self, path: str, query: dict[str, list[str]]) -> None:
        pictures = [name for name in self.site.files if name.endswith(".jpg")]
        if path == "collections/251/":
            self._json({"id": 251, "name": "HIBA", "locked": True})
        elif path == "images/search/size/":
            self._json({"size": sum(len(self.site.files[name]) for name in pictures)})
        elif path == "images/search/":
            start = int(query.get("cursor", ["0"])[0])
            following = f"{self.site.address}/api/v2/images/search/?cursor={start + 2}"
            self._json(
                {
                    "count": len(pictures),
                    "next": following if start + 2 < len(pictures) else None,
                    "results": [self._about(name) for name in pictures[start : start + 2]],
                }
            )
        elif path.startswith("zip-download/license-file/"):
            self._send(200, b"the licence", "text/plain")
        else:
            self._send(404, b"{}", "application/json")

    def _about(self, name: str) -> dict[str, object]:
        full = {"url": f"{self.site.address}{name}", "size": len(self.site.files[name])}
        return {
            "isic_id": Path(name).stem,
            "attribution": "HIBA",
            "copyright_license": "CC-BY",
            "metadata": {
                "acquisition": {"image_type": "dermoscopic"},
                "clinical": {"diagnosis_1": "Benign"},
            },
            "files": {"full": full},
        }


@pytest.fixture
def site() -> Iterator[Site]:
    handler = type("Own", (Handler,), {"site": Site()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler.site
    server.shutdown()
    server.server_close()


@pytest.fixture
def work(tmp_path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


CONTENT = bytes(range(256)) * 40


def _fetch(site: Site, work: Path) -> bytes:
    target = work.parent / "out" / "file.bin"
    transfer.fetch(f"{site.address}/file.bin", target, work, pause=0.001)
    assert not list(work.iterdir())
    return target.read_bytes()


def test_a_cut_file_goes_on_where_it_stopped(site, work):
    site.files["/file.bin"] = CONTENT
    site.cuts = [3000, 1, 0, 2000]
    assert _fetch(site, work) == CONTENT
    starts = [start for _, start in site.asked]
    assert starts == [None, "bytes=3000-", "bytes=3001-", "bytes=3001-", "bytes=5001-"]
    assert _fetch(site, work) == CONTENT  # nothing is asked for what is there
    assert len(site.asked) == 5


def test_a_killed_download_goes_on_in_the_next_call(site, work):
    site.files["/file.bin"] = CONTENT
    site.cuts = [3000] + [0] * 6
    with pytest.raises(InputError, match="6 tries.*it goes on where it stopped"):
        _fetch(site, work)
    assert _fetch(site, work) == CONTENT
    assert site.asked[-1][1] == "bytes=3000-"


def test_another_version_of_the_file_is_never_spliced(site, work):
    site.files["/file.bin"] = b"old" * 3000
    site.cuts = [3000] + [0] * 6
    with pytest.raises(InputError):
        _fetch(site, work)
    site.files["/file.bin"], site.etags["/file.bin"] = CONTENT, '"v2"'
    assert _fetch(site, work) == CONTENT


@pytest.mark.parametrize("weak", [False, True])
def test_a_server_without_ranges_or_with_weak_names_starts_again(site, work, weak):
    site.files["/file.bin"] = CONTENT
    site.ranges = weak
    site.etags["/file.bin"] = 'W/"v1"' if weak else '"v1"'
    site.cuts = [3000]
    assert _fetch(site, work) == CONTENT


def test_a_partial_file_that_is_whole_or_too_long_is_recognised(site, work):
    site.files["/file.bin"] = CONTENT
    for extra in (b"", b"rubbish"):
        (work / ".file.bin.part").write_bytes(CONTENT + extra)
        (work / ".file.bin.part.version").write_text('"v1"')
        assert _fetch(site, work) == CONTENT
        (work.parent / "out" / "file.bin").unlink()


def test_a_missing_file_is_said_at_once(site, work):
    with pytest.raises(InputError, match="404.*by hand"):
        _fetch(site, work)
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(site, work):
    site.files["/file.bin"] = CONTENT
    site.fails["/file.bin"] = 503
    assert _fetch(site, work) == CONTENT


def _zip(entries: dict[str, bytes], link: str | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link:
            member = zipfile.ZipInfo(link)
            member.external_attr = 0o120777 << 16
            archive.writestr(member, "/etc/passwd")
    return out.getvalue()


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/tmp/dermaflux-evil.jpg"])
def test_a_zip_file_cannot_write_outside(name, tmp_path):
    (tmp_path / "bad.zip").write_bytes(_zip({"fine.jpg": b"x", name: b"evil"}))
    (tmp_path / "into").mkdir()
    with pytest.raises(InputError, match="lies outside"):
        transfer.unpack(tmp_path / "bad.zip", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    assert not (tmp_path / "evil.jpg").exists()


def test_links_and_damage_in_a_zip_file_are_refused(tmp_path):
    (tmp_path / "link.zip").write_bytes(_zip({}, link="link.jpg"))
    with pytest.raises(InputError, match="is a link"):
        transfer.unpack(tmp_path / "link.zip", tmp_path)
    (tmp_path / "damaged.zip").write_bytes(_zip({"a.jpg": b"x" * 100})[:60])
    with pytest.raises(InputError, match="is damaged"):
        transfer.unpack(tmp_path / "damaged.zip", tmp_path)


def test_unpacking_replaces_nothing(tmp_path):
    archive = tmp_path / "some.zip"
    archive.write_bytes(_zip({"a/1.jpg": b"one", "a/2.jpg": b"two", "__MACOSX/._1.jpg": b"no"}))
    transfer.unpack(archive, tmp_path)
    (tmp_path / "a" / "2.jpg").unlink()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    transfer.unpack(archive, tmp_path)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"1.jpg", "2.jpg", "mine.txt"}
    assert not (tmp_path / "__MACOSX").exists()
    (tmp_path / "a" / "1.jpg").write_bytes(b"my own picture")
    with pytest.raises(InputError, match="14 bytes.*move one of them away"):
        transfer.unpack(archive, tmp_path)
    assert (tmp_path / "a" / "1.jpg").read_bytes() == b"my own picture"


def _few(name: str, images: int):
    return replace(SOURCES[name], counts={"train": Counts(images, None, None)}, bytes=1000)


MEDNODE = {
    "complete_mednode_dataset/melanoma/1.jpg": b"m" * 900,
    "complete_mednode_dataset/naevus/2.jpg": b"n" * 900,
}


def test_open_files_are_fetched_unpacked_and_counted(site, work, tmp_path):
    site.files["/complete_mednode_dataset.zip"] = _zip(MEDNODE)
    site.cuts = [700]
    route = OpenFiles(site.address, ("complete_mednode_dataset.zip",))
    folder = tmp_path / "data" / "mednode"
    said = datasets.download(_few("mednode", 2), route, folder, work)
    assert said == f"mednode: 2 images in {folder}"
    assert not work.exists()
    asked = len(site.asked)
    assert "all 2 images" in datasets.download(_few("mednode", 2), route, folder, work)
    assert len(site.asked) == asked


def test_a_count_that_is_off_names_both_numbers(site, work, tmp_path):
    site.files["/complete_mednode_dataset.zip"] = _zip(MEDNODE)
    route = OpenFiles(site.address, ("complete_mednode_dataset.zip",))
    with pytest.raises(InputError, match="holds 2 images of MED-NODE, but 170 were published"):
        datasets.download(SOURCES["mednode"], route, tmp_path / "mednode", work)


def test_a_full_disk_is_said_before_any_work(work, tmp_path):
    large = replace(_few("mednode", 2), bytes=10**18)
    with pytest.raises(InputError, match="GB free; name a folder on a larger disk"):
        datasets.download(large, OpenFiles("http://127.0.0.1:1", ()), tmp_path / "mednode", work)


def test_what_needs_a_person_prints_the_way(tmp_path, work):
    said = datasets.download(SOURCES["ddi"], datasets.ROUTES.get("ddi"), tmp_path / "ddi", work)
    assert "agreement" in said
    assert SOURCES["ddi"].command in said


def test_every_dataset_has_a_route_or_needs_a_person():
    assert set(SOURCES) - set(datasets.ROUTES) == {"derm12345", "padufes20", "ddi"}
    assert set(datasets.ROUTES) < set(SOURCES)


def test_unknown_names_and_the_phantom_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no dataset 'isic2018'"):
        datasets.run(["isic2018"], tmp_path)
    (tmp_path / "phantom.json").write_text("{}")
    with pytest.raises(InputError, match="holds the phantom corpus"):
        datasets.run(["hiba"], tmp_path)


def test_isic_cli_downloads_a_collection_and_fetches_what_it_lost(
    site, work, tmp_path, monkeypatch
):
    pytest.importorskip("isic_cli", reason="the extra `download` is not installed")
    start = f"import isic_cli.cli as c; c.DOMAINS['dev'] = {site.address!r}; c.main()"
    monkeypatch.setattr(datasets, "_ISIC", (sys.executable, "-c", start))
    monkeypatch.setenv("ISIC_DEV", "1")
    site.files = {f"/pictures/ISIC_000000{n}.jpg": bytes([n]) * 800 for n in range(5)}
    site.fails["/pictures/ISIC_0000003.jpg"] = 404
    folder = tmp_path / "hiba"
    said = datasets.download(_few("hiba", 5), Collection(251), folder, work)
    assert said == f"hiba: 5 images in {folder}"
    for name, content in site.files.items():
        assert (folder / Path(name).name).read_bytes() == content
    pictures = [path for path, _ in site.asked if path.endswith(".jpg")]
    assert len(pictures) == 6  # the second call asked for the lost one alone


def test_kagglehub_resumes_and_its_files_move_into_place(site, work, tmp_path, monkeypatch):
    pytest.importorskip("kagglehub", reason="the extra `download` is not installed")
    from kagglesdk import kaggle_env

    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLE_USERNAME", "nobody")
    monkeypatch.setenv("KAGGLE_KEY", "nothing")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, site.address)
    classes = ("train/Benign", "train/Malignant", "test/Benign", "test/Malignant")
    entries = {f"{folder}/{n}.jpg": bytes([n]) * 600_000 for n, folder in enumerate(classes)}
    site.files["/kaggle.zip"] = _zip(entries)
    site.cuts = [1_500_000]
    folder = tmp_path / "kaggle2"
    said = datasets.download(_few("kaggle2", 4), Kaggle("someone/lesions"), folder, work)
    assert said == f"kaggle2: 4 images in {folder}"
    for name, content in entries.items():
        assert (folder / name).read_bytes() == content
    assert ("/kaggle.zip", f"bytes={1 << 20}-") in site.asked  # it keeps whole chunks of 1 MiB


def test_kaggle_without_permission_names_the_key(site, work, tmp_path, monkeypatch):
    pytest.importorskip("kagglehub", reason="the extra `download` is not installed")
    from kagglesdk import kaggle_env

    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, site.address)
    with pytest.raises(InputError, match="someone/lesions.*KAGGLE_KEY"):
        datasets.download(_few("kaggle2", 4), Kaggle("someone/lesions"), tmp_path / "k", work)


def test_a_missing_extra_says_how_to_install_it(work, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs isic_cli.*dermaflux\[download\]"):
        datasets.download(_few("hiba", 5), Collection(251), tmp_path / "hiba", work)
    assert not (tmp_path / "hiba").exists()
