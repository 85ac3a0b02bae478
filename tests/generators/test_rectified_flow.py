from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from scipy import stats

from dermaflux.generators.flux_lora.model import rectified_flow as rf


@pytest.mark.parametrize("tokens", [64, 256, 1024, 4096])
@pytest.mark.parametrize("steps", [1, 20, 28])
def test_schedule_and_euler_step_are_those_of_the_flux_pipeline(tokens: int, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    mu = calculate_shift(tokens)
    assert rf.shift(tokens) == pytest.approx(mu, abs=1e-12)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    sigmas = rf.schedule(steps, tokens)
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=1e-6, rtol=0)

    sample, velocity = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    expected = scheduler.step(velocity, scheduler.timesteps[0], sample, return_dict=False)[0]
    ours = rf.euler_step(sample, velocity, float(sigmas[0]), float(sigmas[1]))
    torch.testing.assert_close(ours, expected)


def test_the_true_velocity_of_a_point_mass_leads_to_the_point_in_any_number_of_steps() -> None:
    point = torch.tensor([[3.0, -2.0]])
    for steps in (1, 7, 20):
        sample = torch.randn(1, 2, generator=torch.Generator().manual_seed(steps))
        sigmas = rf.schedule(steps, 64).double()
        sample = sample.double()
        for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            sample = rf.euler_step(sample, (sample - point) / now, float(now), float(following))
        torch.testing.assert_close(sample, point.double(), atol=1e-6, rtol=0)


def test_the_true_velocity_of_a_gaussian_leads_to_its_deviation() -> None:
    """Data N(0, s^2): v = E[noise - data | x] is linear in x, and x scales as its deviation."""
    s, steps = 0.3, 4000
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sample = torch.ones(1, dtype=torch.float64)
    for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        variance = now**2 + (1 - now) ** 2 * s**2
        velocity = sample * (now - (1 - now) * s**2) / variance
        sample = rf.euler_step(sample, velocity, float(now), float(following))
    assert float(sample) == pytest.approx(s, rel=2e-3)


def test_the_path_has_the_target_as_derivative_and_the_paper_as_mirror_image() -> None:
    draw = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=draw)
    sigma = torch.rand(4, dtype=torch.float64, generator=draw, requires_grad=True)
    point = rf.interpolate(data, noise, sigma)
    (slope,) = torch.autograd.grad(point.sum(), sigma)
    torch.testing.assert_close(slope, rf.target(data, noise).sum((1, 2)))
    t = (1 - sigma).reshape(-1, 1, 1)
    torch.testing.assert_close(point, (1 - t) * noise + t * data)  # the paper's z_t


def test_timestep_laws() -> None:
    draw = torch.Generator().manual_seed(0)
    even, bell = rf.uniform(20_000, draw), rf.logit_normal(20_000, draw)
    assert stats.kstest(even.numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(torch.logit(bell.double()).numpy(), "norm").pvalue > 0.01
    assert 0 < float(even.min()) < float(even.max()) < 1


def test_shifting_adds_mu_to_the_logit() -> None:
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    moved = torch.logit(rf.shifted(sigma, 0.7)) - torch.logit(sigma)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.7))
    assert float(rf.shifted(torch.tensor(1.0), 1.15)) == 1.0
    assert math.exp(rf.shift(256)) == pytest.approx(math.exp(0.5))


def test_a_point_of_the_path_is_the_schedulers_noised_sample() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    draw = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 5, 16, 4, 4, generator=draw)
    chosen = torch.tensor([0, 10, 500, 900, 999])
    sigma = scheduler.sigmas[chosen]
    expected = scheduler.scale_noise(data, scheduler.timesteps[chosen], noise)
    torch.testing.assert_close(rf.interpolate(data, noise, sigma), expected)


def test_densities_are_those_of_diffusers_training() -> None:
    """The same laws up to the draw: mean and quantiles of the scripts' own function."""
    from diffusers.training_utils import compute_density_for_timestep_sampling

    draw = torch.Generator().manual_seed(1)
    for name, law in (("none", rf.uniform), ("logit_normal", rf.logit_normal)):
        theirs = compute_density_for_timestep_sampling(
            name, 20_000, logit_mean=0.0, logit_std=1.0, generator=draw
        )
        assert stats.ks_2samp(law(20_000, draw).numpy(), theirs.numpy()).pvalue > 0.01


def test_what_an_image_draws_does_not_depend_on_its_batch() -> None:
    from dermaflux.core.seeds import generator
    from dermaflux.generators.flux_lora.model.loss import noise_and_sigma

    def drawn(names: list[str]) -> dict[str, tuple[torch.Tensor, float]]:
        draws = [generator("test", name) for name in names]
        noise, sigma = noise_and_sigma(torch.zeros(len(names), 16, 8, 8), "logit-normal", draws)
        return {name: (noise[place], float(sigma[place])) for place, name in enumerate(names)}

    together, alone = drawn(["a", "b", "c"]), drawn(["b"])
    assert torch.equal(together["b"][0], alone["b"][0])
    assert together["b"][1] == alone["b"][1]
    assert together["a"][1] != together["c"][1]


def test_a_backbone_without_guidance_is_given_none() -> None:
    """FLUX.1-schnell has no embedding for it; FLUX.1-dev has and answers to it."""
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.flux_lora.model.loss import flow_matching_loss
    from dermaflux.generators.flux_lora.model.prompt_padding import Text

    draw = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 2, 16, 4, 4, generator=draw)
    text = Text(
        torch.randn(2, 16, 8, generator=draw), torch.randn(2, 8, generator=draw), torch.zeros(16, 3)
    )
    for embeds in (False, True):
        torch.manual_seed(0)
        model = FluxTransformer2DModel(
            num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=1,
            joint_attention_dim=8, pooled_projection_dim=8, guidance_embeds=embeds,
            axes_dims_rope=(2, 2, 4),
        )  # fmt: skip
        sigma = torch.tensor([0.3, 0.6])
        with torch.no_grad():
            one, two = (
                flow_matching_loss(model, data, noise, sigma, text, value) for value in (1.0, 3.5)
            )
        assert torch.equal(one, two) != embeds
        assert one.shape == (2,)
