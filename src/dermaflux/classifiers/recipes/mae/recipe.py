"""The recipe `mae`: fine-tuning of what `pretraining` learned from images without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.recipes.classification.supervised import Supervised


def create(config: Mapping[str, Any], plan: ArmPlan) -> Supervised:
    """The recipe for one arm: cross-entropy (arXiv 2111.06377, section 4.1)."""
    return Supervised(dict(config), plan)
