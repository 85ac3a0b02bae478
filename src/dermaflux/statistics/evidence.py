"""What a run says about its synthetic images: their gain, what as many real images gained, what one
of them is worth, and which gain it could have seen at all. Pure functions on `seed_means`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.statistics import effects, learning_curve, power
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.exchange_rate import ExchangeRate, exchange_rate
from dermaflux.statistics.power import Criterion, SeedsNeeded
from dermaflux.statistics.seed_means import Means, SeedMean

SMALL = 0.02
"""A difference in AUC that is worth having; the published gains are between 0.01 and 0.06."""


@dataclass(frozen=True)
class Evidence:
    """Of one architecture, in the metric that was asked for."""

    gain: Effect
    """mixture - real, its interval simultaneous for all architectures."""
    ceiling: Effect | None
    """more_real - real: what perfect synthetic images would have gained; None where not trained."""
    detectable: float | None
    """The smallest true gain that this run calls significant with 80 % probability."""
    rate: ExchangeRate | None
    why_no_rate: str
    """One sentence without its full stop, or empty."""
    needed: SeedsNeeded
    """For a gain of `SMALL`."""
    real: float
    """What real images alone reach."""

    @property
    def no_room(self) -> bool:
        """Whether real images alone leave a gain no room."""
        return self.real >= learning_curve.CEILING

    @property
    def blind(self) -> bool:
        """Whether nothing could be gained, or as many real images gained less than can be seen."""
        if self.no_room:
            return True
        if self.detectable is None or self.ceiling is None:
            return False
        return self.ceiling.value < self.detectable


def of(
    means: Mapping[str, SeedMean],
    sizes: Mapping[str, int],
    synthetic: int,
    test_images: int,
    confidence: float,
    comparisons: int,
) -> Evidence | None:
    """Evidence from the arms of one architecture; None without both arms, real and mixture.

    `sizes`: arm of real images alone -> how many it was trained on, empty where that is not known;
    `comparisons`: as in `effects.effect`.
    """
    if "real" not in means or "mixture" not in means:
        return None
    real, mixture, criterion = means["real"], means["mixture"], Criterion(confidence, comparisons)
    ceiling = None
    if "more_real" in means:
        ceiling = means["more_real"].minus(real, confidence, comparisons)
    differences, resampled = mixture.values - real.values, mixture.resampled - real.resampled
    over_seeds, over_images = effects.variances(differences, resampled)
    rate, why = None, ""
    try:
        if not sizes:
            raise InputError(
                "real_fraction draws a share of the training split, and a learning curve is over "
                "numbers of real images; set n_real in its place"
            )
        if real.values.mean() >= learning_curve.CEILING:
            raise InputError(
                f"real images alone reach {real.values.mean():.4f} ({learning_curve.CEILING} and "
                "more is the ceiling), where no gain can show; use fewer real images or a harder "
                "test split"
            )
        curve = {size: means[arm].by_seed for arm, size in sizes.items() if arm in means}
        rate = exchange_rate(
            curve, mixture.by_seed, sizes["real"], synthetic, confidence, comparisons
        )
    except InputError as error:
        why = str(error)
    return Evidence(
        mixture.minus(real, confidence, comparisons),
        ceiling,
        power.minimum_detectable(differences, resampled, criterion),
        rate,
        why,
        power.seeds_needed(
            SMALL, over_seeds * len(differences), over_images, criterion, test_images
        ),
        float(real.values.mean()),
    )


def real_sizes(params: Params) -> tuple[dict[str, int], int]:
    """Arm of real images alone -> how many, and the synthetic images of the mixture.

    Empty where `real_fraction` draws a share of a split whose size is not a parameter.
    """
    if params.real_fraction is not None or not params.n_real:
        return {}, 0
    # As many of each class, as they are drawn.
    count, synthetic = (
        len(CLASSES) * (images // len(CLASSES))
        for images in (params.n_real, params.synthetic_wanted())
    )
    sizes = {arm: len(CLASSES) * n for arm, n in params.curve_sizes().items()}
    return {**sizes, "real": count, "more_real": count + synthetic}, synthetic


def of_architecture(means: Means, architecture: str, metric: str) -> dict[str, SeedMean]:
    """Arm -> the mean of one metric."""
    return {arm: row[metric] for (name, arm), row in means.items() if name == architecture}
