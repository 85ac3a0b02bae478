"""Parameters of the stage `caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dermaflux.core import hub
from dermaflux.params.fields import Batch, PathText, Section, Text


class TokenPrice(Section):
    """Price of a million tokens, in whatever currency."""

    prompt: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    completion: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0


VISION_LANGUAGE = ("llama", "visual_attributes")
"""Captioners that ask a model, which takes long or is paid for."""


class Caption(Section):
    """One caption per image (paper section 2.1, Figure 2)."""

    captioner: Literal["measured", "label", "llama", "visual_attributes", "imported"] = "measured"
    """`llama` uses DermaFlux's prompt, `visual_attributes` VAP-Diffusion's three."""
    model: PathText = "meta-llama/Llama-3.2-11B-Vision-Instruct"
    """Hub id or folder in process; at an endpoint the name its `/models` lists."""
    revision: Text | None = None
    """Commit of the hub repository, needed for a hub id in process, so that answers of one revision
    are not taken for those of another; at an endpoint only part of the key of cached answers."""
    route: Literal["in_process", "endpoint"] = "in_process"
    maximum_tokens: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Length in tokens at which an answer is cut off."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    batch: Batch = 8
    """Images per forward pass in process."""
    precision: Literal["fp32", "bf16"] = "bf16"
    imported: PathText | None = None
    """File with captions, or a folder of them, for the captioner `imported`."""
    questions: PathText = "prompts/dermoscopy.yaml"
    """File with the questions of `visual_attributes` and the names of modality and classes; the
    packaged one has those of VAP-Diffusion for dermatology, the only ones that were published."""
    held_out_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Fraction of captions that training never sees, for generation from unseen descriptions."""

    def check_pinned(self, root: Path) -> None:
        """Raise `ValueError` for a hub id in process without a revision.

        Folders are relative to `root`.
        """
        in_process = self.captioner in VISION_LANGUAGE and self.route == "in_process"
        if in_process and self.revision is None and not (root / self.model).is_dir():
            raise ValueError(hub.unpinned("caption.model", self.model, "caption.revision"))

    @model_validator(mode="after")
    def _imported_has_a_file(self) -> Caption:
        if self.captioner == "imported" and self.imported is None:
            raise ValueError(
                "captioner 'imported' needs the file with the captions; set caption.imported"
            )
        return self
