"""A corpus that a tiny network learns in seconds: malignant images carry a bright bar."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dermaflux import parameter_file, params, paths, table

# Threads that wait for each other make a network of this size slower, on a busy machine by far.
torch.set_num_threads(1)
SIDE = 32
TINY = {
    "vit": {
        "name": "vit_tiny_patch16_224",
        "learning_rate": 2e-3,
        "options": {"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2},
    },
    "resnext": {
        "name": "resnext50_32x4d",
        "learning_rate": 4e-3,
        "options": {
            "layers": [1, 1, 1, 1],
            "channels": [8, 8, 16, 16],
            "stem_width": 8,
            "cardinality": 4,
            "base_width": 8,
        },
    },
}


def picture(generator: np.random.Generator, malignant: bool) -> bytes:
    image = generator.integers(90, 130, (SIDE, SIDE, 3), np.uint8)
    if malignant:
        row = int(generator.integers(8, SIDE - 8))
        image[row : row + 4, 6:-6] += 70
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def rows(split: str, source: str, benign: int, malignant: int, seed: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(benign + malignant):
        is_malignant = number >= benign
        encoded = picture(generator, is_malignant)
        found.append(
            {
                "image": {"bytes": encoded, "path": None},
                "image_id": f"{source}/{split}-{number:04d}",
                "source": source,
                "label": "malignant" if is_malignant else "benign",
                "diagnosis": "melanoma" if is_malignant else ("nevus" if number % 3 else "angioma"),
                "lesion_id": f"{source}-{split}-{number // 2}" if not is_malignant else None,
                "split": split,
                "sha256": table.sha256(encoded),
            }
        )
    return found


def write(synthetic: int = 60) -> None:
    """`corpus/`, `synthetic/` and an audit report in the working directory."""
    corpus = [
        *rows("train", "isic2019", 60, 30, 0),
        *rows("train", "kaggle1", 20, 20, 1),
        *rows("validation", "isic2019", 30, 15, 2),
        *rows("test", "isic2019", 30, 20, 3),
        *rows("test", "kaggle1", 0, 12, 4),
    ]
    table.write(corpus, paths.CORPUS, 64)
    table.write(rows("train", "synthetic", synthetic // 2, synthetic // 2, 5), paths.SYNTHETIC, 64)
    table.write_json(paths.AUDIT_REPORT, {"rejected": ["synthetic/train-0000"]})


def parameters(**changes: Any) -> params.Params:
    """Demo parameters at toy scale; `changes` are top-level."""
    shipped = parameter_file.load(Path(__file__).parents[2] / "params.yaml").model_dump(
        by_alias=True
    )
    train = {
        **shipped["train"],
        "architectures": ["vit", "resnext"],
        "seeds": [0],
        "arms": ["real", "mixture"],
        "models": TINY,
        "image_size": SIDE,
        "epochs": 4,
        "batch": 16,
        "warmup_epochs": 1,
        "precision": "fp32",
    }
    evaluate = {**shipped["evaluate"], "bootstrap_samples": 200}
    return parameter_file.parse(
        {**shipped, "n_real": 60, "ratio": 0.5, "train": train, "evaluate": evaluate, **changes}
    )
