"""How long captions are in tokens of the generator's text encoder.

Training puts captions of one length, rounded up to 16 tokens, into one bucket, so the histogram is
that of the buckets and shows what a step costs; a caption beyond 512 tokens is cut. The tokenizer
belongs to the backbone, which does not exist yet when the stage `caption` runs: that stage counts
words, and `finetune`, which reads both, counts tokens. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BIN = 16
"""Tokens a length is rounded up to: 98 % of what exact lengths would save, in few shapes."""
_CHUNK = 4096
_WIDEST = 40  # characters of a printed bar


def in_tokens(tokenizer: Callable[..., Any], captions: Sequence[str]) -> list[int]:
    """Tokens of each caption, its end token included, as training counts them."""
    counts: list[int] = []
    for start in range(0, len(captions), _CHUNK):
        # With `verbose` the tokenizer warns about lengths beyond the model's limit.
        encoded = tokenizer(list(captions[start : start + _CHUNK]), verbose=False)
        counts += map(len, encoded.input_ids)
    return counts


def figures(counts: Sequence[int], limit: int | None = None) -> dict[str, Any]:
    """Quantiles and histogram of lengths: upper end of each bin -> captions.

    With a `limit` in tokens longer captions count in the bin of the limit, where they are cut, and
    `cut` says how many they are. Raises `ValueError` without captions.
    """
    lengths = np.asarray(counts)
    if not lengths.size:
        raise ValueError("no captions to measure")
    ends = -(-lengths // BIN) * BIN
    if limit is not None:
        ends = ends.clip(max=limit)
    bins, captions = np.unique(ends, return_counts=True)
    out: dict[str, Any] = {
        "shortest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "p95": int(np.quantile(lengths, 0.95, method="higher")),
        "p99": int(np.quantile(lengths, 0.99, method="higher")),
        "longest": int(lengths.max()),
        "histogram": {str(end): int(count) for end, count in zip(bins, captions, strict=True)},
    }
    if limit is not None:
        out["limit"] = limit
        out["cut"] = int((lengths > limit).sum())
    return out


def bar_chart(lengths: dict[str, Any], unit: str = "T5 tokens") -> str:
    """The histogram of `figures` as text, after a line that sums it up."""
    histogram: dict[str, int] = lengths["histogram"]
    most = max(histogram.values())
    lines = [
        f"{'to ' + end:>8} {'█' * max(1, round(_WIDEST * count / most)):<{_WIDEST}} {count:,}"
        for end, count in histogram.items()
    ]
    summary = (
        f"{unit} per caption: median {lengths['median']:g}, 95 % within {lengths['p95']}, "
        f"longest {lengths['longest']}"
    )
    if "cut" in lengths:
        total = sum(histogram.values())
        summary += f"; {lengths['cut']:,} of {total:,} exceed {lengths['limit']} and are cut there"
    return "\n".join([summary, *lines])
