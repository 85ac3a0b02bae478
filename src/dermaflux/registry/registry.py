"""The MLflow model registry: its versions, how they are found and loaded, and their aliases.

A registered version is a pyfunc model whose data are a classifier folder as `train` wrote it, its
out-of-distribution detector (`registry.ood`) and MODEL_CARD.md: safetensors, JSON, CSV and
Markdown; nothing is pickled. Its loader is this module, so `mlflow models serve` and
`mlflow.pyfunc.load_model` run the same code as `dermaflux predict`; `registry.serving` describes
input and output, and `registry.files` writes and fetches the whole.

The alias `champion` is the version in use; `challenger` is the last candidate that lost to it. The
tag `champions` of the registered model lists the versions that were champion and were not rolled
back, oldest first; rollback follows it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import locked
from dermaflux.errors import InputError
from dermaflux.registry.files import downloads, pyfunc_model
from dermaflux.registry.serving import LesionClassifier
from dermaflux.tracking import mlflow_settings, store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

    from dermaflux.registry.ood import OODDetector

CHAMPION = "champion"
CHALLENGER = "challenger"
ROLLED_BACK = "rolled_back"
"""Tag of a version that `dermaflux rollback` took the alias from: its reason."""
CARD = "MODEL_CARD.md"
_TURN_SECONDS = 900.0  # a promotion fits a detector and stores the model
_CHAMPIONS = "champions"
DATA = "classifier"  # the classifier folder's name inside every registered model


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, without its artefacts."""

    name: str
    version: str
    tags: Mapping[str, str]
    description: str = ""

    def title(self) -> str:
        """Name, version and the cell that it was trained as."""
        return f"{self.name} version {self.version} ({self.tags.get('cell', 'of unknown origin')})"

    def folder(self) -> Path:
        """Its classifier folder, in the store or a download of it.

        Raises `InputError` when the artefacts cannot be read.
        """
        from mlflow.exceptions import MlflowException

        try:
            folder = downloads.fetch(self._data)
            if not (folder / "config.json").is_file():
                raise OSError(f"{folder} lacks config.json")
        except (MlflowException, OSError) as error:
            raise self.load_error(error) from None
        return folder

    @property
    def _data(self) -> str:
        return f"models:/{self.name}/{self.version}/data/{DATA}"

    def is_there(self) -> bool:
        """Whether its artefacts are in the store, without a download."""
        from mlflow.artifacts import list_artifacts
        from mlflow.exceptions import MlflowException

        try:
            listed = list_artifacts(artifact_uri=self._data)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return any(Path(entry.path).name == "config.json" for entry in listed)

    def load(self) -> LesionClassifier:
        """Its classifier; raises `InputError` when files are missing or damaged."""
        from safetensors import SafetensorError

        folder = self.folder()
        try:
            return LesionClassifier(folder)
        except (InputError, OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise self.load_error(error) from None

    def load_error(self, error: Exception) -> InputError:
        """The error to raise when the artefacts are missing or damaged."""
        problem = " ".join(str(error).split())
        problem = problem if len(problem) < 200 else f"{problem[:200]}..."
        return InputError(
            f"version {self.version} of {self.name} cannot be loaded ({problem}); restore its "
            "artefacts, go back with `dermaflux rollback`, or remove its alias in the MLflow UI "
            "(`make ui`) and run `dermaflux promote`"
        )


def lock() -> AbstractContextManager[Any]:
    """Lock to hold while aliases change, so that two workers take turns."""
    path = paths.project_root() / ".dermaflux" / "locks" / "promote.lock"
    return locked(path, "the registry's aliases cannot change", _TURN_SECONDS)


def champion(client: MlflowClient, name: str) -> RegisteredVersion | None:
    """The present champion of a registered model, or None when there is none."""
    model = find_model(client, name)
    number = None if model is None else model.aliases.get(CHAMPION)
    if number is None:
        return None
    version = client.get_model_version(name, number)
    return RegisteredVersion(name, str(number), dict(version.tags), version.description or "")


def find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """The registered model; None when it does not exist.

    Asked first: a server with permissions answers a question about an alias or a version of a
    model that does not exist with "forbidden".
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    return None


def require_writable(name: str) -> None:
    """Before work that costs: raise `InputError` for a server where this user may not promote.

    The model's description is written again as it stands; see `store.require_writable`.
    """
    if store.sqlite_file(store.tracking_uri()) is not None:
        return
    client = store.connect()
    with store.answering():
        model = find_model(client, name)
        if model is not None:
            client.update_registered_model(name, model.description)


def require_champion(client: MlflowClient, name: str) -> RegisteredVersion:
    """The present champion; raises `InputError` when there is none."""
    from dermaflux.tracking import runs

    present = champion(client, name)
    if present is None:
        raise InputError(
            f"the registry at {runs.tracking_uri()} has no model {name!r} with the alias "
            f"{CHAMPION!r}; run `dermaflux register`, after `dvc pull` in a fresh clone"
        )
    return present


def find_version(client: MlflowClient, name: str, output_hash: str) -> RegisteredVersion | None:
    """The newest readable version of the classifier with this hash, or None."""
    matches = client.search_model_versions(
        f"name = '{name}' and tags.output_hash = '{output_hash}'"
    )
    for match in sorted(matches, key=lambda match: -int(match.version)):
        # A search result may lack tags; the version itself has them.
        tags = dict(client.get_model_version(name, match.version).tags)
        version = RegisteredVersion(name, str(match.version), tags, match.description or "")
        if version.is_there():
            return version
    return None


def champion_history(
    client: MlflowClient, name: str, present: RegisteredVersion | None
) -> list[str]:
    """Versions that were champion and not rolled back, oldest first; `present` is the last.

    An alias that somebody moved by hand counts as the newest choice.
    """
    tag = client.get_registered_model(name).tags.get(_CHAMPIONS, "")
    history = [number for number in tag.split(",") if number]
    if present is not None and history[-1:] != [present.version]:
        history.append(present.version)
    return history


def set_champion(client: MlflowClient, name: str, history: Sequence[str]) -> None:
    """Make the last of a history of champions the champion, and remove the challenger alias.

    The alias moves last, so a process that dies in between leaves the old champion in place.
    """
    client.set_registered_model_tag(name, _CHAMPIONS, ",".join(history))
    if CHALLENGER in client.get_registered_model(name).aliases:
        try:
            client.delete_registered_model_alias(name, CHALLENGER)
        except Exception as error:
            # An account that may edit may not delete: then the last loser keeps its alias.
            if not store.refuses(error):
                raise
    client.set_registered_model_alias(name, CHAMPION, history[-1])


def _load_pyfunc(path: str) -> LesionClassifier:
    """Named in every registered model (`pyfunc_model.LOADER`)."""
    from dermaflux.registry import scoring

    scoring.install()
    return LesionClassifier(Path(path))


def register(
    client: MlflowClient,
    name: str,
    folder: Path,
    detector: OODDetector,
    card: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> RegisteredVersion:
    """Store a classifier folder as a new version, without an alias."""
    from mlflow.entities import LoggedModelStatus

    from dermaflux.registry import ood

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, dict(tags), model_type="pyfunc")
    with tempfile.TemporaryDirectory() as scratch:
        model, data = Path(scratch) / "model", Path(scratch) / DATA
        shutil.copytree(folder, data)
        ood.write(detector, data / ood.FILE)
        pyfunc_model.write(model, data, run_id, logged.model_id)
        (model / CARD).write_text(card, encoding="utf-8")
        with mlflow_settings.patience():
            client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    created = client.create_model_version(
        name,
        logged.artifact_location,
        run_id,
        tags=dict(tags),
        description=description,
        model_id=logged.model_id,
    )
    return RegisteredVersion(name, str(created.version), dict(tags), description)


def amend(
    client: MlflowClient, version: RegisteredVersion, tags: Mapping[str, str], description: str
) -> RegisteredVersion:
    """Give a version the tags and description that it does not have already."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)
    if version.description != description:
        client.update_model_version(version.name, version.version, description)
    return RegisteredVersion(version.name, version.version, {**version.tags, **tags}, description)


def create_model(client: MlflowClient, name: str) -> None:
    """Create the registered model unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, description="Skin-lesion classifier. Not a medical device."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
