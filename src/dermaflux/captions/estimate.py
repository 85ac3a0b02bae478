"""What captioning the corpus will take: requests, tokens, hours and cost. Makes no request.

Reads the metadata of corpus/ and the store of answers; prints. Run with
`dermaflux caption --estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.captions.vlm import open, prompts
from dermaflux.captions.vlm.answer_cache import Paid, default_file
from dermaflux.captions.vlm.client import Question
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Caption, Params

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
    """Upper bounds, where nothing was measured yet."""

    images: int
    kept: int
    """Images whose first answer is in the store already."""
    requests: int
    prompt_tokens: int
    completion_tokens: int
    measured: int
    """Answers of this model behind the mean lengths; 0 means the formula."""

    def hours(self, rate: float) -> float:
        """At `rate` requests per second."""
        return self.requests / rate / _SECONDS_PER_HOUR

    def cost(self, section: Caption) -> float:
        """At `caption.price_per_million_tokens`."""
        price = section.price_per_million_tokens
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / 1e6


def text_tokens(text: str) -> int:
    """Prompt tokens of a question without its image."""
    return round(len(text) / _CHARACTERS_PER_TOKEN) + _TEMPLATE_TOKENS


def image_tokens(scale: int) -> int:
    """Tokens of an image of the corpus, a square of `scale` pixels."""
    return TILE_TOKENS * min((-(-scale // TILE)) ** 2, MOST_TILES)


def estimate(section: Caption, known: pd.DataFrame, paid: Paid | None) -> Estimate:
    """Of the images `known`: columns label, modality, scale, sha256.

    Images with equal bytes count once. Second tries after the quality gate are not counted.
    """
    if section.captioner not in ("llama", "visual_attributes"):
        return Estimate(len(known), 0, 0, 0, 0, 0)
    known = known.drop_duplicates("sha256") if known["sha256"].notna().all() else known
    chain = section.captioner == "visual_attributes"
    kept = requests = prompt = 0
    for row in known.itertuples(index=False):
        first = prompts.FIRST_IMPRESSION if chain else prompts.abc_question(row.label)
        picture = image_tokens(row.scale)
        if paid is not None and paid.get(paid.key(Question(first, b"", row.sha256))):
            kept += 1
            if not chain:
                continue
        else:
            requests += 1
            prompt += text_tokens(first) + picture
        if chain:  # the last question holds both answers before it
            requests += 1
            last = prompts.final_question("", "")
            prompt += text_tokens(last) + 2 * section.maximum_tokens + picture
    if chain:
        modalities = known["modality"].nunique(dropna=False)
        requests += modalities
        prompt += modalities * text_tokens(prompts.THINK_TWICE)
    count, mean_prompt, mean_completion = paid.means() if paid is not None else (0, 0.0, 0.0)
    completion = requests * (mean_completion if count else section.maximum_tokens)
    if count:
        prompt = round(requests * mean_prompt)
    return Estimate(len(known), kept, requests, prompt, round(completion), count)


def run(params: Params, rate: float) -> None:
    """Print the estimate at `rate` requests per second."""
    section = params.caption
    columns = ["label", "modality", "scale", "sha256"]
    known = table.metadata(paths.CORPUS, columns)
    paid = _store(section)
    found = estimate(section, known, paid)
    for line in lines(found, section, rate):
        print(line)
    if paid is not None:
        paid.close()


def _store(section: Caption) -> Paid | None:
    if section.captioner not in ("llama", "visual_attributes") or not default_file().exists():
        return None
    try:
        name = open.name_of(section)
    except InputError:  # a model that cannot be opened has no answers, but an estimate
        return None
    return Paid(default_file(), name, open.sampling(section))


def lines(found: Estimate, section: Caption, rate: float) -> list[str]:
    """The estimate as text, a line per quantity."""
    if not section.captioner.startswith(("llama", "visual")):
        return [
            f"images       {found.images:,}",
            f"requests     0 (caption.captioner {section.captioner!r} asks no model)",
        ]
    how = (
        f"mean of {found.measured:,} answers kept"
        if found.measured
        else "at most, by a formula: no answer of this model is kept yet"
    )
    price = section.price_per_million_tokens
    return [
        f"images       {found.images:,} ({found.kept:,} answered already)",
        f"requests     {found.requests:,} to {section.model}",
        f"tokens       {found.prompt_tokens:,} prompt + {found.completion_tokens:,} completion "
        f"({how})",
        f"time         {found.hours(rate):,.1f} h at {rate:g} requests/s",
        f"cost         {found.cost(section):,.2f} at {price.prompt:g} + {price.completion:g} per "
        "million tokens (caption.price_per_million_tokens)",
        "second tries after the quality gate come on top",
    ]
