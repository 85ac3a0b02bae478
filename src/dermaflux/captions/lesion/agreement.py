"""Whether a caption's words on A, B and C agree with what the pixels measure.

An indicator of hallucination: a model that writes "irregular border" whatever it sees agrees with
the measurement no better than chance, which is a kappa of 0. The measurement has errors of its own,
so kappa compares captioners with each other and is no accuracy. Reads and writes nothing.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING, Any

from dermaflux.captions.lesion.measured import ASYMMETRY_LIMITS, BORDER_LIMITS

if TYPE_CHECKING:
    import pandas as pd

LEVELS = {"asymmetry": 3, "border_irregularity": 4, "colours": 4}
"""Levels per attribute: symmetrical to notable, smooth to very irregular, one to four colours."""
_MOST = 20_000  # captions that are read; the kappa's standard error is then below 0.01

_SENTENCE = re.compile(r"[.;!?\n]|,\s*(?:but|while|whereas|although)\b")
_NO = r"(?:\b(?:no|not|non|without|lacks?|lacking|absence of|never)|n't)"
_SLIGHT = re.compile(
    r"\b(?:slight(?:ly)?|mild(?:ly)?|minor|subtle|subtly|somewhat|minimal(?:ly)?|little|small|few"
    r"|mostly|nearly|almost|largely|fairly|partially|moderately|some)\b"
)
_STRONG = re.compile(
    r"\b(?:very|highly|extremely|markedly|notabl[ey]|strongly|severe(?:ly)?|quite|pronounced"
    r"|significant(?:ly)?|distinctly|considerabl[ey]|striking(?:ly)?)\b"
)

_STATED_BEFORE = re.compile(r"\b(?:has|have|shows?|exhibits?|displays?|with|is)\b[^,]*$")
_SLIGHT_AFTER = re.compile(r"\W*(?:is |: ?|\*+ ?)+(?:slight|mild|minimal|subtle|minor)")
_STATED_AFTER = re.compile(
    r"\W*(?:is |: ?|\*+ ?)+(?:marked|pronounced|notable|present|evident|noticeable|visible|high)"
)


def _denied(before: str) -> bool:
    """Whether the last few words before a term deny it."""
    return bool(re.search(rf"{_NO}\b(?:\W+\w+){{0,4}}\W*$", before))


def asymmetry_level(text: str) -> int | None:
    """0 symmetrical, 1 slight, 2 notable asymmetry; None when the text states none.

    Adjectives are statements; the noun alone ("in terms of asymmetry") is a topic unless a word of
    degree, a denial or a verb comes with it.
    """
    for sentence in _SENTENCE.split(text.lower().replace("’", "'")):
        for term in re.finditer(r"\b(a|dis|un|non-?)?symmetr(ic(?:al(?:ly)?)?|y|ies)\b", sentence):
            before, after = sentence[: term.start()][-60:], sentence[term.end() :][:40]
            noun = term[2] in ("y", "ies")
            near = " ".join(before.split()[-3:])
            denied = _denied(before)
            absent = noun and re.match(r"\W*(?:is|:)?\s*(?:absent|none|not)\b", after)
            if noun and not (
                denied or absent or _degree(near, after) or _STATED_BEFORE.search(near)
            ):
                continue
            asymmetric = bool(term[1]) != bool(denied or absent)
            partly = re.search(r"\b(?:perfectly|completely|entirely|exactly|fully)\b", near)
            if _SLIGHT.search(near) or _SLIGHT_AFTER.match(after):
                return 1
            return 1 if denied and partly else 2 if asymmetric else 0
    return None


def _degree(near: str, after: str) -> bool:
    return bool(
        _SLIGHT.search(near)
        or _STRONG.search(near)
        or re.search(r"\b(?:degree|amount|level|clear|obvious|marked|noticeable|visible)\b", near)
        or _SLIGHT_AFTER.match(after)
        or _STATED_AFTER.match(after)
    )


_BORDER = re.compile(
    r"\b(?:borders?|edges?|margins?|outlines?|contours?|boundar(?:y|ies)|perimeter)"
)
_SMOOTH = (
    r"smooth(?:ly)?|regular|even|well[- ]?(?:defined|circumscribed|demarcated)|sharp|clear|round"
)
_ROUGH = (
    r"irregular(?:ity|ities|ly)?|uneven|ill[- ]defined|poorly[- ]defined|blurr(?:y|ed)|fuzzy|vague"
)
_JAGGED = r"jagged|ragged|scalloped|serrated"
_NOTCHED = r"notch(?:es|ed)?|bumps?|wavy|undulating"
_BORDER_TERM = re.compile(
    rf"\b(?:(?P<jagged>{_JAGGED})|(?P<notched>{_NOTCHED})|(?P<rough>{_ROUGH})|(?P<smooth>{_SMOOTH}))\b"
)


def border_level(text: str) -> int | None:
    """0 smooth, 1 small notches or slightly irregular, 2 irregular, 3 very irregular or jagged.

    The roughest word of the sentences on the border counts; None when there is none.
    """
    levels = []
    for sentence in _SENTENCE.split(text.lower().replace("’", "'")):
        if not _BORDER.search(sentence):
            continue
        for term in _BORDER_TERM.finditer(sentence):
            before = sentence[: term.start()]
            # "border irregularity" names the criterion; it says something only with a degree.
            topic = term[0].startswith("irregularit")
            near = " ".join(before.split()[-3:])
            if topic and not (_denied(before) or _degree(near, sentence[term.end() :])):
                continue
            slight = _SLIGHT.search(near) or (topic and _SLIGHT_AFTER.match(sentence[term.end() :]))
            levels.append(_border_term(term, _denied(before[-60:]), bool(slight), near))
    return max(levels, default=None)


def _border_term(term: re.Match[str], denied: bool, slight: bool, near: str) -> int:
    if term["smooth"]:
        return 2 if denied else 1 if slight else 0
    if denied:
        return 0
    if term["notched"] or slight:
        return 1
    return 3 if term["jagged"] or _STRONG.search(near) else 2


_NUMBERS = {"one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_COUNTED = re.compile(
    r"\b(one|single|two|three|four|five|six)\b(?:\s\w+){0,2}?\s(?:colou?rs?|shades?|hues?|tones?)\b"
)
_UNIFORM = re.compile(r"\b(?:uniform(?:ly)?|homogene\w+|evenly|consistent(?:ly)?|monochrom\w+)\b")
_MANY = re.compile(
    r"\b(?:varie[ds]|variegat\w+|multi\w*|various|different|several|mix(?:ed|ture)?|range|uneven)\b"
)
_COLOURS = {
    "dark brown": r"(?:dark|deep)(?:er)?[ -]browns?|(?<!light )(?<!lighter )(?<!medium )browns?",
    "light brown": r"(?:light|medium|pale)(?:er)?[ -]browns?|tans?|beige|yellow\w*|golden",
    "black": r"black(?:ish)?",
    "red": r"reds?|reddish|pink(?:ish)?|purpl\w+|violet",
    "blue-gray": r"blues?|bluish|gr[ae]y(?:ish)?",
    "white": r"whit(?:e|ish)",
}


def colour_level(text: str) -> int | None:
    """Number of dermoscopic colours that a text names for its lesion, 1 to 4; None without one.

    A stated number counts first. Colours of the skin around the lesion do not count.
    """
    plain = text.lower().replace("’", "'")
    named: set[str] = set()
    uniform = many = False
    for sentence in _SENTENCE.split(plain):
        if counted := _COUNTED.search(sentence):
            return min(_NUMBERS[counted[1]], LEVELS["colours"])
        lesion = re.split(r"\b(?:surrounding|background|skin)\b", sentence)[0]
        here = {name for name, words in _COLOURS.items() if re.search(rf"\b(?:{words})\b", lesion)}
        if here or re.search(r"colou?r|pigment|shade|hue", lesion):
            named |= here
            uniform |= bool(_UNIFORM.search(lesion))
            many |= bool(_MANY.search(lesion)) and not _denied_many(lesion)
    if uniform and not many:
        return max(1, min(len(named), 2))
    if many:
        return min(max(len(named), 2), LEVELS["colours"])
    return min(len(named), LEVELS["colours"]) or None


def _denied_many(sentence: str) -> bool:
    term = _MANY.search(sentence)
    return term is not None and _denied(sentence[: term.start()])


def figures(captions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Per attribute: quadratic-weighted kappa, captions compared and captions that state no level.

    Columns caption, image_id, asymmetry, border_irregularity, colours. Kappa is Cohen's (1968,
    doi 10.1037/h0026256): 1 equal, 0 chance; None when either side has one level only. Of more than
    20,000 captions, every n-th in the order of their ids is read.
    """
    rows = captions.sort_values("image_id")
    rows = rows.iloc[:: max(1, -(-len(rows) // _MOST))]
    out = {}
    readers = {
        "asymmetry": asymmetry_level,
        "border_irregularity": border_level,
        "colours": colour_level,
    }
    for name, level in readers.items():
        known = rows[rows[name].notna()]
        pairs = [
            (level(text), _measured_level(name, value))
            for text, value in zip(known["caption"], known[name], strict=True)
        ]
        compared = [(words, pixels) for words, pixels in pairs if words is not None]
        out[name] = {
            "kappa": kappa(compared),
            "captions": len(compared),
            "not_stated": len(pairs) - len(compared),
        }
    return out


def _measured_level(name: str, value: float) -> int:
    if name == "colours":
        return int(min(value, LEVELS[name]))
    limits = ASYMMETRY_LIMITS if name == "asymmetry" else BORDER_LIMITS
    return bisect.bisect(limits, value)


def kappa(pairs: list[tuple[int, int]]) -> float | None:
    """Quadratic-weighted kappa of (stated, measured) levels; None where it is not defined."""
    from sklearn.metrics import cohen_kappa_score

    if min(len({words for words, _ in pairs}), len({pixels for _, pixels in pairs})) < 2:
        return None
    stated, measured = zip(*pairs, strict=True)
    # All levels in between, or the weights would be of the ranks that happen to occur.
    levels = list(range(min(*stated, *measured), max(*stated, *measured) + 1))
    return round(float(cohen_kappa_score(stated, measured, labels=levels, weights="quadratic")), 4)
