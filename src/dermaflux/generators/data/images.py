"""The images and captions a generator is trained on.

Reads the metadata of corpus/ and captions/, never pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.captions.text.label import label_sentence
from dermaflux.captions.text.quality import UNUSABLE
from dermaflux.core import matching, table
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.params import Finetune


_COLUMNS = (
    "image_id", "sha256", "label", "diagnosis", "scale", "split", "source", "modality", "skin_tone",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One training image with its caption."""

    image_id: str
    sha256: str
    label: str
    scale: int
    caption: str
    """The sentence of the label where the generator needs no captions."""
    diagnosis: str | None = None
    """As `ingest` harmonised it; None where the source gives none."""


@dataclass(frozen=True)
class TrainingImages:
    """Images to train with, and images for the held-out loss."""

    samples: list[Sample]
    held_out: list[Sample]
    """Of the split `validation`."""
    left_out: int
    """Training images that could be trained with and are not: other scales, or beyond the
    maximum."""
    held_out_captions: int
    """Training images whose captions are reserved for sampling."""
    said: str | None = None
    """What a matched draw takes and leaves, in one sentence."""

    def facts(self, scales: Sequence[int]) -> dict[str, Any]:
        """Counts for finetune.json."""
        samples = self.samples
        return {
            "images": {
                str(scale): sum(sample.scale == scale for sample in samples) for scale in scales
            },
            "images_per_class": {
                label: sum(sample.label == label for sample in samples) for label in CLASSES
            },
            "images_left_out": self.left_out,
            "images_held_out": self.held_out_captions,
            "validation_images": len(self.held_out),
        }


def read(section: Finetune, seed: int, corpus: Path, captions: Path | None) -> TrainingImages:
    """Choose the images of a run; `captions` is None for a generator that needs none.

    Raises `InputError` for an empty class or a missing caption.
    """

    def rows_of(split: str) -> pd.DataFrame:
        return captioned(corpus, captions, split) if captions else labelled(corpus, split)

    import pandas as pd

    all_rows = pd.concat([rows_of(split) for split in section.splits], ignore_index=True)
    rows = trainable(all_rows)
    drawn, said = matched(rows, section, seed)
    samples = select(drawn, section.scales, section.maximum_images, seed)
    held_out: list[Sample] = []
    if section.validation_images:
        candidates = trainable(rows_of("validation"))
        candidates = candidates[candidates["scale"].isin(section.scales)]
        if section.draw == "matched":
            kept = matching.pairs(candidates, section.match_by, "validation").listed
            candidates = candidates[candidates["image_id"].isin(kept)]
        held_out = choose_held_out(_samples(candidates), section.validation_images)
    left_out, reserved = len(rows) - len(samples), len(all_rows) - len(rows)
    return TrainingImages(samples, held_out, left_out, reserved, said)


def matched(rows: pd.DataFrame, section: Finetune, seed: int) -> tuple[pd.DataFrame, str | None]:
    """The rows that a draw may take, and what it leaves in one sentence; all where it is pooled.

    Pairs come in the order of `core.matching`, of which `maximum_images` takes the first. Raises
    `InputError` where there is no pair.
    """
    if section.draw == "pooled":
        return rows, None
    check_scales(rows, section.scales)
    pairs = matching.pairs(rows[rows["scale"].isin(section.scales)], section.match_by, seed)
    if not len(pairs):
        raise InputError(
            "finetune.draw matched needs a benign and a malignant training image of the same "
            f"{matching.words(section.match_by)} but none of the {len(rows):,} has a partner; "
            "shorten finetune.match_by, or set finetune.draw to pooled"
        )
    half = section.maximum_images // 2 or len(pairs)
    chosen = {image_id for ids in pairs.image_ids.values() for image_id in ids[:half]}
    said = pairs.said("finetune.draw", " and ".join(section.splits))
    return rows[rows["image_id"].isin(chosen)], said


def labelled(corpus: Path, split: str = "train") -> pd.DataFrame:
    """Benign and malignant rows of a split in the columns of `captioned`, sorted by image_id.

    The caption is the sentence of the label.
    """
    rows = _rows(corpus, split)
    rows["caption"] = rows["label"].map(label_sentence)
    return rows.assign(flags=None, held_out=False).sort_values("image_id", ignore_index=True)


def images_per_class(rows: pd.DataFrame, column: str) -> dict[str, int]:
    """Class -> benign and malignant images among `rows` (columns label, diagnosis).

    `column` is `label`, whose classes come in the order of `CLASSES`, or `diagnosis`, sorted by
    name; images without a diagnosis are then of no class.
    """
    values = rows.loc[rows["label"].isin(CLASSES), column].dropna()
    names = CLASSES if column == "label" else sorted(values.unique())
    counts = values.value_counts()
    return {str(name): int(counts.get(name, 0)) for name in names}


def captioned(corpus: Path, captions: Path, split: str = "train") -> pd.DataFrame:
    """Benign and malignant rows of a split with captions, sorted by image_id.

    Those of `_COLUMNS`, caption, flags and held_out.
    Raises `InputError` when an image has no caption or several.
    """
    rows = _rows(corpus, split)
    texts = table.metadata(captions, ["image_id", "caption", "flags", "held_out"])
    repeated = texts["image_id"][texts["image_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"{captions} has more than one caption for {len(repeated)} images such as "
            f"{quoted(repeated.iloc[0])}; delete it and run the stage `caption`"
        )
    joined = rows.merge(texts, on="image_id", how="left", validate="one_to_one")
    missing = joined["caption"].isna()
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} {split} images such as {joined['image_id'][missing].iloc[0]} "
            f"have no caption in {captions}; run the stage `caption`"
        )
    joined["held_out"] = joined["held_out"].fillna(False).astype(bool)
    return joined.sort_values("image_id", ignore_index=True)


def caption_texts(corpus: Path, captions: Path, split: str) -> set[str]:
    """The captions of all images of a split, whatever their label."""
    rows = table.metadata(corpus, ["image_id", "split"])
    texts = table.metadata(captions, ["image_id", "caption"])
    of_split = texts["image_id"].isin(rows.loc[rows["split"] == split, "image_id"])
    return set(texts.loc[of_split, "caption"].dropna())


def _rows(corpus: Path, split: str) -> pd.DataFrame:
    rows = table.metadata(corpus, _COLUMNS)
    return rows[(rows["split"] == split) & rows["label"].isin(CLASSES)].copy()


def trainable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows to train with: held-out captions left out, those that say nothing replaced.

    A refusal or a text of the other class would teach its words; the sentence of the label alone
    keeps the image.
    """
    usable = rows[~rows["held_out"]].copy()
    pattern = "|".join(UNUSABLE)
    bad = usable["flags"].astype("str").str.contains(pattern, na=False)
    usable.loc[bad, "caption"] = usable.loc[bad, "label"].map(label_sentence)
    return usable.reset_index(drop=True)


def select(rows: pd.DataFrame, scales: Sequence[int], maximum: int, seed: int) -> list[Sample]:
    """Samples of the given scales, sorted by image_id; `maximum` > 0 takes half of it per class.

    The choice depends on (seed, image_id) alone: other images in the corpus do not change the order
    in which a class is taken. Raises `InputError` for an empty class.
    """
    check_scales(rows, scales)
    rows = rows[rows["scale"].isin(scales)]
    chosen: list[Sample] = []
    for label in CLASSES:
        samples = _samples(rows[rows["label"] == label])
        samples.sort(key=lambda sample: rank(seed, sample.image_id))
        chosen += samples[: maximum // 2] if maximum else samples
    return sorted(chosen, key=lambda sample: sample.image_id)


def check_scales(rows: pd.DataFrame, scales: Sequence[int]) -> None:
    """Raise `InputError` when no training image of a class has one of the scales."""
    labels = rows.loc[rows["scale"].isin(scales), "label"]
    for label in CLASSES:
        if not (labels == label).any():
            raise InputError(
                f"finetune.scales {list(scales)} leave no {label} training image; add a "
                "scale or data"
            )


def choose_held_out(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` images, half of each class, by hash: the same whatever else the split holds.

    A class with fewer gives all it has. Sorted by image_id.
    """
    chosen: list[Sample] = []
    for label in CLASSES:
        members = [sample for sample in samples if sample.label == label]
        members.sort(key=lambda sample: rank("validation", sample.image_id))
        chosen += members[: count // 2]
    return sorted(chosen, key=lambda sample: sample.image_id)


def _samples(rows: pd.DataFrame) -> list[Sample]:
    return [
        Sample(
            row.image_id,
            row.sha256,
            row.label,
            int(row.scale),
            row.caption,
            row.diagnosis if isinstance(row.diagnosis, str) else None,
        )
        for row in rows.itertuples()
    ]
