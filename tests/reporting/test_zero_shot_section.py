"""The report's comparison with zero-shot models: which classifier, and by how much."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.reporting import report, zero_shot_section
from dermaflux.statistics import evaluations


def test_the_best_by_validation_is_compared_with_every_model(workspace: Params) -> None:
    assert 'id="zero-shot"' not in report.render(workspace)
    settings = {**workspace.zero_shot.model_dump(), "run": ["make", "biomedclip"]}
    params = workspace.model_copy(update={"zero_shot": type(workspace.zero_shot)(**settings)})
    validation = {("vit-0", "real"): 0.7, ("vit-1", "mixture"): 0.9, ("resnext-0", "real"): 0.95}
    validation["vit-2", "random_features"] = 0.99  # leads by luck, is no candidate
    for path in paths.EVALUATIONS.glob("*.json"):
        content = json.loads(path.read_text())
        for arm in params.train.arms:
            content[arm]["validation_auc"] = validation.get((path.stem, arm), 0.5)
        write_json(path, content)
    trained = pd.read_csv(paths.EVALUATIONS / "vit-1" / "predictions.csv")
    labels = trained["label"] == "malignant"
    draw = np.random.default_rng(0)
    scored = trained[["image_id", "label"]].assign(
        make=draw.random(len(trained)), biomedclip=draw.random(len(trained))
    )
    # Another order of rows, as another stage may write them.
    paths.ZERO_SHOT.mkdir()
    scored[::-1].to_csv(paths.ZERO_SHOT / "predictions.csv", index=False)
    figures = {"auc": 0.5, "auc_low": 0.4, "auc_high": 0.6}
    figures |= {name.replace("auc", "accuracy"): value for name, value in figures.items()}
    models = {
        name: {**figures, "source": f"hf-hub:owner/{name}", "licence": "mit"}
        for name in ("make", "biomedclip")
    }
    write_json(paths.ZERO_SHOT_REPORT, {**models, "test": {"images": len(trained)}})

    section = zero_shot_section.build(params, models, evaluations.load(params))
    assert section is not None
    assert section["trained"] == "vit-1/mixture"
    for name in models:
        expected = roc_auc_score(labels, trained["mixture"]) - roc_auc_score(labels, scored[name])
        assert section["models"][name]["difference"] == pytest.approx(expected)
        assert 0 <= section["models"][name]["p"] <= 1
    page = report.render(params)
    assert 'id="zero-shot"' in page
    assert "hf-hub:owner/biomedclip" in page
    assert page == report.render(params)
