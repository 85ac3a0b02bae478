"""Predictions of a registered classifier: `mlflow models serve` and `dermaflux predict`.

Input: one column `image`, the bytes of an image file. Output, one row per input row: `probability`
of malignancy in [0, 1], calibrated on validation images; `label` at the classifier's threshold;
`out_of_distribution`, whether the image looks unlike the skin lesions of training; `problem`, one
sentence when the bytes are not an image, with the other columns empty.
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

    Raises `InputError` for bytes that are not a complete image, and for an image large enough to be
    a decompression bomb.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
        return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))
    except Exception as error:
        # Pillow's plug-ins raise exceptions of many types on damaged input.
        problem = str(error).split("<_io")[0].strip() or type(error).__name__
        raise InputError(
            f"{len(encoded)} bytes that are not a whole image ({problem}); give a JPEG or PNG"
        ) from None


class LesionClassifier:
    """The classifier of a folder with its out-of-distribution detector, ready to predict."""

    def __init__(self, folder: Path) -> None:
        """Load the network and the detector.

        Raises `InputError` when a file is missing, and what json and safetensors raise when one is
        damaged.
        """
        from dermaflux.classifiers.model import network
        from dermaflux.registry import ood

        self.folder = folder
        self._model, self._config = network.load(folder)
        self._detector = ood.find(folder)

    @property
    def has_ood_detector(self) -> bool:
        """Whether it can flag an image as out of distribution."""
        return self._detector is not None

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `image` of encoded bytes -> one row of `COLUMNS` for each; called by MLflow."""
        import pandas as pd

        rows = self.predict_images(list(model_input["image"]))
        frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
        # In a numeric column a missing value would be NaN, which is not valid JSON.
        complete = [name for name in COLUMNS if frame[name].notna().all()]
        return frame.assign(**{name: frame[name].infer_objects() for name in complete})

    def predict_images(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """One row of `COLUMNS` for each encoded image; None where a value is unknown."""
        rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) for _ in images]
        for first in range(0, len(images), _BATCH):
            self._predict_batch(images[first : first + _BATCH], rows[first : first + _BATCH])
        return rows

    def _predict_batch(self, images: Sequence[bytes], rows: list[dict[str, Any]]) -> None:
        import numpy as np

        from dermaflux.classifiers.model import network
        from dermaflux.metrics import calibration
        from dermaflux.registry import ood

        arrays, valid = [], []
        for encoded, row in zip(images, rows, strict=True):
            try:
                arrays.append(prepare(bytes(encoded), int(self._config["image_size"])))
                valid.append(row)
            except InputError as error:
                row["problem"] = str(error)
        if not valid:
            return
        pixels = np.stack(arrays)
        uncalibrated = network.probabilities(self._model, self._config, pixels)
        temperature = float(self._config.get("temperature", 1.0))
        calibrated = calibration.apply_temperature(uncalibrated, temperature)
        malignant = uncalibrated >= float(self._config["threshold"])
        for row, probability, positive in zip(valid, calibrated, malignant, strict=True):
            row["probability"] = float(probability)
            row["label"] = "malignant" if positive else "benign"
        if self._detector is not None:
            flags = self._detector.is_ood(ood.views(self._model, self._config, pixels))
            for row, flag in zip(valid, flags, strict=True):
                row["out_of_distribution"] = bool(flag)
