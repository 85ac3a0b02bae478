"""The hash of the code that decides a stage's output.

A checkpoint's key holds it: a killed run never continues under edited code. `dvc.yaml` names the
same folders and files as the stage's dependencies, and a test holds the two together, so what makes
DVC run a stage again also makes it start anew.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

STAGE_CODE: Mapping[str, Sequence[str]] = {
    "ingest": ("core", "sources", "corpus"),
    "caption": ("core", "captions"),
    "validate": ("core", "validation"),
    "backbone": (
        "core",
        "phantom",
        "captions/lesion",
        "captions/text",
        "training",
        "generators/backbone.py",
        "generators/tiny_flux",
        "generators/flux_lora/model",
    ),
    "finetune": (
        "core",
        "captions/text",
        "training",
        "generators/finetune.py",
        "generators/data",
        "generators/{generator}",
    ),
    "selector": (
        "core",
        "training",
        "metrics",
        "classifiers/selector.py",
        "classifiers/train",
        "classifiers/data",
        "classifiers/model",
        "classifiers/recipes/classification",
    ),
    "synthesize": (
        "core",
        "captions/text",
        "generators/synthesize.py",
        "generators/data",
        "generators/pool",
        "generators/{generator}/model",
        "generators/{generator}/sampling",
    ),
    "validate_pool": ("core", "validation"),
    "audit": ("core", "corpus/duplicates", "captions/lesion", "audit"),
    "pretrain": (
        "core",
        "training",
        "metrics",
        "statistics",
        "classifiers/pretrain.py",
        "classifiers/data",
        "classifiers/model",
        "classifiers/recipes/classification",
        "classifiers/recipes/{recipe}",
    ),
    "train": (
        "core",
        "training",
        "metrics",
        "classifiers/train",
        "classifiers/data",
        "classifiers/model",
        "classifiers/recipes/classification",
        "classifiers/recipes/{recipe}",
    ),
    "distill": (
        "core",
        "training",
        "metrics",
        "classifiers/distill.py",
        "classifiers/train",
        "classifiers/data",
        "classifiers/model",
        "classifiers/recipes/distill",
        "classifiers/recipes/classification",
    ),
    "evaluate": (
        "core",
        "metrics",
        "statistics",
        "classifiers/evaluate.py",
        "classifiers/data",
        "classifiers/model",
    ),
    "zero_shot": ("core", "metrics", "statistics", "classifiers/zero_shot"),
    "promote": (
        "core",
        "metrics",
        "statistics",
        "classifiers/data",
        "classifiers/model",
        "registry",
    ),
    "report": ("core", "metrics", "statistics", "reporting"),
}
"""Stage -> folders and modules below this package, `{generator}` and `{recipe}` to be filled in.

Modules outside these, such as paths, progress and tracking, carry values and never decide them."""


@functools.cache
def stage_digest(stage: str, **choices: str) -> str:
    """SHA-256 hex digest of the names and contents of a stage's code.

    `choices` fills in what the stage's parameters choose: `generator`, `recipe`.
    """
    digest = hashlib.sha256()
    for entry in STAGE_CODE[stage]:
        code = _PACKAGE / entry.format(**choices)
        for path in sorted(code.rglob("*.py")) if code.is_dir() else [code]:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
