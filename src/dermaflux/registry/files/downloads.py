"""Artefacts of MLflow as folders here, removed when the process ends."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from dermaflux.tracking import store


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Of this process's downloads; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="dermaflux-models-")


@functools.cache
def _downloaded(address: str, store_uri: str) -> Path:
    """Another store may answer an address with another model."""
    from mlflow.artifacts import download_artifacts

    folder = tempfile.mkdtemp(dir=_scratch().name)
    return Path(download_artifacts(artifact_uri=address, dst_path=folder))


def fetch(address: str) -> Path:
    """A folder by MLflow's address: in place in the store of a checkout, else one download of it.

    Addresses but `models:/...` and `runs:/...` need no store. Raises what MLflow raises.
    """
    from mlflow.artifacts import download_artifacts

    store_uri = store.tracking_uri() if address.startswith(("models:", "runs:")) else ""
    if store.sqlite_file(store_uri) is None:
        return _downloaded(address, store_uri)
    return Path(download_artifacts(artifact_uri=address))
