"""The names that parameters choose from, and the package behind each.

The one place that lists them: a package is imported only when a stage uses it.
"""

from __future__ import annotations

from collections.abc import Mapping

RECIPES: Mapping[str, str] = {"supervised": "dermaflux.classifiers.recipes.supervised"}
"""`train.recipe` -> a package whose module `recipe` has `create`; see
`dermaflux.classifiers.recipes.protocol`."""
