"""Augmentation of whole batches on the device: symmetries, colour jitter, crops, blur, cutout.

Pure functions on tensors; every image of a batch gets random numbers of its own. They come from a
CPU generator, so that every device augments alike.

`strong` follows the winners of ISIC 2020 (Ha, Liu and Liu, arXiv 2010.05351, and their published
`get_transforms`): symmetries of the square, scale, shift and rotation, brightness and contrast by
0.2, saturation by 0.2, blur, one hole of at most 0.375 of the side. Two differences: scale and
shift come as a crop of 0.6 to 1 of the area, torchvision's for training from pretrained weights but
with a floor that keeps the border of a centred lesion, which the ABC rule reads; and hue stays, for
colour is the rule's C. After quarter turns, 45 degrees either way reach every orientation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_JITTER = 0.1
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_STRONG_JITTER = 0.2
_AREA = (0.6, 1.0)
_STRETCH = 4 / 3  # of width to height, either way, as torchvision's
_ANGLE = math.pi / 4
_BLURRED, _SIGMA, _TAPS = 0.5, (0.1, 1.5), 5  # share of the images, pixels, pixels
_HOLED, _HOLE = 0.7, 0.375  # share of the images, largest share of the side


def turn(images: Tensor, across: Tensor, down: Tensor, transposed: Tensor) -> Tensor:
    """Apply one of the square's eight symmetries to each image of (B, 3, S, S).

    `across`, `down`, `transposed`: (B,) bool; mirror left to right, then top to bottom, then swap
    the two axes.
    """
    images = torch.where(across[:, None, None, None], images.flip(3), images)
    images = torch.where(down[:, None, None, None], images.flip(2), images)
    return torch.where(transposed[:, None, None, None], images.transpose(2, 3), images)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation of (B, 3, H, W) in [0, 1] by (B,) factors.

    1 leaves an image as it is. Definitions of torchvision's `adjust_*`, but for the contrast's
    pivot, which is the mean of each channel; values are clamped to [0, 1] once, at the end.
    """
    images = images * brightness.view(-1, 1, 1, 1)
    mean = images.mean(dim=(2, 3), keepdim=True)
    images = mean + (images - mean) * contrast.view(-1, 1, 1, 1)
    red, green, blue = images.split(1, dim=1)
    grey = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return (grey + (images - grey) * saturation.view(-1, 1, 1, 1)).clamp(0, 1)


def crop(
    images: Tensor, width: Tensor, height: Tensor, x: Tensor, y: Tensor, angle: Tensor
) -> Tensor:
    """Show a turned rectangle of each image of (B, 3, S, S) at full size, bilinear.

    `width`, `height`: (B,) shares of the side in (0, 1]; `x`, `y`: (B,) of its centre, -1 to 1 from
    edge to edge; `angle`: (B,) radians by which the content turns counterclockwise. What lies
    outside is the mirror image.
    """
    cosine, sine = angle.cos(), angle.sin()
    rows = torch.stack(
        [
            torch.stack([width * cosine, -height * sine, x], dim=1),
            torch.stack([width * sine, height * cosine, y], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of (B,) `sigma` pixels over 5 x 5 taps on (B, 3, H, W), mirrored at the edges."""
    reach, (height, width) = _TAPS // 2, images.shape[2:]
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-(steps**2) / (2 * sigma[:, None] ** 2))
    taps = (taps / taps.sum(dim=1, keepdim=True)).T.reshape(_TAPS, -1, 1, 1, 1)
    wide = functional.pad(images, [reach] * 4, mode="reflect")
    rows = torch.stack([taps[k] * wide[..., k : k + width] for k in range(_TAPS)]).sum(dim=0)
    return torch.stack([taps[k] * rows[:, :, k : k + height] for k in range(_TAPS)]).sum(dim=0)


def cutout(images: Tensor, x: Tensor, y: Tensor, side: Tensor) -> Tensor:
    """Fill a square of each image of (B, 3, S, S) with the image's mean colour.

    `x`, `y`: (B,) left and top pixel, integers; `side`: (B,) pixels, 0 for none.
    """
    positions = torch.arange(images.shape[3], device=images.device)

    def inside(first: Tensor) -> Tensor:
        return (positions >= first[:, None]) & (positions < (first + side)[:, None])

    hole = (inside(y)[:, :, None] & inside(x)[:, None, :])[:, None]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Augment (B, 3, S, S) in [0, 1] as `train.augmentation` says.

    `none`, `flips` (the square's symmetries), `flips-colour` (and light jitter) or `strong`.
    """
    if how == "none":
        return images

    def uniform(rows: int) -> Tensor:
        # Not blocking, so that the CPU may run ahead of a GPU.
        numbers = torch.rand((rows, len(images)), generator=generator)
        return numbers.to(images.device, non_blocking=True)

    coins = uniform(3) < 0.5
    images = turn(images, *coins)
    if how != "flips":
        images = images.contiguous()  # pixels come interleaved; planes are twice as fast here
    if how == "flips-colour":
        factors = 1 + _JITTER * (2 * uniform(3) - 1)
        images = jitter(images, *factors)
    elif how == "strong":
        images = _strong(images, uniform(14))
    return images


def _strong(images: Tensor, draw: Tensor) -> Tensor:
    """Crop, jitter, blur and cutout of (B, 3, S, S); `draw`: (14, B), uniform in [0, 1)."""
    size = images.shape[3]

    def between(row: int, low: float, high: float) -> Tensor:
        return low + (high - low) * draw[row]

    side, limit = between(0, *_AREA).sqrt(), math.log(_STRETCH) / 2
    stretch = between(1, -limit, limit).exp()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    x, y = between(2, -1, 1) * (1 - width), between(3, -1, 1) * (1 - height)
    images = crop(images, width, height, x, y, between(4, -_ANGLE, _ANGLE))
    low, high = 1 - _STRONG_JITTER, 1 + _STRONG_JITTER
    images = jitter(images, between(5, low, high), between(6, low, high), between(7, low, high))
    blurred = draw[8] < _BLURRED
    images = torch.where(blurred[:, None, None, None], blur(images, between(9, *_SIGMA)), images)
    hole = (between(10, 0, _HOLE) * size).long() * (draw[11] < _HOLED)
    free = size - hole + 1
    return cutout(images, (draw[12] * free).long(), (draw[13] * free).long(), hole)
