"""A workspace with a corpus, two tiny classifiers and an empty registry, for tests of promotion."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dermaflux import paths, table, tracking
from dermaflux.params import Model, Params

PARAMETERS = Path(__file__).parents[2] / "params.yaml"
SIDE, IMAGES = 32, 80


def image(index: int, malignant: bool) -> bytes:
    """A picture of skin: noise in a narrow range with a darker square."""
    rng = np.random.default_rng(index)
    array = rng.integers(150, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    array[..., 2] -= 40
    array[8:24, 8:24] //= 3 if malignant else 2
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _row(number: int, split: str) -> dict[str, object]:
    malignant = number % 2 == 1
    encoded = image(number, malignant)
    return {
        "image": {"bytes": encoded, "path": f"{number}.png"},
        "image_id": f"toy/{number:04d}",
        "source": "toy" if number % 16 else "rare",
        "licence": "CC0",
        "label": "malignant" if malignant else "benign",
        "split": split,
        "sha256": table.sha256(encoded),
    }


def corpus(first: int = 0) -> None:
    """Validation images from number `first` on, and as many training images."""
    rows = [_row(number, "validation") for number in range(first, first + IMAGES)]
    rows += [_row(number, "train") for number in range(5000, 5000 + IMAGES)]
    table.write(rows, paths.CORPUS, 64)


def classifier(cell: str, arm: str, noise: float, first: int = 0, seed: int = 0) -> Path:
    """A tiny ViT with validation predictions that are the truth plus `noise` times a normal."""
    rng = np.random.default_rng(seed)
    truth = np.arange(first, first + IMAGES) % 2 - 0.5
    return with_logits(cell, arm, truth + noise * rng.normal(size=IMAGES), first, seed)


def with_logits(cell: str, arm: str, logits: np.ndarray, first: int = 0, seed: int = 0) -> Path:
    """A tiny ViT with the validation predictions of these logits."""
    import torch

    from dermaflux.classifiers import supervised

    model = Model(
        name="vit_tiny_patch16_224",
        learning_rate=1e-3,
        options={"patch_size": 16, "depth": 1, "embed_dim": 12, "num_heads": 2},
    )
    config = supervised.configure(model, SIDE) | {"temperature": 0.25}
    torch.manual_seed(seed)
    folder = paths.CLASSIFIERS / cell / arm
    folder.mkdir(parents=True, exist_ok=True)
    network = supervised.build(config)
    with torch.no_grad():
        network.get_submodule("head").weight.normal_(std=0.5)  # type: ignore[union-attr, operator]
    supervised.save_weights(network.state_dict(), folder / "model.safetensors")
    table.write_json(folder / "config.json", config)
    names = np.arange(first, first + IMAGES)
    rows = pd.DataFrame(
        {
            "image_id": [f"toy/{number:04d}" for number in names],
            "label": np.where(names % 2 == 1, "malignant", "benign"),
            "probability": 1 / (1 + np.exp(-logits)),
        }
    )
    rows.to_csv(folder / "validation.csv", index=False)
    return folder


def report() -> dict[str, object]:
    """What `promote` wrote."""
    content: dict[str, object] = json.loads(paths.PROMOTE_REPORT.read_text())
    return content


def versions(params: Params) -> int:
    """Versions of the registered model."""
    client = tracking.connect()
    return len(client.search_model_versions(f"name = '{params.promote.model_name}'"))


def flat() -> bytes:
    """A grey picture: an image, but no lesion."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()
