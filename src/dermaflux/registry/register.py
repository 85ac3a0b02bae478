"""`dermaflux register`: the champion of `reports/promote.json` becomes that of this registry.

A clone brings the decision of `promote` in git and the classifier through DVC, and no registry. So
what was decided is registered here as it stands, without deciding again: another registry may hold
another champion, and the answer would then be another one. Reads reports/promote.json,
models/classifiers/ and corpus/; writes a version and the alias `champion`, or nothing where it is
the champion already.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core.files import damaged, read_json
from dermaflux.errors import InputError, quoted
from dermaflux.params import Params
from dermaflux.registry import lineage, registry
from dermaflux.registry.candidates import (
    Candidate,
    auc,
    check_images,
    predictions,
    split_hash,
    validation_split,
)
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient


def add(
    client: MlflowClient,
    run_id: str,
    params: Params,
    best: Candidate,
    known: registry.RegisteredVersion | None,
    decided: tuple[str, str],
    split: pd.DataFrame,
) -> registry.RegisteredVersion:
    """The version of a candidate, new or `known`, tagged with a decision and its reason."""
    from dermaflux.registry import model_card

    name, (decision, reason) = params.promote.model_name, decided
    tags = lineage.tags(client, params, best.cell, best.arm, best.folder)
    tags |= {"validation_auc": f"{best.auc:.6f}", "validation_hash": split_hash(split)}
    facts = lineage.card_facts(params, best.name, best.folder, split, dict(tags), reason)
    tags |= {"decision": decision, "reason": reason}
    description = model_card.summary(facts)
    if known is not None:
        return registry.amend(client, known, tags, description)
    detector = lineage.fit_ood_detector(best.folder, params)
    card = model_card.render(facts, best.predictions)
    return registry.register(client, name, best.folder, detector, card, run_id, tags, description)


@store.answering()
def run(params: Params) -> None:
    """Make the reported champion this registry's; raises `InputError` where it is not at hand."""
    report = paths.PROMOTE_REPORT
    candidate, reason = _reported(params)
    client, name = runs.connect(), params.promote.model_name
    store.require_writable(mlflow_runs.TESTING)
    registry.require_writable(name)
    split = validation_split(params)
    check_images(candidate, split)
    with registry.lock():
        present = registry.champion(client, name)
        known = registry.find_version(client, name, runs.dvc_hash(candidate.folder))
        if known is not None and present is not None and known.version == present.version:
            print(f"register: {candidate.name} of {report} is the champion of {name} already.")
            return
        if known is not None and registry.ROLLED_BACK in known.tags:
            raise InputError(
                f"{candidate.name} of {report} was champion of {name} and was rolled back "
                f"({known.tags[registry.ROLLED_BACK]}); give version {known.version} the alias "
                f"{registry.CHAMPION!r} in the MLflow UI (`make ui`), or run `dermaflux promote`"
            )
        inputs = [paths.CORPUS, candidate.folder]
        with runs.start(
            mlflow_runs.TESTING, "register", params.promote.model_dump(), inputs
        ) as log:
            registry.create_model(client, name)
            decided = ("registered", reason)
            version = add(client, log.run_id, params, candidate, known, decided, split)
            line = registry.champion_history(client, name, present)
            registry.set_champion(client, name, [*line, version.version])
            said = f"{candidate.name} is the champion, as {report} says: {reason}"
            client.set_registered_model_tag(name, "last_decision", f"registered: {said}")
            log.tag("decision", "registered")
            log.tag("reason", reason)
    before = f" instead of version {present.version}" if present is not None else ""
    print(
        f"register: {candidate.name} of {report} is version {version.version} of {name} and its "
        f"champion{before}."
    )


def _reported(params: Params) -> tuple[Candidate, str]:
    """The champion that reports/promote.json names, from models/classifiers/, and the reason."""
    report = paths.PROMOTE_REPORT
    content = read_json(report, "promote")
    try:
        named, reason = content["champion"], str(content["reason"])
        if named is None:
            raise InputError(
                f"{report} names no champion ({reason}); run `dermaflux promote` after `dvc repro`"
            )
        cell, arm = str(named["cell"]), str(named["arm"])
        stated = float(named["validation_auc"])
    except (KeyError, TypeError, ValueError):
        raise damaged(report, "it names no cell and arm", "promote") from None
    folder = paths.CLASSIFIERS / cell / arm
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{report} names {quoted(f'{cell}/{arm}')} as champion but {folder} is not here; run "
            "`dvc pull` or `dvc repro`"
        )
    rows = predictions(folder)
    found = auc(rows)
    if not math.isclose(found, stated, abs_tol=1e-9):
        raise InputError(
            f"{folder} has validation AUC {found:.6f} but {report} says {stated:.6f} of it, so "
            "they are of different runs; run `git status` and `dvc checkout`, or `dvc repro`"
        )
    return Candidate(cell, arm, folder, rows, found), reason
