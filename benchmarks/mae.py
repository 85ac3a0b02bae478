"""Pre-training steps a second against the MAE repository's model, on this device.

Both are the same model with the same weights, images and hidden patches: that their losses agree is
checked first. A step is forward, backward and AdamW on a batch that is in memory. Steps of the two
alternate, and medians of the time that the process computed (on a GPU, that passed) are compared.

    git clone https://github.com/facebookresearch/mae PATH
    python benchmarks/mae.py --repository PATH --output benchmarks/results/mae.json

The repository is written for timm 0.3.2 and numpy 1; two words of it are replaced as it is loaded.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.recipes.mae import autoencoder, encoder
from dermaflux.core.devices import automatic_device
from dermaflux.core.files import write_json
from dermaflux.params import Model, Pretrain, load

ROUNDS = 15
SHIPPED = load.load(Path(__file__).parents[1] / "params.yaml")
CASES: dict[str, tuple[Model, Pretrain, int, int]] = {
    "demo": (SHIPPED.train.models["vit_mae"], SHIPPED.pretrain, 64, 64),
    "vit_base_patch16_224": (
        Model(name="vit_base_patch16_224", learning_rate=1e-4), Pretrain(architecture="x"), 224, 4,
    ),
}  # fmt: skip
"""Name -> encoder, settings, side in pixels, batch."""


def repository_model(root: Path, shape: encoder.Encoder, settings: Pretrain) -> Any:
    """`MaskedAutoencoderViT` of the repository."""
    code = (root / "util" / "pos_embed.py").read_text().replace("np.float)", "float)")
    for name, source in (
        ("util.pos_embed", code),
        ("models_mae", (root / "models_mae.py").read_text().replace("qk_scale=None, ", "")),
    ):
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, name, "exec"), module.__dict__)
    return sys.modules["models_mae"].MaskedAutoencoderViT(
        img_size=shape.side, patch_size=shape.patch, embed_dim=shape.width, depth=shape.depth,
        num_heads=shape.heads, decoder_embed_dim=settings.decoder_width,
        decoder_depth=settings.decoder_depth, decoder_num_heads=settings.decoder_heads,
        mlp_ratio=shape.hidden / shape.width, norm_pix_loss=settings.norm_pix_loss,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the repository's names."""
    theirs = encoder.timm_weights(weights)
    decoder = {
        f"vit.{name.removeprefix('decoder.').replace('decoder_layers', 'layers')}": tensor
        for name, tensor in weights.items()
        if name.startswith("decoder.")
    }
    for name, tensor in encoder.timm_weights(decoder).items():
        theirs[name.replace("blocks.", "decoder_blocks.")] = tensor
    return theirs


def measure(name: str, root: Path, device: torch.device) -> dict[str, float]:
    """Images a second of both, their ratio, and how far their losses differ."""
    described, settings, side, batch = CASES[name]
    shape = encoder.describe(name, described, side)
    torch.manual_seed(0)
    ours = autoencoder.build(shape, settings).to(device).train()
    theirs = repository_model(root, shape, settings).to(device).train()
    theirs.load_state_dict(copied(ours.state_dict()))
    images = torch.randn(batch, 3, side, side, device=device)
    noise = torch.rand(batch, shape.patches, device=device)
    losses: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: ours(pixel_values=images, noise=noise).loss,
        "theirs": lambda: theirs(images, settings.mask_ratio)[0],
    }
    drawn = torch.rand
    torch.rand = lambda *size, **options: noise  # type: ignore[assignment]
    try:
        difference = float((losses["ours"]() - losses["theirs"]()).detach().abs())
    finally:
        torch.rand = drawn
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    optimisers = {
        key: torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        for key, model in (("ours", ours), ("theirs", theirs))
    }
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for _ in range(ROUNDS):
        for key, loss in losses.items():
            began = clock()
            optimisers[key].zero_grad()
            loss().backward()  # type: ignore[no-untyped-call]
            optimisers[key].step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[key].append(clock() - began)
    speeds = {f"{key}_images_per_second": batch / median(seconds[key]) for key in seconds}
    ratio = speeds["ours_images_per_second"] / speeds["theirs_images_per_second"]
    return {**speeds, "ratio": ratio, "loss_difference": difference}


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = automatic_device()
    results = {name: measure(name, arguments.repository, device) for name in CASES}
    for name, figures in results.items():
        print(name, {key: float(f"{value:.3g}") for key, value in figures.items()})
    if arguments.output:
        write_json(arguments.output, {"device": str(device), **results})


if __name__ == "__main__":
    main()
