"""Which image of the corpus a name in a file of captions means. Pure.

A name is an image_id, the id or file name that the dataset published, or a path of any machine that
ends in one. The longest ending decides; for each, the exact spelling comes before one that differs
in case or Unicode form, and that before numbers which a spreadsheet rewrote (`7.0`, `007`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from dermaflux.core.file_names import (
    IMAGE_SUFFIXES,
    Parts,
    parts,
    plain,
    without_suffix,
    without_zeros,
)

_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".npz"}
_FRAGMENT = re.compile(r"#\d+$")  # Flickr8k numbers the captions of an image


def _parts(name: str) -> Parts:
    r"""`a\b/c.jpg` -> ("a", "b", "c"), in the spelling given."""
    path = parts(name)
    return (*path[:-1], without_suffix(_FRAGMENT.sub("", path[-1]), _SUFFIXES)) if path else ()


def _unchanged(path: Parts) -> Parts:
    return path


def _folded(path: Parts) -> Parts:
    return tuple(map(plain, path))


def _numbered(path: Parts) -> Parts:
    """With a last part that is a number written as an integer without leading zeros."""
    folded = _folded(path)
    return (*folded[:-1], without_zeros(folded[-1]) or folded[-1]) if folded else ()


_SPELLINGS: tuple[Callable[[Parts], Parts], ...] = (_unchanged, _folded, _numbered)


class Names:
    """The images of a corpus, found by any ending of their image_id."""

    def __init__(self, image_ids: Iterable[str]) -> None:
        # Of each spelling, ending -> the image, or None where several images share it.
        self._indexes: tuple[dict[Parts, str | None], ...] = ({}, {}, {})
        for image_id in image_ids:
            parts = _parts(image_id)
            for index, spelled in zip(self._indexes, _SPELLINGS, strict=True):
                spelling = spelled(parts)
                for start in range(len(spelling)):
                    ending = spelling[start:]
                    shared = index.get(ending, image_id) != image_id
                    index[ending] = None if shared else image_id

    def find(self, name: str) -> tuple[str | None, bool]:
        """The image that a name means or None, and whether the name fits several images."""
        parts = _parts(name)
        spellings = [spelled(parts) for spelled in _SPELLINGS]
        for start in range(len(parts)):
            for index, spelling in zip(self._indexes, spellings, strict=True):
                if spelling[start:] in index:
                    image_id = index[spelling[start:]]
                    return image_id, image_id is None
        return None, False
