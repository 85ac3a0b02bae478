"""Rollback: `dermaflux rollback` returns the alias `champion` to the version that had it before.

Reads and writes only the registry. The version that loses the alias is tagged with the reason, and
`promote` does not make it champion again; a person can, in the MLflow UI (`make ui`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import registry
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient


@store.answering()
def run(params: Params, reason: str) -> None:
    """Go back by one champion; raises `InputError` when there is none to go back to."""
    client = runs.connect()
    name = params.promote.model_name
    registry.require_writable(name)
    with registry.lock():
        present = registry.require_champion(client, name)
        history = registry.champion_history(client, name, present)[:-1]
        before = _newest(client, name, history)
        if before is None:
            raise InputError(
                f"version {present.version} of {name} is the first champion, so there is none to "
                "go back to; run `dermaflux promote` with a better candidate"
            )
        before.load()
        change = (
            f"version {before.version} ({before.tags.get('cell', 'of unknown origin')}) is champion"
            f" of {name} again instead of version {present.version} "
            f"({present.tags.get('cell', 'of unknown origin')}): {reason}"
        )
        # The tag comes first: without it, `promote` would give the alias back.
        client.set_model_version_tag(name, present.version, registry.ROLLED_BACK, reason)
        if registry.ROLLED_BACK in before.tags:
            client.delete_model_version_tag(name, before.version, registry.ROLLED_BACK)
        registry.set_champion(client, name, history[: history.index(before.version) + 1])
        client.set_registered_model_tag(name, "last_decision", f"rolled back: {change}")
    print(f"rollback: {change}.")


def _newest(
    client: MlflowClient, name: str, history: list[str]
) -> registry.RegisteredVersion | None:
    """The last version of a history of champions that was not deleted."""
    from mlflow.exceptions import MlflowException

    for number in reversed(history):
        try:
            version = client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue
        return registry.RegisteredVersion(name, str(version.version), dict(version.tags))
    return None
