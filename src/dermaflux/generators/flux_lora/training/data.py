"""The chosen images as FLUX is trained on them: lengths of their captions, buckets, order. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dermaflux.captions.text import lengths
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.flux_lora.model import prompt_padding
from dermaflux.generators.flux_lora.model.prompt_padding import LIMIT, text_length
from dermaflux.generators.flux_lora.settings import Finetune
from dermaflux.generators.flux_lora.training.buckets import Bucket, Order

if TYPE_CHECKING:
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
    """Images for the held-out loss."""
    held_out_buckets: list[Bucket]
    clip: prompt_padding.ClipCut

    def lengths(self) -> dict[str, Any]:
        """Quantiles and histogram of caption lengths, and how many exceed 512 tokens."""
        return lengths.figures(self.caption_tokens, LIMIT)

    def padding_percent(self) -> float:
        """Share of padding in the tokens of an epoch: text beyond a caption's end, and fillers."""
        order = self.order
        steps = (order.at(step) for step in itertools.count())
        epoch = itertools.islice(itertools.chain.from_iterable(steps), order.per_epoch)
        total = sum(len(micro.members) * micro.bucket.tokens for micro in epoch)
        needed = sum(
            bucket.image_tokens + min(count, bucket.text_tokens)
            for bucket, count in zip(self.buckets, self.caption_tokens, strict=True)
        )
        return 100 * (1 - needed / total)

    def steps(self, settings: Finetune) -> int:
        """Optimiser steps of the run."""
        return settings.steps or self.order.steps(settings.epochs)


def arrange(
    settings: Finetune,
    seed: int,
    images: TrainingImages,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> TrainingData:
    """Put images into buckets and in order; `tokenizers` are CLIP's and T5's."""
    clip, t5 = tokenizers
    captions = [sample.caption for sample in images.samples]
    counts = lengths.in_tokens(t5, captions)
    held_out_counts = lengths.in_tokens(t5, [sample.caption for sample in images.held_out])
    buckets = _buckets(settings, images.samples, counts)
    return TrainingData(
        images.samples,
        counts,
        buckets,
        Order(buckets, settings.batch_tokens, settings.micro_batches, seed),
        images.held_out,
        _buckets(settings, images.held_out, held_out_counts),
        prompt_padding.clip_cut(clip, captions),
    )


def _buckets(settings: Finetune, samples: Sequence[Sample], counts: Sequence[int]) -> list[Bucket]:
    return [
        Bucket(sample.scale, text_length(count, settings.prompt_padding))
        for sample, count in zip(samples, counts, strict=True)
    ]
