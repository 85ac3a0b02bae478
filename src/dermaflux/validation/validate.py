"""Stage `validate`: checks corpus and captions with Great Expectations.

Reads corpus/ and captions/ (metadata only); writes reports/validation/ (Data Docs, a static site)
and reports/validation.json, both also when an expectation fails. Run with `dermaflux validate`.
The suites of the synthetic pool and of the training mixture call `check`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, read_json, write_json
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.validation import caption_suite, corpus_suite, data_docs
from dermaflux.validation.checks import Check

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
_WARNING_NOTE = " (a warning under this policy)"
_HINT = f"; see {paths.DATA_DOCS}/index.html and correct the data or the limits in params.yaml"


def run(params: Params) -> None:
    """Validate; raise `InputError` naming the first failed expectation and example rows."""
    corpus = _metadata(paths.CORPUS)
    captions = _metadata(paths.CAPTIONS)
    published = corpus_suite.as_published(params)
    frames = {
        "corpus": corpus_suite.with_derived_columns(corpus, captions, published),
        "captions": caption_suite.with_derived_columns(captions, corpus),
    }
    context = _context()
    suites = {
        "corpus": corpus_suite.checks(params, corpus),
        "captions": caption_suite.checks(params),
    }
    results = {name: _validate(context, name, suites[name], frames[name]) for name in frames}
    with atomic_folder(paths.DATA_DOCS) as partial:
        data_docs.write(context, partial)
    failures = [
        failure for name in frames for failure in _failures(name, results[name], suites[name])
    ]
    report = _report(results, failures, frames) | _caption_figures(paths.CAPTIONS)
    write_json(paths.VALIDATION_REPORT, report)
    for warning in report["warnings"]:
        print(f"warning: {_sentence([warning])}")
    if report["failed"]:
        raise InputError(_sentence(report["failed"]) + _HINT)
    count = sum(len(checks) for checks in suites.values())
    warnings = len(report["warnings"])
    print(
        f"validate: {count - warnings} of {count} expectations hold on {len(corpus):,} images and "
        f"{len(captions):,} captions, {warnings} warn; Data Docs in {paths.DATA_DOCS}"
    )


def check(suite: str, frame: pd.DataFrame, checks: Sequence[Check]) -> int:
    """Check one table, without writing files. Returns how many checks gave a warning.

    Raises `InputError` naming the first blocking failure and example rows; prints the others.
    """
    failed = failures(suite, frame, checks)
    for failure in failed:
        if not failure["blocking"]:
            print(f"warning: {_sentence([failure])}")
    if blocking := [failure for failure in failed if failure["blocking"]]:
        raise InputError(_sentence(blocking) + "; run the stages before this one again")
    return len(failed)


def failures(suite: str, frame: pd.DataFrame, checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Every failed check: name, description, counts, example rows, whether it is blocking."""
    return _failures(suite, _validate(_context(), suite, checks, frame), checks)


def _metadata(folder: Path) -> pd.DataFrame:
    """Every column but the pixels, also of a table whose columns are not those of its contract."""
    return table.metadata(folder, [name for name in table.columns(folder) if name != "image"])


def _context() -> EphemeralDataContext:
    # Great Expectations reads it when imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _validate(
    context: EphemeralDataContext, name: str, checks: Sequence[Check], frame: pd.DataFrame
) -> ExpectationSuiteValidationResult:
    """Run one suite over one table."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    asset = context.data_sources.add_or_update_pandas("tables").add_dataframe_asset(name)
    suite = gx.ExpectationSuite(name=name, expectations=[_expectation(check) for check in checks])
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


def _expectation(check: Check) -> Expectation:
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    arguments = dict(check.arguments)
    for column, value in (check.row_condition or {}).items():
        arguments["row_condition"] = Column(column) == value
    note = "" if check.blocking else _WARNING_NOTE
    expectation: Expectation = getattr(gxe, check.expectation)(
        description=f"{check.name}: {check.description}{note}",
        meta={"name": check.name, "description": check.description},
        severity="critical" if check.blocking else "warning",
        **arguments,
    )
    return expectation


def _failures(
    suite: str, result: ExpectationSuiteValidationResult, checks: Sequence[Check]
) -> list[dict[str, Any]]:
    """Failures in the order of the checks, each with whether it is `blocking`."""
    blocking = {check.name: check.blocking for check in checks}
    failed = [_failure(suite, item) for item in _in_order(result, checks) if not item.success]
    return [{**failure, "blocking": blocking[failure["name"]]} for failure in failed]


def _in_order(
    result: ExpectationSuiteValidationResult, checks: Sequence[Check]
) -> list[ExpectationValidationResult]:
    """Results in the order of the checks: Great Expectations groups them by column."""
    position = {check.name: index for index, check in enumerate(checks)}
    return sorted(result.results, key=lambda item: position[_config(item).meta["name"]])


def _config(result: ExpectationValidationResult) -> ExpectationConfiguration:
    assert result.expectation_config is not None, "every result of a suite has its configuration"
    return result.expectation_config


def _report(
    results: dict[str, ExpectationSuiteValidationResult],
    failures: list[dict[str, Any]],
    frames: dict[str, pd.DataFrame],
) -> dict[str, Any]:
    """The content of reports/validation.json."""
    counts = {name: len(result.results) for name, result in results.items()}
    failed = [failure for failure in failures if failure["blocking"]]
    return {
        "success": not failed,
        "expectations": sum(counts.values()),
        "failures": len(failed),
        "suites": {
            name: {
                "expectations": counts[name],
                "failures": sum(failure["suite"] == name for failure in failed),
            }
            for name in results
        },
        "failed": failed,
        "warnings": [failure for failure in failures if not failure["blocking"]],
        "observed": _observed(frames["corpus"], frames["captions"]),
    }


def _failure(suite: str, result: ExpectationValidationResult) -> dict[str, Any]:
    """One failed expectation: its name, its description, the observed value and example rows."""
    details, config = result.result, _config(result)
    rows = details.get("partial_unexpected_index_list") or []
    mismatched = details.get("details", {}).get("mismatched", {})
    missing = ", ".join(f"no {value}" for value in details.get("partial_missing_list") or ())
    return {
        "suite": suite,
        "name": config.meta["name"],
        "expectation": config.type,
        "description": config.meta["description"],
        "rows": details.get("unexpected_count", 0),
        "of": details.get("element_count"),
        "examples": sorted({str(row["image_id"]) for row in rows if "image_id" in row}),
        "values": [str(value) for value in details.get("partial_unexpected_list", [])],
        "observed": mismatched or missing or details.get("observed_value"),
        # An expectation on an absent column cannot be evaluated at all.
        "evaluated": bool(details),
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
    """Figures that the stage `caption` wrote about its table: faults, lengths, agreement."""
    file = folder / "figures.json"
    return {"captions": read_json(file, "the stage caption", "captions")} if file.is_file() else {}


def _sentence(failed: Sequence[dict[str, Any]]) -> str:
    """The first failure, with rows; the others are counted."""
    first = failed[0]
    if first["examples"]:
        values = ", ".join(dict.fromkeys(first["values"]))
        outcome = (
            f"fails for {first['rows']} of {first['of']} rows, "
            f"such as {', '.join(first['examples'])} ({values})"
        )
    elif not first["evaluated"]:
        outcome = "could not be evaluated, because a column it needs is missing"
    else:
        observed = "no such row" if first["observed"] is None else first["observed"]
        outcome = f"fails, with {observed} observed"
    others = f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
    return (
        f"expectation {first['name']!r} of the {first['suite']} suite, that "
        f"{first['description']}, {outcome}{others}"
    )
