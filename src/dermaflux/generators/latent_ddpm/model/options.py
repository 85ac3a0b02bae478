"""Values that several parts of this generator read, and which of them go together. Pure."""

from __future__ import annotations

from typing import Literal

Prediction = Literal["epsilon", "v", "flow"]
SamplerName = Literal["ddpm", "ddim", "dpm_solver", "euler"]
BACKBONE = "backbone"
"""Value of `latents` that stands for the autoencoder of models/backbone/."""
DECODER = "decoder"
"""Value of `perceptual_features` that stands for features of the autoencoder's decoder."""
TIMESTEPS = 1000
"""T, published."""


def check_sampler(sampler: SamplerName, steps: int, prediction: Prediction) -> None:
    """Raise `ValueError` when the sampler cannot use what the U-Net predicts, or the steps."""
    if (sampler == "euler") != (prediction == "flow"):
        fitting = "euler" if prediction == "flow" else "ddpm, ddim or dpm_solver"
        raise ValueError(
            f"synthesize.latent_ddpm.sampler {sampler!r} cannot sample a model with "
            f"finetune.latent_ddpm.prediction {prediction!r}; choose {fitting}, or train another"
        )
    if sampler != "euler" and steps > TIMESTEPS:
        raise ValueError(
            f"synthesize.latent_ddpm.steps is {steps:,} and the noise schedule has {TIMESTEPS:,}; "
            f"set it to {TIMESTEPS:,} or less"
        )
    # diffusers steps back by T // steps and spaces the times of "trailing" by T / steps.
    if sampler == "ddim" and TIMESTEPS % steps:
        raise ValueError(
            f"synthesize.latent_ddpm.steps is {steps:,} and ddim needs a divisor of {TIMESTEPS:,}; "
            "set it to one such as 20, 50 or 100, or the sampler to dpm_solver"
        )


def check_scale(sampled: int, trained: int) -> None:
    """Raise `ValueError` when images of another size are asked for than were trained with."""
    if sampled != trained:
        raise ValueError(
            f"synthesize.scale is {sampled} px and finetune.latent_ddpm.scale {trained} px; a "
            "latent diffusion model samples the size that it was trained with, so make them equal"
        )
