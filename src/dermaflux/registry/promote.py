"""Stage `promote`: the best ViT by validation AUC becomes the registry's champion if it is better.

Reads models/classifiers/ (weights and validation predictions) and corpus/ (training and validation
split); writes reports/promote.json and a version of the registered model: the champion when the
candidate passes the test of `registry.promotion_test`, otherwise the challenger, with the reason.

The test split is not used. The registry is an input that DVC does not track: the same candidate can
be promoted in a fresh store and be `unchanged` in a used one, so the report names cells and never
version numbers, run ids or times. A champion trained on other data is evaluated again on the
present validation images; if it was trained on some of them, that favours the champion.
The best of many candidates is better by luck, too; `registry.promotion_test` allows for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.registry import promotion_test, register, registry
from dermaflux.registry.candidates import (
    Candidate,
    auc,
    candidates,
    champion_predictions,
    check_images,
    validation_split,
)
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from mlflow import MlflowClient

Decision = Literal["promoted", "kept", "unchanged", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """A decision, its reason as a sentence, and the comparison with the champion."""

    decision: Decision
    reason: str
    champion_auc: float | None = None
    comparison: promotion_test.Comparison | None = None


def compare(
    ranked: Sequence[Candidate],
    cell: str,
    rows: pd.DataFrame,
    split: pd.DataFrame,
    params: Params,
) -> Outcome:
    """Test the first of `ranked` against the champion `cell`, whose predictions are `rows`.

    Whole lesions or duplicate groups are resampled within each class (`statistics.bootstrap`). That
    the candidate was chosen from all of `ranked` on these images widens the interval of its gain.
    """
    import numpy as np

    from dermaflux.statistics import bootstrap

    settings = params.promote
    labels = split["malignant"].to_numpy().astype(int)
    members = bootstrap.groups(split.reset_index())
    weights = bootstrap.resamples(labels, members, settings.bootstrap_samples, params.seed)
    comparison = promotion_test.compare(
        labels,
        np.stack([candidate.predictions["probability"].to_numpy() for candidate in ranked]),
        rows["probability"].to_numpy(),
        weights,
        settings.specificity,
        settings.confidence,
    )
    passed, why = promotion_test.decide(
        comparison, settings.specificity, settings.sensitivity_tolerance
    )
    operating_point = f"sensitivity at {settings.specificity:.0%} specificity"
    differences = "; ".join(
        promotion_test.format_difference(difference, metric, settings.confidence, number)
        for difference, metric, number in (
            (comparison.auc, "AUC", comparison.candidates),
            (comparison.sensitivity, operating_point, 1),
        )
    )
    reason = (
        f"{ranked[0].name} against the champion {cell} on {len(rows):,} validation images has "
        f"{differences}; {why}{'' if passed else ', so the champion stays'}"
    )
    decision: Decision = "promoted" if passed else "kept"
    return Outcome(decision, reason, comparison.auc.champion, comparison)


def decide(
    params: Params,
    ranked: Sequence[Candidate],
    present: registry.RegisteredVersion | None,
    known: registry.RegisteredVersion | None,
    split: pd.DataFrame,
) -> Outcome:
    """Decide between the first of `ranked`, the best candidate, and the present champion.

    `known` is the version that already contains the candidate, if any. A version that was rolled
    back stays so until somebody moves the alias by hand, whatever its metrics.
    """
    best = ranked[0]
    if known is not None and present is not None and known.version == present.version:
        reason = (
            f"{best.name}, the best candidate with validation AUC {best.auc:.4f}, is already the "
            "champion"
        )
        return Outcome("unchanged", reason, best.auc)
    if known is not None and registry.ROLLED_BACK in known.tags:
        why = known.tags[registry.ROLLED_BACK]
        reason = (
            f"{best.name}, the best candidate with validation AUC {best.auc:.4f}, was champion and "
            f"was rolled back ({why}); train another, or give it the alias {registry.CHAMPION!r} "
            "in the MLflow UI (`make ui`)"
        )
        before = auc(champion_predictions(present, split)) if present is not None else None
        return Outcome("kept", reason, before)
    if present is None:
        return Outcome(
            "promoted",
            f"{best.name} has the best validation AUC, {best.auc:.4f} on "
            f"{len(best.predictions):,} images, and there was no champion",
        )
    cell = present.tags.get("cell", "of unknown origin")
    return compare(ranked, cell, champion_predictions(present, split), split, params)


def _report(
    best: Candidate | None,
    present: registry.RegisteredVersion | None,
    outcome: Outcome,
    params: Params,
) -> dict[str, Any]:
    candidate, before = None, None
    if best is not None:
        candidate = {"cell": best.cell, "arm": best.arm, "validation_auc": best.auc}
    if present is not None:
        cell, _, arm = present.tags.get("cell", "unknown").partition("/")
        before = {"cell": cell, "arm": arm, "validation_auc": outcome.champion_auc}
    report: dict[str, Any] = {
        "decision": outcome.decision,
        "reason": outcome.reason,
        "candidate": candidate,
        "champion_before": before,
        "champion": candidate if outcome.decision == "promoted" else before,
    }
    if outcome.comparison is not None:
        for prefix, difference in (
            ("", outcome.comparison.auc),
            ("sensitivity_", outcome.comparison.sensitivity),
        ):
            report[f"{prefix}difference"] = {
                "estimate": difference.estimate,
                "low": difference.low,
                "high": difference.high,
            }
        report["candidates"] = outcome.comparison.candidates
        report["specificity"] = params.promote.specificity
    return report


def _act(
    client: MlflowClient,
    run_id: str,
    params: Params,
    ranked: Sequence[Candidate],
    split: pd.DataFrame,
) -> tuple[Outcome, registry.RegisteredVersion | None]:
    """Decide, register and move the alias; also returns the champion before the decision."""
    name, best = params.promote.model_name, ranked[0]
    present = registry.champion(client, name)
    known = registry.find_version(client, name, runs.dvc_hash(best.folder))
    outcome = decide(params, ranked, present, known, split)
    if outcome.decision != "unchanged":
        registry.create_model(client, name)
        decided = (outcome.decision, outcome.reason)
        version = register.add(client, run_id, params, best, known, decided, split)
        if outcome.decision == "promoted":
            line = registry.champion_history(client, name, present)
            registry.set_champion(client, name, [*line, version.version])
        else:
            client.set_registered_model_alias(name, registry.CHALLENGER, version.version)
    client.set_registered_model_tag(name, "last_decision", f"{outcome.decision}: {outcome.reason}")
    return outcome, present


@store.answering()
def run(params: Params) -> None:
    """Decide, record the reason, and register the candidate as champion or challenger.

    Two workers that promote at the same time take turns, so each sees the other's champion.
    """
    settings = {**params.promote.model_dump(), "seeds": params.train.seeds}
    ranked: list[Candidate] = []
    best, present, inputs = None, None, [paths.CORPUS]
    store.require_writable(mlflow_runs.TESTING)
    if params.train.labels == "malignancy":
        registry.require_writable(params.promote.model_name)
        ranked = candidates(params)
        best = ranked[0]
        inputs.append(best.folder)
        split = validation_split(params)
        for candidate in ranked:
            check_images(candidate, split)
    with runs.start(mlflow_runs.TESTING, "promote", settings, inputs) as log:
        if best is None:
            outcome = Outcome(
                "skipped",
                "train.labels is diagnosis, but the registered model separates malignant from "
                "benign; set train.labels to malignancy for a champion",
            )
        else:
            with registry.lock():
                outcome, present = _act(log.client, log.run_id, params, ranked, split)
            log.metrics({"validation_auc": best.auc})
        log.tag("decision", outcome.decision)
        log.tag("reason", outcome.reason)
        write_json(paths.PROMOTE_REPORT, _report(best, present, outcome, params))
        log.outputs(paths.PROMOTE_REPORT)
    print(f"promote: {outcome.decision}: {outcome.reason}.")
