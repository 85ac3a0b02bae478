"""The model card: metadata that the Hub's own parser reads, and figures against scikit-learn."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from sklearn.metrics import recall_score, roc_auc_score

from dermaflux.params import Promote
from dermaflux.registry import model_card


def facts_and_predictions() -> tuple[model_card.Facts, pd.DataFrame]:
    """120 images of two sources; the rare one has 8 malignant images."""
    generator = np.random.default_rng(0)
    malignant = np.arange(120) % 3 == 0
    names = [f"toy/{number}" for number in range(120)]
    rows = pd.DataFrame(
        {
            "malignant": malignant,
            "source": np.where(np.arange(120) < 24, "rare", "toy"),
            "modality": "clinical",
            "skin_tone": None,
            "lesion_id": None,
            "duplicate_group": None,
        },
        index=pd.Index(names, name="image_id"),
    )
    config = {
        "name": "vit_tiny_patch16_224",
        "options": {},
        "image_size": 64,
        "classes": ["benign", "malignant"],
        "threshold": 0.4,
        "temperature": 0.5,
        "n_real": 1234,
        "n_synthetic": 0,
    }
    facts = model_card.Facts(
        cell="vit-0/real",
        config=config,
        validation=rows,
        sources={"toy, CC-BY | NC": 1200, "rare, CC0": 34},
        lineage={"data_hash": "abc.dir"},
        reason="vit-0/real has the best validation AUC: the only one",
        promote=Promote(bootstrap_samples=200, in_distribution_quantile=0.975),
        minimum_group=10,
        seed=0,
    )
    probability = 1 / (1 + np.exp(-generator.normal(malignant - 0.5, 1)))
    return facts, pd.DataFrame({"probability": probability}, index=rows.index)


def tables(text: str) -> dict[str, list[str]]:
    """First cell -> other cells of every table row; a cell may contain an escaped pipe."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [re.split(r"(?<!\\) \| ", line.strip("| ").strip()) for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_the_metadata_are_those_of_a_hub_model_card() -> None:
    facts, predictions = facts_and_predictions()
    data = ModelCard(model_card.render(facts, predictions)).data.to_dict()
    assert data["license"] == "other"
    assert (data["library_name"], data["pipeline_tag"]) == ("timm", "image-classification")
    auc = roc_auc_score(facts.validation["malignant"], predictions["probability"])
    ((name, results),) = [model_index_to_eval_results(data["model-index"])]
    assert name == "vit-0/real"
    assert (results[0].metric_type, results[0].dataset_split) == ("roc_auc", "validation")
    assert results[0].metric_value == pytest.approx(auc, abs=5e-5)


def test_the_text_has_every_fact_and_its_metrics_are_those_of_scikit_learn() -> None:
    facts, predictions = facts_and_predictions()
    text = model_card.render(facts, predictions)
    labels, scores = facts.validation["malignant"], predictions["probability"]
    rows = tables(text)
    for name, value in {
        "ROC-AUC": roc_auc_score(labels, scores),
        "sensitivity at the threshold": recall_score(labels, scores >= 0.4),
        "specificity at the threshold": recall_score(labels, scores >= 0.4, pos_label=False),
    }.items():
        assert rows[name][0] == f"{value:.3f}"
        low, high = (float(limit) for limit in rows[name][1].split(" to "))
        assert low < value < high
    errors = [rows[f"calibration error, {state}"][0] for state in ("uncalibrated", "calibrated")]
    assert errors[0] != errors[1]
    # A group of fewer than 10 images of a class has counts only; the pipe splits no cell.
    assert rows["source rare"] == ["16", "8", "too few images"]
    toy = facts.validation["source"] == "toy"
    assert rows["source toy"] == ["64", "32", f"{roc_auc_score(labels[toy], scores[toy]):.3f}"]
    assert rows[r"toy, CC-BY \| NC"] == ["1200"]
    assert rows["data_hash"] == ["abc.dir"]
    for sentence in (
        model_card.DISCLAIMER,
        "from an uncalibrated probability of 0.4",
        "temperature 0.500",
        "of which 33% are malignant",
        "1,234 real images",
        facts.reason,
        "those of 97.5% of the validation images. So about 2.5% of lesions",
    ):
        assert sentence in text
    assert "{" not in text.split("---\n", 2)[2].replace("`{}`", "")  # no field left unfilled
    assert model_card.summary(facts).endswith(f"{facts.reason}. {model_card.DISCLAIMER}")


def test_the_card_says_what_pre_training_and_teacher_saw() -> None:
    facts, predictions = facts_and_predictions()
    plain = model_card.render(facts, predictions)
    assert "pretrained weights: none; selected" in plain
    learned = {"pretrained": True, "pretraining": {"real": 1300, "synthetic": 59}}
    learned["teacher"] = {"cell": "vit-0/mixture"}
    lineage = {**facts.lineage, "synthetic_hash": "def.dir"}
    changed = replace(facts, config={**facts.config, **learned}, lineage=lineage)
    text = model_card.render(changed, predictions)
    for sentence in (
        "weights: yes, from 1,300 real and 59 synthetic images without labels; selected",
        "\n- learned from the outputs of a teacher, too: `vit-0/mixture`\n- vit-0/real has",
        "0 synthetic ones. Its pre-training or its teacher learned from synthetic images. Each",
    ):
        assert sentence in text
        assert sentence not in plain
