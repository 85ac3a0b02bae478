"""Stage `report`: one self-contained page about everything the pipeline made.

Reads corpus/, captions/, synthetic/, models/ (hashes and the loss curve) and reports/; writes
reports/index.html with every figure inlined, and reports/data_card.md. They hold no time, run id or
path of a machine, so equal inputs give equal bytes; MLflow runs are named by the hash of what they
wrote.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dermaflux import paths, table, tracking
from dermaflux.params import Params
from dermaflux.reporting import counts, data_card, figures, results
from dermaflux.reporting.results import ARMS, METRICS, Estimate

PAPER = {
    "title": "DermaFlux-ViT as published",
    "images": "2,500 real + 4,375 synthetic",
    "auc": 0.859,
    "accuracy": 0.7804,
}
"""DermaFlux, section 3.3: the best published classifier, on about 9,100 other test images."""


def number(value: float | None, places: int = 3) -> str:
    """A figure for a table cell; a dash when there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{places}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def percent(value: float) -> str:
    """A confidence level such as `95 %`."""
    return f"{100 * value:.3g} %"


def interval(found: Estimate, sign: bool = False) -> str:
    """The limits as `low to high`, empty when there are none."""
    if not found.has_interval:
        return ""
    write = signed if sign else number
    return f"{write(found.low)} to {write(found.high)}"


def read_json(path: Path) -> dict[str, Any]:
    """A report of an earlier stage, empty when that stage has not run."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def bayes_auc() -> float | None:
    """The best AUC any classifier can reach, known for the phantom corpus only."""
    value = read_json(paths.INGEST_REPORT).get("bayes_auc")
    return None if value is None else float(value)


def _results(params: Params) -> dict[str, Any]:
    import pandas as pd

    cells = results.load(params)
    level = params.evaluate.confidence
    means: dict[tuple[str, str], Estimate] = {
        (architecture, arm): results.mean(cells, architecture, arm, "auc", level)
        for architecture in params.train.architectures
        for arm in params.train.arms
    }
    rows = [
        {
            "architecture": architecture,
            "arm": arm,
            "metrics": {
                metric: results.mean(cells, architecture, arm, metric, level)
                for metric in METRICS
                if all(metric in cell.arms[arm] for cell in cells)
            },
        }
        for architecture, arm in means
    ]
    curves: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for cell in cells:
        for arm in cell.arms:
            path = paths.EVALUATIONS / cell.name / "roc" / f"{arm}.csv"
            if path.is_file():
                by_arm = curves.setdefault(cell.architecture, {})
                by_arm.setdefault(arm, []).append(pd.read_csv(path))
    bayes = bayes_auc()
    return {
        "cells": cells,
        "sources": _by_source(cells),
        "rows": rows,
        "effects": {
            architecture: results.effect(cells, architecture, level)
            for architecture in params.train.architectures
        },
        "bayes": bayes,
        "forest": figures.forest(cells, means, ARMS, bayes),
        "roc": {name: figures.roc(by_arm, ARMS) for name, by_arm in curves.items()},
    }


def _by_source(cells: list[results.Cell]) -> list[dict[str, Any]]:
    """AUC and accuracy per architecture, arm and test source, means over seeds."""
    import pandas as pd

    found = [
        pd.read_csv(path).assign(architecture=cell.architecture)
        for cell in cells
        if (path := paths.EVALUATIONS / cell.name / "sources.csv").is_file()
    ]
    if not found:
        return []
    keys = ["architecture", "source", "arm"]
    means = pd.concat(found).groupby(keys, sort=False).mean(numeric_only=True).reset_index()
    rows: list[dict[str, Any]] = means.to_dict("records")
    return rows


def _images(params: Params, rejected: set[str]) -> dict[str, Any]:
    count = params.report.grid_images
    columns = max(2, math.isqrt(count - 1) + 1)
    real = table.metadata(paths.CORPUS, ["image_id", "label"], "train")
    made = table.metadata(paths.SYNTHETIC, ["image_id", "label"])
    made = made[~made["image_id"].isin(rejected)]
    grids = {}
    for label in counts.CLASSES:
        grids[label] = tuple(
            figures.montage(
                folder, figures.chosen(rows[rows["label"] == label]["image_id"], count), columns
            )
            for folder, rows in ((paths.CORPUS, real), (paths.SYNTHETIC, made))
        )
    return {"grids": grids, "synthetic": counts.synthetic(), "grid_images": count}


def _training() -> dict[str, Any]:
    """What is known of the generator, and its curves where it was trained here."""
    import pandas as pd

    facts = read_json(paths.GENERATOR / "finetune.json")
    path, held_out = paths.GENERATOR / "loss.csv", paths.GENERATOR / "validation_loss.csv"
    if not path.is_file():
        return {"facts": facts}
    rows = pd.read_csv(path)
    checks = pd.read_csv(held_out) if held_out.is_file() else pd.DataFrame()
    points = (
        (checks["step"].to_list(), checks["validation_loss"].to_list()) if len(checks) else ([], [])
    )
    return {
        "facts": facts,
        "curve": figures.curve(rows["step"].to_list(), rows["loss"].to_list(), "loss", points),
        "steps": int(rows["step"].max()),
        "held_out": points[1],
    }


def _scalars(content: dict[str, Any]) -> dict[str, str]:
    """The plain values of a report, flattened, for a table; lists are left out."""
    values = {}
    for name, value in content.items():
        if isinstance(value, dict):
            values.update({f"{name}.{key}": text for key, text in _scalars(value).items()})
        elif isinstance(value, float):
            values[name] = number(value, 4)
        elif isinstance(value, (int, str)):
            values[name] = str(value)
    return values


def _artefacts(params: Params) -> list[dict[str, str]]:
    """Hashes of what the stages wrote, and the MLflow search that finds the run."""
    wanted = {
        paths.CORPUS: "corpus",
        paths.CAPTIONS: "corpus",
        paths.BACKBONE: "generator",
        paths.GENERATOR: "generator",
        paths.SYNTHETIC: "generator",
        **{
            paths.CLASSIFIERS / paths.cell(architecture, seed): "training"
            for architecture in params.train.architectures
            for seed in params.train.seeds
        },
    }
    found = []
    for path, experiment in wanted.items():
        if path.exists():
            value = tracking.dvc_hash(path)
            search = f"tags.`output.{path.as_posix()}` = '{value}'"
            found.append(
                {"path": str(path), "experiment": experiment, "hash": value, "search": search}
            )
    return found


def render(params: Params) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    audit = read_json(paths.AUDIT_REPORT)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "percent": percent}
    environment.globals |= {"interval": interval, "verdict": results.verdict}
    sections = {
        name: tracking.flat(value) if isinstance(value, dict) else value
        for name, value in params.model_dump(by_alias=True).items()
    }
    return environment.get_template("page.html").render(
        params=params,
        level=params.evaluate.confidence,
        corpus=counts.corpus(),
        splits=table.SPLITS,
        classes=counts.CLASSES,
        results=_results(params),
        images=_images(params, set(audit.get("rejected", []))),
        training=_training(),
        audit=audit,
        audit_rows=_scalars({k: v for k, v in audit.items() if k != "rejected"}),
        nearest=figures.file_uri(paths.AUDIT_FIGURES / "nearest.png"),
        validation=read_json(paths.VALIDATION_REPORT),
        validation_rows=_scalars(read_json(paths.VALIDATION_REPORT)),
        promote=read_json(paths.PROMOTE_REPORT),
        artefacts=_artefacts(params),
        sections=sections,
        metrics=METRICS,
        arms=ARMS,
        paper=PAPER,
    )


def run(params: Params) -> None:
    """Write reports/index.html and reports/data_card.md, and print the page's path."""
    page = render(params)
    table.write_text(paths.REPORT_PAGE, page)
    table.write_text(paths.DATA_CARD, data_card.text(params, read_json(paths.INGEST_REPORT)))
    print(f"report: {paths.REPORT_PAGE} ({len(page.encode()) / 1e6:.1f} MB)")
