"""Rows that others measured: `leaderboard.json` files, checked before they are shown.

Reads what `dermaflux results --submission` names; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from dermaflux.errors import InputError, one_line, quoted
from dermaflux.sweeps.leaderboard import protocol, schema
from dermaflux.sweeps.leaderboard.schema import Entry, Leaderboard

_LARGEST = 2_000_000  # bytes; a board of ten pools has 10,000
_MOST = 200


def files(names: Sequence[Path]) -> list[Path]:
    """The files named, and those in a folder that is named; raise `InputError` where none is."""
    found: list[Path] = []
    for name in names:
        inside = sorted(name.glob("*.json")) if name.is_dir() else [name]
        if not inside:
            raise InputError(f"{quoted(str(name))} holds no .json file; name a submission")
        found += inside
    if len(found) > _MOST:
        raise InputError(f"{len(found):,} submissions are named of at most {_MOST}; name fewer")
    return list(dict.fromkeys(found))


def read(path: Path) -> Leaderboard:
    """A file of the schema; raise `InputError` that says what is wrong with it."""
    name = quoted(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason}); name a leaderboard.json") from None
    if len(content) > _LARGEST:
        raise InputError(
            f"{name} has more than {_LARGEST:,} bytes; submit the leaderboard.json that "
            "`dermaflux results` wrote"
        )
    try:
        return Leaderboard.model_validate_json(content)
    except ValidationError as error:
        _check_version(name, content)
        first = error.errors()[0]
        where = one_line(".".join(str(part) for part in first["loc"]), 200)
        problem = one_line(first["msg"].removeprefix("Value error, "), 300)
        raise InputError(
            f"{name} is no submission ({where + ': ' if where else ''}{problem}); correct it by "
            "docs/leaderboard.md"
        ) from None


def _check_version(name: str, content: bytes) -> None:
    try:
        version = json.loads(content)["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if version != schema.VERSION:
        raise InputError(
            f"{name} has the schema {quoted(version)} and this version of DermaFlux reads "
            f"{schema.VERSION!r}; write it again with this version"
        )


def entries(path: Path, ours: Leaderboard) -> list[Entry]:
    """What a submission measured, as rows of our page.

    Raises `InputError` for another protocol or test split, for results of other architectures, and
    for a pool that is on the page already.
    """
    name, theirs = quoted(str(path)), read(path)
    if theirs.protocol.hash != ours.protocol.hash:
        difference = protocol.differs(ours.protocol.parameters, theirs.protocol.parameters)
        raise InputError(
            f"{name} is of another protocol ({one_line(difference, 300)}); run the grid "
            "with the parameters of this page"
        )
    if theirs.test != ours.test:
        raise InputError(
            f"{name} was tested on another test split ({theirs.test.images:,} images, hash "
            f"{theirs.test.hash[:12]}, and here {ours.test.images:,}, {ours.test.hash[:12]}); run "
            "the grid on the same corpus"
        )
    if (theirs.real, theirs.synthetic, theirs.confidence) != (
        ours.real, ours.synthetic, ours.confidence
    ):  # fmt: skip
        raise InputError(
            f"{name} says {theirs.real:,} real and {theirs.synthetic:,} synthetic images at "
            f"confidence {theirs.confidence:g}, and its protocol {ours.real:,}, {ours.synthetic:,} "
            f"and {ours.confidence:g}; correct the file"
        )
    measured = [entry for entry in theirs.entries if entry.state == "measured"]
    if not measured:
        raise InputError(f"{name} has no row that was measured; submit a finished grid")
    expected = {row.architecture for entry in ours.entries for row in entry.results}
    for entry in measured:
        _check_new(name, entry, ours, expected)
    return [
        entry.model_copy(update={"state": "submitted", "reason": path.name[:500]})
        for entry in measured
    ]


def _check_new(name: str, entry: Entry, ours: Leaderboard, expected: set[str]) -> None:
    for other in ours.entries:
        if other.state == "not run":
            continue
        if entry.pool_hash and entry.pool_hash == other.pool_hash:
            raise InputError(
                f"{name}: the images of {quoted(entry.pool)} are those of {quoted(other.pool)}, by "
                "their hash, which is on the page; leave the file out"
            )
        if entry.pool == other.pool:
            raise InputError(
                f"{name}: a pool called {quoted(entry.pool)} is on the page already; give the "
                "submitted one another name"
            )
    found = {row.architecture for row in entry.results}
    if found != expected:
        raise InputError(
            f"{name}: {quoted(entry.pool)} has results of {', '.join(sorted(found))} and the page "
            f"is of {', '.join(sorted(expected))}; submit all of them"
        )


def accept(paths: Sequence[Path], ours: Leaderboard) -> tuple[list[Entry], list[str]]:
    """Rows of the submissions that can be shown, and a sentence for each that cannot."""
    accepted: list[Entry] = []
    refused = []
    for path in paths:
        shown = ours.model_copy(update={"entries": [*ours.entries, *accepted]})
        try:
            accepted += entries(path, shown)
        except InputError as error:
            refused.append(one_line(error))
    return accepted, refused
