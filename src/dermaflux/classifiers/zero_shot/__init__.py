"""Stage `zero_shot`: image-text models that saw none of our images, on the held-out test split.

Reads `corpus/` (split test) and the models of `zero_shot.run`; writes `reports/zero_shot.json`
(figures with intervals as `evaluate` has them, source and licence of each model) and
`reports/zero_shot/` with `predictions.csv` (image_id, label, P(malignant) by each model) and
`roc/<model>.csv`. With nothing to run it writes an empty report. Command: `dermaflux zero_shot`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.core.images import decode_image
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from dermaflux.classifiers.zero_shot.image_text import ImageTextModel, ModelSource
    from dermaflux.core.arrays import Array


def run(params: Params) -> None:
    """Score every model of `zero_shot.run`; all files appear whole."""
    if not params.zero_shot.run:
        with atomic_folder(paths.ZERO_SHOT) as partial:
            (partial / "predictions.csv").write_text("image_id,label\n", encoding="utf-8")
        write_json(paths.ZERO_SHOT_REPORT, {})
        print("zero_shot: zero_shot.run names no model; nothing to score")
        return
    from dermaflux.classifiers.zero_shot import image_text
    from dermaflux.statistics import bootstrap, comparison

    models = params.zero_shot.models
    sources = [image_text.find(name, models[name]) for name in params.zero_shot.run]
    rows = _test_rows()
    runs.connect()  # a store that cannot be used is told before the work, not after it
    store.require_writable(mlflow_runs.TESTING)
    labels = (rows["label"] == CLASSES[1]).to_numpy().astype(int)
    probability = {}
    for source in sources:
        print(f"zero_shot: {source.name} ({source.identity}, licence {source.licence})")
        probability[source.name] = _score(params, image_text.load(source), rows)
    scored = {name: comparison.Predictions(scores) for name, scores in probability.items()}
    figures = comparison.compare(labels, bootstrap.groups(rows), scored, params.evaluate)
    figures.pop("differences")
    _write(rows, labels, probability, sources, figures)
    for source in sources:
        result = figures[source.name]
        _log(source, result)
        print(
            f"zero_shot/{source.name}: test AUC {result['auc']:.3f} ({result['auc_low']:.3f} to "
            f"{result['auc_high']:.3f}) on {len(rows)} images"
        )


def _test_rows() -> pd.DataFrame:
    rows = table.metadata(paths.CORPUS, split="test")
    for label in CLASSES:
        if not (rows["label"] == label).any():
            raise InputError(
                f"the test split holds 0 {label} images of {len(rows)}; add a dataset with "
                "images of that class"
            )
    return rows[rows["label"].isin(CLASSES)].sort_values("image_id").reset_index(drop=True)


def _score(params: Params, model: ImageTextModel, rows: pd.DataFrame) -> Array:
    """P(malignant) of the test images (N,), in the order of the rows."""
    import numpy as np

    from dermaflux.classifiers.zero_shot import image_text
    from dermaflux.progress import progress

    section = params.zero_shot
    phrases = [image_text.sentences(section.classes[label], section.templates) for label in CLASSES]
    features = image_text.class_features(model, phrases)
    index_of = {image_id: index for index, image_id in enumerate(rows["image_id"])}
    order: list[int] = []
    with progress("zero_shot.images", len(index_of)) as advance:

        def images() -> Iterator[Image.Image]:
            for image_id, encoded in table.images(paths.CORPUS, index_of, "test"):
                order.append(index_of[image_id])
                advance(1)
                yield decode_image(encoded)

        in_order_read = image_text.probabilities(model, features, images(), section.batch)
    scores = np.empty(len(index_of))
    scores[order] = in_order_read[:, 1]
    return scores


def _write(
    rows: pd.DataFrame,
    labels: Array,
    probability: dict[str, Array],
    sources: Sequence[ModelSource],
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
    content: dict[str, Any] = {source.name: figures[source.name] for source in sources}
    for source in sources:
        content[source.name] |= {"source": source.identity, "licence": source.licence}
    content["test"] = {"images": len(rows), "malignant": int(labels.sum())}
    write_json(paths.ZERO_SHOT_REPORT, content)


def _log(source: ModelSource, figures: dict[str, Any]) -> None:
    """One MLflow run per model, comparable with those of `evaluate`."""
    parameters = {"architecture": source.name, "arm": "zero_shot", "source": source.identity}
    with runs.start(
        mlflow_runs.TESTING,
        f"{source.name} zero shot",
        parameters,
        [paths.CORPUS],
        stage="zero_shot",
    ) as logged:
        logged.metrics(mlflow_runs.metric_names(figures))
        logged.outputs(paths.ZERO_SHOT_REPORT, paths.ZERO_SHOT)
