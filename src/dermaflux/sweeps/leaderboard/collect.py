"""A grid with pools, from its finished experiments and from submissions to its leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dermaflux.core.arrays import Array
from dermaflux.params import load
from dermaflux.sweeps.contrasts import Resampled
from dermaflux.sweeps.grid import Grid, Run
from dermaflux.sweeps.leaderboard import available, board, images, submissions
from dermaflux.sweeps.leaderboard.rows import Measured
from dermaflux.sweeps.leaderboard.schema import Leaderboard
from dermaflux.sweeps.outcomes import Experiment


def collect(
    name: str,
    definition: Grid,
    experiments: Sequence[Experiment],
    finished: Mapping[str, str],
    missing: Sequence[Run],
    groups: Array,
    commit: str,
    submitted: Sequence[Path],
) -> tuple[Leaderboard, list[str]]:
    """The leaderboard, and a sentence for each submission that it does not show.

    `finished`: run -> commit of its experiment; `groups`: (N,) lesion numbers of the test images;
    `commit`: from which the experiments started. Raises `InputError` for experiments that cannot be
    ranked together.
    """
    measured = [
        Measured(each, images.read(each.run.name, finished[each.run.name], each.pool))
        for each in experiments
    ]
    reasons = available.why_missing(load.read(), missing)
    absent = {run.block: reasons[run.name] for run in missing}
    first = experiments[0]
    resampled = Resampled(first.labels, groups, first.params.evaluate.bootstrap_samples)
    ours = board.build(name, definition, measured, absent, resampled, commit)
    accepted, refused = submissions.accept(submitted, ours)
    if accepted:
        ours = board.build(name, definition, measured, absent, resampled, commit, accepted)
    return ours, refused
