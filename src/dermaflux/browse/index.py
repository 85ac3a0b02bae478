"""The SQLite index that the page reads: built from shards and reports, kept while they stay.

Reads what `rows` reads; writes `.dermaflux/cache/browse/<fingerprint>/dermaflux.db` of the main
checkout. The fingerprint is that of the code here and of the inputs: of shards their footers, which
hold the seal of every column, so that no image is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from dermaflux import paths
from dermaflux.browse import rows
from dermaflux.browse.rows import Neighbour, Problems, Row
from dermaflux.core.files import atomic_folder
from dermaflux.errors import InputError

DATABASE = "dermaflux"
IMAGES = "images"
FACETS = (
    *("kind", "label", "source", "split", "skin_tone"),
    *("quarantine_rule", "audit_verdict"),
)
"""Columns whose values the page counts beside the table."""
SORTABLE = ("image_id", "group_size", "audit_ratio", "diagnosis", "scale", *FACETS)
_SCHEMA = Path(__file__).with_name("schema.sql")
_PLACE = ("file", "row_group", "position")
_SHOWN = tuple(name for name in Row._fields if name not in _PLACE)


def open_index() -> Path:
    """The index of what the working directory holds now, built where it is not there yet.

    Raises `InputError` when there is nothing to show.
    """
    if not _inputs():
        raise InputError(
            f"{paths.CORPUS}, {paths.SYNTHETIC} and {paths.QUARANTINE} are missing, so there is "
            "nothing to browse; run `dvc repro ingest`, or change to the folder of a run"
        )
    home = paths.project_root() / ".dermaflux" / "cache" / "browse"
    folder = home / _fingerprint()[:32]
    index = folder / f"{DATABASE}.db"
    if not index.is_file():
        print("browse: building the index of images, once per table", flush=True)
        with atomic_folder(folder) as partial:
            _build(partial / index.name)
        for old in home.iterdir():  # of a table that has changed; each takes as much as captions
            if old.is_dir() and old != folder and old.name[0] != ".":
                shutil.rmtree(old, ignore_errors=True)
    return index


def problems(index: Path) -> list[str]:
    """What could not be read when the index was built, each in one sentence."""
    with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return [sentence for (sentence,) in database.execute("select sentence from problems")]


def missing() -> list[str]:
    """What is not there to be shown, and the command that writes it, each in one sentence."""
    needed = (
        (paths.CORPUS, "ingest", "so no real image is shown"),
        (paths.SYNTHETIC, "synthesize", "so no synthetic image is shown"),
        (paths.CAPTIONS, "caption", "so real images have no caption"),
        (paths.QUARANTINE, "ingest", "so images that were left out are not shown"),
        (rows.NEAREST, "audit", "so synthetic images have no verdict and no nearest image"),
    )
    return [
        f"{path} is missing, {consequence}; `dvc repro {stage}` writes it."
        for path, stage, consequence in needed
        if not path.exists()
    ]


def _inputs() -> list[Path]:
    folders = (paths.CORPUS, paths.SYNTHETIC)
    shards = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    if not shards and not paths.QUARANTINE.is_file():
        return []
    shards += sorted(paths.CAPTIONS.glob("*.parquet"))
    tables = (paths.QUARANTINE, paths.LEAKS, rows.NEAREST)
    return [*shards, *(path for path in tables if path.is_file())]


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for code in (Path(__file__), Path(rows.__file__), _SCHEMA):
        digest.update(code.read_bytes())
    for path in _inputs():
        content = _footer(path) if path.suffix == ".parquet" else path.read_bytes()
        digest.update(json.dumps([path.as_posix(), len(content)]).encode() + content)
    return digest.hexdigest()


def _footer(path: Path) -> bytes:
    """Footer of a Parquet file: its length is in the last 8 bytes; of a damaged file its stamp."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        end = file.read()
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length + 8 > size:
            return f"{size} {path.stat().st_mtime_ns}".encode()
        file.seek(size - 8 - length)
        return file.read(length)


def _build(path: Path) -> None:
    told = Problems()
    captions, audited = rows.captions(told), rows.audited(told)
    all_rows = chain(
        rows.real(captions, told), rows.synthetic(audited, told), rows.quarantined(told)
    )
    with closing(sqlite3.connect(path)) as database:
        # Half an index is never opened: its folder appears whole.
        database.executescript("pragma journal_mode = off; pragma synchronous = off;")
        before, after = _SCHEMA.read_text(encoding="utf-8").split("-- After the rows.\n")
        database.executescript(before)
        _insert(database, all_rows)
        _insert_neighbours(database, audited.values())
        database.executescript(after)
        _check_audit(database, told)
        database.executemany("insert into problems values (?)", zip(told.sentences, strict=True))
        database.executescript("analyze;")
        database.commit()


def _insert(database: sqlite3.Connection, all_rows: Iterable[Row]) -> None:
    shown = len(_SHOWN)  # names of this module; values are bound
    images = f"insert into images (row, {', '.join(_SHOWN)}) values (?{', ?' * shown})"  # nosec
    for number, chunk in _chunks(all_rows):
        numbered = list(enumerate(chunk, number))
        database.executemany(images, ((index, *row[:shown]) for index, row in numbered))
        database.executemany(
            "insert into places values (?, ?, ?, ?)",
            ((index, *row[shown:]) for index, row in numbered if row.file is not None),
        )


def _chunks(all_rows: Iterable[Row], size: int = 10_000) -> Iterator[tuple[int, Sequence[Row]]]:
    """(number of the first row, from 1, and at most `size` rows)."""
    number, chunk = 1, []
    for row in all_rows:
        chunk.append(row)
        if len(chunk) == size:
            yield number, chunk
            number, chunk = number + size, []
    yield number, chunk


def _insert_neighbours(database: sqlite3.Connection, found: Iterable[Neighbour]) -> None:
    marks = ", ?" * len(Neighbour._fields)
    database.executemany(f"insert into neighbours values (null{marks})", found)  # nosec # marks


def _check_audit(database: sqlite3.Connection, told: Problems) -> None:
    """Tell of an audit that is of another pool than the one shown."""
    if not paths.SYNTHETIC.is_dir():
        return
    for sentence, query in (
        (
            "names {count:,} images, such as {example}, that {pool} does not hold",
            "select image_id from neighbours where image_id not in "
            "(select image_id from images where kind = 'synthetic')",
        ),
        (
            "says nothing of {count:,} images of {pool}, such as {example}",
            "select image_id from images where kind = 'synthetic' and audit_verdict is null "
            "and exists (select 1 from neighbours)",
        ),
    ):
        found = [name for (name,) in database.execute(query)]
        if found:
            text = sentence.format(count=len(found), example=found[0], pool=paths.SYNTHETIC)
            told.tell(f"{rows.NEAREST} {text}; run the stage audit again")
