"""The MLflow model registry: what a version holds, how it is stored, found and loaded.

A registered version is a pyfunc model whose data are a classifier folder as `train` wrote it, what
it is familiar with (`classifiers.familiarity`) and MODEL_CARD.md: safetensors, JSON, CSV and
Markdown; nothing is pickled. Its loader is this module, so `mlflow models serve` and
`mlflow.pyfunc.load_model` run the same code as `dermaflux predict`; `classifiers.served` tells what
goes in and out.

The alias `champion` is the version in use; `challenger` is the last candidate that lost to it. The
tag `champions` of the registered model lists the versions that were champion and were not rolled
back, oldest first, which is the way back.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.registry.serving import COLUMNS, Served

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pandas as pd
    from mlflow import MlflowClient

    from dermaflux.registry.ood import Familiarity

CHAMPION = "champion"
CHALLENGER = "challenger"
ROLLED_BACK = "rolled_back"
"""Tag of a version that `dermaflux rollback` took the alias from: its reason."""
CARD = "MODEL_CARD.md"
_CHAMPIONS = "champions"
_DATA = "classifier"  # the classifier folder's name inside every registered model
_DEPENDENCIES = (
    "mlflow", "numpy", "pandas", "pillow", "pyarrow", "safetensors", "scipy", "timm", "torch"
)  # fmt: skip


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, without its artefacts."""

    name: str
    version: str
    tags: Mapping[str, str]

    def folder(self) -> Path:
        """Its classifier folder, in the store or a download of it.

        Raises `InputError` when the artefacts cannot be read.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            model = Path(download_artifacts(artifact_uri=f"models:/{self.name}/{self.version}"))
            found = model / "data" / _DATA
            if not (found / "config.json").is_file():
                raise OSError(f"{found} lacks config.json")
        except (MlflowException, OSError) as error:
            raise self.unusable(error) from None
        return found

    def load(self) -> Served:
        """Its classifier; raises `InputError` when files are missing or damaged."""
        from safetensors import SafetensorError

        folder = self.folder()
        try:
            return Served(folder)
        except (InputError, OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise self.unusable(error) from None

    def unusable(self, error: Exception) -> InputError:
        """What to tell when the artefacts are missing or damaged."""
        problem = " ".join(str(error).split())
        problem = problem if len(problem) < 200 else f"{problem[:200]}..."
        return InputError(
            f"version {self.version} of {self.name} cannot be loaded ({problem}); restore its "
            f"artefacts, go back by `dermaflux rollback`, or take its alias away in `mlflow ui` "
            "and run `dermaflux promote`"
        )


def lock() -> AbstractContextManager[Any]:
    """Held while aliases change, so that two workers take turns."""
    from filelock import FileLock

    return FileLock(paths.project_root() / "mlruns" / ".promote.lock")


def champion(client: MlflowClient, name: str) -> Registered | None:
    """The present champion of a registered model, or None when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Registered(name, str(found.version), dict(found.tags))


def the_champion(client: MlflowClient, name: str) -> Registered:
    """The present champion; raises `InputError` when there is none."""
    from dermaflux.tracking import runs

    found = champion(client, name)
    if found is None:
        raise InputError(
            f"the registry at {runs.tracking_uri()} has no model {name!r} with the alias "
            f"{CHAMPION!r}; run `dvc repro`, or `dermaflux promote` after `dvc pull`"
        )
    return found


def find(client: MlflowClient, name: str, output_hash: str) -> Registered | None:
    """The newest version that holds the classifier of this hash and can be read, or None."""
    found = client.search_model_versions(f"name = '{name}' and tags.output_hash = '{output_hash}'")
    for one in sorted(found, key=lambda one: -int(one.version)):
        # What a search returns may lack tags; the version itself has them.
        tags = dict(client.get_model_version(name, one.version).tags)
        version = Registered(name, str(one.version), tags)
        try:
            version.folder()
        except InputError:
            continue
        return version
    return None


def champions(client: MlflowClient, name: str, present: Registered | None) -> list[str]:
    """Versions that were champion and not rolled back, oldest first; `present` is the last.

    An alias that somebody moved by hand counts as the newest choice.
    """
    listed = client.get_registered_model(name).tags.get(_CHAMPIONS, "")
    found = [number for number in listed.split(",") if number]
    if present is not None and found[-1:] != [present.version]:
        found.append(present.version)
    return found


def set_champion(client: MlflowClient, name: str, line: Sequence[str]) -> None:
    """Make the last of a line of champions the champion, and no challenger of what it replaces.

    The alias moves last, so a process that dies on the way leaves the old champion in place.
    """
    client.set_registered_model_tag(name, _CHAMPIONS, ",".join(line))
    if CHALLENGER in client.get_registered_model(name).aliases:
        client.delete_registered_model_alias(name, CHALLENGER)
    client.set_registered_model_alias(name, CHAMPION, line[-1])


def _load_pyfunc(path: str) -> Served:
    return Served(Path(path))


def _example() -> pd.DataFrame:
    """One flat skin-coloured picture: shows the input's form and holds nobody's image."""
    import pandas as pd
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (128, 128), (205, 160, 140)).save(file, "PNG")
    return pd.DataFrame({"image": [file.getvalue()]})


def _write_model(path: Path, folder: Path, card: str, run_id: str, model_id: str) -> None:
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

    import dermaflux

    kinds = (DataType.double, DataType.string, DataType.boolean, DataType.string)
    mlflow.pyfunc.save_model(
        path,
        loader_module=__name__,
        data_path=str(folder),
        code_paths=[str(Path(dermaflux.__file__).parent)],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema(
                [
                    ColSpec(kind, name, required=False)
                    for kind, name in zip(kinds, COLUMNS, strict=True)
                ]
            ),
        ),
        input_example=_example(),
        pip_requirements=[f"{name}=={version(name)}" for name in _DEPENDENCIES],
    )
    (path / CARD).write_text(card, encoding="utf-8")


def add(
    client: MlflowClient,
    name: str,
    folder: Path,
    familiar: Familiarity,
    card: str,
    run_id: str,
    tags: Mapping[str, str],
) -> Registered:
    """Store a classifier folder as a new version, without an alias."""
    from mlflow.entities import LoggedModelStatus

    from dermaflux.registry import ood

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, dict(tags), model_type="pyfunc")
    with tempfile.TemporaryDirectory() as scratch:
        model, data = Path(scratch) / "model", Path(scratch) / _DATA
        shutil.copytree(folder, data)
        ood.write(familiar, data / ood.FILE)
        _write_model(model, data, card, run_id, logged.model_id)
        client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    create(client, name)
    created = client.create_model_version(
        name, logged.artifact_location, run_id, tags=dict(tags), model_id=logged.model_id
    )
    return Registered(name, str(created.version), dict(tags))


def create(client: MlflowClient, name: str) -> None:
    """Make the registered model when it is absent."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, description="Skin-lesion classifier. Not a medical device."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
