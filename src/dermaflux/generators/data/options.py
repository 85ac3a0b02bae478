"""Values that generators on latents share, and which of them go together. Pure.

`generator` is the name of the generator, as in `params.choices.GENERATORS`: the errors name its
parameters.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Prediction = Literal["epsilon", "v", "flow"]
Schedule = Literal["linear", "scaled_linear"]
SamplerName = Literal["ddpm", "ddim", "dpm_solver", "euler"]
Beta = Annotated[float, Field(gt=0.0, lt=1.0)]
BACKBONE = "backbone"
"""Value of `latents` that stands for the autoencoder of models/backbone/."""
TIMESTEPS = 1000
"""T, published by both papers."""
_LEAST_SIGNAL = 1e-30
"""alpha-bar of the last step: float32 rounds what is below 1e-45 to 0, which gives NaN."""


def beta(schedule: Schedule, start: float, end: float, step: int) -> float:
    """beta of a step in 0..T-1: linear (Ho et al. 2020), or of its root (Rombach et al. 2022)."""
    part = step / (TIMESTEPS - 1)
    if schedule == "linear":
        return start + (end - start) * part
    return float((start**0.5 + (end**0.5 - start**0.5) * part) ** 2)


def check_betas(
    generator: str, schedule: Schedule, start: float, end: float, prediction: Prediction
) -> None:
    """Raise `ValueError` where noise shrinks, or where the last step leaves no signal."""
    if start > end:
        raise ValueError(
            f"finetune.{generator}.beta_start {start:g} is greater than beta_end {end:g}; noise "
            "must grow with the step, so exchange them"
        )
    signal = 1.0
    for step in range(TIMESTEPS):
        signal *= 1 - beta(schedule, start, end, step)
    if prediction != "flow" and signal < _LEAST_SIGNAL:
        usual = 0.02 if schedule == "linear" else 0.012
        raise ValueError(
            f"finetune.{generator}.beta_end {end:g} leaves {signal:.1g} of the signal at the last "
            f"step, less than {_LEAST_SIGNAL:g}; lower it, such as to {usual:g}"
        )


def check_batch(generator: str, batch: int, micro_batches: int) -> None:
    """Raise `ValueError` where a batch has no equal parts."""
    if batch % micro_batches:
        raise ValueError(
            f"finetune.{generator}.batch {batch} is not a multiple of micro_batches "
            f"{micro_batches}; change one of them"
        )


def check_sampler(generator: str, sampler: SamplerName, steps: int, prediction: Prediction) -> None:
    """Raise `ValueError` when the sampler cannot use what the model predicts, or the steps."""
    if (sampler == "euler") != (prediction == "flow"):
        fitting = "euler" if prediction == "flow" else "ddpm, ddim or dpm_solver"
        raise ValueError(
            f"synthesize.{generator}.sampler {sampler!r} cannot sample a model with "
            f"finetune.{generator}.prediction {prediction!r}; choose {fitting}, or train another"
        )
    if sampler != "euler" and steps > TIMESTEPS:
        raise ValueError(
            f"synthesize.{generator}.steps is {steps:,} and the noise schedule has {TIMESTEPS:,}; "
            f"set it to {TIMESTEPS:,} or less"
        )
    # diffusers steps back by T // steps and spaces the times of "trailing" by T / steps.
    if sampler == "ddim" and TIMESTEPS % steps:
        raise ValueError(
            f"synthesize.{generator}.steps is {steps:,} and ddim needs a divisor of "
            f"{TIMESTEPS:,}; set it to one such as 20, 50 or 100, or the sampler to dpm_solver"
        )


def check_scale(generator: str, sampled: int, trained: int) -> None:
    """Raise `ValueError` when images of another size are asked for than were trained with."""
    if sampled != trained:
        raise ValueError(
            f"synthesize.scale is {sampled} px and finetune.{generator}.scale {trained} px; a "
            "latent diffusion model samples the size that it was trained with, so make them equal"
        )


def check_conditions(generator: str, conditions: str, trained: str) -> None:
    """Raise `ValueError` when other classes are asked for than were trained with."""
    if conditions not in ("none", trained):
        raise ValueError(
            f"synthesize.conditions is {conditions!r} and finetune.{generator}.condition "
            f"{trained!r}; a model samples the classes that it was trained with, so make them "
            "equal, or set conditions to none"
        )
