"""What the page says beside an effect: as many real images, an image's worth, what could be seen.

Pure functions on parameters and `seed_means`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dermaflux.params import Params
from dermaflux.reporting.pages import interval, number, signed
from dermaflux.statistics import evidence, power
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evidence import Evidence
from dermaflux.statistics.seed_means import Means


@dataclass(frozen=True)
class Said:
    """Of one architecture."""

    evidence: Evidence
    sentences: tuple[str, ...]


def build(params: Params, means: Means, metric: str, test_images: int) -> dict[str, Said]:
    """Architecture -> what is said; those without both arms, real and mixture, are left out."""
    if not _added(params):
        return {}
    sizes, synthetic = evidence.real_sizes(params)
    architectures, found = params.architectures(), {}
    for name in architectures:
        of_arms = evidence.of_architecture(means, name, metric)
        level = params.evaluate.confidence
        seen = evidence.of(of_arms, sizes, synthetic, test_images, level, len(architectures))
        if seen is not None:
            said = (*sentences(params, name, seen, synthetic), *visible(seen, test_images))
            found[name] = Said(seen, said)
    return found


def by_architecture(params: Params, said: Mapping[str, Said]) -> dict[str, tuple[str, ...]]:
    """Architecture -> sentences, of all in `said`; of every one where nothing was added."""
    found = {name: each.sentences for name, each in said.items()}
    if not _added(params):
        unknown = f"What one is worth in real images is not known: {why_no_rate(params, None)}."
        found = dict.fromkeys(params.architectures(), (unknown,))
    return found


def _added(params: Params) -> float:
    """What the mixture adds: synthetic images, or their ratio; 0 where it equals the arm real."""
    return params.ratio if params.n_synthetic is None else params.n_synthetic


def why_no_ceiling(params: Params, architecture: str) -> str:
    """Why as many further real images were not tried: one sentence without its full stop."""
    if not _added(params):
        return why_no_rate(params, None)
    if "more_real" in params.training(architecture).arms:
        return "the training split holds too few for the arm more_real"
    if architecture in params.distill.students:
        return "a student has no arm more_real"
    return "more_real is not among train.arms"


def why_no_power(gain: Effect) -> str:
    """Why it is not known what could be seen: one sentence without its full stop."""
    if gain.has_interval:
        return power.NOTHING_VARIES
    return "one seed and no resamples, so there is no interval to judge by"


def why_no_rate(params: Params, seen: Evidence | None) -> str:
    """Why it is not known what one image is worth: one sentence without its full stop."""
    if seen is None:
        which = "ratio" if params.n_synthetic is None else "n_synthetic"
        return f"{which} is {_added(params):g}, so the mixture has no synthetic images; raise it"
    return seen.why_no_rate if seen.rate is None else seen.rate.sentence


def sentences(params: Params, architecture: str, seen: Evidence, synthetic: int) -> list[str]:
    """What as many real images gained, and what the synthetic ones are worth in real ones.

    `synthetic`: how many there are, 0 where that is not known.
    """
    said, count = [], f" ({synthetic:,})" if synthetic else ""
    if seen.ceiling is None:
        reason = why_no_ceiling(params, architecture)
        said.append(f"What as many further real images{count} change is not known: {reason}.")
    else:
        said.append(
            f"As many further real images{count} change it by "
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
        return [f"Which gain this run could have seen is not known: {why_no_power(seen.gain)}."]
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
    if seen.blind and not seen.no_room:
        said.append("What as many further real images gained lies below that.")
    return said
