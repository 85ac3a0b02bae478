"""Where the stages write, relative to the working directory.

The working directory is the repository root, or the temporary copy of it in which DVC runs a
queued experiment. What outlives one experiment (checkpoints, the MLflow store) is anchored on
`project_root`, which stays the main checkout there too.
"""

from __future__ import annotations

import os
from pathlib import Path

CORPUS = Path("corpus")
CAPTIONS = Path("captions")
BACKBONE = Path("models/backbone")
GENERATOR = Path("models/generator")
SYNTHETIC = Path("synthetic")
SELECTOR = Path("models/selector")
SELECTOR_PROGRAM = SELECTOR / "classifier.pt2"
PRETRAINED = Path("models/pretrained")
PRETRAINED_WEIGHTS = PRETRAINED / "model.safetensors"
CLASSIFIERS = Path("models/classifiers")
DEPLOYMENT_MODELS = Path("models/deployment")
REPORTS = Path("reports")
INGEST_REPORT = REPORTS / "ingest.json"
QUARANTINE = REPORTS / "quarantine.csv"
LEAKS = REPORTS / "leaks.csv"
DATA_DOCS = REPORTS / "validation"
VALIDATION_REPORT = REPORTS / "validation.json"
SYNTHESIZE_REPORT = REPORTS / "synthesize"
AUDIT_REPORT = REPORTS / "audit.json"
REJECTED = REPORTS / "rejected.json"
AUDIT_FIGURES = REPORTS / "audit"
AUDIT_FIDELITY = AUDIT_FIGURES / "fidelity.json"
PRETRAIN_REPORT = REPORTS / "pretrain.json"
PRETRAIN_FIGURES = REPORTS / "pretrain"
EVALUATIONS = REPORTS / "evaluate"
ZERO_SHOT = REPORTS / "zero_shot"
ZERO_SHOT_REPORT = REPORTS / "zero_shot.json"
GRIDS = REPORTS / "grids"
DEPLOYMENTS = REPORTS / "deployment"
PROMOTE_REPORT = REPORTS / "promote.json"
REPORT_PAGE = REPORTS / "index.html"
COMPARED = REPORTS / "metrics.json"
DATA_CARD = REPORTS / "data_card.md"


def cell(architecture: str, seed: int) -> str:
    """Name of one cell of the train and evaluate matrix."""
    return f"{architecture}-{seed}"


def project_root() -> Path:
    """The main checkout: `DVC_ROOT` inside a DVC stage, else the nearest folder with `.dvc`."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    return here
