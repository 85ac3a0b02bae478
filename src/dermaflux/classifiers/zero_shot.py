"""Stage `zero_shot`: image-text models that saw none of our images, on the held-out test split.

Reads `corpus/` (split test) and the models of `zero_shot.run`; writes `reports/zero_shot.json`
(figures with intervals as `evaluate` has them, source and licence of each model) and
`reports/zero_shot/` with `predictions.csv` (image_id, label, P(malignant) by each model) and
`roc/<model>.csv`. With nothing to run it writes an empty report. Command: `dermaflux zero_shot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.core.images import decode_image
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.classifiers.model.image_text import Opened, Reference
    from dermaflux.core.arrays import Array


def run(params: Params) -> None:
    """Score every model of `zero_shot.run`; all files appear whole."""
    if not params.zero_shot.run:
        with atomic_folder(paths.ZERO_SHOT) as partial:
            (partial / "predictions.csv").write_text("image_id,label\n", encoding="utf-8")
        write_json(paths.ZERO_SHOT_REPORT, {})
        print("zero_shot: zero_shot.run names no model; nothing to score")
        return
    from dermaflux.classifiers.model import image_text
    from dermaflux.statistics import bootstrap, comparison

    wanted = [image_text.find(name, params.zero_shot.models[name]) for name in params.zero_shot.run]
    rows = _test_rows()
    labels = (rows["label"] == CLASSES[1]).to_numpy().astype(int)
    probability = {}
    for reference in wanted:
        print(f"zero_shot: {reference.name} ({reference.address}, licence {reference.licence})")
        opened = image_text.load(reference)
        probability[reference.name] = _score(params, opened, rows)
    scored = {name: comparison.Predictions(scores) for name, scores in probability.items()}
    figures = comparison.compare(labels, bootstrap.groups(rows), scored, params.evaluate)
    figures.pop("differences")
    _write(rows, labels, probability, wanted, figures)
    for reference in wanted:
        _log(params, reference, figures[reference.name])
        found = figures[reference.name]
        print(
            f"zero_shot/{reference.name}: test AUC {found['auc']:.3f} ({found['auc_low']:.3f} to "
            f"{found['auc_high']:.3f}) on {len(rows)} images"
        )


def _test_rows() -> pd.DataFrame:
    rows = table.metadata(paths.CORPUS, split="test")
    for label in CLASSES:
        if not (rows["label"] == label).any():
            raise InputError(
                f"the test split holds 0 {label} images of {len(rows)}; add a dataset whose images "
                "fill that class"
            )
    return rows[rows["label"].isin(CLASSES)].sort_values("image_id").reset_index(drop=True)


def _score(params: Params, opened: Opened, rows: pd.DataFrame) -> Array:
    """P(malignant) of the test images (N,), in the order of the rows."""
    import numpy as np

    from dermaflux.classifiers.model import image_text
    from dermaflux.progress import progress

    section = params.zero_shot
    written = [image_text.sentences(section.classes[label], section.templates) for label in CLASSES]
    features = image_text.class_features(opened, written)
    place = {image_id: index for index, image_id in enumerate(rows["image_id"])}
    order: list[int] = []
    with progress("zero_shot.images", len(place)) as advance:

        def pictures() -> Any:
            for image_id, encoded in table.images(paths.CORPUS, place, "test"):
                order.append(place[image_id])
                advance(1)
                yield decode_image(encoded)

        found = image_text.probabilities(opened, features, pictures(), section.batch)
    scores = np.empty(len(place))
    scores[order] = found[:, 1]
    return scores


def _write(
    rows: pd.DataFrame,
    labels: Array,
    probability: dict[str, Array],
    wanted: Sequence[Reference],
    figures: dict[str, dict[str, Any]],
) -> None:
    import pandas as pd

    from dermaflux.metrics import binary

    with atomic_folder(paths.ZERO_SHOT) as partial:
        (partial / "roc").mkdir()
        for name, scores in probability.items():
            points = pd.DataFrame(binary.roc_points(labels, scores), columns=["fpr", "tpr"])
            points.to_csv(partial / "roc" / f"{name}.csv", index=False)
        rows[["image_id", "label"]].assign(**probability).to_csv(
            partial / "predictions.csv", index=False
        )
    content: dict[str, Any] = {one.name: figures[one.name] for one in wanted}
    for one in wanted:
        content[one.name] |= {"source": one.source, "licence": one.licence}
    content["test"] = {"images": len(rows), "malignant": int(labels.sum())}
    write_json(paths.ZERO_SHOT_REPORT, content)


def _log(params: Params, reference: Reference, figures: dict[str, Any]) -> None:
    """One MLflow run per model, comparable with those of `evaluate`."""
    from dermaflux.classifiers.logging import mlflow_runs
    from dermaflux.tracking import runs

    parameters = {"architecture": reference.name, "arm": "zero_shot", "source": reference.source}
    with runs.start(
        mlflow_runs.TESTING,
        f"{reference.name} zero shot",
        parameters,
        [paths.CORPUS],
        stage="zero_shot",
    ) as logged:
        logged.metrics(mlflow_runs.metric_names(figures))
        logged.outputs(paths.ZERO_SHOT_REPORT, paths.ZERO_SHOT)
