"""Our U-ViT against its authors' (github.com/baofff/U-ViT), and its speed against diffusers' DiT.

    python benchmarks/uvit.py check FOLDER [--weights FILE --heads 8] [--output FILE]
    python benchmarks/uvit.py speed --output benchmarks/results/uvit.json

`check` copies weights of the authors' network, random ones or those of a released file, into ours
and compares outputs. FOLDER is a checkout of their repository or its git directory; their code is
imported from there. So is that of VAP-Diffusion (github.com/huanggeng698/VAP-Diffusion), whose
network is our variant `released`. `speed` takes CPU seconds of a training step and of a denoising
step, ours and of diffusers' DiTTransformer2DModel with as many blocks, as wide and on as many image
tokens. Rows of either are added to the output.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.generators.vap.model.uvit import Shape, UViT, parameters

_UVIT, _VAP = ("uvit", "uvit_t2i"), ("uvit_t2i_label_pron",)
"""Modules of `libs` in either repository."""
_NAMES = {
    "patch_embed.proj": "patches", "label_emb": "classes", "context_embed": "text",
    "pos_embed": "positions", "in_blocks": "input_blocks", "mid_block": "middle",
    "out_blocks": "output_blocks", "decoder_pred": "output", "final_layer": "final",
    "attn.qkv": "attention.qkv", "attn.proj": "attention.out", "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2", "norm1": "norm_1", "norm2": "norm_2", "skip_linear": "skip",
}  # fmt: skip
"""Parts of the authors' names of weights, and ours."""
_MECHANISM = {
    "prototype.": "prototypes.elements.", "Q_former.attn.ql": "prototypes.attention.query",
    "Q_former.attn.kl": "prototypes.attention.key", "Q_former.z": "prototypes.injection_",
    "Q_former.attn.vl": "prototypes.attention.value", "Q_former.norm2": "prototypes.norm",
    "Q_former.attn.proj": "prototypes.attention.out", "Q_former.mlp": "prototypes.mlp",
}  # fmt: skip
_TARGET = {"q": "query", "k": "key", "v": "value"}
_UNUSED = ("Q_former.norm1", "Q_former.normp")
"""Norms that VAP-Diffusion's code creates and never calls."""
_WARM = 2


def renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names."""
    ours = {}
    for name, value in theirs.items():
        if name.startswith(_UNUSED):
            continue
        first, _, rest = name.partition(".")
        if first in _TARGET:
            name = f"prototypes.{_TARGET[first]}.{rest}"
        for old, new in {**_MECHANISM, **_NAMES}.items():
            name = name.replace(old, new)
        ours[name] = value
    return ours


def shape_of(theirs: Mapping[str, Tensor], heads: int) -> Shape:
    """The sizes of the authors' network, from its weights; raises `InputError` for a variant."""
    if any(name.startswith("time_embed") for name in theirs):
        raise InputError("these weights embed the time by an MLP, which ours has not; use others")
    channels, patch = theirs["patch_embed.proj.weight"].shape[1:3]
    _, tokens, width = theirs["pos_embed"].shape
    labels, context = theirs.get("label_emb.weight"), theirs.get("context_embed.weight")
    extras = 1 + (labels is not None)
    # Texts of their model have 77 tokens, and images are square.
    text = 77 if context is not None else 0
    return Shape(
        channels, int((tokens - extras - text) ** 0.5) * patch, patch, width,
        2 * sum(name.startswith("in_blocks") and name.endswith("qkv.weight") for name in theirs),
        heads, 0 if labels is None else len(labels) - 1, text,
        0 if context is None else context.shape[1],
        variant="released" if labels is None else "paper",
    )  # fmt: skip


def authors(folder: Path, target: Path) -> list[Any]:
    """Their modules of `libs`, imported from a copy in `target`."""
    (target / "libs").mkdir()
    (target / "libs" / "__init__.py").touch()
    modules = _VAP if _content(folder, _VAP[0]) else _UVIT
    for name in ("timm", *modules):
        content = _content(folder, name)
        if content is None:
            raise InputError(f"{folder} holds no libs/{name}.py; name a checkout of baofff/U-ViT")
        (target / "libs" / f"{name}.py").write_bytes(content)
    try:
        importlib.import_module("einops")
    except ImportError:  # torch has the function that they use
        stand_in = types.ModuleType("einops")
        module = importlib.import_module("functorch.einops.rearrange")
        stand_in.rearrange = module.rearrange  # type: ignore[attr-defined]
        sys.modules["einops"] = stand_in
    sys.path.insert(0, str(target))
    return [importlib.import_module(f"libs.{name}") for name in modules]


def _content(folder: Path, module: str) -> bytes | None:
    file = f"libs/{module}.py"
    if (folder / file).is_file():
        return (folder / file).read_bytes()
    command = ["git", f"--git-dir={folder}", "show", f"HEAD:{file}"]
    done = subprocess.run(command, capture_output=True, check=False)
    return None if done.returncode else done.stdout


def compare_released(module: Any) -> dict[str, Any]:
    """As `compare`, and the difference of L_recon, for VAP-Diffusion's network."""
    torch.manual_seed(0)
    sizes = (32, 2, 4, 512, 16, 8)
    network = module.UViT(*sizes, clip_dim=768, num_clip_token=256, num_classes=8).eval()
    ours = UViT(Shape(4, 32, 2, 512, 16, 8, 7, 256, 768, 512, "released", "joint"))
    ours.load_state_dict(renamed(network.state_dict()))
    latents, text = torch.randn(4, 4, 32, 32), torch.randn(4, 256, 768)
    times, classes = torch.rand(4) * 999, torch.randint(0, 8, (4,))
    with torch.no_grad():
        theirs, loss = network(latents, times, text, classes, latents)
        found, errors = ours(latents, times, classes, text, reconstruct=True)
    assert errors is not None
    return {
        "conditions": "prototypes and text",
        "parameters": parameters(ours.shape),
        "their_parameters": sum(weight.numel() for weight in network.parameters()),
        "largest_difference": float((found - theirs).abs().max()),
        "largest_output": float(theirs.abs().max()),
        "reconstruction_loss_difference": float((errors.mean() - loss).abs()),
    }


def compare(network: nn.Module, heads: int, seed: int) -> dict[str, Any]:
    """Largest difference of outputs, and of the largest output, on random inputs."""
    weights = network.state_dict()
    shape = shape_of(weights, heads)
    ours = UViT(shape)
    ours.load_state_dict(renamed(weights))
    torch.manual_seed(seed)
    latents = torch.randn(4, shape.channels, shape.side, shape.side)
    times, classes = torch.rand(4) * 999, torch.randint(0, shape.classes + 1, (4,))
    text = torch.randn(4, shape.text_tokens, shape.text_width) if shape.text_tokens else None
    with torch.no_grad():
        theirs = network.eval()(latents, times, classes if text is None else text)
        found, _ = ours.eval()(latents, times, classes, text)
    return {
        "conditions": "class" if text is None else "text",
        "parameters": parameters(shape),
        "largest_difference": float((found - theirs).abs().max()),
        "largest_output": float(theirs.abs().max()),
    }


def check(folder: Path, file: Path | None, heads: int) -> list[dict[str, Any]]:
    """A row for the class-conditional network and one for that of texts, or one of a file."""
    with tempfile.TemporaryDirectory() as target:
        modules = authors(folder, Path(target))
        if len(modules) == len(_VAP):
            return [compare_released(*modules)]
        by_class, by_text = modules
        sizes: dict[str, Any] = {
            "img_size": 32, "patch_size": 2, "in_chans": 4, "embed_dim": 512, "depth": 16,
            "num_heads": heads,
        }  # fmt: skip
        if file is None:
            torch.manual_seed(0)
            networks = [by_class.UViT(**sizes, num_classes=8), by_text.UViT(**sizes)]
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
            shape = shape_of(weights, heads)
            sizes |= {
                "img_size": shape.side, "patch_size": shape.patch, "in_chans": shape.channels,
                "embed_dim": shape.width, "depth": shape.depth,
            }  # fmt: skip
            if shape.text_tokens:
                networks = [by_text.UViT(**sizes, clip_dim=shape.text_width)]
            else:
                networks = [by_class.UViT(**sizes, num_classes=shape.classes + 1)]
            networks[0].load_state_dict(weights)
        return [compare(network, heads, seed) for seed, network in enumerate(networks)]


def median_seconds(step: Callable[[], object], steps: int) -> float:
    """CPU seconds of a step, which other work on the machine hardly changes."""
    stamps = []
    for _ in range(steps):
        stamps.append(time.process_time())
        step()
    stamps.append(time.process_time())
    return float(np.median(np.diff(stamps[_WARM:])))


def measured(
    network: nn.Module, forward: Callable[[Tensor], Tensor], steps: int
) -> dict[str, float]:
    """Training step (forward, backward, AdamW) and denoising step of 16 latents."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    latents, target = torch.randn(2, 16, 16, 16, 16)

    def train() -> None:
        optimiser.zero_grad()
        (forward(latents) - target).square().mean().backward()
        optimiser.step()

    @torch.inference_mode()
    def denoise() -> Tensor:
        return forward(latents)

    return {"training": median_seconds(train, steps), "denoising": median_seconds(denoise, steps)}


def speed(steps: int) -> dict[str, Any]:
    """Both, in turn, twice: other work on the machine then shows as a difference of the two."""
    import diffusers

    width, heads, depth = 192, 3, 8
    shape = Shape(16, 16, 2, width, depth, heads, 2, 0, 0)
    dit_class: Any = diffusers.DiTTransformer2DModel
    times, classes = torch.rand(16) * 999, torch.zeros(16, dtype=torch.long)
    rows = []
    for turn in range(2):
        torch.manual_seed(turn)
        uvit = UViT(shape)
        dit = dit_class(
            num_attention_heads=heads, attention_head_dim=width // heads, in_channels=16,
            num_layers=depth + 1, sample_size=16, patch_size=2, num_embeds_ada_norm=2,
        )  # fmt: skip

        def of_uvit(latents: Tensor, network: UViT = uvit) -> Tensor:
            return network(latents, times, classes)[0]

        def of_dit(latents: Tensor, network: Any = dit) -> Tensor:
            output: Tensor = network(latents, times.long(), classes).sample
            return output

        row: dict[str, Any] = {"turn": turn}
        row |= {"uvit": measured(uvit, of_uvit, steps), "dit": measured(dit, of_dit, steps)}
        rows.append(row)
        print("CPU seconds a step of 16 images:", row, flush=True)
    return {
        "cpu_seconds_per_step": rows,
        "blocks": depth + 1,
        "width": width,
        "image_tokens": 64,
        "condition_tokens": {"uvit": shape.conditions, "dit": 0},
        "parameters": {"uvit": parameters(shape), "dit": sum(p.numel() for p in dit.parameters())},
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checked, timed = commands.add_parser("check"), commands.add_parser("speed")
    checked.add_argument("folder", type=Path)
    checked.add_argument("--weights", type=Path)
    checked.add_argument("--heads", type=int, default=8)
    timed.add_argument("--steps", type=int, default=12)
    for each in (checked, timed):
        each.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: Any
    name = arguments.command
    if name == "check":
        result = check(arguments.folder, arguments.weights, arguments.heads)
        print(*result, sep="\n")
        if any(row["largest_difference"] > 1e-5 for row in result):
            raise SystemExit("outputs differ by more than 1e-5")
        name = f"check_{'released' if 'their_parameters' in result[0] else 'uvit'}"
    else:
        result = speed(arguments.steps)
    output: Path | None = arguments.output
    if output:
        earlier = json.loads(output.read_text()) if output.exists() else {}
        write_json(output, {**earlier, name: result})


if __name__ == "__main__":
    main()
