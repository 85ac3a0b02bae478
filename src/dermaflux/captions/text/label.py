"""The sentence that names the class of a lesion. Pure."""

from __future__ import annotations


def label_sentence(label: str) -> str:
    """The sentence every training caption starts with (paper, section 2.1)."""
    return f"This is an image containing a{'n' * (label[0] in 'aeiou')} {label} lesion."
