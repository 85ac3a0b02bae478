"""The class-specific prompt bank: descriptions of training images, reused at generation.

VAP-Diffusion (MICCAI 2025), section 2.3: descriptions are stored per class, and one of the
requested class is sampled at random; the paper also tests with a bank other than the one trained
on. Here that is the held-out part: texts that no image is trained with. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dermaflux.captions.text.label import label_sentence
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def held_out(caption: str, fraction: float) -> bool:
    """Whether a description is held out of training; a hash of its text alone decides.

    Equal texts are treated alike, so a held-out text is unseen whatever images it occurs with and
    whatever else the corpus contains. The captioner `label` has one text per class and holds out
    none.
    """
    return derived_seed("held out", caption) < fraction * 2**63


@dataclass(frozen=True)
class PromptBank:
    """Prompts per class, one for each image they describe, so that frequent ones are frequent."""

    prompts: Mapping[str, tuple[str, ...]]
    diagnoses: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Of the images that the prompts describe; empty where they describe none."""

    def draw(self, label: str, seed: int, index: int) -> str:
        """The prompt of image number `index`; it depends on the arguments and the bank alone."""
        return self.prompts[label][self._index(label, seed, index)]

    def diagnosis(self, label: str, seed: int, index: int) -> str | None:
        """Diagnosis of the image that the prompt of image number `index` describes, if known."""
        known = self.diagnoses.get(label)
        return known[self._index(label, seed, index)] if known else None

    def _index(self, label: str, seed: int, index: int) -> int:
        return derived_seed(seed, "prompt", index) % len(self.prompts[label])


def label_only() -> PromptBank:
    """The paper's prompts: one sentence per class (DermaFlux, section 2.2)."""
    return PromptBank({label: (label_sentence(label),) for label in CLASSES})


def from_captions(rows: pd.DataFrame, which: Literal["captions", "held_out"]) -> PromptBank:
    """Prompts from training images: columns image_id, label, diagnosis, caption, flags, held_out.

    `captions` are those trained with, `held_out` the others. Flagged captions are left out. Rows
    may come in any order. Raises `InputError` when a class is left without prompts.
    """
    in_part = rows["held_out"].fillna(False).astype(bool) == (which == "held_out")
    rows = rows[in_part & rows["flags"].isna()].sort_values("image_id")
    bank = {label: tuple(rows.loc[rows["label"] == label, "caption"]) for label in CLASSES}
    for label, prompts in bank.items():
        if not prompts:
            fix = (
                "raise caption.held_out_fraction or set synthesize.prompt_source to captions"
                if which == "held_out"
                else "add such images, or set synthesize.prompt_source to label"
            )
            raise InputError(
                f"no {label} training image has a caption without flags for prompts from "
                f"{which!r}; {fix}"
            )
    known = rows["diagnosis"].astype(object).where(rows["diagnosis"].notna(), None)
    return PromptBank(bank, {label: tuple(known[rows["label"] == label]) for label in CLASSES})
