"""Artefact locations in the local store of a checkout that was renamed, copied or mounted anew.

MLflow stores absolute locations only. Reads and writes `mlruns/mlflow.db` with SQLite itself, since
MLflow cannot change the location of an existing experiment, run or version.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from dermaflux.errors import InputError, quoted

_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_INSIDE = "/mlruns/artifacts"


def follow(database: Path, root: Path) -> None:
    """Let every location that ends in `mlruns/artifacts/...` name the checkout `root`.

    Artefacts that are only at the old place, as when the database alone was copied, are read there
    still; new ones are never written there. Raises `InputError` for a database that cannot be
    read or changed.
    """
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            changes = _changes(connection, root)
            for table, column, row, _, new in changes:
                update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # nosec # _LOCATIONS
                connection.execute(update, (new, row))
    except sqlite3.Error as error:
        raise InputError(
            f"the MLflow store {database} cannot be read or changed ({error}); make it writable, "
            "restore it, or move it away: the next stage makes a new one"
        ) from None
    if changes:
        old_roots = {old.partition(_INSIDE)[0].removeprefix("file://") for *_, old, _ in changes}
        print(
            f"tracking: this checkout was at {', '.join(map(quoted, sorted(old_roots)[:3]))}; "
            f"{len(changes):,} artefact locations in {database} name {root} now",
            file=sys.stderr,
            flush=True,
        )


def _changes(connection: sqlite3.Connection, root: Path) -> list[tuple[str, str, int, str, str]]:
    """Table, column, row, old and new value."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    present = {name for (name,) in connection.execute(query)}
    here = [str(root) + _INSIDE, root.as_uri() + _INSIDE]
    changes = []
    for table, column in _LOCATIONS:
        if table not in present:  # a store of an earlier MLflow
            continue
        rows = connection.execute(  # names are those of _LOCATIONS
            f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%mlruns_artifacts%'"  # nosec
            f" AND substr({column}, 1, ?) != ? AND substr({column}, 1, ?) != ?",
            (len(here[0]), here[0], len(here[1]), here[1]),
        )
        for row, old in rows.fetchall():
            new = moved(old, root, keep_readable=table != "experiments")
            if new is not None:
                changes.append((table, column, row, old, new))
    return changes


def moved(location: str, root: Path, keep_readable: bool) -> str | None:
    """The location within the checkout `root`; None where it stays as it is.

    With `keep_readable` it stays where artefacts are there and not in `root`.
    """
    uri = location.startswith("file:")
    windows = re.match(r"[A-Za-z]:[\\/]", location) is not None
    if uri:
        path = url2pathname(urlparse(location).path).replace("\\", "/")
    elif location.startswith("/") or windows:
        path = location.replace("\\", "/") if windows else location
    else:  # models:/..., s3://... or an address of a server
        return None
    before, inside, rest = path.rpartition(_INSIDE)
    if not inside or (rest and not rest.startswith("/")):
        return None
    # A folder of another user counts as absent.
    if Path(before) == root or (os.path.isdir(before) and os.path.samefile(before, root)):
        return None
    new = root / _INSIDE[1:] / rest[1:]
    if keep_readable and os.path.exists(path) and not new.exists():
        return None
    return new.as_uri() if uri else str(new)
