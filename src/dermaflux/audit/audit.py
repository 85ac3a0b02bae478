"""Stage `audit`: are synthetic images copies of training images, and how close are they to them?

Reads `corpus/` (splits train and validation) and `synthetic/`; writes `reports/audit.json`
(`rejected` image_ids, counts, KID) and `reports/audit/` with `nearest.csv` (one row per synthetic
image) and `nearest.png` (the closest pairs). Command: `dermaflux audit`.

The reference of every figure is the training split, benign and malignant images only; the
validation split only measures how often the memorisation rule flags a real image it cannot have
copied.
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
_FEWEST = 4  # images of a class, for two halves of two


def run(params: Params) -> None:
    """Reject memorised images and measure fidelity; both outputs appear whole."""
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
    ours = _rows(synthetic, "train")
    held_out = _rows(corpus, "validation")
    function = features.extractor(space)

    def extract(folder: Path, ids: Sequence[str], split: str, turned: bool) -> Array:
        return features.extract(folder, ids, split, space, function, turned)

    points = extract(corpus, list(training["image_id"]), "train", False)
    generated = extract(synthetic, list(ours["image_id"]), "train", True)
    unseen = extract(corpus, list(held_out["image_id"]), "validation", True)
    ids = training["image_id"].to_numpy()

    def turned_training(rows: Array) -> Array:
        return extract(corpus, list(ids[rows]), "train", True)

    index, distance, ratio = memorisation.nearest(
        np.concatenate([generated, unseen]), points, turned_training
    )
    own, other = slice(len(ours)), slice(len(ours), None)
    pairs = ours.assign(
        nearest_id=ids[index[own]],
        distance=distance[own],
        ratio=ratio[own],
        rejected=ratio[own] < limit,
    )
    report = {
        "rejected": list(pairs.loc[pairs["rejected"], "image_id"]),
        "images": len(ours),
        "memorised_count": int(pairs["rejected"].sum()),
        "ratio_limit": limit,
        "ratio": _spread(ratio[own]),
        "held_out": {
            "images": len(held_out),
            "flagged_count": int((ratio[other] < limit).sum()),
            "ratio": _spread(ratio[other]),
        },
        **_fidelity(generated[:, 0], ours, points, training),
    }
    return report, pairs


def _rows(folder: Path, split: str) -> pd.DataFrame:
    """image_id and label of the benign and malignant images of a split, ordered by image_id."""
    rows = table.metadata(folder, _COLUMNS, split)
    for name in CLASSES:
        count = int((rows["label"] == name).sum())
        if count < _FEWEST and split == "train":
            raise InputError(
                f"{folder} holds {count} {name} images of split {split} but the audit needs "
                f"{_FEWEST}; add images of that class"
            )
    rows = rows[rows["label"].isin(CLASSES)]
    return rows.sort_values("image_id").reset_index(drop=True)


def _spread(ratio: Array) -> dict[str, float]:
    """Least, 5 % quantile and median of finite ratios."""
    finite = ratio[np.isfinite(ratio)]
    if not len(finite):
        return {}
    least, low, median = (float(value) for value in np.quantile(finite, [0, 0.05, 0.5]))
    return {"minimum": least, "quantile_05": low, "median": median}


def _fidelity(
    generated: Array, ours: pd.DataFrame, points: Array, training: pd.DataFrame
) -> dict[str, Any]:
    """KID per class, and its mean over classes: pools and corpora differ in their class balance."""
    classes: dict[str, Any] = {}
    for name in CLASSES:
        found, floor = fidelity.kid(
            generated[(ours["label"] == name).to_numpy()],
            points[(training["label"] == name).to_numpy()],
            seed=0,
        )
        classes[name] = {
            "kid": found.mean,
            "kid_std": found.std,
            "kid_floor": floor.mean,
            "kid_floor_std": floor.std,
            "subset_size": found.subset_size,
        }
    return {
        "kid": float(np.mean([part["kid"] for part in classes.values()])),
        "kid_floor": float(np.mean([part["kid_floor"] for part in classes.values()])),
        "classes": classes,
    }
