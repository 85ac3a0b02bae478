"""The selector: a trained classifier, frozen as a program, that says how unsure it is of an image.

Reads models/selector/, which the stage `selector` writes. The program runs without the code of
classifiers, on the CPU and on one image at a time: so a score depends neither on the device nor on
the other images of a batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dermaflux.core.arrays import Pixels
from dermaflux.core.files import damaged
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError
from dermaflux.generators.pool.selection import entropy

_STAGE = "the stage selector"


class Selector:
    """A program that maps uint8 RGB (1, S, S, 3) to log-probabilities (1, K), opened."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` where there is none, or a damaged one."""
        if not path.is_file():
            raise InputError(
                f"{path} is missing, which synthesize.select 'uncertain' needs; run {_STAGE}, "
                "which writes it"
            )
        self.digest = sha256(path.read_bytes())
        """SHA-256 hex digest of the file."""
        try:
            program = torch.export.load(path)
            ((example,), _) = program.example_inputs
            self._side, self._score = example.shape[1], program.module()
        except Exception as error:  # of zipfile, json and torch, a dozen kinds
            raise damaged(path, error, _STAGE) from None

    def __call__(self, pixels: Pixels) -> float:
        """How unsure it is of an image, uint8 (H, W, 3): from 0 (sure) to 1 (undecided).

        Raises `InputError` when the program gives no number.
        """
        image = Image.fromarray(pixels)
        if image.size != (self._side, self._side):
            image = image.resize((self._side, self._side), Image.Resampling.BICUBIC)
        with torch.no_grad():
            scores = self._score(torch.from_numpy(np.array(image))[None])
        value = entropy(scores[0].numpy())
        if not np.isfinite(value):
            raise InputError(
                "the selector gives an image no finite score; lower the learning rate of the first "
                f"of train.architectures and run {_STAGE} again"
            )
        return value
