"""The AUC of source, scale and facts of the file beside those of a cell's arms."""

from __future__ import annotations

import pytest
import toy_corpus as toy
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.classifiers.data import known_facts, training_set
from dermaflux.core import table
from dermaflux.params import Params, load

ARMS = ["real", "mixture", "repeated"]

pytestmark = pytest.mark.usefixtures("workspace")


def parameters(draw: str) -> Params:
    raw = toy.parameters().model_dump(by_alias=True)
    return load.parse({**raw, "n_real": 40, "train": {**raw["train"], "draw": draw}})


def figures(params: Params) -> dict[str, dict[str, float]]:
    rows = table.metadata(paths.CORPUS, split="test")
    return known_facts.figures(params, 0, ARMS, rows)


def test_source_alone_beside_every_arm_of_the_pooled_draw() -> None:
    params = parameters("pooled")
    beside = figures(params)
    real = training_set.draw(params, 0, ARMS).of("real")
    malignant = (real["label"] == "malignant").astype(int)
    of_kaggle = real["source"] == "kaggle1"
    assert malignant[of_kaggle].mean() > malignant[~of_kaggle].mean()
    trained = roc_auc_score(malignant, of_kaggle)  # two sources: the order of their shares
    # Of the test images 12 of 32 malignant ones and no benign one are of kaggle1.
    assert beside["real"]["source_auc"] == pytest.approx((1 + 12 / 32) / 2)
    assert beside["real"]["validation_source_auc"] == 0.5  # one source
    assert beside["real"]["scale_auc"] == beside["real"]["validation_scale_auc"] == 0.5
    assert beside["real"]["training_source_auc"] == pytest.approx(trained) != 0.5
    assert beside["repeated"] == beside["real"]
    # 20 synthetic images, half malignant, are a source between the two.
    synthetic = [*(2 * of_kaggle), *[1] * 20]
    mixed = roc_auc_score([*malignant, *[0] * 10, *[1] * 10], synthetic)
    assert beside["mixture"]["training_source_auc"] == pytest.approx(mixed)
    # A bright bar makes malignant images lighter, which their mean colour says.
    assert beside["real"]["file_auc"] > 0.9
    said, warning = known_facts.lines("vit-0", beside["real"])
    assert "source 0.688 and 0.500, scale 0.500 and 0.500, size and mean colour" in said
    assert "warning: vit-0: source alone 0.688 on the test images, size and mean colour" in warning
    assert "above 0.65" in warning


def test_the_matched_draw_leaves_the_source_nothing_to_tell() -> None:
    beside = figures(parameters("matched"))
    for arm in ARMS:
        assert beside[arm]["training_source_auc"] == 0.5
        assert beside[arm]["source_auc"] == beside[arm]["validation_source_auc"] == 0.5
