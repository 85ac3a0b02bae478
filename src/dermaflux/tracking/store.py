"""Where the MLflow store is, how it is reached, and what is said when it does not answer.

The store is `mlruns/mlflow.db` with artefacts in `mlruns/artifacts` of the main checkout, unless
`MLFLOW_TRACKING_URI` names another. A lock is held for a local database only: two processes that
migrate one fresh SQLite file at a time break each other. A server has eight seconds for its first
answer, unless the user waits longer (`mlflow_settings`).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core.files import locked
from dermaflux.errors import InputError, quoted, redacted
from dermaflux.paths import project_root
from dermaflux.tracking import mlflow_settings, moved_checkout

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
_LOCK_SECONDS = 120.0  # a fresh database takes 10 s to migrate on a busy machine
_ANSWER_SECONDS = 8.0
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the UI mistakes an experiment for one about language models and opens their page."""
_LIBRARIES = ("mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "alembic")
_answered: set[str] = set()


def tracking_uri() -> str:
    """Address of the store; SQLite in the main checkout unless the environment names another.

    A relative path is one of the main checkout: a temporary copy for an experiment is removed.
    """
    return _address(VARIABLE) or f"sqlite:///{project_root() / 'mlruns' / 'mlflow.db'}"


def _address(variable: str) -> str | None:
    value = os.environ.get(variable, "").strip()
    if re.fullmatch(r"sqlite(\+\w+)?:/*(:memory:)?(\?.*)?", value):
        raise InputError(
            f"{variable} is {quoted(value)}, a store in memory that ends with the process; name a "
            "file, such as sqlite:///mlruns/mlflow.db, or unset it"
        )
    sqlite = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(\?.*)?", value)
    if sqlite:
        start, path, options = sqlite.groups(default="")
        return f"{start}{project_root() / Path(path).expanduser()}{options}"
    if not value or value == "databricks" or re.match(r"(?!file:)[A-Za-z][\w+.-]+:", value):
        return value or None
    return _folder(variable, value)


def _folder(variable: str, value: str) -> str:
    """A store of files, which MLflow only uses when told to."""
    path = Path(re.sub(r"^file:(//)?", "", value)).expanduser()
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InputError(
            f"{variable} is {quoted(value)}, a path and no address; write sqlite:///{path}"
        )
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        raise InputError(
            f"{variable} is {quoted(value)}, a folder, which MLflow no longer accepts as a store; "
            "unset it for mlruns/mlflow.db of this checkout, or set MLFLOW_ALLOW_FILE_STORE=true"
        )
    return (project_root() / path).as_uri()


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]) if match else None


def exclusive(uri: str, purpose: str) -> AbstractContextManager[None]:
    """The lock of an SQLite store; nothing for a server, which takes care of itself."""
    file = sqlite_file(uri)
    if file is None:
        return nullcontext()
    return locked(file.parent / f".{purpose}.lock", f"{file} cannot be used", _LOCK_SECONDS)


def connect() -> MlflowClient:
    """A client on the store, which has answered. Parallel workers wait for the first to create it.

    Raises `InputError`, within ten seconds, for a store that cannot be reached or used.
    """
    uri = tracking_uri()
    patient = mlflow_settings.user_waits()
    mlflow_settings.set_up()
    import mlflow

    mlflow.set_tracking_uri(uri)
    if registry := _address("MLFLOW_REGISTRY_URI"):
        mlflow.set_registry_uri(registry)

    def ask() -> MlflowClient:
        client = mlflow.MlflowClient(uri, registry)
        client.search_experiments(max_results=1)
        return client

    with exclusive(uri, "initialise"):
        try:
            file, root = sqlite_file(uri), project_root()
            if file is not None:
                if file == root / "mlruns" / "mlflow.db":
                    moved_checkout.follow(file, root)
                client = ask()
            elif re.match(r"(postgresql|mysql|mssql|oracle)\b", uri):
                _within(_ANSWER_SECONDS, lambda: _ping(uri), uri)
                client = ask()  # may create tables, for longer
            else:
                client = ask() if patient else _within(_ANSWER_SECONDS, ask, uri)
        except InputError:
            raise
        except Exception as error:
            raise unavailable(error) from None
    _answered.add(uri)
    return client


def require_writable(experiment: str) -> None:
    """Before work that costs: raise `InputError` for a server that takes no runs from this user.

    A file opens later. MLflow tells nobody what an account may do, so the experiment's kind is
    written again as it stands.
    """
    if sqlite_file(tracking_uri()) is not None:
        return
    client = connect()
    with answering():
        key = experiment_id(client, experiment)
        for name, value in _KIND.items():
            client.set_experiment_tag(key, name, value)


def refuses(error: BaseException) -> bool:
    """Whether a server answered that this account may not do this, or that it knows none."""
    return re.search(r"HTTP 40[13]", reason(error)) is not None


def has_answered() -> bool:
    """Whether this process has used the store before: then its failure stops no work."""
    return tracking_uri() in _answered


def rejects(error: BaseException) -> bool:
    """Whether the store will never take a call: its name is invalid, or its file too large."""
    from mlflow.exceptions import MlflowException

    if reason(error) == "HTTP 413":  # of a proxy, or of MLflow
        return True
    if not isinstance(error, MlflowException) or "failed with error code" in str(error):
        return False  # not an answer of MLflow: no connection, a proxy, no permission
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return 400 <= status < 500 and status not in (401, 403, 408, 429)


def _ping(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _within(seconds: float, call: Callable[[], Any], uri: str) -> Any:
    """The call's result; `InputError` after `seconds`, even while a server sends byte by byte."""
    results: list[Any] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="store", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _sentence(uri, f"no answer within {seconds:g} s")
    return results[0]


def unavailable(error: Exception) -> InputError:
    """What to say of an exception of MLflow or of what it uses; the address is redacted."""
    return _sentence(tracking_uri(), reason(error))


def _sentence(uri: str, why: str) -> InputError:
    # Redacted before it is cut: half a password is a password, too.
    address = redacted(uri)[:200]
    if sqlite_file(uri) is not None:
        return InputError(
            f"the MLflow store {address} cannot be used ({why}); restore the file, or move it away "
            "and run the stage again, which makes a new one"
        )
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if re.search(r"HTTP 403", why) and user:
        return InputError(
            f"the MLflow store at {address} does not let the user {quoted(user)} do this ({why}); "
            "ask its administrator for EDIT on the experiment or the registered model, or set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of another account"
        )
    if re.search(r"HTTP 40[13]|authenticat", why):
        return InputError(
            f"the MLflow store at {address} refuses access ({why}); set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may write"
        )
    return InputError(
        f"the MLflow store at {address} cannot be used ({why}); start that server, correct "
        f"{VARIABLE}, or unset it for the store of this checkout"
    )


def reason(error: BaseException) -> str:
    """The cause of an exception in a few words, without passwords."""
    text = redacted(" ".join(str(error).split()))
    if status := re.search(
        r"(?:error code|too many|failed with status code) (\d{3})|(\d{3}) (?:Client|Server) Error",
        text,
    ):
        return f"HTTP {status[1] or status[2]}"
    if system := re.findall(r"\[Errno -?\d+\] ([\w ,]+)", text):
        return str(system[-1]).strip()
    if re.search(r"timed? ?out", text, re.IGNORECASE):
        return f"no answer within {os.environ.get('MLFLOW_HTTP_REQUEST_TIMEOUT')} s"
    if "valid JSON" in text or "Expecting value" in text:
        return "its answer is not one of MLflow"
    text = re.split(r"Response body|\(Background on this error", text)[0].strip(" .:;")
    text = re.sub(r"^\([\w.]+\) ", "", text)
    return text[:200] or type(error).__name__


@contextmanager
def answering() -> Iterator[None]:
    """Turn exceptions of MLflow and its libraries into one `InputError`; also a decorator."""
    try:
        yield
    except Exception as error:
        if not any(kind.__module__.split(".")[0] in _LIBRARIES for kind in type(error).__mro__):
            raise
        raise unavailable(error) from None


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of an experiment, created when absent."""
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    with exclusive(uri, "initialise"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None
            if sqlite_file(uri) is not None:
                location = (project_root() / "mlruns" / "artifacts" / name).as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=location, tags=_KIND))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)  # another machine was first
            assert experiment is not None
        for key in _KIND.keys() - experiment.tags.keys():
            client.set_experiment_tag(experiment.experiment_id, key, _KIND[key])
        return str(experiment.experiment_id)
