"""Zero-shot scoring against open_clip's own classifier, on tiny random models in folders."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toy_corpus as toy
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.classifiers import zero_shot
from dermaflux.core import table
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError
from dermaflux.params import RELEASED_BACKBONE, Params

open_clip = pytest.importorskip("open_clip")
CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip
CARD = "---\nlicense: cc-by-nc-4.0\n---\nA model.\n"


def saved(folder: Path, seed: int, **vision: Any) -> str:
    torch.manual_seed(seed)
    folder.mkdir()
    model = open_clip.CLIP(**CONFIG)
    config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], **vision}}
    preparation = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preparation})
    )
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "README.md").write_text(CARD)
    return str(folder)


def parameters(**models: str) -> Params:
    shipped = toy.parameters()
    section = {**shipped.zero_shot.model_dump(), "run": list(models), "models": models, "batch": 7}
    section["classes"] = {"benign": ["nevus", "harmless mole"], "malignant": ["melanoma"]}
    return toy.parameters(zero_shot=section)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    toy.write()
    return tmp_path


def test_scores_are_those_of_open_clips_own_zero_shot_classifier(work: Path) -> None:
    params = parameters(one=saved(work / "one", 0), two=saved(work / "two", 1))
    zero_shot.run(params)

    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{work / 'one'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{work / 'one'}")
    model.eval()
    classifier = torch.cat(
        [
            open_clip.build_zero_shot_classifier(
                model,
                tokenizer,
                ["unused"],
                [
                    partial(str.replace, template.replace("{c}", phrase), "unused")
                    for phrase in params.zero_shot.classes[label]  # type: ignore[index]
                    for template in params.zero_shot.templates
                ],
            )
            for label in ("benign", "malignant")
        ],
        dim=1,
    )
    expected, truth = {}, {}
    rows = table.metadata(paths.CORPUS, split="test").set_index("image_id")
    for image_id, encoded in table.images(paths.CORPUS, split="test"):
        with torch.no_grad():
            seen = model.encode_image(prepare(decode_image(encoded))[None], normalize=True)
            logits = model.logit_scale.exp() * seen @ classifier
        expected[image_id] = float(logits.softmax(-1)[0, 1])
        truth[image_id] = rows.loc[image_id, "label"] == "malignant"

    predictions = pd.read_csv(paths.ZERO_SHOT / "predictions.csv").set_index("image_id")
    assert sorted(predictions.index) == sorted(expected)
    ids = list(predictions.index)
    np.testing.assert_allclose(predictions["one"], [expected[i] for i in ids], atol=1e-5)
    report = json.loads(paths.ZERO_SHOT_REPORT.read_text())
    assert report["one"]["auc"] == pytest.approx(
        roc_auc_score([truth[i] for i in ids], predictions["one"])
    )
    assert report["one"]["auc_low"] < report["one"]["auc"] < report["one"]["auc_high"]
    assert report["two"]["auc"] != report["one"]["auc"]
    assert report["one"]["licence"] == "cc-by-nc-4.0"
    assert report["test"] == {"images": len(ids), "malignant": sum(truth.values())}
    assert (paths.ZERO_SHOT / "roc" / "two.csv").is_file()


def test_nothing_to_run_writes_an_empty_report_without_torch(work: Path) -> None:
    import subprocess
    import sys

    shipped = (Path(__file__).parents[2] / "params.yaml").read_text()
    (work / "params.yaml").write_text(shipped.replace(RELEASED_BACKBONE, "tiny"))
    code = (
        "import sys; from dermaflux.params.load import load; "
        "from dermaflux.classifiers import zero_shot; zero_shot.run(load()); "
        "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert json.loads(paths.ZERO_SHOT_REPORT.read_text()) == {}
    assert pd.read_csv(paths.ZERO_SHOT / "predictions.csv").empty


class Trap:
    """A pickle that leaves a trace when it is loaded as more than tensors."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("sprung", "w"))


def test_models_that_cannot_be_opened_get_one_sentence(work: Path) -> None:
    fork = saved(work / "panderm", 0, pretrain_path="panderm.pth")
    with pytest.raises(InputError, match=r"vision_cfg\.pretrain_path.*SiyuanYan1/Derm1M"):
        zero_shot.run(parameters(panderm=fork))
    with pytest.raises(InputError, match="zero_shot.models.none .*leave the model out"):
        zero_shot.run(parameters(none=str(work / "none")))
    with pytest.raises(InputError, match="zero_shot.models.away owner/name.*zero_shot.run"):
        zero_shot.run(parameters(away="hf-hub:owner/name@main"))
    with pytest.raises(InputError, match="has no @revision after its name.*pin the commit"):
        parameters(away="hf-hub:owner/name")
    larger = saved(work / "larger", 0, width=48)
    with pytest.raises(InputError, match="matching configuration and weights"):
        zero_shot.run(parameters(larger=larger))
    trap = Path(saved(work / "trap", 0))
    torch.save({"x": Trap()}, trap / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match=r"zero_shot\.models\.trap"):
        zero_shot.run(parameters(trap=str(trap)))
    assert not (work / "sprung").exists()
    assert not paths.ZERO_SHOT_REPORT.exists()
