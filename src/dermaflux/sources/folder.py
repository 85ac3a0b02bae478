"""A team's own images in a folder tree whose folders are named after the label.

Reads images at any depth. The innermost folder that says benign or malignant (in any case, also as
a part such as ``Skin_Malignant``) gives the label, never the file name, and none where folders
disagree or cast doubt on it (see `folder_words`); below a folder called ``test``, in any of the
ways of `folder_parts`, images belong to the test part. Masks beside the photographs are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from dermaflux.core.file_names import without_suffix
from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Facts, Problem, Record, Source
from dermaflux.sources.folder_parts import mask, part_of
from dermaflux.sources.folder_words import FolderWords
from dermaflux.sources.reading.files import own_names, walk_images

LABELS = {"benign": "benign", "malignant": "malignant", "indeterminate": "indeterminate"}


def labels_of(own: OwnDataset) -> dict[str, str]:
    """Lower-case words and the labels they mean."""
    return LABELS | {word.lower(): label for word, label in own.labels.items()}


def source(own: OwnDataset) -> Source:
    """The adapter of one entry of `ingest.own` without a CSV file."""
    words = FolderWords(labels_of(own))

    label_of = cache(words.label_of)  # a folder holds many images

    def read(root: Path) -> Iterator[Record]:
        relative = (path.relative_to(root) for path in walk_images(root))
        for original, path in own_names(relative):
            folders = path.parts[:-1]
            label, part = label_of(folders), part_of(folders, own.split)
            problem = mask(folders, without_suffix(path.name))
            for result in (label, part):
                problem = problem or (result if isinstance(result, Problem) else None)
            facts = Facts(None if isinstance(label, Problem) else label, problem=problem)
            split = own.split if isinstance(part, Problem) else part
            yield Record(original, root / path, None, split, facts)

    return own_source(own, read)


def own_source(own: OwnDataset, read: Callable[[Path], Iterator[Record]]) -> Source:
    """A team's own dataset as a source, with what the parameters say about it."""
    return Source(
        name=own.name,
        title=own.name,
        licence=own.licence,
        modality=own.modality,
        citation="own images",
        url="",
        published_scale=own.scale,
        markers=(),
        claims=(),
        read=read,
        mapping="ingest.own.labels",
    )
