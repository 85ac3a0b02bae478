"""The model card of a registered classifier: Markdown with the Hugging Face Hub's metadata.

Pure: written from the classifier's configuration, its validation predictions and the hashes of its
inputs. Metrics are those of validation images, on which the classifier was also selected; the test
metrics come from `evaluate`, which may run after promotion. The text is `model_card.md.jinja`; the
metadata follow https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.metrics import binary, calibration, multiclass
from dermaflux.statistics import bootstrap

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import ModelCardData

    from dermaflux.params import Promote

DISCLAIMER = "Not a medical device: a research classifier, not validated for any clinical use."
_TEMPLATE = Path(__file__).with_suffix(".md.jinja")
_GROUPS = ("source", "modality", "skin_tone")


@dataclass(frozen=True)
class Facts:
    """Content of a card."""

    cell: str
    config: Mapping[str, Any]
    validation: pd.DataFrame
    """Validation images by image_id: `malignant` (bool), source, modality, skin_tone, and what
    `bootstrap.groups` reads."""
    sources: Mapping[str, int]
    """Images of the corpus's training split by source and licence."""
    lineage: Mapping[str, str]
    reason: str
    """Of the decision on the candidate."""
    promote: Promote
    minimum_group: int
    """A group with fewer images of either class gets no metric."""
    seed: int


def summary(facts: Facts) -> str:
    """The description of the version in the registry."""
    config = facts.config
    images = f"{config.get('n_real', 0):,} real and {config.get('n_synthetic', 0):,} synthetic"
    return (
        f"{facts.cell}: {config['name']} at {config['image_size']} px, trained on {images} images. "
        f"Why: {facts.reason}. {DISCLAIMER}"
    )


def render(facts: Facts, predictions: pd.DataFrame) -> str:
    """MODEL_CARD.md of the version.

    `predictions` has the column `probability`, uncalibrated and in [0, 1], for the same images.
    """
    from huggingface_hub import ModelCard

    rows = facts.validation.assign(probability=predictions["probability"])
    auc = binary.auc(rows["malignant"].to_numpy().astype(int), rows["probability"].to_numpy())
    card = ModelCard.from_template(
        _card_data(facts, auc),
        template_path=str(_TEMPLATE),
        facts=facts,
        config=facts.config,
        disclaimer=DISCLAIMER,
        malignant_fraction=rows["malignant"].mean(),
        in_distribution_quantile=facts.promote.in_distribution_quantile,
        metrics=_metrics(facts, rows),
        groups=_groups(facts, rows),
    )
    return f"{card.content}\n"


def _card_data(facts: Facts, auc: float) -> ModelCardData:
    """Metadata of the card, with the validation AUC as its evaluation result."""
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type="image-classification",
        dataset_type="dermaflux-corpus",
        dataset_name="DermaFlux corpus",
        dataset_split="validation",
        metric_type="roc_auc",
        metric_name="ROC-AUC",
        metric_value=round(auc, 4),
    )
    return ModelCardData(
        model_name=facts.cell,
        license="other",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["dermatology", "skin-lesion", "synthetic-data", "not-for-clinical-use"],
        eval_results=[result],
    )


def _metrics(facts: Facts, rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Name, value and interval of each metric."""
    labels = rows["malignant"].to_numpy().astype(int)
    scores = rows["probability"].to_numpy()
    members = bootstrap.groups(rows.reset_index())
    resamples = bootstrap.resamples(labels, members, facts.promote.bootstrap_samples, facts.seed)
    weights = np.concatenate([np.ones((1, len(labels)), resamples.dtype), resamples])
    threshold = float(facts.config["threshold"])
    values = binary.figures(labels, scores, threshold, [facts.promote.specificity], weights)
    names = {
        "auc": "ROC-AUC",
        "accuracy": "accuracy",
        "sensitivity": "sensitivity at the threshold",
        "specificity": "specificity at the threshold",
        f"sensitivity_at_{facts.promote.specificity * 100:g}": (
            f"sensitivity at {facts.promote.specificity:.0%} specificity"
        ),
    }
    lines = []
    for key, name in names.items():
        low, high = bootstrap.interval(values[key][1:], facts.promote.confidence)
        lines.append((name, f"{values[key][0]:.3f}", f"{low:.3f} to {high:.3f}"))
    majority = multiclass.majority_accuracy(labels)
    lines.insert(2, ("accuracy of the most frequent class", f"{majority:.3f}", ""))
    temperature = float(facts.config.get("temperature", 1.0))
    calibrated = calibration.apply_temperature(scores, temperature)
    for name, probability in (("uncalibrated", scores), ("calibrated", calibrated)):
        value = calibration.expected_calibration_error(labels, probability)
        lines.append((f"calibration error, {name}", f"{value:.3f}", ""))
    return lines


def _groups(facts: Facts, rows: pd.DataFrame) -> list[tuple[str, int, int, str]]:
    """Group, number of benign and of malignant images, and AUC where both are enough."""
    lines = []
    for column in _GROUPS:
        for value, group in rows.groupby(column, dropna=True):
            labels = group["malignant"].to_numpy().astype(int)
            benign, malignant = (int((labels == label).sum()) for label in (0, 1))
            auc = "too few images"
            if min(benign, malignant) >= facts.minimum_group:
                auc = f"{binary.auc(labels, group['probability'].to_numpy()):.3f}"
            lines.append((f"{column.replace('_', ' ')} {value}", benign, malignant, auc))
    return lines
