"""Pools of a grid file: synthetic images by name, which one protocol compares. Pure."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dermaflux.errors import quoted
from dermaflux.params.choices import COLLECTION

Overrides = dict[str, Any]
PER_IMAGE = ("generator", "backbone", "finetune", "synthesize")
"""Sections that decide what a synthetic image looks like."""


def absolute(overrides: Overrides) -> Overrides:
    """With the folder of released images as an absolute path, if there is one.

    A run executes in a copy of the checkout, which lacks what git and DVC do not track.
    """
    key = f"synthesize.{COLLECTION}.folder"
    folder = overrides.get(key)
    return {**overrides, key: os.path.abspath(folder)} if isinstance(folder, str) else overrides


class Part(BaseModel):
    """A part of a grid file, which refuses keys that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000
    )


class Pool(Part):
    """Synthetic images that others are compared with, and what is said of them on the page."""

    folder: str = ""
    """Released images: what `synthesize.released.folder` may name, relative to the checkout."""
    set_: Overrides = Field(alias="set", default={})
    """Parameters of the generator and its images."""
    licence: str = ""
    """Of the images; empty: what the pool's table says."""
    url: str = Field(default="", pattern=r"^(https?://[^\s\"<>]+)?$")
    """Where they are described."""

    def overrides(self) -> Overrides:
        """Parameters of the run."""
        if not self.folder:
            return absolute(self.set_)
        folder = {f"synthesize.{COLLECTION}.folder": self.folder}
        return absolute({"generator": COLLECTION, **folder, **self.set_})

    @model_validator(mode="after")
    def _decides_images_alone(self) -> Pool:
        chosen = {"generator", f"synthesize.{COLLECTION}.folder"} & self.set_.keys()
        if self.folder and chosen:
            raise ValueError(f"it has a folder and sets {min(chosen)}; keep one of them")
        if not self.folder and "generator" not in self.set_:
            raise ValueError(
                "it has neither a folder nor a generator; write {folder: PATH} or {set: "
                "{generator: NAME}}"
            )
        for name in self.set_:
            if name.partition(".")[0] not in PER_IMAGE:
                raise ValueError(
                    f"it sets {quoted(name)}, but pools are compared under one protocol and may "
                    f"differ in {', '.join(PER_IMAGE)} only; move it to the grid's set"
                )
        return self
