"""Parameters of this generator: the sections `finetune.latent_ddpm` and `synthesize.latent_ddpm`.

Defaults are DerMAE's (arXiv 2602.19848, section 2.1) where it states them, marked `published`; the
others are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dermaflux.core import hub
from dermaflux.errors import quoted
from dermaflux.generators.data.options import (
    BACKBONE,
    TIMESTEPS,
    Beta,
    Prediction,
    SamplerName,
    check_batch,
    check_betas,
    check_conditions,
    check_sampler,
    check_scale,
)
from dermaflux.generators.latent_ddpm.model.options import DECODER, GENERATOR
from dermaflux.params.fields import (
    Batch,
    Count,
    Fraction,
    GeneratorSettings,
    Guidance,
    LearningRate,
    LessMemory,
    OpenFraction,
    Optimisation,
    PathText,
    Scale,
    Text,
)

if TYPE_CHECKING:
    from dermaflux.params.runtime import Runtime

Channels = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]


class Finetune(Optimisation):
    """A U-Net trained from random weights; published: Adam, 1e-4, MSE and a perceptual term."""

    latents: PathText = BACKBONE
    """Autoencoder: `backbone` (that of models/backbone/), a folder that diffusers saved with an
    AutoencoderKL or AutoencoderTiny, or a hub id of one. The paper does not name its own; 4x32x32
    of Stable Diffusion's is ours for its profile."""
    latents_revision: Text | None = None
    """Commit of that hub repository."""
    scale: Scale = 256
    """Side in pixels to which all training images are resized, and the only one that can be
    sampled; published: 256. `finetune.scales` still chooses the images."""
    condition: Literal["malignancy", "diagnosis"] = "malignancy"
    """Classes that get an embedding. One more stands for no class, so that one model also samples
    unconditionally; an image without a diagnosis trains that one."""
    label_drop: Fraction = 0.1
    """Fraction of training images shown without their class, for guidance."""
    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)] = [
        128, 256, 512, 512,
    ]  # fmt: skip
    """Channels of the U-Net's levels, the finest first; with the next two 108 million parameters
    at 4x32x32 (ours: the paper gives no sizes)."""
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    attention_levels: Annotated[int, Field(ge=0, le=8)] = 3
    """Coarsest levels that have self-attention."""
    prediction: Prediction = "epsilon"
    """What the U-Net predicts: `epsilon`, the noise (published), `v` (Salimans and Ho 2022) or
    `flow`, the velocity of a straight path, which needs far fewer steps."""
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    """Ends of the linear schedule of T = 1000 steps (linear and T published; ends of Ho et al.
    2020); not used by `flow`."""
    min_snr_gamma: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Loss weights of Hang et al. 2023; null (published): each time weighs the same."""
    perceptual_weight: Annotated[float, Field(ge=0.0, le=1e6)] = 0.1
    """Lambda of equation 3; 0 is exactly equation 2. The value is ours."""
    perceptual_features: PathText | None = DECODER
    """`decoder`: the autoencoder's decoder (arXiv 2411.04873); or a folder with `model.safetensors`
    of SqueezeNet, AlexNet or VGG-16 under torchvision's names and, for LPIPS, `lpips.pth` with its
    linear heads. The paper cites Johnson et al. 2016 and names no network."""
    perceptual_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.125
    """Part of each micro-batch on which the perceptual term is computed; decoding is expensive."""
    perceptual_snr: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    """Signal-to-noise ratio below which the term is 0: there the predicted image is a guess, and
    for `epsilon` its error is multiplied by up to 157."""
    batch: Batch = 64
    """Images per optimiser step, over all processes; ours."""
    micro_batches: Batch = 1
    """Parts in which a batch is computed, a multiple of the number of processes: results do not
    depend on how many processes share them."""
    learning_rate: LearningRate = 1e-4
    """Published."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """0 makes AdamW Adam, as published."""
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    ema_decay: OpenFraction | None = 0.9999
    """Decay of the exponential moving average of the weights, which is then what is saved; ours."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward passes under autocast. Slower than fp32 on CPUs without bf16 units."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """Every value decides weights or their rounding, so none continues a run."""
        return LessMemory(
            "",
            "raise finetune.latent_ddpm.micro_batches, lower finetune.latent_ddpm.batch, or set "
            "finetune.latent_ddpm.precision to bf16",
        )

    def input_paths(self) -> dict[str, str | None]:
        """Autoencoder and perceptual network, where they are not the backbone's."""
        features = self.perceptual_features if self.perceptual_weight else None
        return {
            "latents": None if self.latents == BACKBONE else self.latents,
            "perceptual_features": None if features == DECODER else features,
        }

    def check_chosen(self) -> None:
        """Raise `ValueError` for values that contradict each other."""
        if self.perceptual_weight and self.perceptual_features is None:
            raise ValueError(
                f"finetune.latent_ddpm.perceptual_weight is {self.perceptual_weight:g} and "
                "perceptual_features is null; set perceptual_features to decoder or a folder, or "
                "perceptual_weight to 0"
            )
        check_betas(GENERATOR, "linear", self.beta_start, self.beta_end, self.prediction)
        if self.attention_levels > len(self.block_out_channels):
            raise ValueError(
                f"finetune.latent_ddpm.attention_levels is {self.attention_levels} and "
                f"block_out_channels has {len(self.block_out_channels)} levels; lower the first"
            )
        check_batch(GENERATOR, self.batch, self.micro_batches)

    def check_inputs(self) -> None:
        """Raise `ValueError` where a folder is not there, or a hub id has no revision."""
        here = self.latents == BACKBONE or Path(self.latents).is_dir()
        if not here and self.latents_revision is None:
            place = "finetune.latent_ddpm.latents"
            raise ValueError(hub.unpinned(place, self.latents, f"{place}_revision"))
        features = self.input_paths()["perceptual_features"]
        if features is not None and not Path(features).is_dir():
            raise ValueError(
                f"finetune.latent_ddpm.perceptual_features {quoted(features)} is neither decoder "
                "nor a folder; correct the path"
            )


class Synthesize(GeneratorSettings):
    """Sampling; published: the stochastic sampler of Ho et al. 2020 with all 1000 steps."""

    unconditional: ClassVar[bool] = True
    sampler: SamplerName = "ddpm"
    """`ddpm` (published), `ddim` (Song et al. 2021, deterministic) or `dpm_solver` (DPM-Solver++ of
    order 2, Lu et al. 2022) for `epsilon` and `v`; `euler` for `flow`."""
    steps: Count = TIMESTEPS
    """Evaluations of the U-Net; at most 1000 but for `euler`, and for `ddim` a divisor of 1000."""
    guidance: Guidance = 1.5
    """Classifier-free guidance: unconditional + guidance x (conditional - unconditional). 1 has no
    second pass; ours."""
    clip_sample_range: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Limit on the predicted clean latents, in standard deviations of the training latents. A
    barely trained `epsilon` model needs about 2.5; null (published): none."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """The batch decides how kernels round, so a smaller one begins the pool anew."""
        return LessMemory("", "lower synthesize.batch")

    def check_trained(
        self, trained: GeneratorSettings, scale: int, conditions: str, prompt_source: str
    ) -> None:
        """Raise `ValueError` for a sampler of another prediction, other classes or scale."""
        assert isinstance(trained, Finetune)
        check_conditions(GENERATOR, conditions, trained.condition)
        check_sampler(GENERATOR, self.sampler, self.steps, trained.prediction)
        check_scale(GENERATOR, scale, trained.scale)
