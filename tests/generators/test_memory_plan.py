from __future__ import annotations

from typing import Any

import pytest
import tiny_flux
import torch

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.flops import FLUX_1_DEV, FluxShape, LoraShape
from dermaflux.generators.flux_lora.model.options import Targets
from dermaflux.generators.flux_lora.training import memory_plan
from dermaflux.generators.flux_lora.training.checkpointing import recompute
from dermaflux.generators.flux_lora.training.memory_plan import GIB, Training, fit
from dermaflux.generators.flux_lora.training.saved_activations import (
    BatchShape,
    Precision,
    activation_bytes,
)


def really_saved(model: Any, batch: BatchShape, dtype: torch.dtype) -> int:
    """Bytes of the distinct storages that autograd keeps, the model's own left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = tiny_flux.velocity(
            model, batch.images, batch.image_tokens, batch.text_tokens, dtype
        ).mean()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_those_autograd_keeps(targets: Targets, dtype: torch.dtype) -> None:
    batch, adapter = BatchShape(2, 64, 48), LoraShape(4, targets)
    precision = Precision(dtype.itemsize, 4)
    for recomputed, tolerance in ((0, 0.02), (3, 0.04), (6, 0.12)):
        model = tiny_flux.transformer().to(dtype)
        lora.add(model, targets, 4, 4.0, seed=0)
        recompute(model.train(), recomputed)
        expected = activation_bytes(
            FluxShape.of(model.config), batch, adapter, precision, recomputed
        )
        assert expected == pytest.approx(really_saved(model, batch, dtype), rel=tolerance)


@pytest.mark.parametrize(
    ("targets", "double_widths", "single_widths", "double_ranks", "single_ranks"),
    [
        # Widths of 3,072 that a token leaves in a block: query, key, value, output and the
        # feed-forward's hidden layer (8), the inputs of norms (2 or 1), the normalised query and
        # key (2), and one for each distinct input of an adapted layer; with every Linear adapted,
        # also what shift, scale and gate multiply (4 or 2).
        ("attention", 8 + 2 + 2 + 2, 8 + 1 + 2 + 1, 4, 3),
        ("all-linear", 8 + 2 + 2 + 4 + (1 + 1 + 1 + 4), 8 + 1 + 2 + 2 + (1 + 5), 6, 5),
    ],
)
def test_activations_of_flux_1_dev_per_token_are_those_counted_by_hand(
    targets: Targets, double_widths: int, single_widths: int, double_ranks: int, single_ranks: int
) -> None:
    batch = BatchShape(64, 64, 128)
    kept = activation_bytes(FLUX_1_DEV, batch, LoraShape(64, targets), Precision(2, 2))
    statistics = 4 * (3 * 24 + 4)
    double = 2 * (double_widths * 3072 + double_ranks * 64) + statistics
    single = 2 * (single_widths * 3072 + single_ranks * 64) + statistics
    factors = {"attention": 104_595_456, "all-linear": 343_670_784}[targets]
    by_hand = batch.tokens * (19 * double + 38 * single) + 2 * factors
    # Beyond it: the model's input, and what modulation keeps of an image, 1 of 192 tokens here.
    assert by_hand < kept < 1.004 * by_hand


@pytest.mark.parametrize("base_dtype", ["fp32", "bf16", "fp8", "nf4"])
def test_weights_are_counted_as_they_are_held(here: Any, base_dtype: Any) -> None:
    if base_dtype == "nf4":
        pytest.importorskip("bitsandbytes")
    parts = pipeline.on_meta(here.backbone)
    pipe = pipeline.load(here.backbone, base_dtype, torch.device("cpu"))
    for name, encoder in (("transformer", False), ("text_encoder_2", True)):
        part = getattr(pipe, name)
        held = sum(p.numel() * p.element_size() for p in part.parameters())
        held += sum(b.numel() * b.element_size() for b in part.buffers())
        counted = memory_plan.weight_bytes(parts[name], base_dtype, encoder)
        assert counted == pytest.approx(held, rel=0.03)


def _training(**changes: Any) -> Training:
    given: dict[str, Any] = dict(
        base_dtype="bf16", adapter=LoraShape(64, "all-linear"), trainable=343_670_784, ema=False,
        text_cache=False, checkpointing="auto",
        batches=(BatchShape(64, 64, 128), BatchShape(9, 1024, 256)),
    )  # fmt: skip
    return Training(**{**given, **changes})


@pytest.fixture(scope="module")
def flux() -> dict[str, torch.nn.Module]:
    """FLUX.1-dev's transformer, and encoders of the same sizes, without storage."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    t5 = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        return {
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=768)),
            "text_encoder_2": T5EncoderModel(t5),
            "vae": AutoencoderKL(latent_channels=16),
        }


def test_recomputes_as_few_blocks_as_fit(flux: dict[str, torch.nn.Module]) -> None:
    roomy = fit(flux, FLUX_1_DEV, _training(), "cuda", 200 * GIB)
    assert roomy.recomputed == 0
    assert roomy.parts["base (bf16)"] / 1e9 == pytest.approx(23.8, abs=0.05)
    assert roomy.parts["text encoders"] / 1e9 == pytest.approx(9.8, abs=0.2)
    less = fit(flux, FLUX_1_DEV, _training(), "cuda", 80 * GIB)
    assert 0 < less.recomputed < 57
    one_fewer = _training(checkpointing="none")
    with pytest.raises(InputError, match="gradient_checkpointing to auto"):
        fit(flux, FLUX_1_DEV, one_fewer, "cuda", 80 * GIB)
    assert f"{less.recomputed} of 57 blocks recomputed" in less.table()
    assert less.total <= less.available
    full = fit(flux, FLUX_1_DEV, _training(checkpointing="full"), "cuda", 80 * GIB)
    assert full.recomputed == 57
    assert full.total < less.total


def test_says_in_one_sentence_what_does_not_fit(flux: dict[str, torch.nn.Module]) -> None:
    with pytest.raises(InputError) as caught:
        fit(flux, FLUX_1_DEV, _training(), "cuda", 24 * GIB)
    message = str(caught.value)
    assert "the GPU has 24.0 GiB to use" in message
    for fix in (
        "flux_lora.batch_tokens",
        "flux_lora.base_dtype to fp8 or nf4",
        "text_cache to true",
    ):
        assert fix in message
    small = _training(base_dtype="nf4", text_cache=True, batches=(BatchShape(1, 256, 128),))
    assert fit(flux, FLUX_1_DEV, small, "cuda", 24 * GIB).total < 24 * GIB


def test_sharded_processes_share_the_base(flux: dict[str, torch.nn.Module]) -> None:
    alone = fit(flux, FLUX_1_DEV, _training(), "cuda", 200 * GIB)
    shared = fit(flux, FLUX_1_DEV, _training(processes=8, sharded=True), "cuda", 200 * GIB)
    assert shared.parts["base (bf16)"] < 0.2 * alone.parts["base (bf16)"]


def test_a_plan_fills_what_is_free_and_leaves_a_twentieth(
    flux: dict[str, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.device("cuda")
    needed = fit(flux, FLUX_1_DEV, _training(checkpointing="none"), "cuda", 200 * GIB).total
    whole = _training(checkpointing="none")
    monkeypatch.setattr(memory_plan, "free_memory", lambda device: needed / 0.949)
    assert memory_plan.plan(flux, FLUX_1_DEV, whole, cuda).total == needed
    monkeypatch.setattr(memory_plan, "free_memory", lambda device: needed / 0.951)
    with pytest.raises(InputError, match="GiB to use; set runtime"):
        memory_plan.plan(flux, FLUX_1_DEV, whole, cuda)
    monkeypatch.delenv("DERMAFLUX_DEVICE", raising=False)
    with pytest.raises(InputError, match=r"the transformer .* has 11\.9 billion parameters"):
        memory_plan.plan(flux, FLUX_1_DEV, whole, torch.device("cpu"))
