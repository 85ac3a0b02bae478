"""The networks in whose features the audit compares images, and the class scores they give.

| `audit.features` | features | class scores, for the inception score |
| --- | --- | --- |
| `pixels` | the image at 32 x 32 in RGB, each channel normalised (D = 3072) | none |
| a folder with `model.safetensors` | SqueezeNet 1.0 (Iandola et al. 2016), torchvision's names: the spatial mean of its last feature map at 224 px (D = 512) | ImageNet's |
| `inception` | Inception of FID (Heusel et al. 2017) in torch-fidelity's conversion: the last pooling at 299 px (D = 2048) | its 1,008 |
| `timm:NAME` | what the last layer of that model reads, such as the class token of DINOv2 | those of the last layer, where the weights have one |
| `open_clip:NAME` | the image embedding before it is normalised | none |

Images are resized to the trunk's side with an antialiased bicubic filter before anything else, as
in clean-fid (Parmar et al. 2022, On Aliased Resizing), so that FID here is not quite that of
torch-fidelity, which resizes as TensorFlow 1 did. Only tensors are read of a weights file.
"""  # noqa: E501

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.audit.features import symmetries
from dermaflux.audit.trunk_weights import (
    UNFIT,
    find_weights,
    first_line,
    open_clip_model,
    open_clip_scaling,
    unfit,
)
from dermaflux.core.arrays import Array
from dermaflux.core.devices import automatic_device
from dermaflux.errors import InputError, quoted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dermaflux.params import Audit

_LOW_PASS, _SQUEEZENET, _INCEPTION = 32, 224, 299
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Trunk:
    """A way from images to features."""

    name: str
    """As `audit.features` says it."""
    side: int
    """Of the images that it reads, in pixels."""
    function: Callable[[Array], tuple[Array, Array | None]]
    """uint8 (B, S, S, 3) -> float32 features (B, D), and logits (B, C) where it has classes."""
    identity: str | None
    """Changes with the features of an image; None where they are not worth keeping on disk."""
    turn: Callable[[Array], Array] | None = None
    """Features (B, D) -> those of the eight `features.symmetries` of the images, (B, 8, D), where
    they follow from those of the images as they are."""


def open_trunk(settings: Audit) -> Trunk:
    """The trunk of the section `audit`, on the GPU where there is one.

    Raises `InputError` when its weights are not available or of another network.
    """
    kind, _, name = settings.features.partition(":")
    if settings.features == "pixels":
        return pixels()
    if settings.features == "inception":
        return _inception(Path(str(settings.weights)))
    if kind == "timm":
        return _timm(
            name, find_weights(settings.weights, settings.revision, kind), settings.image_size
        )
    if kind == "open_clip":
        return _open_clip(name, find_weights(settings.weights, settings.revision, kind))
    return _squeezenet(Path(settings.features))


def pixels() -> Trunk:
    """The images themselves, small."""

    def function(images: Array) -> tuple[Array, None]:
        mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)
        normalised: Array = (images.astype(np.float32) / 255 - mean) / std
        return normalised.reshape(len(images), -1), None

    def turn(points: Array) -> Array:
        images = points.reshape(-1, _LOW_PASS, _LOW_PASS, 3)
        return symmetries(images).reshape(len(images), 8, -1)

    # To decode an image takes less than to keep it in float32 in eight orientations.
    return Trunk("pixels", _LOW_PASS, function, None, turn)


def from_pixels(points: Array) -> Array:
    """Features (N, 3072) of the trunk `pixels` -> the images (N, 32, 32, 3), 0 to 255."""
    mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)
    images: Array = (points.reshape(len(points), _LOW_PASS, _LOW_PASS, 3) * std + mean) * 255
    return images


def _squeezenet(folder: Path) -> Trunk:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0

    path = folder / "model.safetensors"
    model = squeezenet1_0(weights=None)
    try:
        model.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"audit.features {str(folder)!r} contains no SqueezeNet 1.0 weights in {path.name} "
            f"({first_line(error)}); set it to pixels, inception, timm:NAME, open_clip:NAME or a "
            "folder that contains them"
        ) from None

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = model.features(images)
        return maps.mean(dim=(2, 3)), model.classifier(maps).flatten(1)

    return _network(str(folder), model, forward, _SQUEEZENET, (_MEAN, _STD), path)


def _inception(path: Path) -> Trunk:
    import torch
    from torch_fidelity import FeatureExtractorInceptionV3

    parameter = f"audit.weights {quoted(str(path))}"
    try:
        # torch-fidelity itself would run what a pickle asks for; this raises instead.
        torch.load(path, map_location="cpu", weights_only=True)
        model = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    except Exception as error:  # of torch and pickle, a dozen kinds
        raise InputError(
            f"{parameter} is not the Inception of FID ({first_line(error)}); download "
            "weights-inception-2015-12-05-6726825d.pth from torch-fidelity's releases on GitHub "
            "and name that file, or set audit.features to another trunk"
        ) from None
    device = automatic_device()
    model = model.to(device)

    def function(images: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            features, logits = model(torch.tensor(images, device=device).permute(0, 3, 1, 2))
        return features.cpu().numpy(), logits.cpu().numpy()

    return Trunk("inception", _INCEPTION, function, _identity("inception", path, _INCEPTION))


def _timm(name: str, path: Path, image_size: int | None) -> Trunk:
    import timm
    from safetensors import SafetensorError

    features = f"timm:{name}"
    try:
        published: Any = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a tag that timm does not have
        published = None
    if published is None:
        near = ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]) or "resnet50"
        raise InputError(
            f"audit.features {quoted(features)}: timm has no such model; use a name of "
            f"timm.list_models(), such as {near}"
        )
    side = image_size or published.input_size[-1]
    size: dict[str, Any] = {"img_size": side} if published.fixed_input_size else {}
    try:
        classes = _outputs(path, published.classifier)
        model: Any = timm.create_model(
            name,
            pretrained=True,
            num_classes=classes,
            # As many classes as the file has, so that timm wants every tensor of it.
            pretrained_cfg_overlay={"file": str(path), "num_classes": classes},
            **size,
        )
    except (*UNFIT, SafetensorError) as error:
        raise unfit(features, path, error) from None

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = model.forward_features(images)
        scores = model.forward_head(maps) if classes else None
        return model.forward_head(maps, pre_logits=True), scores

    return _network(features, model, forward, side, (published.mean, published.std), path)


def _outputs(path: Path, classifier: Any) -> int:
    """Classes of the last layer in a file of timm's; 0 where it has none."""
    from safetensors import safe_open

    name = classifier[0] if isinstance(classifier, tuple) else classifier
    with safe_open(path, "pt") as file:
        if f"{name}.weight" not in file.keys():  # noqa: SIM118
            return 0
        return int(file.get_slice(f"{name}.weight").get_shape()[0])


def _open_clip(name: str, path: Path) -> Trunk:
    features = f"open_clip:{name}"
    model = open_clip_model(name, path, f"audit.features {quoted(features)}", "audit.weights")
    side, scaling = open_clip_scaling(model.visual)

    def forward(images: Tensor) -> tuple[Tensor, None]:
        return model.encode_image(images), None

    return _network(features, model, forward, side, scaling, path)


def _network(
    name: str,
    model: nn.Module,
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    side: int,
    scaling: tuple[tuple[float, ...], tuple[float, ...]],
    path: Path,
) -> Trunk:
    """A network that reads images scaled to a mean and deviation of each channel."""
    import torch

    device = automatic_device()
    model.to(device).eval()
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in scaling)

    def function(images: Array) -> tuple[Array, Array | None]:
        with torch.inference_mode():
            batch = torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255
            features, logits = forward((batch - mean) / std)
        return features.cpu().numpy(), None if logits is None else logits.cpu().numpy()

    return Trunk(name, side, function, _identity(name.split(":")[0], path, side))


def _identity(kind: str, path: Path, side: int) -> str:
    """Another one for other weights, another size, other libraries and another kind of device."""
    import PIL
    import torch

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    libraries = f"torch {torch.__version__} pillow {PIL.__version__}"
    return f"{kind} {digest} {side} {libraries} {automatic_device().type}"
