"""A row of the leaderboard from one experiment. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dermaflux.errors import InputError
from dermaflux.statistics import evidence
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evidence import Evidence
from dermaflux.statistics.exchange_rate import ExchangeRate
from dermaflux.statistics.seed_means import SeedMean
from dermaflux.sweeps.contrasts import Resampled
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.leaderboard import schema
from dermaflux.sweeps.leaderboard.images import Images
from dermaflux.sweeps.outcomes import Experiment


@dataclass(frozen=True)
class Measured:
    """An experiment with what is known of its pool."""

    experiment: Experiment
    images: Images


def evidence_of(
    experiment: Experiment,
    reference: Experiment,
    architecture: str,
    resampled: Resampled,
    comparisons: int,
) -> Evidence:
    """Exchange rate and gain of an experiment's mixture over the real images of the `reference`.

    Raises `InputError` without the arms that it needs.
    """
    sizes, synthetic = evidence.real_sizes(experiment.params)
    means = {}
    for arm in (*sizes, "mixture"):
        # One learning curve for all pools, even where two machines have trained it.
        source = experiment if arm == "mixture" else reference
        scores = source.scores.get((architecture, arm))
        if scores is not None:
            values = [float(each["auc"]) for each in source.metrics[architecture, arm]]
            each_seed = resampled.by_seed("auc", scores)
            means[arm] = SeedMean(np.array(values), each_seed.mean(axis=0), each_seed)
    confidence = experiment.params.evaluate.confidence
    images = len(experiment.image_ids)
    seen = evidence.of(means, sizes, synthetic, images, confidence, comparisons)
    if seen is None:
        raise InputError(
            f"{experiment.run.name} has no arms real and mixture of {architecture}, and pools are "
            "ranked by these; add both to train.arms and queue the grid again"
        )
    return seen


def entry(
    definition: Grid,
    measured: Measured,
    found: Mapping[tuple[str, str], Evidence],
    p_values: Mapping[tuple[str, str], float],
    comparisons: int,
) -> schema.Entry:
    """What was measured, without its ranks; `found` and `p_values`: by pool and architecture."""
    experiment, images = measured.experiment, measured.images
    name, audit = experiment.run.block, images.audit
    pool = definition.pools[name]
    return schema.Entry(
        pool=name,
        state="measured",
        reason="",
        generator=experiment.params.generator,
        licence=pool.licence or images.licence or "not stated",
        url=pool.url,
        pool_hash=experiment.pool or "",
        images=int(audit["images"]),
        memorised=int(audit["memorised_count"]),
        kid=None
        if audit["kid"] is None
        else schema.Kid(
            value=float(audit["kid"]),
            low=audit.get("kid_low"),
            high=audit.get("kid_high"),
            features=experiment.params.audit.trunk,
        ),
        images_per_second=images.per_second if experiment.params.samples() else None,
        device=images.device if experiment.params.samples() else "",
        comparisons=comparisons,
        results=[
            _result(architecture, seen, p_values[key])
            for key, seen in found.items()
            if key[0] == name
            for architecture in [key[1]]
        ],
    )


def _result(architecture: str, seen: Evidence, p: float) -> schema.Result:
    low, high = _limits(seen.gain)
    known = None if math.isnan(p) else p
    return schema.Result(
        architecture=architecture,
        seeds=seen.gain.seeds,
        rate=None if seen.rate is None else _rate(seen.rate),
        why_no_rate=seen.why_no_rate[:500],
        gain=schema.Gain(value=seen.gain.value, low=low, high=high, p=known),
        detectable=seen.detectable,
        rank=None,
    )


def _rate(rate: ExchangeRate) -> schema.Rate:
    each = rate.each
    return schema.Rate(value=each.value, low=each.low, high=each.high, bound=each.bound)


def ceiling(effect: Effect) -> schema.Ceiling:
    """What as many further real images gain."""
    low, high = _limits(effect)
    return schema.Ceiling(value=effect.value, low=low, high=high)


def _limits(effect: Effect) -> tuple[float | None, float | None]:
    return (effect.low, effect.high) if effect.has_interval else (None, None)


def sizes(experiment: Experiment) -> list[schema.Size]:
    """The learning curve of real images alone, by architecture and number."""
    sizes, _ = evidence.real_sizes(experiment.params)
    found = {
        (architecture, sizes[arm]): sum(float(each["auc"]) for each in per_seed) / len(per_seed)
        for (architecture, arm), per_seed in experiment.metrics.items()
        if arm in sizes
    }
    return [
        schema.Size(architecture=name, images=images, auc=auc)
        for (name, images), auc in sorted(found.items())
    ]


def not_run(definition: Grid, name: str, why: str) -> schema.Entry:
    """A pool of the grid of which nothing was measured."""
    pool = definition.pools[name]
    return schema.Entry(
        pool=name,
        state="not run",
        reason=why[:500],
        generator=str(pool.overrides()["generator"]),
        licence=pool.licence or "not stated",
        url=pool.url,
        pool_hash="",
        images=0,
        memorised=0,
        kid=None,
        images_per_second=None,
        device="",
        comparisons=1,
        results=[],
    )
