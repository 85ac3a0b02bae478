"""Parameters of the stages `backbone`, `finetune` and `synthesize`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dermaflux.params.fields import Count, OpenFraction, Positive, Scale, Section


class Tiny(Section):
    """Training of the few-million-parameter FluxPipeline that stands in for FLUX.1-dev."""

    images: Count = 1200
    """Rendered lesions, drawn from a stream the corpus does not use."""
    autoencoder_steps: Count = 700
    autoencoder_batch: Count = 8
    autoencoder_learning_rate: Positive = 2e-3
    autoencoder_crop: Annotated[int, Field(ge=32, multiple_of=8)] = 64
    """Side of the training crops in pixels."""
    minimum_psnr: Positive = 27.0
    """Reconstruction quality in dB below which the flow is not trained."""
    flow_steps: Count = 1000
    flow_batch: Count = 16
    flow_learning_rate: Positive = 1e-3


class Backbone(Section):
    """The text-to-image model that is adapted: a diffusers repository."""

    repository: str = "tiny"
    """`tiny` (trained here), a hub id such as `black-forest-labs/FLUX.1-dev`, or a folder."""
    revision: str | None = None
    """Commit of the hub repository; needed for a hub id, so that a run can be repeated."""
    tiny: Tiny = Tiny()


BaseDtype = Literal["fp32", "bf16", "fp8", "nf4"]


class Finetune(Section):
    """Rectified-flow LoRA (paper section 2.2)."""

    imported: str | None = None
    """A finished LoRA instead of training: a safetensors file in diffusers' or kohya's names, or a
    hub id such as `StathisGln/DermaFlux`."""
    imported_revision: str | None = None
    """Commit of that hub repository."""
    targets: Literal["attention", "all-linear"] = "attention"
    """`attention` is the paper's text, `all-linear` what its released weights hold."""
    rank: Count = 16
    alpha: Positive = 16.0
    steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps; 0 means `epochs` decides."""
    epochs: Count = 1
    batch_tokens: Annotated[int, Field(ge=64)] = 8192
    """Image and text tokens of one micro-batch, padding included: what fills the device. An image
    of 128 pixels has 64 tokens, of 256 pixels 256, of 512 pixels 1,024."""
    micro_batches: Count = 1
    """Micro-batches per optimiser step over all processes, a multiple of their number: results do
    not depend on how many processes share them."""
    learning_rate: Positive = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    maximum_gradient_norm: Positive = 1.0
    ema_decay: OpenFraction | None = None
    """Decay of the exponential moving average of the adapter, which is then what is saved; null
    saves the last step's weights."""
    guidance: Annotated[float, Field(ge=0.0)] = 1.0
    """Guidance fed to the embedding while training. FLUX.1-dev was distilled from a guided teacher
    and takes the guidance as an input; training images are unguided, which is what 1.0 stands for,
    and sampling at 3.5 then asks for the teacher's sharpening on top. Training at 3.5 would teach
    the model to answer 3.5 with unguided images. Backbones without that input ignore it."""
    timestep_density: Literal["uniform", "logit-normal"] = "logit-normal"
    text_policy: Literal["trim", "pad512"] = "trim"
    """T5 length of a prompt, in training and sampling alike: `trim` rounds up to 16 tokens,
    `pad512` pads to 512 as the authors' released weights expect."""
    scales: list[Scale] = [128, 256, 512]
    """Training scales in pixels; images of other scales are left out and counted."""
    maximum_images: Annotated[int, Field(ge=0)] = 0
    """Training images taken, class-balanced; 0 means all."""
    base_dtype: BaseDtype = "fp32"
    """How the frozen base is held: bf16 on 80 GB cards, fp8 or nf4 (Linear weights) on 24 to 48 GB;
    adapter and optimiser are fp32 always."""
    gradient_checkpointing: Literal["auto", "none", "full"] = "auto"
    """`auto` recomputes as few blocks as the memory plan needs."""
    compile: bool = False
    """Compile the transformer block by block, one static shape per bucket."""
    text_cache: bool = False
    """Encode all captions once, to disk, and train without the text encoders: for small cards."""
    validation_images: Annotated[int, Field(ge=0)] = 64
    """Images of the validation split for the held-out loss; 0 switches it off."""
    validation_steps: Count = 200
    """Steps between two held-out losses."""
    log_steps: Count = 20
    """Steps between two printed lines and MLflow points."""
    checkpoint_steps: Count = 100
    grid_steps: Count = 200
    """Steps between grids of images from fixed prompts."""


class Synthesize(Section):
    """Sampling with the flow ODE (paper section 2.2: 20 steps), or a folder of released images."""

    folder: str | None = None
    """For `generator: folder`: images in folders called benign and malignant, or a Parquet file."""
    images: Annotated[int, Field(ge=2, multiple_of=2)] = 600
    """Size of the synthetic pool, half benign and half malignant."""
    steps: Count = 20
    guidance: Annotated[float, Field(ge=0.0)] = 3.5
    scale: Scale = 128
    batch: Count = 16
    """Images sampled together; all of one text length."""
    bank: Literal["captions", "held_out", "label"] = "captions"
    """Prompts: `captions` trained with, `held_out` ones of training images, or the paper's
    label-only sentence."""
    base_dtype: BaseDtype | None = None
    """null: as in training."""
    compile: bool = False
    """Compile the transformer block by block, one static shape per bucket."""
    shard_images: Count = 500
    """Images per Parquet shard; processes share the work shard by shard."""
