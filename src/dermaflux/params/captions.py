"""Parameters of the stage `caption`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dermaflux.params.fields import Count, Positive, Section


class TokenPrice(Section):
    """Price of a million tokens, in whatever currency."""

    prompt: Annotated[float, Field(ge=0.0)] = 0.0
    completion: Annotated[float, Field(ge=0.0)] = 0.0


class Caption(Section):
    """One caption per image (paper section 2.1, Figure 2)."""

    captioner: Literal["measured", "label", "llama", "visual_attributes", "imported"] = "measured"
    """`llama` asks DermaFlux's question, `visual_attributes` VAP-Diffusion's three."""
    model: str = "meta-llama/Llama-3.2-11B-Vision-Instruct"
    """Hub id or folder in process; at an endpoint the name its `/models` lists."""
    revision: str | None = None
    """Commit of the hub repository; at an endpoint only part of what answers are kept under."""
    route: Literal["in_process", "endpoint"] = "in_process"
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")] = "http://127.0.0.1:8000/v1"
    """Address of an OpenAI-compatible server, up to and with `/v1`; holds no key."""
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Name of the environment variable with the key; a server without keys needs none."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight at the endpoint."""
    maximum_tokens: Count = 256
    """Length in tokens at which an answer is cut off."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    batch: Count = 8
    """Images per forward pass in process."""
    precision: Literal["fp32", "bf16"] = "bf16"
    timeout_seconds: Positive = 120.0
    """Time for one answer of the endpoint."""
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    """Further attempts after 429, 5xx, a timeout or a cut connection."""
    token_budget: Count | None = None
    """Prompt and completion tokens one run may spend; what they bought is kept."""
    shard_images: Count = 2000
    """Images after which captions are written down, so that a killed run continues there."""
    imported: str | None = None
    """File with captions, for the captioner `imported`."""
    held_out_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of captions that training never sees, for generation from unseen descriptions."""
    price_per_million_tokens: TokenPrice = TokenPrice()
    """For `dermaflux caption --estimate`."""

    @model_validator(mode="after")
    def _imported_has_a_file(self) -> Caption:
        if self.captioner == "imported" and self.imported is None:
            raise ValueError(
                "captioner 'imported' needs the file with the captions; set caption.imported"
            )
        return self
