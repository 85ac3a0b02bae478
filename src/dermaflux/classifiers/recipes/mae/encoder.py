"""The encoder: a plain Vision Transformer of timm, its sizes, and its weights by timm's names.

Pure: builds models without memory (torch's meta device), reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.model import network
from dermaflux.errors import InputError, quoted
from dermaflux.params import Model

_POOLED = ("norm.", "fc_norm.", "head.")
"""After the blocks: a classifier that averages its tokens normalises the average instead."""


@dataclass(frozen=True)
class Encoder:
    """Sizes of a Vision Transformer, in pixels, channels and layers."""

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    """Width of the layer between the two of each MLP."""
    epsilon: float
    """Of layer normalisation: timm's 1e-6."""

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.side // self.patch) ** 2

    @property
    def values(self) -> int:
        """Numbers that describe a patch: its pixels in three channels."""
        return 3 * self.patch**2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every weight before the last normalisation, as timm names them."""
        width, hidden = self.width, self.hidden
        linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        linear |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        block: dict[str, tuple[int, ...]] = {}
        for name, shape in linear.items():
            block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            block |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
        return {
            "cls_token": (1, 1, width),
            "pos_embed": (1, self.patches + 1, width),
            "patch_embed.proj.weight": (width, 3, self.patch, self.patch),
            "patch_embed.proj.bias": (width,),
            **{f"blocks.{n}.{key}": block[key] for n in range(self.depth) for key in block},
        }


def describe(name: str, model: Model, side: int) -> Encoder:
    """The encoder that the entry `name` of `train.models` names, for images of `side` pixels.

    Raises `InputError` for a model that is not a plain Vision Transformer (pre-norm blocks, class
    token, learned positions, nothing else that learns) or whose patches do not tile the image.
    """
    from timm.models.vision_transformer import Block, VisionTransformer

    net: Any = _unfilled(network.configure(model, side))
    refused = InputError(
        f"pretrain.architecture {name!r} is {quoted(model.name)}, which is not a plain Vision "
        "Transformer with a class token, as a masked autoencoder needs; name an entry of "
        "train.models such as vit_base_patch16_224"
    )
    if not isinstance(net, VisionTransformer) or not isinstance(net.blocks[0], Block):
        raise refused
    patch: tuple[int, int] = net.patch_embed.patch_size
    block: Any = net.blocks[0]
    if patch[0] != patch[1] or side % patch[0]:
        raise InputError(
            f"the patches of pretrain.architecture {name!r} have {patch[0]} pixels, which do not "
            f"tile images of train.image_size {side}; set patch_size in its options, or another "
            "image size"
        )
    if net.embed_dim % 4:
        raise InputError(
            f"pretrain.architecture {name!r} has width {net.embed_dim}, and positions in two "
            "dimensions need a multiple of 4; change embed_dim in its options"
        )
    encoder = Encoder(
        side, patch[0], net.embed_dim, len(net.blocks), block.attn.num_heads,
        block.mlp.fc1.out_features, block.norm1.eps,
    )  # fmt: skip
    if not isinstance(block.mlp.act, nn.GELU) or _shapes(net) != encoder.shapes():
        raise refused
    return encoder


def check_fits(encoder: Encoder, name: str, model: Model) -> None:
    """Raise `InputError` unless the weights of `encoder` fit the entry `name` of `train.models`."""
    found = _shapes(_unfilled(network.configure(model, encoder.side)))
    wanted = encoder.shapes()
    unlike = [key for key in [*found, *wanted] if found.get(key) != wanted.get(key)]
    if unlike:
        raise InputError(
            f"train.models.{name} starts from the pre-trained encoder, but {unlike[0]} is "
            f"{wanted.get(unlike[0], 'absent')} there and {found.get(unlike[0], 'absent')} here; "
            "give both models the same name and options, or name other weights"
        )


def _unfilled(config: dict[str, Any]) -> Any:
    """The timm model without memory for its weights, where timm can do so."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return network.build(config)
        except Exception:  # not every model can be built without memory
            return network.build(config)


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    weights = net.state_dict()
    return {key: tuple(weights[key].shape) for key in weights if not key.startswith(_POOLED)}


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights of a `transformers.ViTMAEForPreTraining`, as timm names them.

    Queries, keys and values become one matrix in that order. The last normalisation is `norm`,
    which a timm model that averages its tokens leaves out.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.startswith("vit."):
            continue
        name = name.removeprefix("vit.").removeprefix("embeddings.")
        for theirs, timms in _NAMES.items():
            name = name.replace(theirs, timms)
        renamed[name] = tensor.detach().cpu()
    for name in [name for name in renamed if ".q_proj." in name]:
        parts = [renamed.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[name.replace("q_proj", "qkv")] = torch.cat(parts)
    return renamed


_NAMES = {
    "position_embeddings": "pos_embed",
    "patch_embeddings.projection": "patch_embed.proj",
    "layers.": "blocks.",
    "attention.": "attn.",
    "o_proj": "proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
}
"""In the order in which they are replaced."""
