"""Opens the vision-language model that the parameters name, with its cache of paid responses.

Reads and writes the cache, see `answer_cache`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dermaflux.captions.vlm.answer_cache import AnswerCache, CachedVLM, default_file
from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

if TYPE_CHECKING:
    from dermaflux.captions.vlm.transformers_vlm import TransformersVLM


def sampling_settings(section: Caption) -> dict[str, Any]:
    """Settings that decide a response beside prompt and model."""
    return {"maximum_tokens": section.maximum_tokens, "temperature": section.temperature}


def model_name(section: Caption) -> str:
    """Name under which the model's responses are cached; reads its configuration at most.

    Raises `InputError` when an in-process model cannot be opened.
    """
    return _endpoint_name(section) if section.route == "endpoint" else _in_process(section).name


def _endpoint_name(section: Caption) -> str:
    # As the parameters state them: a server does not report its model's revision.
    return f"{section.model}@{section.revision or 'unpinned'}"


def _in_process(section: Caption) -> TransformersVLM:
    from dermaflux.captions.vlm.transformers_vlm import TransformersVLM

    return TransformersVLM(
        section.model,
        section.revision,
        section.precision,
        section.batch,
        section.maximum_tokens,
        section.temperature,
    )


@contextmanager
def open_vlm(
    section: Caption, runtime: CaptionRuntime, sample: bytes | None = None
) -> Iterator[tuple[CachedVLM, AnswerCache]]:
    """The model of `section.route` and its cache.

    `sample` is a large image of those to come; the preflight of an endpoint sends it.
    """
    settings = sampling_settings(section)
    if section.route == "in_process":
        local = _in_process(section)
        cache = AnswerCache(default_file(), local.name, settings)
        try:
            yield CachedVLM(local, cache, section.maximum_tokens, runtime.token_budget), cache
        finally:
            cache.close()
        return
    from dermaflux.captions.vlm.endpoint import EndpointVLM

    name = _endpoint_name(section)
    cache = AnswerCache(default_file(), name, settings)
    try:
        with EndpointVLM(name, section, runtime, sample, on_response=cache.add) as remote:
            yield CachedVLM(remote, cache, section.maximum_tokens, runtime.token_budget), cache
    finally:
        cache.close()
