"""Stage `promote`: the best ViT by validation AUC becomes the registry's champion if it is better.

Reads models/classifiers/ (weights and validation predictions) and corpus/ (the validation split);
writes reports/promote.json and, when the candidate wins, a version of the registered model.

The test split plays no part. The registry is an input DVC does not see: the same candidates can be
promoted in a fresh store and found `unchanged` in a used one, so the report names cells and never
version numbers, run ids or times. A champion trained on other data is scored again on the present
validation images; should it have been trained on some of them, that favours the champion.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermaflux import paths, table, tracking
from dermaflux.checkpoints import fingerprint
from dermaflux.classifiers import registry
from dermaflux.errors import InputError
from dermaflux.params import Params

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

Decision = Literal["promoted", "kept", "unchanged"]


@dataclass(frozen=True)
class Candidate:
    """A trained classifier of one cell and arm, with its validation predictions."""

    cell: str
    arm: str
    folder: Path
    predictions: pd.DataFrame
    """Indexed by image_id: `malignant` (bool) and `probability` in [0, 1]."""
    auc: float


@dataclass(frozen=True)
class Verdict:
    """A decision, the sentence that gives its reason, and the champion's AUC before it."""

    decision: Decision
    reason: str
    champion_auc: float | None = None
    difference: tuple[float, float, float] | None = None
    """AUC of the candidate minus the champion's: estimate, lower and upper limit."""


def predictions(folder: Path) -> pd.DataFrame:
    """Validation predictions of a classifier folder, indexed and sorted by image_id."""
    import pandas as pd

    path = folder / "validation.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro train`, or `dvc pull`")
    read = pd.read_csv(path, dtype={"image_id": str, "label": str}).set_index("image_id")
    read["malignant"] = read["label"].isin(["malignant", "1"])
    return read[["malignant", "probability"]].sort_index()


def auc(rows: pd.DataFrame) -> float:
    """Area under the ROC curve of a prediction table."""
    from dermaflux.classifiers import metrics

    return metrics.auc(rows["malignant"].to_numpy().astype(int), rows["probability"].to_numpy())


def candidates(params: Params) -> list[Candidate]:
    """Every trained cell of `promote.architecture`, best validation AUC first, ties by name."""
    found = []
    for seed in params.train.seeds:
        cell = paths.cell(params.promote.architecture, seed)
        for arm in params.train.arms:
            folder = paths.CLASSIFIERS / cell / arm
            rows = predictions(folder)
            found.append(Candidate(cell, arm, folder, rows, auc(rows)))
    return sorted(found, key=lambda item: (-item.auc, item.cell, item.arm))


def validation_split() -> pd.DataFrame:
    """Labelled validation images of the corpus, indexed and sorted by image_id."""
    columns = ["image_id", "source", "label", "split", "sha256", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "validation")
    rows = rows[rows["label"].isin(["benign", "malignant"])]
    return rows.assign(malignant=rows["label"] == "malignant").set_index("image_id").sort_index()


def split_hash(split: pd.DataFrame) -> str:
    """Fingerprint of which validation images there are, their labels and their pixels."""
    return fingerprint(
        images=split.index.to_list(),
        malignant=[bool(value) for value in split["malignant"]],
        sha256=split["sha256"].to_list(),
    )


def rescore(folder: Path, split: pd.DataFrame) -> pd.DataFrame:
    """Predictions of a classifier folder on the present validation images."""
    import pandas as pd

    from dermaflux.classifiers import samples, supervised

    model, config = supervised.load(folder)
    rows, images = samples.load_split(paths.CORPUS, "validation", config["image_size"])
    scores = pd.Series(
        supervised.probabilities(model, config, images.pixels), index=rows["image_id"]
    )
    return split[["malignant"]].assign(probability=scores)


def difference_interval(
    candidate: pd.DataFrame, champion: pd.DataFrame, split: pd.DataFrame, params: Params
) -> tuple[float, float]:
    """Percentile interval of the AUC difference, both scored on the same resamples of images.

    Whole groups of lesion or duplicate are drawn, within each class (`classifiers.bootstrap`).
    """
    from dermaflux.classifiers import bootstrap, metrics

    labels = split["malignant"].to_numpy().astype(int)
    members = bootstrap.groups(split.reset_index())
    weights = bootstrap.resamples(labels, members, params.promote.bootstrap_samples, params.seed)
    ours, theirs = (
        metrics.bootstrap_auc(labels, rows["probability"].to_numpy(), weights)
        for rows in (candidate, champion)
    )
    return bootstrap.interval(ours - theirs, params.promote.confidence)


def compare(
    candidate: Candidate, cell: str, rows: pd.DataFrame, split: pd.DataFrame, params: Params
) -> Verdict:
    """Promote only if the interval of the paired AUC difference lies above zero."""
    low, high = difference_interval(candidate.predictions, rows, split, params)
    confidence = params.promote.confidence
    before = auc(rows)
    estimate = candidate.auc - before
    numbers = (
        f"validation AUC {candidate.auc:.4f} against {before:.4f} of the champion {cell} on "
        f"{len(rows)} images: difference {estimate:+.4f}, {confidence:.0%} interval "
        f"[{low:+.4f}, {high:+.4f}]"
    )
    name = f"{candidate.cell}/{candidate.arm}"
    difference = (estimate, low, high)
    if low > 0:
        return Verdict("promoted", f"{name} has {numbers}, above zero", before, difference)
    side = "lies below zero" if high < 0 else "holds zero"
    reason = f"{name} has {numbers}, which {side}, so the champion stays"
    return Verdict("kept", reason, before, difference)


def decide(
    params: Params, best: Candidate, present: registry.Champion | None, split: pd.DataFrame
) -> Verdict:
    """Weigh the best candidate against the present champion."""
    if present is None:
        return Verdict(
            "promoted",
            f"{best.cell}/{best.arm} has the best validation AUC, {best.auc:.4f} on "
            f"{len(best.predictions)} images, and there was no champion",
        )
    cell = present.tags.get("cell", "of unknown origin")
    if present.tags.get("output_hash") == tracking.dvc_hash(best.folder):
        reason = (
            f"{best.cell}/{best.arm}, the best candidate with validation AUC {best.auc:.4f}, "
            "is the champion already"
        )
        return Verdict("unchanged", reason, best.auc)
    same = present.tags.get("validation_hash") == split_hash(split)
    rows = predictions(present.folder) if same else rescore(present.folder, split)
    return compare(best, cell, rows, split, params)


def _train_run(client: MlflowClient, folder: Path, output_hash: str) -> str | None:
    """Id of the run that wrote the classifier, found by the hash of what it wrote."""
    experiment = client.get_experiment_by_name("training")
    if experiment is None:
        return None
    for path, value in ((folder, output_hash), (folder.parent, tracking.dvc_hash(folder.parent))):
        found = client.search_runs(
            [experiment.experiment_id],
            f"tags.`output.{path.as_posix()}` = '{value}'",
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
    return None


def _tags(client: MlflowClient, best: Candidate, split: pd.DataFrame) -> dict[str, str]:
    output_hash = tracking.dvc_hash(best.folder)
    tags = {
        "cell": f"{best.cell}/{best.arm}",
        "validation_auc": f"{best.auc:.6f}",
        "validation_hash": split_hash(split),
        "output_hash": output_hash,
        "data_hash": tracking.dvc_hash(paths.CORPUS),
        "git_revision": tracking.git_revision(),
    }
    if paths.GENERATOR.is_dir():
        tags["generator_hash"] = tracking.dvc_hash(paths.GENERATOR)
    if "DVC_EXP_NAME" in os.environ:
        tags["DVC_EXP_NAME"] = os.environ["DVC_EXP_NAME"]
    train_run = _train_run(client, best.folder, output_hash)
    return tags if train_run is None else {**tags, "train_run_id": train_run}


def _report(best: Candidate, present: registry.Champion | None, verdict: Verdict) -> dict[str, Any]:
    candidate = {"cell": best.cell, "arm": best.arm, "validation_auc": best.auc}
    before = None
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
    if verdict.difference is not None:
        report["difference"] = dict(
            zip(("estimate", "low", "high"), verdict.difference, strict=True)
        )
    return report


def run(params: Params) -> None:
    """Decide, record the reason, and register when the candidate wins.

    Two workers that promote at once take turns, so each sees the champion the other left.
    """
    from filelock import FileLock

    best = candidates(params)[0]
    split = validation_split()
    if not split.index.equals(best.predictions.index):
        raise InputError(
            f"{best.folder}/validation.csv covers {len(best.predictions)} images but corpus/ has "
            f"{len(split)} for validation, or others; run `dvc repro` so that both agree"
        )
    settings = {**params.promote.model_dump(), "seeds": params.train.seeds}
    name = params.promote.model_name
    inputs = [paths.CORPUS, best.folder]
    with tracking.start("classifier", "promote", settings, inputs) as log:
        with FileLock(paths.project_root() / "mlruns" / ".promote.lock"):
            present = registry.champion(log.client, name)
            verdict = decide(params, best, present, split)
            if verdict.decision == "promoted":
                tags = _tags(log.client, best, split)
                registry.register(log.client, name, best.folder, log.run_id, tags, verdict.reason)
            log.client.set_registered_model_tag(
                name, "last_decision", f"{verdict.decision}: {verdict.reason}"
            )
        log.metrics({"validation_auc": best.auc})
        log.tag("decision", verdict.decision)
        log.tag("reason", verdict.reason)
        table.write_json(paths.PROMOTE_REPORT, _report(best, present, verdict))
        log.outputs(paths.PROMOTE_REPORT)
    print(f"promote: {verdict.decision}: {verdict.reason}.")
