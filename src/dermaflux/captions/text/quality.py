"""The quality gate: what is wrong with one description of one lesion.

Rules over words, for failures that the papers do not count (refusals, hallucinated class, truncated
answers). A caption with a fault is generated once more and then flagged, never dropped. Reads and
writes nothing.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Fault = Literal[
    "refusal",
    "empty",
    "truncated",
    "contradicts label",
    "no asymmetry",
    "no border",
    "no colour",
    "no shape",
    "no size",
    "no texture",
    "not English",
    "repetitive",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
"""In the order in which `faults` names them; none holds a comma, which separates them in tables."""
UNUSABLE: tuple[Fault, ...] = ("refusal", "empty", "contradicts label", "not English")
"""Faults of texts that carry no information about the image, or wrong information."""
ABC: tuple[Fault, ...] = ("no asymmetry", "no border", "no colour")
"""Attributes that DermaFlux's prompt asks for, as the faults of not mentioning them."""
VISUAL_ATTRIBUTES: tuple[Fault, ...] = ("no shape", "no size", "no texture", "no colour")
"""Likewise for VAP-Diffusion's, which asks for neither asymmetry nor border."""

COLOUR_WORDS = (
    r"browns?|tans?|black(?:ish)?|reds?|reddish|pink(?:ish)?|blues?|bluish|gr[ae]y(?:ish)?|whit(?:e|ish)"
    r"|yellow(?:ish)?|purpl(?:e|ish)|violet|orange|beige|flesh"
)
_MENTIONS: dict[Fault, re.Pattern[str]] = {
    "no asymmetry": re.compile(r"symmetr|\bhal(?:f|ves)\b|lopsided"),
    "no border": re.compile(
        r"\b(?:borders?|edges?|margins?|outlines?|contours?|boundar|perimeter)"
    ),
    "no colour": re.compile(rf"colou?r|pigment|\bhues?\b|\b(?:{COLOUR_WORDS})\b"),
    "no shape": re.compile(r"shape|symmetr|\b(?:round|oval|circular|ellip|irregular|linear|dome)"),
    "no size": re.compile(
        r"\bsize|diameter|\b(?:large|small|big|tiny|medium)\b|proportion|occup|covers?\b|percent|%"
        r"|\b(?:third|quarter|half|most) of\b|\b(?:mm|cm|millimet)"
    ),
    "no texture": re.compile(
        r"textur|surface|\b(?:smooth|rough|scaly|bumpy|raised|flat|crust|uneven|grainy|dry|shiny)"
    ),
}
_ABLE = r"(?:not able|unable|not comfortable|not qualified|not authori[sz]ed)"
_TO_HELP = (
    r"(?:help|assist|provide|give|offer|diagnose|identify|describe|comply|fulfil|analy[sz]e|view"
    r"|process|comment|answer|engage|discuss|do that|see (?:the|any|an) (?:image|picture|photo))"
)
_REFUSAL = re.compile(
    rf"\bi(?:'m| am) (?:very |so )?(?:sorry|{_ABLE}|just an|an ai|not a (?:doctor|medical|dermat))"
    rf"|\bi (?:cannot|can't|can not|won't|will not|could not|couldn't|do not|don't) {_TO_HELP}"
    rf"|^(?:sorry|unfortunately)\b|\bi apologi[sz]e\b|\bas an? (?:ai|language|text-based)\b"
    rf"|\b(?:unable|not able) to {_TO_HELP}"
    r"|\bno (?:image|picture|photo)\w* (?:was|is|has been|provided|attached)"
    r"|\bi (?:do not|don't) (?:feel comfortable|see an? (?:image|picture|photo)|have the ability)"
)
_REFUSAL_WITHIN = 120  # characters; a later "I am not a doctor" follows an answer

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ENDED = re.compile(r"[.!?:;)\]\"'”’*`|]\s*$")
_FOREIGN_LETTERS = (
    0.05  # of all letters outside the Latin script; a Greek alpha now and then is less
)
# Frequent words that are not English, of the other languages Llama 3.2 was trained for.
_FOREIGN = (
    "el la los las una del que es y con por para lesión piel muestra se su más"  # Spanish
    " le les des est une dans avec pour et qui sur lésion peau cette du au ses"  # French
    " der das und ist ein eine mit nicht den dem auf zeigt haut läsion sich von im"  # German
    " il lo gli della di che è un con lesione pelle sono nel bordi"  # Italian
    " o os um uma com não da na em lesão pele são bordas"  # Portuguese
    " het een van zijn op huid niet te aan en"  # Dutch
)
_ENGLISH = (
    "the a an of and is are in with it its this that has be to on or no not as at by for from one"
    " which some mole lesion border color colour shape asymmetry irregular smooth brown"
)
_FOREIGN_WORDS, _ENGLISH_WORDS = frozenset(_FOREIGN.split()), frozenset(_ENGLISH.split())


def faults(
    text: str, label: str | None, finish: str | None = None, required: tuple[Fault, ...] = ABC
) -> tuple[Fault, ...]:
    """Faults of a text written for an image of class `label`, in the order of `FAULTS`.

    Without a label, of images whose classes are not called so, nothing contradicts it.
    `finish` is why the model stopped: `stop`, `length`, `refusal`, or None where it is unknown, as
    for imported captions; then a text that ends inside a sentence counts as truncated. `required`
    are the attributes the prompt asked for, as the faults of not mentioning them.
    """
    plain = _plain(text)
    if not _WORD.search(plain):
        # Without words there is no language and no attribute either; one fault is enough.
        return ("refusal", "empty") if finish == "refusal" else ("empty",)
    result: set[Fault] = {name for name in required if not _MENTIONS[name].search(plain)}
    if finish == "refusal" or _REFUSAL.search(plain[:_REFUSAL_WITHIN]):
        result.add("refusal")
    if finish == "length" or (finish is None and not _ENDED.search(text)):
        result.add("truncated")
    if label is not None and contradicts(text, label):
        result.add("contradicts label")
    if not _english(plain):
        result.add("not English")
    if _repetitive(plain):
        result.add("repetitive")
    return tuple(name for name in FAULTS if name in result)


def _plain(text: str) -> str:
    return text.lower().replace("’", "'").strip()


_CLASS_WORDS = re.compile(
    r"\b(?P<no>non-?\s?)?(?:(?P<malignant>malignan(?:t|cy|cies)|cancer(?:ous)?|melanomas?|carcinomas?)"
    r"|(?P<benign>benign|harmless))\b"
)
# A general or a hypothetical statement asserts nothing about this lesion.
_NOT_ASSERTED = re.compile(
    r"\b(?:may|might|could|can|would|should|possibl[ey]|perhaps|potential(?:ly)?|if|whether|unless"
    r"|often|typical(?:ly)?|usually|commonly|generally associated|tends?|recommend\w*|consult\w*"
    r"|risk|rule|further|evaluat\w*|definitive\w*|determine|confirm\w*)\b"
)
_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|never|lacks?|lacking|absence|free|unlikely|rather than"
    r"|instead of|than|\w+n't)\b(?! only)"
)
# After these a negation no longer reaches, unless it opened with "no evidence that".
_SCOPE_ENDS = re.compile(
    r"\b(?:but|however|although|though|yet|is|are|was|appears|seems|has|shows)\b|;"
)
_NO_SIGN = re.compile(r"\b(?:no|not|without) (?:\w+ )?(?:evidence|sign|indication|reason|suggest)")
_DENIED_AFTER = re.compile(
    r"^\W*(?:(?:is|are|was|be|been|can|has|seems|appears|highly|very|therefore)\W+)*"
    r"(?:unlikely|ruled out|excluded|absent|not)\b"
)


def contradicts(text: str, label: str) -> bool:
    """Whether a text asserts that its lesion has a class other than `label`."""
    for sentence in _SENTENCE.split(_plain(text)):
        if _NOT_ASSERTED.search(sentence):
            continue
        for mention in _CLASS_WORDS.finditer(sentence):
            denied = bool(mention["no"]) != _negated(sentence, *mention.span())
            says_malignant = bool(mention["malignant"]) != denied
            if label != ("malignant" if says_malignant else "benign"):
                return True
    return False


def _negated(sentence: str, start: int, end: int) -> bool:
    """Whether a negation before or after reaches the words at [start, end)."""
    before = sentence[:start]
    negations = list(_NEGATION.finditer(before))
    if negations:
        last = negations[-1]
        between = before[last.end() :]
        if _NO_SIGN.search(before[last.start() :]) or not _SCOPE_ENDS.search(between):
            return True
    return bool(_DENIED_AFTER.search(re.split(r"[,;]", sentence[end:])[0]))


def _english(plain: str) -> bool:
    letters = [letter for letter in plain if letter.isalpha()]
    # Latin script with its accents ends at U+024F.
    if sum(letter > "ɏ" for letter in letters) > _FOREIGN_LETTERS * len(letters):
        return False
    words = _WORD.findall(plain)
    foreign = sum(word in _FOREIGN_WORDS for word in words)
    return foreign < 3 or foreign <= sum(word in _ENGLISH_WORDS for word in words)


def _repetitive(plain: str) -> bool:
    """A sentence of four words or more occurs twice, or a third of all word triples do."""
    sentences = [" ".join(_WORD.findall(part)) for part in _SENTENCE.split(plain)]
    long = [sentence for sentence in sentences if sentence.count(" ") >= 3]
    if len(set(long)) < len(long):
        return True
    words = _WORD.findall(plain)
    if any(len(set(words[i : i + 4])) == 1 for i in range(len(words) - 3)):
        return True
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples) >= 12 and 1 - len(set(triples)) / len(triples) > 1 / 3


def normalised(text: str) -> str:
    """A text without case and punctuation: equal for captions copied from image to image."""
    return " ".join(_WORD.findall(_plain(text)))
