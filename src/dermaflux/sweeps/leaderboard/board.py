"""The rows of a leaderboard, from experiments that were read and from submissions. Pure."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence

from dermaflux.errors import InputError
from dermaflux.statistics import effects, evidence
from dermaflux.sweeps.contrasts import Resampled
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.leaderboard import protocol, ranks, rows, schema
from dermaflux.sweeps.leaderboard.rows import Measured


def build(
    name: str,
    definition: Grid,
    measured: Sequence[Measured],
    missing: Mapping[str, str],
    resampled: Resampled,
    commit: str,
    submitted: Sequence[schema.Entry] = (),
) -> schema.Leaderboard:
    """The leaderboard of a grid with `pools`; `missing`: pool -> why it is not run.

    Raises `InputError` for experiments of different protocols, and without an arm that is ranked.
    """
    first = measured[0].experiment
    _check_alike(measured)
    twice = _twice(measured)
    unique = [each for each in measured if each.experiment.run.name not in twice]
    architectures = first.params.architectures()
    comparisons = (len(unique) + len(submitted)) * len(architectures)
    found = {
        (each.experiment.run.block, architecture): rows.evidence_of(
            each.experiment, first, architecture, resampled, comparisons
        )
        for each in unique
        for architecture in architectures
    }
    p_values = dict(zip(found, effects.holm([row.gain.p for row in found.values()]), strict=True))
    entries = [rows.entry(definition, each, found, p_values, comparisons) for each in unique]
    _, synthetic = evidence.real_sizes(first.params)
    return schema.Leaderboard(
        schema=schema.VERSION,
        grid=name,
        dermaflux=importlib.metadata.version("dermaflux"),
        commit=commit,
        protocol=schema.Protocol.of(protocol.parameters(first.params)),
        test=protocol.test_split(first),
        real=first.params.n_real,
        synthetic=synthetic,
        sizes=rows.sizes(first),
        ceilings={
            architecture: rows.ceiling(seen.ceiling)
            for architecture in architectures
            for seen in [found[first.run.block, architecture]]
            if seen.ceiling is not None
        },
        confidence=first.params.evaluate.confidence,
        joint_confidence=ranks.joint_confidence(
            first.params.evaluate.confidence,
            [each.comparisons for each in (*entries, *submitted) for _ in architectures],
        ),
        entries=[
            *ranked([*entries, *submitted]),
            *(
                rows.not_run(definition, pool, why)
                for pool, why in {**missing, **_blocks(twice)}.items()
            ),
        ],
    )


def _check_alike(measured: Sequence[Measured]) -> None:
    first = measured[0].experiment
    parameters = protocol.parameters(first.params)
    for each in measured[1:]:
        run = each.experiment.run
        difference = protocol.differs(parameters, protocol.parameters(each.experiment.params))
        if difference:
            raise InputError(
                f"{run.name} and {first.run.name} are of different protocols ({difference}), so "
                "they cannot be ranked; queue the grid again from one commit"
            )


def _twice(measured: Sequence[Measured]) -> dict[str, tuple[str, str]]:
    """Run whose images another one has shown -> its pool and that one's."""
    first: dict[str, str] = {}
    found = {}
    for each in measured:
        run, pool = each.experiment.run, each.experiment.pool
        other = first.setdefault(pool or run.name, run.block)
        if other != run.block:
            found[run.name] = (run.block, other)
    return found


def _blocks(twice: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    return {
        pool: f"its images are those of {other}, by DVC's hash, and are ranked there"
        for pool, other in twice.values()
    }


def ranked(entries: Sequence[schema.Entry]) -> list[schema.Entry]:
    """The entries with the ranks of their exchange rates, best first."""
    given: dict[tuple[str, str], schema.Rank] = {}
    for architecture in dict.fromkeys(row.architecture for each in entries for row in each.results):
        rated = [
            (each.pool, row.rate)
            for each in entries
            for row in each.results
            if row.architecture == architecture and row.rate is not None
        ]
        found = ranks.ranges([(rate.low, rate.high) for _, rate in rated])
        for (pool, _), (best, worst) in zip(rated, found, strict=True):
            given[pool, architecture] = schema.Rank(best=best, worst=worst)
    changed = [
        each.model_copy(
            update={
                "results": [
                    row.model_copy(update={"rank": given.get((each.pool, row.architecture))})
                    for row in each.results
                ]
            }
        )
        for each in entries
    ]
    return sorted(changed, key=_order)


def _order(entry: schema.Entry) -> tuple[float, float, str]:
    """By the mean exchange rate over architectures; those without one by what they gained."""
    rates = [row.rate.value for row in entry.results if row.rate is not None]
    gains = [row.gain.value for row in entry.results]
    return (
        -sum(rates) / len(rates) if rates else math.inf,
        -sum(gains) / len(gains),
        entry.pool,
    )
