"""Which image of the corpus a name in a file of captions means. Pure.

A name is an image_id, the id or file name that the dataset published, or a path of any machine that
ends in one. The longest ending decides; for each, the exact spelling comes before one that differs
in case or Unicode form, and that before numbers which a spreadsheet rewrote (`7.0`, `007`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

_IMAGES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
    + (".heic", ".heif", ".avif", ".jp2", ".j2k", ".dcm", ".dicom", ".npy", ".npz")
)
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FRAGMENT = re.compile(r"#\d+$")  # Flickr8k numbers the captions of an image
_NUMBER = re.compile(r"^0*(\d+?)(?:\.0+)?$")

_Parts = tuple[str, ...]


def _parts(name: str) -> _Parts:
    r"""`a\b/c.jpg` -> ("a", "b", "c"), in the spelling given."""
    text = name.replace("\\", "/").strip().strip("\"'").strip()
    if _SCHEME.match(text):
        text = text.split("?")[0]
    path = PurePosixPath(_FRAGMENT.sub("", _SCHEME.sub("", text)))
    if path.suffix.lower() in _IMAGES:
        path = path.with_suffix("")
    return tuple(part for part in path.parts if part not in ("/", ".", ".."))


def _unchanged(parts: _Parts) -> _Parts:
    return parts


def _folded(parts: _Parts) -> _Parts:
    return tuple(unicodedata.normalize("NFC", part).casefold().strip() for part in parts)


def _numbered(parts: _Parts) -> _Parts:
    """With a last part that is a number written as an integer without leading zeros."""
    folded = _folded(parts)
    number = _NUMBER.match(folded[-1]) if folded else None
    return (*folded[:-1], number[1]) if number else folded


_SPELLINGS: tuple[Callable[[_Parts], _Parts], ...] = (_unchanged, _folded, _numbered)


class Names:
    """The images of a corpus, found by any ending of their image_id."""

    def __init__(self, image_ids: Iterable[str]) -> None:
        # Of each spelling, ending -> the image, or None where several images share it.
        self._indexes: tuple[dict[_Parts, str | None], ...] = ({}, {}, {})
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
