"""U-ViT and the prototype mechanism: sizes, formulas, and what the paper promises of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from drawn_uvit import SHAPE, UVIT
from torch import Tensor, nn
from torch.nn import functional

from dermaflux.core.distributed import SINGLE, Processes
from dermaflux.core.seeds import generator
from dermaflux.generators.data.arrangement import Order, arrange
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.data.samplers import scheduler
from dermaflux.generators.vap.model import uvit, weights
from dermaflux.generators.vap.model.attention import attend
from dermaflux.generators.vap.model.uvit import Shape, UViT
from dermaflux.generators.vap.sampling.sample import SamplingSettings, Wanted, _Denoiser
from dermaflux.generators.vap.training.objective import Objective, held_out_loss

PUBLISHED = Shape(4, 32, 2, 512, 16, 8, 7, 256, 768, 512)
RELEASED = replace(PUBLISHED, variant="released", reconstruction_target="joint")
SCALED = DiffusionPath("epsilon", 0.00085, 0.012, "scaled_linear")


def drawn(*size: int, seed: object = 0) -> Tensor:
    return torch.randn(*size, generator=generator("drawn", seed))


def inputs(shape: Shape = SHAPE, count: int = 2) -> tuple[Tensor, ...]:
    latents = drawn(count, shape.channels, shape.side, shape.side)
    times, classes = torch.linspace(10, 900, count), torch.arange(count) % shape.classes
    return latents, times, classes, drawn(count, shape.text_tokens, shape.text_width, seed=1)


def network(shape: Shape = SHAPE, seed: int = 0) -> UViT:
    torch.manual_seed(seed)
    return UViT(shape)


def test_the_released_size_is_65_million_parameters() -> None:
    """Theirs are 64,998,564, of which 2 norms of 2 x 512 numbers are never used."""
    assert uvit.parameters(RELEASED) == 64_998_564 - 2 * 2 * 512
    assert PUBLISHED.tokens == 1 + 1 + 256 + 256
    assert RELEASED.tokens == 1 + 256 + 256
    w, d = 512, 768
    block = 4 * w * w + w + 8 * w * w + 5 * w + 4 * w
    plain = 17 * block + 8 * (2 * w * w + w) + (d * w + w) + 8 * w + PUBLISHED.tokens * w
    plain += (16 * w + w) + 2 * w + (w * 16 + 16) + (4 * 4 * 9 + 4)
    assert uvit.parameters(replace(PUBLISHED, prototypes=0)) == plain
    mechanism = 8 * 512 * w + 2 * 2 * w + (4 * w * w + w) * 2 + w * w
    assert uvit.parameters(PUBLISHED) == plain + mechanism


def test_flop_are_those_of_its_matrix_products() -> None:
    w, n = 512, PUBLISHED.tokens
    block = n * w * w * (3 + 1 + 8) + 2 * n * n * w
    products = 17 * block + 8 * n * 2 * w * w + 256 * 768 * w + 256 * w * 16 * 2 + 4 * 4 * 9 * 1024
    plain = uvit.forward_flop(replace(PUBLISHED, prototypes=0))
    assert plain == 2 * products
    k = 512
    mechanism = 2 * n * w * w + 2 * k * w * w + 2 * n * k * w  # reconstruction
    mechanism += 4 * n * w * w + 2 * n * n * w + n * w * w  # self-attention, injection
    assert uvit.forward_flop(PUBLISHED) - plain == 2 * mechanism


def test_the_network_is_the_papers_by_torchs_own_transformer_layers() -> None:
    """A second route: nn.TransformerEncoderLayer, concatenated skips, and patches cut by hand."""
    shape = replace(SHAPE, prototypes=0, depth=4)
    model = network(shape)
    latents, times, classes, text = inputs(shape)
    w, p, side = shape.width, shape.patch, shape.side
    kernel = model.patches.weight.flatten(1)
    patches = functional.unfold(latents, p, stride=p).transpose(1, 2) @ kernel.T
    frequencies = 10_000.0 ** (-torch.arange(w // 2) / (w // 2))
    angles = times[:, None] * frequencies
    time = torch.cat([angles.cos(), angles.sin()], 1)[:, None]
    assert model.classes is not None
    assert model.text is not None
    tokens = torch.cat(
        [
            model.classes.weight[classes][:, None],
            time,
            text @ model.text.weight.T + model.text.bias,
            patches + model.patches.bias,
        ],
        1,
    )
    tokens = tokens + model.positions
    skips: list[Tensor] = []
    for index, block in enumerate([*model.input_blocks, model.middle, *model.output_blocks]):
        if index > 2:
            joined = torch.cat([tokens, skips.pop()], -1)
            tokens = joined @ block.skip.weight.T + block.skip.bias
        tokens = _reference(block, w, shape.heads)(tokens)
        if index < 2:
            skips.append(tokens)
    image = model.output(model.norm(tokens))[:, 2 + shape.text_tokens :]
    image = (
        image.view(-1, (side // p) ** 2, p * p, shape.channels).permute(0, 3, 2, 1).flatten(1, 2)
    )
    folded = functional.fold(image, (side, side), p, stride=p)
    found, error = model(latents, times, classes, text)
    torch.testing.assert_close(found, model.final(folded), atol=1e-5, rtol=1e-4)
    assert error is None


def _reference(block: Any, width: int, heads: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    state = {
        "self_attn.in_proj_weight": block.attention.qkv.weight,
        "self_attn.in_proj_bias": torch.zeros(3 * width),
        "self_attn.out_proj.weight": block.attention.out.weight,
        "self_attn.out_proj.bias": block.attention.out.bias,
    }
    for ours, theirs in (("mlp.0", "linear1"), ("mlp.2", "linear2"), ("norm_1", "norm1"),
                         ("norm_2", "norm2")):  # fmt: skip
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = block.get_parameter(f"{ours}.{kind}")
    layer.load_state_dict(state)
    return layer


def test_attention_in_bf16_is_that_of_float64_as_are_its_gradients() -> None:
    """CPUs have a way of their own for bf16, so one route is written out in double precision."""
    exact = [drawn(2, length, 32, seed=length).double() for length in (9, 11)]
    rounded = [part.bfloat16().requires_grad_() for part in exact]
    exact = [part.detach().double().requires_grad_() for part in rounded]
    found = attend(rounded[0], rounded[1], rounded[1], 4)
    q, k = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in exact)
    shares = torch.exp(q @ k.mT / 8**0.5)
    wanted = (shares / shares.sum(-1, keepdim=True) @ k).transpose(1, 2).flatten(-2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, atol=0.03, rtol=0.03)
    for output in (found, wanted):
        output.sum().backward()
    for mine, theirs in zip(rounded, exact, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=0.1, rtol=0.05, check_dtype=False)


def test_prototypes_change_nothing_at_the_start_and_the_released_code_does() -> None:
    """After all initialisation: the released code fills its zeros again."""
    torch.use_deterministic_algorithms(True)
    try:
        without = network(replace(SHAPE, prototypes=0))(*inputs())[0]
        with_them, error = network()(*inputs(), reconstruct=True)
        assert torch.equal(with_them, without)
        assert error is not None
        torch.testing.assert_close(error, torch.full((2,), 0.5), atol=0.01, rtol=0)
        released = replace(SHAPE, variant="released", reconstruction_target="joint")
        mechanism = network(released).prototypes
        assert mechanism is not None
        assert float(mechanism.injection_1.weight.detach().abs().max()) > 0.01
        assert not torch.equal(network(released)(*inputs())[0], without)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("target", ["detached", "joint"])
def test_only_a_joint_target_learns_to_be_reconstructed(target: Any) -> None:
    """With the mechanism's own path cut, the encoder has a gradient from the target alone."""
    model = network(replace(SHAPE, reconstruction_target=target))
    assert model.prototypes is not None
    encoded, middle = drawn(2, SHAPE.tokens, 32).requires_grad_(), drawn(2, SHAPE.tokens, 32)
    nn.init.zeros_(model.prototypes.reconstruction.query.weight)
    _, error = model.prototypes(encoded, middle, torch.tensor([0, 1]), True)
    (gradient,) = torch.autograd.grad(error.sum(), encoded, allow_unused=True)
    moved = float(gradient.abs().sum()) if gradient is not None else 0.0
    assert (moved > 0) == (target == "joint")


def test_the_released_reconstruction_is_a_softmax_over_prototypes() -> None:
    shape = replace(SHAPE, variant="released", reconstruction_target="joint", heads=1)
    mechanism = network(shape).prototypes
    assert mechanism is not None
    middle, classes = drawn(2, shape.tokens, 32), torch.tensor([1, 0])
    _, error = mechanism(drawn(2, shape.tokens, 32, seed=2), middle, classes, True)
    elements = mechanism.elements.weight.view(3, 4, 32)[classes]
    query = mechanism.query(middle)
    scores = (query @ mechanism.key(elements).transpose(1, 2) / 32**0.5).softmax(-1)
    expected = ((scores @ mechanism.value(elements) - query) ** 2).mean((1, 2)) / 2
    torch.testing.assert_close(error, expected)


class Latents:
    """Images of one class look alike: the mean of their latents is that of the class."""

    def draw(self, samples: list[Sample], generators: list[torch.Generator]) -> Tensor:
        means = [1.5 if sample.label == "malignant" else -1.5 for sample in samples]
        noise = [drawn(16, 16, 16, seed=sample.image_id) * 0.3 for sample in samples]
        for g in generators:
            torch.randn(1, generator=g)
        pattern = drawn(16, 16, 16, seed="pattern").sign()
        return torch.stack([mean * pattern + n for mean, n in zip(means, noise, strict=True)])


SAMPLES = [Sample(f"x/{n}", "", ("benign", "malignant")[n % 2], 128, f"text {n}") for n in range(8)]
SHORT = replace(SHAPE, text_tokens=3, text_width=8)


def states(prompts: list[str]) -> Tensor:
    """The empty description's are zeros."""
    parts = [drawn(3, 8, seed=p) if p else torch.zeros(3, 8) for p in prompts]
    return torch.stack(parts).half()


def objective(shape: Shape = SHORT, processes: Processes = SINGLE, **changes: Any) -> Objective:
    settings = UVIT.model_copy(update=changes)
    data = arrange("vap", 128, "malignancy", TrainingImages(SAMPLES, SAMPLES[:2], 0, 0))
    description = weights.Description(
        shape, SCALED, "malignancy", data.classes, 128, "x", None, "x", "captions", "x", None, "x"
    )
    model = weights.LatentModel(network(shape), description, torch.zeros(1), torch.ones(1))
    order = Order("vap", len(SAMPLES), settings.batch, settings.micro_batches, 0)
    return Objective(model, data, order, Latents(), states, settings, 0, 500, processes)


def test_the_loss_is_equation_3_whatever_the_parts_and_processes() -> None:
    """Its diffusion term by diffusers' scheduler; gradients of two processes are those of one."""
    theirs = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    trained = objective(alpha=0.25)
    total, dropped = torch.zeros(2), 0
    for micro in trained._share(0):
        described = trained._prepared(micro)
        batch, dropped = described.batch, dropped + sum(described.batch.dropped)
        point = theirs.add_noise(batch.latents, batch.noise, batch.times.long())
        assert described.text is not None
        output, error = trained._model.uvit(
            point, batch.times, batch.classes, described.text.float(), True
        )
        squared = functional.mse_loss(output, batch.noise, reduction="sum") / 16**3
        total = total + torch.stack([squared, error.sum()]) / 4
    parts = list(trained.parts(0))
    assert len(parts) == 2
    for index, name in enumerate(("diffusion_loss", "reconstruction_loss")):
        assert sum(float(part.terms[name]) for part in parts) == pytest.approx(
            float(total[index]), rel=1e-5
        )
    expected = float(total[0] + 0.25 * total[1])
    assert sum(part.loss.item() for part in parts) == pytest.approx(expected, rel=1e-5)
    whole = objective(alpha=0.25, micro_batches=1)
    assert [part.loss.item() for part in whole.parts(0)] == pytest.approx([expected], rel=1e-5)

    def gradients(*shares: Processes) -> Tensor:
        summed = torch.zeros(())
        for processes in shares:
            each = objective(processes=processes)
            for part in each.parts(1):
                part.loss.backward()
            each.close()
            found = [w.grad.flatten() for w in each.weights().values() if w.grad is not None]
            summed = summed + torch.cat(found)
        return summed

    alone, shared = gradients(SINGLE), gradients(Processes(0, 2), Processes(1, 2))
    torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-4)
    assert float(alone.norm()) > 0


def test_class_and_description_are_dropped_together() -> None:
    some = objective(label_drop=0.3)
    captions = {sample.image_id: sample.caption for sample in SAMPLES}
    dropped = []
    for step in range(100):
        for micro in some._share(step):
            described = some._prepared(micro)
            for row, image_id in enumerate(described.batch.image_ids):
                null = int(described.batch.classes[row]) == 2
                assert described.text is not None
                shown = described.text[row]
                assert torch.equal(shown, states(["" if null else captions[image_id]])[0])
                dropped.append(null)
    assert sum(dropped) / 400 == pytest.approx(0.3, abs=0.07)  # three standard deviations


def test_prototypes_of_another_class_reconstruct_worse_after_a_short_training() -> None:
    trained = objective(label_drop=0.0, ema_decay=None, alpha=1.0)
    optimiser = torch.optim.Adam(trained.weights().values(), 3e-3)
    for step in range(100):
        optimiser.zero_grad()
        for part in trained.parts(step):
            part.loss.backward()
        optimiser.step()
    trained.close()
    model = trained._model.uvit
    assert model.prototypes is not None
    seen: list[Tensor] = []
    model.middle.register_forward_pre_hook(lambda _, tokens: seen.append(tokens[0]))
    latents = Latents().draw(SAMPLES, [generator(n) for n in range(8)])
    text, own = states([s.caption for s in SAMPLES]).float(), torch.tensor([0, 1] * 4)
    with torch.no_grad():
        model(latents, torch.full((8,), 300.0), own, text)
        right, wrong = (model.prototypes(seen[0], seen[0], c, True)[1] for c in (own, 1 - own))
    assert float(right.max()) < 0.25  # half of what it is at the start
    assert bool((wrong > right).all())
    assert float(wrong.mean()) > 1.05 * float(right.mean())


def test_the_held_out_loss_is_that_of_the_diffusion_term() -> None:
    """With conditions shown, at eight fixed times."""
    trained = objective()
    data = trained._source.data
    loss = held_out_loss(trained._model, data, Latents(), states, UVIT, SINGLE)()
    total = 0.0
    for sample in data.held_out:
        draw = generator("validation", sample.image_id)
        clean = Latents().draw([sample], [draw])
        noise = torch.randn(1, 16, 16, 16, generator=draw)
        for time in ((index + 0.5) * 125 for index in range(8)):
            when = torch.tensor([float(int(time))])
            point = SCALED.add_noise(clean, noise, when)
            classes = torch.tensor([data.embedding(sample)])
            text = states([sample.caption]).float()
            with torch.no_grad():
                output = trained._model.uvit(point, when, classes, text)[0]
            total += float((output - noise).square().mean())
    assert loss["validation_loss"] == pytest.approx(total / 16, rel=1e-5)


def test_the_schedule_and_solver_are_those_asked_for() -> None:
    theirs = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    torch.testing.assert_close(SCALED.alphas_cumprod, theirs.alphas_cumprod)
    for order in (1, 2, 3):
        solver = scheduler(SCALED, "dpm_solver", order)
        assert (solver.config.solver_order, solver.config.beta_schedule) == (order, "scaled_linear")
        torch.testing.assert_close(solver.alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize(
    ("guidance", "wanted", "outputs", "passes"),
    [
        (3.0, [(0, "a"), (1, "a")], [2 + 3 * (10 - 2), 2 + 3 * (11 - 2)], 4),
        (3.0, [(0, ""), (2, "a")], [2 + 3 * (0 - 2), 2 + 3 * (12 - 2)], 4),
        (1.0, [(0, "a"), (1, "")], [10, 1], 2),
        (3.0, [(2, ""), (2, "")], [2, 2], 2),
    ],
)
def test_guidance_leads_away_from_no_class_and_the_empty_description(
    guidance: float, wanted: list[tuple[int, str]], outputs: list[int], passes: int
) -> None:
    """A network whose output is the number of the class, 2 for none, and 10 for a description."""
    seen: list[int] = []

    def stub(latents: Tensor, times: Tensor, classes: Tensor, text: Tensor) -> Any:
        seen.append(len(latents))
        value = classes.float() + text.flatten()
        return value.view(-1, 1, 1, 1).expand_as(latents), None

    def tower(prompts: list[str]) -> Tensor:
        return torch.tensor([10.0 * bool(prompt) for prompt in prompts]).view(-1, 1, 1)

    description = weights.Description(
        SHORT, DiffusionPath("flow"), "malignancy", ("benign", "malignant"), 128, "x", None, "x",
        "captions", "x", None, "x",
    )  # fmt: skip
    model = weights.LatentModel(stub, description, torch.zeros(1), torch.ones(1))  # type: ignore[arg-type]
    asked = [Wanted(index, prompt, 0) for index, prompt in wanted]
    denoise = _Denoiser(model, SamplingSettings("euler", 1, guidance), tower, asked)  # type: ignore[arg-type]
    clean = denoise(torch.zeros(2, 16, 16, 16), 1000.0)
    assert clean[:, 0, 0, 0].tolist() == pytest.approx([-float(v) for v in outputs])
    assert seen == [passes]
