"""Stage `promote`: the best ViT by validation AUC becomes the registry's champion if it is better.

Reads models/classifiers/ (weights and validation predictions) and corpus/ (training and validation
split); writes reports/promote.json and a version of the registered model: the champion when the
candidate wins (`classifiers.contest` holds the conditions), else the challenger, with the reason.

The test split plays no part. The registry is an input DVC does not see: the same candidates can be
promoted in a fresh store and found `unchanged` in a used one, so the report names cells and never
version numbers, run ids or times. A champion trained on other data is scored again on the present
validation images; should it have been trained on some of them, that favours the champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import lineage, promotion_test, registry
from dermaflux.registry.candidates import (
    Candidate,
    auc,
    candidates,
    champion_predictions,
    split_hash,
    validation_split,
)
from dermaflux.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

Decision = Literal["promoted", "kept", "unchanged", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """A decision, the sentence that gives its reason, and how it compares with the champion."""

    decision: Decision
    reason: str
    champion_auc: float | None = None
    promotion_test: promotion_test.Contest | None = None


def compare(
    candidate: Candidate, cell: str, rows: pd.DataFrame, split: pd.DataFrame, params: Params
) -> Verdict:
    """Hold the contest of candidate and champion on the same resamples of validation images.

    Whole groups of lesion or duplicate are drawn, within each class (`classifiers.bootstrap`).
    """
    from dermaflux.statistics import bootstrap

    settings = params.promote
    labels = split["malignant"].to_numpy().astype(int)
    members = bootstrap.groups(split.reset_index())
    weights = bootstrap.resamples(labels, members, settings.bootstrap_samples, params.seed)
    held = promotion_test.hold(
        labels,
        candidate.predictions["probability"].to_numpy(),
        rows["probability"].to_numpy(),
        weights,
        settings.specificity,
        settings.confidence,
    )
    won, why = promotion_test.verdict(held, settings.specificity, settings.sensitivity_tolerance)
    at = f"sensitivity at {settings.specificity:.0%} specificity"
    reason = (
        f"{candidate.name} against the champion {cell} on {len(rows):,} validation images has "
        f"{promotion_test.told(held.auc, 'AUC', settings.confidence)}; "
        f"{promotion_test.told(held.sensitivity, at, settings.confidence)}; {why}"
        f"{'' if won else ', so the champion stays'}"
    )
    return Verdict("promoted" if won else "kept", reason, held.auc.champion, held)


def decide(
    params: Params,
    best: Candidate,
    present: registry.Registered | None,
    known: registry.Registered | None,
    split: pd.DataFrame,
) -> Verdict:
    """Weigh the best candidate against the present champion.

    `known` is the version that holds the candidate already, if there is one. What was rolled back
    stays so until somebody moves the alias by hand, whatever its figures.
    """
    if known is not None and present is not None and known.version == present.version:
        reason = (
            f"{best.name}, the best candidate with validation AUC {best.auc:.4f}, is the champion "
            "already"
        )
        return Verdict("unchanged", reason, best.auc)
    if known is not None and registry.ROLLED_BACK in known.tags:
        why = known.tags[registry.ROLLED_BACK]
        reason = (
            f"{best.name}, the best candidate with validation AUC {best.auc:.4f}, was champion and "
            f"was rolled back ({why}); train another, or give it the alias {registry.CHAMPION!r} "
            "in `mlflow ui`"
        )
        before = auc(champion_predictions(present, split)) if present is not None else None
        return Verdict("kept", reason, before)
    if present is None:
        return Verdict(
            "promoted",
            f"{best.name} has the best validation AUC, {best.auc:.4f} on "
            f"{len(best.predictions):,} images, and there was no champion",
        )
    cell = present.tags.get("cell", "of unknown origin")
    return compare(best, cell, champion_predictions(present, split), split, params)


def _report(
    best: Candidate | None, present: registry.Registered | None, verdict: Verdict, params: Params
) -> dict[str, Any]:
    candidate, before = None, None
    if best is not None:
        candidate = {"cell": best.cell, "arm": best.arm, "validation_auc": best.auc}
    if present is not None:
        cell, _, arm = present.tags.get("cell", "unknown").partition("/")
        before = {"cell": cell, "arm": arm, "validation_auc": verdict.champion_auc}
    report: dict[str, Any] = {
        "decision": verdict.decision,
        "reason": verdict.reason,
        "candidate": candidate,
        "champion_before": before,
        "champion": candidate if verdict.decision == "promoted" else before,
    }
    if verdict.promotion_test is not None:
        for name, one in (
            ("", verdict.promotion_test.auc),
            ("sensitivity_", verdict.promotion_test.sensitivity),
        ):
            report[f"{name}difference"] = {
                "estimate": one.estimate,
                "low": one.low,
                "high": one.high,
            }
        report["specificity"] = params.promote.specificity
    return report


def _register(
    client: MlflowClient,
    run_id: str,
    params: Params,
    best: Candidate,
    known: registry.Registered | None,
    verdict: Verdict,
    split: pd.DataFrame,
) -> registry.Registered:
    """The version that holds the candidate, new or `known`, with the decision and its reason."""
    from dermaflux.registry import model_card

    name = params.promote.model_name
    tags = lineage.tags(client, params, best.cell, best.arm, best.folder)
    tags |= {"validation_auc": f"{best.auc:.6f}", "validation_hash": split_hash(split)}
    facts = lineage.gather(params, best.name, best.folder, split, tags, verdict.reason)
    version = known
    if version is None:
        familiar = lineage.familiar(best.folder, params)
        card = model_card.text(facts, best.predictions)
        version = registry.add(client, name, best.folder, familiar, card, run_id, tags)
    decided = {**tags, "decision": verdict.decision, "reason": verdict.reason}
    for key, value in decided.items():
        client.set_model_version_tag(name, version.version, key, value)
    client.update_model_version(name, version.version, model_card.short(facts))
    return version


def _act(
    client: MlflowClient,
    run_id: str,
    params: Params,
    best: Candidate,
    split: pd.DataFrame,
) -> tuple[Verdict, registry.Registered | None]:
    """Decide, register and move the alias; returns the champion there was before."""
    name = params.promote.model_name
    present = registry.champion(client, name)
    known = registry.find(client, name, runs.dvc_hash(best.folder))
    verdict = decide(params, best, present, known, split)
    if verdict.decision != "unchanged":
        registry.create(client, name)
        version = _register(client, run_id, params, best, known, verdict, split)
        if verdict.decision == "promoted":
            line = registry.champions(client, name, present)
            registry.set_champion(client, name, [*line, version.version])
        else:
            client.set_registered_model_alias(name, registry.CHALLENGER, version.version)
    client.set_registered_model_tag(name, "last_decision", f"{verdict.decision}: {verdict.reason}")
    return verdict, present


def run(params: Params) -> None:
    """Decide, record the reason, and register the candidate as champion or challenger.

    Two workers that promote at once take turns, so each sees the champion the other left.
    """
    settings = {**params.promote.model_dump(), "seeds": params.train.seeds}
    best, present, inputs = None, None, [paths.CORPUS]
    if params.train.labels == "malignancy":
        best = candidates(params)[0]
        inputs.append(best.folder)
        split = validation_split()
        if not split.index.equals(best.predictions.index):
            raise InputError(
                f"{best.folder}/validation.csv covers {len(best.predictions)} images but corpus/ "
                f"has {len(split)} for validation, or others; run `dvc repro` so that both agree"
            )
    with runs.start(mlflow_runs.TESTING, "promote", settings, inputs) as log:
        if best is None:
            verdict = Verdict(
                "skipped",
                "train.labels is diagnosis, and the registered model tells malignant from benign; "
                "set train.labels to malignancy for a champion",
            )
        else:
            with registry.lock():
                verdict, present = _act(log.client, log.run_id, params, best, split)
            log.metrics({"validation_auc": best.auc})
        log.tag("decision", verdict.decision)
        log.tag("reason", verdict.reason)
        write_json(paths.PROMOTE_REPORT, _report(best, present, verdict, params))
        log.outputs(paths.PROMOTE_REPORT)
    print(f"promote: {verdict.decision}: {verdict.reason}.")
