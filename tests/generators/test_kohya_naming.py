from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from kohya_layers import separate
from safetensors.torch import load_file

from dermaflux.generators.flux_lora.files import adapter_bytes, adapter_file, kohya_naming
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.model import lora

DOUBLE = "transformer_blocks.0.attn"
SINGLE = "single_transformer_blocks.0"


def _draw(outputs: int, inputs: int, rank: int, seed: int, alpha: float = 3.0) -> LoraLayer:
    draw = torch.Generator().manual_seed(seed)
    return LoraLayer(
        torch.randn(rank, inputs, generator=draw), torch.randn(outputs, rank, generator=draw), alpha
    )


def _block(width: int, rank: int, alpha: float = 3.0) -> dict[str, LoraLayer]:
    """An adapter on every Linear of one double and one single block."""
    sizes = {
        **{f"{DOUBLE}.{one}": (width, width) for one in ("to_q", "to_k", "to_v", "to_out.0")},
        **{f"{DOUBLE}.add_{one}_proj": (width, width) for one in "qkv"},
        f"{DOUBLE}.to_add_out": (width, width),
        **{f"{SINGLE}.attn.{one}": (width, width) for one in ("to_q", "to_k", "to_v")},
        f"{SINGLE}.proj_mlp": (4 * width, width),
        f"{SINGLE}.proj_out": (width, 5 * width),
        f"{SINGLE}.norm.linear": (3 * width, width),
    }
    for stream in ("", "_context"):
        sizes |= {
            f"transformer_blocks.0.ff{stream}.net.0.proj": (4 * width, width),
            f"transformer_blocks.0.ff{stream}.net.2": (width, 4 * width),
            f"transformer_blocks.0.norm1{stream}.linear": (6 * width, width),
        }
    return {
        name: _draw(*size, rank, seed, alpha) for seed, (name, size) in enumerate(sizes.items())
    }


def _equal(ours: dict[str, LoraLayer], theirs: dict[str, LoraLayer]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(one.down, theirs[name].down)
        and torch.equal(one.up, theirs[name].up)
        and one.alpha == theirs[name].alpha
        for name, one in ours.items()
    )


def test_a_fused_layer_adds_what_its_parts_add_stacked() -> None:
    layers = _block(8, 2)
    fused = kohya_naming.fused(layers)
    assert len(fused) == 13
    parts = {
        "double_blocks_0_img_attn_qkv": [f"{DOUBLE}.to_{one}" for one in "qkv"],
        "double_blocks_0_txt_attn_qkv": [f"{DOUBLE}.add_{one}_proj" for one in "qkv"],
        "single_blocks_0_linear1": [
            *(f"{SINGLE}.attn.to_{one}" for one in "qkv"), f"{SINGLE}.proj_mlp",
        ],
    }  # fmt: skip
    for name, members in parts.items():
        whole = fused[f"lora_unet_{name}"]
        assert whole.rank == 2 * len(members)
        assert whole.alpha / whole.rank == 1.5
        stacked = torch.cat([layers[member].product() for member in members])
        torch.testing.assert_close(whole.product(), stacked)
    assert _equal(separate(fused), layers)


def test_parts_that_share_their_down_matrix_fuse_at_their_own_rank() -> None:
    down = _draw(8, 8, 2, 0).down
    names = [f"{DOUBLE}.to_{one}" for one in "qkv"]
    layers = {name: LoraLayer(down, _draw(8, 8, 2, 7 + i).up, 3.0) for i, name in enumerate(names)}
    whole = kohya_naming.fused(layers)["lora_unet_double_blocks_0_img_attn_qkv"]
    assert whole.rank == 2
    torch.testing.assert_close(
        whole.product(), torch.cat([layers[name].product() for name in names])
    )
    assert _equal(separate({"lora_unet_double_blocks_0_img_attn_qkv": whole}), layers)


def test_absent_parts_and_unequal_scales_keep_every_product() -> None:
    query, value = _draw(8, 8, 2, 1, alpha=2.0), _draw(8, 8, 4, 2, alpha=1.0)
    layers = {f"{SINGLE}.attn.to_q": query, f"{SINGLE}.attn.to_v": value}
    fused = kohya_naming.fused(layers)
    whole = fused["lora_unet_single_blocks_0_linear1"]
    zeros = torch.zeros(8, 8)
    wanted = torch.cat([query.product(), zeros, value.product(), zeros.repeat(4, 1)])
    torch.testing.assert_close(whole.product(), wanted)
    again = separate(fused)
    assert again.keys() == layers.keys()
    for name, layer in layers.items():
        torch.testing.assert_close(again[name].product(), layer.product())


@pytest.mark.parametrize("shared", [False, True])
def test_diffusers_own_converter_reads_the_export_at_the_width_of_flux(
    tmp_path: Path, shared: bool
) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    layers = _block(3072, 2)
    if shared:
        first = layers[f"{DOUBLE}.to_q"].down
        layers = {
            name: LoraLayer(first, one.up, one.alpha) if one.down.shape[1] == 3072 else one
            for name, one in layers.items()
        }
    path = tmp_path / "kohya.safetensors"
    path.write_bytes(adapter_bytes.kohya_bytes(layers, {"prompt_padding": "trim"}, torch.float32))
    theirs = _convert_kohya_flux_lora_to_diffusers(load_file(path))
    ours = adapter_file.read(path)
    assert (ours.naming, ours.metadata) == ("kohya", {"prompt_padding": "trim"})
    assert _equal(ours.layers, layers)
    probe = torch.randn(3072 * 5, 1, generator=torch.Generator().manual_seed(9))
    for name, layer in layers.items():
        down, up = (theirs.pop(f"transformer.{name}.lora_{one}.weight") for one in "AB")
        seen = probe[: down.shape[1]]
        torch.testing.assert_close(
            up @ (down @ seen), layer.up @ (layer.down @ seen) * 1.5, rtol=1e-4, atol=1e-2
        )
    assert not theirs


def test_mixed_ranks_and_scales_survive_diffusers_naming(tmp_path: Path) -> None:
    layers = {
        **_block(8, 2),
        f"{DOUBLE}.to_q": _draw(8, 8, 4, 40, alpha=1.5),
        "x_embedder": _draw(8, 64, 3, 41, alpha=3.0),
    }
    path = tmp_path / lora.WEIGHTS
    path.write_bytes(adapter_bytes.diffusers_bytes(layers, {}))
    assert _equal(adapter_file.read(path).layers, layers)
    shuffled = copy.copy(dict(reversed(layers.items())))
    assert adapter_bytes.diffusers_bytes(shuffled, {}) == path.read_bytes()
