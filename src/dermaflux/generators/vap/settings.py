"""Parameters of this generator: the sections `finetune.vap` and `synthesize.vap`.

Defaults are VAP-Diffusion's (MICCAI 2025) as its paper or its released code has them, marked
`published` and `released`; the others are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dermaflux.core import hub
from dermaflux.generators.data.options import (
    BACKBONE,
    Beta,
    Prediction,
    SamplerName,
    check_batch,
    check_betas,
    check_conditions,
    check_sampler,
    check_scale,
)
from dermaflux.generators.vap.model.options import (
    GENERATOR,
    OPEN_CLIP,
    ReconstructionTarget,
    TextKind,
    Variant,
    check_heads,
    check_mechanism,
    check_prompts,
)
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


class Finetune(Optimisation):
    """A U-ViT trained from random weights on latents, classes and descriptions."""

    latents: PathText = BACKBONE
    """Autoencoder: `backbone` (that of models/backbone/), a folder that diffusers saved with an
    AutoencoderKL or AutoencoderTiny, or a hub id of one. Released: Stable Diffusion's, 4x32x32."""
    latents_revision: Text | None = None
    """Commit of that hub repository."""
    scale: Scale = 256
    """Side in pixels to which all training images are resized, and the only one that can be
    sampled; released: 256. `finetune.scales` still chooses the images."""
    condition: Literal["malignancy", "diagnosis"] = "malignancy"
    """Classes that get a token and prototypes; published: diagnoses. One more stands for no
    class."""
    text: TextKind = "captions"
    """What an image is described with: its caption (published), the sentence of its class, or
    nothing, which leaves a U-ViT with classes. The last two are ablations."""
    text_encoder: PathText = BACKBONE
    """Text tower: `backbone` (the CLIP of models/backbone/), a folder or hub id of a CLIP text
    encoder of transformers, or a folder or `hf-hub:` id that open_clip opens, such as BiomedCLIP
    (published)."""
    text_encoder_revision: Text | None = None
    """Commit of that hub repository."""
    label_drop: Fraction = 0.1
    """Fraction of training images shown without class and with the empty description instead of
    their own, both at once (released: 0.1)."""
    patch: Annotated[int, Field(ge=1, le=64)] = 2
    """Side of a patch in latents; released: 2."""
    width: Annotated[int, Field(ge=16, le=8192, multiple_of=2)] = 512
    depth: Annotated[int, Field(ge=2, le=128, multiple_of=2)] = 16
    """Blocks beside the middle one; released: 16, of width 512 with 8 heads."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    variant: Variant = "paper"
    """The prototype mechanism as the text describes it, or as the released code has it: no class
    token, features of the middle block, no self-attention, layers that do not start at zero."""
    prototypes: Annotated[int, Field(ge=0, le=65_536)] = 512
    """K, learned elements of each class; 0 leaves the mechanism out. Released: 512, twice the
    patches."""
    reconstruction_target: ReconstructionTarget = "detached"
    """Whether the features that prototypes reconstruct learn from that as well (`joint`, released),
    which lets them become easy instead; ours: `detached`."""
    alpha: Annotated[float, Field(ge=0.0, le=1e6)] = 1.0
    """Weight of the reconstruction in equation 3; released: 1."""
    prediction: Prediction = "epsilon"
    """What the U-ViT predicts: `epsilon`, the noise (published), `v` (Salimans and Ho 2022) or
    `flow`, the velocity of a straight path, which needs far fewer steps."""
    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    """Ends of the scaled-linear schedule of T = 1000 steps, Stable Diffusion's (released, at
    sampling); not used by `flow`."""
    batch: Batch = 256
    """Images per optimiser step, over all processes; released."""
    micro_batches: Batch = 1
    """Parts in which a batch is computed, a multiple of the number of processes: results do not
    depend on how many processes share them."""
    learning_rate: LearningRate = 2e-4
    """Released."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """AdamW; all three released."""
    ema_decay: OpenFraction | None = 0.9999
    """Decay of the exponential moving average of the weights, which is then what is saved;
    released."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward passes under autocast. Slower than fp32 on CPUs without bf16 units."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """Every value decides weights or their rounding, so none continues a run."""
        return LessMemory(
            "",
            "raise finetune.vap.micro_batches, lower finetune.vap.batch, or set "
            "finetune.vap.precision to bf16",
        )

    def input_paths(self) -> dict[str, str | None]:
        """Autoencoder and text tower, where they are not the backbone's."""
        tower = self.text_encoder if self.text != "none" else BACKBONE
        return {
            "latents": None if self.latents == BACKBONE else self.latents,
            "text_encoder": None if tower == BACKBONE else tower,
        }

    def check_chosen(self) -> None:
        """Raise `ValueError` for values that contradict each other."""
        check_heads(self.width, self.heads)
        check_mechanism(self.variant, self.prototypes, self.reconstruction_target)
        check_betas(GENERATOR, "scaled_linear", self.beta_start, self.beta_end, self.prediction)
        check_batch(GENERATOR, self.batch, self.micro_batches)

    def check_inputs(self) -> None:
        """Raise `ValueError` where a folder is not there, or a hub id has no revision."""
        revisions = {
            "latents": self.latents_revision,
            "text_encoder": self.text_encoder_revision,
        }
        for name, value in self.input_paths().items():
            if value is None or Path(value).is_dir() or revisions[name] is not None:
                continue
            place = f"finetune.vap.{name}"
            raise ValueError(
                hub.unpinned(place, value.removeprefix(OPEN_CLIP), f"{place}_revision")
            )


class Synthesize(GeneratorSettings):
    """Sampling; released: DPM-Solver with 50 evaluations."""

    unconditional: ClassVar[bool] = True
    reads_captions: ClassVar[bool] = True
    sampler: SamplerName = "dpm_solver"
    """`dpm_solver` (DPM-Solver++, multistep, Lu et al. 2022; released: DPM-Solver of order 3),
    `ddpm` or `ddim` for `epsilon` and `v`; `euler` for `flow`."""
    steps: Count = 50
    """Evaluations of the U-ViT; released: 50. At most 1000 but for `euler`, and for `ddim` a
    divisor of 1000."""
    solver_order: Annotated[int, Field(ge=1, le=3)] = 3
    """Of `dpm_solver`; released: 3."""
    guidance: Guidance = 2.0
    """Classifier-free guidance: unconditional + guidance x (conditional - unconditional). Released:
    2, which its code writes as 1 more than conditional. 1 has no second pass."""
    clip_sample_range: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Limit on the predicted clean latents, in standard deviations of the training latents;
    released: none."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """The batch decides how kernels round, so a smaller one begins the pool anew."""
        return LessMemory("", "lower synthesize.batch")

    def check_trained(
        self, trained: GeneratorSettings, scale: int, conditions: str, prompt_source: str
    ) -> None:
        """Raise `ValueError` for a sampler, classes, prompts or scale that it was not made for."""
        assert isinstance(trained, Finetune)
        check_conditions(GENERATOR, conditions, trained.condition)
        check_prompts(trained.text, prompt_source)
        check_sampler(GENERATOR, self.sampler, self.steps, trained.prediction)
        check_scale(GENERATOR, scale, trained.scale)
