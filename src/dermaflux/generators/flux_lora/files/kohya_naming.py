"""Adapter layers in diffusers' names and in kohya's (sd-scripts, ComfyUI), one as the other.

kohya names the layers of Black Forest Labs' model, where query, key and value (and the MLP of a
single block) are one matrix; diffusers has a matrix for each. Both ways the product of every layer
stays what it was. Names: sd-scripts `networks/lora_flux.py`; order of the parts: BFL's
`flux/modules/layers.py`. Pure: tensors in, tensors out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dermaflux.errors import InputError

PREFIX = "lora_unet_"
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
# Outside the blocks; only sd-scripts' option `in_dims` adapts them.
_EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in_in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in_in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_text_embed.guidance_embedder.linear_2",
}
_BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
_MLP_RATIO = 4  # FluxTransformer2DModel has no other


@dataclass(frozen=True)
class LoraLayer:
    """What an adapter adds to one Linear: (alpha / rank) up @ down."""

    down: Tensor
    """(rank, inputs)."""
    up: Tensor
    """(outputs, rank)."""
    alpha: float

    @property
    def rank(self) -> int:
        """Columns of `up`."""
        return self.down.shape[0]

    def to(self, dtype: torch.dtype) -> LoraLayer:
        """The same in another dtype."""
        return LoraLayer(self.down.to(dtype), self.up.to(dtype), self.alpha)

    def product(self) -> Tensor:
        """What is added to the weight, (outputs, inputs)."""
        return self.up @ self.down * (self.alpha / self.rank)


def fused(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    """Layers by kohya's name, from layers by diffusers' name; exact, at the smallest rank that is.

    Parts with one `down` in common become a layer of their own rank. Others become block-diagonal
    at the sum of their ranks, alpha grown by as much, as sd-scripts' `split_qkv` stores them. Parts
    without adapter are rows of zeros. Raises `InputError` for a name that kohya has none for.
    """
    parts: dict[str, dict[int, LoraLayer]] = {}
    for name, layer in layers.items():
        fused_name, part = _kohya_part(name)
        parts.setdefault(fused_name, {})[part] = layer
    return {name: _joined(present, _parts_of(name)) for name, present in parts.items()}


def separate(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    """Layers by diffusers' name, from layers by kohya's name; the inverse of `fused`, and exact.

    A block-diagonal layer is split into its blocks; of any other, every part gets the whole `down`.
    Parts whose `up` is zero are left out, unless all are. Raises `InputError` for unknown names.
    """
    separated: dict[str, LoraLayer] = {}
    for name, layer in layers.items():
        names = _parts_of(name)
        if len(names) == 1:
            separated[names[0]] = layer
        else:
            separated.update(zip(names, _split(name, layer, len(names)), strict=True))
            if any(bool(separated[part].up.any()) for part in names):
                for part in names:
                    if not separated[part].up.any():
                        del separated[part]
    return separated


def _kohya_part(name: str) -> tuple[str, int]:
    """kohya's layer for a layer of diffusers, and which part of it that is."""
    for kohya, diffusers in _EMBEDDERS.items():
        if name == diffusers:
            return PREFIX + kohya, 0
    matched = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
    if matched:
        kind, table = ("single_blocks", _SINGLE) if matched[1] else ("double_blocks", _DOUBLE)
        for kohya, parts in table.items():
            if matched[3] in parts:
                return f"{PREFIX}{kind}_{matched[2]}_{kohya}", parts.index(matched[3])
    raise InputError(
        f"the adapter's layer {name} has no name in kohya's format; its layers are the Linears of "
        "FLUX's blocks and embedders"
    )


def _parts_of(name: str) -> tuple[str, ...]:
    """Layers of diffusers that a layer of kohya stands for, in the order of its rows."""
    plain = name.removeprefix(PREFIX)
    if plain in _EMBEDDERS:
        return (_EMBEDDERS[plain],)
    matched = re.fullmatch(r"(double_blocks|single_blocks)_(\d+)_(.+)", plain)
    table = _DOUBLE if matched and matched[1] == "double_blocks" else _SINGLE
    if not name.startswith(PREFIX) or matched is None or matched[3] not in table:
        raise InputError(
            f"the LoRA adapts {name}, which this project does not know; give one of a FLUX "
            "transformer alone, without text encoders or output layer"
        )
    return tuple(f"{_BLOCKS[matched[1]]}.{matched[2]}.{part}" for part in table[matched[3]])


def _joined(present: Mapping[int, LoraLayer], names: Sequence[str]) -> LoraLayer:
    first = present[min(present)]
    if len(names) == 1:
        return first
    rows = [_rows(present, part, first) for part in range(len(names))]
    shared = all(
        torch.equal(layer.down, first.down) and layer.alpha == first.alpha
        for layer in present.values()
    )
    if shared:
        up = torch.cat(
            [
                present[part].up if part in present else first.up.new_zeros(count, first.rank)
                for part, count in enumerate(rows)
            ]
        )
        return LoraLayer(first.down, up, first.alpha)
    scale = first.alpha / first.rank
    rank = sum(layer.rank for layer in present.values())
    up = first.up.new_zeros(sum(rows), rank)
    column = 0
    for part, layer in sorted(present.items()):
        row, own_scale = sum(rows[:part]), layer.alpha / layer.rank
        # One alpha serves all parts: another scale than the first's goes into the matrix.
        block = layer.up if own_scale == scale else layer.up * (own_scale / scale)
        up[row : row + rows[part], column : column + layer.rank] = block
        column += layer.rank
    down = torch.cat([present[part].down for part in sorted(present)])
    return LoraLayer(down, up, first.alpha * rank / first.rank)


def _rows(present: Mapping[int, LoraLayer], part: int, first: LoraLayer) -> int:
    """Outputs of one part; those of an absent one are what FLUX has there."""
    if part in present:
        return present[part].up.shape[0]
    width = first.down.shape[1]
    return width * _MLP_RATIO if part == len(_SINGLE["linear1"]) - 1 else width


def _split(name: str, layer: LoraLayer, parts: int) -> list[LoraLayer]:
    outputs, width = layer.up.shape[0], layer.down.shape[1]
    if parts == len(_SINGLE["linear1"]):
        sizes = [width, width, width, outputs - 3 * width]
    else:
        sizes = [outputs // parts] * parts
    if sum(sizes) != outputs or min(sizes) < 1:
        raise InputError(
            f"the LoRA's layer {name} has {outputs} outputs for {width} inputs, which is no layer "
            "of a FLUX transformer; give a LoRA made for FLUX.1"
        )
    ups = list(torch.split(layer.up, sizes))
    used = [part for part, up in enumerate(ups) if bool(up.any())]
    for used_parts in (used, list(range(parts))):
        blocks = _blocks(layer, ups, used_parts)
        if blocks is not None:
            return blocks
    return [LoraLayer(layer.down, up, layer.alpha) for up in ups]


def _blocks(
    layer: LoraLayer, ups: Sequence[Tensor], used_parts: Sequence[int]
) -> list[LoraLayer] | None:
    """The parts of a block-diagonal layer whose blocks are those of `used_parts`, else None."""
    if len(used_parts) < 2 or layer.rank % len(used_parts):
        return None
    rank = layer.rank // len(used_parts)
    alpha = layer.alpha * rank / layer.rank
    split: list[LoraLayer] = []
    for part, up in enumerate(ups):
        start = used_parts.index(part) * rank if part in used_parts else 0
        columns = slice(start, start + rank)
        if int(up.count_nonzero()) != int(up[:, columns].count_nonzero()):
            return None
        split.append(LoraLayer(layer.down[columns], up[:, columns].contiguous(), alpha))
    return split
