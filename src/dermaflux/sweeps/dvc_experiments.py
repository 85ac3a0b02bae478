"""Finished experiments of DVC, read from git and DVC's cache; the workspace stays as it is."""

from __future__ import annotations

import subprocess
from typing import IO, Any

from dermaflux.errors import InputError
from dermaflux.sweeps.grid import Run


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        problem = " ".join(done.stderr.split())
        raise InputError(
            f"git {arguments[0]} failed ({problem}); run the command in a git repository with a "
            "commit"
        )
    return done.stdout


def commit(revision: str) -> str:
    """Full hash of a commit; raise `InputError` when git knows none of that name."""
    return _git("rev-parse", "--verify", f"{revision}^{{commit}}").strip()


def experiments(baseline: str) -> dict[str, str]:
    """Name -> commit of the finished experiments that started from a commit."""
    # DVC keeps them as refs/exps/<two digits>/<the rest of the baseline>/<name>.
    prefix = f"refs/exps/{baseline[:2]}/{baseline[2:]}/"
    listing = _git("for-each-ref", "--format=%(refname) %(objectname)", prefix)
    rows = (line.split() for line in listing.splitlines())
    return {name.removeprefix(prefix): revision for name, revision in rows}


def baseline(runs: list[Run]) -> str:
    """The newest commit of HEAD's history from which an experiment of the grid started."""
    wanted = {run.name for run in runs}
    listing = _git("for-each-ref", "--format=%(refname)", "refs/exps/")
    starts = set()
    for name in listing.splitlines():
        parts = name.split("/")
        if len(parts) == 5 and parts[4] in wanted:
            starts.add(parts[2] + parts[3])
    for revision in _git("rev-list", "HEAD").split():
        if revision in starts:
            return revision
    raise InputError(
        f"none of the grid's {len(runs)} experiments is finished; queue them, then run "
        "`dvc queue start`"
    )


class Files:
    """Files of one experiment, those in git and those in DVC's cache alike."""

    def __init__(self, revision: str) -> None:
        from dvc.api import DVCFileSystem

        self._files = DVCFileSystem(".", rev=revision)

    def text(self, path: str) -> str:
        """A small file as text; raise `InputError` when the experiment has none."""
        with self.open(path) as file:
            return str(file.read().decode("utf-8"))

    def open(self, path: str) -> IO[Any]:
        """A file opened for reading bytes; raise `InputError` when it is not to be had."""
        try:
            opened: IO[Any] = self._files.open(path, "rb")
        except FileNotFoundError:
            raise InputError(
                f"the experiment has no {path}, or DVC's cache lacks it; run `dvc exp pull` or "
                "queue the experiment again"
            ) from None
        return opened
