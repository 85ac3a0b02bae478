"""The model card that travels with a registered classifier, as Markdown.

Pure: made from the classifier's configuration, its validation predictions and the hashes of what it
was made from. Figures are of validation images, on which the classifier was also chosen; the test
figures are those of `evaluate`, which no registered version waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.metrics import binary, calibration
from dermaflux.statistics import bootstrap

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.params import Promote

DISCLAIMER = "Not a medical device: a research classifier, not validated for any clinical use."
_GROUPS = ("source", "modality", "skin_tone")


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

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
    """Images of either class below which a group is too few to say."""
    seed: int


def short(facts: Facts) -> str:
    """The description of the version in the registry."""
    config = facts.config
    images = f"{config.get('n_real', 0):,} real and {config.get('n_synthetic', 0):,} synthetic"
    return (
        f"{facts.cell}: {config['name']} at {config['image_size']} px, trained on {images} images. "
        f"Why: {facts.reason}. {DISCLAIMER}"
    )


def text(facts: Facts, predictions: pd.DataFrame) -> str:
    """MODEL_CARD.md of the version.

    `predictions` has the column `probability`, as the network gives it, for the same images.
    """
    config, fraction = facts.config, facts.promote.familiar_fraction
    rows = facts.validation.assign(probability=predictions["probability"])
    sections = (
        f"# Model card: {facts.cell}",
        f"**{DISCLAIMER}**",
        "## Intended use",
        "Research on synthetic training images: one photograph or dermoscopic image of one skin "
        "lesion in, a probability of malignancy out. It was made to compare training sets, not to "
        "advise anybody about a lesion. Not for screening, triage, diagnosis or self-examination.",
        "## The classifier",
        f"- timm model `{config['name']}` with options `{config['options']}`, images of "
        f"{config['image_size']} x {config['image_size']} px",
        f"- classes {' and '.join(config['classes'])}; malignant from an uncalibrated probability "
        f"of {config['threshold']:g}",
        f"- temperature {config.get('temperature', 1.0):.3f}, fitted on validation images, of "
        f"which {rows['malignant'].mean():.0%} are malignant; it makes served probabilities more "
        "or less certain but cannot mend a prevalence that training did not have, so where the "
        "training images were half malignant a probability reads as if half of all lesions were",
        f"- pretrained weights: {'yes' if config.get('pretrained') else 'none'}; epoch kept: "
        f"{config.get('epoch', 'unknown')}",
        f"- {facts.reason}",
        "## Data",
        f"{config.get('n_real', 0):,} real images, drawn from the training split below, and "
        f"{config.get('n_synthetic', 0):,} synthetic ones. Each real image keeps the licence of "
        "its dataset, and some forbid commercial use.",
        _table(("source and licence", "images"), [*sorted(facts.sources.items())]),
        _table(("lineage", "value"), [*sorted(facts.lineage.items())]),
        f"## Figures on {len(rows):,} validation images",
        "The classifier was chosen on these images, so the figures flatter it; the report's are of "
        "a test set that played no part.",
        _figures(facts, rows),
        "## Groups",
        f"A group with fewer than {facts.minimum_group} images of either class is too few to say.",
        _groups(facts, rows),
        "## Pictures that are no skin lesion",
        "Every answer carries `out_of_distribution`. It is set for pictures whose colours, texture "
        f"or features lie further from the training images than those of {fraction:.0%} of "
        f"the validation images, so about {1 - fraction:.0%} of lesions like these are flagged, "
        "and lesions taken with another kind of camera more often. A picture that is not flagged "
        "may still be no lesion: the flag compares appearance and knows no anatomy.",
    )
    return "\n\n".join(sections) + "\n"


def _figures(facts: Facts, rows: pd.DataFrame) -> str:
    labels = rows["malignant"].to_numpy().astype(int)
    scores = rows["probability"].to_numpy()
    members = bootstrap.groups(rows.reset_index())
    drawn = bootstrap.resamples(labels, members, facts.promote.bootstrap_samples, facts.seed)
    weights = np.concatenate([np.ones((1, len(labels)), drawn.dtype), drawn])
    threshold = float(facts.config["threshold"])
    found = binary.figures(labels, scores, threshold, [facts.promote.specificity], weights)
    at = f"sensitivity_at_{facts.promote.specificity * 100:g}"
    names = {
        "auc": "ROC-AUC",
        "accuracy": "accuracy",
        "sensitivity": "sensitivity at the threshold",
        "specificity": "specificity at the threshold",
        at: f"sensitivity at {facts.promote.specificity:.0%} specificity",
    }
    lines = []
    for key, name in names.items():
        low, high = bootstrap.interval(found[key][1:], facts.promote.confidence)
        lines.append((name, f"{found[key][0]:.3f}", f"{low:.3f} to {high:.3f}"))
    tempered = calibration.apply_temperature(scores, float(facts.config.get("temperature", 1.0)))
    for name, values in (("before", scores), ("after", tempered)):
        value = calibration.expected_calibration_error(labels, values)
        lines.append((f"calibration error {name} temperature", f"{value:.3f}", ""))
    return _table(("figure", "value", f"{facts.promote.confidence:.0%} interval"), lines)


def _groups(facts: Facts, rows: pd.DataFrame) -> str:
    lines = []
    for column in _GROUPS:
        for value, group in rows.groupby(column, dropna=True):
            labels = group["malignant"].to_numpy().astype(int)
            counts = (int((labels == 0).sum()), int((labels == 1).sum()))
            auc = "too few to say"
            if min(counts) >= facts.minimum_group:
                auc = f"{binary.auc(labels, group['probability'].to_numpy()):.3f}"
            lines.append((f"{column.replace('_', ' ')} {value}", *counts, auc))
    return _table(("group", "benign", "malignant", "ROC-AUC"), lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
