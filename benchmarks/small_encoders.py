"""An autoencoder and a CLIP text tower trained on an ingested, captioned corpus in minutes.

    python benchmarks/small_encoders.py --corpus corpus --captions captions --output encoders

They stand where no hub is at hand for Stable Diffusion's autoencoder and BiomedCLIP's tower:
`finetune.vap.latents: encoders/autoencoder` has four channels, one latent for 8 x 8 pixels, as the
former, and `finetune.vap.text_encoder: encoders/clip` was trained on images and their captions
(Radford et al. 2021, arXiv 2103.00020), as the latter; that of the tiny backbone is random. Both
see the training split alone, without held-out descriptions. The tower reads as many tokens as the
longest caption has. The last lines say what can be told of lesions from what the two make of them.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from dermaflux.audit.faithfulness import control
from dermaflux.captions.lesion.measured import measure
from dermaflux.core import table
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.seeds import generator
from dermaflux.generators.tiny_flux import autoencoder, vocabulary
from dermaflux.generators.tiny_flux.training import settings_of
from dermaflux.tracking.runs import Silent
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step

SIDE, CHANNELS, CROP = 128, 4, 64
TEXT_WIDTH, TEXT_BLOCKS = 64, 2
JUDGED = 200


def training_images(corpus: Path, captions: Path) -> tuple[Tensor, list[str]]:
    """Pixels uint8 (N, 3, 128, 128) and captions of the training split, none held out."""
    frame = pd.concat(map(pd.read_parquet, sorted(captions.glob("*.parquet"))))
    frame = frame.set_index("image_id")
    ids = table.metadata(corpus, ["image_id"], "train")["image_id"]
    shown = [name for name in ids if not frame.at[name, "held_out"]]
    pixels = dict(table.decoded(corpus, shown, side=SIDE))
    stack = torch.from_numpy(np.stack([pixels[name] for name in shown]))
    return stack.permute(0, 3, 1, 2).contiguous(), frame.loc[shown, "caption"].tolist()


def optimise(
    name: str, model: nn.Module, steps: int, rate: float, step_of: Callable[[int], Step]
) -> None:
    """The training loop of all generators, from the start."""
    objective = FunctionObjective(dict(model.named_parameters()), lambda step: [step_of(step)])
    with tempfile.TemporaryDirectory() as scratch:
        fit(name, objective, settings_of(steps, rate), Checkpoint(Path(scratch)), Silent())


def train_autoencoder(pixels: Tensor, steps: int) -> Any:
    """Four principal components of 8 x 8 patches, and a decoder trained to draw them."""
    vae: Any = autoencoder.build(pixels[:240], SIDE, CHANNELS)
    mean, _ = autoencoder.moments(vae, pixels)
    autoencoder.set_statistics(vae, mean)
    vae.decoder.to(memory_format=torch.channels_last)

    def step_of(step: int) -> Step:
        return autoencoder.decoder_step(vae, pixels, mean, CROP, 8, 0, step)

    optimise("decoder", vae.decoder, steps, 1.5e-3, step_of)
    vae.decoder.to(memory_format=torch.contiguous_format)
    return vae.eval()


def image_tower() -> nn.Module:
    """(N, 4, 16, 16) -> (N, 64)."""
    widths, layers = (CHANNELS, 64, 64, 96, 128, 128), []
    for (before, after), stride in zip(itertools.pairwise(widths), (1, 1, 2, 1, 2), strict=True):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, TEXT_WIDTH))


def train_clip(latents: Tensor, captions: list[str], steps: int) -> tuple[Any, Any]:
    """Text tower and tokenizer, trained with a small image tower by CLIP's contrastive loss."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tokenizer = vocabulary.clip_tokenizer(captions)
    ids = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").input_ids
    tower = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_BLOCKS, num_attention_heads=4, projection_dim=TEXT_WIDTH,
            max_position_embeddings=ids.shape[1], bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    images, scale = image_tower(), nn.Parameter(torch.tensor([math.log(10.0)]))
    latents = (latents - latents.mean((0, 2, 3), True)) / latents.std((0, 2, 3), keepdim=True)

    def step_of(step: int) -> Step:
        draw = generator(0, "clip", step)
        chosen = torch.randint(len(latents), (128,), generator=draw)
        shown = latents[chosen] + 0.1 * torch.randn(128, *latents.shape[1:], generator=draw)
        shown = shown.flip(3) if step % 2 else shown
        seen = functional.normalize(images(shown), dim=1)
        said = functional.normalize(tower(input_ids=ids[chosen]).text_embeds, dim=1)
        scores, own = seen @ said.T * scale.exp().clamp(max=100), torch.arange(128)
        loss = functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)
        return Step(loss / 2, [str(index) for index in chosen.tolist()])

    both = nn.ModuleDict({"text": tower, "images": images})
    both.register_parameter("scale", scale)
    optimise("clip", both, steps, 1e-3, step_of)
    return tower.eval(), tokenizer


@torch.no_grad()
def judge(vae: Any, tower: Any, tokenizer: Any, pixels: Tensor, texts: list[str]) -> None:
    """Print what is left of each attribute in reconstructions and in text embeddings."""
    from scipy.stats import spearmanr
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    drawn = torch.cat(
        [
            vae.decode(vae.encode(autoencoder.unit(part)).latent_dist.mode()).sample
            for part in pixels.split(20)
        ]
    )
    shown = ((drawn.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = control.agreement(texts, [control.values(measure(image)) for image in shown])
    ids = tokenizer(
        texts, padding=True, truncation=True, max_length=tower.config.max_position_embeddings,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    embedded = tower(input_ids=ids).text_embeds.numpy()
    for name, level in control.ATTRIBUTES.items():
        asked = np.array([np.nan if level(text) is None else level(text) for text in texts], float)
        known = np.isfinite(asked)
        read = cross_val_predict(RidgeCV(np.logspace(-3, 3, 7)), embedded[known], asked[known])
        said = spearmanr(read, asked[known]).statistic
        drawn_as_asked = found[name].get("reason") or f"{found[name]['value']:.2f}"
        print(
            f"{name}: Spearman's rho of captions and what their embeddings tell {said:.2f}, of "
            f"captions and reconstructions {drawn_as_asked}"
        )


def main() -> None:
    """Train both and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--captions", type=Path, default=Path("captions"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--decoder-steps", type=int, default=1000)
    parser.add_argument("--clip-steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pixels, captions = training_images(arguments.corpus, arguments.captions)
    kept = len(pixels) - JUDGED
    vae = train_autoencoder(pixels[:kept], arguments.decoder_steps)
    vae.save_pretrained(arguments.output / "autoencoder")
    print(f"{autoencoder.psnr(vae, pixels[kept:]):.1f} dB of images that neither has seen")
    latents, _ = autoencoder.moments(vae, pixels[:kept])
    tower, tokenizer = train_clip(latents, captions[:kept], arguments.clip_steps)
    tower.save_pretrained(arguments.output / "clip" / "text_encoder")
    tokenizer.save_pretrained(arguments.output / "clip" / "tokenizer")
    judge(vae, tower, tokenizer, pixels[kept:], captions[kept:])


if __name__ == "__main__":
    main()
