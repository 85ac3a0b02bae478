"""The changes that `planted_copies.py` makes copies by, and the shares of them asked for."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from leak_guard import LANCZOS, TRANSFORMS, Picture
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Change = Callable[[Picture, random.Random], Picture]


def resized(image: Picture, side: int) -> Picture:
    """A smaller export of it."""
    return image.resize((side, side), LANCZOS)


def turned_by(image: Picture, degrees: float) -> Picture:
    """Turned by a small angle, without the corners that are empty then."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    cut = round(np.sin(np.radians(degrees)) / 2 * image.width) + 1
    return turned.crop((cut, cut, image.width - cut, image.height - cut))


def noisy(image: Picture) -> Picture:
    """With Gaussian noise of 8 grey levels."""
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 8, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def written_over(image: Picture) -> Picture:
    """With a white plate and a text on it, over 9 % of the image."""
    width, height = image.size
    result = image.copy()
    plate = ImageDraw.Draw(result)
    plate.rectangle((0, 0.85 * height, 0.6 * width, height), "white")
    plate.text((2, 0.86 * height), "SAMPLE 12", "black")
    return result


def shifted(image: Picture, part: float) -> Picture:
    """Moved right and down, black where nothing is left."""
    offsets = (-part * image.width, -part * image.height)
    affine = (1, 0, offsets[0], 0, 1, offsets[1])
    return image.transform(image.size, Image.Transform.AFFINE, affine)


BARS: dict[str, float] = {
    "exact": 0.99,
    "mirrored": 0.95,
    "turned by 90, 180 or 270 degrees": 0.95,
    "JPEG quality 50": 0.95,
    "resized to half": 0.95,
    "cropped by 10 % on each side": 0.95,
}
CHANGES: dict[str, Change] = {
    "exact": lambda image, _: image,
    "mirrored": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90, 180 or 270 degrees": lambda image, chance: image.transpose(
        Image.Transpose(chance.choice((2, 3, 4)))
    ),
    "JPEG quality 50": TRANSFORMS["JPEG quality 50"],
    "resized to half": lambda image, _: resized(image, image.width // 2),
    "cropped by 10 % on each side": TRANSFORMS["crop 10 % on each side"],
    "resized to a quarter": lambda image, _: resized(image, image.width // 4),
    "cropped by 15 % on each side": lambda image, _: image.crop(
        tuple(round(edge * image.width) for edge in (0.15, 0.15, 0.85, 0.85))
    ),
    "cropped by 0-10 %, each side its own": TRANSFORMS["crop 0-10 %, each side its own"],
    "rotated by 2 degrees": lambda image, _: turned_by(image, 2),
    "rotated by 5 degrees": lambda image, _: turned_by(image, 5),
    "rotated by 10 degrees": lambda image, _: turned_by(image, 10),
    "brightness x 0.8": lambda image, _: ImageEnhance.Brightness(image).enhance(0.8),
    "brightness x 1.2": lambda image, _: ImageEnhance.Brightness(image).enhance(1.2),
    "red x 1.15, blue x 0.85": TRANSFORMS["red x 1.15, blue x 0.85"],
    "noise of 8 grey levels": lambda image, _: noisy(image),
    "blurred by 1/64": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
    "shifted by 5 %": lambda image, _: shifted(image, 0.05),
    "text over 9 %": lambda image, _: written_over(image),
    "cropped by 0-5 %, turned, 128 px, tinted, JPEG 50": TRANSFORMS[
        "crop 0-5 %, turned, 128, tinted, JPEG 50"
    ],
}
