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

from dermaflux import paths
from dermaflux.audit import features, image_sets, predicted_source, trunks
from dermaflux.audit.faithfulness import coverage, groups
from dermaflux.audit.fidelity import comparison
from dermaflux.audit.fidelity.comparison import Images
from dermaflux.audit.memorisation import rejection
from dermaflux.audit.memorisation.figures import memorisation_figures
from dermaflux.audit.memorisation.pairs import draw_pairs
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from dermaflux.audit.features import AuditedFeatures
    from dermaflux.audit.image_sets import AuditedImages
    from dermaflux.params import Audit


def run(params: Params) -> None:
    """Reject memorised images and measure fidelity; each output is written atomically."""
    settings = params.audit
    inputs = [path for path in (paths.CORPUS, paths.CAPTIONS, paths.SYNTHETIC) if path.exists()]
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
    images = image_sets.read(corpus, synthetic, trained)
    trunk = trunks.open_trunk(settings)
    seen = features.extract_all(images, trunk)
    near, rules = rejection.judge(
        images.training,
        [images.pool, images.held_out],
        rejection.Space(trunk, seen.training.points, seen.queries),
        settings,
    )
    labels, count = images.pool.rows["label"], len(images.pool.rows)
    pairs = rules[:count].drop(columns=list(rejection.RULES))
    pairs.insert(1, "label", labels)
    fidelity, rows = _fidelity(images, seen, pairs["rejected"])
    training, held_out = images.training.rows, images.held_out.rows
    report = {
        **_rejected(pairs, settings),
        "memorisation": memorisation_figures(
            rules[:count],
            rules[count:],
            (seen.training.points, seen.pool.points, seen.held_out.points),
        ),
        "held_out": {
            "of": images.validation_images,
            **rejection.held_out_report(rules[count:]),
        },
        "nearest_sources": predicted_source.nearest_sources(training, near[:count, 0], labels),
        "predicted_source": predicted_source.report(training, near[:, 0], labels, held_out),
        **fidelity,
        "trunk": settings.trunk,
        **groups.report(
            groups.Examined(images, seen, near[:, 0], settings, paths.CAPTIONS, wanted), figures
        ),
    }
    return report, pairs, rows


def _rejected(pairs: pd.DataFrame, settings: Audit) -> dict[str, Any]:
    """Which images are rejected, by which rules, and the ratios of all."""
    rejected = pairs.loc[pairs["rejected"], "image_id"].tolist()
    return {
        "rejected": rejected,
        "images": len(pairs),
        "memorised_count": len(rejected),
        "reasons": {
            str(name): int((pairs["reason"] == name).sum()) for name in rejection.REASONS[1:]
        },
        "ratio_limit": settings.memorisation_ratio,
        "correlation_limit": settings.duplicate_correlation,
        "ratio": rejection.quantiles(pairs["ratio"].to_numpy()),
    }


def _fidelity(
    images: AuditedImages, seen: AuditedFeatures, rejected: pd.Series[bool]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole pool against either reference, KID of each class; and the rows of `comparison`."""
    pool = Images(images.pool.rows.assign(rejected=rejected), *seen.pool)
    pairs = {
        "train": comparison.pair(pool, Images(images.training.rows, *seen.training)),
        "test": comparison.pair(pool, Images(images.test.rows, *seen.test)),
    }
    rows = list(comparison.rows(pairs))
    whole = {row["reference"]: _of_pool(row) for row in rows if row["group"] == "all"}
    return {**comparison.kid_of_classes(pairs["train"]), "fidelity": whole}, rows


def _of_pool(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in comparison.NAMED}
