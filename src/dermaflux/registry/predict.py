"""Probability of malignancy of image files, by the champion of the MLflow registry.

Reads image files and the registry; writes nothing: `dermaflux predict lesion.jpg`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError, one_line
from dermaflux.params import Params
from dermaflux.registry import registry, serving
from dermaflux.registry.model_card import DISCLAIMER
from dermaflux.tracking import runs, store

_BATCH = 64


def _read(path: Path) -> bytes:
    """Bytes of a file that decodes as an image. Raises `InputError` for anything else."""
    if not path.is_file():
        raise InputError(
            f"{one_line(path, 300)} is not a file; give the path of a JPEG or PNG image"
        )
    try:
        encoded = path.read_bytes()
        serving.prepare(encoded, 16)
    except InputError as error:
        raise InputError(f"{one_line(path, 300)} holds {error}") from None
    except OSError as error:
        raise InputError(
            f"{one_line(path, 300)} cannot be read ({error.strerror}); check its permissions"
        ) from None
    return encoded


def _format(row: dict[str, Any]) -> str:
    text = f"{row['probability']:6.1%} malignant  ->  {row['label']}"
    if row["out_of_distribution"]:
        text += "  (out of distribution: unlike the skin lesions of training; do not rely on it)"
    return text


@store.answering()
def run(params: Params, images: Sequence[Path]) -> None:
    """Print one line per image; every file is checked before the model is loaded."""
    for path in images:
        _read(path)
    champion = registry.require_champion(runs.connect(), params.promote.model_name)
    model = champion.load()
    width = max(len(one_line(path)) for path in images)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        rows = model.predict_images([_read(path) for path in batch])
        for path, row in zip(batch, rows, strict=True):
            print(f"{one_line(path):<{width}}  {_format(row)}")
    if not model.has_ood_detector:
        print(
            "Whether these images are skin lesions is unknown: this version was registered without "
            "an out-of-distribution detector; the next promoted version has one."
        )
    origin = champion.tags.get("cell", "of unknown origin")
    print(f"{champion.name} version {champion.version} ({origin}). {DISCLAIMER}")
