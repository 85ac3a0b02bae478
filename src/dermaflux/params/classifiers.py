"""Parameters of the stages `audit`, `train`, `evaluate`, `promote` and `report`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dermaflux.params.fields import Count, OpenFraction, Positive, Section


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
