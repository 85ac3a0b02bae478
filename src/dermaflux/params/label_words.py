"""Words of a table or of folders and the labels that they mean, however YAML reads the words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dermaflux.errors import quoted
from dermaflux.params.fields import Header, Label

WHOLE_NUMBER = r"(\d+)(?:[.,]0*)?(?:[eE][+-]?0+)?"
"""A whole number as columns of integers or floats have it: 2, 2., 2.0, 2,0 or 2.000e+00."""

_TRUTH_VALUES = {
    **dict.fromkeys(("true", "yes", "wahr", "ja", "vrai", "oui", "verdadero", "sí"), "1"),
    **dict.fromkeys(("verdadeiro", "sim", "vero", "waar"), "1"),
    **dict.fromkeys(("false", "no", "falsch", "nein", "faux", "non", "falso", "não"), "0"),
    **dict.fromkeys(("onwaar", "nee"), "0"),
}
"""Truth values of spreadsheets and of people, in the languages in which Excel is common."""


@lru_cache(maxsize=1 << 10)
def label_word(text: str) -> str:
    """A label's word as tables and mappings are compared: without case, and numbers by value.

    ``1``, ``01``, ``1.0``, ``TRUE`` and ``yes`` are one word, as are ``0``, ``false`` and ``no``;
    so are ``WAHR``, ``VRAI`` or ``oui``, since Excel writes truth values in the user's language.
    """
    word = unicodedata.normalize("NFC", text).strip().casefold()
    if match := re.fullmatch(WHOLE_NUMBER, word):
        return match[1].lstrip("0") or "0"
    return _TRUTH_VALUES.get(word, word)


def _as_words(labels: Any) -> Any:
    """Keys that YAML reads as numbers or truth values, as words."""
    if not isinstance(labels, dict):
        return labels
    words: dict[Any, Any] = {}
    meant: dict[str, tuple[Any, Any]] = {}
    for key, label in labels.items():
        if not isinstance(key, str | int | float):
            raise ValueError(
                f"labels has the key {quoted(key)}, which is not text; put it in quotes"
            )
        word = key if isinstance(key, str) else quoted(key).lower()
        first, other = meant.setdefault(label_word(word), (key, label))
        if other != label:
            raise ValueError(
                f"labels says {quoted(first)}: {quoted(other)} and {quoted(key)}: {quoted(label)}, "
                "which is one word in a table; keep one of them"
            )
        words[word] = label
    return words


LabelWords = Annotated[dict[Header, Label], Field(max_length=5_000), BeforeValidator(_as_words)]
"""Words of a table or of folders -> the label they mean."""
