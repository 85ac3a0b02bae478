from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from small_generator import FINETUNE, LORA, Workspace

from dermaflux.core.distributed import SINGLE, Processes
from dermaflux.core.seeds import generator
from dermaflux.generators.data import images as training_images
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText
from dermaflux.generators.flux_lora.model.rectified_flow import shift
from dermaflux.generators.flux_lora.training.buckets import MicroBatch
from dermaflux.generators.flux_lora.training.data import TrainingData, arrange
from dermaflux.generators.flux_lora.training.held_out import HeldOutInputs, held_out_loss
from dermaflux.generators.flux_lora.training.objective import Objective
from dermaflux.training.validation_events import HeldOutLoss

# The seven images are one bucket in two micro-batches of four: one place is a filler.
SECTION = FINETUNE.model_copy(update={"scales": [128]})
SETTINGS = LORA.model_copy(update={"prompt_padding": "pad512", "batch_tokens": 4 * (64 + 512)})


@pytest.fixture
def opened(here: Workspace):  # type: ignore[no-untyped-def]
    tokenizers = pipeline.tokenizers(here.backbone)
    images = training_images.read(SECTION, 0, here.corpus, here.captions)
    data = arrange(SETTINGS, 0, images, tokenizers)
    pipe = pipeline.load(here.backbone, "fp32", torch.device("cpu"))
    weights = lora.add(pipe.transformer, "attention", 2, 4.0, 1)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    latents = Latents(pipe.vae, here.corpus, [*data.samples, *data.held_out])
    return pipe, weights, data, latents


def objective(opened, processes: Processes = SINGLE) -> Objective:  # type: ignore[no-untyped-def]
    pipe, weights, data, latents = opened
    return Objective(
        pipe.transformer, weights, data.samples, data.caption_tokens, data.order, latents,
        ResidentText(pipe), SETTINGS, 0, 9, processes,
    )  # fmt: skip


def plainly(  # type: ignore[no-untyped-def]
    pipe, latent: torch.Tensor, noise: torch.Tensor, sigma: float, caption: str, tokens: int
) -> torch.Tensor:
    """Velocity error of one image written out with diffusers' calls alone."""
    side = latent.shape[-1] // 2

    def packed(image: torch.Tensor) -> torch.Tensor:
        return image.reshape(1, 16, side, 2, side, 2).permute(0, 2, 4, 1, 3, 5).reshape(
            1, side * side, 64
        )  # fmt: skip

    prompt, pooled, text_ids = pipe.encode_prompt(prompt=caption, max_sequence_length=tokens)
    grid = torch.zeros(side, side, 3)
    grid[..., 1] = torch.arange(side)[:, None]
    grid[..., 2] = torch.arange(side)[None, :]
    predicted = pipe.transformer(
        hidden_states=packed((1 - sigma) * latent + sigma * noise),
        timestep=torch.tensor([sigma]), guidance=torch.tensor([1.0]), pooled_projections=pooled,
        encoder_hidden_states=prompt, txt_ids=text_ids, img_ids=grid.reshape(-1, 3),
    ).sample  # fmt: skip
    return (predicted - packed(noise - latent)).square().mean()


def gradients(weights: dict[str, torch.nn.Parameter]) -> list[torch.Tensor]:
    found = [weight.grad.clone() for weight in weights.values() if weight.grad is not None]
    for weight in weights.values():
        weight.grad = None
    return found


def test_a_step_is_the_mean_over_its_real_images_whoever_computes_them(opened) -> None:  # type: ignore[no-untyped-def]
    pipe, weights, data, latents = opened
    step = 0
    assert [(micro.real, len(micro.members)) for micro in data.order.at(step)].count((3, 4)) == 1
    total = 0.0
    for part in objective(opened).parts(step):
        part.loss.backward()
        total += float(part.loss.detach())
    whole = gradients(weights)

    places = [m for micro in data.order.at(step) for m in micro.members[: micro.real]]
    errors = []
    for place in places:
        one = data.samples[place]
        draw = generator(0, "finetune", step, one.image_id)
        latent = latents.draw([one], [draw])
        noise = torch.randn(latent.shape[1:], generator=draw)[None]
        bare = torch.sigmoid(torch.randn(1, generator=draw)).double()
        mu = torch.tensor(shift(64)).double().exp()
        sigma = float(mu / (mu + 1 / bare - 1))
        bucket = data.buckets[place]
        error = plainly(pipe, latent, noise, sigma, one.caption, bucket.text_tokens)
        (error / len(places)).backward()
        errors.append(float(error.detach()))
    assert total == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    for got, expected in zip(whole, gradients(weights), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)

    shares = []
    for rank in (0, 1):
        for part in objective(opened, Processes(rank, 2)).parts(step):
            part.loss.backward()
        shares.append(gradients(weights))
    for got, one, other in zip(whole, *shares, strict=True):
        torch.testing.assert_close(got, one + other, rtol=1e-5, atol=1e-8)


def test_work_counts_captions_and_nothing_twice(opened) -> None:  # type: ignore[no-untyped-def]
    data: TrainingData = opened[2]
    found = objective(opened)
    assert data.order.per_epoch == SETTINGS.micro_batches
    works = [found.work(0)]
    assert works[0].tokens == 8 * (64 + 512)
    assert sum(work.images for work in works) == len(data.samples)
    own = sum(data.caption_tokens) + 64 * len(data.samples)
    assert sum(work.tokens - work.padding_tokens for work in works) == own
    assert all(work.flop > 0 for work in works)
    assert data.padding_percent() == pytest.approx(100 * (1 - own / works[0].tokens))


def test_validation_loss_is_that_of_plain_diffusers_calls_and_always_the_same(opened) -> None:  # type: ignore[no-untyped-def]
    pipe, weights, data, latents = opened

    def validation(order: Sequence[int]) -> HeldOutLoss[MicroBatch, HeldOutInputs]:
        turned = dataclasses.replace(
            data, held_out=[data.held_out[index] for index in order],
            held_out_buckets=[data.held_out_buckets[index] for index in order],
        )  # fmt: skip
        settings = SETTINGS.model_copy(update={"batch_tokens": 4096})
        text = ResidentText(pipe)
        return held_out_loss(pipe.transformer, turned, latents, text, settings, SINGLE)

    assert sorted(one.label for one in data.held_out) == ["benign", "malignant"]
    assert all(one.image_id.split("/")[1] in ("010", "012", "013") for one in data.held_out)
    count = len(data.held_out)
    loss = validation(range(count))
    first, second = loss(), loss()
    assert first == second
    errors = []
    for one, bucket in zip(data.held_out, data.held_out_buckets, strict=True):
        draw = generator("validation", one.image_id)
        latent = latents.draw([one], [draw])
        noise = torch.randn(latent.shape[1:], generator=draw)[None]
        with torch.no_grad():
            errors += [
                float(plainly(pipe, latent, noise, (i + 0.5) / 8, one.caption, bucket.text_tokens))
                for i in range(8)
            ]
    assert first["validation_loss"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert first["validation_loss_128"] == first["validation_loss"]
    turned = validation(range(count)[::-1])()
    assert turned["validation_loss"] == pytest.approx(first["validation_loss"], rel=1e-6)
