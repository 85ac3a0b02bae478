"""Placeholder until the branch `gate` is merged."""

from __future__ import annotations

from dermaflux.captions.vision import Finish


def faults(text: str, label: str, finish: Finish) -> tuple[str, ...]:
    """Faults of an answer."""
    found = []
    if finish == "refusal":
        found.append("refusal")
    if not text.strip():
        found.append("empty")
    if finish == "length":
        found.append("truncated")
    return tuple(found)
