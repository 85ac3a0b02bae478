"""What a grid will train: the parameters of every run, shared trainings, images to be seen.

Pure functions on parameters and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermaflux.classifiers.data import real_draws
from dermaflux.errors import InputError
from dermaflux.params import ENLARGED, MIXED, UNTRAINED, Params, load
from dermaflux.params.arms import REAL_AT_ZERO
from dermaflux.sweeps.grid import Run, with_overrides


@dataclass(frozen=True)
class Training:
    """A classifier that is trained once, however many runs of a grid contain it.

    Runs share it when the arm's images and settings are the same: the second run loads the result
    from its checkpoint.
    """

    architecture: str
    seed: int
    arm: str
    real: str
    """Which real images: n_real, or a fraction of the training split."""
    images: int
    """Images per epoch, repeated ones included."""
    epochs: int
    synthetic: int
    generator: str
    """What decides the synthetic images, as text; empty without any."""
    settings: str
    """Everything else that decides the weights, as text."""


def resolve(raw: dict[str, Any], runs: Sequence[Run]) -> list[Params]:
    """Parameters of every run; raise an `InputError` that names the run and its problem."""
    resolved = []
    for run in runs:
        try:
            resolved.append(load.parse(with_overrides(raw, run.overrides), run.name))
        except InputError as error:
            raise InputError(f"nothing is queued: {error}") from None
    return resolved


def check_counts(name: str, params: Params, available: Mapping[str, int]) -> None:
    """Raise `InputError` when the `available` images of a class are too few for the run's n_real.

    They are those of the training split that its draw can take.
    """
    if params.real_fraction is not None:
        return
    try:
        real_draws.check(params, available)
    except InputError as error:
        raise InputError(f"nothing is queued: {name}: {error}") from None


def real_images(params: Params, training_images: int | None) -> int:
    """Real images of a run; 0 for a fraction of a training split of unknown size."""
    if params.real_fraction is None:
        return params.n_real
    return round(params.real_fraction * (training_images or 0))


def trainings(
    params: Params, training_images: int | None, available: Mapping[str, int] | None = None
) -> list[Training]:
    """Classifiers of one run. `training_images` is the size of the training split, if known.

    So are the `available` images of each class; arms that need more are not trained on more.
    """
    real = real_images(params, training_images)
    n_synthetic = params.synthetic_wanted(real)
    pool = f"{params.generator} {params.synthesize.model_dump()}"
    trainings = []
    for architecture in params.architectures():
        section = params.training(architecture)
        settings = section.model_dump(exclude={"architectures", "seeds", "arms", "curve", "models"})
        sizes = params.curve_sizes()
        short = shortages(params, available, section.arms)
        model = section.models[architecture].model_dump()
        # Pretrained weights and teachers depend on what they saw, not on what a classifier sees.
        here = section.models[architecture].pretrained_here
        started = f"{params.pretrain} {pool}" if here else ""
        taught = ""
        if architecture in params.distill.students:
            teacher = params.train.models[params.distill.teacher]
            taught = f"{params.distill} {teacher} {params.pretrain} {params.train.arms} "
            taught += f"{n_synthetic} {pool}"
        for seed in params.train.seeds:
            for arm in section.arms:
                if arm in sizes and arm in short:
                    continue
                # Without synthetic images these arms train on the real images, once each.
                same_as_real = arm in REAL_AT_ZERO and (not n_synthetic or arm in short)
                trained_as = "real" if same_as_real or arm in sizes else arm
                of_class = sizes.get(arm)
                count = real if of_class is None else 2 * of_class
                mixed = trained_as in MIXED
                fraction = params.real_fraction
                trainings.append(
                    Training(
                        architecture,
                        seed,
                        trained_as,
                        f"{fraction} of the split" if fraction else f"{count}",
                        real + n_synthetic if trained_as in ENLARGED else count,
                        section.epochs,
                        n_synthetic if mixed else 0,
                        pool if mixed else "",
                        f"{settings} {model} {params.ingest.policy} "
                        f"{started if arm not in UNTRAINED else ''} "
                        f"{taught if arm != 'no_teacher' else ''}",
                    )
                )
    return list(dict.fromkeys(trainings))


def shortages(
    params: Params, available: Mapping[str, int] | None, arms: Sequence[str]
) -> Mapping[str, str]:
    """Arm -> why it cannot be trained on the `available` images of each class, if known."""
    asked = "more_real" in arms or params.train.curve
    if available is None or not asked or params.train.labels != "malignancy":
        return {}
    return real_draws.choose(params, available, arms).shortages


def distinct(runs: Sequence[Sequence[Training]]) -> list[Training]:
    """The trainings of all runs without repetition, in the order of their first occurrence."""
    return list(dict.fromkeys(training for run in runs for training in run))


def passes(trainings: Sequence[Training], validation_images: int) -> dict[str, tuple[int, int]]:
    """Architecture -> images trained on, and validation images scored, over all epochs."""
    totals: dict[str, tuple[int, int]] = {}
    for training in trainings:
        trained, scored = totals.get(training.architecture, (0, 0))
        totals[training.architecture] = (
            trained + training.images * training.epochs,
            scored + validation_images * training.epochs,
        )
    return totals


def seconds(work: Mapping[str, tuple[int, int]], rates: Mapping[str, tuple[float, float]]) -> float:
    """Seconds for `passes`; `rates` are images per second (training, scoring) by architecture."""
    return sum(
        trained / rates[name][0] + scored / rates[name][1]
        for name, (trained, scored) in work.items()
    )


def duration(value: float) -> str:
    """Seconds in a readable unit: `40 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if value < limit:
            return f"{value / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{value / 86400:.1f} days"
