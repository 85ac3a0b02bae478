"""Stage `audit`: fidelity of synthetic images, and whether they are copies of training images.

Reads `corpus/` and `synthetic/`; writes `reports/rejected.json` (image_ids, all that later stages
read), `reports/audit.json` (counts, KID, and `fidelity` of the whole pool against the splits
`train` and `test`) and `reports/audit/` with
`nearest.csv` (one row per synthetic image, with the reason where it is rejected), `nearest.png`
(the closest pairs) and `fidelity.json` (the rows of `comparison`); what `faithfulness.groups` adds
to both is said there. Command: `dermaflux audit`.

An image is rejected when it is too near to a training image or shows the same photograph
(`memorisation`). The test split decides none of that: it is a second reference of `comparison`
and nothing else. Benign and malignant images alone are a reference, and all of them for a pool
without classes; a sample of the validation split measures how often each rule flags a real image
that cannot be a copy, unless `finetune.splits` trains on it. Images that training holds several
times count once where the scale of a distance is measured, but each of them can be copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dermaflux import paths
from dermaflux.audit import features, predicted_source, trunks
from dermaflux.audit.faithfulness import coverage, groups
from dermaflux.audit.fidelity import comparison
from dermaflux.audit.fidelity.comparison import MINIMUM, Images
from dermaflux.audit.memorisation import rejection
from dermaflux.audit.memorisation.figures import memorisation_figures
from dermaflux.audit.memorisation.pairs import draw_pairs
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dermaflux.audit.features import Features
    from dermaflux.audit.trunks import Trunk
    from dermaflux.params import Audit

_COLUMNS = ("image_id", "sha256", "label", "diagnosis", *comparison.GROUPS)
_TRAINING_COLUMNS = (*_COLUMNS, "scale", "duplicate_group")
_POOL_COLUMNS = (*_COLUMNS, "prompt", "scale")
HELD_OUT = 2000
"""Validation images at most: where none of so many is flagged, the interval ends at 0.18 %."""


def run(params: Params) -> None:
    """Reject memorised images and measure fidelity; each output is written atomically."""
    settings = params.audit
    inputs = [paths.CORPUS, paths.SYNTHETIC]
    with runs.start("generator", "audit", settings.model_dump(), inputs) as logged:
        with atomic_folder(paths.AUDIT_FIGURES) as partial:
            report, pairs, rows = examine(
                paths.CORPUS, paths.SYNTHETIC, settings, params.finetune.splits, partial,
                params.synthesize.wanted,
            )  # fmt: skip
            pairs.to_csv(partial / "nearest.csv", index=False)
            draw_pairs(pairs, paths.CORPUS, paths.SYNTHETIC, partial / "nearest.png")
            write_json(partial / paths.AUDIT_FIDELITY.name, {"rows": rows})
        # Later stages read this file alone: another figure of the audit retrains no classifier.
        write_json(paths.REJECTED, {"rejected": report.pop("rejected")})
        write_json(paths.AUDIT_REPORT, report)
        logged.metrics(_numbers(report))
        logged.artifact(paths.AUDIT_FIGURES / "nearest.png")
        logged.artifact(paths.AUDIT_FIDELITY)
        logged.outputs(paths.AUDIT_REPORT, paths.REJECTED, paths.AUDIT_FIGURES)
    reasons = report["reasons"]
    kid = (
        "no KID"
        if report["kid"] is None
        else f"KID {report['kid']:.4f} (real against real {report['kid_floor']:.4f})"
    )
    print(
        f"audit: {report['memorised_count']:,} of {report['images']:,} synthetic images rejected "
        f"({reasons['copy']:,} copies, {reasons['too near']:,} too near, "
        f"{reasons['copy and too near']:,} both), {kid}, in {paths.AUDIT_FIGURES}"
    )


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    """What the MLflow run shows; figures that are not given are left out."""
    numbers = {name: report[name] for name in ("memorised_count", "kid", "kid_floor")}
    numbers["held_out_flagged"] = report["held_out"]["flagged_count"]
    for reference, row in report["fidelity"].items():
        for name in ("fid", "inception_score", "precision", "recall"):
            numbers[f"{name}_{reference}"] = row[name]["value"]
    return {name: value for name, value in numbers.items() if value is not None}


def examine(
    corpus: Path,
    synthetic: Path,
    settings: Audit,
    trained: Sequence[str] = ("train",),
    figures: Path | None = None,
    wanted: coverage.Wanted = None,
) -> tuple[dict[str, Any], pd.DataFrame, list[dict[str, Any]]]:
    """The report of the stage; one row per synthetic image, ordered by image_id; and the rows of
    `comparison`. Pictures go to the folder `figures`.
    """
    training = _rows(corpus, trained, _TRAINING_COLUMNS)
    split = trained[0] if len(trained) == 1 else None
    generated = _pool(synthetic)
    validation = _rows(corpus, ["validation"] if "validation" not in trained else [])
    held_out = _sample(validation)
    trunk = trunks.open_trunk(settings)
    of_training = features.extract(corpus, training, split, trunk)
    compared = [
        rejection.Images(synthetic, generated, "train"),
        rejection.Images(corpus, held_out, "validation"),
    ]
    (of_pool, of_sample), queries = features.under_symmetries(compared, trunk)
    near, rules = rejection.judge(
        rejection.Images(corpus, training, split),
        compared,
        rejection.Space(trunk, of_training.points, queries),
        settings,
    )
    count = len(generated)
    pairs = rules[:count].drop(columns=list(rejection.RULES))
    pairs.insert(1, "label", generated["label"])
    pool = Images(generated.assign(rejected=pairs["rejected"]), *of_pool)
    references = {
        "train": Images(training, *of_training),
        "test": _test_split(corpus, trunk, of_training),
    }
    compared_with = {name: comparison.pair(pool, real) for name, real in references.items()}
    measured = list(comparison.rows(compared_with))
    rejected = int(pairs["rejected"].sum())
    examined = groups.Examined(
        corpus, synthetic, paths.CAPTIONS, settings, generated, of_pool.points,
        features.first(queries, count), references["train"],
        rejection.photographs_of(training), references["test"], split, near[:, 0], held_out, wanted,
    )  # fmt: skip
    report = {
        "rejected": list(pairs.loc[pairs["rejected"], "image_id"]),
        "images": count,
        "memorised_count": rejected,
        "reasons": {
            str(name): int((pairs["reason"] == name).sum()) for name in rejection.REASONS[1:]
        },
        "ratio_limit": settings.memorisation_ratio,
        "correlation_limit": settings.duplicate_correlation,
        "ratio": rejection.quantiles(pairs["ratio"].to_numpy()),
        "memorisation": memorisation_figures(
            rules[:count],
            rules[count:],
            (of_training.points, of_pool.points, of_sample.points),
        ),
        "held_out": {"of": len(validation), **rejection.held_out_report(rules[count:])},
        "nearest_sources": predicted_source.nearest_sources(
            training, near[:count, 0], generated["label"]
        ),
        "predicted_source": predicted_source.report(
            training, near[:, 0], generated["label"], held_out
        ),
        **comparison.kid_of_classes(compared_with["train"]),
        "trunk": settings.trunk,
        "fidelity": {row["reference"]: _of_pool(row) for row in measured if row["group"] == "all"},
        **groups.report(examined, figures),
    }
    return report, pairs, measured


def _of_pool(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in comparison.NAMED}


def _test_split(corpus: Path, trunk: Trunk, like: Features) -> Images:
    """Images of the test split, which decide no rejection: a second reference and nothing else.

    None of them where the corpus has no such split.
    """
    if not any(corpus.glob("test-*.parquet")):
        empty = pd.DataFrame({name: pd.Series(dtype=object) for name in _COLUMNS})
        return Images(empty, like.points[:0], None if like.logits is None else like.logits[:0])
    rows = _rows(corpus, ["test"])
    return Images(rows, *features.extract(corpus, rows, "test", trunk))


def _sample(validation: pd.DataFrame) -> pd.DataFrame:
    """At most `HELD_OUT` rows, chosen by the hash of their image_id and ordered by it."""
    order = sorted(validation["image_id"], key=lambda image_id: rank("held out", image_id))
    chosen = validation["image_id"].isin(order[:HELD_OUT])
    return validation[chosen].reset_index(drop=True)


def _rows(folder: Path, splits: Sequence[str], columns: Sequence[str] = _COLUMNS) -> pd.DataFrame:
    """Columns of the benign and malignant images of some splits, ordered by image_id."""
    parts = [table.metadata(folder, columns, split) for split in splits]
    rows = pd.concat(parts) if parts else pd.DataFrame({name: [] for name in columns}, dtype=object)
    if "train" in splits:
        check_classes(rows["label"], folder)
    rows = rows[rows["label"].isin(CLASSES)]
    return rows.sort_values("image_id").reset_index(drop=True)


def _pool(folder: Path) -> pd.DataFrame:
    """Columns of every synthetic image; the classes are those that were asked for."""
    rows = table.metadata(folder, _POOL_COLUMNS, "train")
    return rows.sort_values("image_id").reset_index(drop=True)


def check_classes(labels: pd.Series[str], folder: Path) -> None:
    """Raise `InputError` when a class of the training split has too few images to compare with."""
    for name in CLASSES:
        count = int((labels == name).sum())
        if count < MINIMUM:
            raise InputError(
                f"{folder} contains {count} {name} images in split train but the audit needs "
                f"{MINIMUM}; add images of that class"
            )
