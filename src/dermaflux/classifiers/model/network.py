"""A timm classifier of benign against malignant, or of diagnoses: built, stored, loaded, applied.

A classifier folder holds `model.safetensors` (weights), `config.json` (how to build the model and
prepare images), `validation.csv` (image_id, label, and `probability` of malignancy or a column per
diagnosis) and `history.csv` (one row per epoch). `probabilities` applies a model to images; nothing
here trains.
"""

from __future__ import annotations

import importlib
import math
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.classifiers.data.subset import column
from dermaflux.classifiers.model import pretrained, timm_names
from dermaflux.core.arrays import Array
from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.devices import automatic_device
from dermaflux.core.files import damaged, read_json, read_tensors, reading
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.params import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dermaflux.classifiers.data.samples import Images

WRITER = "`dvc repro`, or `dvc pull`"
THRESHOLD = 0.5
"""Training sets are balanced, so 0.5 is the equal-prior decision (the paper's accuracy)."""
_OURS = frozenset(
    ("num_classes", "in_chans", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
    + ("pretrained_model_args", "checkpoint_path", "cache_dir", "model_name", "device", "dtype")
    + ("features_only", "out_indices", "scriptable", "exportable", "no_jit")
)
"""Arguments of `timm.create_model` that are not options: one row of logits per RGB image, with the
weights that `pretrained` and `weights` name."""
_BATCHES_AHEAD = 2  # read while the device computes


def configure(model: Model, image_size: int, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Settings from which `build` makes a model and `probabilities` prepares images.

    Raises `InputError` for a name that timm does not know, for options that are not the model's to
    choose, and for image sizes that disagree.
    """
    named = timm_names.resolve(model.name)
    taken = sorted(_OURS.intersection(model.options))
    if taken:
        raise InputError(
            f"options of {quoted(model.name)} has {quoted(taken[0])}, which follows from other "
            "parameters; remove it"
        )
    built = {k: value for k, value in named.options.items() if k not in (*_OURS, "img_size")}
    options = {**built, **model.options}
    published = named.published
    if published.fixed_input_size and options.setdefault("img_size", image_size) != image_size:
        raise InputError(
            f"options.img_size {quoted(options['img_size'])} of {quoted(model.name)} differs from "
            f"train.image_size {image_size}; leave img_size out"
        )
    return {
        "name": named.name,
        "options": options,
        "image_size": image_size,
        "mean": list(published.mean),
        "std": list(published.std),
        "classes": list(classes),
        "threshold": THRESHOLD if binary(classes) else None,
    }


def libraries(*names: str) -> list[str]:
    """The libraries whose arithmetic decides weights, with their versions."""
    return [f"{name} {importlib.import_module(name).__version__}" for name in names]


def binary(classes: Sequence[str]) -> bool:
    """Whether the classes are benign and malignant, which one logit separates."""
    return column(classes) == "label"


def build(config: dict[str, Any], weights: Path | None = None) -> nn.Module:
    """The model of `configure`: one output, the logit of malignancy, or a logit per diagnosis.

    Starts from the file `weights` of `pretrained.locate`. Raises `InputError` when timm refuses the
    options or the weights do not fit.
    """
    import timm

    extra = pretrained.overlay(weights, config["name"]) if weights else {}
    try:
        model: nn.Module = timm.create_model(
            config["name"], num_classes=_outputs(config), **config["options"], **extra
        )
    except Exception as error:  # whatever an option made timm's constructors do
        problem = textwrap.shorten(" ".join(str(error).split()), 200, placeholder=" ...")
        if weights is not None and isinstance(error, RuntimeError):
            raise InputError(
                f"weights {weights} do not fit {config['name']} ({problem}); give those of "
                "exactly that model and leave out options that change its size"
            ) from None
        if not config["options"] and weights is not None:
            raise
        raise InputError(
            f"timm cannot build {config['name']} with options {quoted(config['options'])} "
            f"({problem or type(error).__name__}); correct train.models"
        ) from None
    if weights is not None:
        pretrained.check(model, weights, config["name"])
    return model


def _outputs(config: dict[str, Any]) -> int:
    return 1 if binary(config["classes"]) else len(config["classes"])


def check(config: dict[str, Any]) -> None:
    """Raise `InputError` unless the model gives a row of logits for each image of its size.

    Shapes alone are computed where timm can do so, which takes a second and no memory.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                shape = _shape(build(config), config["image_size"])
        except Exception:  # not every model can be built without memory
            shape = _shape_in_memory(config)
    if shape != (2, _outputs(config)):
        raise InputError(
            f"{config['name']} with options {quoted(config['options'])} gives outputs of shape "
            f"{quoted(shape)} for 2 images and not a row of {_outputs(config)} each; correct "
            "train.models"
        )


def _shape_in_memory(config: dict[str, Any]) -> tuple[int, ...] | None:
    model = build(config)
    try:
        return _shape(model, config["image_size"])
    except Exception as error:  # whatever a size that does not fit makes layers raise
        problem = textwrap.shorten(" ".join(str(error).split()), 200, placeholder=" ...")
        raise InputError(
            f"{config['name']} with options {quoted(config['options'])} cannot read images of "
            f"{config['image_size']} pixels ({problem}); change train.image_size or correct "
            "train.models"
        ) from None


def _shape(model: nn.Module, side: int) -> tuple[int, ...] | None:
    with torch.inference_mode():
        output = model.eval()(torch.zeros(2, 3, side, side))
    return tuple(output.shape) if isinstance(output, Tensor) else None


def freeze(model: nn.Module) -> None:
    """Leave nothing but the last layer to learn; statistics of batch norm still adapt."""
    model.requires_grad_(False)
    last = model.get_classifier()  # type: ignore[operator]
    for layer in last if isinstance(last, tuple) else (last,):
        layer.requires_grad_(True)


def normalise(images: Tensor, config: dict[str, Any]) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> zero-mean, unit-variance channels as the model expects."""
    mean, std = (channels(images, config[name]) for name in ("mean", "std"))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def channels(images: Tensor, values: Sequence[float]) -> Tensor:
    """(1, C, 1, 1) on the device of `images`; copied without blocking, unlike `new_tensor`."""
    row = torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True)
    return row.view(1, -1, 1, 1)


def unit(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float (B, 3, S, S) in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def read(images: Images, index: slice | Array) -> Tensor:
    """The images at `index` as a uint8 tensor (B, S, S, 3) on the CPU."""
    return torch.from_numpy(np.require(np.asarray(images[index]), requirements="W"))


def probabilities(
    model: nn.Module,
    config: dict[str, Any],
    images: Images,
    batch: int = 128,
) -> Array:
    """Probabilities of uint8 images (N, S, S, 3), S = config["image_size"], read batch by batch.

    Returns float64 in [0, 1]: (N,) probability of malignancy, or (N, K) of K diagnoses, rows that
    sum to 1. Leaves the model in evaluation mode.
    """
    device = next(model.parameters()).device
    model.eval()
    classes = config["classes"]
    parts = [np.empty(0 if binary(classes) else (0, len(classes)))]
    slices = [slice(first, first + batch) for first in range(0, len(images), batch)]
    batches = decode_ahead(lambda part: read(images, part), slices, _BATCHES_AHEAD, 1)
    with torch.inference_mode(), closing(batches):
        for pixels in batches:
            logits = model(normalise(unit(pixels.to(device)), config)).double()
            scores = logits.squeeze(1).sigmoid() if binary(classes) else logits.softmax(dim=1)
            parts.append(scores.cpu().numpy())
    return np.concatenate(parts)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a classifier folder; raises `InputError` when it is absent or damaged."""
    path = folder / "config.json"
    config: dict[str, Any] = read_json(path, WRITER)
    kinds = {"name": str, "options": dict, "image_size": int, "mean": list, "std": list}
    with reading(path, WRITER):
        for name, kind in kinds.items():
            if not isinstance(config[name], kind):
                raise ValueError(f"its {name} is {quoted(config[name])}")
        classes, temperature = config["classes"], config.get("temperature", 1.0)
        limits = {
            "image_size": config["options"].get("img_size", config["image_size"])
            == config["image_size"]
            > 0,
            "mean": _finite(config["mean"], 3),
            "std": _finite(config["std"], 3) and min(config["std"]) > 0,
            "temperature": _finite([temperature], 1) and temperature > 0,
            "classes": isinstance(classes, list) and len(set(classes)) == len(classes) > 1,
            "threshold": not binary(classes) or _finite([config["threshold"]], 1),
        }
        for name, holds in limits.items():
            if not holds:
                raise ValueError(f"its {name} is {quoted(config.get(name))}")
    return config


def _finite(values: list[Any], count: int) -> bool:
    return len(values) == count and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier that `train` wrote, on the GPU when there is one, ready for `probabilities`.

    Raises `InputError` when the folder is not a classifier's.
    """
    weights = read_tensors(folder / "model.safetensors", WRITER)
    config = read_config(folder)
    model = build(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise damaged(
            folder / "model.safetensors", f"its weights are not those of {config['name']}", WRITER
        ) from None
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        problem = "it holds a weight that is not finite"
        raise damaged(folder / "model.safetensors", problem, WRITER)
    return model.to(automatic_device()).to(memory_format=torch.channels_last).eval(), config
