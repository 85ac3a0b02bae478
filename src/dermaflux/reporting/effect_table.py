"""Does synthetic help? The effect of every arm, corrected for the number of comparisons, in words.

Pure functions on `seed_means`. Two families of comparisons are corrected separately: the question
itself, one comparison per architecture, and all the others, which tell what an answer means: if a
control gains as much as the mixture, the content of the synthetic images deserves no credit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from dermaflux.statistics import effects, power
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.seed_means import Means

ABLATIONS = ("no_teacher", "shuffled")
"""Arms that lack something which the mixture has."""
CONTROLS = {
    "repeated": "repeating real images",
    "augmented": "strong augmentation",
    "shuffled": "the same images with shuffled labels",
}
"""Arms whose gain the mixture must exceed, in words."""
_AGAINST_REAL = ("repeated", "augmented", "more_real", "random_features")


@dataclass(frozen=True)
class Row:
    """AUC of one arm minus that of another, mean over seeds."""

    architecture: str
    arm: str
    against: str
    effect: Effect
    """Its interval is simultaneous with those of the family."""
    p: float
    """Corrected by Holm's method within the family."""
    comparisons: int
    """Size of the family."""
    confidence: float
    detectable: float | None
    """The smallest true difference that would be significant with a probability of 80 %."""
    blind: bool = False
    """Whether the run could not have seen what is asked for; see `statistics.evidence`."""

    @property
    def sign(self) -> int:
        """Sign of the difference where it is significant, else 0."""
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
        unclear = "could not be seen" if self.blind else "no clear effect"
        return (unclear, up, down)[self.sign]


def table(
    means: Means, architectures: Sequence[str], arms: Sequence[str], metric: str, confidence: float
) -> list[Row]:
    """mixture - real of each architecture first, then the others.

    These are each control - real, mixture - control, and real - scratch: what pretrained weights
    gain. `arms` are those of any architecture; the sizes of `train.curve` are compared with none.
    """
    question = [("mixture", "real")]
    rest = [(arm, "real") for arm in arms if arm in _AGAINST_REAL]
    rest += [("mixture", arm) for arm in dict.fromkeys((*CONTROLS, *ABLATIONS, "more_real"))]
    rest += [("real", "scratch")]
    rows = []
    for family in (question, rest):
        pairs = [
            (architecture, arm, against)
            for architecture in architectures
            for arm, against in family
            if arm in arms and against in arms
            if means.keys() >= {(architecture, arm), (architecture, against)}
        ]
        differences = [
            means[name, arm][metric].minus(means[name, against][metric], confidence, len(pairs))
            for name, arm, against in pairs
        ]
        corrected = effects.holm([effect.p for effect in differences])
        rows += [
            Row(
                *(name, arm, against),
                effect,
                p,
                len(pairs),
                confidence,
                power.minimum_detectable(
                    means[name, arm][metric].values - means[name, against][metric].values,
                    means[name, arm][metric].resampled - means[name, against][metric].resampled,
                    power.Criterion(confidence, len(pairs)),
                ),
            )
            for (name, arm, against), effect, p in zip(pairs, differences, corrected, strict=True)
        ]
    return rows


def judged(rows: Sequence[Row], blind: Collection[str]) -> list[Row]:
    """The rows, of which the question of a `blind` architecture could not have been answered."""
    return [
        replace(row, blind=(row.arm, row.against) == ("mixture", "real"))
        if row.architecture in blind
        else row
        for row in rows
    ]


def question(rows: Sequence[Row], architecture: str) -> Row | None:
    """mixture - real of an architecture; None without both arms."""
    asked = (architecture, "mixture", "real")
    return next((row for row in rows if (row.architecture, row.arm, row.against) == asked), None)


def answer(rows: Sequence[Row], architecture: str) -> str | None:
    """One sentence on what synthetic images do for an architecture; None without both arms."""
    by_pair = {(row.arm, row.against): row for row in rows if row.architecture == architecture}
    main = question(rows, architecture)
    if main is None:
        return None
    if main.verdict == "no interval":
        return "one seed and no resamples, so there is no interval to judge by"
    low, high = (f"{limit:+.3f}".replace("-", "−") for limit in (main.effect.low, main.effect.high))
    if main.sign == 0:
        unclear = "this run could not have seen it" if main.blind else "no clear effect"
        if main.effect.low == main.effect.high:
            return f"{unclear}: the AUC is the same in every seed and resample"
        return f"{unclear}: the results are compatible with any change from {low} to {high}"
    if main.sign < 0:
        return f"they harm: a change of {low} to {high}"
    controls = {
        words: by_pair[pair]
        for arm, words in CONTROLS.items()
        if (pair := ("mixture", arm)) in by_pair
    }
    if not controls:
        return "they help; no control was trained to compare the gain with"
    beaten = [words for words, row in controls.items() if row.sign > 0]
    others = [words for words, row in controls.items() if row.sign <= 0]
    parts = ["they help"]
    if beaten:
        parts.append(f"and more than {' and more than '.join(beaten)}")
    if others:
        parts.append(f"but not demonstrably more than {' or '.join(others)}")
    return ", ".join(parts)
