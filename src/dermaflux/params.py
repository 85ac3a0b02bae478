"""Typed parameters: the schema of ``params.yaml`` and of every file in ``profiles/``.

One section per stage, named as the stage. Unknown keys, wrong types and impossible values are
refused with one sentence before any work starts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Scale = Literal[128, 256, 512]
Licence = Literal["CC0", "CC-BY", "CC-BY-NC", "CC-BY-NC-ND", "research-only", "own"]
Modality = Literal["dermoscopic", "clinical", "tile"]
# YAML has no tuples, and strict validation would refuse a list for one.
FractionRange = Annotated[tuple[Fraction, Fraction], Field(strict=False)]


class Section(BaseModel):
    """A frozen group of parameters that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OwnColumns(Section):
    """Names of the columns in a team's own CSV file; null where it has no such column."""

    image: str
    """File name, with or without suffix, or path below the folder."""
    label: str
    lesion_id: str | None = None
    patient_id: str | None = None
    diagnosis: str | None = None
    skin_tone: str | None = None
    """Fitzpatrick type, I to VI or 1 to 6."""
    split: str | None = None
    """`train` or `test`."""
    licence: str | None = None
    """A licence such as CC-BY, where images differ."""


class Own(Section):
    """A team's own images: a folder tree, with or without a CSV file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Prefix of the image ids."""
    folder: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    """Name of a folder directly in the data folder."""
    csv: str | None = None
    """CSV file in that folder; without it, folder names give the labels."""
    columns: OwnColumns | None = None
    labels: dict[str, Literal["benign", "malignant", "indeterminate"]] = {}
    """What other words for a label mean, such as `naevus: benign`; case does not matter."""
    licence: Licence = "own"
    modality: Modality = "dermoscopic"
    split: Literal["train", "test"] = "train"
    """Part of images for which neither a folder called `test` nor the CSV file says otherwise."""
    scale: Scale = 512
    """Bucket in pixels where each dataset has one."""

    @model_validator(mode="after")
    def _csv_has_columns(self) -> Own:
        if (self.csv is None) != (self.columns is None):
            raise ValueError(
                f"ingest.own {self.name!r} has only one of csv and columns; give both or neither"
            )
        return self


class Ingest(Section):
    """Downloads to audited table (paper section 2.1)."""

    sources: list[str] = []
    """Adapters to read; empty means every dataset found in the data folder."""
    own: list[Own] = []
    """A team's own images, read beside the published datasets."""
    policy: Literal["clean", "as_published"] = "clean"
    """`as_published` repeats the paper's corpus, `clean` the one below; both are counted."""
    minimum_side: Annotated[int, Field(ge=1)] = 128
    """`clean`: shorter native side in pixels below which an image is quarantined (section 2.1)."""
    indeterminate: Literal["drop", "benign", "malignant"] = "drop"
    """`clean`: what becomes of diagnoses that are neither, such as actinic keratosis."""
    duplicates: Literal["drop", "keep"] = "drop"
    """`clean`: one image of each duplicate group; `keep` only guards the test split."""
    licences: list[Licence] = []
    """Only images under these licences; empty means all. [CC0, CC-BY] allows commercial use."""
    executor: Literal["loky", "dask", "ray"] = "loky"
    """Who decodes: processes of this machine, or a cluster; changes no byte of the corpus."""
    duplicate_correlation: Annotated[float, Field(ge=0.3, le=1)] = 0.5
    """Smallest correlation of fine detail between images of one photograph; lower finds more."""
    validation_fraction: OpenFraction = 0.15
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    shard_megabytes: Positive = 64.0


class TokenPrice(Section):
    """Price of a million tokens, in whatever currency."""

    prompt: Annotated[float, Field(ge=0.0)] = 0.0
    completion: Annotated[float, Field(ge=0.0)] = 0.0


class Caption(Section):
    """One caption per image (paper section 2.1, Figure 2)."""

    captioner: Literal["measured", "label", "llama", "visual_attributes", "imported"] = "measured"
    """`llama` asks DermaFlux's question, `visual_attributes` VAP-Diffusion's three."""
    model: str = "meta-llama/Llama-3.2-11B-Vision-Instruct"
    """Hub id or folder in process; at an endpoint the name its `/models` lists."""
    revision: str | None = None
    """Commit of the hub repository; at an endpoint only part of what answers are kept under."""
    route: Literal["in_process", "endpoint"] = "in_process"
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")] = "http://127.0.0.1:8000/v1"
    """Address of an OpenAI-compatible server, up to and with `/v1`; holds no key."""
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Name of the environment variable with the key; a server without keys needs none."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight at the endpoint."""
    maximum_tokens: Count = 256
    """Length in tokens at which an answer is cut off."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    batch: Count = 8
    """Images per forward pass in process."""
    precision: Literal["fp32", "bf16"] = "bf16"
    timeout_seconds: Positive = 120.0
    """Time for one answer of the endpoint."""
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    """Further attempts after 429, 5xx, a timeout or a cut connection."""
    token_budget: Count | None = None
    """Prompt and completion tokens one run may spend; what they bought is kept."""
    shard_images: Count = 2000
    """Images after which captions are written down, so that a killed run continues there."""
    imported: str | None = None
    """File with captions, for the captioner `imported`."""
    held_out_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of captions that training never sees, for generation from unseen descriptions."""
    price_per_million_tokens: TokenPrice = TokenPrice()
    """For `dermaflux caption --estimate`."""

    @model_validator(mode="after")
    def _imported_has_a_file(self) -> Caption:
        if self.captioner == "imported" and self.imported is None:
            raise ValueError(
                "captioner 'imported' needs the file with the captions; set caption.imported"
            )
        return self


class Validate(Section):
    """Limits of the Great Expectations suites."""

    minimum_side: Count = 128
    """Smallest published shorter side in pixels."""
    malignant_fraction: dict[Literal["train", "validation", "test"], FractionRange] = {
        "train": (0.01, 0.6),
        "validation": (0.01, 0.6),
        "test": (0.05, 0.7),
    }
    """Smallest and largest share of malignant images per split."""
    source_malignant_fraction: dict[str, FractionRange] = {}
    """The same per dataset, by name, where the corpus holds it: labels read the wrong way round."""
    caption_characters: Annotated[tuple[Count, Count], Field(strict=False)] = (20, 1200)
    """Shortest and longest caption that is not flagged."""
    caption_fault_fraction: Fraction = 0.02
    """Largest share of captions with any one fault of the quality gate."""
    caption_repeated_fraction: Fraction = 0.1
    """Largest share of captions a model wrote that are word for word those of another image."""


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


class Finetune(Section):
    """Rectified-flow LoRA (paper section 2.2)."""

    targets: Literal["attention", "all-linear"] = "attention"
    rank: Count = 16
    alpha: Positive = 16.0
    steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps; 0 means `epochs` decides."""
    epochs: Count = 1
    batch: Count = 8
    learning_rate: Positive = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    maximum_gradient_norm: Positive = 1.0
    guidance: Annotated[float, Field(ge=0.0)] = 1.0
    """Guidance value fed to the embedding while training; see `generators.lora`."""
    timestep_density: Literal["uniform", "logit-normal"] = "logit-normal"
    text_tokens: Annotated[int, Field(ge=8, le=512)] = 512
    """T5 sequence length in tokens, padded; the same in training and sampling."""
    scales: list[Scale] = [128, 256, 512]
    """Training scales in pixels; images of other scales are left out and counted."""
    maximum_images: Annotated[int, Field(ge=0)] = 0
    """Training images taken, class-balanced; 0 means all."""
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    checkpoint_steps: Count = 100
    grid_steps: Count = 200
    """Steps between grids of images from fixed prompts."""


class Synthesize(Section):
    """Sampling with the flow ODE (paper section 2.2: 20 steps)."""

    images: Annotated[int, Field(ge=2, multiple_of=2)] = 600
    """Size of the synthetic pool, half benign and half malignant."""
    steps: Count = 20
    guidance: Annotated[float, Field(ge=0.0)] = 3.5
    scale: Scale = 128
    batch: Count = 16
    bank: Literal["captions", "held_out", "label"] = "captions"
    """Prompts: `captions` trained with, `held_out` ones of training images, or the paper's
    label-only sentence."""
    shard_megabytes: Positive = 64.0


class Audit(Section):
    """Checks on synthetic images before any classifier sees them."""

    memorisation_ratio: OpenFraction = 0.5
    """An image is rejected as memorised when its nearest training image is closer than this ratio
    of the distance that training images keep from each other; see `audit.memorisation`."""
    features: str = "pixels"
    """`pixels`, or a folder with SqueezeNet weights in safetensors."""


class Model(Section):
    """A timm model and how it is trained."""

    name: str
    """timm model name."""
    pretrained: bool = False
    learning_rate: Positive
    options: dict[str, Any] = {}
    """Keyword arguments of `timm.create_model`."""


class Train(Section):
    """Classifiers on controlled mixtures (paper section 3)."""

    architectures: Annotated[list[str], Field(min_length=1)]
    """Names of `models` to train; the DVC matrix runs over these and `seeds`."""
    seeds: Annotated[list[int], Field(min_length=1)]
    arms: list[Literal["real", "mixture"]] = ["real", "mixture"]
    """`mixture` adds ratio x n_real synthetic images to the real ones; `real` adds none."""
    models: dict[str, Model]
    image_size: Annotated[int, Field(ge=16)] = 224
    epochs: Count = 40
    batch: Count = 32
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    augmentation: Literal["none", "flips", "flips-colour"] = "flips-colour"
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _models_exist(self) -> Train:
        for name in self.architectures:
            if name not in self.models:
                known = ", ".join(sorted(self.models))
                raise ValueError(f"architecture {name!r} has no entry in train.models ({known})")
        for values in (self.architectures, self.seeds, self.arms):
            if len(set(values)) != len(values):
                raise ValueError(f"{values} names one entry twice; name each once")
        return self


class Evaluate(Section):
    """Figures on the held-out test split."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    confidence: OpenFraction = 0.95
    specificities: list[OpenFraction] = [0.9, 0.95]
    """Specificities at which sensitivity is reported."""
    batch: Count = 128


class Promote(Section):
    """MLflow registry."""

    architecture: str = "vit"
    """Only cells of this architecture are candidates."""
    model_name: str = "lesion-vit"
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    confidence: OpenFraction = 0.95


class Report(Section):
    """The HTML report."""

    grid_images: Annotated[int, Field(ge=2, le=64)] = 16
    """Images per class in the real and synthetic grids."""


class Params(Section):
    """Everything that decides a run."""

    data: str = "data"
    """Folder with the datasets in their published layouts."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    n_real: Annotated[int, Field(ge=0, multiple_of=2)]
    """Real training images, half benign and half malignant."""
    ratio: Annotated[float, Field(ge=0.0)]
    """Synthetic images per real image (paper section 3.2: ratio 1:x)."""
    n_synthetic: Annotated[int, Field(ge=0)] | None = None
    """Synthetic images instead of ratio x n_real; needed when n_real is 0 (the paper's 0:1)."""
    ingest: Ingest
    caption: Caption
    validate_: Validate = Field(alias="validate")
    backbone: Backbone
    finetune: Finetune
    synthesize: Synthesize
    audit: Audit
    train: Train
    evaluate: Evaluate
    promote: Promote
    report: Report

    @property
    def synthetic_wanted(self) -> int:
        """Synthetic images of the `mixture` arm; an odd one out is benign (the paper's 4,375)."""
        if self.n_synthetic is not None:
            return self.n_synthetic
        return int(self.ratio * self.n_real + 0.5)

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.synthetic_wanted > self.synthesize.images:
            raise ValueError(
                f"ratio {self.ratio:g} x n_real {self.n_real} needs {self.synthetic_wanted} "
                f"synthetic images but synthesize.images is {self.synthesize.images}; lower the "
                "ratio or raise synthesize.images"
            )
        if self.promote.architecture not in self.train.architectures:
            raise ValueError(
                f"promote.architecture {self.promote.architecture!r} is not one of "
                f"train.architectures {self.train.architectures}; name one of them"
            )
        if self.n_real == 0 and "real" in self.train.arms:
            raise ValueError(
                "n_real 0 leaves the arm 'real' without images; set train.arms to [mixture] and "
                "n_synthetic to the number wanted"
            )
        return self
