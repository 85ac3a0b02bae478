"""Stage `report`: one self-contained page about everything the pipeline produced.

Reads corpus/, captions/, synthetic/, models/ (hashes and the loss curve), reports/ and grids/;
writes reports/index.html with all images, charts and scripts inlined, reports/metrics.json with
what `dvc exp show` and `dvc metrics diff` compare, and reports/data_card.md. None contains a time,
a run id or a path of this machine, so equal inputs give equal bytes; MLflow runs are identified by
the hash of their outputs. `report.runs` adds ids and hours of the runs in the store at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core import files, table
from dermaflux.core.files import write_json, write_text
from dermaflux.params import Params
from dermaflux.params.arms import TITLES, colour, title
from dermaflux.reporting import (
    classifier_section,
    counts,
    data_card,
    evidence_log,
    images,
    pages,
    plots,
    zero_shot_section,
)
from dermaflux.reporting.bundle import libraries
from dermaflux.reporting.charts import curves, intervals
from dermaflux.reporting.charts.spec import Chart
from dermaflux.reporting.faithfulness import tables as faithfulness_tables
from dermaflux.reporting.gallery import captions, tiles
from dermaflux.reporting.lineage import artefacts, ledger
from dermaflux.reporting.pages import Missing, part, scalars
from dermaflux.reporting.published import tables
from dermaflux.tracking import runs

PAPER = {
    "title": "DermaFlux-ViT as published",
    "images": "2,500 real + 4,375 synthetic",
    "auc": 0.859,
    "accuracy": 0.7804,
}
"""DermaFlux, section 3.3: the best published classifier, on about 9,100 other test images."""
_OWN_PARTS = ("classes", "fidelity", "held_out", "predicted_source", "ratio", "reasons")
"""Parts of reports/audit.json that the audit's section places; any other has a section of its own:
`sections/audit/KEY.html`, or a table of its figures without one."""


def read_json(path: Path) -> dict[str, Any]:
    """A report of an earlier stage, empty when that stage has not run."""
    if not path.is_file():
        return {}
    return files.read_json(path, "`dvc repro`")


def bayes_auc() -> float | None:
    """The best AUC that any classifier can reach; known for the phantom corpus only."""
    value = read_json(paths.INGEST_REPORT).get("bayes_auc")
    with files.reading(paths.INGEST_REPORT, "`dvc repro ingest`"):
        return None if value is None else float(value)


def _training() -> dict[str, Any]:
    """What the generator reports of itself, and its curves where it was trained here."""
    import pandas as pd

    facts = scalars(read_json(paths.GENERATOR / "finetune.json"))
    path, held_out = paths.GENERATOR / "loss.csv", paths.GENERATOR / "validation_loss.csv"
    if not path.is_file():
        return {"facts": facts, "held_out": []}
    rows = files.read_csv(path, "the stage finetune", ("step", "loss"))
    checks = pd.DataFrame()
    if held_out.is_file():
        checks = files.read_csv(
            held_out, "the stage finetune", ("step", "validation_loss"), may_be_empty=True
        )
    points = (
        (checks["step"].to_list(), checks["validation_loss"].to_list()) if len(checks) else ([], [])
    )
    steps, losses = rows["step"].to_list(), rows["loss"].to_list()
    return {
        "facts": facts,
        "curve": plots.curve(steps, losses, "loss", points),
        "chart": curves.training(steps, losses, points),
        "steps": int(rows["step"].max()),
        "held_out": points[1],
    }


def _pool() -> dict[str, Any]:
    """Synthetic images per class, and how they were chosen; no class without a pool."""
    if not tiles.synthetic_exists():
        return {"synthetic": {}, "total": 0, "chosen": ""}
    counted = counts.synthetic()
    return {"synthetic": dict(counted), "total": int(counted.sum()), "chosen": counts.chosen()}


def _audit() -> dict[str, Any]:
    """The audit's report, its comparisons, and the parts that have sections of their own."""
    report = read_json(paths.AUDIT_REPORT)
    shown = {name: value for name, value in report.items() if name != "fidelity"}
    own = {
        name: value
        for name, value in report.items()
        if isinstance(value, dict) and name not in _OWN_PARTS
    }
    comparisons = read_json(paths.AUDIT_FIDELITY).get("rows", [])
    with files.reading(paths.AUDIT_FIDELITY, "`dvc repro audit`"):
        chart = intervals.fidelity(comparisons)
    return {
        "report": report,
        "comparisons": comparisons,
        "chart": chart,
        "rows": scalars({name: value for name, value in shown.items() if name not in own}),
        "parts": {name: scalars(value) for name, value in own.items()},
        "nearest": images.file_uri(paths.AUDIT_FIGURES / "nearest.png"),
        "faithfulness": faithfulness_tables.build(report),
        "separability_image": images.file_uri(paths.AUDIT_FIGURES / "separability.png"),
    }


def _papers(params: Params, results: dict[str, Any], audit: Any) -> dict[str, list[tables.Table]]:
    fidelity = {} if isinstance(audit, Missing) else audit["report"].get("fidelity", {})
    return tables.papers(params, results["over_seeds"], fidelity, params.evaluate.confidence)


def _charts(results: dict[str, Any], audit: Any, training: Any, papers: Any) -> dict[str, Chart]:
    """Every chart of the page by the name under which its template places it."""
    charts = dict(results["charts"])
    for name, section in (("fidelity", audit), ("training", training)):
        if not isinstance(section, Missing) and section.get("chart") is not None:
            charts[name] = section["chart"]
    for own in () if isinstance(papers, Missing) else papers.values():
        for each in own:
            if (chart := intervals.published(each)) is not None:
                charts[f"published-{each.grid}"] = chart
    return charts


def _gallery(params: Params) -> tiles.Gallery:
    return tiles.gallery(params.report.grid_images, read_json(paths.REJECTED).get("rejected"))


def _parameters(params: Params) -> dict[str, Any]:
    """Section -> its parameters, nested names joined by dots; not what changes only speed."""
    parameters = params.model_dump(by_alias=True, exclude={"runtime"})
    return {
        name: runs.flat(value) if isinstance(value, dict) else value
        for name, value in parameters.items()
    }


def render(params: Params) -> str:
    """The page as HTML text."""
    return _page(params, classifier_section.build(params, bayes_auc()))


def _page(params: Params, results: dict[str, Any]) -> str:
    audit, training, made = part(_audit), part(_training), artefacts.found(params)
    papers = part(_papers, params, results, audit)
    work = part(ledger.read, made) if params.report.runs else {}
    known_work = {} if isinstance(work, Missing) else work
    values: dict[str, Any] = {
        "params": params,
        "level": params.evaluate.confidence,
        "corpus": counts.corpus(),
        "splits": table.SPLITS,
        "classes": counts.CLASSES,
        "results": results,
        "zero_shot": part(_zero_shot, params, results["cells"]),
        "columns": results["columns"],
        "pool": part(_pool),
        "gallery": part(_gallery, params),
        "captions": part(captions.examples),
        "measured": captions.MEASURED,
        "training": training,
        "auditing": audit,
        "papers": papers,
        "pretraining": part(read_json, paths.PRETRAIN_REPORT),
        "pretraining_grid": images.file_uri(paths.PRETRAIN_FIGURES / "grid.png"),
        "validation": part(read_json, paths.VALIDATION_REPORT),
        "promote": part(read_json, paths.PROMOTE_REPORT),
        "artefacts": made,
        "work": work,
        "links": artefacts.links(params, made, known_work),
        "stages": ledger.stages(known_work),
        "sections": _parameters(params),
        "arms": {arm: title(arm) for arm in (*TITLES, *params.arms())},
        "colours": {arm: colour(arm) for arm in (*TITLES, *params.arms())},
        "paper": PAPER,
        "charts": _charts(results, audit, training, papers),
        "libraries": libraries,
    }
    environment = pages.environment(Path(__file__).parent)
    environment.filters["scalars"] = scalars
    environment.filters["chart_data"] = lambda found: {
        name: chart.data() for name, chart in found.items()
    }
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    return environment.get_template("page.html").render(**values)


def _zero_shot(params: Params, cells: Any) -> dict[str, Any] | None:
    return zero_shot_section.build(params, read_json(paths.ZERO_SHOT_REPORT), cells)


def run(params: Params) -> None:
    """Write the page, what DVC compares and the data card; print the page's path, tell MLflow."""
    results = classifier_section.build(params, bayes_auc())
    page = _page(params, results)
    write_text(paths.REPORT_PAGE, page)
    audit, promote = read_json(paths.AUDIT_REPORT), read_json(paths.PROMOTE_REPORT)
    write_json(paths.COMPARED, evidence_log.compared(params, results, audit, promote))
    write_text(paths.DATA_CARD, data_card.text(params, read_json(paths.INGEST_REPORT)))
    print(f"report: {paths.REPORT_PAGE} ({len(page.encode()) / 1e6:.1f} MB)")
    evidence_log.log(params, results)
