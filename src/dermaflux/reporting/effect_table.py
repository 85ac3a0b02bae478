"""Does synthetic help? The effect of every arm, corrected for the number of comparisons, in words.

Pure functions on `seed_means`. Two families are corrected apart: the question itself, one
comparison per architecture, and all the others, which say what an answer means: a control that
gains as much as the mixture does takes the credit away from what the synthetic images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dermaflux.statistics import effects
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.seed_means import Means

CONTROLS = {"repeated": "repeating real images", "augmented": "strong augmentation"}
"""Arms whose gain the mixture must exceed, in words."""


@dataclass(frozen=True)
class Row:
    """AUC of one arm minus that of another, mean over seeds."""

    architecture: str
    arm: str
    against: str
    effect: Effect
    """Its interval holds together with those of the family."""
    p: float
    """Corrected by Holm's method within the family."""
    comparisons: int
    """Of the family."""
    confidence: float

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is not chance at the level, else 0."""
        if not self.p < 1 - self.confidence:
            return 0
        return 1 if self.effect.value > 0 else -1

    @property
    def verdict(self) -> str:
        """One to three words."""
        if not self.effect.has_interval:
            return "no interval"
        question = (self.arm, self.against) == ("mixture", "real")
        up, down = ("helps", "harms") if question else ("higher", "lower")
        return ("no clear effect", up, down)[self.sign]


def table(
    means: Means, architectures: Sequence[str], arms: Sequence[str], figure: str, confidence: float
) -> list[Row]:
    """mixture - real of each architecture first, then each control - real and mixture - control."""
    question = [("mixture", "real")]
    rest = [(arm, "real") for arm in arms if arm not in ("real", "mixture")]
    rest += [("mixture", arm) for arm in CONTROLS]
    rows = []
    for family in (question, rest):
        pairs = [
            (architecture, arm, against)
            for architecture in architectures
            for arm, against in family
            if arm in arms and against in arms
        ]
        found = [
            means[name, arm][figure].minus(means[name, against][figure], confidence, len(pairs))
            for name, arm, against in pairs
        ]
        corrected = effects.holm([effect.p for effect in found])
        rows += [
            Row(*pair, effect, p, len(pairs), confidence)
            for pair, effect, p in zip(pairs, found, corrected, strict=True)
        ]
    return rows


def answer(rows: Sequence[Row], architecture: str) -> str | None:
    """One sentence on what synthetic images do for an architecture; None without both arms."""
    own = {(row.arm, row.against): row for row in rows if row.architecture == architecture}
    main = own.get(("mixture", "real"))
    if main is None:
        return None
    if main.verdict == "no interval":
        return "one seed and no resamples, so nothing can be said of chance"
    low, high = (f"{limit:+.3f}".replace("-", "−") for limit in (main.effect.low, main.effect.high))
    if main.sign == 0:
        return f"no clear effect; anything from {low} to {high} agrees with these results"
    if main.sign < 0:
        return f"they harm, by {low} to {high}"
    held = {
        words: own[pair] for arm, words in CONTROLS.items() if (pair := ("mixture", arm)) in own
    }
    if not held:
        return "they help; no control was trained that could gain as much"
    beaten = [words for words, row in held.items() if row.sign > 0]
    others = [words for words, row in held.items() if row.sign <= 0]
    parts = ["they help"]
    if beaten:
        parts.append(f"and more than {' and '.join(beaten)} {'does' if len(beaten) == 1 else 'do'}")
    if others:
        verb = "does" if len(others) == 1 else "do"
        parts.append(f"but are not shown to help more than {' or '.join(others)} {verb}")
    return ", ".join(parts)
