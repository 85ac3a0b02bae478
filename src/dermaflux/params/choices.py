"""What a parameter may choose by name, and the package behind each name.

This is the one place that lists the names. A package is imported when its name is chosen, or, for
the schema of its parameters, when parameters are read.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from dermaflux.errors import quoted

GENERATORS: Mapping[str, str] = {
    "flux_lora": "dermaflux.generators.flux_lora",
    "released": "dermaflux.generators.released",
    "latent_ddpm": "dermaflux.generators.latent_ddpm",
    "vap": "dermaflux.generators.vap",
}
"""Value of `generator` -> its package, which holds `settings`, `training.trainer` and
`sampling.generator`."""
COLLECTION = "released"
"""The one of them that takes images which others made, from `synthesize.released.folder`."""
_RENAMED = {"lora": "flux_lora", "folder": "released"}
"""Values of `generator` in files written for an earlier version."""


def generator_name(value: str) -> str:
    """The value of the parameter `generator`; raises `ValueError` for an unknown one."""
    if value in GENERATORS:
        return value
    if value in _RENAMED:
        raise ValueError(f"{quoted(value)} is called {_RENAMED[value]!r} now; write that")
    close = difflib.get_close_matches(value, GENERATORS, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"choose one of {', '.join(GENERATORS)}"
    raise ValueError(f"{quoted(value)} is not a generator; {hint}")


def generator_schema(name: str, section: str) -> type[Any]:
    """The class in a generator's `settings` that describes its part of a section.

    `section` is `Finetune` or `Synthesize`; the class is a `fields.GeneratorSettings`.
    """
    schema: type[Any] = getattr(importlib.import_module(f"{GENERATORS[name]}.settings"), section)
    return schema


RECIPES: Mapping[str, str] = {
    "supervised": "dermaflux.classifiers.recipes.supervised",
    "mae": "dermaflux.classifiers.recipes.mae",
}
"""`train.recipe` -> a package whose module `recipe` has `create`; see
`dermaflux.classifiers.recipes.protocol`."""


def pretrains(recipe: str) -> bool:
    """Whether a recipe of `RECIPES` has a module `pretraining`, which the stage `pretrain` runs."""
    return importlib.util.find_spec(f"{RECIPES[recipe]}.pretraining") is not None
