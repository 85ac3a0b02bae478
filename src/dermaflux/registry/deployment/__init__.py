"""Command `deployment`: what classifiers cost to run, and what int8 costs in accuracy.

Reads classifiers of `models/classifiers/` and the splits train (images to calibrate int8) and test
of `corpus/`. Writes `models/deployment/<cell>/<arm>/fp32.onnx` and `int8.onnx`, and
`reports/deployment/<cell>-<arm>.json`; prints one table and writes it, with the classifiers of
earlier calls, to `reports/deployment/table.csv`. Command:
`dermaflux deployment vit-0/mixture efficientnet-0/mixture`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.classifiers.data import samples, subset
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.files import atomic_folder, read_json, reading, write_json, write_text
from dermaflux.errors import InputError
from dermaflux.metrics import multiclass
from dermaflux.params import Params
from dermaflux.registry import export_onnx
from dermaflux.registry.deployment import cost
from dermaflux.registry.deployment.quantization import probabilities, quantize
from dermaflux.registry.model_card import DISCLAIMER
from dermaflux.statistics import bootstrap, comparison
from dermaflux.statistics.comparison import Predictions
from dermaflux.tracking import machine, runs

if TYPE_CHECKING:
    import pandas as pd

PRECISIONS = ("fp32", "int8")
_WRITER = "`dermaflux deployment`"


def run(
    params: Params, cells: Sequence[str], calibration: int, latency_runs: int, threads: int
) -> None:
    """Export, quantize and measure `<architecture>-<seed>/<arm>` classifiers, and print a table.

    `calibration` is the number of training images for int8: half set the ranges, half choose the
    method. Raises `InputError` before any work when a package, a classifier or a split is missing,
    or a network is too large for an ONNX file.
    """
    export_onnx.require_packages("deployment")
    if len(set(cells)) < len(cells):
        raise InputError(f"{' '.join(cells)} names a classifier twice; name each once")
    cores = os.cpu_count() or 1
    if threads > cores:
        raise InputError(
            f"--threads {threads} is more than the {cores} cores of this machine; give at most "
            f"{cores}"
        )
    folders = {cell: export_onnx.trained(cell) for cell in cells}
    for folder in folders.values():
        export_onnx.check_size(folder)
        _check_calibration(network.read_config(folder)["classes"], calibration)
    for cell, folder in folders.items():
        report = _measure(params, cell, folder, calibration, latency_runs, threads)
        write_json(paths.DEPLOYMENTS / f"{cell.replace('/', '-')}.json", report)
    rows: list[dict[str, Any]] = []
    for path in sorted(paths.DEPLOYMENTS.glob("*.json")):
        with reading(path, _WRITER):
            report = read_json(path, _WRITER)
            if report["output_hash"] == runs.dvc_hash(paths.CLASSIFIERS / report["cell"]):
                rows += _rows(report)
            else:
                print(
                    f"{report['cell']}: measured on other weights than are there now, left out of "
                    "the table; name it to measure it again"
                )
    write_text(paths.DEPLOYMENTS / "table.csv", _table(rows).to_csv(index=False))
    print(_text(row for row in rows if row["classifier"] in cells))
    print(
        f"latency: ONNX Runtime at batch 1 on {machine.processor()}, {threads} thread"
        f"{'s' if threads > 1 else ''}, {latency_runs:,} runs; int8: QDQ, per channel, "
        f"up to {calibration:,} training images for calibration; all rows: "
        f"{paths.DEPLOYMENTS / 'table.csv'}. {DISCLAIMER}"
    )


def _measure(
    params: Params, cell: str, folder: Path, calibration: int, latency_runs: int, threads: int
) -> dict[str, Any]:
    """Everything the table and its readers need to know of one classifier."""
    model, config = network.load(folder)
    classes, side = tuple(config["classes"]), int(config["image_size"])
    training = calibration_images(classes, side, calibration)
    rows, test = samples.load_split(paths.CORPUS, "test", side, classes)
    computation = cost.count(model, side)
    with atomic_folder(paths.DEPLOYMENT_MODELS / cell) as partial:
        fp32 = partial / "fp32.onnx"
        gap, _ = export_onnx.export(folder, cell, runs.dvc_hash(folder), fp32)
        files = {"fp32": fp32.read_bytes()}
        files["int8"], method = quantize(files["fp32"], training)
        (partial / "int8.onnx").write_bytes(files["int8"])
    threshold = export_onnx.calibrated_threshold(config)
    predictions = {
        name: Predictions(probabilities(content, test.pixels), threshold=threshold or 0.0)
        for name, content in files.items()
    }
    labels = test.labels.astype(int)
    result = comparison.compare(
        labels, bootstrap.groups(rows), predictions, params.evaluate, baseline="fp32"
    )
    latency = cost.latencies(files, side, latency_runs, threads)
    return {
        "cell": cell,
        "output_hash": runs.dvc_hash(folder),
        "network": config["name"],
        "image_size": side,
        "parameters": computation.parameters,
        "flop": computation.flop,
        "mac": computation.mac,
        "processor": machine.processor(),
        "calibration_images": len(training),
        "calibration_method": method,
        "test_images": len(labels),
        "majority_accuracy": multiclass.majority_accuracy(labels),
        "largest_onnx_difference": gap,
        "int8_minus_fp32": result["differences"]["int8"],
        **{
            name: {
                "bytes": len(content),
                "latency": latency[name].as_dict(),
                "test": result[name],
            }
            for name, content in files.items()
        },
    }


def calibration_images(classes: Sequence[str], side: int, count: int) -> Pixels:
    """uint8 (N, side, side, 3): training images, equally many of each class that has so many.

    N <= count; class after class. Raises `InputError` when there are too few.
    """
    _check_calibration(classes, count)
    rows = table.metadata(paths.CORPUS, split="train")
    present = subset.counts(rows, classes)
    wanted = {name: min(number, count // len(classes)) for name, number in present.items()}
    if sum(wanted.values()) < 2:
        raise InputError(
            f"the training split has {sum(wanted.values())} images of {', '.join(classes)} and "
            "int8 is calibrated with at least 2; run the stage `ingest` with the data the "
            "classifier was trained on"
        )
    chosen = subset.draw(rows, wanted, 0)
    return np.asarray(samples.load(paths.CORPUS, rows, chosen, "train", side, classes).pixels)


def _check_calibration(classes: Sequence[str], count: int) -> None:
    if count < 2 * len(classes):
        raise InputError(
            f"--calibration {count} is less than two images for each of {len(classes)} classes; "
            f"give at least {2 * len(classes)}"
        )


def _rows(report: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """One row of the table per precision; every column names its unit."""
    for name in PRECISIONS:
        part = report[name]
        test, latency = part["test"], part["latency"]
        row = {
            "classifier": report["cell"],
            "network": report["network"],
            "precision": name,
            "parameters": report["parameters"],
            "GFLOP": report["flop"] / 1e9,
            "GMAC": report["mac"] / 1e9,
            "file MB": part["bytes"] / 1e6,
            "p50 ms": latency["p50_ms"],
            "p95 ms": latency["p95_ms"],
            "threads": latency["threads"],
            "majority accuracy": report["majority_accuracy"],
            "processor": report["processor"],
            "calibration images": report["calibration_images"],
        }
        for metric, title in (("accuracy", "accuracy"), ("auc", "AUC"), ("mauc", "macro AUC")):
            if metric in test:
                row |= {
                    title: test[metric],
                    f"{title} low": test[f"{metric}_low"],
                    f"{title} high": test[f"{metric}_high"],
                }
        yield row


def _table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)


def _text(rows: Iterable[dict[str, Any]]) -> str:
    """The table for a terminal: intervals in brackets, limits without columns of their own."""
    shown = []
    for row in rows:
        line = {
            "classifier": row["classifier"],
            "precision": row["precision"],
            "parameters": f"{row['parameters']:,}",
        }
        line |= {key: f"{row[key]:.4g}" for key in ("GFLOP", "GMAC", "file MB", "p50 ms", "p95 ms")}
        for title in ("accuracy", "AUC", "macro AUC"):
            if title in row:
                line[title] = f"{row[title]:.3f} [{row[f'{title} low']:.3f}, "
                line[title] += f"{row[f'{title} high']:.3f}]"
        line["majority accuracy"] = f"{row['majority accuracy']:.3f}"
        shown.append(line)
    text: str = _table(shown).fillna("–").to_string(index=False)
    return text
