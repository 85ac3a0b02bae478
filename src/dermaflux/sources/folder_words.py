"""What the names of folders say about the label of the images below them. Pure.

A name counts only where all of it is understood: a word for a label alone, or beside words that
leave its meaning alone, such as ``skin``, ``images`` or a number. ``no_melanoma``,
``pre-malignant`` and ``benign or malignant`` contain a word for a label and do not say it, and no
list of negations is complete, so a word that is not known counts as one. Names of datasets such as
``melanoma_detection`` thus say nothing, and the folders below them decide.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermaflux.core.vocabulary import DOUBTS, NEGATIONS, UNCERTAINTIES
from dermaflux.errors import quoted
from dermaflux.sources.adapter import Problem


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LISTS = _set("or vs versus other rest")
PLAIN = _set(
    "a all and at by for from in is of on the to with class classes label labels category group "
    "type kind folder dir set subset part split fold batch series train training val valid "
    "validation dev test testing holdout image images img imgs pic pics picture pictures photo "
    "photos photograph photographs jpg jpeg png case cases sample samples example examples patient "
    "patients lesion lesions skin mole moles spot spots tumor tumors tumour tumours cancer cancers "
    "cutaneous dermal derm dermatology dermoscopy dermoscopic dermatoscopy dermatoscopic clinical "
    "macro macroscopic close closeup tile tiles crop crops cropped resized original originals raw "
    "new old final clean copy confirmed proven verified biopsied histology histopathology dx "
    "diagnosis diagnosed positive positives pos yes true only real male female left right face "
    "head neck scalp trunk back chest abdomen arm arms hand hands leg legs foot feet upper lower "
    "site"
)
"""Words that leave a label as it is."""

_DIAGNOSES = {
    "benign": _set("nevus nevi naevus naevi dermatofibroma angioma hemangioma haemangioma"),
    "malignant": _set("melanoma melanomas carcinoma carcinomas sarcoma lymphoma bcc scc"),
}
"""Diagnoses that are one or the other."""

_CONSISTENT = {
    "benign": _DIAGNOSES["benign"]
    | _set(
        "keratosis keratoses seborrheic seborrhoeic lentigo vascular melanocytic junctional "
        "compound"
    ),
    "malignant": _DIAGNOSES["malignant"]
    | _set(
        "basal squamous cell superficial spreading nodular lentigo maligna acral amelanotic situ "
        "insitu invasive metastatic melanocytic"
    ),
}
"""Words of diagnoses that may stand beside a label without changing it."""

_SYMBOLS = re.compile(
    r"[^\w\s.,()\[\]&#+\u2212-]|^[\W_]*[-+\u2212]|[-+\u2212][\W_]*$|[(\[][-+\u2212]"
)
"""What may turn a name: ``?``, ``!``, ``~``, ``=``, or a sign before, behind or in brackets."""
_WORD = re.compile(r"[^\W_]+")
_KEY = re.compile(r"\s*(label|class|category|diagnosis|dx|group|type)\s*=\s*", re.IGNORECASE)
_SHORT = 3  # letters


@dataclass(frozen=True, slots=True)
class _Says:
    label: str
    whole: bool
    """Whether the name is nothing but the word."""


@dataclass(frozen=True, slots=True)
class _Unclear:
    labels: frozenset[str]
    """Labels whose words are in the name, or in a longer word of it."""
    doubtful: bool
    """Whether it has a word or a sign that is known to turn or weaken a label."""
    has_word: bool
    """Whether a whole word of it is one for a label."""
    words: tuple[str, ...]
    """Those of its words that are not known to leave a label as it is."""


def _words(name: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(unicodedata.normalize("NFC", name).casefold()))


class FolderWords:
    """The words of one dataset for its labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """`labels` maps words or whole folder names, in any case, to labels."""
        self._whole = {unicodedata.normalize("NFC", k).casefold(): v for k, v in labels.items()}
        phrases = {_words(word): label for word, label in labels.items()}
        # A number is also a patient's name, a letter a sex, and two letters are a unit.
        self._parts = {
            words: label
            for words, label in phrases.items()
            if not all(word.isdecimal() or len(word) < _SHORT for word in words)
        }
        self._long = {
            words[0]: label
            for words, label in self._parts.items()
            if len(words) == 1 and len(words[0]) > _SHORT  # shorter ones are in others by chance
        }
        plurals = {(f"{word}s",): label for word, label in self._long.items()}
        self._parts = plurals | self._parts
        self._longest = max(map(len, self._parts), default=0)

    def label_of(self, folders: Sequence[str]) -> str | Problem:
        """The label that the folders on a path say, outermost first; a `Problem` when none or two.

        The innermost folder with a label decides, unless one that is nothing but a word for a label
        says another one, or a folder around or below it casts doubt on it.
        """
        readings = [(name, self._read(name)) for name in folders]
        labelled = [
            (name, what)
            for name, what in readings
            if isinstance(what, _Says) or (isinstance(what, _Unclear) and what.has_word)
        ]
        if not labelled:
            reason = (
                "no folder above it says benign or malignant; name the folder or map it in labels"
            )
            return Problem("no-label", reason)
        name, what = labelled[-1]
        below = folders[max(at for at, entry in enumerate(readings) if entry[1] is what) + 1 :]
        label = what.label if isinstance(what, _Says) else self._confirmed(what, labelled)
        if label is None:
            assert isinstance(what, _Unclear)
            return _unclear(name, what)
        for other, reading in readings:
            if isinstance(reading, _Says) and reading.label != label:
                reason = (
                    f"its folders {quoted(other)} and {quoted(name)} say {reading.label} and "
                    f"{label}; keep the images in folders of one label"
                )
                return Problem("ambiguous-folder", reason)
            if isinstance(reading, _Unclear) and self._turns(reading, label):
                return _unclear(other, reading, name)
        for other in below:
            for diagnosed, diagnoses in _DIAGNOSES.items():
                if diagnosed != label and diagnoses.intersection(_words(other)):
                    reason = (
                        f"its folder {quoted(name)} says {label} and {quoted(other)} in it names a "
                        f"{diagnosed} diagnosis; map that name in ingest.own labels"
                    )
                    return Problem("ambiguous-folder", reason)
        return label

    @staticmethod
    def _turns(what: _Unclear, label: str) -> bool:
        """Whether an unclear name casts doubt on a label that another folder says."""
        if what.has_word:
            return what.doubtful and what.labels == {label}
        return what.doubtful or what.labels != {label}

    @staticmethod
    def _confirmed(what: _Unclear, labelled: Sequence[tuple[str, _Says | _Unclear]]) -> str | None:
        """The label of a name with unknown words, where a folder around it says the same."""
        around = {s.label for _, s in labelled if isinstance(s, _Says) and s.whole}
        known = what.doubtful or not DOUBTS.isdisjoint(what.words)
        if not known and len(what.labels) == 1 and what.labels == around:
            return next(iter(around))
        return None

    def _read(self, name: str) -> _Says | _Unclear | None:
        """What one name says; None where it has nothing to do with labels."""
        name = name[key.end() :] if (key := _KEY.match(name)) else name
        words = _words(name)
        whole = self._whole.get(unicodedata.normalize("NFC", name).casefold().strip())
        symbols = _SYMBOLS.search(name) is not None
        if whole is None and not symbols:
            whole = self._parts.get(words)
        if whole is not None:
            return _Says(whole, whole=True)
        labels, rest = self._split(words)
        if labels:
            unknown = tuple(word for word in rest if not _leaves(word, labels))
            doubtful = symbols or any(word in DOUBTS - _LISTS for word in rest)
            if len(labels) == 1 and not unknown and not symbols:
                return _Says(next(iter(labels)), whole=False)
            return _Unclear(labels, doubtful, True, unknown)
        same, longer = set(), set()
        for word in words:
            known = self._parts.get((word.strip("0123456789"),))
            same |= {known} if known else set()
            longer |= {label for part, label in self._long.items() if part in word and not known}
        doubtful = bool(longer) or any(word in UNCERTAINTIES for word in words)
        if any(word in NEGATIONS for word in words):
            doubtful = doubtful or all(word in DOUBTS or word in PLAIN for word in words)
        if same or doubtful:
            return _Unclear(frozenset(same | longer), doubtful, False, words)
        return None

    def _split(self, words: Sequence[str]) -> tuple[frozenset[str], list[str]]:
        """The labels that a name's words say, longest phrases first, and the other words."""
        labels, rest, start = set(), [], 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                label = self._parts.get(tuple(words[start : start + length]))
                if label is not None:
                    labels.add(label)
                    start += length
                    break
            else:
                rest.append(words[start])
                start += 1
        return frozenset(labels), rest


def _leaves(word: str, labels: frozenset[str]) -> bool:
    """Whether a word leaves the labels beside it as they are."""
    if word in DOUBTS:
        return False
    if word in PLAIN or any(character.isdecimal() for character in word):
        return True
    return all(word in _CONSISTENT.get(label, ()) for label in labels)


def _unclear(name: str, what: _Unclear, beside: str = "") -> Problem:
    if len(what.labels) > 1 and what.has_word:
        says = f"says {' and '.join(sorted(what.labels))}"
    elif what.has_word:
        words = f" beside {quoted(' '.join(what.words))}" if what.words else " with a sign"
        says = f"has a word for {next(iter(what.labels))}{words}, which may change it"
    else:
        says = f"may change what its folder {quoted(beside)} says"
    fix = "map the whole name in labels" if what.has_word else "rename that folder"
    return Problem("ambiguous-folder", f"its folder {quoted(name)} {says}; {fix}")
