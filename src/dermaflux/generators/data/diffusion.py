"""The path from data to noise, what a network predicts on it, and how the loss weighs times. Pure.

One object covers the discrete variance-preserving path of DDPM (Ho et al. 2020) and the straight
path of rectified flow (Liu et al. 2022): every point is x_t = a x_0 + s noise. A time is what the
network is given: the step t in 0..T-1 for `epsilon` and `v`, sigma x T in (0, T] for `flow`. `a`
and `s` are sqrt(alpha-bar) and sqrt(1 - alpha-bar), or 1 - sigma and sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dermaflux.generators.data.options import TIMESTEPS, Prediction, Schedule, beta


@dataclass(frozen=True)
class DiffusionPath:
    """Noise schedule and prediction of a trained model."""

    prediction: Prediction
    beta_start: float = 1e-4
    beta_end: float = 0.02
    schedule: Schedule = "linear"

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """alpha-bar of each step, (T,) float32: Ho et al., section 4, or its scaled schedule."""
        ends = (self.schedule, self.beta_start, self.beta_end)
        betas = torch.tensor([beta(*ends, step) for step in range(TIMESTEPS)], dtype=torch.float32)
        return torch.cumprod(1 - betas, 0)

    def times(self, fractions: Tensor) -> Tensor:
        """Times of fractions in [0, 1), (B,) float32; 1 is noise."""
        scaled = fractions * TIMESTEPS
        return scaled if self.prediction == "flow" else scaled.floor()

    def coefficients(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """a and s at times (B,), each (B, 1, 1, 1)."""
        if self.prediction == "flow":
            s = times / TIMESTEPS
            a = 1 - s
        else:
            alpha = self.alphas_cumprod.to(times.device)[times.long()]
            a, s = alpha.sqrt(), (1 - alpha).sqrt()
        return a.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)

    def add_noise(self, data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """x_t (B, C, h, w): equation 1 of DerMAE, q(x_t | x_0)."""
        a, s = self.coefficients(times)
        return a * data + s * noise

    def target(self, data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network learns: noise, a noise - s x_0, or noise - x_0; (B, C, h, w)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "flow":
            return noise - data
        a, s = self.coefficients(times)
        return a * noise - s * data

    def clean(self, point: Tensor, output: Tensor, times: Tensor) -> Tensor:
        """x_0 as the network's output at x_t implies it, (B, C, h, w)."""
        a, s = self.coefficients(times)
        if self.prediction == "epsilon":
            return (point - s * output) / a
        return (a * point if self.prediction == "v" else point) - s * output

    def snr(self, times: Tensor) -> Tensor:
        """Signal-to-noise ratio a^2 / s^2, (B,); infinite at sigma = 0."""
        a, s = self.coefficients(times)
        return (a / s).square().flatten()

    def weights(self, times: Tensor, gamma: float | None) -> Tensor:
        """Weights (B,) of the squared error of the output; ones without `gamma`.

        Min-SNR (Hang et al. 2023, section 3.4) weighs the error of x_0 by min(SNR, gamma). In terms
        of the output that is times (d x_0 / d output)^2: min(SNR, gamma) / SNR for `epsilon`,
        / (SNR + 1) for `v`, x sigma^2 for `flow`.
        """
        if gamma is None:
            return torch.ones_like(times, dtype=torch.float32)
        a, s = self.coefficients(times)
        slope = s / a if self.prediction == "epsilon" else s
        return self.snr(times).clamp(max=gamma) * slope.square().flatten()
