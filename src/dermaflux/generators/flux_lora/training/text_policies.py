"""Which text policy, `trim` or `pad512`, suits the backbone: its held-out loss with either.

`dermaflux compare-text-policies` trains nothing. The unadapted backbone sees the same held-out
images, noise and times with both values of `prompt_padding`; every image weighs the same, and its
two losses are compared with each other. Losses of two trained adapters would differ by the number
of their steps and by what an image weighs in them, too. Reads corpus/, captions/ and
models/backbone/; writes the cache of latents, and a JSON file where one is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from dermaflux import paths
from dermaflux.core.arrays import Array
from dermaflux.core.devices import automatic_device, device_name, require_gpu
from dermaflux.core.distributed import Processes
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.generators.data import images as training_images
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText
from dermaflux.generators.flux_lora.settings import Finetune
from dermaflux.generators.flux_lora.training.data import arrange
from dermaflux.generators.flux_lora.training.held_out import held_out_loss

if TYPE_CHECKING:
    from dermaflux.params import Params

PADDINGS: tuple[PromptPadding, ...] = get_args(PromptPadding)
CONFIDENCE = 0.95
TOLERANCE = 0.01
"""Share of the loss of `pad512` by which that of `trim` may be higher."""
_FEWEST = 8  # images of which an interval says anything


@dataclass(frozen=True)
class Difference:
    """Loss of `trim` minus that of `pad512`, of images of one scale or of all."""

    images: int
    trim: float
    """Mean squared error of the velocity, over images and times."""
    pad512: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference, by Student's t over the images' own differences."""


def run(params: Params, output: Path | None) -> None:
    """Print the losses and what they recommend.

    Raises `InputError` where held-out images, the backbone or the device are missing.
    """
    section = params.finetune
    try:
        settings = section.settings("flux_lora")
    except ValueError as error:
        raise InputError(str(error)) from None
    assert isinstance(settings, Finetune)
    held_out = training_images.read(section, params.seed, paths.CORPUS, paths.CAPTIONS).held_out
    if len(held_out) < _FEWEST:
        raise InputError(
            f"finetune.validation_images leaves {len(held_out)} held-out images, fewer than the "
            f"{_FEWEST} that a comparison takes; raise it, or give the split validation more"
        )
    device = automatic_device()
    transformer = pipeline.on_meta(paths.BACKBONE)["transformer"]
    count = sum(parameter.numel() for parameter in transformer.parameters())
    require_gpu("the transformer of backbone.repository", count, device)
    print(f"{len(held_out):,} held-out images on {device_name(device)}", flush=True)
    pipe = pipeline.load(paths.BACKBONE, settings.base_dtype, device)
    found = losses(pipe, held_out, settings, params.seed, paths.CORPUS, paths.BACKBONE)
    rows = differences(found, [sample.scale for sample in held_out])
    verdict = recommendation(rows["all"])
    print(f"{table(rows)}\n{verdict}", flush=True)
    if output is not None:
        content = {name: asdict(row) for name, row in rows.items()}
        origin = pipeline.reference(paths.BACKBONE).identity
        write_json(output, {"backbone": origin, **content, "recommendation": verdict})


def losses(
    pipe: Any,
    held_out: Sequence[Sample],
    settings: Finetune,
    seed: int,
    corpus: Path,
    backbone: Path,
) -> dict[PromptPadding, Array]:
    """Loss of each image with each padding, (N,), at the same eight times and noise.

    `pipe` is the FluxPipeline of the folder `backbone`.
    """
    processes = Processes(device=pipe.device)
    latents, text = Latents(pipe.vae, corpus, held_out), ResidentText(pipe)
    tokenizers, chosen = pipeline.tokenizers(backbone), list(held_out)
    images = TrainingImages(chosen, chosen, 0, 0)
    found: dict[PromptPadding, Array] = {}
    for padding in PADDINGS:
        one = settings.model_copy(update={"prompt_padding": padding})
        data = arrange(one, seed, images, tokenizers)
        loss = held_out_loss(pipe.transformer, data, latents, text, one, processes)
        found[padding] = np.array(loss.by_image())
    return found


def differences(
    found: Mapping[PromptPadding, Array], scales: Sequence[int]
) -> dict[str, Difference]:
    """By scale in pixels with at least two images, and `all`."""
    from scipy import stats

    each, rows = np.array(scales), {}
    groups = {str(scale): each == scale for scale in sorted(set(scales))}
    for name, chosen in {**groups, "all": each > 0}.items():
        trim, padded = found["trim"][chosen], found["pad512"][chosen]
        if len(trim) < 2:
            continue
        paired = trim - padded
        low, high = stats.ttest_1samp(paired, 0).confidence_interval(CONFIDENCE)
        rows[name] = Difference(
            len(trim), float(trim.mean()), float(padded.mean()), float(paired.mean()),
            float(low), float(high),
        )  # fmt: skip
    return rows


def table(rows: Mapping[str, Difference]) -> str:
    """Lines to print."""
    lines = [
        f"{'pixels':>6} {'images':>7} {'trim':>8} {'pad512':>8}  trim - pad512 (95 % interval)"
    ]
    lines += [
        f"{name:>6} {row.images:>7,} {row.trim:>8.4f} {row.pad512:>8.4f}  "
        f"{row.difference:+.5f} ({row.low:+.5f} to {row.high:+.5f})"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def recommendation(row: Difference) -> str:
    """What the interval says about `finetune.flux_lora.prompt_padding`, in one sentence."""
    limit = TOLERANCE * row.pad512
    bound = f"{TOLERANCE:.0%} of the loss of pad512 ({limit:.5f})"
    name = "finetune.flux_lora.prompt_padding"
    if row.high <= limit:
        return f"the interval ends below {bound}: {name} trim costs less and is no worse"
    if row.low > limit:
        return f"the interval begins above {bound}: keep {name} pad512"
    return f"the interval holds {bound}: undecided; raise finetune.validation_images"
