"""The recipe `supervised`: cross-entropy on augmented images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.recipes.classification.supervised import Supervised


def create(config: Mapping[str, Any], plan: ArmPlan) -> Supervised:
    """The recipe for one arm."""
    return Supervised(dict(config), plan)
