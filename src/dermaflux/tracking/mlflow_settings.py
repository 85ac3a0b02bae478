"""How MLflow behaves in a stage: how long it waits for a server, and what it may print.

No call waits longer than half a minute, unless `MLFLOW_HTTP_REQUEST_...` say so or it stores large
files, with `patience`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dermaflux.errors import redacted

WAITS = {
    # Two attempts of 12 s; MLflow's own defaults wait for a quarter of an hour.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "12",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_UPLOAD_SECONDS = "600"


def user_waits() -> bool:
    """Whether the user has set how long a call waits, and how often it is made again."""
    return any(os.environ.get(name, value) != value for name, value in WAITS.items())


def set_up() -> None:
    """Let the environment and the logs be so; what the user has set stays."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # Its lines "View run ... at" hold the address with its password.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name, value in WAITS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # These repeat what `Run` and `unavailable` say in one sentence.
    for name in ("urllib3.connectionpool", "mlflow.system_metrics", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for handler in (*logging.getLogger("mlflow").handlers, logging.lastResort):
        if handler is not None and _hide not in handler.filters:
            handler.addFilter(_hide)


def _hide(record: logging.LogRecord) -> bool:
    record.msg, record.args = redacted(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
    return True


@contextmanager
def patience() -> Iterator[None]:
    """Give a server minutes to store large files, unless the user has set a time."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    if before == WAITS[name]:
        os.environ[name] = _UPLOAD_SECONDS
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
