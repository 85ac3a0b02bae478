"""The class-specific prompt bank: descriptions of training images, reused at generation.

A class is a label or a diagnosis, or nothing where images are sampled unconditionally.

VAP-Diffusion (MICCAI 2025), section 2.3: descriptions are stored per class, one for each training
image, and one of the requested class is drawn uniformly; the paper also tests with a bank other
than the one trained on. Here that is the held-out part, texts that no image is trained with, or the
user's own file (`prompt_file`). Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

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


By = Literal["label", "diagnosis"]
"""The column of the table whose values are the classes of a bank."""
UNCONDITIONAL = "indeterminate"
"""The one class of a bank that asks for nothing, and the label of the images sampled with it."""


class Prompt(NamedTuple):
    """A prompt, and what is known of the image that it describes."""

    text: str
    label: str
    diagnosis: str | None = None
    skin_tone: str | None = None


@dataclass(frozen=True)
class PromptBank:
    """Prompts per class, one for each image they describe."""

    prompts: Mapping[str, tuple[Prompt, ...]]
    each_text_once: bool = False
    """Whether distinct texts are equally likely, and not the images that they describe."""

    @cached_property
    def _by_text(self) -> Mapping[str, tuple[tuple[Prompt, ...], ...]]:
        grouped: dict[str, tuple[tuple[Prompt, ...], ...]] = {}
        for name, prompts in self.prompts.items():
            texts: dict[str, list[Prompt]] = {}
            for prompt in prompts:
                texts.setdefault(prompt.text, []).append(prompt)
            grouped[name] = tuple(map(tuple, texts.values()))
        return grouped

    def draw(self, name: str, seed: int, index: int) -> Prompt:
        """The prompt of image number `index`, of the class `name`.

        It depends on the arguments and the bank alone. A diagnosis that occurs with both labels
        gives each as often as the images described have it.
        """
        prompts = self.prompts[name]
        if self.each_text_once:
            texts = self._by_text[name]
            prompts = texts[derived_seed(seed, "text", index) % len(texts)]
        return prompts[derived_seed(seed, "prompt", index) % len(prompts)]


def label_only() -> PromptBank:
    """The paper's prompts: one sentence per class (DermaFlux, section 2.2)."""
    return PromptBank({label: (Prompt(label_sentence(label), label),) for label in CLASSES})


def unconditional() -> PromptBank:
    """The empty prompt, of images that are neither benign nor malignant by request."""
    return PromptBank({UNCONDITIONAL: (Prompt("", UNCONDITIONAL),)})


def from_labels(rows: pd.DataFrame, name_diagnosis: bool) -> PromptBank:
    """Per diagnosis, the sentence of each training image's label; columns label, diagnosis.

    `name_diagnosis` lets the sentence name the diagnosis as well, for a model that reads it.
    Images without a diagnosis are left out.
    """
    known = rows[rows["diagnosis"].notna()].sort_values("image_id")
    bank: dict[str, list[Prompt]] = {}
    for label, diagnosis in zip(known["label"], known["diagnosis"], strict=True):
        text = label_sentence(label, diagnosis if name_diagnosis else None)
        bank.setdefault(diagnosis, []).append(Prompt(text, label, diagnosis))
    return PromptBank({name: tuple(prompts) for name, prompts in bank.items()})


def from_captions(
    rows: pd.DataFrame,
    which: Literal["captions", "held_out"],
    by: By = "label",
    classes: Iterable[str] = CLASSES,
) -> PromptBank:
    """Prompts from training images: columns image_id, label, diagnosis, caption, flags, held_out,
    and skin_tone where it is known.

    `captions` are those trained with, `held_out` the others. Flagged captions are left out. Rows
    may come in any order. Raises `InputError` when one of the `classes` is left without prompts.
    """
    import pandas as pd

    in_part = rows["held_out"].fillna(False).astype(bool) == (which == "held_out")
    rows = rows[in_part & rows["flags"].isna()].sort_values("image_id")
    for column in ("diagnosis", "skin_tone"):
        values = rows[column] if column in rows else pd.Series(None, rows.index, dtype=object)
        rows = rows.assign(**{column: values.astype(object).where(values.notna(), None)})
    bank: dict[str, tuple[Prompt, ...]] = {}
    for name in classes:
        columns = rows.loc[rows[by] == name, ["caption", "label", "diagnosis", "skin_tone"]]
        bank[name] = tuple(Prompt(*values) for values in columns.itertuples(index=False))
        if not bank[name]:
            fix = (
                "raise caption.held_out_fraction or set synthesize.prompt_source to captions"
                if which == "held_out"
                else "add such images, or set synthesize.prompt_source to label"
            )
            raise InputError(
                f"no {name} training image has a caption without flags for prompts from "
                f"{which!r}; {fix}"
            )
    return PromptBank(bank)
