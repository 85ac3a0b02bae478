"""The sentence that names the class of a lesion. Pure."""

from __future__ import annotations


def label_sentence(label: str, diagnosis: str | None = None) -> str:
    """The sentence every training caption starts with (paper, section 2.1).

    With a diagnosis, ``... containing a malignant lesion, melanoma.``: ours, since no published
    caption names one.
    """
    named = f", {diagnosis}" if diagnosis else ""
    return f"This is an image containing a{'n' * (label[0] in 'aeiou')} {label} lesion{named}."
