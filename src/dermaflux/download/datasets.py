"""Command ``dermaflux download NAME...``: published datasets into the data folder.

Reads the network; writes `<data>/<name>/` in the published layout and, while it runs,
`.dermaflux/downloads/<name>/` of the main checkout. Open files come by HTTP, archive collections by
`isic-cli`, Kaggle datasets by `kagglehub` (extra `download`); for the rest the instructions are
printed. Every way resumes where it was interrupted, and the adapter then counts what is there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermaflux.download.transfer import fetch, unpack
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.sources.adapter import Source

_ISIC = (sys.executable, "-m", "isic_cli.cli")
_ATTEMPTS = 4  # of a tool that loses single images or its connection


@dataclass(frozen=True)
class OpenFiles:
    """Files below an address that anybody may fetch; zip files are unpacked."""

    base: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """A public collection of the ISIC archive, by its number."""

    number: int


@dataclass(frozen=True)
class Kaggle:
    """A Kaggle dataset, by its handle."""

    handle: str


Route = OpenFiles | Collection | Kaggle
_CHALLENGES = "https://isic-archive.s3.amazonaws.com/challenges"
ROUTES: Mapping[str, Route] = {
    "mednode": OpenFiles(
        "https://www.cs.rug.nl/~imaging/databases/melanoma_naevi", ("complete_mednode_dataset.zip",)
    ),
    "hiba": Collection(251),
    "isic2019": OpenFiles(
        f"{_CHALLENGES}/2019",
        tuple(
            f"ISIC_2019_{part}_{what}"
            for part in ("Training", "Test")
            for what in ("GroundTruth.csv", "Metadata.csv", "Input.zip")
        ),
    ),
    "isic2020": OpenFiles(
        f"{_CHALLENGES}/2020",
        (
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "ISIC_2020_Training_Duplicates.csv",
            "ISIC_2020_Training_JPEG.zip",
        ),
    ),
    "milk10k": OpenFiles(
        f"{_CHALLENGES}/milk10k",
        tuple(
            f"MILK10k_Training_{what}"
            for what in ("GroundTruth.csv", "Metadata.csv", "Supplement.csv", "Input.zip")
        ),
    ),
    "kaggle1": Kaggle("hasnainjaved/melanoma-skin-cancer-dataset-of-10000-images"),
    "kaggle2": Kaggle("bhaveshmittal/melanoma-cancer-dataset"),
    # As a collection (390) these are 401,059 downloads instead of one.
    "isic2024": OpenFiles(
        f"{_CHALLENGES}/2024",
        (
            "ISIC_2024_Training_GroundTruth.csv",
            "ISIC_2024_Training_Supplement.csv",
            "ISIC_2024_Training_Input.zip",
        ),
    ),
}
"""Dataset -> how to get it without a person; the others need one."""


def run(names: Sequence[str], data: Path) -> None:
    """Download datasets by name; raise `InputError` for the first that stays incomplete."""
    from dermaflux.sources.registry import SOURCES

    for name in names:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise InputError(f"there is no dataset {name!r}; `dermaflux sources` lists {known}")
    if (data / "phantom.json").is_file():
        raise InputError(
            f"{data} holds the phantom corpus, which has datasets of the same names; name another "
            "folder with --data and set the parameter data to it"
        )
    work = project_root() / ".dermaflux" / "downloads"
    for name in names:
        print(download(SOURCES[name], ROUTES.get(name), data / name, work / name))


def download(source: Source, route: Route | None, folder: Path, work: Path) -> str:
    """Bring one dataset into `folder` and say how it went.

    Files on their way lie in `work`, which goes once the images declared by the adapter are there.
    """
    declared = sum(counts.images for counts in source.counts.values())
    there = images(source, folder)
    if there == declared:
        return f"{source.name}: all {declared:,} images are in {folder}"
    if route is None:
        have = f" ({there:,} of {declared:,} images are there)" if there else ""
        return f"{source.name} needs a person{have}: {source.command}; see {source.url}"
    _require_space(source, folder)
    _require_tool(route)
    # Only now: an empty folder of the dataset's name would stop `ingest`.
    folder.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(route, OpenFiles):
        _open_files(route, folder, work)
    else:
        step = _collection if isinstance(route, Collection) else _kaggle
        for _ in range(_ATTEMPTS):
            step(route, folder, work)  # type: ignore[arg-type]
            # isic-cli exits with 0 although images failed; a second call fetches those alone.
            if images(source, folder) >= declared:
                break
    there = images(source, folder)
    if there != declared:
        raise InputError(
            f"{folder} holds {there:,} images of {source.title}, but {declared:,} were published; "
            f"run `dermaflux download {source.name}` again or compare with {source.url}"
        )
    shutil.rmtree(work)
    return f"{source.name}: {declared:,} images in {folder}"


def images(source: Source, folder: Path) -> int:
    """Image files of a dataset that its adapter finds; 0 as long as its layout is incomplete."""
    if not folder.is_dir():
        return 0
    try:
        return sum(record.path is not None for record in source.read(folder))
    except InputError:
        return 0


def _require_space(source: Source, folder: Path) -> None:
    if source.bytes is None:
        return
    place = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free, needed = shutil.disk_usage(place).free, 2 * source.bytes
    if free < needed:
        raise InputError(
            f"{source.title} needs about {needed / 1e9:.1f} GB, packed and unpacked, but {place} "
            f"has {free / 1e9:.1f} GB free; name a folder on a larger disk with --data"
        )


def _open_files(route: OpenFiles, folder: Path, work: Path) -> None:
    for name in route.names:
        packed = name.endswith(".zip")
        target = (work if packed else folder) / name
        fetch(f"{route.base}/{name}", target, work)
        if packed:
            unpack(target, folder)


def _require_tool(route: Route) -> None:
    module = {Collection: "isic_cli", Kaggle: "kagglehub"}.get(type(route))
    if module and importlib.util.find_spec(module) is None:
        raise InputError(
            f"this download needs {module}, which is not installed; run "
            '`pip install "dermaflux[download]"`'
        )


def _collection(route: Collection, folder: Path, work: Path) -> None:
    """`isic image download`, without a login: the collections are public."""
    options = ["--guest", "--no-version-check", "image", "download"]
    command = [*_ISIC, *options, "--collections", str(route.number), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise InputError(
            f"isic-cli could not download collection {route.number} (exit status "
            f"{done.returncode}, see above); run the command again, it goes on where it stopped"
        )


def _kaggle(route: Kaggle, folder: Path, work: Path) -> None:
    """`kagglehub`, which resumes the archive in its cache; the files then move to `folder`."""
    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(work.resolve())
    try:
        import kagglehub

        found = _persistently(lambda: Path(kagglehub.dataset_download(route.handle)))
    except Exception as error:  # a dozen classes of its own and of requests
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"kagglehub could not download {route.handle} ({detail}); set KAGGLE_USERNAME and "
            "KAGGLE_KEY (kaggle.com, Settings, API) or run the command again"
        ) from None
    finally:
        if before is None:
            del os.environ["KAGGLEHUB_CACHE"]
        else:
            os.environ["KAGGLEHUB_CACHE"] = before
    for path in sorted(found.rglob("*")):
        target = folder / path.relative_to(found)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    # Its marker says complete, which an emptied folder no longer is.
    shutil.rmtree(work)
    work.mkdir()


def _persistently(get: Callable[[], Path]) -> Path:
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    for _ in range(_ATTEMPTS - 1):
        try:
            return get()
        except (ChunkedEncodingError, ConnectionError, Timeout) as error:
            print(f"the connection was cut ({type(error).__name__}); going on")
    return get()
