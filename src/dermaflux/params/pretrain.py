"""Parameters of the stage `pretrain`, which learns from images without their labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dermaflux.params.fields import (
    Batch,
    Count,
    CountOrZero,
    FractionRange,
    LearningRate,
    Name,
    OpenFraction,
    Section,
)

_Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Pretrain(Section):
    """A masked autoencoder (He et al. 2022, arXiv 2111.06377; DerMAE, arXiv 2602.19848).

    Read by recipes of `train.recipe` that pre-train, others do nothing with it. The side of the
    images is `train.image_size`, so that the positions fit those of the classifier.
    """

    architecture: Name
    """The encoder: an entry of `train.models`, whose timm name and options give its patch, width,
    depth and heads, so that its weights fit that model."""
    images: Literal["real", "synthetic", "both"] = "both"
    """`real`: the whole training split; `synthetic`: the pool without what the audit rejected."""
    mask_ratio: OpenFraction = 0.75
    """Share of the patches that are hidden from the encoder."""
    norm_pix_loss: bool = False
    """Whether each patch is standardised before the squared error; DerMAE's equation 4 does not."""
    decoder_width: Annotated[int, Field(ge=4, le=8192, multiple_of=4)] = 512
    decoder_depth: Annotated[int, Field(ge=1, le=100)] = 8
    decoder_heads: Annotated[int, Field(ge=1, le=128)] = 16
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    batch: Batch = 256
    """Images of an optimiser step, over all processes."""
    learning_rate: LearningRate = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.05
    betas: Annotated[tuple[_Beta, _Beta], Field(strict=False)] = (0.9, 0.95)
    """Of AdamW."""
    warmup_epochs: CountOrZero = 5
    crop_area: FractionRange = (0.2, 1.0)
    """Smallest and largest share of the image that a random crop shows at full size, with a width
    to height of 3:4 to 4:3, half of them mirrored: torchvision's `RandomResizedCrop`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    probe_images: Count = 2000
    """Labelled training images of the linear probe, about as many, at least one of each class."""

    @model_validator(mode="after")
    def _fits(self) -> Pretrain:
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_heads {self.decoder_heads} does not divide decoder_width "
                f"{self.decoder_width}; choose heads that do, such as "
                f"{max(n for n in range(1, self.decoder_heads) if self.decoder_width % n == 0)}"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} is above epochs {self.epochs}, so training "
                "would end before its full learning rate; lower it or raise epochs"
            )
        if self.crop_area[0] <= 0:
            raise ValueError("crop_area starts at 0, a crop without pixels; start it at 0.2")
        return self
