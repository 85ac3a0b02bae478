"""Smallest settings, and a corpus of a few lesions in real files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux import table
from dermaflux.params import Finetune, Tiny

FINETUNE = Finetune(
    targets="attention", rank=2, alpha=4.0, steps=5, batch_tokens=320, micro_batches=2,
    learning_rate=1e-3, warmup_steps=1, scales=[128, 256], validation_images=2,
    validation_steps=3, log_steps=1, checkpoint_steps=2, grid_steps=100,
)  # fmt: skip
# A rate this low keeps the decoder where it starts: two steps at a real one leave most pixels
# at 0 or 255, and comparisons of pixels would hold whatever was sampled.
TINY = Tiny(
    images=12, autoencoder_steps=2, autoencoder_learning_rate=1e-6, flow_steps=2, minimum_psnr=20.0
)


@dataclass(frozen=True)
class Workspace:
    root: Path
    corpus: Path
    captions: Path
    backbone: Path

    def inputs(self) -> tuple[Path, Path, Path]:
        return self.corpus, self.captions, self.backbone


def corpus_row(index: int, scale: int, split: str = "train") -> tuple[dict[str, Any], str]:
    from PIL import Image

    from dermaflux.captions.measured import describe
    from dermaflux.corpus.phantom import draw, render
    from dermaflux.generators.tiny_training import truth

    lesion = draw(index, "test", "malignant" if index % 3 == 0 else "benign")
    buffer = io.BytesIO()
    Image.fromarray(render(lesion, scale, scale)).save(buffer, "PNG")
    image_id = f"phantom/{index:03d}"
    row = {
        "image": {"bytes": buffer.getvalue(), "path": f"{image_id}.png"}, "image_id": image_id,
        "source": "phantom", "licence": "CC0", "modality": "dermoscopic", "label": lesion.label,
        "width": scale, "height": scale, "scale": scale, "split": split,
        "sha256": table.sha256(buffer.getvalue()),
    }  # fmt: skip
    return row, describe(truth(lesion), lesion.label, image_id)


def write_corpus(folder: Path, rows: list[tuple[dict[str, Any], str]]) -> tuple[Path, Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table.write([row for row, _ in rows], folder / "corpus", 64)
    (folder / "captions").mkdir(parents=True)
    columns = {
        "image_id": [row["image_id"] for row, _ in rows],
        "caption": [caption for _, caption in rows],
        "flags": pa.nulls(len(rows), pa.string()),
        "held_out": pa.nulls(len(rows), pa.bool_()),
    }
    pq.write_table(pa.table(columns), folder / "captions" / "captions-00000-of-00001.parquet")
    return folder / "corpus", folder / "captions"
