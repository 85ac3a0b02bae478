"""A classifier by MLflow's address, anywhere: without params.yaml, and without a store of its own.

https://mlflow.org/docs/latest/ml/model-registry#fetching-an-mlflow-model-from-the-model-registry
"""

from __future__ import annotations

import re
from pathlib import Path

from dermaflux.errors import InputError, one_line
from dermaflux.registry import registry
from dermaflux.registry.files import downloads
from dermaflux.registry.serving import LesionClassifier
from dermaflux.tracking import runs, store


def load(address: str) -> tuple[LesionClassifier, str]:
    """The classifier at an address, and what to call it.

    `models:/NAME@ALIAS`, `models:/NAME/VERSION` and `runs:/...` are looked up in the store of
    `MLFLOW_TRACKING_URI`, or of the project around the working directory; `s3://...` and other
    addresses of MLflow's artefacts need no store, nor does a folder here: a downloaded model, or a
    classifier as `train` and the hub have it. Raises `InputError` where there is no classifier.
    """
    folder = Path(address)
    if folder.is_dir():
        return _open(folder, address), one_line(address, 300)
    if not re.match(r"[A-Za-z][\w+.-]*:", address):
        raise InputError(
            f"--model is {one_line(address, 300)}, which is no folder here; give one, or an "
            "address such as models:/lesion-vit@champion"
        )
    if address.startswith(("models:", "runs:")):
        _require_store(address)
    if version := re.fullmatch(r"models:/+([^/@]+)(?:@([^/]+)|/(\d+))", address):
        found = _version(*version.groups())
        return found.load(), found.title()
    return _open(_downloaded(address), address), one_line(address, 300)


def _require_store(address: str) -> None:
    """A look-up must not make an empty store in whatever folder it is called in."""
    file = store.sqlite_file(store.tracking_uri())
    if file is not None and not file.is_file():
        raise InputError(
            f"--model {one_line(address, 300)} is looked up in a registry, and there is none at "
            f"{file}; set {store.VARIABLE} to its address, or run the command in its project"
        )


def _version(name: str, alias: str | None, number: str | None) -> registry.RegisteredVersion:
    from mlflow.exceptions import MlflowException

    client = runs.connect()
    found, model = None, registry.find_model(client, name)
    if model is not None and alias is not None:
        number = model.aliases.get(alias)
    if model is not None and number is not None:
        try:
            found = client.get_model_version(name, str(number))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    if found is None:
        wanted = f"version {number}" if alias is None else f"alias {alias!r}"
        raise InputError(
            f"the registry at {store.tracking_uri()} has no model {name!r} with the {wanted}; "
            "name another one, or run `dermaflux register` in the project"
        )
    return registry.RegisteredVersion(name, str(found.version), dict(found.tags))


def _downloaded(address: str) -> Path:
    from mlflow.exceptions import MlflowException

    try:
        if address.startswith("runs:"):
            runs.connect()
        return downloads.fetch(address)
    except (MlflowException, OSError, ValueError) as error:
        raise InputError(
            f"--model {one_line(address, 300)} cannot be fetched ({store.reason(error)}); correct "
            "the address, or download it and give its folder"
        ) from None


def _open(folder: Path, address: str) -> LesionClassifier:
    from safetensors import SafetensorError

    stored = folder / "data" / registry.DATA
    folder = stored if stored.is_dir() else folder
    try:
        if not (folder / "config.json").is_file():
            raise OSError("it has no config.json")
        return LesionClassifier(folder)
    except (InputError, OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"--model {one_line(address, 300)} holds no classifier of dermaflux that can be loaded "
            f"({one_line(error, 200)}); give the folder of one, with config.json and "
            "model.safetensors, or a model that `dermaflux promote` registered"
        ) from None
