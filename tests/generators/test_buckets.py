from __future__ import annotations

import collections

import numpy as np
import pytest

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import text_length
from dermaflux.generators.flux_lora.training.buckets import Bucket, MicroBatch, Order

PAPER = {128: 400_901, 256: 22_140, 512: 85_303}
"""Images of the paper's corpus by scale in pixels."""


def samples(count: int, seed: int = 0) -> list[Bucket]:
    draw = np.random.default_rng(seed)
    scales = draw.choice([128, 256, 512], count, p=[0.7, 0.1, 0.2])
    texts = draw.integers(1, 15, count) * 16
    return [Bucket(int(scale), int(text)) for scale, text in zip(scales, texts, strict=True)]


def epoch(order: Order, number: int) -> list[MicroBatch]:
    """Micro-batches of one epoch, taken with one micro-batch per step."""
    return [one for k in range(order.per_epoch) for one in order.at(number * order.per_epoch + k)]


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1501])
@pytest.mark.parametrize("budget", [64, 700, 4096, 65_536])
def test_an_epoch_counts_every_image_once_in_static_shapes_within_budget(count, budget) -> None:
    buckets = samples(count, seed=count)
    order = Order(buckets, budget, 1, 0)
    for number in (0, 3):
        taken = epoch(order, number)
        counted = [index for one in taken for index in one.members[: one.real]]
        assert sorted(counted) == list(range(count))
        for one in taken:
            assert {buckets[index] for index in one.members} == {one.bucket}
            assert len(one.members) == order.shapes[one.bucket]
            assert len(one.members) - one.real <= 1
            assert len(one.members) * one.bucket.tokens <= budget or len(one.members) == 1
    assert epoch(order, 0) != epoch(order, 1) or count < 3
    assert set(order.shapes) == set(buckets)
    images = collections.Counter(buckets)
    least = sum(-(-n // max(1, budget // bucket.tokens)) for bucket, n in images.items())
    assert order.per_epoch == least


def test_a_step_is_the_same_without_the_steps_before_it() -> None:
    buckets = samples(300)
    order = Order(buckets, 2048, 4, seed=7)
    per_epoch = order.per_epoch
    assert per_epoch % 4, "a step should reach into the next epoch"
    history = [order.at(step) for step in range(order.steps(3))]
    for step in (5, 0, order.steps(1) - 1, order.steps(2), order.steps(3) - 1, 2):
        assert Order(buckets, 2048, 4, seed=7).at(step) == history[step] == order.at(step)
    flat = [one for step in history for one in step]
    assert flat == [one for k in range(len(flat)) for one in Order(buckets, 2048, 1, 7).at(k)]
    assert 0 <= 4 * order.steps(3) - 3 * per_epoch < 4
    assert Order(buckets, 2048, 4, seed=8).at(0) != history[0]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_processes_share_a_step_without_gap_or_overlap(world) -> None:
    order = Order(samples(200), 1024, 6, 0)
    shares = [order.share(3, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {6 // world}
    together = [one for share in shares for one in share]
    assert sorted(together, key=str) == sorted(order.at(3), key=str)


def test_an_uneven_number_of_processes_is_refused() -> None:
    with pytest.raises(InputError, match="micro_batches is 6, which 4 processes .* multiple of 4"):
        Order(samples(20), 1024, 6, 0).share(0, 0, 4)


def caption_lengths(count: int) -> np.ndarray:
    """T5 tokens with the quantiles seven published captions suggest: median 123, longest 300."""
    places = [0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
    tokens = [64, 76, 101, 123, 152, 206, 282, 300]
    return np.interp((np.arange(count) + 0.5) / count, places, tokens).astype(int)


def forward_flop(image: int, text: np.ndarray) -> np.ndarray:
    """FLUX.1-dev: 6.455e9 weights meet a token, 57 blocks of width 3072 attend."""
    tokens = image + text
    return 2 * 6.455e9 * tokens + 57 * 4 * tokens**2 * 3072 + 2 * 3.23e9


def test_trimming_halves_the_compute_of_the_papers_corpus() -> None:
    total: dict[PromptPadding, float] = {"trim": 0.0, "pad512": 0.0}
    for scale, count in PAPER.items():
        tokens, images = np.unique(caption_lengths(count), return_counts=True)
        for policy in total:
            text = np.array([text_length(int(n), policy) for n in tokens])
            flop = forward_flop(Bucket(scale, 0).image_tokens, text)
            total[policy] += float((images * flop).sum())
    assert total["pad512"] / total["trim"] == pytest.approx(2.04, abs=0.03)
