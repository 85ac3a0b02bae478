"""Encoded descriptions on disk, so that a training reads each once through the text tower.

Reads and writes `.dermaflux/cache/text_states/`. An entry belongs to the description's content and
the tower: 393 kB for BiomedCLIP's 256 tokens of width 768.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from torch import Tensor

from dermaflux.core.distributed import Processes
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.generators.vap.model.text import TextTower
from dermaflux.paths import project_root
from dermaflux.progress import progress

_SHARD_BYTES = 256_000_000
_STATES = "states"
_TOGETHER = 16  # descriptions, of which the tower encodes as many at a time

TextSource = Callable[[Sequence[str]], Tensor]
"""B descriptions -> states of their tokens (B, T, D) on the CPU."""


def cache_text(tower: TextTower, prompts: Sequence[str], processes: Processes) -> TextSource:
    """Encode what is missing, each process its share; return the source that reads all.

    Raises `InputError` when the disk is too small.
    """
    device = next(tower.network.parameters()).device
    name = hashlib.sha256(f"{tower.reference.identity}/{device.type}".encode()).hexdigest()[:16]
    folder = project_root() / ".dermaflux" / "cache" / "text_states" / name
    cache = TensorCache(folder, _SHARD_BYTES)
    missing = [prompts[index] for index in cache.missing([key(p) for p in prompts])]
    # Nobody may look for what is missing after others have begun to write it.
    processes.wait()
    if processes.main and missing:
        print(f"text cache: {len(missing):,} descriptions to encode", flush=True)
    _encode(tower, missing[processes.rank :: processes.world], cache)
    processes.wait()
    cache.refresh()
    # Machines without a common disk do not see each other's part.
    _encode(tower, [prompts[index] for index in cache.missing([key(p) for p in prompts])], cache)
    return lambda wanted: cache.read([key(prompt) for prompt in wanted])[_STATES]


def _encode(tower: TextTower, prompts: Sequence[str], cache: TensorCache) -> None:
    if not prompts:
        return
    size = 2 * tower.tokens * tower.width * len(prompts)
    reserve(cache.folder, size, "free some space or lower finetune.maximum_images")
    with progress("finetune.text", len(prompts)) as advance, cache.writer() as writer:
        for start in range(0, len(prompts), _TOGETHER):
            part = prompts[start : start + _TOGETHER]
            for prompt, states in zip(part, tower(part), strict=True):
                writer.add(key(prompt), {_STATES: states})
            advance(len(part))
