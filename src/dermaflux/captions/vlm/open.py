"""The vision-language model that the parameters name, with the memory of what was paid for.

Reads and writes the store of answers, see `paid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dermaflux.captions.vlm.answer_cache import Paid, Remembered, default_file
from dermaflux.params import Caption

if TYPE_CHECKING:
    from dermaflux.captions.vlm.transformers_vlm import InProcessVision


def sampling(section: Caption) -> dict[str, Any]:
    """Settings that decide an answer beside question and model."""
    return {"maximum_tokens": section.maximum_tokens, "temperature": section.temperature}


def name_of(section: Caption) -> str:
    """Name under which answers of the model are kept; reads its configuration at most."""
    if section.route == "endpoint":
        from dermaflux.captions.vlm.endpoint import Endpoint

        return Endpoint.name_of(section)
    return _in_process(section).name


def _in_process(section: Caption) -> InProcessVision:
    from dermaflux.captions.vlm.transformers_vlm import InProcessVision

    return InProcessVision(
        section.model,
        section.revision,
        section.precision,
        section.batch,
        section.maximum_tokens,
        section.temperature,
    )


@contextmanager
def opened(section: Caption, sample: bytes | None = None) -> Iterator[tuple[Remembered, Paid]]:
    """The model of `section.route` and its store of answers.

    `sample` is a large image of those to come; the preflight of an endpoint sends it.
    """
    from dermaflux.captions.vlm.endpoint import Endpoint

    vision: Any
    open_: Any = nullcontext()
    if section.route == "endpoint":
        # The store wants the model's name and the endpoint the store, to keep answers on receipt.
        paid = Paid(default_file(), Endpoint.name_of(section), sampling(section))
        vision = open_ = Endpoint(section, sample, paid.keep)
    else:
        vision = _in_process(section)
        paid = Paid(default_file(), vision.name, sampling(section))
    try:
        with open_:
            yield Remembered(vision, paid, section.maximum_tokens, section.token_budget), paid
    finally:
        paid.close()
