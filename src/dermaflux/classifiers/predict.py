"""Probability of malignancy of image files, by the champion of the MLflow registry.

Reads image files and the registry; writes nothing: `dermaflux predict lesion.jpg`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dermaflux import tracking
from dermaflux.classifiers import registry
from dermaflux.errors import InputError
from dermaflux.params import Params

DISCLAIMER = "Not a medical device: a research classifier, not validated for any clinical use."
_BATCH = 64


def _read(path: Path) -> bytes:
    """Bytes of a file that decodes as an image; raise `InputError` for anything else."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a JPEG or PNG image")
    encoded = path.read_bytes()
    try:
        registry.prepare(encoded, 16)
    except Exception as error:
        # Pillow's plug-ins raise whatever they like on damaged input.
        problem = str(error).split("<_io")[0].strip() or type(error).__name__
        raise InputError(
            f"{path} ({len(encoded)} bytes) is not a whole image ({problem}); give a JPEG or PNG"
        ) from None
    return encoded


def run(params: Params, images: Sequence[Path]) -> None:
    """Print one line per image; every file is checked before the model is loaded."""
    for path in images:
        _read(path)

    import mlflow
    import pandas as pd

    name = params.promote.model_name
    champion = registry.champion(tracking.connect(), name)
    if champion is None:
        raise InputError(
            f"the registry at {tracking.tracking_uri()} has no model {name!r} with the alias "
            f"{registry.ALIAS!r}; run `dvc repro`, or `dermaflux promote` after `dvc pull`"
        )
    model = mlflow.pyfunc.load_model(f"models:/{name}@{registry.ALIAS}", suppress_warnings=True)
    width = max(len(str(path)) for path in images)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        rows = model.predict(pd.DataFrame({"image": [_read(path) for path in batch]}))
        for path, row in zip(batch, rows.itertuples(), strict=True):
            print(f"{path!s:<{width}}  {row.probability:6.1%} malignant  ->  {row.label}")
    print(f"{name} version {champion.version} ({champion.tags.get('cell', '?')}). {DISCLAIMER}")
