"""Reading a parameter file: the schema's errors as one sentence with value, limit and fix."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import Params, yaml_file

MOVED = {
    "accelerate": "runtime.accelerate",
    "ingest.executor": "runtime.executor",
    "caption.endpoint": "runtime.caption.endpoint",
    "caption.api_key_variable": "runtime.caption.api_key_variable",
    "caption.concurrency": "runtime.caption.concurrency",
    "caption.timeout_seconds": "runtime.caption.timeout_seconds",
    "caption.retries": "runtime.caption.retries",
    "caption.token_budget": "runtime.caption.token_budget",
    "caption.price_per_million_tokens": "runtime.caption.price_per_million_tokens",
    "caption.shard_images": "runtime.caption.shard_images",
    "promote.familiar_fraction": "promote.in_distribution_quantile",
    **{
        f"finetune.{key}": f"finetune.flux_lora.{key}"
        for key in (
            *("imported", "imported_revision", "targets", "rank", "alpha", "steps", "epochs"),
            *("batch_tokens", "micro_batches", "learning_rate", "warmup_steps", "ema_decay"),
            *("maximum_gradient_norm", "guidance", "timestep_density", "base_dtype", "compile"),
        )
    },
    "finetune.text_policy": "finetune.flux_lora.prompt_padding",
    **{
        f"finetune.{key}": f"runtime.finetune.{key}"
        for key in (
            *("log_steps", "checkpoint_steps", "grid_steps", "gradient_checkpointing"),
            "text_cache",
        )
    },
    **{
        f"synthesize.{key}": f"synthesize.flux_lora.{key}"
        for key in ("steps", "guidance", "base_dtype", "compile")
    },
    "synthesize.folder": "synthesize.released.folder",
    "synthesize.bank": "synthesize.prompt_source",
}
"""Old name of a parameter -> its new one, for files written for an earlier version."""


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a parameter file; raise `InputError` when it is not valid.

    Unlike `parse`, also for a backbone or a captioner that is neither a folder here nor a hub id
    with a revision.
    """
    params = parse(read(path), str(path))
    try:
        params.caption.check_pinned(path.parent)
        if params.samples():
            params.backbone.check_pinned(path.parent)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return params


def read(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """The parameters as the file has them, unchecked; raise `InputError` where it holds none."""
    try:
        raw = yaml_file.read(path)
    except FileNotFoundError:
        raise InputError(
            f"there is no parameter file {path}; run the command in the repository root"
        ) from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no parameters; copy one from profiles/")
    return raw


def parse(raw: dict[str, Any], name: str = "params.yaml") -> Params:
    """Check parameters held in a plain dictionary; `name` stands in error messages."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise InputError(one_line(f"{name}: {_sentence(error.errors()[0])}")) from None


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        field = model.model_fields.get(part) or model.model_fields.get(f"{part}_")
        if field is None:
            return []
        # A subsection may be optional: `Model | None`.
        kinds = [field.annotation, *get_args(field.annotation)]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _sentence(error: Any) -> str:
    where = ".".join(one_line(part, 100) for part in error["loc"])
    if error["type"] == "extra_forbidden" and where in MOVED:
        return f"parameter {where!r} is called {MOVED[where]!r} now; move it there"
    if error["type"] == "extra_forbidden":
        known = _fields_at(error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1])[:100], known, n=1)
        hint = f"did you mean {quoted(close[0])}" if close else f"known here are {', '.join(known)}"
        return f"unknown parameter {quoted(where)}; {hint}"
    if error["type"] == "missing":
        return f"parameter {where!r} is missing; add it (profiles/paper.yaml shows every section)"
    if error["type"] == "invalid_key":
        return f"the key {where} is not text; put it in quotes"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where + ': ' if where else ''}{message}"
    limit = message.removeprefix("Input ")
    value = quoted(error["input"])
    return f"{where or 'it'} is {value} but {limit[0].lower()}{limit[1:]}; correct that value"
