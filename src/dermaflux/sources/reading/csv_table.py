"""A team's own images with a CSV file, whose columns the parameter `ingest.own.columns` names.

Reads the CSV file and lists the folder at any depth. The image column holds file names, with or
without suffix, or paths where names repeat; `names` says which spellings match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dermaflux.core.file_names import without_suffix
from dermaflux.errors import one_line
from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Problem, Record, Source
from dermaflux.sources.folder import own_source
from dermaflux.sources.folder_parts import part_of
from dermaflux.sources.reading.files import ImageFile, join, walk_images
from dermaflux.sources.reading.own_values import OwnValues
from dermaflux.sources.reading.tables import read_csv


def source(own: OwnDataset) -> Source:
    """The adapter of one entry of `ingest.own` with a CSV file."""
    columns, table = own.columns, own.csv
    assert columns is not None  # `OwnDataset` requires both or neither
    assert table is not None

    def read(root: Path) -> Iterator[Record]:
        names = [getattr(columns, name) for name in type(columns).model_fields]
        rows = read_csv(root / table, filter(None, names))
        values = OwnValues(own, rows, one_line(root / table))
        images = (
            ImageFile(without_suffix(path.relative_to(root).as_posix()), path)
            for path in walk_images(root)
        )
        records = join(images, rows, columns.image, values.facts, own.split, "")
        for record in records:
            folders = record.path.relative_to(root).parts[:-1] if record.path else ()
            split = record.facts.split or part_of(folders, own.split)
            if isinstance(split, Problem):
                problem = record.facts.problem or split
                facts = replace(record.facts, problem=problem)
                yield replace(record, facts=facts, split=own.split)
            else:
                yield replace(record, split=split)

    return own_source(own, read)
