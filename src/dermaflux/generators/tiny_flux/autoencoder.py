"""The tiny backbone's AutoencoderKL: an encoder set by principal components, a trained decoder.

Sixteen principal components of 8 x 8 patches keep a rendered lesion at 36 dB, far beyond what a
convolutional encoder learns in a minute, so the encoder's weights are set to compute them exactly
and only the decoder is trained. The result is an ordinary `diffusers.AutoencoderKL`. Reads and
writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dermaflux.core.arrays import Array
from dermaflux.core.seeds import generator
from dermaflux.training.protocol import Step

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

LATENT_CHANNELS = 16
_CHANNELS = (16, 32, 64, 64)
# Norms over few channels would take the skin's overall colour out of an image.
_GROUPS = 1
_CONSTANT = 30.0
_POSTERIOR_STD = 0.05
# A flow of a few minutes' training leaves every latent a little off, each in its own direction;
# a decoder that has seen such noise smooths it away (noise-augmented decoding, arXiv 2510.11690).
_DECODER_NOISE = 0.5
# Below 1 because one component, brightness, holds most of the variance: with unit variance overall
# it is settled at noise levels that the timestep density rarely visits, and samples are blotched.
_LATENT_STD = 0.6
_SIGNS = torch.cat([torch.eye(3), -torch.eye(3)])


def unit(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def build(pixels: Tensor, side: int, channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """An autoencoder whose encoder is fitted to images, uint8 (N, 3, H, W); decoder untrained.

    `channels` of the latents, an even number of 4 to 16: the components that are kept.
    """
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        latent_channels=channels,
        block_out_channels=_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=_GROUPS,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=side,
    )
    _set_encoder(model.encoder, pixels, channels)
    model.encoder.requires_grad_(False)
    _set_decoder(model, pixels)
    return model


@torch.no_grad()
def _set_encoder(encoder: nn.Module, pixels: Tensor, channels: int) -> None:
    """Three space-to-depth levels, the upper two reduced to principal components."""
    for name, parameter in encoder.named_parameters():
        # With conv2 and all else at zero a residual block is the identity.
        if "norm" not in name:
            parameter.zero_()
    blocks: Any = encoder.down_blocks
    encoder.conv_in.weight[:3, :, 1, 1] = torch.eye(3)  # type: ignore[index, union-attr]
    for block, width in ((blocks[1], 12), (blocks[2], 32)):
        block.resnets[0].conv_shortcut.weight[:width, :width, 0, 0] = torch.eye(width)
    level: Array = unit(pixels).numpy().astype(np.float64)
    level = _quarters(level)
    _set_downsampler(blocks[0], np.eye(12), 3)
    second, _, _ = _principal(_quarters(level), 32)
    _set_downsampler(blocks[1], second, 12)
    level = np.einsum("oc,nchw->nohw", second, _quarters(level))
    third, mean, deviation = _principal(_quarters(level), channels)
    # Square roots keep the order of importance but let fine detail be heard beside brightness.
    scale = 1 / np.sqrt(deviation)
    scale /= np.sqrt((deviation**2 * scale**2).mean())
    signed, offset = _paired(third * scale[:, None], -mean * scale)
    _set_downsampler(blocks[2], signed, 32, offset)
    spread = _CONSTANT / 2**0.5
    for k in range(channels):
        positive = 8 * (k // 2) + 2 * (k % 2)
        # silu(x) - silu(-x) = x undoes the activation before conv_out exactly.
        encoder.conv_out.weight[k, positive, 1, 1] = spread  # type: ignore[index, union-attr]
        encoder.conv_out.weight[k, positive + 1, 1, 1] = -spread  # type: ignore[index, union-attr]
    encoder.conv_out.bias[channels:] = 2 * float(np.log(_POSTERIOR_STD))  # type: ignore[index, union-attr]


@torch.no_grad()
def _set_decoder(model: AutoencoderKL, pixels: Tensor) -> None:
    """Start the decoder at each patch's mean colour, smoothly interpolated; the rest stays random.

    Colour is what a decoder trained for a minute loses first, and a linear map knows it exactly.
    """
    decoder: Any = model.decoder
    mean, _ = moments(model, pixels)
    rows = torch.cat([mean, torch.ones_like(mean[:, :1])], dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    colour = functional.avg_pool2d(unit(pixels), 8).permute(0, 2, 3, 1).flatten(0, 2)
    solution = torch.linalg.lstsq(rows.double(), colour.double()).solution.float()
    decoder.conv_in.weight[:3] = 0
    decoder.conv_in.weight[:3, :, 1, 1] = solution[:-1].T
    decoder.conv_in.bias[:3] = solution[-1]
    blocks = [decoder.mid_block, *decoder.up_blocks]
    for block in blocks:
        for resnet in block.resnets:
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    for block in decoder.up_blocks[:3]:
        conv = block.upsamplers[0].conv
        conv.weight[:3] = 0
        conv.bias[:3] = 0
        for k in range(3):
            conv.weight[k, k] = torch.outer(blur, blur)
    for block, outputs in ((decoder.up_blocks[2], torch.eye(3)), (decoder.up_blocks[3], _SIGNS)):
        shortcut = block.resnets[0].conv_shortcut
        shortcut.weight[: len(outputs)] = 0
        shortcut.weight[: len(outputs), :3, 0, 0] = outputs
        shortcut.bias[: len(outputs)] = 0
    # As in the encoder: pairs of opposite signs undo the activation, constants tame the norm.
    shortcut.weight[6:8] = 0
    shortcut.bias[6:8] = _CONSTANT / 3 * torch.tensor([1.0, -1.0])
    spread = _CONSTANT / 3 * (2 / _CHANNELS[0]) ** 0.5
    decoder.conv_out.weight.mul_(0.1)
    decoder.conv_out.bias.zero_()
    decoder.conv_out.weight[:, :8] = 0
    for k in range(3):
        decoder.conv_out.weight[k, k, 1, 1] = spread
        decoder.conv_out.weight[k, k + 3, 1, 1] = -spread


def _quarters(level: Array) -> Array:
    """Space to depth: (N, C, H, W) -> (N, 4 C, H / 2, W / 2), channel 4 c + 2 dy + dx."""
    n, c, h, w = level.shape
    parts = level.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(n, 4 * c, h // 2, w // 2)


def _principal(level: Array, count: int) -> tuple[Array, Array, Array]:
    """Basis (count, C) of the largest variance, means and deviations (count,) in that basis."""
    rows = level.transpose(0, 2, 3, 1).reshape(-1, level.shape[1])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    basis = vectors[:, ::-1][:, :count].T
    # eigh leaves the sign open.
    basis = basis * np.sign(basis[np.arange(count), np.abs(basis).argmax(axis=1)])[:, None]
    return basis, basis @ rows.mean(axis=0), np.sqrt(values[::-1][:count])


def _paired(weights: Array, offsets: Array) -> tuple[Array, Array]:
    """Each of up to 16 outputs as +x and -x, beside constants: (64, C) weights and (64,) offsets.

    A norm over [x, -x, y, -y, c, -c, c, -c, ...] has mean 0 and, with c far above x and y, a nearly
    constant deviation, so that it becomes a plain division.
    """
    signed = np.zeros((64, weights.shape[1]))
    constant = np.zeros(64)
    for k in range(len(weights)):
        positive = 8 * (k // 2) + 2 * (k % 2)
        for row, sign in ((positive, 1), (positive + 1, -1)):
            signed[row], constant[row] = sign * weights[k], sign * offsets[k]
    constant.reshape(-1, 8)[:, 4:] = _CONSTANT * np.array([1, -1, 1, -1])
    return signed, constant


def _set_downsampler(
    block: Any, weights: Array, channels: int, offsets: Array | None = None
) -> None:
    """Write a map of `_quarters` of `channels` channels into a stride-2 convolution."""
    conv = block.downsamplers[0].conv
    taps = torch.from_numpy(np.ascontiguousarray(weights)).float()
    taps = taps.reshape(len(weights), channels, 2, 2)
    conv.weight[: len(weights), :channels, :2, :2] = taps
    if offsets is not None:
        conv.bias[: len(offsets)] = torch.from_numpy(offsets).float()


@torch.no_grad()
def moments(model: AutoencoderKL, pixels: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Posterior mean and deviation, each (N, 16, H/8, W/8), of images, uint8 (N, 3, H, W)."""
    posteriors = [model.encode(unit(part)).latent_dist for part in pixels.split(batch)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def set_statistics(model: AutoencoderKL, mean: Tensor) -> None:
    """Fill in the config with the shift and scale that give latents mean 0, deviation 0.6."""
    shift = float(mean.double().mean())
    deviation = float(mean.double().std())
    model.register_to_config(
        shift_factor=round(shift, 6), scaling_factor=round(_LATENT_STD / deviation, 6)
    )


def decoder_step(
    model: AutoencoderKL, pixels: Tensor, mean: Tensor, crop: int, batch: int, seed: int, step: int
) -> Step:
    """Loss of one batch of crops; pixels uint8 (N, 3, H, W), mean (N, 16, H/8, W/8)."""
    draw = generator(seed, "decoder", step)
    chosen = torch.randint(len(pixels), (batch,), generator=draw)
    side = crop // 8
    room = mean.shape[-1] - side + 1
    top, left = torch.randint(room, (2,), generator=draw).tolist()
    image = pixels[chosen, :, 8 * top : 8 * top + crop, 8 * left : 8 * left + crop]
    latent = mean[chosen, :, top : top + side, left : left + side]
    noise = _POSTERIOR_STD + _DECODER_NOISE * torch.rand(batch, 1, 1, 1, generator=draw)
    latent = latent + noise * torch.randn(latent.shape, generator=draw)
    latent = latent.contiguous(memory_format=torch.channels_last)
    error = model.decode(latent).sample - unit(image)
    # Patch means carry the colour, which plain L1 leaves for last: texture outweighs it per pixel.
    loss = error.abs().mean() + functional.avg_pool2d(error, 8).abs().mean()
    return Step(loss, [f"backbone/{int(index)}" for index in chosen])


@torch.no_grad()
def psnr(model: AutoencoderKL, pixels: Tensor, batch: int = 16) -> float:
    """Mean over images, uint8 (N, 3, H, W), of the reconstruction's PSNR over RGB in dB."""
    values = []
    for part in pixels.split(batch):
        image = unit(part)
        error = model.decode(model.encode(image).latent_dist.mode()).sample.clamp(-1, 1) - image
        values.append(10 * torch.log10(4 / error.square().mean((1, 2, 3))))
    return float(torch.cat(values).mean())
