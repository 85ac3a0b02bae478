"""Stage `audit`: fidelity of synthetic images, and whether they are copies of training images.

Reads `corpus/` (splits train and validation) and `synthetic/`; writes `reports/audit.json`
(`rejected` image_ids, counts, KID) and `reports/audit/` with `nearest.csv` (one row per synthetic
image, with the reason where it is rejected) and `nearest.png` (the closest pairs). Command:
`dermaflux audit`.

An image is rejected when it is too near to a training image (`memorisation`) or shows the same
photograph (`copies`). The reference of every metric is the training split, benign and malignant
images only, and all of them for a pool without classes; a sample of the validation split measures
how often each rule flags a real image that cannot be a copy. Images that training holds several
times count once where the scale of a distance is measured, but each of them can be copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermaflux import paths
from dermaflux.audit import copies, features, fidelity, memorisation
from dermaflux.audit.neighbours import orientations
from dermaflux.audit.pairs import draw_pairs
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dermaflux.params import Audit

_RULES = ("too near", "copy")
_REASONS = np.array(["", "too near", "copy", "copy and too near"], dtype=object)
_COLUMNS = ("image_id", "label")
_TRAINING_COLUMNS = (*_COLUMNS, "source", "scale", "duplicate_group")
MINIMUM = 4  # images of a class, for two halves of two
HELD_OUT = 2000
"""Validation images at most: where none of so many is flagged, the interval ends at 0.18 %."""


def run(params: Params) -> None:
    """Reject memorised images and measure fidelity; each output is written atomically."""
    settings = params.audit
    inputs = [paths.CORPUS, paths.SYNTHETIC]
    with runs.start("generator", "audit", settings.model_dump(), inputs) as logged:
        report, pairs = examine(paths.CORPUS, paths.SYNTHETIC, settings)
        with atomic_folder(paths.AUDIT_FIGURES) as partial:
            pairs.to_csv(partial / "nearest.csv", index=False)
            draw_pairs(pairs, paths.CORPUS, paths.SYNTHETIC, partial / "nearest.png")
        write_json(paths.AUDIT_REPORT, report)
        numbers = {name: report[name] for name in ("memorised_count", "kid", "kid_floor")}
        logged.metrics({**numbers, "held_out_flagged": report["held_out"]["flagged_count"]})
        logged.artifact(paths.AUDIT_FIGURES / "nearest.png")
        logged.outputs(paths.AUDIT_REPORT, paths.AUDIT_FIGURES)
    reasons = report["reasons"]
    print(
        f"audit: {report['memorised_count']:,} of {report['images']:,} synthetic images rejected "
        f"({reasons['copy']:,} copies, {reasons['too near']:,} too near, "
        f"{reasons['copy and too near']:,} both), KID {report['kid']:.4f} "
        f"(real against real {report['kid_floor']:.4f}), in {paths.AUDIT_FIGURES}"
    )


def examine(corpus: Path, synthetic: Path, settings: Audit) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report of the stage, and one row per synthetic image ordered by image_id."""
    training = _rows(corpus, "train", _TRAINING_COLUMNS)
    generated = _pool(synthetic)
    validation = _rows(corpus, "validation")
    held_out = _sample(validation)
    function, pixels = features.extractor(settings.features), features.side(settings.features)

    def extract(folder: Path, ids: Sequence[str], split: str, symmetric: bool) -> Array:
        return features.extract(folder, ids, split, pixels, function, symmetric)

    ids = training["image_id"].to_numpy()
    points = extract(corpus, list(ids), "train", False)
    thumbnails = features.thumbnails(corpus, list(ids), "train")
    compared = [(synthetic, generated, "train"), (corpus, held_out, "validation")]
    compared = [(folder, rows, split) for folder, rows, split in compared if len(rows)]
    queries = np.concatenate(
        [extract(folder, list(rows["image_id"]), split, True) for folder, rows, split in compared]
    )

    def same(rows: Array, others: Array, turns: Array) -> Array:
        score = copies.correlations(thumbnails, thumbnails[rows], others, turns)
        return score >= settings.duplicate_correlation

    near, distance, ratio = memorisation.nearest(
        queries,
        points,
        lambda rows: extract(corpus, list(ids[rows]), "train", True),
        _photographs(training),
        same,
    )
    original, correlation = copies.most_similar(
        thumbnails,
        np.concatenate(
            [
                features.thumbnails(folder, list(rows["image_id"]), split)
                for folder, rows, split in compared
            ]
        ),
        near,
        orientations(queries, points, near),
    )
    rules = _rules(settings, distance, ratio, correlation)
    rules.insert(0, "nearest_id", ids[near[:, 0]])
    rules.insert(3, "original_id", np.where(original >= 0, ids[original], None))
    count = len(generated)
    pairs = pd.concat([generated, rules[:count].drop(columns=list(_RULES))], axis=1)
    report = {
        "rejected": list(pairs.loc[pairs["rejected"], "image_id"]),
        "images": count,
        "memorised_count": int(pairs["rejected"].sum()),
        "reasons": {str(name): int((pairs["reason"] == name).sum()) for name in _REASONS[1:]},
        "ratio_limit": settings.memorisation_ratio,
        "correlation_limit": settings.duplicate_correlation,
        "ratio": _quantiles(ratio[:count]),
        "held_out": {"of": len(validation), **_held_out(rules[count:])},
        "nearest_sources": _nearest_sources(training, near[:count, 0]),
        **_fidelity(queries[:count, 0], generated, points, training),
    }
    return report, pairs


def _rules(settings: Audit, distance: Array, ratio: Array, correlation: Array) -> pd.DataFrame:
    """What both rules say of each image."""
    too_near = ratio < settings.memorisation_ratio
    copied = correlation >= settings.duplicate_correlation
    return pd.DataFrame(
        {
            "distance": distance,
            "ratio": ratio,
            "correlation": correlation,
            "reason": _REASONS[too_near + 2 * copied],
            "rejected": too_near | copied,
            **dict(zip(_RULES, (too_near, copied), strict=True)),
        }
    )


def _held_out(rules: pd.DataFrame) -> dict[str, Any]:
    """How many real images that cannot be copies each rule flags, and both together.

    Intervals are exact (Clopper and Pearson 1934), at 95 %. `ingest` has put images that the leak
    guard joins on one side of the split, so that the rule `copy` finds fewer here than among
    photographs of which nobody knows.
    """
    found = {
        **{name: rules[name] for name in _RULES},
        "either": rules["rejected"],
    }
    return {
        "images": len(rules),
        "flagged_count": int(rules["rejected"].sum()),
        "ratio": _quantiles(rules["ratio"].to_numpy()),
        "rules": {name: _rate(int(flags.sum()), len(rules)) for name, flags in found.items()},
    }


def _rate(count: int, images: int) -> dict[str, Any]:
    from scipy.stats import binomtest

    if not images:
        return {"flagged_count": 0, "rate": None, "low": None, "high": None}
    interval = binomtest(count, images).proportion_ci(0.95)
    return {
        "flagged_count": count,
        "rate": count / images,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _sample(validation: pd.DataFrame) -> pd.DataFrame:
    """At most `HELD_OUT` rows, chosen by the hash of their image_id and ordered by it."""
    order = sorted(validation["image_id"], key=lambda image_id: rank("held out", image_id))
    chosen = validation["image_id"].isin(order[:HELD_OUT])
    return validation[chosen].reset_index(drop=True)


def _photographs(training: pd.DataFrame) -> Array:
    """(N,) numbers of photographs: `ingest` gave copies of one the same duplicate group."""
    groups = training["duplicate_group"]
    alone = pd.Series([f"image {image_id}" for image_id in training["image_id"]])
    codes: Array = groups.where(groups.notna(), alone).factorize()[0]
    return codes


def _nearest_sources(training: pd.DataFrame, nearest: Array) -> list[dict[str, Any]]:
    """Of each scale and source: its training images, and synthetic images nearest to one of them.

    Where one source alone trained at a scale, images sampled at that scale may have its look.
    """
    rows = training[["scale", "source"]].assign(
        nearest=np.bincount(nearest, minlength=len(training))
    )
    totals = rows.groupby(["scale", "source"], dropna=False)["nearest"].agg(["size", "sum"])
    return [
        {
            "scale": None if pd.isna(scale) else int(scale),
            "source": str(source),
            "training": int(total["size"]),
            "nearest": int(total["sum"]),
        }
        for (scale, source), total in totals.iterrows()
    ]


def _rows(folder: Path, split: str, columns: Sequence[str] = _COLUMNS) -> pd.DataFrame:
    """Columns of the benign and malignant images of a split, ordered by image_id."""
    rows = table.metadata(folder, columns, split)
    if split == "train":
        check_classes(rows["label"], folder, split)
    rows = rows[rows["label"].isin(CLASSES)]
    return rows.sort_values("image_id").reset_index(drop=True)


def _pool(folder: Path) -> pd.DataFrame:
    """image_id and label of every synthetic image; the classes are those that were asked for."""
    rows = table.metadata(folder, _COLUMNS, "train")
    check_classes(rows["label"], folder, "train", sorted(rows["label"].unique()))
    return rows.sort_values("image_id").reset_index(drop=True)


def check_classes(
    labels: pd.Series[str], folder: Path, split: str, classes: Sequence[str] = CLASSES
) -> None:
    """Raise `InputError` when a class has too few images to be compared with itself."""
    for name in classes:
        count = int((labels == name).sum())
        if count < MINIMUM:
            raise InputError(
                f"{folder} contains {count} {name} images in split {split} but the audit needs "
                f"{MINIMUM}; add images of that class"
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
    """KID per class, and its mean over classes with a 95 % interval over other images.

    A mean over classes, as pool and corpus differ in class balance.

    Images sampled without a class are compared with all training images.
    """
    classes: dict[str, Any] = {}
    for name in sorted(generated["label"].unique()):
        real = points[(training["label"] == name).to_numpy()] if name in CLASSES else points
        kid, floor = fidelity.kid(features[(generated["label"] == name).to_numpy()], real, seed=0)
        classes[name] = {
            "kid": kid.mean,
            "kid_std": kid.std,
            "kid_error": kid.error,
            "kid_floor": floor.mean,
            "kid_floor_std": floor.std,
            "subset_size": kid.subset_size,
        }
    mean = float(np.mean([part["kid"] for part in classes.values()]))
    # Classes share no image, so their errors are independent; 95 % as for the rates.
    half = 1.96 * float(np.sqrt(sum(part["kid_error"] ** 2 for part in classes.values())))
    half /= len(classes)
    return {
        "kid": mean,
        "kid_low": mean - half,
        "kid_high": mean + half,
        "kid_floor": float(np.mean([part["kid_floor"] for part in classes.values()])),
        "classes": classes,
    }
