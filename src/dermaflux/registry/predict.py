"""Probability of malignancy of image files, by the champion or by a model of any address.

Reads image files and the registry; writes nothing: `dermaflux predict lesion.jpg` in a project, or
`dermaflux predict --model models:/lesion-vit@champion lesion.jpg` anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError, one_line
from dermaflux.params import Params
from dermaflux.registry import models, registry, serving
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
def run(params: Params | None, images: Sequence[Path], model: str | None = None) -> None:
    """Print one line per image; every file is checked before the model is loaded.

    `model` is an address as `models.load` takes it; without it the champion of `params` predicts.
    """
    for path in images:
        _read(path)
    if model is not None:
        classifier, name = models.load(model)
    else:
        classifier, name = _champion(params)
    width = max(len(one_line(path)) for path in images)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        rows = classifier.predict_images([_read(path) for path in batch])
        for path, row in zip(batch, rows, strict=True):
            print(f"{one_line(path):<{width}}  {_format(row)}")
    if not classifier.has_ood_detector:
        print(
            "Whether these images are skin lesions is unknown: this version was registered without "
            "an out-of-distribution detector; the next promoted version has one."
        )
    print(f"{name}. {DISCLAIMER}")


def _champion(params: Params | None) -> tuple[serving.LesionClassifier, str]:
    if params is None:
        raise InputError(
            "there is no params.yaml here that names a registered model; name one by --model, such "
            "as --model models:/lesion-vit@champion, or run the command in a project"
        )
    champion = registry.require_champion(runs.connect(), params.promote.model_name)
    return champion.load(), champion.title()
