"""Links in the data folder, and a full disk: what DVC hashes is what `ingest` reads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ingested import DEFAULTS, settings
from layouts import kaggle, random_image, save

from dermaflux import paths
from dermaflux.corpus import ingest
from dermaflux.errors import InputError
from dermaflux.params import RELEASED_BACKBONE, OwnDataset
from dermaflux.sources.discovery import discover

OWN = [OwnDataset(name="clinic", folder="clinic")]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data folder with one dataset, and a folder on another disk."""
    data, elsewhere = tmp_path / "data", tmp_path / "nas"
    save(random_image(1), data / "clinic/benign/1.jpg")
    save(random_image(2), data / "clinic/malignant/2.jpg")
    save(random_image(3), elsewhere / "benign/3.jpg")
    (elsewhere / "table.csv").write_text("image,label\n")
    (data / "spare").mkdir()
    return data, elsewhere


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("clinic", "nas"),
        ("clinic/benign", "nas/benign"),
        ("clinic/2019/deep/benign", "nas/benign"),
        ("clinic/table.csv", "nas/table.csv"),
        ("clinic/loop", "data"),
        ("clinic/copy", "data/clinic/benign"),
        ("clinic/gone.csv", "nas/gone.csv"),
        ("clinic/images.hdf5", "nas/table.csv"),
    ],
)
def test_what_dvc_would_not_hash_is_refused(
    folders: tuple[Path, Path], link: str, target: str
) -> None:
    data, _ = folders
    path = data / link
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(data / "spare" / path.name)
    path.symlink_to(data.parent / target)
    with pytest.raises(InputError) as raised:
        discover(data, [], OWN)
    assert f"{str(path)!r} is a link to {str(data.parent / target)!r}, and DVC" in str(raised.value)


def test_links_that_are_hashed_or_not_read_are_no_matter(folders: tuple[Path, Path]) -> None:
    data, elsewhere = folders
    (data / "clinic/same.csv").symlink_to(data / "clinic/benign/1.jpg")
    (data / "clinic/benign/outside.jpg").symlink_to(elsewhere / "benign/3.jpg")  # quarantined
    (data / "unread").symlink_to(elsewhere)
    (data / "kaggle2").symlink_to(elsewhere)
    linked = data.parent / "linked"
    linked.symlink_to(data)
    own = [*OWN, OwnDataset(name="spare", folder="kaggle2")]
    chosen, unread = discover(linked, ["clinic"], own)
    assert [dataset.source.name for dataset in chosen] == ["clinic"]
    assert {part.name for part in unread} == {"unread", "kaggle2"}


def dvc(*words: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["dvc", *words], env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_dvc_sees_new_files_behind_a_linked_data_folder_and_keeps_tables_of_a_failure(
    workspace: Path,
) -> None:
    """`data` as a link, and as an absolute folder; a link below it is what DVC passes by."""
    nas = workspace.parent / "nas"
    kaggle(nas / "kaggle2", 3, True, 0)
    workspace.symlink_to(nas)
    (workspace.parent / ".dvc").rmdir()
    dvc("init", "--no-scm", "-q")
    shipped = DEFAULTS.read_text().replace(RELEASED_BACKBONE, "tiny")
    Path("params.yaml").write_text(shipped)
    Path("dvc.yaml").write_text(
        "stages: {ingest: {cmd: dermaflux ingest, deps: ['${data}'], params: [data, ingest],\n"
        "  outs: [corpus, reports/quarantine.csv]}}\n"
    )
    for data in ("data", str(nas)):
        Path("params.yaml").write_text(shipped.replace("data: data ", f"data: {data} ", 1))
        assert "kaggle2: 12 in, " in dvc("repro", "ingest")
        assert "up to date" in dvc("status", "ingest")
        save(random_image(len(data)), nas / f"kaggle2/train/Benign/{len(data)}.jpg")
        assert "modified" in dvc("status", "ingest")
        (nas / f"kaggle2/train/Benign/{len(data)}.jpg").unlink()
    save(random_image(4), workspace.parent / "other/Benign/4.jpg")
    (nas / "kaggle2/train/Benign/linked").symlink_to(workspace.parent / "other/Benign")
    assert "up to date" in dvc("status", "ingest")  # what the refusal is for
    (nas / "kaggle2/new").mkdir()
    assert "is a link to" in dvc("repro", "--force", "ingest")
    (nas / "kaggle2/train/Benign/linked").unlink()
    for path in nas.rglob("Malignant/*.jpg"):
        path.write_text("not an image")
    assert "0 malignant images" in dvc("repro", "ingest")
    assert "damaged" in paths.QUARANTINE.read_text()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    os.chdir(tmp_path)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("spare", [200_000, 700_000])
def test_a_full_disk_leaves_nothing_half_written(
    full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """Full while images are decoded, and while the corpus is written from what was decoded."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.chdir(full_disk)
    (full_disk / ".dvc").mkdir()
    for number in range(30):
        label = ("benign", "malignant")[number % 2]
        save(random_image(number, 200, 200), tmp_path / "data/clinic" / label / f"{number}.jpg")
    filler = full_disk / "filler"
    filler.write_bytes(bytes(1_000_000 - spare))
    params = settings(own=[{"name": "clinic", "folder": "clinic"}])
    params = params.model_copy(update={"data": str(tmp_path / "data")})
    with pytest.raises(OSError, match="No space left"):
        ingest.run(params)
    assert {path.name for path in full_disk.iterdir()} <= {
        ".dvc",
        ".dermaflux",
        "filler",
        "reports",
    }
    filler.unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    ingest.run(params)
    expected = [path.read_bytes() for path in sorted(paths.CORPUS.iterdir())]
    monkeypatch.chdir(full_disk)
    subprocess.run(["mount", "-o", "remount,size=8m", str(full_disk)], check=True)
    ingest.run(params)
    assert [path.read_bytes() for path in sorted(paths.CORPUS.iterdir())] == expected
    assert not any(Path(".dermaflux/checkpoints/ingest").glob("*/"))
