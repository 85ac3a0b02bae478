"""Recipes by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.recipes.protocol import Pretraining, Recipe
from dermaflux.params.choices import RECIPES


def create(name: str, config: Mapping[str, Any], plan: ArmPlan) -> Recipe:
    """The recipe `name` of `RECIPES` for one arm.

    `config` is that of `network.configure`; `plan` holds the arm's augmentation and what may learn.
    """
    module = importlib.import_module(f"{RECIPES[name]}.recipe")
    recipe: Recipe = module.create(config, plan)
    return recipe


def pretraining(name: str) -> Pretraining:
    """How the recipe `name` pre-trains; only where `choices.pretrains`."""
    module: Pretraining = importlib.import_module(f"{RECIPES[name]}.pretraining")
    return module
