"""Parameters of the stage `audit`: what is rejected, and in which features images are compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dermaflux.errors import quoted
from dermaflux.params.fields import CountOrZero, OpenFraction, PathText, Section, Side, Text


class Audit(Section):
    """Checks on synthetic images before any classifier sees them."""

    memorisation_ratio: OpenFraction = 0.5
    """An image is rejected as memorised when its nearest training image is closer than this ratio
    of the distance that training images keep from each other; see `memorisation.distance_ratio`."""
    duplicate_correlation: Annotated[float, Field(ge=0.3, le=1)] = 0.5
    """An image is rejected as a copy when its fine detail correlates with that of a training image,
    turned, mirrored, cropped or shifted, at least so much: `ingest.duplicate_correlation` for
    synthetic images. 0.5 suits photographs; drawings are more alike. See `memorisation.copies`."""
    features: PathText = "pixels"
    """The trunk in whose features images are compared: `pixels`, `inception`, `timm:NAME`,
    `open_clip:NAME`, or a folder with SqueezeNet weights in safetensors; see `audit.trunks`."""
    weights: PathText | None = None
    """Weights of inception, timm or open_clip: a file, or for the latter two a hub id."""
    revision: Text | None = None
    """Commit of the hub repository; needed for a hub id, so that a run can be repeated."""
    image_size: Side | None = None
    """Side at which a model of timm sees images; null: its own."""

    control_images: CountOrZero = 1000
    """Synthetic images of each class, by the hash of their image_id, whose asymmetry, border and
    colours are measured and compared with their prompts; 15 to 25 ms of a core each. 0: none."""

    image_text: Text | None = None
    """A model of open_clip, by its name there, such as ViT-B-32, that says how well images go with
    their prompts; null: none."""
    image_text_weights: PathText | None = None
    """Its weights: a file, or a hub id."""
    image_text_revision: Text | None = None
    """Commit of the hub repository; needed for a hub id, so that a run can be repeated."""

    @property
    def trunk(self) -> str:
        """The feature space in one word, with its weights where there is a choice of them."""
        pinned = f"{self.weights}@{self.revision}" if self.revision else self.weights
        return f"{self.features} ({pinned})" if self.weights else self.features

    @model_validator(mode="after")
    def _weights_of_an_image_text_model(self) -> Audit:
        if (self.image_text is None) != (self.image_text_weights is None):
            raise ValueError(
                f"image_text is {quoted(self.image_text)} and image_text_weights "
                f"{quoted(self.image_text_weights)}; give both, or set both to null"
            )
        if self.image_text_revision is not None and self.image_text is None:
            raise ValueError(
                f"image_text_revision {quoted(self.image_text_revision)} pins no weights; set it "
                "to null"
            )
        return self

    @model_validator(mode="after")
    def _weights_of_a_trunk(self) -> Audit:
        kind, _, name = self.features.partition(":")
        named = kind in ("timm", "open_clip")
        if named and not name:
            raise ValueError(f"features {quoted(self.features)} names no model; write {kind}:NAME")
        if (named or self.features == "inception") != (self.weights is not None):
            raise ValueError(
                f"features {quoted(self.features)} needs weights; name a file"
                + (" or a hub id" if named else "")
                if self.weights is None
                else f"weights {quoted(self.weights)} are of no use to features "
                f"{quoted(self.features)}; set them to null"
            )
        if self.revision is not None and not named:
            raise ValueError(f"revision {quoted(self.revision)} pins no hub id; set it to null")
        if self.image_size is not None and kind != "timm":
            raise ValueError(
                f"image_size {self.image_size} is for models of timm and features are "
                f"{quoted(self.features)}, which have a size of their own; set it to null"
            )
        return self
