"""What the generator's benchmarks run on: a FluxPipeline folder of random weights, and a corpus.

Speed does not depend on what weights hold. Captions have the lengths of the published ones: log-
normal with median 123 and 95 % quantile 206 T5 tokens, at most 300.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux.core import table
from dermaflux.core.hashing import sha256

_MEDIAN, _P95, _LONGEST = 123, 206, 300
# Images per scale of the published corpus, in pixels (design: the whole DermaFlux run).
PAPER_MIX = {128: 400_901, 256: 22_140, 512: 85_303}


def caption_lengths(count: int, seed: int = 0) -> list[int]:
    """T5 tokens of `count` captions, end token included."""
    draw = np.random.default_rng(seed)
    deviation = math.log(_P95 / _MEDIAN) / 1.645
    lengths = np.exp(draw.normal(math.log(_MEDIAN), deviation, count))
    return [int(n) for n in lengths.round().clip(16, _LONGEST)]


def write_backbone(folder: Path, heads: int = 4, double: int = 2, single: int = 4) -> None:
    """A FluxPipeline of `heads` x 32 channels, as the stage `backbone` builds it but not trained.

    The demo's has 4 heads, 2 double and 4 single blocks.
    """
    import torch
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.tiny_flux import autoencoder, pipeline
    from dermaflux.generators.tiny_flux.training import SIDE, vocabulary_text
    from dermaflux.phantom import draw, render

    lesions = [draw(index, "benchmark") for index in range(24)]
    pixels = torch.from_numpy(np.stack([render(one, SIDE, SIDE) for one in lesions]))
    vae = autoencoder.build(pixels.permute(0, 3, 1, 2).contiguous(), SIDE)
    mean, _ = autoencoder.moments(vae, pixels.permute(0, 3, 1, 2).contiguous())
    autoencoder.set_statistics(vae, mean)
    config = dict(pipeline.transformer(0).config)
    config |= {
        "num_attention_heads": heads,
        "num_layers": double,
        "num_single_layers": single,
    }
    torch.manual_seed(0)
    model = FluxTransformer2DModel.from_config(config)
    pipe = pipeline.assemble(vae, model, vocabulary_text(), 0)
    pipeline.save(pipe, folder)


def captions(count: int, seed: int = 0) -> list[str]:
    """Texts of the published lengths in the tiny vocabulary: one word is one token."""
    from dermaflux.generators.tiny_flux.training import vocabulary_text

    words = [word for line in vocabulary_text()[:50] for word in line.split() if word.isalpha()]
    draw = np.random.default_rng(seed)
    return [
        "This is an image containing a benign lesion "
        + " ".join(draw.choice(words, max(1, length - 9)))
        for length in caption_lengths(count, seed)
    ]


def write_corpus(folder: Path, scales: Sequence[int], distinct: int = 24) -> tuple[Path, Path]:
    """corpus/ and captions/ with one image for each entry of `scales`, in pixels.

    `distinct` pictures per scale are rendered; the others differ from them in one pixel.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from dermaflux.phantom import draw, render

    pictures: dict[int, list[np.ndarray[Any, Any]]] = {
        scale: [render(draw(i, "benchmark"), scale, scale) for i in range(min(distinct, 24))]
        for scale in sorted(set(scales))
    }
    texts = captions(len(scales))

    def rows() -> Any:
        for index, scale in enumerate(scales):
            picture = pictures[scale][index % len(pictures[scale])].copy()
            picture[index // 65536 % scale, index // 256 % scale] = index % 256
            picture[0, :4, 0] = np.frombuffer(index.to_bytes(4, "little"), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=95)
            image_id = f"benchmark/{index:07d}"
            # Decoders stop before the last bytes, which make every image's hash another.
            encoded = buffer.getvalue() + index.to_bytes(4, "little")
            yield {
                "image": {"bytes": encoded, "path": f"{image_id}.jpg"},
                "image_id": image_id, "source": "benchmark", "licence": "CC0",
                "modality": "dermoscopic", "label": ("benign", "malignant")[index % 2],
                "width": scale, "height": scale, "scale": scale, "split": "train",
                "sha256": sha256(encoded),
            }  # fmt: skip

    table.write(rows(), folder / "corpus", 64)
    (folder / "captions").mkdir(parents=True)
    columns = {
        "image_id": [f"benchmark/{index:07d}" for index in range(len(scales))],
        "caption": texts,
        "flags": pa.nulls(len(scales), pa.string()),
        "held_out": pa.nulls(len(scales), pa.bool_()),
    }
    pq.write_table(pa.table(columns), folder / "captions" / "captions-00000-of-00001.parquet")
    return folder / "corpus", folder / "captions"
