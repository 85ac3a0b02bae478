"""LoRA files as other programs write them, and files that are something else."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_adapter import CPU
from safetensors.torch import save_file
from small_generator import LORA, Workspace
from torch import Tensor

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import adapter_bytes, adapter_file, imported
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.tracking.runs import Silent

BLOCK, SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"
QKV = [f"{BLOCK}.attn.to_{one}" for one in "qkv"]
TEXT_QKV = [f"{BLOCK}.attn.add_{one}_proj" for one in "qkv"]
LINEAR1 = [*(f"{SINGLE}.attn.to_{one}" for one in "qkv"), f"{SINGLE}.proj_mlp"]
A, B = ".lora_A.weight", ".lora_B.weight"
DOWN, UP = ".lora_down.weight", ".lora_up.weight"
W, RANK = 32, 2


def _draw(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def _pair(outputs: int, inputs: int = W, rank: int = RANK) -> tuple[Tensor, Tensor]:
    return _draw(rank, inputs, outputs), _draw(outputs, rank, outputs + 1)


def _read(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Any:
    save_file({name: one.clone() for name, one in tensors.items()}, path, metadata)
    return adapter_file.read(path)


# The layer's name in the file, the ends of its two matrices, and the layers of diffusers' model
# whose rows it holds, each `width` rows high or, in parentheses, another multiple.
DIALECTS = {
    "ai-toolkit": ("diffusion_model.double_blocks.0.img_attn.qkv", A, B, QKV),
    "ai-toolkit, single": ("diffusion_model.single_blocks.0.linear1", A, B, LINEAR1),
    "ComfyUI": ("diffusion_model.double_blocks.0.txt_attn.qkv", DOWN, UP, TEXT_QKV),
    "ComfyUI, whole prefix": ("model.diffusion_model.single_blocks.0.linear1", DOWN, UP, LINEAR1),
    "kohya": ("lora_unet_double_blocks_0_img_attn_proj", DOWN, UP, [f"{BLOCK}.attn.to_out.0"]),
    "OneTrainer": (
        "lora_transformer_transformer_blocks_0_ff_context_net_0_proj", DOWN, UP,
        [f"{BLOCK}.ff_context.net.0.proj"],
    ),
    "OneTrainer, dotted": (f"transformer.{QKV[1]}", DOWN, UP, [QKV[1]]),
    "OMI": ("transformer.double_blocks.0.img_attn.qkv.2", DOWN, UP, [QKV[2]]),
    "OMI, single": ("transformer.single_blocks.0.linear1.3", DOWN, UP, [LINEAR1[3]]),
    "PEFT": (f"base_model.model.{QKV[0]}", A, B, [QKV[0]]),
    "PEFT, named adapter": (
        f"base_model.model.{QKV[0]}", ".lora_A.default.weight", ".lora_B.default.weight", [QKV[0]],
    ),
    "fal": ("base_model.model.double_blocks.0.img_mlp.0", A, B, [f"{BLOCK}.ff.net.0.proj"]),
    "SimpleTuner": (f"transformer.base_model.model.{QKV[0]}", A, B, [QKV[0]]),
    "LyCORIS": (f"lycoris_{QKV[0].replace('.', '_')}", DOWN, UP, [QKV[0]]),
    "XLabs": ("double_blocks.0.processor.qkv_lora1", ".down.weight", ".up.weight", QKV),
    "XLabs, text": ("double_blocks.0.processor.qkv_lora2", ".down.weight", ".up.weight", TEXT_QKV),
    "XLabs, single": (
        "single_blocks.0.processor.qkv_lora", ".down.weight", ".up.weight", LINEAR1[:3],
    ),
    "no prefix": (LINEAR1[0], A, B, [LINEAR1[0]]),
    "early diffusers": (
        f"transformer.{BLOCK}.attn.processor.to_out_lora", ".down.weight", ".up.weight",
        [f"{BLOCK}.attn.to_out.0"],
    ),
    "torch.compile": (
        "transformer.transformer_blocks.0._orig_mod.attn.to_q", A, B, [QKV[0]],
    ),
    "embedder": ("lora_unet_img_in", DOWN, UP, ["x_embedder"]),
    "OMI, embedder": ("transformer.img_in.proj", DOWN, UP, ["x_embedder"]),
    "last layer": ("diffusion_model.final_layer.linear", A, B, ["proj_out"]),
    "last layer, diffusers": ("transformer.proj_out", A, B, ["proj_out"]),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("alpha", [None, 5.0])
def test_layers_are_those_of_the_same_tensors_in_diffusers_names(
    dialect: str, alpha: float | None, tmp_path: Path
) -> None:
    name, down_end, up_end, parts = DIALECTS[dialect]
    heights = [W * (4 if part.endswith("proj_mlp") else 1) for part in parts]
    down, up = _pair(sum(heights))
    tensors = {name + down_end: down, name + up_end: up}
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    layers = _read(tmp_path / "a.safetensors", tensors).layers
    assert sorted(layers) == sorted(parts)
    wanted = torch.split(up @ down * ((alpha or RANK) / RANK), heights)
    for part, rows in zip(parts, wanted, strict=True):
        torch.testing.assert_close(layers[part].product(), rows)


def test_the_last_modulation_has_scale_before_shift_in_diffusers(tmp_path: Path) -> None:
    down, up = _pair(2 * W)
    name = "lora_unet_final_layer_adaLN_modulation_1"
    file = tmp_path / "a.safetensors"
    layers = _read(file, {name + DOWN: down, name + UP: up}).layers
    shift, scale = (up @ down).chunk(2)
    torch.testing.assert_close(layers["norm_out.linear"].product(), torch.cat([scale, shift]))
    file.write_bytes(adapter_bytes.kohya_bytes(layers, {}, torch.float32))
    assert torch.equal(adapter_file.read(file).layers["norm_out.linear"].up, torch.cat(
        [up[W:], up[:W]]
    ))  # fmt: skip


def _kohya(width: int) -> dict[str, Tensor]:
    tensors = {}
    for name, height in [("double_blocks_0_img_attn_qkv", 3), ("double_blocks_1_txt_mlp_0", 4)]:
        down, up = _pair(height * width, width)
        layer = f"lora_unet_{name}"
        tensors |= {layer + DOWN: down, layer + UP: up, f"{layer}.alpha": torch.tensor(1.0)}
    return tensors


def _comfyui(width: int) -> dict[str, Tensor]:
    names = {"double_blocks_0_img_attn_qkv": "double_blocks.0.img_attn.qkv",
             "double_blocks_1_txt_mlp_0": "double_blocks.1.txt_mlp.0"}  # fmt: skip
    return {
        name.replace(f"lora_unet_{old}", f"diffusion_model.{new}"): tensor
        for old, new in names.items()
        for name, tensor in _kohya(width).items()
        if old in name
    }


def _xlabs(width: int) -> dict[str, Tensor]:
    tensors = {}
    for name, height in [("double_blocks.0.processor.qkv_lora2", 3),
                         ("double_blocks.1.processor.proj_lora1", 1),
                         ("single_blocks.1.processor.qkv_lora", 3)]:  # fmt: skip
        down, up = _pair(height * width, width)
        tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
    return tensors


def _onetrainer(width: int) -> dict[str, Tensor]:
    tensors = {}
    for part in ("transformer_blocks_0_attn_to_k", "transformer_blocks_1_attn_add_q_proj"):
        down, up = _pair(width, width)
        layer = f"lora_transformer_{part}"
        tensors |= {layer + DOWN: down, layer + UP: up, f"{layer}.alpha": torch.tensor(0.5)}
    return tensors


@pytest.mark.parametrize("make", [_kohya, _comfyui, _xlabs, _onetrainer])
def test_diffusers_own_loader_fuses_the_same_weights(
    make: Callable[[int], dict[str, Tensor]], workspace: Workspace, tmp_path: Path
) -> None:
    pipe = pipeline.load(workspace.backbone, "fp32", CPU, pipeline.IMAGE_PARTS)
    width = pipe.transformer.config.num_attention_heads * pipe.transformer.config.attention_head_dim
    before = {name: one.clone() for name, one in pipe.transformer.state_dict().items()}
    layers = _read(tmp_path / "theirs.safetensors", make(width)).layers
    pipe.load_lora_weights(make(width))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused = pipe.transformer.state_dict()
    changed = {name for name, one in before.items() if not torch.equal(one, fused[name])}
    assert changed == {f"{name}.weight" for name in layers}
    for name, layer in layers.items():
        torch.testing.assert_close(
            fused[f"{name}.weight"] - before[f"{name}.weight"], layer.product(),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-6), (torch.float16, 0), (torch.bfloat16, 0), (torch.float8_e4m3fn, 0),
     (torch.float8_e5m2, 0)],
)  # fmt: skip
def test_storage_in_other_floats_is_read(
    dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    down, up = (one.to(dtype) for one in _pair(W))
    tensors = {QKV[0] + A: down, QKV[0] + B: up, f"{QKV[0]}.alpha": torch.tensor(4)}
    layer = _read(tmp_path / "a.safetensors", tensors).layers[QKV[0]]
    assert layer.alpha == 4
    assert bool(layer.product().any())  # torch multiplies no matrices in float8
    for ours, theirs in ((layer.down, down), (layer.up, up)):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance)


def test_peft_keeps_alpha_in_the_file_beside(workspace: Workspace, tmp_path: Path) -> None:
    folder, names = tmp_path / "adapter", QKV[:2]
    folder.mkdir()
    tensors = {}
    for name in names:
        tensors[f"base_model.model.{name}{A}"], tensors[f"base_model.model.{name}{B}"] = _pair(
            128, 128, 4
        )
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"to_k": 2}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    settings = LORA.model_copy(update={"imported": str(folder)})
    facts = imported.write(settings, workspace.backbone, tmp_path, Silent())
    assert facts["imported"] == "adapter/adapter_model.safetensors"
    layers = adapter_file.read(tmp_path / lora.WEIGHTS).layers
    assert [layers[name].alpha for name in names] == [8, 2]
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    assert adapter_file.read(folder / "adapter_model.safetensors").layers[names[0]].alpha == 16
    for damaged in (
        "{",
        "[1]",
        '{"lora_alpha": NaN}',
        '{"lora_alpha": "8"}',
        '{"alpha_pattern": 3}',
    ):
        (folder / "adapter_config.json").write_text(damaged)
        with pytest.raises(InputError, match="adapter_config|alpha"):
            adapter_file.read(folder / "adapter_model.safetensors")


def test_text_encoders_are_left_out_and_counted(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.safetensors"
    down, up = _pair(128, 128)
    pair = {f"lora_unet_double_blocks_0_img_attn_proj{DOWN}": down,
            f"lora_unet_double_blocks_0_img_attn_proj{UP}": up}  # fmt: skip
    clip = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    text = {clip + DOWN: down, clip + UP: up, f"{clip}.alpha": torch.tensor(1.0)}
    _read(file, pair | text)
    settings = LORA.model_copy(update={"imported": str(file)})
    facts = imported.write(settings, workspace.backbone, tmp_path, Silent())
    assert facts["text_encoder_tensors_left_out"] == 3
    assert "also adapts text encoders (3 tensors)" in capsys.readouterr().out
    assert _read(file, pair | text | {clip + UP: 0 * up}).text_encoder_tensors == 0
    for name in ("text_encoders.clip_l.transformer.text_model.x", "text_encoder.text_model.x",
                 "clip_l.text_model.x", "t5.encoder.x", "lora_te2_encoder_block_0"):  # fmt: skip
        assert _read(file, pair | {name + DOWN: down, name + UP: up}).text_encoder_tensors == 2
    with pytest.raises(InputError, match="adapts text encoders alone"):
        _read(file, text)


NONE: dict[str, str] = {}
PLAIN = {QKV[0] + A: _draw(2, W), QKV[0] + B: _draw(W, 2)}
_ONES = torch.ones(2, 2)
OTHERS: dict[str, tuple[dict[str, Tensor], dict[str, str], str]] = {
    "DoRA": ({**PLAIN, f"{QKV[0]}.dora_scale": _ONES}, NONE, "is a DoRA"),
    "DoRA of peft": ({**PLAIN, f"{QKV[0]}.lora_magnitude_vector": _ONES}, NONE, "is a DoRA"),
    "LoKr": ({"lycoris_transformer_blocks_0_attn_to_q.lokr_w1": _ONES}, NONE, "is a LoKr"),
    "LoHa": ({"lora_unet_double_blocks_0_img_attn_proj.hada_w1_a": _ONES}, NONE, "is a LoHa"),
    "OFT": ({f"{QKV[0]}.oft_blocks": _ONES}, NONE, "is an OFT"),
    "biases": ({**PLAIN, f"{QKV[0]}.lora_B.bias": _ONES}, NONE, "LoRA with biases"),
    "full": ({"diffusion_model.double_blocks.0.img_attn.proj.diff": _ONES}, NONE, "a whole tensor"),
    "norms": ({**PLAIN, "diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff": _ONES},
              NONE, "a whole tensor"),
    "control": ({"img_in" + A: _draw(2, 128), "img_in" + B: _draw(W, 2),
                 "double_blocks.0.img_attn.norm.query_norm.scale": _ONES}, NONE, "a control LoRA"),
    "control of diffusers": ({"transformer.x_embedder" + A: _draw(2, 128),
                              "transformer.x_embedder" + B: _draw(W, 2)}, NONE, "a control LoRA"),
    "Fill": ({"lora_unet_img_in" + DOWN: _draw(2, 384), "lora_unet_img_in" + UP: _draw(W, 2)},
             NONE, "FLUX.1-Fill"),
    "IP-Adapter": ({"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": _ONES},
                   NONE, "an IP-Adapter"),
    "textual inversion": ({"clip_l": _ONES, "t5xxl": _ONES}, NONE, "textual inversion"),
    "whole FLUX": ({"double_blocks.0.img_attn.qkv.weight": _ONES}, NONE, "of a whole model"),
    "SD 1.5": ({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k" + DOWN:
                _draw(2, 768)}, NONE, "LoRA for Stable Diffusion 1.5;"),
    "SD 1.5, convolution": ({"lora_unet_down_blocks_0_attentions_0_proj_in" + DOWN:
                             torch.ones(2, 4, 1, 1)}, NONE, "LoRA for Stable Diffusion"),
    "SDXL": ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k" + A:
              _draw(2, 2048)}, NONE, "LoRA for Stable Diffusion XL"),
    "SD 3": ({"lora_unet_joint_blocks_0_context_block_attn_qkv" + DOWN: _ONES}, NONE,
             "LoRA for Stable Diffusion 3"),
    "FLUX.2": ({"transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj" + A: _ONES}, NONE,
               "LoRA for FLUX.2"),
    "FLUX.2 by its shape": ({"diffusion_model.single_blocks.0.linear1" + A: _draw(2, W),
                             "diffusion_model.single_blocks.0.linear1" + B: _draw(9 * W, 2)}, NONE,
                            "has 288 outputs for 32 inputs where FLUX.1 has 224"),
    "Chroma": (PLAIN, {"modelspec.architecture": "chroma/lora"}, "LoRA for Chroma"),
    "SDXL by metadata": (PLAIN, {"ss_base_model_version": "sdxl_base_v1-0"},
                         "Stable Diffusion XL, as its metadata say"),
    "Qwen": ({"transformer_blocks.0.img_mlp.net.0.proj" + A: _ONES}, NONE, "for Qwen-Image"),
    "Wan": ({"diffusion_model.blocks.0.self_attn.q" + A: _ONES}, NONE, "LoRA for Wan"),
    "HunyuanVideo": ({"lora_unet_double_blocks_0_img_mod_linear" + DOWN: _ONES}, NONE,
                     "LoRA for HunyuanVideo"),
    "Z-Image": ({"diffusion_model.layers.0.attention.to_q" + A: _ONES}, NONE, "for Z-Image"),
    "LTX": ({"transformer.transformer_blocks.0.attn1.to_q" + A: _ONES}, NONE, "for LTX-Video"),
    "Llama": ({"base_model.model.model.layers.0.self_attn.q_proj" + A: _ONES}, NONE,
              "LoRA for a language model"),
    "unknown": ({"thing.lora_A.weight": _ONES}, NONE, "no LoRA of FLUX.1's transformer"),
    "nothing": ({}, NONE, "holds no tensor"),
    "rank 0": ({QKV[0] + A: torch.ones(0, W), QKV[0] + B: torch.ones(W, 0)}, NONE, "0 x 32"),
    "integers": ({QKV[0] + A: _ONES.int(), QKV[0] + B: _ONES.int()}, NONE, "as I32 and not as"),
    "ranks": ({QKV[0] + A: _draw(2, W), QKV[0] + B: _draw(W, 3)}, NONE, "of rank 2 and 3"),
    "half a pair": ({QKV[0] + A: _draw(2, W)}, NONE, r"has no up \(B\) matrix"),
    "NaN": ({**PLAIN, QKV[0] + B: _draw(W, 2) * float("nan")}, NONE, "not finite in .*lora_B"),
    "Inf": ({**PLAIN, QKV[0] + A: _draw(2, W) * float("inf")}, NONE, "not finite in .*lora_A"),
    "1e38": ({**PLAIN, QKV[0] + B: torch.full((W, 2), 1e38)}, NONE, "values up to 1e.38"),
    "product": ({QKV[0] + A: torch.full((2, W), 6e4), QKV[0] + B: torch.full((W, 2), 6e4)}, NONE,
                r"values up to 7.2e\+09"),
    "metadata": (PLAIN, {"lora_adapter_metadata": "{"}, "metadata lora_adapter_metadata that are"),
    "metadata, nested": (PLAIN, {"lora_adapter_metadata": "[" * 100_000}, "not valid JSON"),
    "metadata, list": (PLAIN, {"lora_adapter_metadata": "[]"}, "describe no adapter"),
    "our metadata": (PLAIN, {"dermaflux": "{'a'"}, "metadata dermaflux that are not valid JSON"),
    "twice": ({**PLAIN, f"transformer.{QKV[0]}{A}": _draw(2, W, 5), f"transformer.{QKV[0]}{B}":
               _draw(W, 2, 5)}, NONE, "adapts transformer_blocks.0.attn.to_q twice"),
    **{f"alpha {alpha}": ({**PLAIN, f"{QKV[0]}.alpha": torch.tensor(alpha)}, NONE, match)
       for alpha, match in [(0.0, "alpha 0.0"), (-1.0, "alpha -1.0"), (float("nan"), "not finite"),
                            (1e30, "alpha 1.0"), (1e4, "values up to"),
                            ([1.0, 2.0], "no single number")]},
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_anything_else_is_named_before_anything_is_loaded(case: str, tmp_path: Path) -> None:
    tensors, metadata, match = OTHERS[case]
    if case == "alpha 10000.0":
        tensors = {name: 100 * one if one.ndim else one for name, one in tensors.items()}
    file = tmp_path / "a.safetensors"
    save_file({name: one.clone() for name, one in tensors.items()}, file, metadata or None)
    settings = LORA.model_copy(update={"imported": str(file)})
    with pytest.raises(InputError, match=match) as caught:
        imported.write(settings, tmp_path / "no backbone", tmp_path, Silent())
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_zero_changes_of_norms_and_biases_do_no_harm(tmp_path: Path) -> None:
    extra = {"diffusion_model.double_blocks.0.img_attn.proj.diff_b": torch.zeros(W)}
    assert list(_read(tmp_path / "a.safetensors", PLAIN | extra).layers) == [QKV[0]]


def test_large_factors_whose_product_is_small_are_read(tmp_path: Path) -> None:
    down, up = torch.zeros(2, W), torch.zeros(W, 2)
    down[0], up[:, 1] = 6e4, 6e4  # every product of a row and a column is zero
    assert (
        not _read(tmp_path / "a.safetensors", {QKV[0] + A: down, QKV[0] + B: up})
        .layers[QKV[0]]
        .product()
        .any()
    )


def _header(content: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content.encode()


_ENTRY = '"x.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}'
DAMAGED = {
    "empty": (b"", "is empty"),
    "short": (b"\x08\0", "not in the safetensors format"),
    "web page": (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "JSON": (b'{"error": "Repository not found"}', "is JSON"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "run `git lfs pull`",
    ),
    "pickle": (b"\x80\x02}q\0X\x05\0\0\0stateq\x01." + b"\0" * 40, "can run code"),
    "torch.save": (b"PK\x03\x04" + b"\0" * 100, "can run code"),
    "GGUF": (b"GGUF\x03\0\0\0" + b"\0" * 40, "is a GGUF file"),
    "header that lies": (_header("{}", 10**12), "header has 1,000,000,000,000 bytes"),
    "no JSON": (_header("{,}   "), "header that is not valid JSON"),
    "nested": (_header('{"a":' * 20_000), "header that is not valid JSON"),
    "twice": (_header("{" + _ENTRY + "," + _ENTRY + "}") + b"\0" * 4, "twice in its header"),
    "cut": (_header("{" + _ENTRY + "}") + b"\0", "cut short: 3 of"),
    "wrong size": (_header("{" + _ENTRY.replace("[1,1]", "[5,1]") + "}") + b"\0" * 4, "cannot be"),
    "wrong type": (_header('{"x": 3, "__metadata__": {}}'), "cannot be read"),
    "offset": (_header('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,"a"]}}'), "cannot"),
    "number": (
        _header('{"x":{"dtype":"F32","shape":[1],"data_offsets":["a",4]}}') + b"\0" * 4,
        "cannot",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_or_foreign_file_is_told_in_one_sentence(case: str, tmp_path: Path) -> None:
    content, match = DAMAGED[case]
    file = tmp_path / "a\x1b[2J.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        adapter_file.read(file)
    assert str(caught.value).isprintable()


def test_a_header_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with file.open("wb") as opened:
        opened.write(_header("{", 100_000_000))
        opened.truncate(100_000_100)
    with pytest.raises(InputError, match="header of 100 MB"):
        adapter_file.read(file)


def test_every_changed_byte_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    metadata = {"lora_adapter_metadata": '{"transformer.lora_alpha": 4}'}
    save_file(PLAIN | {f"{QKV[0]}.alpha": torch.tensor(2.0)}, file, metadata)
    whole = file.read_bytes()
    draw = torch.Generator().manual_seed(0)
    end = len(whole) - 4 * W * 4
    for position in range(end):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(torch.randint(8, (1,), generator=draw))
        file.write_bytes(changed)
        with contextlib.suppress(InputError):
            layers = adapter_file.read(file).layers.values()
            assert all(bool(layer.product().isfinite().all()) for layer in layers)


def test_names_of_nothing(tmp_path: Path) -> None:
    settings = LORA.model_copy(update={"imported": str(tmp_path)})
    cases = [
        (["a.bin"], "holds 0 .safetensors files and not 1"),
        (["b.safetensors", "c.safetensors"], "holds 2 .safetensors files"),
    ]
    for files, match in cases:
        for name in files:
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=match):
            imported.write(settings, tmp_path, tmp_path, Silent())
    for name in ("a.ckpt", "a.pt", "a.bin"):
        with pytest.raises(InputError, match="a pickle can run code"):
            adapter_file.read(tmp_path / name)
