"""What a registered classifier does with image files: `mlflow models serve`, `dermaflux predict`.

Input: one column `image`, the bytes of an image file. Output, one row per input row: `probability`
of malignancy in [0, 1], calibrated on validation images; `label` at the classifier's threshold;
`out_of_distribution`, whether the picture looks unlike the skin lesions of training; `problem`,
one sentence where the bytes are no image, whose other columns are then empty.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("probability", "label", "out_of_distribution", "problem")
_BATCH = 64


def prepare(encoded: bytes, side: int) -> np.ndarray[Any, Any]:
    """Encoded image -> uint8 (side, side, 3): upright, RGB, shorter side scaled, centre-cropped.

    Raises `InputError` for bytes that are not a whole image, or a picture large enough to be a
    decompression bomb.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
        return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC))
    except Exception as error:
        # Pillow's plug-ins raise whatever they like on damaged input.
        problem = str(error).split("<_io")[0].strip() or type(error).__name__
        raise InputError(
            f"{len(encoded)} bytes that are not a whole image ({problem}); give a JPEG or PNG"
        ) from None


class Served:
    """A classifier folder, ready to answer."""

    def __init__(self, folder: Path) -> None:
        """Load the network and what it is familiar with.

        Raises `InputError` when a file is missing, and what json and safetensors raise when one is
        damaged.
        """
        from dermaflux.classifiers.model import network
        from dermaflux.registry import ood

        self.folder = folder
        self._model, self._config = network.load(folder)
        path = folder / ood.FILE
        self._familiarity = ood.read(path) if path.is_file() else None

    @property
    def knows_the_unfamiliar(self) -> bool:
        """Whether it can tell that a picture is out of distribution."""
        return self._familiarity is not None

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `image` of encoded bytes -> one row of `COLUMNS` for each; the call of MLflow."""
        import pandas as pd

        rows = self.answers(list(model_input["image"]))
        frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
        # As a number, what is unknown would be NaN, which is no JSON.
        known = [name for name in COLUMNS if frame[name].notna().all()]
        return frame.assign(**{name: frame[name].infer_objects() for name in known})

    def answers(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """One row of `COLUMNS` for each encoded image; None is unknown."""
        rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) for _ in images]
        for first in range(0, len(images), _BATCH):
            self._answer(images[first : first + _BATCH], rows[first : first + _BATCH])
        return rows

    def _answer(self, images: Sequence[bytes], rows: list[dict[str, Any]]) -> None:
        import numpy as np

        from dermaflux.classifiers.model import network
        from dermaflux.metrics import calibration
        from dermaflux.registry import ood

        arrays, whole = [], []
        for encoded, row in zip(images, rows, strict=True):
            try:
                arrays.append(prepare(bytes(encoded), int(self._config["image_size"])))
                whole.append(row)
            except InputError as error:
                row["problem"] = str(error)
        if not whole:
            return
        pixels = np.stack(arrays)
        raw = network.probabilities(self._model, self._config, pixels)
        calibrated = calibration.apply_temperature(raw, float(self._config.get("temperature", 1.0)))
        for row, value, own in zip(whole, calibrated, raw, strict=True):
            row["probability"] = float(value)
            malignant = own >= float(self._config["threshold"])
            row["label"] = "malignant" if malignant else "benign"
        if self._familiarity is not None:
            seen = ood.views(self._model, self._config, pixels)
            for row, flag in zip(whole, self._familiarity.unfamiliar(seen), strict=True):
                row["out_of_distribution"] = bool(flag)
