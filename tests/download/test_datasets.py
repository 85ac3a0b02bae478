"""Whole datasets, by the clients of ISIC and Kaggle themselves, against a local server."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import Site, zipped

from dermaflux.download import datasets
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Collection, Counts, KaggleDataset, OpenFiles, Route, Source
from dermaflux.sources.registry import SOURCES

ZIP = "complete_mednode_dataset.zip"
MEDNODE = {
    "complete_mednode_dataset/melanoma/1.jpg": b"m" * 900,
    "complete_mednode_dataset/naevus/2.jpg": b"n" * 900,
}


def source(name: str, images: int, route: Route) -> Source:
    """A published dataset with few images, on the local server."""
    counts = {"train": Counts(images, None, None)}
    return replace(SOURCES[name], counts=counts, bytes=1000, download=route)


def test_open_files_are_fetched_unpacked_and_counted(
    site: Site, work: Path, tmp_path: Path
) -> None:
    site.files[f"/{ZIP}"] = zipped(MEDNODE)
    site.cuts = [700]
    mednode, folder = source("mednode", 2, OpenFiles(site.address, (ZIP,))), tmp_path / "mednode"
    assert datasets.download(mednode, folder, work) == f"mednode: 2 images in {folder}"
    assert not work.exists()
    requests = len(site.requests)
    assert "all 2 images" in datasets.download(mednode, folder, work)
    assert len(site.requests) == requests


def test_a_wrong_count_or_a_full_disk_names_both_numbers(
    site: Site, work: Path, tmp_path: Path
) -> None:
    site.files[f"/{ZIP}"] = zipped(MEDNODE)
    mednode = source("mednode", 170, OpenFiles(site.address, (ZIP,)))
    with pytest.raises(InputError, match="holds 2 images of MED-NODE, but 170 were published"):
        datasets.download(mednode, tmp_path / "mednode", work)
    requests = len(site.requests)
    with pytest.raises(InputError, match="GB free; name a folder on a larger disk"):
        datasets.download(replace(mednode, bytes=10**18), tmp_path / "large", work)
    assert len(site.requests) == requests


def test_a_dataset_behind_an_agreement_prints_what_to_do(tmp_path: Path, work: Path) -> None:
    text = datasets.download(SOURCES["ddi"], tmp_path / "ddi", work)
    assert "by hand: sign the research use agreement" in text
    assert not (tmp_path / "ddi").exists()


def test_unknown_names_and_the_phantom_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset 'isic2017'"):
        datasets.run(["isic2017"], tmp_path)
    (tmp_path / "phantom.json").write_text("{}")
    with pytest.raises(InputError, match="holds the phantom corpus"):
        datasets.run(["hiba"], tmp_path)


def test_isic_cli_downloads_a_collection_and_retries_what_it_lost(
    site: Site, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("isic_cli", reason="the extra `download` is not installed")
    start = f"import isic_cli.cli as c; c.DOMAINS['dev'] = {site.address!r}; c.main()"
    monkeypatch.setattr(datasets, "_ISIC", (sys.executable, "-c", start))
    monkeypatch.setenv("ISIC_DEV", "1")
    site.files = {f"/images/ISIC_000000{n}.jpg": bytes([n]) * 800 for n in range(5)}
    site.fails["/images/ISIC_0000003.jpg"] = 404
    folder = tmp_path / "hiba"
    text = datasets.download(source("hiba", 5, Collection(251)), folder, work)
    assert text == f"hiba: 5 images in {folder}"
    for name, content in site.files.items():
        assert (folder / Path(name).name).read_bytes() == content
    images = [path for path, _ in site.requests if path.endswith(".jpg")]
    assert len(images) == 6  # the second call requested only the lost one


@pytest.fixture
def kaggle(site: Site, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A Kaggle dataset whose API is the local server."""
    pytest.importorskip("kagglehub", reason="the extra `download` is not installed")
    from kagglesdk import kaggle_env

    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, site.address)
    return source("kaggle2", 4, KaggleDataset("someone/lesions"))


def test_kagglehub_resumes_and_its_files_move_into_the_folder(
    kaggle: Source, site: Site, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "nobody")
    monkeypatch.setenv("KAGGLE_KEY", "nothing")
    classes = ("train/Benign", "train/Malignant", "test/Benign", "test/Malignant")
    files = {f"{folder}/{n}.jpg": bytes([n]) * 600_000 for n, folder in enumerate(classes)}
    site.files["/kaggle.zip"] = zipped(files)
    site.cuts = [1_500_000]
    folder = tmp_path / "kaggle2"
    assert datasets.download(kaggle, folder, work) == f"kaggle2: 4 images in {folder}"
    for name, content in files.items():
        assert (folder / name).read_bytes() == content
    assert ("/kaggle.zip", f"bytes={1 << 20}-") in site.requests  # it keeps whole chunks of 1 MiB


def test_kaggle_without_permission_names_the_key(
    kaggle: Source, work: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="someone/lesions.*KAGGLE_KEY"):
        datasets.download(kaggle, tmp_path / "kaggle2", work)


def test_a_missing_extra_says_how_to_install_it(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs isic_cli.*dermaflux\[download\]"):
        datasets.download(source("hiba", 5, Collection(251)), tmp_path / "hiba", work)
    assert not (tmp_path / "hiba").exists()
