"""Stage `report`: one self-contained page about everything the pipeline produced.

Reads corpus/, captions/, synthetic/, models/ (hashes and the loss curve) and reports/; writes
reports/index.html with all images inlined, reports/metrics.json with what `dvc exp show` and `dvc
metrics diff` compare, and reports/data_card.md. None contains a time, a run
id or a path of this machine, so equal inputs give equal bytes; MLflow runs are identified by the
hash of their outputs.
"""

from __future__ import annotations

import math
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
from dermaflux.reporting.faithfulness import tables
from dermaflux.reporting.pages import number
from dermaflux.tracking import runs

_IN_TABLES_OF_THEIR_OWN = ("rejected", "fidelity", *tables.GROUPS)
PAPER = {
    "title": "DermaFlux-ViT as published",
    "images": "2,500 real + 4,375 synthetic",
    "auc": 0.859,
    "accuracy": 0.7804,
}
"""DermaFlux, section 3.3: the best published classifier, on about 9,100 other test images."""


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


def _images(params: Params, rejected: set[str]) -> dict[str, Any]:
    count = params.report.grid_images
    columns = max(2, math.isqrt(count - 1) + 1)
    real = table.metadata(paths.CORPUS, ["image_id", "label"], "train")
    synthetic = table.metadata(paths.SYNTHETIC, ["image_id", "label"])
    synthetic = synthetic[~synthetic["image_id"].isin(rejected)]
    grids = {}
    for label in dict.fromkeys([*counts.CLASSES, *sorted(synthetic["label"].unique())]):
        grids[label] = tuple(
            images.montage(
                folder, images.sample(rows[rows["label"] == label]["image_id"], count), columns
            )
            for folder, rows in ((paths.CORPUS, real), (paths.SYNTHETIC, synthetic))
        )
    return {
        "grids": grids,
        "synthetic": counts.synthetic(),
        "chosen": counts.chosen(),
        "grid_images": count,
    }


def _training() -> dict[str, Any]:
    """What the generator reports of itself, and its curves where it was trained here."""
    import pandas as pd

    facts = _scalars(read_json(paths.GENERATOR / "finetune.json"))
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
    return {
        "facts": facts,
        "curve": plots.curve(rows["step"].to_list(), rows["loss"].to_list(), "loss", points),
        "steps": int(rows["step"].max()),
        "held_out": points[1],
    }


def _scalars(content: dict[str, Any]) -> dict[str, str]:
    """The plain values of a report as text, nested names joined by dots; lists are left out."""
    values = {}
    for name, value in content.items():
        if isinstance(value, dict):
            values.update({f"{name}.{key}": text for key, text in _scalars(value).items()})
        elif isinstance(value, float):
            values[name] = number(value, 4)
        elif isinstance(value, int) and not isinstance(value, bool):
            values[name] = f"{value:,}"
        elif isinstance(value, (bool, str)):
            values[name] = str(value)
    return values


def _artefacts(params: Params) -> list[dict[str, str]]:
    """Hashes of the stages' outputs, and the MLflow search that finds the run."""
    experiments = {
        paths.CORPUS: "corpus",
        paths.CAPTIONS: "corpus",
        paths.BACKBONE: "generator",
        paths.GENERATOR: "generator",
        paths.SYNTHETIC: "generator",
        **{
            paths.CLASSIFIERS / paths.cell(architecture, seed): "training"
            for architecture in params.architectures()
            for seed in params.train.seeds
        },
    }
    artefacts = []
    for path, experiment in experiments.items():
        if path.exists():
            value = runs.dvc_hash(path)
            search = f"tags.`output.{path.as_posix()}` = '{value}'"
            artefacts.append(
                {"path": str(path), "experiment": experiment, "hash": value, "search": search}
            )
    return artefacts


def render(params: Params) -> str:
    """The page as HTML text."""
    return _page(params, classifier_section.build(params, bayes_auc()))


def _page(params: Params, results: dict[str, Any]) -> str:
    audit = read_json(paths.AUDIT_REPORT)
    # What changes only speed stays out, so that it does not change the page.
    parameters = params.model_dump(by_alias=True, exclude={"runtime"})
    sections = {
        name: runs.flat(value) if isinstance(value, dict) else value
        for name, value in parameters.items()
    }
    return (
        pages.environment(Path(__file__).parent)
        .get_template("page.html")
        .render(
            params=params,
            level=params.evaluate.confidence,
            corpus=counts.corpus(),
            splits=table.SPLITS,
            classes=counts.CLASSES,
            results=results,
            zero_shot=zero_shot_section.build(
                params, read_json(paths.ZERO_SHOT_REPORT), results["cells"]
            ),
            columns=results["columns"],
            images=_images(params, set(audit.get("rejected", []))),
            training=_training(),
            audit=audit,
            comparisons=read_json(paths.AUDIT_FIDELITY).get("rows", []),
            audit_rows=_scalars(
                {k: v for k, v in audit.items() if k not in _IN_TABLES_OF_THEIR_OWN}
            ),
            faithfulness=tables.build(audit),
            separability_image=images.file_uri(paths.AUDIT_FIGURES / "separability.png"),
            nearest=images.file_uri(paths.AUDIT_FIGURES / "nearest.png"),
            pretraining=read_json(paths.PRETRAIN_REPORT),
            pretraining_grid=images.file_uri(paths.PRETRAIN_FIGURES / "grid.png"),
            validation=read_json(paths.VALIDATION_REPORT),
            validation_rows=_scalars(read_json(paths.VALIDATION_REPORT)),
            promote=read_json(paths.PROMOTE_REPORT),
            artefacts=_artefacts(params),
            sections=sections,
            arms={arm: title(arm) for arm in (*TITLES, *params.arms())},
            colours={arm: colour(arm) for arm in (*TITLES, *params.arms())},
            paper=PAPER,
        )
    )


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
