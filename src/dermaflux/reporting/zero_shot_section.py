"""The page's section on zero-shot models: the best trained classifier against each of them.

Reads reports/zero_shot.json, reports/zero_shot/ and the predictions of one cell of
reports/evaluate/; writes nothing. The layout is that of DermaFlux, Table 3 and Figure 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import read_csv, reading
from dermaflux.params import LEARNED, Params
from dermaflux.reporting.plots import FAINT, axes, svg
from dermaflux.statistics.evaluations import Cell

PUBLISHED = {"accuracy": 0.7804, "auc": 0.859, "lead": 0.08}
"""DermaFlux, section 3.3: the best ViT, and its lead in accuracy over MAKE and DermLIP."""


def build(params: Params, report: dict[str, Any], cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Everything the template needs; None when no zero-shot model was scored."""
    names = [name for name in params.zero_shot.run if name in report]
    if not names:
        return None
    models = {name: report[name] for name in names}
    trained = _best(params, cells)
    if trained is None:
        return {"models": models, "trained": None, "published": PUBLISHED}
    cell, arm = trained
    compared = _compare(cell, arm, names)
    return {
        "models": {name: {**models[name], **compared["rows"][name]} for name in names},
        "trained": f"{cell.name}/{arm}",
        "metrics": cell.arms[arm],
        "published": PUBLISHED,
        "roc": compared["roc"],
    }


def _best(params: Params, cells: Sequence[Cell]) -> tuple[Cell, str] | None:
    """The cell and arm of the best validation AUC among those `promote` chooses from."""
    choices = [
        (float(metrics["validation_auc"]), cell, arm)
        for cell in cells
        if cell.architecture == params.promote.architecture
        for arm, metrics in cell.arms.items()
        if arm in LEARNED and "validation_auc" in metrics and "auc" in metrics
    ]
    if not choices:
        return None
    _, cell, arm = max(choices, key=lambda choice: choice[0])
    return cell, arm


def _compare(cell: Cell, arm: str, names: Sequence[str]) -> dict[str, Any]:
    from sklearn.metrics import roc_curve

    from dermaflux.statistics import bootstrap, delong, effects, seed_means

    predicted = seed_means.read(cell.name)
    path, stage = paths.ZERO_SHOT / "predictions.csv", "the stage zero_shot"
    scored = read_csv(path, stage, names, ("image_id", "label"), index="image_id")
    with reading(path, stage):
        scored = scored.loc[predicted.index]
    columns = ["image_id", "source", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "test").set_index("image_id").loc[predicted.index]
    groups = bootstrap.groups(rows.reset_index())
    labels = (predicted["label"] == "malignant").to_numpy().astype(int)
    best = predicted[arm].to_numpy()
    tests = [delong.compare(labels, best, scored[name].to_numpy(), groups) for name in names]
    corrected = effects.holm([test.p for test in tests])
    curves = {f"{cell.name}/{arm}": best, **{name: scored[name].to_numpy() for name in names}}
    return {
        "rows": {
            name: {"difference": test.difference, "standard_error": test.standard_error, "p": p}
            for name, test, p in zip(names, tests, corrected, strict=True)
        },
        "roc": _roc({name: roc_curve(labels, values) for name, values in curves.items()}),
    }


def _roc(curves: Mapping[str, Any]) -> str:
    """One ROC curve per model: false and true positive rates; the first is the boldest."""
    figure, plot = axes(4.4, 4.1)
    plot.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    for number, (name, (fpr, tpr, _)) in enumerate(curves.items()):
        plot.plot(fpr, tpr, linewidth=1.2 if number else 2.2, label=name)
    plot.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    plot.set(xlabel="1 − specificity", ylabel="sensitivity")
    plot.legend(loc="lower right", fontsize=8)
    return svg(figure)
