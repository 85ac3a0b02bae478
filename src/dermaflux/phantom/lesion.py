"""The statistical model of the phantom: attributes given the class, and the best possible AUC.

A lesion's asymmetry, border and number of colours (the A, B and C of the ABCD rule of dermoscopy,
Nachbar et al. 1994, doi 10.1016/S0190-9622(94)70061-3) are independent given its class, and nothing
else about it depends on the class. Pixels depend on the class through these three alone, so the
likelihood ratio of the attributes is the best possible score and its AUC an exact finite sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, cast

from dermaflux.core.hashing import rank

if TYPE_CHECKING:
    import numpy as np

Label = Literal["benign", "malignant"]
PATTERNS = ("reticular", "globular", "homogeneous")
PIGMENTS = ("light brown", "dark brown", "black", "blue-grey", "red", "white")

# Percent of lesions of a class at each level: asymmetric axes 0-2, border irregularity 0-3,
# colours 1-5. The overlap is chosen so that the Bayes AUC is near 0.9.
ATTRIBUTES: dict[str, dict[Label, tuple[int, ...]]] = {
    "asymmetry": {"benign": (57, 30, 13), "malignant": (16, 34, 50)},
    "border": {"benign": (42, 33, 17, 8), "malignant": (12, 22, 33, 33)},
    "colours": {"benign": (34, 36, 19, 8, 3), "malignant": (7, 17, 28, 28, 20)},
}
# Photographs of dark skin are as rare here as in the published sets, yet every tone occurs.
_TONES = (16, 30, 24, 14, 9, 7)
_PIGMENT_WEIGHTS = dict(zip(PIGMENTS, (22, 30, 22, 16, 10, 9), strict=True))


class RandomIntegers:
    """Uniform integers from the generator Philox (Salmon et al. 2011), keyed by words.

    Raw integers only: numpy keeps their stream stable (NEP 19), but not its distributions.
    """

    def __init__(self, *words: object) -> None:
        import numpy as np

        digest = rank(*words)
        self._philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def below(self, limit: int) -> int:
        """An integer in [0, limit); the bias is below limit / 2^32."""
        return ((int(self._philox.random_raw()) >> 32) * limit) >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def choose(self, percents: Sequence[int]) -> int:
        """An index, drawn with the given percentages."""
        value = self.below(100)
        return next(i for i, total in enumerate(itertools.accumulate(percents)) if value < total)

    def shuffled(self, values: Sequence[Any]) -> list[Any]:
        """The values in random order (Fisher-Yates)."""
        out = list(values)
        for last in range(len(out) - 1, 0, -1):
            other = self.below(last + 1)
            out[last], out[other] = out[other], out[last]
        return out

    def weighted(self, values: Sequence[str], weights: Mapping[str, int]) -> list[str]:
        """The values in random order, heavier ones sooner (drawn without replacement)."""
        rest, out = list(values), []
        while rest:
            target = self.below(sum(weights[value] for value in rest))
            totals = itertools.accumulate(weights[value] for value in rest)
            out.append(rest.pop(next(i for i, total in enumerate(totals) if target < total)))
        return out

    def words(self, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """`count` raw 64-bit words."""
        return cast("np.ndarray[Any, np.dtype[np.uint64]]", self._philox.random_raw(count))


@dataclass(frozen=True)
class Lesion:
    """One photograph of one lesion; equal fields give equal pixels at equal size."""

    key: str
    """Identifies the lesion: its shape and the position of its colours follow from the key."""
    label: Label
    asymmetry: int
    """Axes about which the outline is asymmetric: 0, 1 or 2."""
    border: int
    """Irregularity of the outline: 0 (smooth) to 3 (jagged)."""
    colours: tuple[str, ...]
    """One to five of `PIGMENTS`, the ground colour first."""
    tone: int
    """Skin from 1 (very light) to 6 (very dark), as Fitzpatrick types."""
    pattern: str
    """One of `PATTERNS`."""
    view: int = 0
    """Another view is another photograph: framing, light, hair and marks differ."""


def draw(index: int, stream: str, label: Label | None = None) -> Lesion:
    """Lesion number `index` of a stream; the same arguments always give the same lesion.

    Streams are independent of each other. Without `label` the class is a fair coin; with it, the
    attributes are drawn given that class, which is the same joint distribution at another prior.
    """
    rng = RandomIntegers(stream, index)
    coin: Label = "malignant" if rng.below(2) else "benign"
    chosen = label or coin
    asymmetry, border, extra = (rng.choose(law[chosen]) for law in ATTRIBUTES.values())
    ground = PIGMENTS[rng.choose((50, 41, 0, 0, 9, 0))]
    others = rng.weighted([name for name in PIGMENTS if name != ground], _PIGMENT_WEIGHTS)
    return Lesion(
        key=f"{stream}/{index}",
        label=chosen,
        asymmetry=asymmetry,
        border=border,
        colours=(ground, *others[:extra]),
        tone=1 + rng.choose(_TONES),
        pattern=PATTERNS[rng.choose((45, 25, 30))],
    )


def likelihood_ratio(lesion: Lesion) -> Fraction:
    """P(attributes | malignant) / P(attributes | benign), exact."""
    levels = (lesion.asymmetry, lesion.border, len(lesion.colours) - 1)
    ratio = Fraction(1)
    for law, level in zip(ATTRIBUTES.values(), levels, strict=True):
        ratio *= Fraction(law["malignant"][level], law["benign"][level])
    return ratio


def bayes_auc() -> float:
    """Area under the ROC curve of the likelihood ratio, an exact sum over all attribute levels.

    By the Neyman-Pearson lemma no score computed from the pixels has a larger expected AUC.
    """
    cells = []
    for levels in itertools.product(*(range(len(law["benign"])) for law in ATTRIBUTES.values())):
        chance = {"benign": Fraction(1), "malignant": Fraction(1)}
        for law, level in zip(ATTRIBUTES.values(), levels, strict=True):
            for name, percents in law.items():
                chance[name] *= Fraction(percents[level], 100)
        cells.append((chance["malignant"] / chance["benign"], chance))
    area = below = Fraction(0)
    for _, tied in itertools.groupby(sorted(cells, key=lambda c: c[0]), key=lambda c: c[0]):
        chances = [chance for _, chance in tied]
        benign = sum((c["benign"] for c in chances), Fraction(0))
        malignant = sum((c["malignant"] for c in chances), Fraction(0))
        area += malignant * (below + benign / 2)
        below += benign
    return float(area)
