"""From the name of a generator to its code, which is imported when it is asked for."""

from __future__ import annotations

import importlib

from dermaflux.generators.protocol import Collection, Generator, Trainer
from dermaflux.params.choices import GENERATORS


def trainer(name: str) -> Trainer:
    """How the generator is trained; `name` is a key of `choices.GENERATORS`."""
    module = importlib.import_module(f"{GENERATORS[name]}.training.trainer")
    entry: Trainer = module.TRAINER
    return entry


def generator(name: str) -> Generator | Collection:
    """How its images are had; `name` is a key of `choices.GENERATORS`."""
    module = importlib.import_module(f"{GENERATORS[name]}.sampling.generator")
    entry: Generator | Collection = module.GENERATOR
    return entry
