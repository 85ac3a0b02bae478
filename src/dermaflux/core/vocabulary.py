"""The words of the table: labels, licences, skin tones, modalities, diagnoses. Pure.

Each published vocabulary is mapped to one; a value that no mapping knows gives None, which the
caller reports.
"""

from __future__ import annotations

import re
from typing import get_args

from dermaflux.params import Licence, Modality
from dermaflux.params.fields import Class, Label

CLASSES: tuple[str, ...] = get_args(Class)
"""What a classifier tells apart, negative class first."""
LABELS: tuple[str, ...] = get_args(Label)

LICENCES: tuple[str, ...] = get_args(Licence)
"""`research-only`: an agreement, or nothing stated; `own`: the team's images."""

MODALITIES: tuple[str, ...] = get_args(Modality)
"""`tile`: cut out of a total-body photograph."""

FITZPATRICK = ("I", "II", "III", "IV", "V", "VI")
SKIN_TONES = (*FITZPATRICK, "I-II", "III-IV", "V-VI")

_SYNONYMS = {
    "ack": "actinic keratosis",
    "melanocytic nevi": "nevus",
    "melanocytic nevus": "nevus",
    "naevus": "nevus",
    "nev": "nevus",
    "solar or actinic keratosis": "actinic keratosis",
    "squamous cell carcinoma in situ, bowens disease": "squamous cell carcinoma in situ",
}


def licence(text: str) -> str | None:
    """The licence of `LICENCES` that a published spelling means: CC-0, CC BY-NC 4.0, ...

    Creative Commons version numbers do not change what the words allow and are dropped.
    """
    words = re.sub(r"[\s_-]+", "-", text.strip().upper())
    words = re.sub(r"-?\d+\.\d+$", "", words)  # 4.0
    spellings = {name.upper(): name for name in LICENCES} | {"CC-0": "CC0", "PUBLIC-DOMAIN": "CC0"}
    return spellings.get(words)


def fitzpatrick(text: str) -> str | None:
    """Fitzpatrick type as I to VI, 1 to 6 or 1.0 to 6.0 (Fitzpatrick 1988, Arch Dermatol 124:869).

    HIBA writes Roman numerals, PAD-UFES-20 floats.
    """
    if text.upper() in FITZPATRICK:
        return text.upper()
    match = re.fullmatch(r"([1-6])(\.0*)?", text)
    return FITZPATRICK[int(match[1]) - 1] if match else None


def fitzpatrick_pair(text: str) -> str | None:
    """DDI's 12, 34 and 56: two Fitzpatrick types (Daneshjou et al. 2022, 10.1126/sciadv.abq6147).

    Excel and pandas add ``.0`` where the column has gaps.
    """
    return {"12": "I-II", "34": "III-IV", "56": "V-VI"}.get(text.removesuffix(".0"))


def darkness_class(text: str) -> str | None:
    """MILK10k's class, 0 very dark to 5 very light: reversed, 0 is VI and 5 is I.

    The scale is the landing page's (challenge.isic-archive.com/landing/milk10k). It has six steps
    as Fitzpatrick's has, but was judged from photographs, so it is an approximation.
    """
    match = re.fullmatch(r"([0-5])(\.0*)?", text)
    return FITZPATRICK[5 - int(match[1])] if match else None


def modality(image_type: str) -> str | None:
    """`image_type` of the archive: ``dermoscopic``, ``clinical: overview``, ``TBP tile: ...``."""
    kind = image_type.lower().split(":")[0].strip()
    return {"dermoscopic": "dermoscopic", "clinical": "clinical", "tbp tile": "tile"}.get(kind)


def diagnosis(text: str) -> str | None:
    """A diagnosis in lower case, words apart, the commonest synonyms united; None when empty."""
    words = re.sub(r"[\s_-]+", " ", text.strip().lower())
    return _SYNONYMS.get(words, words) or None
