"""Rows of the index: one per image of corpus/ and synthetic/, one per line of the quarantine table.

Reads shards (every column but the images), captions/ and reports/. What cannot be read becomes a
sentence among the problems, and the rest stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import read_csv
from dermaflux.errors import InputError, sentence_for

REAL, SYNTHETIC, QUARANTINED = "real", "synthetic", "quarantined"
NEAREST = paths.AUDIT_FIGURES / "nearest.csv"
_STORED = (
    *("image_id", "source", "label", "diagnosis", "split", "skin_tone", "scale", "licence"),
    *("duplicate_group", "generator", "prompt"),
)
_KEPT = re.compile(r"it shows the same image as (.+), which is kept")
_CONFLICT = re.compile(r"copies of one image carry two labels: (.+?) is (?:benign|malignant),")


class Row(NamedTuple):
    """One line of the table `images`, and where its pixels are."""

    image_id: str | None
    kind: str
    """`real`, `synthetic` or `quarantined`."""
    label: str | None = None
    source: str | None = None
    split: str | None = None
    skin_tone: str | None = None
    quarantine_rule: str | None = None
    audit_verdict: str | None = None
    """`kept`, or `rejected: ` and the rule; of synthetic images that were audited."""
    duplicate_group: str | None = None
    audit_ratio: float | None = None
    """The audit's distance ratio: below `audit.memorisation_ratio` an image is too near."""
    diagnosis: str | None = None
    scale: int | None = None
    licence: str | None = None
    generator: str | None = None
    caption: str | None = None
    """Of a real image; a synthetic one has the prompt it was made from."""
    quarantine_reason: str | None = None
    file: str | None = None
    """The shard, or the file below the data folder."""
    row_group: int | None = None
    position: int | None = None
    """Within the row group."""


class Neighbour(NamedTuple):
    """What the audit found beside a synthetic image."""

    image_id: str
    nearest_id: str | None
    distance: float | None
    ratio: float | None
    original_id: str | None
    correlation: float | None
    verdict: str


@dataclass
class Problems:
    """What could not be read, each in one sentence, for the top of the page."""

    sentences: list[str] = field(default_factory=list)

    def tell(self, sentence: str) -> None:
        """Keep a sentence once."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)


def real(captions: Mapping[str, str], problems: Problems) -> Iterator[Row]:
    """Rows of corpus/."""
    for values, place in _shard_rows(paths.CORPUS, problems):
        image_id = values["image_id"]
        yield Row(kind=REAL, caption=captions.get(image_id), **_facts(values), **place)


def synthetic(audited: Mapping[str, Neighbour], problems: Problems) -> Iterator[Row]:
    """Rows of synthetic/, each with what the audit says of it."""
    for values, place in _shard_rows(paths.SYNTHETIC, problems):
        verdict = audited.get(values["image_id"])
        yield Row(
            kind=SYNTHETIC,
            caption=values["prompt"],
            audit_verdict=verdict and verdict.verdict,
            audit_ratio=verdict and verdict.ratio,
            **_facts(values),
            **place,
        )


def _facts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _STORED if name != "prompt"}


def quarantined(problems: Problems) -> Iterator[Row]:
    """Rows of the quarantine table.

    `duplicate_group` names an image of the same group, since the table does not hold the group.
    """
    if not paths.QUARANTINE.is_file():
        return
    names = ("source", "location", "image_id", "rule", "reason")
    lines = _read(paths.QUARANTINE, "ingest", names, problems)
    tests = {
        line["image_id"]: line["test_image"]
        for line in _read(paths.LEAKS, "ingest", ("image_id", "test_image", "tie"), problems)
        if line["tie"] in ("duplicate group", "published list")
    }
    for line in lines:
        reason = line["reason"] or ""
        copy = _KEPT.search(reason) or _CONFLICT.search(reason)
        yield Row(
            image_id=line["image_id"],
            kind=QUARANTINED,
            source=line["source"],
            quarantine_rule=line["rule"],
            quarantine_reason=reason,
            duplicate_group=copy[1] if copy else tests.get(line["image_id"]),
            file=line["location"],
        )


def captions(problems: Problems) -> dict[str, str]:
    """image_id -> caption; empty before the stage `caption` has run."""
    if not paths.CAPTIONS.is_dir():
        return {}
    found: dict[str, str] = {}
    for path in _shards(paths.CAPTIONS, problems):
        rows = _checked(path, ("image_id", "caption"), problems)
        if rows is not None:
            found.update(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    return found


def audited(problems: Problems) -> dict[str, Neighbour]:
    """image_id -> what the audit found; empty before the stage `audit` has run."""
    if not NEAREST.is_file():
        return {}
    names = ("image_id", "nearest_id", "original_id", "reason", "rejected")
    lines = _read(NEAREST, "audit", names, problems, ("distance", "ratio", "correlation"))
    return {
        line["image_id"]: Neighbour(
            line["image_id"],
            line["nearest_id"],
            line["distance"],
            line["ratio"],
            line["original_id"],
            line["correlation"],
            f"rejected: {line['reason']}" if line["rejected"] == "True" else "kept",
        )
        for line in lines
    }


def _read(
    path: Path,
    stage: str,
    texts: Sequence[str],
    problems: Problems,
    numbers: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Lines of a CSV file that a stage wrote; none where it cannot be read, which is told."""
    if not path.is_file():
        return []
    try:
        rows = read_csv(
            path, f"the stage {stage}", (), texts, keep_default_na=False, na_values=[""]
        )
        rows = rows.astype(dict.fromkeys(numbers, float))
    except InputError as error:
        problems.tell(str(error))
        return []
    except (KeyError, ValueError):
        problems.tell(f"{path} has other columns than the stage {stage} writes; run it again")
        return []
    rows = rows.astype(object).where(rows.notna(), None)
    return [{str(name): value for name, value in line.items()} for line in rows.to_dict("records")]


def _shards(folder: Path, problems: Problems) -> list[Path]:
    """Shards of a folder; those that are there where some are missing, which is told."""
    try:
        return table.shards(folder)
    except InputError as error:
        problems.tell(str(error))
        return sorted(path for path in folder.glob("*.parquet") if path.name[0] != ".")


def _shard_rows(
    folder: Path, problems: Problems
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(values, place) of every row of the shards that are whole."""
    for path in _shards(folder, problems) if folder.is_dir() else []:
        rows = _checked(path, _STORED, problems)
        if rows is None:
            continue
        places = _places(path)
        columns = [rows[name].to_pylist() for name in _STORED]
        for values, (group, position) in zip(zip(*columns, strict=True), places, strict=True):
            place = {"file": path.as_posix(), "row_group": group, "position": position}
            yield dict(zip(_STORED, values, strict=True)), place


def _places(path: Path) -> Iterator[tuple[int, int]]:
    about = pq.read_metadata(path)
    for group in range(about.num_row_groups):
        for position in range(about.row_group(group).num_rows):
            yield group, position


def _checked(path: Path, columns: Sequence[str], problems: Problems) -> pa.Table | None:
    """Columns of one shard; None for one that is damaged or was edited, which is told."""
    try:
        table.check_shard(path)
        return pq.read_table(path, columns=list(columns)).select(list(columns))
    except (InputError, OSError) as error:
        problems.tell(sentence_for(error) or f"{path} cannot be read; run the stage again")
    except (KeyError, pa.ArrowException):
        problems.tell(
            f"{path} lacks one of the columns {', '.join(columns)}, so an earlier version wrote "
            "it; run the stage that writes it again"
        )
    return None
