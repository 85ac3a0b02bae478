"""Predictions of a registered classifier: `mlflow models serve` and `dermaflux predict`.

Input: one column `image`, the bytes of an image file. Output, one row per input row: `probability`
of malignancy in [0, 1], calibrated on validation images; `label` at the classifier's threshold;
`out_of_distribution`, whether the image looks unlike the skin lesions of training; `problem`, one
sentence when the bytes are not an image, with the other columns empty.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core.images import LARGEST, ImageError, Limits, upright
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("probability", "label", "out_of_distribution", "problem")
_BATCH = 64


def prepare(encoded: bytes, side: int, limits: Limits = LARGEST) -> np.ndarray[Any, Any]:
    """Encoded image -> uint8 (side, side, 3): upright, RGB, shorter side scaled, centre-cropped.

    Decoded as `ingest` does. Raises `InputError` for bytes that are not a complete JPEG or PNG
    within the limits.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        image = upright(encoded, limits).image
    except ImageError as error:
        what = (
            "an image that is too large"
            if error.rule == "too-large"
            else f"{len(encoded)} bytes that are not a whole image"
        )
        raise InputError(f"{what}: {error.reason}") from None
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def as_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of `COLUMNS` as a table; a column with missing values keeps them as None."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    # In a numeric column a missing value would be NaN, which is not valid JSON.
    complete = [name for name in COLUMNS if frame[name].notna().all()]
    return frame.assign(**{name: frame[name].infer_objects() for name in complete})


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
        self._turn = threading.Lock()

    @property
    def has_ood_detector(self) -> bool:
        """Whether it can flag an image as out of distribution."""
        return self._detector is not None

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `image` of encoded bytes -> one row of `COLUMNS` for each; called by MLflow.

        Its input may be anybody's: `registry.request_limits` bounds what one call may cost. Calls
        that come at the same time take turns, so that together they need the memory of one.
        """
        from dermaflux.registry import request_limits

        with self._turn:
            images = request_limits.images_of(model_input)
            return as_frame(self.predict_images(images, request_limits.limits()))

    def predict_images(
        self, images: Sequence[bytes], limits: Limits = LARGEST
    ) -> list[dict[str, Any]]:
        """One row of `COLUMNS` for each encoded image; None where a value is unknown."""
        rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) for _ in images]
        for first in range(0, len(images), _BATCH):
            batch = slice(first, first + _BATCH)
            self._predict_batch(images[batch], rows[batch], limits)
        return rows

    def _predict_batch(
        self, images: Sequence[bytes], rows: list[dict[str, Any]], limits: Limits
    ) -> None:
        import numpy as np

        from dermaflux.classifiers.model import network
        from dermaflux.metrics import calibration
        from dermaflux.registry import ood

        side = int(self._config["image_size"])
        arrays, valid = [], []
        for encoded, row in zip(images, rows, strict=True):
            try:
                arrays.append(prepare(encoded, side, limits))
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
