"""Names of FLUX's Linear layers in LoRA files, whatever program wrote them.

Two models give the names: diffusers' (transformer_blocks.0.attn.to_q) and Black Forest Labs' own
(double_blocks.0.img_attn.qkv), where query, key and value, and the MLP of a single block, are one
matrix. Programs differ in the words before and behind: ai-toolkit and ComfyUI write
`diffusion_model.`, kohya `lora_unet_` and underscores, OneTrainer `lora_transformer_` or
`transformer.` with the parts of a joint matrix numbered (OMI), PEFT `base_model.model.`, XLabs
`processor.qkv_lora1`. With dots as underscores all are one table. Order of the parts: BFL's
`flux/modules/layers.py`. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

DOUBLE = {
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
SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in_in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in_in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer_linear": "proj_out",
    "final_layer_adaLN_modulation_1": "norm_out.linear",
}
"""Layers outside the blocks."""
SWAPPED = "norm_out.linear"
"""diffusers has scale before shift here, Black Forest Labs shift before scale."""
_XLABS = {
    "qkv_lora1": DOUBLE["img_attn_qkv"],
    "qkv_lora2": DOUBLE["txt_attn_qkv"],
    "proj_lora1": DOUBLE["img_attn_proj"],
    "proj_lora2": DOUBLE["txt_attn_proj"],
}
_XLABS_SINGLE = {"qkv_lora": SINGLE["linear1"][:3], "proj_lora": SINGLE["linear2"]}
_WRAPPERS = re.compile(r"\._orig_mod\b|\._fsdp_wrapped_module\b|\._checkpoint_wrapped_module\b")
_PREFIX = r"(?:(?:lora|unet|transformer|lycoris|base|model|diffusion|module|dit|flux|net|pipe)_)*"
_BLOCK = re.compile(
    _PREFIX + r"(double_blocks|single_blocks|single_transformer_blocks|transformer_blocks)"
    r"_(\d{1,4})_(processor_|attn_processor_)?(\w+)"
)
_OUTSIDE = re.compile(_PREFIX + r"(\w+?)")
_TEXT_ENCODER = re.compile(
    r"lora_te\d*_|lora_(?:clip_l|t5)|(?:base_model\.model\.)?(?:text_encoders?\d?[._]|text_model\.)"
    r"|clip_[lg]\.|t5(?:xxl)?\.|te\d?[._]"
)
_ADAPTER = r"(?:\.(?!weight$)\w+)?"  # peft's name of the adapter, where it was not taken out
_ENDINGS: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("down", re.compile(rf"\.lora_(?:down|A){_ADAPTER}\.weight$")),
    ("up", re.compile(rf"\.lora_(?:up|B){_ADAPTER}\.weight$")),
    ("down", re.compile(r"\.lora_(?:down|A)$")),
    ("up", re.compile(r"\.lora_(?:up|B)$")),
    ("down", re.compile(r"(?:\.lora|\.lora_linear_layer)?\.down\.weight$")),
    ("up", re.compile(r"(?:\.lora|\.lora_linear_layer)?\.up\.weight$")),
    ("alpha", re.compile(r"\.(?:alpha|lora_alpha|network_alpha)$")),
    ("change", re.compile(r"\.(?:diff|diff_b)$")),
)
Role = Literal["down", "up", "alpha", "change"]
"""What a tensor is to its layer; `change`: added to a weight or bias as it stands."""


@dataclass(frozen=True)
class Layer:
    """A Linear of the file, and what it is in diffusers' model."""

    parts: tuple[str, ...]
    """diffusers' layers, in the order of its rows."""
    swapped: bool = False
    """Whether the two halves of its rows stand the other way round."""


def split(name: str) -> tuple[str, Role] | None:
    """The layer's name as the file writes it, and the tensor's role; None for no LoRA tensor."""
    for role, ending in _ENDINGS:
        if matched := ending.search(name):
            return name[: matched.start()], role
    return None


def of_text_encoder(name: str) -> bool:
    """Whether a tensor belongs to CLIP or T5 rather than the transformer."""
    return _TEXT_ENCODER.match(name) is not None


def layer(name: str) -> Layer | None:
    """The Linear of FLUX that a layer's name in any program's file means; None when it is none."""
    plain = _WRAPPERS.sub("", name).replace(".", "_")
    if matched := _BLOCK.fullmatch(plain):
        parts = _in_block(matched[1], matched[4], processor=matched[3] is not None)
        block = f"{BLOCKS.get(matched[1], matched[1])}.{int(matched[2])}"
        return Layer(tuple(f"{block}.{part}" for part in parts)) if parts else None
    if matched := _OUTSIDE.fullmatch(plain):
        for bfl, diffusers in OUTSIDE.items():
            if matched[1] in (bfl, f"{bfl}_proj"):  # OMI calls the first img_in.proj
                return Layer((diffusers,), swapped=diffusers == SWAPPED)
            if matched[1] == diffusers.replace(".", "_"):
                return Layer((diffusers,))
    return None


def _in_block(kind: str, name: str, processor: bool) -> tuple[str, ...]:
    """Parts, within their block, of a layer with underscores; empty for an unknown one.

    `processor`: written as a part of the attention's processor, as XLabs and early diffusers do.
    """
    double = kind in ("double_blocks", "transformer_blocks")
    table = DOUBLE if double else SINGLE
    if kind in BLOCKS:
        if processor:
            return (_XLABS if double else _XLABS_SINGLE).get(name, ())
        joint, _, number = name.rpartition("_")
        parts = table.get(joint, ())
        if number.isdigit() and int(number) < len(parts) > 1:
            return (parts[int(number)],)
        return table.get(name, ())
    known = {part.replace(".", "_"): part for parts in table.values() for part in parts}
    plain = f"attn_{name.removesuffix('_lora')}" if processor else name
    found = known.get(plain) or known.get(f"{plain}_0" if plain.endswith("to_out") else "")
    return (found,) if found else ()


def naming(names: list[str]) -> str:
    """What provenance calls the way a file's layers are written."""
    first = names[0] if names else ""
    for prefix, program in (
        ("lora_unet_", "kohya"),
        ("lora_transformer_", "OneTrainer"),
        ("base_model.model.", "PEFT"),
        ("lycoris_", "LyCORIS"),
    ):
        if first.startswith(prefix):
            return program
    if ".processor." in first:
        return "XLabs" if "_blocks." in first and "transformer_blocks" not in first else "diffusers"
    bfl = re.search(r"(?:double|single)_blocks[._]\d", first)
    return "Black Forest Labs" if bfl else "diffusers"
