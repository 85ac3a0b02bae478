"""What one fine-tuning is made of: images with captions, their lengths, their order, the held-out.

Reads corpus/ (splits `train` and `validation`) and captions/. Writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.captions.text import lengths
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators.data.images import Sample, captioned, select, trainable
from dermaflux.generators.flux_lora.model import prompt_padding
from dermaflux.generators.flux_lora.model.prompt_padding import LIMIT, text_length
from dermaflux.generators.flux_lora.training import validation_loss
from dermaflux.generators.flux_lora.training.buckets import Bucket, Order
from dermaflux.params import Finetune

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainingData:
    """Images to train with and to hold out, and the order of training."""

    samples: list[Sample]
    caption_tokens: list[int]
    """T5 tokens of each caption, end token included, before any padding or cut."""
    buckets: list[Bucket]
    order: Order
    held_out: list[Sample]
    """Images of the split `validation` for the held-out loss."""
    held_out_buckets: list[Bucket]
    clip: prompt_padding.ClipCut
    left_out: int
    """Captioned training images that are not trained with: other scales, or beyond the maximum."""
    held_out_captions: int
    """Training images whose captions are kept for sampling."""

    def lengths(self) -> dict[str, Any]:
        """Quantiles and histogram of caption lengths, and how many exceed 512 tokens."""
        return lengths.figures(self.caption_tokens, LIMIT)

    def padding_percent(self) -> float:
        """Share of padding in the tokens of an epoch: text beyond a caption's end, and fillers."""
        order = self.order
        steps = (order.at(step) for step in itertools.count())
        epoch = itertools.islice(itertools.chain.from_iterable(steps), order.per_epoch)
        tokens = sum(len(micro.members) * micro.bucket.tokens for micro in epoch)
        own = sum(
            bucket.image_tokens + min(count, bucket.text_tokens)
            for bucket, count in zip(self.buckets, self.caption_tokens, strict=True)
        )
        return 100 * (1 - own / tokens)

    def steps(self, section: Finetune) -> int:
        """Optimiser steps of the run."""
        return section.steps or self.order.steps(section.epochs)


def read(
    section: Finetune,
    seed: int,
    corpus: Path,
    captions: Path,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> TrainingData:
    """Choose images and put them in order; `tokenizers` are CLIP's and T5's.

    Raises `InputError` for an empty class or a missing caption.
    """
    described = captioned(corpus, captions)
    rows = trainable(described)
    samples = select(rows, section.scales, section.maximum_images, seed)
    clip, t5 = tokenizers
    counts = lengths.in_tokens(t5, [one.caption for one in samples])
    buckets = _buckets(section, samples, counts)
    held_out = _held_out(section, corpus, captions)
    held_out_counts = lengths.in_tokens(t5, [one.caption for one in held_out])
    return TrainingData(
        samples,
        counts,
        buckets,
        Order(buckets, section.batch_tokens, section.micro_batches, seed),
        held_out,
        _buckets(section, held_out, held_out_counts),
        prompt_padding.clip_cut(clip, [one.caption for one in samples]),
        len(rows) - len(samples),
        len(described) - len(rows),
    )


def _buckets(section: Finetune, samples: Sequence[Sample], counts: Sequence[int]) -> list[Bucket]:
    return [
        Bucket(one.scale, text_length(count, section.text_policy))
        for one, count in zip(samples, counts, strict=True)
    ]


def _held_out(section: Finetune, corpus: Path, captions: Path) -> list[Sample]:
    if not section.validation_images:
        return []
    rows: pd.DataFrame = trainable(captioned(corpus, captions, "validation"))
    rows = rows[rows["scale"].isin(section.scales) & rows["label"].isin(CLASSES)]
    samples = [
        Sample(row.image_id, row.sha256, row.label, int(row.scale), row.caption)
        for row in rows.itertuples()
    ]
    return validation_loss.choose(samples, section.validation_images)
