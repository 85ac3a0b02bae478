"""Command ``dermaflux download NAME...``: published datasets into the data folder.

Reads the network; writes `<data>/<name>/` in the published layout and, while it runs,
`.dermaflux/downloads/<name>/` of the main checkout. Open files come by HTTP, archive collections by
`isic-cli`, Kaggle datasets by `kagglehub` (extra `download`); for the rest the instructions are
printed. Every route resumes where it was interrupted, and the adapter then counts the images.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dermaflux.download.transfer import fetch, unpack
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.sources.adapter import Collection, KaggleDataset, OpenFiles, Route, Source

_ISIC = (sys.executable, "-m", "isic_cli.cli")
_ATTEMPTS = 4  # of a tool that loses single images or its connection


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
        print(download(SOURCES[name], data / name, work / name))


def download(source: Source, folder: Path, work: Path) -> str:
    """Download one dataset into `folder`; return one sentence that says how it went.

    Partial files are in `work`, which is removed once all images that the adapter declares are
    there. Raises `InputError` when some stay missing.
    """
    route = source.download
    declared = sum(counts.images for counts in source.counts.values())
    present = images(source, folder)
    if present == declared:
        return f"{source.name}: all {declared:,} images are in {folder}"
    if route is None:
        so_far = f" ({present:,} of {declared:,} images are there)" if present else ""
        return f"{source.name} must be fetched by hand{so_far}: {source.command}; see {source.url}"
    _require_space(source, folder)
    _require_tool(route)
    # Only now: an empty folder of the dataset's name would stop `ingest`.
    folder.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(route, OpenFiles):
        _open_files(route, folder, work)
    else:
        for _ in range(_ATTEMPTS):
            if isinstance(route, Collection):
                _collection(route, folder)
            else:
                _kaggle(route, folder, work)
            # isic-cli exits with 0 although images failed; a second call fetches those alone.
            if images(source, folder) >= declared:
                break
    present = images(source, folder)
    if present != declared:
        raise InputError(
            f"{folder} holds {present:,} images of {source.title}, but {declared:,} were "
            f"published; run `dermaflux download {source.name}` again or compare with {source.url}"
        )
    shutil.rmtree(work)
    return f"{source.name}: {declared:,} images in {folder}"


def images(source: Source, folder: Path) -> int:
    """Image files of a dataset that its adapter reads; 0 while its layout is incomplete."""
    if not folder.is_dir():
        return 0
    try:
        return sum(record.path is not None for record in source.read(folder))
    except InputError:
        return 0


def _require_space(source: Source, folder: Path) -> None:
    if source.bytes is None:
        return
    disk = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free, needed = shutil.disk_usage(disk).free, 2 * source.bytes
    if free < needed:
        raise InputError(
            f"{source.title} needs about {needed / 1e9:.1f} GB, packed and unpacked, but {disk} "
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
    module = {Collection: "isic_cli", KaggleDataset: "kagglehub"}.get(type(route))
    if module and importlib.util.find_spec(module) is None:
        raise InputError(
            f"this download needs {module}, which is not installed; run "
            '`pip install "dermaflux[download]"`'
        )


def _collection(route: Collection, folder: Path) -> None:
    """`isic image download`, without a login: the collections are public."""
    options = ["--guest", "--no-version-check", "image", "download"]
    command = [*_ISIC, *options, "--collections", str(route.number), str(folder)]
    # The folder is the last argument, and no shell reads it.
    process = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # nosec B603
    if process.returncode:
        raise InputError(
            f"isic-cli could not download collection {route.number} (exit status "
            f"{process.returncode}, see above); run the command again to resume it"
        )


def _kaggle(route: KaggleDataset, folder: Path, work: Path) -> None:
    """`kagglehub`, which resumes the archive in its cache; the files are then moved to `folder`."""
    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(work.resolve())
    try:
        import kagglehub

        downloaded = _retrying(lambda: Path(kagglehub.dataset_download(route.handle)))
    except Exception as error:  # a dozen classes, its own and those of requests
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
    for path in sorted(downloaded.rglob("*")):
        target = folder / path.relative_to(downloaded)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    # kagglehub's marker says complete, which the emptied folder no longer is.
    shutil.rmtree(work)
    work.mkdir()


def _retrying(get: Callable[[], Path]) -> Path:
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    for _ in range(_ATTEMPTS - 1):
        try:
            return get()
        except (ChunkedEncodingError, ConnectionError, Timeout) as error:
            print(f"the connection was cut ({type(error).__name__}); resuming")
    return get()
