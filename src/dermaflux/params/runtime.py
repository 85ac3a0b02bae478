"""What changes how fast a stage runs, and no byte of what it writes: no stage depends on these."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from dermaflux.errors import one_line, quoted
from dermaflux.params.captions import TokenPrice
from dermaflux.params.fields import Count, Section, Text


def _address(url: str) -> str:
    """The address; raises `ValueError` for one that no connection can be opened to."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        if not host or parts.port == 0:
            raise ValueError("it names no host or the port 0")
    except ValueError as error:
        raise ValueError(
            f"{quoted(url)} is not a valid server address ({one_line(error, 200)}); write one such "
            "as http://127.0.0.1:8000/v1"
        ) from None
    return url


class CaptionRuntime(Section):
    """How `caption` reaches a model at an endpoint, and how often it saves its work."""

    endpoint: Annotated[
        str,
        Field(pattern=r"^https?://[^\s?#@\\]+$", max_length=1000),
        AfterValidator(_address),
    ] = "http://127.0.0.1:8000/v1"
    """Address of an OpenAI-compatible server, up to and including `/v1`; never holds a key."""
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)] = (
        "OPENAI_API_KEY"
    )
    """Name of the environment variable with the API key; a server without keys needs none."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight."""
    timeout_seconds: Annotated[float, Field(ge=0.001, le=86_400.0)] = 120.0
    """Time for one answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    """Further attempts after 429, 5xx, a timeout or a cut connection."""
    token_budget: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Prompt and completion tokens one run may spend; paid answers are stored."""
    price_per_million_tokens: TokenPrice = TokenPrice()
    """For `dermaflux caption --estimate`."""
    shard_images: Count = 2000
    """Images after which captions are saved, so that a killed run continues there."""


class FinetuneRuntime(Section):
    """How `finetune` fits the machine and reports: the trained weights are the same, bit by bit."""

    log_steps: Count = 20
    """Steps between two printed lines and MLflow points."""
    checkpoint_steps: Count = 100
    grid_steps: Count = 200
    """Steps between grids of images from fixed prompts; the last step always has one."""
    gradient_checkpointing: Literal["auto", "none", "full"] = "auto"
    """`auto` recomputes as few blocks as the memory plan needs."""
    text_cache: bool = False
    """Encode all captions once, to disk, and train without the text encoders: for small cards."""


class PretrainRuntime(Section):
    """How often `pretrain` reports and saves: the trained weights are the same, bit by bit."""

    log_steps: Count = 20
    """Steps between two printed lines and MLflow points."""
    checkpoint_steps: Count = 200


class Runtime(Section):
    """Speed, memory, progress and addresses."""

    accelerate: Text | None = None
    """Arguments of `accelerate launch` for `finetune`, `synthesize` and `pretrain`, such as
    `--num_processes 8`."""
    executor: Literal["loky", "dask", "ray"] = "loky"
    """Who decodes in `ingest`: processes of this machine, or a cluster."""
    caption: CaptionRuntime = CaptionRuntime()
    finetune: FinetuneRuntime = FinetuneRuntime()
    pretrain: PretrainRuntime = PretrainRuntime()
