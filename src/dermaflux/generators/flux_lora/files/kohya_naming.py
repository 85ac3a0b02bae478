"""Adapter layers of diffusers' model and of Black Forest Labs', one as the other.

BFL's model, whose layers kohya's names mean (sd-scripts, ComfyUI), has query, key and value (and
the MLP of a single block) in one matrix; diffusers has a matrix for each. Both ways the product of
every layer stays what it was. Names: `layer_names`. Pure: tensors in, tensors out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.files import layer_names
from dermaflux.generators.flux_lora.files.layer_names import DOUBLE, OUTSIDE, SINGLE, Layer
from dermaflux.generators.flux_lora.model.weights_file import UnreadableError

PREFIX = "lora_unet_"
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
    found: dict[str, dict[int, LoraLayer]] = {}
    for name, layer in layers.items():
        fused_name, part = _kohya_part(name)
        found.setdefault(fused_name, {})[part] = layer
    joined = {}
    for name, present in found.items():
        place = layer_names.layer(name)
        assert place is not None
        joined[name] = _swapped(present[0]) if place.swapped else _joined(present, place.parts)
    return joined


def parts(name: str, place: Layer, layer: LoraLayer) -> dict[str, LoraLayer]:
    """The layers of diffusers that one layer of a file stands for.

    A block-diagonal layer is split into its blocks; of any other, every part gets the whole `down`.
    Parts whose `up` is zero are left out, unless all are. Raises `UnreadableError`, naming the
    layer as `name`, when its rows cannot be those parts.
    """
    if place.swapped:
        return {place.parts[0]: _swapped(layer)}
    if len(place.parts) == 1:
        return {place.parts[0]: layer}
    separated = dict(zip(place.parts, _split(name, layer, place.parts), strict=True))
    used = {part: one for part, one in separated.items() if bool(one.up.any())}
    return used or separated


def _swapped(layer: LoraLayer) -> LoraLayer:
    """The layer with the halves of its rows exchanged."""
    return LoraLayer(layer.down, layer.up.roll(layer.up.shape[0] // 2, 0), layer.alpha)


def _kohya_part(name: str) -> tuple[str, int]:
    """kohya's layer for a layer of diffusers, and which part of it that is."""
    for kohya, diffusers in OUTSIDE.items():
        if name == diffusers:
            return PREFIX + kohya, 0
    matched = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
    if matched:
        kind, table = ("single_blocks", SINGLE) if matched[1] else ("double_blocks", DOUBLE)
        for kohya, named in table.items():
            if matched[3] in named:
                return f"{PREFIX}{kind}_{matched[2]}_{kohya}", named.index(matched[3])
    raise InputError(
        f"the adapter's layer {name} has no name in kohya's format; its layers are the Linears of "
        "FLUX's blocks, embedders and final layer"
    )


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
    return width * _MLP_RATIO if part == len(SINGLE["linear1"]) - 1 else width


def _split(name: str, layer: LoraLayer, parts: Sequence[str]) -> list[LoraLayer]:
    outputs, width = layer.up.shape[0], layer.down.shape[1]
    sizes = [width * (_MLP_RATIO if part.endswith("proj_mlp") else 1) for part in parts]
    if sum(sizes) != outputs:
        raise UnreadableError(
            f"has {outputs:,} outputs for {width:,} inputs where FLUX.1 has {sum(sizes):,} in the "
            f"layer {quoted(name)}",
            "give a LoRA made for FLUX.1",
        )
    ups = list(torch.split(layer.up, sizes))
    used = [part for part, up in enumerate(ups) if bool(up.any())]
    for used_parts in (used, list(range(len(parts)))):
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
