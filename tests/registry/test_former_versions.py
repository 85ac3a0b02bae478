"""A version registered by an earlier release, laid down by hand as that release wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import small_registry as small
from safetensors.numpy import save_file

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.registry import lineage
from dermaflux.registry.serving import COLUMNS, LesionClassifier

MLMODEL = """\
flavors:
  python_function:
    data: data/classifier
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: dermaflux.classifiers.registry
    python_version: 3.11.7
    streamable: false
is_signature_from_type_hint: false
mlflow_version: 3.17.2
model_uuid: m-8f02052a5a4344c3bc64ad8a4a5af9ee
signature:
  inputs: '[{"type": "binary", "name": "image", "required": true}]'
  outputs: '[{"type": "double", "name": "probability", "required": false}, {"type":
    "string", "name": "label", "required": false}, {"type": "boolean", "name":
    "out_of_distribution", "required": false}, {"type": "string", "name": "problem",
    "required": false}]'
  params: null
type_hint_from_example: false
"""


@pytest.mark.parametrize("with_detector", [True, False])
def test_a_former_version_predicts_the_same(
    unpromoted: Params, tmp_path: Path, with_detector: bool
) -> None:
    folder = paths.CLASSIFIERS / "vit-0" / "mixture"
    version = tmp_path / "version"
    data = version / "data" / "classifier"
    shutil.copytree(folder, data)
    (version / "MLmodel").write_text(MLMODEL)
    if with_detector:
        detector = lineage.fit_ood_detector(folder, unpromoted)
        arrays = {
            "scales": np.array(detector.scales),
            "threshold": np.array(detector.threshold),
            **{f"mean.{view}": detector.means[view] for view in (0, 1)},
            **{f"precision.{view}": detector.precisions[view].copy() for view in (0, 1)},
        }
        save_file(arrays, data / "familiarity.safetensors")
    images = [small.image(7, True), small.flat(), b"damaged"]
    frame = mlflow.pyfunc.load_model(str(version)).predict(pd.DataFrame({"image": images}))

    assert tuple(frame.columns) == COLUMNS
    flags = frame["out_of_distribution"].to_list()
    assert flags == ([False, True, None] if with_detector else [None, None, None])
    assert LesionClassifier(data).has_ood_detector == with_detector
    present = LesionClassifier(folder).predict_images(images)
    assert frame["probability"].to_list() == [row["probability"] for row in present]
    assert frame["label"].to_list() == [row["label"] for row in present]
    assert json.loads((data / "config.json").read_text())["temperature"] == 0.25
