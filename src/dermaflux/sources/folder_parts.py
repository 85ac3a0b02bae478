"""What the names of folders say about the part of the images below them, and about masks. Pure.

A test image that gets into training spoils every figure in silence, so a name with a word for test
(``Test set``, ``Test_Malignant``, ``ISIC_test``, ``Testdaten``) makes the images below it test
images, and one that may mean either is no part at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from dermaflux.core import vocabulary
from dermaflux.core.vocabulary import DOUBTS
from dermaflux.errors import quoted
from dermaflux.sources.adapter import Problem, Split
from dermaflux.sources.folder_words import PLAIN

_WORD = re.compile(r"[^\W\d_]+")
_EITHER = frozenset(("eval", "evaluation", "evaluating"))
"""Words for a test part and for a validation part, in about as many datasets each."""
_MASK_WORDS = "masks?|segmentations?|segmented|seg|superpixels?|heatmaps?|grad-?cam|annotations?"
_MASK_FILE = re.compile(rf"(?:.*[\W_])?(?:{_MASK_WORDS})(?:[\W_]*\d+)?", re.IGNORECASE | re.DOTALL)
_MASK_FOLDER = re.compile(
    rf"(?:.*[\W_])?(?:{_MASK_WORDS}|ground[\W_]?truths?)(?:[\W_]+(?:images?|imgs?|png|\d+))*",
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=1 << 12)  # a folder holds many images
def part_of(folders: tuple[str, ...], default: Split) -> Split | Problem:
    """`test` below a folder whose name has a word for test; a `Problem` where it is in doubt.

    A name that is nothing but a word for a part outweighs the names around it, as in
    ``train_test_split/train``, and of several such names one for test outweighs the others.
    """
    whole = [vocabulary.part(name) for name in folders]
    if "test" in whole:
        return "test"
    inner = max((depth for depth, part in enumerate(whole) if part), default=-1) + 1
    for name in folders[inner:]:
        words = _WORD.findall(unicodedata.normalize("NFC", name).casefold())
        parts = {vocabulary.part(word) for word in words} - {None}
        if "test" in parts and (inner or "train" in parts or not DOUBTS.isdisjoint(words)):
            return _unclear(name, "has a word for test beside others that may change it")
        if "test" in parts:
            return "test"
        if not inner and not _EITHER.isdisjoint(words) and PLAIN.union(_EITHER).issuperset(words):
            return _unclear(name, "may mean a test or a validation part")
    return default


def test_folder(folders: Sequence[str]) -> str | None:
    """The outermost folder that makes test images; None where none does."""
    return next((name for name in folders if part_of((name,), "train") == "test"), None)


def _unclear(name: str, what: str) -> Problem:
    reason = f"its folder {quoted(name)} {what}; rename it to train, validation or test"
    return Problem("ambiguous-folder", reason)


def mask(folders: Sequence[str], stem: str) -> Problem | None:
    """A `Problem` where a file is a mask or a drawing of a photograph by its name or folder."""
    found = next((name for name in folders if _MASK_FOLDER.fullmatch(name)), None)
    if found is None and not _MASK_FILE.fullmatch(stem):
        return None
    where = f"its folder {quoted(found)}" if found else f"its name {quoted(stem)}"
    reason = f"{where} says that it is a mask and no photograph; rename it if it is one"
    return Problem("mask", reason)
