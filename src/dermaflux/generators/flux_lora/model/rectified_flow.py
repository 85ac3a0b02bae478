"""Rectified flow: path, target, timestep laws and Euler schedule, as pure functions of tensors.

Sign convention is that of diffusers and FLUX: sigma = 1 is noise, sigma = 0 is data, and the model
predicts ``noise - data``. The paper (section 2.2) writes z_t = (1 - t) z_0 + t z_1 with z_0 noise
and z_1 data, so t = 1 - sigma and its velocity is the negative of ours.

Reads nothing, writes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BASE_TOKENS, MAXIMUM_TOKENS = 256, 4096
BASE_SHIFT, MAXIMUM_SHIFT = 0.5, 1.15


def interpolate(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point (1 - sigma) data + sigma noise of the straight path.

    data, noise: (B, ...); sigma: (B,) in [0, 1]. Returns (B, ...). Liu et al. 2022, equation 1.
    """
    weight = sigma.reshape(-1, *[1] * (data.ndim - 1))
    return (1 - weight) * data + weight * noise


def target(data: Tensor, noise: Tensor) -> Tensor:
    """Velocity dx/dsigma = noise - data of the straight path, (B, ...): what the model learns."""
    return noise - data


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """`count` sigmas in (0, 1), flat density, (count,) float32."""
    # The middle of one of 2^24 equal cells: never 0 or 1, where logit is infinite.
    cells = torch.randint(0, 2**24, (count,), generator=generator, dtype=torch.int64)
    return ((cells.double() + 0.5) / 2**24).float()


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    """`count` sigmas, logit(sigma) ~ N(0, 1), (count,) float32. Esser et al. 2024, section 3.1."""
    return torch.sigmoid(torch.randn(count, generator=generator))


def shift(tokens: int) -> float:
    """FLUX's mu(L) for `tokens` image tokens: linear, 0.5 at 256 and 1.15 at 4096."""
    slope = (MAXIMUM_SHIFT - BASE_SHIFT) / (MAXIMUM_TOKENS - BASE_TOKENS)
    return BASE_SHIFT + slope * (tokens - BASE_TOKENS)


def shifted(sigma: Tensor, mu: float) -> Tensor:
    """e^mu / (e^mu + (1 / sigma - 1)): more time at high noise for larger images.

    sigma: any shape, in (0, 1]. Esser et al. 2024, equation 23, with e^mu for sqrt(m / n).
    """
    return math.exp(mu) / (math.exp(mu) + (1 / sigma - 1))


def schedule(steps: int, tokens: int) -> Tensor:
    """The `steps` + 1 sigmas of FLUX's Euler sampler, from 1 down to 0, (steps + 1,) float32."""
    even = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    return torch.cat([shifted(even, shift(tokens)), torch.zeros(1)]).float()


def euler_step(sample: Tensor, velocity: Tensor, sigma: float, following: float) -> Tensor:
    """x + (following - sigma) v: one step towards the data, (B, ...)."""
    return sample + (following - sigma) * velocity
