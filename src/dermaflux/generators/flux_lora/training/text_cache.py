"""Encoded captions on disk, for cards that cannot hold the text encoders beside the transformer.

Reads and writes `.dermaflux/cache/text/`. With the encoders of FLUX.1-dev a caption takes 1 MB in
bf16 for every 128 T5 tokens. What the paper's captions take, and what encoding them again in every
step costs instead, benchmarks/flux_memory.py writes into docs/generator.md for either padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.generators.flux_lora.model.prompt_padding import Text, encode
from dermaflux.paths import project_root
from dermaflux.progress import progress

if TYPE_CHECKING:
    from diffusers import FluxPipeline

_ENCODED_TOKENS = 4096
"""T5 tokens encoded together: 32 captions of 128 tokens, 8 of 512."""
_SHARD_BYTES = 512_000_000


class CachedText:
    """A `TextSource` that reads what `cache_text` wrote; the encoders need not be loaded."""

    def __init__(self, cache: TensorCache, device: torch.device) -> None:
        self._cache, self._device = cache, device

    def __call__(self, prompts: Sequence[str], length: int) -> Text:
        """Text of B prompts at `length` T5 tokens; raises `KeyError` for one never cached."""
        entries = self._cache.read([_key(prompt, length) for prompt in prompts])
        tokens, pooled = entries["tokens"].to(self._device), entries["pooled"].to(self._device)
        ids = torch.zeros(length, 3, dtype=tokens.dtype, device=self._device)
        return Text(tokens, pooled, ids)


def cache_text(
    encoders: Callable[[], FluxPipeline],
    identity: str,
    prompts: Sequence[str],
    lengths: Sequence[int],
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> CachedText:
    """Encode what is missing of prompts at their T5 lengths; return the source that reads it.

    `encoders` opens a pipeline with text encoders and is called only when something is missing;
    `identity` names whatever decides its states: weights and dtype. Each of `world` processes
    encodes its share, and `wait` returns when all have called it. Raises `InputError` when the disk
    is too small.
    """
    folder = project_root() / ".dermaflux" / "cache" / "text"
    name = hashlib.sha256(f"{identity}/{device.type}".encode()).hexdigest()[:16]
    cache = TensorCache(folder / name, _SHARD_BYTES)
    keys = [_key(*pair) for pair in zip(prompts, lengths, strict=True)]
    missing = cache.missing(keys)
    # Nobody may look for what is missing after others have begun to write it.
    wait()
    if rank == 0 and missing:
        print(f"text cache: {len(missing):,} of {len(prompts):,} captions to encode")
    _encode(encoders, _grouped(prompts, lengths, missing[rank::world]), cache)
    wait()
    cache.refresh()
    # Machines without a common disk do not see each other's part.
    _encode(encoders, _grouped(prompts, lengths, cache.missing(keys)), cache)
    return CachedText(cache, device)


def _grouped(
    prompts: Sequence[str], lengths: Sequence[int], missing: Sequence[int]
) -> dict[int, list[str]]:
    """Prompts at the indices `missing`, by their length."""
    groups: dict[int, list[str]] = {}
    for index in missing:
        groups.setdefault(lengths[index], []).append(prompts[index])
    return groups


def _key(prompt: str, length: int) -> bytes:
    return key(length, prompt)


def _encode(
    encoders: Callable[[], FluxPipeline], groups: Mapping[int, Sequence[str]], cache: TensorCache
) -> None:
    if not groups:
        return
    pipe, total = encoders(), sum(map(len, groups.values()))
    reserve(
        cache.folder,
        _size(pipe, groups),
        "free some space or set runtime.finetune.text_cache to false",
    )
    with progress("finetune.text", total) as advance, cache.writer() as writer:
        for length in sorted(groups):
            together = max(1, _ENCODED_TOKENS // length)
            for start in range(0, len(groups[length]), together):
                part = groups[length][start : start + together]
                # Always the full batch: at another size kernels may round in another way.
                text = encode(pipe, [*part, *[part[-1]] * (together - len(part))], length)
                for row, prompt in enumerate(part):
                    entry = {"tokens": text.tokens[row], "pooled": text.pooled[row]}
                    writer.add(_key(prompt, length), entry)
                advance(len(part))


def _size(pipe: FluxPipeline, groups: Mapping[int, Sequence[str]]) -> int:
    """Bytes the groups take on disk."""
    width, pooled = pipe.text_encoder_2.config.d_model, pipe.text_encoder.config.hidden_size
    numbers = sum((length * width + pooled) * len(group) for length, group in groups.items())
    return int(numbers) * pipe.text_encoder_2.dtype.itemsize
