"""The words of the table: labels, licences, skin tones, modalities, diagnoses, parts, ids. Pure.

Each published vocabulary is mapped to one; a value that no mapping knows, or that only says that
there is none, gives None, which the caller reports.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, get_args

from dermaflux.params import Licence, Modality
from dermaflux.params.fields import Class, Label, SkinTone
from dermaflux.params.label_words import WHOLE_NUMBER

CLASSES: tuple[str, ...] = get_args(Class)
"""What a classifier tells apart, negative class first."""
LABELS: tuple[str, ...] = get_args(Label)

LICENCES: tuple[str, ...] = get_args(Licence)
"""`research-only`: an agreement, or nothing stated; `own`: the team's images."""

MODALITIES: tuple[str, ...] = get_args(Modality)
"""`tile`: cut out of a total-body photograph."""

FITZPATRICK = ("I", "II", "III", "IV", "V", "VI")
SKIN_TONES: tuple[str, ...] = get_args(SkinTone)
SKIN_TONE_PAIRS = {
    "I": "I-II", "II": "I-II", "III": "III-IV", "IV": "III-IV", "V": "V-VI", "VI": "V-VI",
}  # fmt: skip
"""Type -> the pair that measured tones and some published ones come in."""

_SYNONYMS = {
    "ack": "actinic keratosis",
    "melanocytic nevi": "nevus",
    "melanocytic nevus": "nevus",
    "naevus": "nevus",
    "nev": "nevus",
    "solar or actinic keratosis": "actinic keratosis",
    "squamous cell carcinoma in situ, bowens disease": "squamous cell carcinoma in situ",
}


_NOTHING = re.compile(
    r"na|n a|nan|nat|n d|none|null|nil|unk|unkn|tbd|blank|empty|missing|undefined|unspecified"
    r"|unavailable|undetermined|undisclosed|withheld|redacted|anonymous|anonymi[sz]ed"
    r"|(?:not|none) (?:applicable|available|answered|assessed|collected|defined|determined"
    r"|disclosed|documented|entered|given|identified|known|provided|recorded|reported|selected"
    r"|specified|stated)"
    r"|(?:missing|unknown)(?: (?:data|diagnosis|id|lesion|patient|skin|tone|type|value))*"
    r"|no (?:answer|data|entry|id|info|information|value)|prefer not to (?:answer|say)"
)
_SPREADSHEET_ERROR = re.compile(r"#[a-z/0]+[!?]|#nv|\\n")  # \N is a database's


@lru_cache(maxsize=1 << 12)
def is_placeholder(text: str) -> bool:
    """Whether a cell only says that there is no value.

    Such are empty cells and mere signs (``-``, ``?``, ``.``), what R, pandas, databases and
    spreadsheets write (``NA``, ``nan``, ``<NA>``, ``None``, ``NULL``, ``\\N``, ``#VALUE!``), words
    (``unknown``, ``n.a.``, ``not available``, ``NONE_IDENTIFIED``) and negative whole numbers, the
    codes of a missing value in columns where nothing is negative. Zero is none: see `identifier`.
    """
    # Most values of a large table are ids and numbers, which no placeholder looks like.
    if len(text) > 60 or (text[:1].isalnum() and text[-1:].isdecimal()):
        return False
    lower = text.strip().casefold()
    words = re.sub(r"[\W_]+", " ", lower).strip()
    return (
        not words
        or _NOTHING.fullmatch(words) is not None
        or _SPREADSHEET_ERROR.fullmatch(lower) is not None
        or re.fullmatch(rf"[-\u2010-\u2015\u2212]{WHOLE_NUMBER}", lower) is not None
    )


def identifier(text: str, zero: bool = False) -> str | None:
    """A patient's or lesion's id; None for a placeholder.

    ``101.0`` is ``101``, since pandas and spreadsheets make a column of numbers with gaps one of
    floats. `zero` says whether 0 is an id like any other; elsewhere it is what a database gives a
    row without one.
    """
    if is_placeholder(text):
        return None
    if not text[0].isdigit() or not (match := re.fullmatch(WHOLE_NUMBER, text)):
        return text
    return match[1] if zero or match[1].strip("0") else None


Part = Literal["train", "test"]
_PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "trainvalid"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "tune", "tuning"), "train"),
    **dict.fromkeys(("trainings", "validierung", "validierungs", "entrenamiento"), "train"),
    **dict.fromkeys(("validación", "validação", "entraînement", "treino"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout", "teste", "prueba"), "test"),
}
_PART_NOUN = re.compile(
    r"(data|sub)?(sets?|split|part|partition|data|daten|datensatz|images?|imgs?|bilder)$"
)


@lru_cache(maxsize=1 << 10)
def part(text: str) -> Part | None:
    """Which published part a split's name means: training or test.

    A validation part belongs to training, from which validation is drawn anew. Names that others
    use for either, such as evaluation, give None.
    """
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text).casefold())
    return _PARTS.get(word) or _PARTS.get(_PART_NOUN.sub("", word))


@lru_cache(maxsize=1 << 10)
def licence(text: str) -> str | None:
    """The licence of `LICENCES` that a published spelling means: CC-0, CC BY-NC 4.0, ...

    Creative Commons version numbers do not change what the words allow and are dropped; so are the
    addresses of their texts.
    """
    words = re.sub(r"[\s_-]+", "-", text.strip().upper())
    if match := re.search(r"CREATIVECOMMONS\.ORG/(LICENSES|PUBLICDOMAIN)/([A-Z-]+)", words):
        words = f"CC-{match[2]}" if match[1] == "LICENSES" else "CC0"
    words = re.sub(r"-?V?\d+\.\d+(-(INTERNATIONAL|UNIVERSAL|UNPORTED))?$", "", words)  # 4.0
    spellings = {name.upper(): name for name in LICENCES} | {"CC-0": "CC0", "PUBLIC-DOMAIN": "CC0"}
    return spellings.get(words)


_ONE_TYPE = r"(vi|iv|v|i{1,3}|[1-6](?:[.,]0*)?(?:e[+-]?0+)?)"
_TYPE_WORDS = r"(?:fitzpatrick(?:'?s)?|fitz|fst|fp|skin|photo|type|tone|class|scale)"
_TYPES = re.compile(rf"{_ONE_TYPE}(?: ?(?:[-/&+]|to|and|or) ?(?:{_TYPE_WORDS}[ .-]?)*{_ONE_TYPE})?")
_PAIR_CODES = {"12": "I-II", "34": "III-IV", "56": "V-VI"}


@lru_cache(maxsize=1 << 10)
def fitzpatrick(text: str) -> str | None:
    """Fitzpatrick type, or two (Fitzpatrick 1988, Arch Dermatol 124:869), a word of `SKIN_TONES`.

    Reads Roman numerals (HIBA), 1 to 6 or 1.0 to 6.0 (PAD-UFES-20), either after words such as
    FST (SCIN) or Fitzpatrick skin type, and pairs: III-IV, 3/4 or DDI's 34 (Daneshjou et al. 2022,
    10.1126/sciadv.abq6147). Pairs that `SKIN_TONES` does not hold, such as II-III, give None.
    """
    lower = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"[\s_:#()]+", " ", re.sub("[\u2010-\u2015\u2212]", "-", lower)).strip()
    plain = re.sub(rf"^(?:{_TYPE_WORDS}(?:-|[ .]*))+|(?: {_TYPE_WORDS})+$", "", plain)
    if match := re.fullmatch(r"(12|34|56)(?:[.,]0*)?", plain):
        return _PAIR_CODES[match[1]]
    if not (match := _TYPES.fullmatch(plain)):
        return None
    first, second = (_roman(group) for group in (match[1], match[2] or match[1]))
    tone = first if first == second else f"{first}-{second}"
    return tone if tone in SKIN_TONES else None


def _roman(number: str) -> str:
    return FITZPATRICK[int(number[0]) - 1] if number[0].isdigit() else number.upper()


def darkness_class(text: str) -> str | None:
    """MILK10k's class, 0 very dark to 5 very light: reversed, 0 is VI and 5 is I.

    The scale is the landing page's (challenge.isic-archive.com/landing/milk10k). It has six steps
    as Fitzpatrick's has, but was judged from photographs, so it is an approximation.
    """
    match = re.fullmatch(WHOLE_NUMBER, text)
    return dict(zip("543210", FITZPATRICK, strict=True)).get(match[1]) if match else None


def modality(image_type: str) -> str | None:
    """`image_type` of the archive: ``dermoscopic``, ``clinical: overview``, ``TBP tile: ...``."""
    kind = image_type.lower().split(":")[0].strip()
    return {"dermoscopic": "dermoscopic", "clinical": "clinical", "tbp tile": "tile"}.get(kind)


@lru_cache(maxsize=1 << 10)
def diagnosis(text: str) -> str | None:
    """A diagnosis in lower case, words apart, the commonest synonyms united; None when none."""
    if is_placeholder(text):
        return None
    words = re.sub(r"[\s_-]+", " ", text.strip().lower())
    return _SYNONYMS.get(words, words)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words in names of folders and files, in the languages of published datasets.
NEGATIONS = _set(
    "no non not none never without negative negatives neg false nicht kein keine ohne sin ningun "
    "ninguna sans pas aucun senza nessun sem nenhum geen zonder ikke uden utan bez nie"
)
UNCERTAINTIES = _set(
    "excluded rule ruled suspected suspicious suspicion uncertain unsure unclear doubtful doubt "
    "questionable equivocal borderline misdiagnosed mislabeled mislabelled misclassified swapped "
    "unconfirmed unverified verdacht"
)
DOUBTS = (
    NEGATIONS
    | UNCERTAINTIES
    | _set(
        "or vs versus other rest excluding exclude except out free absent suspect possible "
        "possibly probable probably potential potentially presumed likely unlikely unlike like "
        "mimic mimics mimicking simulator simulators pre post pro anti un ex former history wrong 0"
    )
)
"""Words that turn or weaken what stands beside them."""
