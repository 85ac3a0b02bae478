"""The tiny backbone's parts, put together as the FluxPipeline that `save_pretrained` writes.

Same classes as FLUX.1-dev; only widths and depths differ. The text encoders are random and frozen,
with weights drawn so that every word leaves its mark. Reads nothing; `save` writes the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model.pipeline import quiet
from dermaflux.generators.flux_lora.model.rectified_flow import (
    BASE_SHIFT,
    BASE_TOKENS,
    MAXIMUM_SHIFT,
    MAXIMUM_TOKENS,
)
from dermaflux.generators.tiny_flux.vocabulary import CLIP_TOKENS, clip_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

CARD = "README.md"
_TEXT_WIDTH, _POOLED_WIDTH = 96, 64


def transformer(seed: int) -> FluxTransformer2DModel:
    """2.4 million parameters: 2 double and 4 single blocks of width 128."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    model = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=_TEXT_WIDTH,
        pooled_projection_dim=_POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    # Zero modulation and output make every block the identity at first (DiT, section 3.2).
    with torch.no_grad():
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            for name, module in block.named_children():
                if name.startswith("norm") and hasattr(module, "linear"):
                    module.linear.weight.zero_()
                    module.linear.bias.zero_()
        for linear in (model.norm_out.linear, model.proj_out):
            linear.weight.zero_()
            linear.bias.zero_()
    return model


def assemble(
    vae: AutoencoderKL, transformer: FluxTransformer2DModel, text: Sequence[str], seed: int
) -> FluxPipeline:
    """A complete pipeline; the tokenizers are trained on `text`, one caption per entry."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    clip_words, t5_words = clip_tokenizer(text), t5_tokenizer(text)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=BASE_SHIFT,
            max_shift=MAXIMUM_SHIFT,
            base_image_seq_len=BASE_TOKENS,
            max_image_seq_len=MAXIMUM_TOKENS,
        ),
        vae=vae,
        text_encoder=_clip(len(clip_words), clip_words.eos_token_id, seed),
        tokenizer=clip_words,
        text_encoder_2=_t5(len(t5_words), seed),
        tokenizer_2=t5_words,
        transformer=transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    _normalise(pipe, text)
    return pipe


def _draw(module: nn.Module, seed: int, deviation: dict[str, float]) -> None:
    """Redraw matrices: N(0, (gain / sqrt(columns))^2), gain 1 unless the name ends as listed."""
    draw = generator(seed, "text encoder", type(module).__name__)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            if parameter.ndim == 2:
                gain = next((g for end, g in deviation.items() if end in name), 1.0)
                columns = 1 if "embed" in name or "bias" in name else parameter.shape[1]
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * gain / columns**0.5)


def _t5(vocabulary: int, seed: int) -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=_TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * _TEXT_WIDTH,
            num_layers=1,
            num_heads=6,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
            tie_word_embeddings=True,
        )
    )
    # FLUX gives text tokens no position: a wide relative bias lets heads pick fixed neighbours, so
    # that a token's state tells "four colors" from "mainly black" by itself.
    draws = {"shared": 1.0, "embed_tokens": 1.0, "relative_attention_bias": 4.0, ".q.": 0.2}
    _draw(model, seed, draws)
    return model.eval().requires_grad_(False)


def _clip(vocabulary: int, end: int, seed: int) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=_POOLED_WIDTH,
            intermediate_size=2 * _POOLED_WIDTH,
            projection_dim=_POOLED_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=0,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    _draw(model, seed, dict(token_embedding=1.0, position_embedding=0.1, q_proj=0.2))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _normalise(pipe: FluxPipeline, text: Sequence[str]) -> None:
    """Give CLIP's pooled state mean 0 and variance 1 over `text`, as a trained encoder would.

    The end token's own embedding is the same in every caption and would drown what differs.
    """
    pooled = pipe.encode_prompt(prompt=list(text[:256]), max_sequence_length=64)[1]
    norm = _final_norm(pipe.text_encoder)
    deviation = pooled.std(dim=0).clamp(min=1e-3)
    norm.bias.copy_((norm.bias - pooled.mean(dim=0)) / deviation)
    norm.weight.div_(deviation)


def _final_norm(encoder: Any) -> nn.LayerNorm:
    norms = [
        module for name, module in encoder.named_modules() if name.endswith("final_layer_norm")
    ]
    norm: nn.LayerNorm = norms[-1]
    return norm


def save(pipe: FluxPipeline, folder: Path) -> None:
    """Write the folder that `FluxPipeline.from_pretrained` opens; equal weights, equal bytes."""
    quiet()
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.json"):
        # The tokenizers library writes its maps in the order of a hash table, and diffusers the
        # folder that a pipeline was opened from.
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("_name_or_path", None)
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    (folder / CARD).write_text(
        "A few-million-parameter FluxPipeline for trying DermaFlux, trained on rendered lesions.\n"
        "Licence: CC0.\n",
        encoding="utf-8",
    )
