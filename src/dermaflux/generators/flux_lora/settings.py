"""Parameters of this generator: the sections `finetune.flux_lora` and `synthesize.flux_lora`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dermaflux.generators.flux_lora.model.options import (
    BaseDtype,
    PromptPadding,
    Targets,
    TimestepDensity,
)
from dermaflux.params.fields import (
    Batch,
    GeneratorSettings,
    Guidance,
    LessMemory,
    Optimisation,
    PathText,
    Text,
)

if TYPE_CHECKING:
    from dermaflux.params.runtime import Runtime


class Finetune(Optimisation):
    """Rectified-flow LoRA (paper section 2.2)."""

    imported: PathText | None = None
    """A finished LoRA instead of training: a safetensors file of any common program, a folder with
    one, or a hub id such as `StathisGln/DermaFlux`."""
    imported_revision: Text | None = None
    """Commit of that hub repository."""
    targets: Targets = "attention"
    """`attention` is the paper's text, `all-linear` what its released weights hold."""
    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0
    batch_tokens: Annotated[int, Field(ge=64, le=10_000_000)] = 8192
    """Image and text tokens of one micro-batch, padding included: what fills the device. An image
    of 128 pixels has 64 tokens, of 256 pixels 256, of 512 pixels 1,024."""
    micro_batches: Batch = 1
    """Micro-batches per optimiser step over all processes, a multiple of their number: results do
    not depend on how many processes share them. With 1, an image weighs more the fewer of its
    bucket fit into a micro-batch; more of them even that out."""
    guidance: Guidance = 1.0
    """Guidance fed to the embedding while training. FLUX.1-dev was distilled from a guided teacher
    and takes the guidance as an input; training images are unguided, which is what 1.0 stands for,
    and sampling at 3.5 then asks for the teacher's sharpening on top. Training at 3.5 would teach
    the model to answer 3.5 with unguided images. Backbones without that input ignore it."""
    timestep_density: TimestepDensity = "logit-normal"
    prompt_padding: PromptPadding = "trim"
    """T5 length of a prompt, in training and sampling alike: `trim` rounds up to 16 tokens,
    `pad512` pads to 512 as the authors' released weights expect."""
    base_dtype: BaseDtype = "fp32"
    """How the frozen base is stored: bf16 on 80 GB cards, fp8 or nf4 (Linear weights) on 24 to
    48 GB; adapter and optimiser are fp32 always."""
    compile: bool = False
    """Compile the transformer block by block, one static shape per bucket; rounds differently."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """Recomputed blocks and cached text continue the run; a smaller batch or base does not."""
        section, changes = runtime.finetune, []
        if section.gradient_checkpointing != "full":
            changes.append("set runtime.finetune.gradient_checkpointing to full")
        if not section.text_cache:
            changes.append("set runtime.finetune.text_cache to true")
        return LessMemory(
            " or ".join(changes),
            "lower finetune.flux_lora.batch_tokens or set finetune.flux_lora.base_dtype to bf16, "
            "fp8 or nf4",
        )

    def input_paths(self) -> dict[str, str | None]:
        """The finished LoRA."""
        return {"imported": self.imported}


class Synthesize(GeneratorSettings):
    """Sampling with the flow ODE (paper section 2.2: 20 steps)."""

    reads_captions: ClassVar[bool] = True
    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    guidance: Guidance = 3.5
    base_dtype: BaseDtype | None = None
    """null: as in training."""
    compile: bool = False
    """Compile the transformer block by block, one static shape per bucket."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """Every value decides pixels or their rounding, so none continues a pool."""
        return LessMemory(
            "", "lower synthesize.batch or set synthesize.flux_lora.base_dtype to bf16, fp8 or nf4"
        )
