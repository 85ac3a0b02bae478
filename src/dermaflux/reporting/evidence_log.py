"""What the page's first screen says, as metrics and tags of MLflow runs, and as metrics of DVC.

Written on the parent, over all seeds, of each architecture's arm `mixture`: the run that holds the
mean AUC of what is compared. `figures` and `compared` are pure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.reporting import effect_table, evidence_section
from dermaflux.reporting.effect_table import Row
from dermaflux.reporting.evidence_section import Said
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.exchange_rate import Amount
from dermaflux.tracking import runs, seed_runs, store

GAIN = "AUC_gain"
CEILING = "AUC_gain_ceiling"
DETECTABLE = "AUC_gain_detectable"
EQUIVALENT = "equivalent_real_images"
EACH = "equivalent_real_images_per_synthetic"
_WITH_INTERVAL = (GAIN, CEILING, EQUIVALENT, EACH)
METRICS = (
    DETECTABLE,
    *(f"{name}{end}" for name in _WITH_INTERVAL for end in ("", "_low", "_high")),
)
"""All that can be logged."""
TAGS = (
    *("verdict", "finding", "evidence.seeds", f"{EQUIVALENT}.bound", f"{EACH}.bound"),
    *(f"{name}.missing" for name in (*_WITH_INTERVAL, DETECTABLE)),
)


def figures(
    params: Params, architecture: str, rows: Sequence[Row], said: Mapping[str, Said]
) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics, and tags with words: the verdict, and of each metric that is missing why.

    Both are empty without the arms real and mixture. Open ends of intervals are left out.
    """
    row = effect_table.question(rows, architecture)
    if row is None:
        return {}, {}
    metrics = _effect(GAIN, row.effect)
    tags = {
        "verdict": row.verdict,
        "finding": str(effect_table.answer(rows, architecture)),
        "evidence.seeds": ", ".join(map(str, params.train.seeds)),
    }
    if row.detectable is None:
        tags[f"{DETECTABLE}.missing"] = evidence_section.why_no_power(row.effect)
    else:
        metrics[DETECTABLE] = row.detectable
    seen = said[architecture].evidence if architecture in said else None
    if seen is not None and seen.ceiling is not None:
        metrics |= _effect(CEILING, seen.ceiling)
    else:
        tags[f"{CEILING}.missing"] = evidence_section.why_no_ceiling(params, architecture)
    if seen is None or seen.rate is None or not seen.rate.told:
        reason = evidence_section.why_no_rate(params, seen)
        tags |= {f"{name}.missing": reason for name in (EQUIVALENT, EACH)}
        return metrics, tags
    for name, amount in ((EQUIVALENT, seen.rate.worth), (EACH, seen.rate.each)):
        metrics |= _amount(name, amount)
        if amount.bound:
            tags[f"{name}.bound"] = amount.bound
    return metrics, tags


def compared(
    params: Params,
    results: Mapping[str, Any],
    audit: Mapping[str, Any],
    promote: Mapping[str, Any],
) -> dict[str, Any]:
    """The few figures that a person compares experiments by: those of reports/metrics.json.

    Per architecture the mean of the headline metric in the arms real and mixture, what was gained
    and what a synthetic image was worth; a figure that could not be told is left out. `results` are
    those of `classifier_section.build`; `audit` and `promote` are these stages' reports, or empty.
    """
    shown: dict[str, Any] = {}
    for architecture in params.architectures():
        means, name = results["means"], results["headline"]
        told, tags = figures(params, architecture, results["effects"], results["said"])
        bound = {EACH} if f"{EACH}.bound" in tags else set()  # no figure, only limits
        ends = [f"{metric}{end}" for metric in (GAIN, EACH) for end in ("", "_low", "_high")]
        shown[architecture] = {
            f"{name}_{arm}": means[architecture, arm].value
            for arm in ("real", "mixture")
            if (architecture, arm) in means
        } | {
            metric.replace("AUC", name): told[metric]
            for metric in (*ends, DETECTABLE)
            if metric in told.keys() - bound
        }
    shown["audit"] = {name: audit[name] for name in ("kid", "memorised_count") if name in audit}
    champion = promote.get("champion") or {}
    return shown | {"champion": {"validation_auc": champion.get("validation_auc")}}


def _effect(name: str, effect: Effect) -> dict[str, float]:
    limits = {f"{name}_low": effect.low, f"{name}_high": effect.high}
    return {name: effect.value, **(limits if effect.has_interval else {})}


def _amount(name: str, amount: Amount) -> dict[str, float]:
    limits = {f"{name}_low": amount.low, f"{name}_high": amount.high}
    return {name: amount.value} | {key: end for key, end in limits.items() if end is not None}


def log(params: Params, results: Mapping[str, Any]) -> None:
    """Add the figures to the runs; `results` are those of `classifier_section.build`.

    A store that fails, or that lacks the runs, is told in one sentence: the page has it all.
    """
    found = {
        name: figures(params, name, results["effects"], results["said"])
        for name in params.architectures()
    }
    try:
        absent = _send(params, {name: each for name, each in found.items() if each[1]})
    except InputError as error:
        _tell(f"{error}; the page is complete, and MLflow lacks its evidence")
    else:
        if absent:
            _tell(
                f"the MLflow store has no run of these evaluations of {' and '.join(absent)}, so "
                "their evidence is on the page alone; `dvc repro --force` evaluates them again"
            )


def _send(
    params: Params, found: Mapping[str, tuple[dict[str, float], dict[str, str]]]
) -> list[str]:
    """Architectures without a run."""
    file = store.sqlite_file(store.tracking_uri())
    if file is not None and not file.is_file():
        return list(found)
    absent = []
    with store.answering():
        client = runs.connect()
        for architecture, (metrics, tags) in found.items():
            cell = paths.cell(architecture, params.train.seeds[0])
            evaluation = paths.EVALUATIONS / f"{cell}.json"
            parent = seed_runs.above_writer(client, mlflow_runs.TESTING, evaluation, "mixture")
            if parent is None:
                absent.append(architecture)
                continue
            page = {f"output.{paths.REPORT_PAGE.as_posix()}": runs.dvc_hash(paths.REPORT_PAGE)}
            seed_runs.amend(client, parent, metrics, tags | page, (*METRICS, *TAGS))
    return absent


def _tell(text: str) -> None:
    print(f"tracking: {text}", file=sys.stderr, flush=True)
