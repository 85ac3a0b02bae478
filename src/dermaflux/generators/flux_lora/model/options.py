"""The words that settings of this generator may take. Types only, so that parameters load fast."""

from __future__ import annotations

from typing import Literal

BaseDtype = Literal["fp32", "bf16", "fp8", "nf4"]
"""How the frozen base is stored."""
PromptPadding = Literal["trim", "pad512"]
"""T5 length of a prompt: rounded up to 16 tokens, or always 512."""
Targets = Literal["attention", "all-linear"]
"""Which Linear layers are adapted; see `lora.target_modules`."""
TimestepDensity = Literal["uniform", "logit-normal"]
"""How the noise levels of training are drawn."""
