"""The mathematics of `latent_ddpm` against diffusers' schedulers, formulas and closed forms."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import diffusers
import pytest
import torch
from drawn_unet import SHAPE, UNET
from torch import Tensor, nn

from dermaflux.core.distributed import SINGLE, Processes
from dermaflux.core.seeds import generator
from dermaflux.generators.data import samplers, standardisation
from dermaflux.generators.data.arrangement import Order, TrainingData, arrange
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.data.options import Prediction, check_sampler
from dermaflux.generators.latent_ddpm.model import unet, weights
from dermaflux.generators.latent_ddpm.sampling.sample import SamplingSettings, _clean
from dermaflux.generators.latent_ddpm.settings import Finetune
from dermaflux.generators.latent_ddpm.training.objective import Objective
from dermaflux.generators.latent_ddpm.training.perceptual import PerceptualLoss

PREDICTIONS = get_args(Prediction)
DDPM = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
CPU = torch.device("cpu")
DRAW = torch.Generator().manual_seed(0)
DATA, NOISE = (torch.randn(5, 4, 8, 8, generator=DRAW) for _ in range(2))
TIMES = torch.tensor([0.0, 1.0, 250.0, 640.0, 999.0])


def test_the_path_is_that_of_diffusers_and_its_inverse_finds_the_data() -> None:
    theirs = diffusers.DDPMScheduler(**DDPM)
    path = DiffusionPath("v")
    point = path.add_noise(DATA, NOISE, TIMES)
    torch.testing.assert_close(point, theirs.add_noise(DATA, NOISE, TIMES.long()))
    velocity = theirs.get_velocity(DATA, NOISE, TIMES.long())
    torch.testing.assert_close(path.target(DATA, NOISE, TIMES), velocity)
    # Equation 1 of the paper, by hand: alpha-bar as a running product of 1 - beta.
    alpha = 1.0
    for step in range(251):
        alpha *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
    expected = alpha**0.5 * DATA[2] + (1 - alpha) ** 0.5 * NOISE[2]
    torch.testing.assert_close(point[2], expected, atol=1e-5, rtol=1e-5)
    flow = DiffusionPath("flow").add_noise(DATA, NOISE, TIMES)
    torch.testing.assert_close(flow[3], 0.36 * DATA[3] + 0.64 * NOISE[3])
    for prediction in PREDICTIONS:
        path = DiffusionPath(prediction)
        point, target = path.add_noise(DATA, NOISE, TIMES), path.target(DATA, NOISE, TIMES)
        found = path.clean(point, target, TIMES)
        torch.testing.assert_close(found, DATA, atol=2e-4, rtol=1e-4)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    """Hang et al. 2023, section 3.4, and for the straight path the error of the clean image."""
    snr, gamma = DiffusionPath("epsilon").snr(TIMES), torch.tensor(5.0)
    limited = torch.minimum(snr, gamma)
    torch.testing.assert_close(DiffusionPath("epsilon").weights(TIMES, 5.0), limited / snr)
    torch.testing.assert_close(DiffusionPath("v").weights(TIMES, 5.0), limited / (snr + 1))
    flow = DiffusionPath("flow")
    error = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    target = flow.target(DATA, NOISE, TIMES)
    clean = flow.clean(flow.add_noise(DATA, NOISE, TIMES), target + error, TIMES)
    of_clean = flow.snr(TIMES).clamp(max=5) * (clean - DATA).square().mean((1, 2, 3))
    weighted = flow.weights(TIMES, 5.0) * error.square().mean((1, 2, 3))
    torch.testing.assert_close(weighted[1:], of_clean[1:], atol=1e-6, rtol=1e-3)
    assert flow.weights(TIMES, None).tolist() == [1.0] * 5


def toy(latents: Tensor, time: float) -> Tensor:
    """Stands for a trained network: any smooth function of point and time."""
    return torch.tanh(latents) * 0.7 + 0.1 * torch.sin(torch.tensor(time / 100))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_samplers_are_diffusers_own(name: Any, prediction: Any) -> None:
    """Ours turn the output into clean latents first; theirs take it as it is."""
    path, steps, shape = DiffusionPath(prediction), 25, (4, 8, 8)
    kinds = {
        "ddpm": (diffusers.DDPMScheduler, {}),
        "ddim": (diffusers.DDIMScheduler, {}),
        "dpm_solver": (diffusers.DPMSolverMultistepScheduler, {"clip_sample": None}),
    }
    kind, changed = kinds[name]
    options = {k: v for k, v in (DDPM | changed).items() if v is not None}
    known = {"epsilon": "epsilon", "v": "v_prediction"}[prediction]
    theirs = kind(**options, prediction_type=known, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    draws = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    expected = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    for time in theirs.timesteps:
        extra = {} if name == "dpm_solver" else {"generator": draws}
        output = toy(expected, float(time))
        expected = theirs.step(output, time, expected, **extra).prev_sample

    def denoise(latents: Tensor, time: float) -> Tensor:
        times = torch.full((len(latents),), time)
        return path.clean(latents, toy(latents, time), times)

    draws = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    found = samplers.sample(denoise, path, name, steps, shape, draws, CPU)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    alone = samplers.sample(
        denoise, path, name, steps, shape, [torch.Generator().manual_seed(4)], CPU
    )
    torch.testing.assert_close(alone[0], found[1], atol=1e-5, rtol=1e-5)


def test_all_thousand_steps_of_ddpm_start_in_pure_noise() -> None:
    schedule = samplers.scheduler(DiffusionPath("epsilon"), "ddpm")
    schedule.set_timesteps(1000)
    assert schedule.timesteps.tolist() == list(range(999, -1, -1))
    schedule.set_timesteps(50)
    assert schedule.timesteps[0] == 999


@pytest.mark.parametrize(
    ("name", "steps", "error"),
    [("ddpm", 501, 0.01), ("ddim", 20, 0.1), ("ddim", 500, 0.01), ("dpm_solver", 501, 0.01)],
)
def test_samplers_keep_the_deviation_of_gaussian_data(name: Any, steps: int, error: float) -> None:
    """For x_0 ~ N(0, r^2) the best x_0 at x_t is known, so nothing but the steps is in error."""
    r, path = 0.5, DiffusionPath("epsilon")
    check_sampler("latent_ddpm", name, steps, path.prediction)

    def denoise(latents: Tensor, time: float) -> Tensor:
        a, s = path.coefficients(torch.tensor([time]))
        return latents * a * r**2 / (a**2 * r**2 + s**2)

    draw = torch.Generator().manual_seed(5)
    found = samplers.sample(denoise, path, name, steps, (4, 64, 64), [draw], CPU)
    assert float(found.std()) == pytest.approx(r, abs=error)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_euler_reaches_the_closed_form_for_gaussian_data(steps: int) -> None:
    """For x_0 ~ N(0, r^2) the best x_0 at x_sigma is known, and so is each Euler step's factor."""
    r, path = 0.5, DiffusionPath("flow")

    def gain(sigma: float) -> float:
        return (1 - sigma) * r**2 / ((1 - sigma) ** 2 * r**2 + sigma**2)

    def denoise(latents: Tensor, time: float) -> Tensor:
        return latents * gain(time / 1000)

    draw = torch.Generator().manual_seed(5)
    found = samplers.sample(denoise, path, "euler", steps, (4, 8, 8), [draw], CPU)
    factor = 1.0
    for step in range(steps, 0, -1):
        factor += (1 / steps) * (gain(step / steps) - 1) / (step / steps) * factor
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(found[0], factor * noise)
    if steps == 100:  # the flow's own end, x r
        assert factor == pytest.approx(r, abs=0.01)


@pytest.mark.parametrize(
    ("guidance", "labels", "outputs", "passes"),
    [
        (3.0, [0, 1], [2 + 3 * (0 - 2), 2 + 3 * (1 - 2)], 4),
        (1.0, [0, 1], [0, 1], 2),
        (3.0, [2, 2], [2, 2], 2),
    ],
)
def test_guidance_leads_away_from_no_class_and_costs_a_second_pass_only_where_it_acts(
    guidance: float, labels: list[int], outputs: list[int], passes: int
) -> None:
    """A network whose output is the number of the class; 2 is that of no class."""
    seen: list[int] = []

    def network(latents: Tensor, times: Tensor, class_labels: Tensor) -> Any:
        seen.append(len(latents))
        return SimpleNamespace(sample=class_labels.float().view(-1, 1, 1, 1).expand_as(latents))

    model = weights.LatentModel(network, DESCRIPTION, torch.zeros(1), torch.ones(1))
    chosen = SamplingSettings("euler", 1, guidance, clip_sample_range=3.5)
    point = torch.zeros(2, 16, 16, 16)
    clean = _clean(model, chosen, torch.tensor(labels), point, 1000.0)
    limited = [max(-3.5, min(3.5, -float(value))) for value in outputs]
    assert clean[:, 0, 0, 0].tolist() == pytest.approx(limited)  # at sigma 1, minus the output
    assert seen == [passes]


DESCRIPTION = weights.Description(
    SHAPE, DiffusionPath("flow"), "malignancy", ("benign", "malignant"), 128, "x", None, "x"
)
SAMPLES = [
    Sample(f"x/{n}", "", ("benign", "malignant")[n % 2], 256, "", ("nevus", None)[n % 2])
    for n in range(6)
]


class Latents:
    """Every image's latents are drawn once; channel c has mean c and deviation c + 1."""

    def draw(self, samples: list[Sample], generators: list[torch.Generator]) -> Tensor:
        scale = torch.arange(16).view(-1, 1, 1)
        drawn = [
            torch.randn(16, 16, 16, generator=generator("toy", s.image_id)) * (scale + 1) + scale
            for s in samples
        ]
        for g in generators:
            torch.randn(1, generator=g)
        return torch.stack(drawn)


def arranged(settings: Finetune, held_out: list[Sample]) -> TrainingData:
    images = TrainingImages(SAMPLES, held_out, 0, 0)
    return arrange("latent_ddpm", settings.scale, settings.condition, images)


def objective(perceptual: Any = None, processes: Processes = SINGLE, **changes: Any) -> Objective:
    torch.manual_seed(0)
    settings = UNET.model_copy(update={"min_snr_gamma": None, "perceptual_weight": 0.0} | changes)
    mean, deviation = standardisation.channel_statistics([Latents().draw(SAMPLES, [])])
    description = replace(DESCRIPTION, path=DiffusionPath("epsilon"))
    model = weights.LatentModel(unet.build(SHAPE), description, mean, deviation)
    data = arranged(settings, SAMPLES[:2])
    order = Order("latent_ddpm", len(SAMPLES), settings.batch, settings.micro_batches, 0)
    return Objective(model, data, order, Latents(), settings, 0, 3, processes, perceptual)


def prepared(trained: Objective, step: int = 0) -> list[Any]:
    return [trained._prepared(micro) for micro in trained._share(step)]


def test_the_loss_without_options_is_equation_2() -> None:
    """And nothing of it depends on how a batch is cut."""
    trained = objective()
    total, scheduler = torch.zeros(()), diffusers.DDPMScheduler(**DDPM)
    for batch in prepared(trained):
        point = scheduler.add_noise(batch.latents, batch.noise, batch.times.long())
        output = trained._model.unet(point, batch.times, class_labels=batch.classes).sample
        total = total + nn.functional.mse_loss(output, batch.noise, reduction="sum") / 16**3
    parts = [part.loss.item() for part in trained.parts(0)]
    assert len(parts) == 2
    assert sum(parts) == pytest.approx(float(total) / 4, rel=1e-5)
    whole = [part.loss.item() for part in objective(micro_batches=1).parts(0)]
    assert whole == pytest.approx([sum(parts)], rel=1e-5)


def test_two_processes_share_the_gradient_of_one() -> None:
    def gradients(*shares: Processes) -> Tensor:
        total = torch.zeros(())
        for processes in shares:
            trained = objective(processes=processes)
            for part in trained.parts(1):
                part.loss.backward()
            trained.close()
            total = total + torch.cat([w.grad.flatten() for w in trained.weights().values()])
        return total

    alone, shared = gradients(SINGLE), gradients(Processes(0, 2), Processes(1, 2))
    torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-4)
    assert float(alone.norm()) > 0


def test_labels_are_dropped_as_often_as_asked_and_unknown_ones_never_learn_a_class() -> None:
    never, always = objective(label_drop=0.0), objective(label_drop=1.0)
    labels = {s.image_id: ("benign", "malignant").index(s.label) for s in SAMPLES}
    for batch in prepared(never):
        assert batch.classes.tolist() == [labels[image_id] for image_id in batch.image_ids]
    assert {c for batch in prepared(always) for c in batch.classes.tolist()} == {2}
    some = objective(label_drop=0.3)
    batches = [batch for step in range(100) for batch in prepared(some, step)]
    learned = [c for batch in batches for c in batch.classes.tolist()]
    assert len(learned) == 400
    assert learned.count(2) / 400 == pytest.approx(0.3, abs=0.07)  # three standard deviations
    settings = UNET.model_copy(update={"condition": "diagnosis"})
    data = arranged(settings, [])
    assert data.classes == ("nevus",)
    assert [data.embedding(sample) for sample in data.samples] == [0, 1] * 3
    assert {sample.scale for sample in data.samples} == {128}


def test_an_epoch_holds_every_image_once_whatever_the_parts_and_processes() -> None:
    order, cut = (Order("latent_ddpm", 7, 4, parts, 0) for parts in (1, 4))
    stream = [m for step in range(7) for m in order.share(step, 0, 1)[0].members]
    assert len(stream) == 28
    epochs = [stream[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    shares = [cut.share(5, rank, 2) for rank in (0, 1)]
    together = sorted((m for share in shares for m in share), key=lambda m: m.positions)
    assert [m.members[0] for m in together] == list(order.share(5, 0, 1)[0].members)
    assert order.steps(2) == 4
    assert [len(share) for share in shares] == [2, 2]


def perceptual_of(**changes: Any) -> tuple[float, Tensor, Tensor]:
    seen: list[tuple[Tensor, Tensor]] = []

    def loss(predicted: Tensor, clean: Tensor) -> Tensor:
        seen.append((predicted.detach(), clean.detach()))
        return (predicted - clean).square().mean((1, 2, 3))

    options = {"perceptual_weight": 0.5, "perceptual_fraction": 0.5, "micro_batches": 1}
    trained = objective(loss, **(options | changes))
    plain = objective(micro_batches=1)
    (batch,) = prepared(trained)
    extra = (trained.loss(batch) - plain.loss(batch)).item()
    empty = torch.empty(0)
    return extra, *(seen[0] if seen else (empty, empty))


def test_the_perceptual_term_counts_only_where_the_signal_is_strong_enough() -> None:
    extra, predicted, clean = perceptual_of(perceptual_snr=1e-9)
    assert len(predicted) == 2  # half of four images
    error = (predicted - clean).square().mean((1, 2, 3)).sum() / 2
    assert extra == pytest.approx(0.5 * float(error), rel=1e-3)
    # Latents reach it as the autoencoder takes them, not standardised.
    (batch,) = prepared(objective(micro_batches=1))
    raw = Latents().draw([s for s in SAMPLES if s.image_id == batch.image_ids[0]], [])
    torch.testing.assert_close(clean[0], raw[0], atol=1e-4, rtol=1e-4)
    extra, predicted, _ = perceptual_of(perceptual_snr=1e6)
    assert extra == 0.0
    assert not len(predicted)


def test_lpips_by_hand() -> None:
    """Two layers of one pixel: unit vectors, squared differences, heads (Zhang et al. 2018)."""
    maps = {1.0: [torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])],
            2.0: [torch.tensor([0.0, 2.0]), torch.tensor([0.0, 5.0])]}  # fmt: skip

    def features(latents: Tensor) -> list[Tensor]:
        return [part.view(1, 2, 1, 1) for part in maps[float(latents)]]

    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert float(PerceptualLoss(features)(one, two)) == pytest.approx((0.36 + 0.04 + 2) / 2)
    heads = [torch.tensor([1.0, 10.0]).view(1, 2, 1, 1), torch.tensor([0.5, 0.0]).view(1, 2, 1, 1)]
    assert float(PerceptualLoss(features, heads)(one, two)) == pytest.approx(0.36 + 0.4 + 0.5)
    assert float(PerceptualLoss(features)(one, one)) == 0.0


def test_latents_are_standardised_per_channel_and_restored() -> None:
    latents = Latents().draw(SAMPLES, [])
    model = objective()._model
    standard = model.standardise(latents)
    mean, deviation = standard.mean((0, 2, 3)), standard.std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.restore(standard), latents, atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match="same value everywhere"):
        standardisation.channel_statistics([torch.ones(2, 4, 8, 8)])


def test_flop_are_those_of_every_layer_and_the_published_size_is_the_stated_one() -> None:
    shape, counted = unet.Shape(4, 16, (32, 64), 1, 0, 2), 0
    model = unet.build(shape)

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal counted
        weights_each = layer.weight[0].numel()
        counted += 2 * weights_each * output.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 4, 16, 16), torch.zeros(1), class_labels=torch.zeros(1).long())
    # The middle block alone has attention here: two products of 64 x 64 places by 64 channels.
    assert unet.forward_flop(shape) == counted + 2 * 2 * 64 * 64 * 64
    with torch.device("meta"):
        published = unet.build(unet.Shape(4, 32, (128, 256, 512, 512), 2, 3, 7))
    assert sum(p.numel() for p in published.parameters()) == pytest.approx(108e6, rel=0.01)
