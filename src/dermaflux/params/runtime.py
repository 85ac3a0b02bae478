"""What changes how fast a stage runs, and no byte of what it writes: no stage depends on these."""

from __future__ import annotations

from typing import Literal

from dermaflux.params.fields import Count, Section


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


class Runtime(Section):
    """Speed, memory, progress and addresses."""

    accelerate: str | None = None
    """Arguments of `accelerate launch` for `finetune` and `synthesize`, such as
    `--num_processes 8`."""
    executor: Literal["loky", "dask", "ray"] = "loky"
    """Who decodes in `ingest`: processes of this machine, or a cluster."""
    finetune: FinetuneRuntime = FinetuneRuntime()
