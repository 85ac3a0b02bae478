"""The perceptual term of DerMAE's equation 3 (Johnson et al. 2016), on decoded images.

Reads the folder that `finetune.latent_ddpm.perceptual_features` names; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.generators.data import autoencoder
from dermaflux.generators.latent_ddpm.model.options import DECODER

Features = Callable[[Tensor], list[Tensor]]
"""Latents (B, C, h, w), as `Latents.draw` gives them -> feature maps (B, C_l, h_l, w_l)."""
_PARAMETER = "finetune.latent_ddpm.perceptual_features"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TRUNKS = {
    "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12),
    "squeezenet1_0": (1, 5, 10, 12),
    "alexnet": (1, 4, 7, 9, 11),
    "vgg16": (3, 8, 15, 22, 29),
}
"""torchvision's network -> modules of `features` whose outputs are compared: LPIPS's layers, and
for SqueezeNet 1.0, which LPIPS has no heads for, the last ones before each pooling."""


class PerceptualLoss:
    """Distance of two latents' images in a frozen network (LPIPS: Zhang et al. 2018, equation 1).

    Feature vectors are scaled to length 1 at every place, as is then the range of the term: at most
    4 for each layer without heads. Layers are averaged; LPIPS's heads sum them.
    """

    def __init__(self, features: Features, heads: Sequence[Tensor] | None = None) -> None:
        self._features, self._heads = features, heads

    def __call__(self, predicted: Tensor, clean: Tensor) -> Tensor:
        """(B,), of latents (B, C, h, w); the gradient goes to `predicted`."""
        with torch.no_grad():
            expected = self._features(clean)
        layers = []
        for level, (ours, theirs) in enumerate(
            zip(self._features(predicted), expected, strict=True)
        ):
            squared = (_unit(ours) - _unit(theirs)).square()
            if self._heads is not None:
                squared = squared * self._heads[level]
            layers.append(squared.sum(1).mean((1, 2)))
        total = torch.stack(layers)
        return total.mean(0) if self._heads is None else total.sum(0)


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=1, eps=1e-10)


def identity(name: str) -> str:
    """Changes with the features: hash of a folder's files, or `decoder`."""
    return name if name == DECODER else folder_digest(Path(name))


def create(name: str, vae: Any, device: torch.device) -> PerceptualLoss:
    """The loss for a value of `perceptual_features`; `InputError` for a folder without weights."""
    if name == DECODER:
        return PerceptualLoss(_decoder_features(vae))
    network, layers = _trunk(Path(name))
    network.requires_grad_(False).eval().to(device)
    mean, deviation = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (_MEAN, _DEVIATION))

    def features(latents: Tensor) -> list[Tensor]:
        images = (autoencoder.decode(vae, latents) / 2 + 0.5 - mean) / deviation
        return _outputs(network, layers, images)

    heads = _heads(Path(name), network, layers)
    return PerceptualLoss(features, heads and [head.to(device) for head in heads])


def _decoder_features(vae: Any) -> Features:
    """Outputs of the decoder's blocks (latent perceptual loss, Berrada et al., arXiv 2411.04873).

    Of an AutoencoderKL the outputs of its up blocks, of an AutoencoderTiny those of its upsampling.
    """
    decoder = vae.decoder
    if hasattr(decoder, "up_blocks"):
        blocks = list(decoder.up_blocks)
    else:
        blocks = [module for module in decoder.modules() if isinstance(module, nn.Upsample)]

    def features(latents: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, __, output: outputs.append(output))
            for block in blocks
        ]
        try:
            autoencoder.decode(vae, latents)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs

    return features


def _trunk(folder: Path) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Convolutional part of the network whose weights the folder holds, and its layers."""
    import torchvision.models
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "model.safetensors"
    try:
        weights = {name: value.float() for name, value in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{_PARAMETER} {quoted(str(folder))} has no readable {file.name} "
            f"({one_line(error, 150)}); name a folder with one, or decoder"
        ) from None
    weights = {k: v for k, v in weights.items() if k.startswith("features.")}
    for name, layers in _TRUNKS.items():
        with torch.device("meta"):
            network = nn.ModuleDict({"features": getattr(torchvision.models, name)().features})
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        if shapes == {key: value.shape for key, value in weights.items()}:
            network.load_state_dict(weights, assign=True)
            trunk = network["features"]
            assert isinstance(trunk, nn.Sequential)
            for module in trunk.modules():
                if isinstance(module, nn.ReLU):
                    module.inplace = False  # or it would overwrite a compared output
            return trunk, layers
    raise InputError(
        f"{_PARAMETER} {quoted(str(folder))} holds weights of none of {', '.join(_TRUNKS)}; name a "
        "folder with those of one under torchvision's names, or decoder"
    )


def _outputs(network: Iterable[nn.Module], layers: Sequence[int], images: Tensor) -> list[Tensor]:
    outputs = []
    for index, module in enumerate(network):
        images = module(images)
        if index in layers:
            outputs.append(images)
        if index == layers[-1]:
            break
    return outputs


def _heads(folder: Path, network: nn.Sequential, layers: Sequence[int]) -> list[Tensor] | None:
    """LPIPS's linear heads, each (1, C_l, 1, 1), or None where the folder has none."""
    file = folder / "lpips.pth"
    if not file.exists():
        return None
    with torch.no_grad():
        probe = torch.zeros(1, 3, 64, 64, device=next(network.parameters()).device)
        widths = [output.shape[1] for output in _outputs(network, layers, probe)]
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
        heads = [stored[f"lin{level}.model.1.weight"].float() for level in range(len(stored))]
        found = [head.shape[1] for head in heads]
    except Exception as error:  # of torch and pickle, a dozen kinds
        found, heads = [], []
        problem = f"cannot be read ({one_line(error, 150) or type(error).__name__})"
    else:
        problem = f"fits layers of {found} channels and the network has {widths}"
    if found != widths:
        raise InputError(
            f"{quoted(str(file))} {problem}; put the heads of that network there, or none"
        )
    return heads
