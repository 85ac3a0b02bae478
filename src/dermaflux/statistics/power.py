"""Power: which true difference a run would have called significant, and what a smaller one takes.

The test is that of `effects.effect`. Where a difference exists, its statistic follows a noncentral
t: exactly where only seeds or only test images vary, with Satterthwaite's degrees of freedom where
both do (a nominal power of 80 % is then 76 to 80 % with three seeds). What counts is a call in the
right direction. The variances are estimates: with three seeds the standard deviation over seeds may
be half or six times what it seems. Pure functions on numpy arrays.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from dermaflux.core.arrays import Array
from dermaflux.statistics import effects

MOST_SEEDS = 100  # nobody trains more
NOTHING_VARIES = (
    "the arms differ alike in all seeds and resamples, as where both have an AUC of 1, which does "
    "not show what chance does"
)


@dataclass(frozen=True)
class Criterion:
    """When a difference counts as seen."""

    confidence: float
    comparisons: int = 1
    """Simultaneous intervals, as in `effects.effect`."""
    power: float = 0.8
    """Probability that a true difference is called significant."""
    cautious: bool = False
    """As in `effects.standard_error`."""

    def detectable(self, over_seeds: float, over_images: float, seeds: int) -> float:
        """The smallest true difference that is seen, from the variances of its mean."""
        from scipy.special import nctdtrinc

        error, freedom = effects.standard_error(over_seeds, over_images, seeds, self.cautious)
        limit = effects.critical(freedom, self.confidence, self.comparisons)
        return max(float(nctdtrinc(freedom, 1 - self.power, limit)), 0.0) * error


@dataclass(frozen=True)
class SeedsNeeded:
    """What it takes to see a difference."""

    seeds: int | None
    """The fewest, two or more; None where no number up to the limit is enough."""
    test_images: int | None = None
    """Where the test images are why `seeds` is None: how many do with the most seeds."""
    reason: str = ""
    """Why `seeds` is None: one sentence without its full stop."""


def minimum_detectable(
    differences: Array, resampled_means: Array, criterion: Criterion
) -> float | None:
    """The smallest true difference that a run calls significant with its criterion's power.

    The arrays are those of `effects.effect`. With one seed it speaks of other test images only,
    without resamples of other seeds only; None where there is neither, and where nothing varies,
    which shows no test what chance does.
    """
    over_seeds, over_images = effects.variances(differences, resampled_means)
    if math.isnan(over_seeds) and math.isnan(over_images) or _nothing(over_seeds, over_images):
        return None
    return criterion.detectable(over_seeds, over_images, len(differences))


def _nothing(*variances: float) -> bool:
    """Whether all that are known are 0, up to rounding; `effects.effect` has the same limit."""
    known = [variance for variance in variances if not math.isnan(variance)]
    return bool(known) and sum(known) < 1e-24


def seeds_needed(
    difference: float,
    over_seeds: float,
    over_images: float,
    criterion: Criterion,
    test_images: int | None = None,
    most_seeds: int = MOST_SEEDS,
) -> SeedsNeeded:
    """How many seeds it takes to see a true `difference` (above 0) with the criterion's power.

    `over_seeds`: variance of the difference from seed to seed, which is S times that of their mean
    in `effects.variances`; NaN where one seed was trained. `over_images`: the variance over sets of
    `test_images` test images, which more seeds do not lower (NaN or 0 where it is not to count) and
    which is inversely proportional to their number.
    """
    if difference <= 0:
        raise ValueError(f"a difference of {difference} cannot be seen; it must be above 0")
    if _nothing(over_seeds, over_images):
        return SeedsNeeded(None, reason=NOTHING_VARIES)
    if math.isnan(over_seeds):
        return SeedsNeeded(None, reason="one seed does not show how seeds differ; train several")

    def least(seeds: int, images: float = over_images) -> float:
        return criterion.detectable(over_seeds / seeds, images, seeds)

    if least(most_seeds) <= difference:  # more seeds see more
        numbers = range(2, most_seeds + 1)
        enough = bisect.bisect_left(numbers, True, key=lambda seeds: least(seeds) <= difference)
        return SeedsNeeded(numbers[enough])
    if least(most_seeds, 0.0) >= difference:
        reason = (
            f"seeds differ too much: even on any number of test images {most_seeds} of them see "
            f"a difference of {least(most_seeds, 0.0):.4f} or more, not one of {difference:.4f}"
        )
        return SeedsNeeded(None, reason=reason)
    reason = (
        f"{most_seeds} seeds on these test images see a difference of {least(most_seeds):.4f} or "
        f"more, not one of {difference:.4f}"
    )
    if test_images is None:
        return SeedsNeeded(None, reason=reason)

    def seen(images: int) -> bool:
        return least(most_seeds, over_images * test_images / images) <= difference

    largest = test_images
    while not seen(largest):
        largest *= 2
    numbers = range(test_images, largest + 1)
    images = numbers[bisect.bisect_left(numbers, True, key=seen)]
    reason = f"{reason}; that takes {images:,} test images in place of {test_images:,}"
    return SeedsNeeded(None, images, reason)
