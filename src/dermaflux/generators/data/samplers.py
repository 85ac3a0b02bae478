"""From noise to latents: Euler on the straight path, and diffusers' schedulers on the other.

The network's output is turned into the clean latents it implies before a scheduler sees it, so one
route serves every prediction and a limit on the clean latents works with every sampler. Image i's
noise, also that of the stochastic sampler, comes from a CPU generator of its own. Reads and writes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.options import TIMESTEPS, SamplerName

Denoiser = Callable[[Tensor, float], Tensor]
"""Points (B, C, h, w) and their time -> clean latents (B, C, h, w)."""


def sample(
    denoise: Denoiser,
    path: DiffusionPath,
    sampler: SamplerName,
    steps: int,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    device: torch.device,
    order: int = 2,
) -> Tensor:
    """Clean latents (B, C, h, w) of `shape` (C, h, w), one per generator.

    `order` is that of `dpm_solver`, 1 to 3.
    """
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
    if sampler == "euler":
        return _euler(denoise, steps, noise)
    schedule = scheduler(path, sampler, order)
    schedule.set_timesteps(steps, device=device)
    # A generator per image, or the stochastic sampler's noise would depend on the batch.
    extra = {} if sampler == "dpm_solver" else {"generator": list(generators)}
    latents = noise
    for time in schedule.timesteps:
        clean = denoise(latents, float(time))
        latents = schedule.step(clean, time, latents, **extra).prev_sample
    return latents


def _euler(denoise: Denoiser, steps: int, latents: Tensor) -> Tensor:
    """`steps` equal steps along dx / dsigma = (x - x_0) / sigma, from sigma 1 to 0."""
    for step in range(steps, 0, -1):
        clean = denoise(latents, TIMESTEPS * step / steps)
        latents = latents - (latents - clean) / step
    return latents


def scheduler(path: DiffusionPath, sampler: SamplerName, order: int = 2) -> Any:
    """diffusers' scheduler on the path's schedule, for clean latents as the model's output.

    Spacing "trailing" starts at the last of the 1000 steps, where there is only noise; clamping to
    +-1, which DDPMScheduler does unasked, would cut standardised latents.
    """
    import diffusers

    common = {
        "num_train_timesteps": TIMESTEPS,
        "beta_start": path.beta_start,
        "beta_end": path.beta_end,
        "beta_schedule": path.schedule,
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    if sampler == "dpm_solver":
        solver: Any = diffusers.DPMSolverMultistepScheduler
        return solver(**common, algorithm_type="dpmsolver++", solver_order=order)
    kind: Any = diffusers.DDPMScheduler if sampler == "ddpm" else diffusers.DDIMScheduler
    return kind(**common, clip_sample=False)
