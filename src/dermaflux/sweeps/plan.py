"""What a grid will train: parameters of every run, trainings that runs share, passes over images.

Pure functions on parameters and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermaflux.classifiers.data import subset
from dermaflux.errors import InputError
from dermaflux.params import ENLARGED, Params, load
from dermaflux.sweeps.grid import Run, applied


@dataclass(frozen=True)
class Training:
    """A classifier that is trained once, however many runs of a grid hold it.

    Runs share it when the arm's images and settings are the same: the second run takes the result
    from its checkpoint.
    """

    architecture: str
    seed: int
    arm: str
    real: str
    """Which real images: n_real, or a share of the training split."""
    images: int
    """Images of an epoch, repeated ones counted."""
    epochs: int
    synthetic: int
    generator: str
    settings: str
    """Everything else that decides the weights, as text."""


def resolve(raw: dict[str, Any], runs: Sequence[Run]) -> list[Params]:
    """Parameters of every run; raise `InputError` that names the run and what is wrong with it."""
    found = []
    for run in runs:
        try:
            found.append(load.parse(applied(raw, run.overrides), run.name))
        except InputError as error:
            raise InputError(f"nothing is queued: {error}") from None
    return found


def check_counts(name: str, params: Params, training_split: Mapping[str, int]) -> None:
    """Raise `InputError` when a class of the training split is too small for the run's n_real."""
    if params.real_fraction is not None:
        return
    try:
        subset.check_real(training_split, params.n_real)
    except InputError as error:
        raise InputError(f"nothing is queued: {name}: {error}") from None


def real_images(params: Params, training_images: int | None) -> int:
    """Real images of a run; a share of an unknown training split counts none."""
    if params.real_fraction is None:
        return params.n_real
    return round(params.real_fraction * (training_images or 0))


def trainings(params: Params, training_images: int | None) -> list[Training]:
    """Classifiers of one run. `training_images` is the size of the split, for `real_fraction`."""
    real = real_images(params, training_images)
    wanted = params.synthetic_wanted(real)
    settings = params.train.model_dump(exclude={"architectures", "seeds", "arms", "models"})
    found: dict[Training, None] = {}
    for architecture in params.train.architectures:
        model = params.train.models[architecture].model_dump()
        for seed in params.train.seeds:
            for arm in params.train.arms:
                own = arm
                if arm in ("mixture", "repeated") and not wanted:
                    own = "real"
                mixed = own == "mixture"
                enlarged = own in ENLARGED
                source = f"{params.generator} {params.synthesize.model_dump()}" if mixed else ""
                fraction = params.real_fraction
                one = Training(
                    architecture,
                    seed,
                    own,
                    f"{fraction} of the split" if fraction else f"{params.n_real}",
                    real + wanted if enlarged else real,
                    params.train.epochs,
                    wanted if mixed else 0,
                    source,
                    f"{settings} {model} {params.ingest.policy}",
                )
                found[one] = None
    return list(found)


def distinct(runs: Sequence[Sequence[Training]]) -> list[Training]:
    """The trainings of all runs, each once, in the order they first occur."""
    return list(dict.fromkeys(training for run in runs for training in run))


def passes(trainings: Sequence[Training], validation_images: int) -> dict[str, tuple[int, int]]:
    """Architecture -> images trained on, and images only scored (validation), over all epochs."""
    found: dict[str, tuple[int, int]] = {}
    for one in trainings:
        trained, scored = found.get(one.architecture, (0, 0))
        found[one.architecture] = (
            trained + one.images * one.epochs,
            scored + validation_images * one.epochs,
        )
    return found


def seconds(work: Mapping[str, tuple[int, int]], rates: Mapping[str, tuple[float, float]]) -> float:
    """Time for `passes`; `rates` are images per second (trained, scored) of each architecture."""
    return sum(
        trained / rates[name][0] + scored / rates[name][1]
        for name, (trained, scored) in work.items()
    )


def duration(value: float) -> str:
    """Seconds as a reader says them: `40 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if value < limit:
            return f"{value / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{value / 86400:.1f} days"
