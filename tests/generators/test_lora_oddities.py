"""LoRA files beside the usual: names without endings, hostile patterns, odd companions."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import adapter_file

Q = "transformer_blocks.0.attn.to_q"
A, B = ".lora_A.weight", ".lora_B.weight"
PLAIN = {Q + A: torch.ones(2, 8), Q + B: torch.ones(8, 2)}
TE = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def _read(
    folder: Path, tensors: dict[str, Tensor], pattern: str | None = None
) -> adapter_file.AdapterFile:
    description = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {pattern: 6}}
    metadata = None if pattern is None else {"lora_adapter_metadata": json.dumps(description)}
    save_file(
        {name: one.clone() for name, one in tensors.items()}, folder / "a.safetensors", metadata
    )
    return adapter_file.read(folder / "a.safetensors")


@pytest.mark.parametrize(
    ("prefix", "down", "up"),
    [("", ".lora_A", ".lora_B"), ("", ".lora_down", ".lora_up"), ("net.", A, B),
     ("pipe.transformer.", A, B)],
)  # fmt: skip
def test_other_beginnings_and_endings(prefix: str, down: str, up: str, tmp_path: Path) -> None:
    tensors = {prefix + Q + down: PLAIN[Q + A], prefix + Q + up: PLAIN[Q + B]}
    assert list(_read(tmp_path, tensors).layers) == [Q]


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [("to_q", 6), (f"^{Q}", 6), (r".*blocks\.\d+\.attn\.to_q", 6), ("to_k", 4),
     ("(.*.*.*)*(.*.*)*(.*)*x", None), ("a{9}{9}", None), (".*" * 20 + "x", None), ("(", None)],
)  # fmt: skip
def test_patterns_of_alphas_are_those_of_peft_and_never_slow(
    pattern: str, alpha: int | None, tmp_path: Path
) -> None:
    start = time.monotonic()
    if alpha is None:
        with pytest.raises(InputError, match="a description of its alphas that cannot be read"):
            _read(tmp_path, PLAIN, pattern)
    else:
        assert _read(tmp_path, PLAIN, pattern).layers[Q].alpha == alpha
    assert time.monotonic() - start < 5


BESIDE = {
    "a bias": (f"{Q}.bias", "that also holds 'transformer_blocks.0.attn.to_q.bias'"),
    "a scale": (f"{Q}.scale", "that also holds"),
    "a factor": (f"{Q}.scalar", "of LyCORIS with a trained factor"),
    "an embedding": ("bundle_emb.mole.clip_l", "a LoRA with an embedding of textual inversion"),
    "DiffSynth": ("blocks.0.attn.a_to_qkv.lora_A.weight", "in DiffSynth's own names"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_beside_the_layers_is_called_what_it_is(case: str, tmp_path: Path) -> None:
    name, match = BESIDE[case]
    with pytest.raises(InputError, match=match):
        _read(tmp_path, PLAIN | {name: torch.ones(2, 2)})


@pytest.mark.parametrize("name", [f"{TE}.lokr_w1", f"{TE}.hada_w1_a", f"{TE}.diff"])
def test_text_encoders_adapted_otherwise_are_counted_too(name: str, tmp_path: Path) -> None:
    assert _read(tmp_path, PLAIN | {name: torch.ones(2, 2)}).text_encoder_tensors == 1
