"""Whether the files that DVC tracks have the bytes that `dvc.lock` says, here and in a remote.

DVC believes what it fetched where the remote does not say ``verify = true``, `dvc status` believes
that belief, and `dvc push` takes the files of a folder as pushed where the remote has the folder's
listing. This reads the bytes instead. Command: ``dermaflux verify [PATH ...] [--remote NAME]``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError, one_line
from dermaflux.progress import progress

_DOWNLOADS = 8  # at a time; their bytes are hashed as they come


@dataclass(frozen=True)
class Kept:
    """A file of an output, as `dvc.lock` has it."""

    output: Path
    """The file or folder that a stage or `data.dvc` names."""
    path: Path
    oid: str
    """MD5, with suffix `.dir` for a folder's listing, which lies in the cache alone."""

    @property
    def listing(self) -> bool:
        """Whether it is a folder's list of files."""
        return self.oid.endswith(".dir")


def run(paths: Collection[Path], remote: str | None, *, read: bool, repair: bool) -> None:
    """Hash what is here, or look into `remote`; print a line for each difference.

    `read` also downloads and hashes every object of the remote; `repair` uploads what is missing or
    damaged there from the cache. Raises `InputError` when something is not as it should be.
    """
    if (read or repair) and remote is None:
        raise InputError("--read and --repair apply to a remote; give --remote and its name")
    repository = _repository()
    if remote is None:
        _here(repository, list(_kept(repository, paths)))
        return
    with _answering(remote):
        odb = repository.cloud.get_remote_odb(remote, "verify")
        files = list(_kept(repository, paths, odb))
        _there(repository.cache.local, odb, files, remote, read=read, repair=repair)


def _repository() -> Any:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Repo()
    except NotDvcRepoError:
        raise InputError(
            f"{Path.cwd()} is not in a DVC repository; run the command in a clone"
        ) from None


def _kept(repository: Any, paths: Collection[Path], odb: Any = None) -> Iterator[Kept]:
    """Files of all outputs that lie in, or hold, one of `paths`; of all where there are none.

    What files a folder has is looked up in the cache, then in the remote `odb`.
    """
    wanted = [path.absolute() for path in paths]
    unmatched = set(wanted)
    for output in repository.index.outs:
        if not output.use_cache or not output.hash_info:
            continue
        whole = Path(output.fs_path)
        near = {p for p in wanted if p.is_relative_to(whole) or whole.is_relative_to(p)}
        if wanted and not near:
            continue
        unmatched -= near
        for each in _files(whole, output, odb):
            if not near or any(each.path.is_relative_to(p) or each.listing for p in near):
                yield each
    if unmatched:
        raise InputError(
            f"{min(unmatched)} is no output that dvc.lock knows; `dvc ls . -R --dvc-only` lists "
            "them"
        )


def _files(whole: Path, output: Any, odb: Any) -> Iterator[Kept]:
    from dvc_data.hashfile import load
    from dvc_objects.errors import ObjectFormatError

    yield Kept(whole, whole, output.hash_info.value)
    if not output.hash_info.isdir:
        return
    listing = output.get_obj()
    if listing is None and odb is not None:
        with suppress(FileNotFoundError, ObjectFormatError):  # told as missing or damaged
            listing = load(odb, output.hash_info)
    for key, _, info in listing or ():
        yield Kept(whole, whole.joinpath(*key), info.value)


def _md5(path: Path) -> str:
    from dvc_data.hashfile.hash import file_md5

    return file_md5(str(path))


def _here(repository: Any, files: Collection[Kept]) -> None:
    cache = repository.cache.local
    present = [each for each in files if each.output.exists() and not each.listing]
    absent = {each.output for each in files if not each.output.exists()}
    for output in sorted({each.output for each in files if each.output not in absent}):
        if output not in {each.output for each in present}:
            print(f"{_relative(output)} is not checked: its list of files is not in the cache")
    wrong = 0
    with progress("verify", len(present)) as advance:
        for each in present:
            advance(1)
            name = _relative(each.path)
            if not each.path.exists():
                wrong += 1
                print(f"{name} is missing: `dvc checkout {_relative(each.output)}` restores it")
                continue
            found = _md5(each.path)
            if found == each.oid:
                continue
            wrong += 1
            copy = Path(cache.oid_to_path(each.oid))
            print(
                f"{name} has other bytes than dvc.lock says (MD5 {found[:8]}, not {each.oid[:8]}): "
                f"{_way_out(each, copy)}"
            )
    left = f"; outputs that are not here: {len(absent)}" if absent else ""
    if wrong:
        raise InputError(
            f"{wrong:,} of {len(present):,} files are not as dvc.lock says{left}; each is named "
            "above with the command that restores it"
        )
    print(f"verify: {len(present):,} files have the bytes that dvc.lock says{left}")


def _way_out(each: Kept, copy: Path) -> str:
    output = _relative(each.output)
    if copy.exists() and _md5(copy) == each.oid:
        return f"it was edited; `dvc checkout --force {output}` restores what dvc.lock has"
    return (
        "it was damaged in transit or on this disk; restore it with "
        f"`rm -f {_relative(each.path)} {_relative(copy)} && dvc pull --force {output}`, "
        "with `verify = true` set for the remote"
    )


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _there(
    cache: Any, odb: Any, files: Collection[Kept], remote: str, *, read: bool, repair: bool
) -> None:
    by_oid = {each.oid: each for each in files}
    # Asked of the store itself, not of DVC's index of what it pushed.
    stored = set(odb.oids_exist(list(by_oid)))
    wrong = {oid: "missing" for oid in by_oid if oid not in stored}
    if read:
        wrong |= dict.fromkeys(_damaged(odb, sorted(stored)), "damaged")
    repaired = 0
    for oid, what in wrong.items():
        done = repair and _upload(cache, odb, oid)
        repaired += done
        end = ": uploaded from the cache" if done else ""
        print(f"{_relative(by_oid[oid].path)} ({oid}) is {what} in {remote}{end}")
    if len(wrong) > repaired:
        raise InputError(
            f"{len(wrong) - repaired:,} of {len(by_oid):,} objects are not whole in the remote "
            f"{remote}; run `dermaflux verify --remote {remote} --repair` in a clone whose cache "
            "has them, with --read where they are damaged"
        )
    how = "have the bytes that dvc.lock says" if read else "are there (--read hashes their bytes)"
    print(f"verify: {len(by_oid):,} objects of {remote} {how}; {repaired:,} were uploaded")


@contextmanager
def _answering(remote: str) -> Iterator[None]:
    from dvc.config import RemoteNotFoundError

    try:
        yield
    except InputError:
        raise
    except RemoteNotFoundError as error:
        raise InputError(f"{error}; name one that `dvc remote list` shows") from None
    except Exception as error:  # whatever the library of that kind of remote raises
        raise InputError(
            f"the remote {remote} cannot be used ({one_line(error, 200) or type(error).__name__}); "
            f"correct its address and credentials with `dvc remote modify {remote}`, or try again"
        ) from None


def _damaged(odb: Any, oids: Collection[str]) -> Iterator[str]:
    """Those whose object has other bytes; reads every object, several at a time."""
    from dvc_data.hashfile.hash import file_md5

    def digest(oid: str) -> tuple[str, str]:
        return oid, file_md5(odb.oid_to_path(oid), odb.fs)

    with ThreadPoolExecutor(_DOWNLOADS) as pool, progress("verify", len(oids)) as advance:
        for oid, found in pool.map(digest, oids):
            advance(1)
            if found != oid.removesuffix(".dir"):
                yield oid


def _upload(cache: Any, odb: Any, oid: str) -> bool:
    """Put a whole object of the cache where the remote has none or a damaged one."""
    source = Path(cache.oid_to_path(oid))
    if not source.exists() or _md5(source) != oid.removesuffix(".dir"):
        return False
    target = odb.oid_to_path(oid)
    if odb.fs.exists(target):
        odb.fs.remove(target)
    odb.add(str(source), cache.fs, oid, check_exists=False)
    return True
