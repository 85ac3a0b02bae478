"""What captioning the corpus will take: requests, tokens, hours and cost. Sends no request.

Reads the metadata of corpus/ and the cache of answers; prints. Run with
`dermaflux caption --estimate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.captions.vlm import prompts, questions
from dermaflux.captions.vlm.answer_cache import AnswerCache, default_file
from dermaflux.captions.vlm.client import Request
from dermaflux.captions.vlm.open import model_name, sampling_settings
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import VISION_LANGUAGE, Caption, Params, TokenPrice

if TYPE_CHECKING:
    import pandas as pd

TILE, TILE_TOKENS, MOST_TILES = 560, 1601, 4
"""Llama 3.2 Vision cuts an image into at most four tiles of 560 pixels, and each into
(560 / 14)^2 patches and a class embedding. Hosted interfaces bill these as prompt tokens; vLLM and
transformers count one token for the whole image, so the estimate is an upper bound there."""
_CHARACTERS_PER_TOKEN = 4.0  # of English in Llama 3's vocabulary
_TEMPLATE_TOKENS = 11  # begin-of-text, two role headers, end-of-turn, image
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Estimate:
    """Upper bounds, where nothing has been measured yet."""

    images: int
    cached: int
    """Images whose first answer is cached already."""
    requests: int
    prompt_tokens: int
    completion_tokens: int
    measured: int
    """Cached answers of this model that the mean lengths come from; 0 means the formula."""

    def hours(self, rate: float) -> float:
        """At `rate` requests per second."""
        return self.requests / rate / _SECONDS_PER_HOUR

    def cost(self, price: TokenPrice) -> float:
        """In the currency of `price`."""
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / 1e6


def text_tokens(text: str) -> int:
    """Prompt tokens of a request without its image."""
    return round(len(text) / _CHARACTERS_PER_TOKEN) + _TEMPLATE_TOKENS


def image_tokens(scale: int) -> int:
    """Tokens of an image of the corpus, a square of `scale` pixels."""
    return TILE_TOKENS * min((-(-scale // TILE)) ** 2, MOST_TILES)


def estimate(section: Caption, images: pd.DataFrame, cache: AnswerCache | None) -> Estimate:
    """For the corpus rows `images`: columns label, modality, scale, sha256.

    Images with equal bytes count once. Second tries after the quality gate are not counted.
    """
    if section.captioner not in VISION_LANGUAGE:
        return Estimate(len(images), 0, 0, 0, 0, 0)
    images = images.drop_duplicates("sha256") if images["sha256"].notna().all() else images
    three_prompts = section.captioner == "visual_attributes"
    asked = questions.read(Path(section.questions)) if three_prompts else questions.PUBLISHED
    cached = requests = prompt = 0
    for row in images.itertuples(index=False):
        first = asked.first_impression if three_prompts else prompts.abc_prompt(row.label)
        of_image = image_tokens(row.scale)
        if cache is not None and cache.get(cache.key(Request(first, b"", row.sha256))):
            cached += 1
            if not three_prompts:
                continue
        else:
            requests += 1
            prompt += text_tokens(first) + of_image
        if three_prompts:  # the last prompt holds both answers before it
            requests += 1
            last = prompts.final_prompt("", "", asked.final_description, asked.modality)
            prompt += text_tokens(last) + 2 * section.maximum_tokens + of_image
    if three_prompts:
        modalities = images["modality"].nunique(dropna=False)
        requests += modalities
        prompt += modalities * text_tokens(asked.second_thought)
    count, mean_prompt, mean_completion = cache.means() if cache is not None else (0, 0.0, 0.0)
    completion = requests * (mean_completion if count else section.maximum_tokens)
    if count:
        prompt = round(requests * mean_prompt)
    return Estimate(len(images), cached, requests, prompt, round(completion), count)


def run(params: Params, rate: float) -> None:
    """Print the estimate at `rate` requests per second."""
    if not math.isfinite(rate):
        raise InputError(f"--rate is {rate}; give the requests per second as a number, such as 10")
    section = params.caption
    images = table.metadata(paths.CORPUS, ["label", "modality", "scale", "sha256"])
    cache = _open_cache(section)
    result = estimate(section, images, cache)
    for line in lines(result, section, params.runtime.caption.price_per_million_tokens, rate):
        print(line)
    if cache is not None:
        cache.close()


def _open_cache(section: Caption) -> AnswerCache | None:
    if section.captioner not in VISION_LANGUAGE or not default_file().exists():
        return None
    try:
        name = model_name(section)
    except InputError:  # a model that cannot be opened has no answers, but an estimate
        return None
    return AnswerCache(default_file(), name, sampling_settings(section))


def lines(result: Estimate, section: Caption, price: TokenPrice, rate: float) -> list[str]:
    """The estimate as text, a line per quantity."""
    if section.captioner not in VISION_LANGUAGE:
        return [
            f"images       {result.images:,}",
            f"requests     0 (caption.captioner {section.captioner!r} uses no model)",
        ]
    how = (
        f"from the mean of {result.measured:,} cached answers"
        if result.measured
        else "an upper bound by formula: no answer of this model is cached yet"
    )
    return [
        f"images       {result.images:,} ({result.cached:,} answered already)",
        f"requests     {result.requests:,} to {section.model}",
        f"tokens       {result.prompt_tokens:,} prompt + {result.completion_tokens:,} completion "
        f"({how})",
        f"time         {result.hours(rate):,.1f} h at {rate:g} requests/s",
        f"cost         {result.cost(price):,.2f} at {price.prompt:g} + {price.completion:g} per "
        "million tokens (runtime.caption.price_per_million_tokens)",
        "second tries after the quality gate are not included",
    ]
