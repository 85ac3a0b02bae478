"""Stage `audit`: fidelity of synthetic images, and whether they are copies of training images.

Reads `corpus/` (splits train and validation) and `synthetic/`; writes `reports/audit.json`
(`rejected` image_ids, counts, KID) and `reports/audit/` with `nearest.csv` (one row per synthetic
image) and `nearest.png` (the closest pairs). Command: `dermaflux audit`.

The reference of every metric is the training split, benign and malignant images only; the
validation split measures how often the memorisation rule flags a real image that cannot be a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.audit import features, fidelity, memorisation
from dermaflux.audit.pairs import draw_pairs
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("image_id", "label")
_MINIMUM = 4  # images of a class, for two halves of two


def run(params: Params) -> None:
    """Reject memorised images and measure fidelity; each output is written atomically."""
    settings = params.audit
    inputs = [paths.CORPUS, paths.SYNTHETIC]
    with runs.start("generator", "audit", settings.model_dump(), inputs) as logged:
        report, pairs = examine(
            paths.CORPUS, paths.SYNTHETIC, settings.features, settings.memorisation_ratio
        )
        with atomic_folder(paths.AUDIT_FIGURES) as partial:
            pairs.to_csv(partial / "nearest.csv", index=False)
            draw_pairs(pairs, paths.CORPUS, paths.SYNTHETIC, partial / "nearest.png")
        write_json(paths.AUDIT_REPORT, report)
        numbers = {name: report[name] for name in ("memorised_count", "kid", "kid_floor")}
        logged.metrics({**numbers, "held_out_flagged": report["held_out"]["flagged_count"]})
        logged.artifact(paths.AUDIT_FIGURES / "nearest.png")
        logged.outputs(paths.AUDIT_REPORT, paths.AUDIT_FIGURES)
    print(
        f"rejected {report['memorised_count']} of {report['images']} synthetic images; KID "
        f"{report['kid']:.4f} (real against real {report['kid_floor']:.4f})"
    )


def examine(
    corpus: Path, synthetic: Path, space: str, limit: float
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report of the stage, and one row per synthetic image ordered by image_id."""
    training = _rows(corpus, "train")
    generated = _rows(synthetic, "train")
    validation = _rows(corpus, "validation")
    function = features.extractor(space)

    def extract(folder: Path, ids: Sequence[str], split: str, symmetric: bool) -> Array:
        return features.extract(folder, ids, split, space, function, symmetric)

    points = extract(corpus, list(training["image_id"]), "train", False)
    queries = extract(synthetic, list(generated["image_id"]), "train", True)
    controls = extract(corpus, list(validation["image_id"]), "validation", True)
    ids = training["image_id"].to_numpy()

    def training_symmetries(rows: Array) -> Array:
        return extract(corpus, list(ids[rows]), "train", True)

    index, distance, ratio = memorisation.nearest(
        np.concatenate([queries, controls]), points, training_symmetries
    )
    synthetic_rows, real_rows = slice(len(generated)), slice(len(generated), None)
    pairs = generated.assign(
        nearest_id=ids[index[synthetic_rows]],
        distance=distance[synthetic_rows],
        ratio=ratio[synthetic_rows],
        rejected=ratio[synthetic_rows] < limit,
    )
    report = {
        "rejected": list(pairs.loc[pairs["rejected"], "image_id"]),
        "images": len(generated),
        "memorised_count": int(pairs["rejected"].sum()),
        "ratio_limit": limit,
        "ratio": _quantiles(ratio[synthetic_rows]),
        "held_out": {
            "images": len(validation),
            "flagged_count": int((ratio[real_rows] < limit).sum()),
            "ratio": _quantiles(ratio[real_rows]),
        },
        **_fidelity(queries[:, 0], generated, points, training),
    }
    return report, pairs


def _rows(folder: Path, split: str) -> pd.DataFrame:
    """image_id and label of the benign and malignant images of a split, ordered by image_id."""
    rows = table.metadata(folder, _COLUMNS, split)
    if split == "train":
        check_classes(rows["label"], folder, split)
    rows = rows[rows["label"].isin(CLASSES)]
    return rows.sort_values("image_id").reset_index(drop=True)


def check_classes(labels: pd.Series[str], folder: Path, split: str) -> None:
    """Raise `InputError` when a class has too few images to be compared with itself."""
    for name in CLASSES:
        count = int((labels == name).sum())
        if count < _MINIMUM:
            raise InputError(
                f"{folder} contains {count} {name} images in split {split} but the audit needs "
                f"{_MINIMUM}; add images of that class"
            )


def _quantiles(ratio: Array) -> dict[str, float]:
    """Minimum, 5 % quantile and median of the finite ratios."""
    finite = ratio[np.isfinite(ratio)]
    if not len(finite):
        return {}
    minimum, low, median = (float(value) for value in np.quantile(finite, [0, 0.05, 0.5]))
    return {"minimum": minimum, "quantile_05": low, "median": median}


def _fidelity(
    features: Array, generated: pd.DataFrame, points: Array, training: pd.DataFrame
) -> dict[str, Any]:
    """KID per class, and its mean over classes, as pool and corpus differ in class balance."""
    classes: dict[str, Any] = {}
    for name in CLASSES:
        kid, floor = fidelity.kid(
            features[(generated["label"] == name).to_numpy()],
            points[(training["label"] == name).to_numpy()],
            seed=0,
        )
        classes[name] = {
            "kid": kid.mean,
            "kid_std": kid.std,
            "kid_floor": floor.mean,
            "kid_floor_std": floor.std,
            "subset_size": kid.subset_size,
        }
    return {
        "kid": float(np.mean([part["kid"] for part in classes.values()])),
        "kid_floor": float(np.mean([part["kid_floor"] for part in classes.values()])),
        "classes": classes,
    }
