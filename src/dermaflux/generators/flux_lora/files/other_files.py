"""What a file is that holds no LoRA of FLUX.1's transformer: another adapter or another model.

Told by the names, shapes and metadata that trainers write; the words complete "the file is ...".
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dermaflux.errors import quoted
from dermaflux.generators.flux_lora.files import layer_names
from dermaflux.generators.flux_lora.model.weights_file import Entry

_PLAIN = "train a plain LoRA, whose tensors are lora_A and lora_B, or lora_down and lora_up"
_ADAPTERS = (
    (r"dora_scale|lora_magnitude_vector", "a DoRA, which also rescales the rows of each weight"),
    (r"\.lokr_", "a LoKr of LyCORIS, a Kronecker product"),
    (r"\.hada_", "a LoHa of LyCORIS, a Hadamard product"),
    (r"\.oft_|\.lora_R\b|\.boft_", "an OFT, which rotates weights"),
    (r"\.lora_mid\b|\.lora_mid\.", "a LoCon with a third matrix (Tucker)"),
    (r"\.(?:a1|b1|a2|b2)\.weight$", "a GLoRA of LyCORIS"),
    (r"\.on_input$|ia3_l", "an (IA)3, which rescales activations"),
    (r"vera_lambda", "a VeRA, whose matrices are shared and random"),
    (r"lora_embedding_[AB]", "a LoRA of an embedding layer"),
    (r"\.lora_E\b|ranknum", "an AdaLoRA, which has a third factor"),
    (r"\.scalar$", "one of LyCORIS with a trained factor per layer"),
    (r"\.w_norm$|\.b_norm$|\.set_weight$", "one that also replaces norms"),
    (r"(?:lora_B|lora_up)(?:\.\w+)?\.bias$", "a LoRA with biases"),
    (
        r"scale_weight|weight_scale|scale_input|\.scb$|quant_state|\.absmax",
        "stored with scales of its own",
    ),
)
"""Adapters that low-rank matrices alone do not express."""
_CONTROL = (
    "a control LoRA of FLUX.1-Canny or FLUX.1-Depth, whose img_in takes 128 channels, the image's "
    "64 and those of a control image, and which replaces norms; give a LoRA for FLUX.1-dev"
)
_OTHERS = (
    (r"ip_adapter", "an IP-Adapter"),
    (r"(?:^|[._])controlnet_|^control_model\.", "a ControlNet"),
    (r"^(?:clip_[lg]|t5xxl|emb_params|bundle_emb\..*|string_to_param\..*)$",
     "an embedding of textual inversion"),
)  # fmt: skip
_UNET = re.compile(r"(?:down|up|input|output)_blocks?_|mid_block_|middle_block_")
_DIFFSYNTH = re.compile(
    r"(?:^|_)blocks_\d+_(?:attn_[ab]_to_(?:qkv|out)|ff_[ab]_\d|norm1_[ab]_linear)"
)
_CROSS_ATTENTION = re.compile(r"attn2_to_[kv]$")
_TEXT_WIDTHS = {
    768: "Stable Diffusion 1.5",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
}
"""By the width of the text that a U-Net's cross-attention reads."""
_MODELS = (
    (r"motion_modules", "AnimateDiff"),
    (r"prior_unet", "Stable Cascade"),
    (r"(?:double|single)_stream_modulation|to_qkv_mlp_proj|ff(?:_context)?_linear_(?:in|out)",
     "FLUX.2"),
    (r"distilled_guidance_layer", "Chroma"),
    (r"token_refiner|_mod_linear|_mlp_fc[12]|modulation_linear|(?:img|txt)_attn_[qkv](?:_|$)",
     "HunyuanVideo"),
    (r"(?:img|txt)_mlp_net_|blocks_\d+_(?:img|txt)_mod_1", "Qwen-Image"),
    (r"joint_blocks_|_x_block_|_context_block_|pos_embed_proj", "Stable Diffusion 3"),
    (r"joint_transformer_blocks|double_layers_|single_layers_", "AuraFlow"),
    (r"(?:double|single)_stream_blocks_", "HiDream"),
    (r"noise_refiner_|context_refiner_|layers_\d+_(?:attention|feed_forward|adaLN)",
     "Z-Image or Lumina"),
    (r"layers_\d+_(?:self_attn|mlp)_|embed_tokens|lm_head", "a language model"),
    (r"transformer_blocks_\d+_attn[12]_|caption_projection|adaln_single|scale_shift_table",
     "LTX-Video, CogVideoX, PixArt or Sana"),
    (r"blocks_\d+_(?:self_attn|cross_attn|ffn|attn[12])_", "Wan"),
    (r"(?<!transformer_)(?<!single_)(?<!double_)blocks_\d+_(?:attn|mlp)_|encoder_layers?_\d+_",
     "a vision transformer"),
)  # fmt: skip
"""By the names of layers, dots as underscores."""
_METADATA_KEYS = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_base_model")
_DECLARED = (
    (r"flux[._-]?2", "FLUX.2"),
    (r"chroma", "Chroma"),
    (r"stable-diffusion-v1|\bsd_?v?1", "Stable Diffusion 1.5"),
    (r"stable-diffusion-v2|\bsd_?v2", "Stable Diffusion 2"),
    (r"stable-diffusion-xl|sdxl", "Stable Diffusion XL"),
    (r"stable-diffusion-3|\bsd_?v?3", "Stable Diffusion 3"),
    (r"qwen", "Qwen-Image"),
    (r"hunyuan", "HunyuanVideo"),
    (r"\bwan", "Wan"),
    (r"lumina|z[-_]?image", "Z-Image or Lumina"),
    (r"hidream", "HiDream"),
)
_WIDTHS = {
    1536: "Stable Diffusion 3",
    2432: "Stable Diffusion 3.5 Large",
    4096: "FLUX.2 [klein]",
    6144: "FLUX.2 [dev]",
}
"""Inputs of the queries, in models whose layers are called as FLUX.1's are."""
_GIVE = "give one made for FLUX.1-dev, or for the backbone in use"


def adapter_kind(names: Iterable[str]) -> str | None:
    """What the file is where its tensors are those of no plain LoRA, and what to do."""
    listed = list(names)
    if any(name.endswith(("query_norm.scale", "key_norm.scale")) for name in listed):
        return _CONTROL
    for pattern, what in _ADAPTERS:
        if any(re.search(pattern, name) for name in listed):
            return f"{what}; {_PLAIN}"
    return None


def embedder(inputs: int) -> str | None:
    """What a LoRA is whose image embedder has so many inputs, where that is no text-to-image."""
    if inputs == 128:
        return _CONTROL
    if inputs == 384:
        return (
            "a LoRA of FLUX.1-Fill, whose img_in takes 384 channels, the image's 64 and those of "
            "a masked image; give a LoRA for FLUX.1-dev"
        )
    return None


def declared(metadata: Mapping[str, str]) -> str | None:
    """What the file is where its metadata name another model, and what to do."""
    for key in _METADATA_KEYS:
        value = metadata.get(key, "")
        for pattern, what in _DECLARED:
            if re.search(pattern, value.lower()):
                return f"a LoRA for {what}, as its metadata says ({key}: {quoted(value)}); {_GIVE}"
    return None


def foreign(unknown: Mapping[str, Entry], *, beside: bool = False) -> str:
    """What the file is, by tensors that belong to no LoRA layer of FLUX.1, and what to do.

    `beside`: whether it holds such layers, too.
    """
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in unknown):
            what = f"a LoRA with {what} beside it" if beside else what
            return f"{what}; {_GIVE.replace('one', 'a LoRA alone,' if beside else 'a LoRA', 1)}"
    layers = {}
    for name, entry in unknown.items():
        found = layer_names.split(name)
        layers[(found[0] if found else name).replace(".", "_")] = (entry, found and found[1])
    if any(_DIFFSYNTH.search(name) for name in layers):
        return "a LoRA of FLUX.1 in DiffSynth's own names; save it in those of ComfyUI or diffusers"
    if any(_UNET.search(name) for name in layers):
        widths = {
            entry.shape[1]
            for name, (entry, role) in layers.items()
            if _CROSS_ATTENTION.search(name) and role == "down" and len(entry.shape) > 1
        }
        model = next((_TEXT_WIDTHS[width] for width in widths if width in _TEXT_WIDTHS), None)
        return f"a LoRA for {model or 'Stable Diffusion 1.5, 2 or XL, which have a U-Net'}; {_GIVE}"
    for pattern, model in _MODELS:
        if any(re.search(pattern, name) for name in layers):
            return f"a LoRA for {model}; {_GIVE}"
    if beside:
        return f"a LoRA that also holds {quoted(min(unknown))}, which no plain LoRA has; {_PLAIN}"
    if not any(found for _, found in layers.values()):
        return (
            f"no LoRA: it holds {quoted(min(unknown))}, a weight of a whole model; give a LoRA, or "
            "name a model saved by diffusers in backbone.repository"
        )
    return f"no LoRA of FLUX.1's transformer: it adapts {quoted(min(unknown))}; {_GIVE}"


def width(layer: str, inputs: int) -> str:
    """A clause on the other model whose layers have this width, empty where none is known."""
    if ".attn." in layer and inputs in _WIDTHS:
        return f", as in {_WIDTHS[inputs]}"
    return ""
