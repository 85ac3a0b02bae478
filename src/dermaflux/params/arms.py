"""The arms of a cell: their names, what some of them have in common, and how people see them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dermaflux.errors import quoted

ARMS = (
    *("real", "mixture", "repeated", "augmented", "more_real", "shuffled", "random_features"),
    *("scratch", "no_teacher"),
)
"""`real`: n_real real images. `mixture`: the same and ratio x n_real synthetic ones. Controls with
which a gain of `mixture` is compared: `repeated`: real images repeated to the mixture's number;
`augmented`: the same with strong classical augmentation; `more_real`: as many further real images
in place of the synthetic ones, which is what perfect ones would be; `shuffled`: the mixture with
the labels of its synthetic images permuted; `random_features`: the real images on the frozen
network at its random initial weights, of which the last layer alone is trained; `scratch`: the real
images on the whole network from random weights, where the others start from pretrained ones;
`no_teacher`, of students alone: the mixture's images for as many steps, without the teacher."""


def _known(name: str) -> str:
    if name not in ARMS:
        raise ValueError(f"there is no arm {quoted(name)}; name one of {', '.join(ARMS)}")
    return name


Arm = Annotated[str, Field(max_length=64), AfterValidator(_known)]
"""A name that `train.arms` may list; what is trained are these and those of `curve_arm`."""
MIXED: tuple[Arm, ...] = ("mixture", "no_teacher", "shuffled")
"""Arms that show the mixture's synthetic images."""
UNTRAINED: tuple[Arm, ...] = ("random_features", "scratch")
"""Arms that start from random weights, whatever the model names."""
REPEATING: tuple[Arm, ...] = ("repeated", "augmented")
"""Arms that show real images again in place of the mixture's synthetic ones."""
ENLARGED: tuple[Arm, ...] = (*MIXED, *REPEATING, "more_real")
"""Arms whose number of images depends on `ratio`."""
LEARNED: tuple[Arm, ...] = ("real", "mixture", "no_teacher", *REPEATING, "more_real", "scratch")
"""Arms that can be promoted: their networks learned features, from labels that are true."""
REAL_AT_ZERO: tuple[Arm, ...] = ("mixture", "shuffled", "repeated", "more_real")
"""Arms that are the arm `real` where nothing is added."""

_CURVE = "real_x"


def curve_arm(multiple: float) -> str:
    """The arm of real images alone, `multiple` times n_real: `real_x0.5`; 1 is `real`."""
    return "real" if multiple == 1 else f"{_CURVE}{multiple:g}"


TITLES: dict[str, str] = {
    "real": "real only",
    "mixture": "real + synthetic",
    "repeated": "real, repeated",
    "augmented": "real, strongly augmented",
    "more_real": "real + further real",
    "shuffled": "real + synthetic, labels shuffled",
    "random_features": "real, random features",
    "no_teacher": "real + synthetic, no teacher",
    "scratch": "real, from scratch",
}
COLOURS: dict[str, str] = {
    "real": "#2f6db3",
    "mixture": "#d9772b",
    "repeated": "#5d8a3c",
    "augmented": "#8a5fb0",
    "more_real": "#2a9d9d",
    "shuffled": "#c77fa6",
    "random_features": "#7d8894",
    "no_teacher": "#b8a13a",
    "scratch": "#b5475f",
}
"""Hexadecimal RGB."""


def title(arm: str) -> str:
    """An arm in words: `real only`; of another size of the curve `real only, × 0.5`."""
    return TITLES.get(arm) or f"{TITLES['real']}, × {arm.removeprefix(_CURVE)}"


def colour(arm: str) -> str:
    """Hexadecimal RGB of an arm; all sizes of the curve are `real`."""
    return COLOURS.get(arm, COLOURS["real"])
