"""What the page says beside an effect: as many real images, an image's worth, what could be seen.

Pure functions on parameters and `seed_means`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import Params
from dermaflux.reporting.pages import interval, number, signed
from dermaflux.statistics import evidence, power
from dermaflux.statistics.evidence import Evidence
from dermaflux.statistics.seed_means import Means


@dataclass(frozen=True)
class Said:
    """Of one architecture."""

    evidence: Evidence
    sentences: tuple[str, ...]


def build(params: Params, means: Means, metric: str, test_images: int) -> dict[str, Said]:
    """Architecture -> what is said; those without both arms, real and mixture, are left out."""
    sizes, synthetic = real_sizes(params)
    if not synthetic:
        return {}
    architectures, found = params.architectures(), {}
    for name in architectures:
        of_arms = evidence.of_architecture(means, name, metric)
        level = params.evaluate.confidence
        seen = evidence.of(of_arms, sizes, synthetic, test_images, level, len(architectures))
        if seen is not None:
            found[name] = Said(seen, (*sentences(seen, synthetic), *visible(seen, test_images)))
    return found


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


def sentences(seen: Evidence, synthetic: int) -> list[str]:
    """What as many real images gained, and what the synthetic ones are worth in real ones."""
    said = []
    if seen.ceiling is not None:
        said.append(
            f"As many further real images ({synthetic:,}) change it by "
            f"{signed(seen.ceiling.value)} ({interval(seen.ceiling, True)})."
        )
    if seen.rate is not None:
        said.append(seen.rate.sentence.replace("-", "\N{MINUS SIGN}") + ".")
    else:
        said.append(f"What one is worth in real images is not known: {seen.why_no_rate}.")
    return said


def visible(seen: Evidence, test_images: int) -> list[str]:
    """Which gain the run could have seen, and what a small one takes."""
    if seen.detectable is None:
        return []
    needed = seen.needed
    small = number(evidence.SMALL, 2)
    if needed.seeds is not None:
        takes = f"one of {small} takes {needed.seeds} seeds"
    elif needed.test_images is not None:
        takes = (
            f"one of {small} takes {needed.test_images:,} test images in place of {test_images:,}, "
            f"and {power.MOST_SEEDS} seeds"
        )
    else:
        takes = f"one of {small} cannot be seen: {needed.reason}"
    said = [
        f"This run sees a gain of {number(seen.detectable)} or more with a probability of 80 %; "
        f"{takes}."
    ]
    if seen.blind:
        said.append("What as many further real images gained lies below that.")
    return said
