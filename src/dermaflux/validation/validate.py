"""Stage `validate`: the promises of corpus and captions, checked by Great Expectations.

Reads corpus/ and captions/ (metadata only); writes reports/validation/ (Data Docs, a static site)
and reports/validation.json, both also when an expectation fails. Run with `dermaflux validate`.
The later borders (synthetic shards, training mixture) call `check` where their stage crosses them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.validation import caption_suite, corpus_suite, data_docs
from dermaflux.validation.checks import Promise

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

_EXAMPLES = 5
_WARNS = " (a warning under this policy)"
_HINT = f"; see {paths.DATA_DOCS}/index.html and correct the data or the limits in params.yaml"


def run(params: Params) -> None:
    """Validate; raise `InputError` naming the first failed expectation and example rows."""
    corpus = _metadata(paths.CORPUS)
    captions = _metadata(paths.CAPTIONS)
    published = corpus_suite.as_published(params)
    frames = {
        "corpus": corpus_suite.with_derived_corpus(corpus, captions, published),
        "captions": caption_suite.with_derived(captions, corpus),
    }
    context = _context()
    sources = corpus["source"].dropna().unique() if "source" in corpus else ()
    promises = {
        "corpus": corpus_suite.corpus_promises(params, sources),
        "captions": caption_suite.promises(params),
    }
    results = {name: _validate(context, name, promises[name], frames[name]) for name in frames}
    with atomic_folder(paths.DATA_DOCS) as partial:
        data_docs.write(context, partial)
    failures = [one for name in frames for one in _broken(name, results[name], promises[name])]
    report = _report(results, failures, frames) | _caption_figures(paths.CAPTIONS)
    write_json(paths.VALIDATION_REPORT, report)
    for one in report["warnings"]:
        print(f"warning: {_sentence([one])}")
    if report["failed"]:
        raise InputError(_sentence(report["failed"]) + _HINT)


def check(suite: str, frame: pd.DataFrame, promises: Sequence[Promise]) -> int:
    """Hold one table to its promises; no files. Returns how many gave a warning.

    Raises `InputError` naming the first broken promise that stops and example rows; others print.
    """
    failures = broken(suite, frame, promises)
    for one in failures:
        if not one["stops"]:
            print(f"warning: {_sentence([one])}")
    if stopping := [one for one in failures if one["stops"]]:
        raise InputError(_sentence(stopping) + "; run the stages before this one again")
    return len(failures)


def broken(suite: str, frame: pd.DataFrame, promises: Sequence[Promise]) -> list[dict[str, Any]]:
    """Every failed expectation: name, what it asks, counts, example rows, whether it stops."""
    return _broken(suite, _validate(_context(), suite, promises, frame), promises)


def _metadata(folder: Path) -> pd.DataFrame:
    """Every column but the pixels; unlike `table.metadata`, of a table that breaks its contract."""
    import pyarrow.parquet as pq

    names = pq.read_schema(table.shards(folder)[0]).names
    return table.metadata(folder, [name for name in names if name != "image"])


def _context() -> EphemeralDataContext:
    # Read at import, so it has to be set before.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _validate(
    context: EphemeralDataContext, name: str, promises: Sequence[Promise], frame: pd.DataFrame
) -> ExpectationSuiteValidationResult:
    """Run one suite over one table."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    asset = context.data_sources.add_or_update_pandas("tables").add_dataframe_asset(name)
    suite = gx.ExpectationSuite(name=name, expectations=[_expectation(one) for one in promises])
    definition = gx.ValidationDefinition(
        name=name,
        data=asset.add_batch_definition_whole_dataframe("all rows"),
        suite=context.suites.add(suite),
    )
    return context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": ["image_id"],
            "partial_unexpected_count": _EXAMPLES,
        },
        run_id=RunIdentifier(run_name="validate", run_time=data_docs.RUN_TIME),
    )


def _expectation(promise: Promise) -> Expectation:
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    arguments = dict(promise.arguments)
    for column, value in (promise.where or {}).items():
        arguments["row_condition"] = Column(column) == value
    expectation: Expectation = getattr(gxe, promise.kind)(
        description=f"{promise.name}: {promise.asks}" + ("" if promise.stops else _WARNS),
        meta={"name": promise.name, "asks": promise.asks},
        severity="critical" if promise.stops else "warning",
        **arguments,
    )
    return expectation


def _broken(
    suite: str, result: ExpectationSuiteValidationResult, promises: Sequence[Promise]
) -> list[dict[str, Any]]:
    """Failures in the order of the promises, each with whether it `stops` the pipeline."""
    stops = {promise.name: promise.stops for promise in promises}
    failures = [_failure(suite, one) for one in _in_order(result, promises) if not one.success]
    return [{**one, "stops": stops[one["name"]]} for one in failures]


def _in_order(
    result: ExpectationSuiteValidationResult, promises: Sequence[Promise]
) -> list[ExpectationValidationResult]:
    """Results in the order of the promises: Great Expectations groups them by column."""
    place = {promise.name: number for number, promise in enumerate(promises)}
    return sorted(result.results, key=lambda one: place[_config(one).meta["name"]])


def _config(result: ExpectationValidationResult) -> ExpectationConfiguration:
    assert result.expectation_config is not None, "every result of a suite has its configuration"
    return result.expectation_config


def _report(
    results: dict[str, ExpectationSuiteValidationResult],
    broken: list[dict[str, Any]],
    frames: dict[str, pd.DataFrame],
) -> dict[str, Any]:
    """The content of reports/validation.json."""
    counts = {name: len(result.results) for name, result in results.items()}
    failed = [one for one in broken if one["stops"]]
    return {
        "success": not failed,
        "expectations": sum(counts.values()),
        "failures": len(failed),
        "suites": {
            name: {
                "expectations": counts[name],
                "failures": sum(one["suite"] == name for one in failed),
            }
            for name in results
        },
        "failed": failed,
        "warnings": [one for one in broken if not one["stops"]],
        "observed": _observed(frames["corpus"], frames["captions"]),
    }


def _failure(suite: str, result: ExpectationValidationResult) -> dict[str, Any]:
    """One failed expectation: its name, what it asks, what was found, and example rows."""
    found, config = result.result, _config(result)
    rows = found.get("partial_unexpected_index_list") or []
    details = found.get("details", {}).get("mismatched", {})
    return {
        "suite": suite,
        "name": config.meta["name"],
        "expectation": config.type,
        "asks": config.meta["asks"],
        "rows": found.get("unexpected_count", 0),
        "of": found.get("element_count"),
        "examples": sorted({str(row["image_id"]) for row in rows if "image_id" in row}),
        "values": [str(value) for value in found.get("partial_unexpected_list", [])],
        "observed": details if details else found.get("observed_value"),
        # An expectation on a column that is absent cannot be evaluated at all.
        "evaluated": bool(found),
    }


def _observed(corpus: pd.DataFrame, captions: pd.DataFrame) -> dict[str, Any]:
    """What the report and `dvc metrics` show."""
    out: dict[str, Any] = {"images": len(corpus), "captions": len(captions)}
    if {"split", "malignant"} <= set(corpus.columns):
        groups = corpus.groupby("split")["malignant"]
        out["images_per_split"] = {str(k): int(n) for k, n in groups.size().items()}
        out["malignant_fraction"] = {str(k): round(float(f), 4) for k, f in groups.mean().items()}
    if "shorter_side" in corpus and len(corpus):
        out["smallest_side"] = int(corpus["shorter_side"].min())
    if "characters" in captions and captions["characters"].notna().any():
        lengths = captions["characters"].dropna()
        out["caption_characters"] = {
            "shortest": int(lengths.min()),
            "median": float(lengths.median()),
            "longest": int(lengths.max()),
        }
    if {"captioner", "diameter_fraction"} <= set(captions.columns):
        measured = captions.loc[captions["captioner"] == "measured", "diameter_fraction"]
        out["lesion_not_found"] = int(measured.isna().sum())
    return out


def _caption_figures(folder: Path) -> dict[str, Any]:
    """What the stage `caption` found out about its table: faults, lengths, agreement."""
    file = folder / "figures.json"
    if not file.is_file():
        return {}
    return {"captions": json.loads(file.read_text(encoding="utf-8"))}


def _sentence(failed: Sequence[dict[str, Any]]) -> str:
    """The first failure, with rows; the others are counted."""
    first = failed[0]
    if first["examples"]:
        values = ", ".join(dict.fromkeys(first["values"]))
        found = (
            f"fails for {first['rows']} of {first['of']} rows, "
            f"such as {', '.join(first['examples'])} ({values})"
        )
    elif not first["evaluated"]:
        found = "could not be evaluated, because a column it needs is missing"
    else:
        found = f"fails, with {first['observed']} found"
    others = f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
    return (
        f"expectation {first['name']!r} of the {first['suite']} suite, that {first['asks']}, "
        f"{found}{others}"
    )
