"""What changes how fast a stage runs, and no byte of what it writes: no stage depends on these."""

from __future__ import annotations

from typing import Literal

from dermaflux.params.fields import Section


class Runtime(Section):
    """Speed, memory, progress and addresses."""

    accelerate: str | None = None
    """Arguments of `accelerate launch` for `finetune` and `synthesize`, such as
    `--num_processes 8`."""
    executor: Literal["loky", "dask", "ray"] = "loky"
    """Who decodes in `ingest`: processes of this machine, or a cluster."""
