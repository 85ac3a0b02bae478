"""FLUX.1-dev's parts with random weights, drawn on the device: nothing to download.

Also a shape small enough to try a benchmark itself on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from dermaflux.generators.flux_lora.model.flops import FluxShape
from dermaflux.generators.flux_lora.model.prompt_padding import Text

_TIMED_SECONDS = 3.0


class Model:
    """Transformer, T5, CLIP's pooled state and autoencoder with random weights, on the device."""

    def __init__(self, tiny: bool, device: torch.device, dtype: torch.dtype) -> None:
        from diffusers import AutoencoderKL, FluxTransformer2DModel
        from transformers import T5Config, T5EncoderModel

        flux: dict[str, Any] = {"guidance_embeds": True}
        t5 = T5Config(
            vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        widths = (128, 256, 512, 512)
        if tiny:
            flux |= {
                "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 32,
                "num_attention_heads": 2, "joint_attention_dim": 64, "pooled_projection_dim": 32,
                "axes_dims_rope": (8, 12, 12),
            }  # fmt: skip
            t5 = T5Config(vocab_size=99, d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=4)
            widths = (32, 32, 32, 32)
        self.device, self.dtype = device, dtype
        with torch.device("meta"):
            transformer = FluxTransformer2DModel(**flux)
            encoder = T5EncoderModel(t5)
            vae = AutoencoderKL(
                latent_channels=16, block_out_channels=widths, layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                use_quant_conv=False, use_post_quant_conv=False,
                shift_factor=0.1159, scaling_factor=0.3611,
            )  # fmt: skip
        self.transformer, self.encoder, self.vae = (
            self._drawn(one) for one in (transformer, encoder, vae)
        )
        self.shape = FluxShape.of(self.transformer.config)

    def _drawn(self, module: Any) -> Any:
        module = module.to(self.dtype).to_empty(device=self.device).eval().requires_grad_(False)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.02 if parameter.ndim > 1 else 1e-3)
            for buffer in module.buffers():
                buffer.zero_()
        return module

    def text(self, batch: int, length: int) -> Text:
        """T5 states of random words, encoded now; the pooled state costs nothing worth timing."""
        words = torch.randint(3, self.encoder.config.vocab_size, (batch, length))
        with torch.no_grad():
            states = self.encoder(words.to(self.device))[0]
        pooled = torch.zeros(batch, self.shape.pooled_width, device=self.device, dtype=self.dtype)
        return Text(states, pooled, torch.zeros(length, 3, device=self.device, dtype=self.dtype))

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_gib(self) -> float:
        """Largest memory since the last call, GiB; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak

    def seconds(self, work: Callable[[], object], warm: int = 2) -> float:
        """Mean time of `work` over about three seconds, after `warm` calls."""
        for _ in range(warm):
            work()
        self.synchronise()
        began, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - began < _TIMED_SECONDS:
            work()
            self.synchronise()
            done += 1
        return (time.perf_counter() - began) / done
