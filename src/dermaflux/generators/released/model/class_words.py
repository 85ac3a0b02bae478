"""Which class a path names. Pure.

`benign` and `malignant` count as words of a folder or of a file's name, and only beside words that
leave them as they are: ``no_malignant``, ``pre-malignant`` or ``benign-looking`` name no class. No
list of negations is complete, so an unknown word makes a name unclear, until a folder around it
says the same class.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from dermaflux.core.vocabulary import CLASSES, DOUBTS, NEGATIONS, UNCERTAINTIES

_WORD = re.compile(r"[^\W\d_]+")
_SIGN = re.compile(r"[?!~=\u2212]|^[\W_]*[-+]|[-+][\W_]*$|\([-+]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PLAIN = _set(
    "a all and at by for from in of on the to with class classes label category group type set "
    "subset part split fold batch series train training image images img imgs pic pics picture "
    "pictures photo photos jpg jpeg png webp zip case cases sample samples example examples copy "
    "lesion lesions skin mole moles tumor tumors tumour tumours cancer derm dermatology dermoscopy "
    "dermoscopic clinical synthetic synth generated fake artificial gen generator output outputs "
    "pool released seed step steps epoch scale px final new nevus nevi naevus naevi melanoma "
    "melanomas keratosis carcinoma positive positives labels"
)
"""Words that leave a class as it is."""
_CONTRARY = {
    "benign": _set("melanoma melanomas carcinoma"),
    "malignant": _set("nevus nevi naevus naevi keratosis"),
}
_DENIALS = (
    NEGATIONS
    | UNCERTAINTIES
    | _set("excluding except unlabelled unlabeled wrong rejected discarded")
)
"""Words that turn or weaken a class, also as the name of a folder in or around it."""
_DOUBTS = DOUBTS | _DENIALS | _set("looking mimics")
"""Words that turn or weaken the class beside them."""


@dataclass(frozen=True, slots=True)
class _Part:
    classes: frozenset[str]
    doubts: frozenset[str]
    """Words and signs known to change a class, and longer words that contain one."""
    unknown: frozenset[str]


def labels_in(path: str) -> set[str]:
    """Classes that a relative path names, with the words that make them unclear.

    A set of one holds a class; an empty one says that no part of the path names any.
    """
    *folders, name = re.split(r"[/\\]+", unicodedata.normalize("NFC", path))
    parts = [_part(folder, is_folder=True) for folder in folders]
    parts.append(_part(name, is_folder=False))
    clear = {label for part in parts if not part.doubts | part.unknown for label in part.classes}
    classes = {label for part in parts for label in part.classes}
    if not classes:
        return set()
    doubts = {word for part in parts for word in part.doubts}
    unconfirmed = {
        word for part in parts if part.classes and part.classes != clear for word in part.unknown
    }
    return classes | doubts | unconfirmed


def _part(name: str, *, is_folder: bool) -> _Part:
    stem = name if is_folder else re.sub(r"\.[A-Za-z0-9]{1,8}$", "", name)
    words = _WORD.findall(stem.casefold())
    classes = frozenset(word for word in words if word in CLASSES)
    longer = {word for word in words if word not in CLASSES and any(c in word for c in CLASSES)}
    doubts = set(longer)
    if classes or longer:
        doubts |= _DOUBTS.intersection(words)
    elif is_folder and all(word in _DENIALS | _PLAIN for word in words):
        doubts |= _DENIALS.intersection(words)
    if classes and (sign := _SIGN.search(stem)):
        doubts.add(sign[0])
    for label in classes:
        doubts |= _CONTRARY[label].intersection(words)
    unknown = frozenset(
        word for word in words
        if classes and word not in _PLAIN | _DOUBTS | classes and len(word) > 1
    ) - longer  # fmt: skip
    return _Part(classes, frozenset(doubts), unknown)
