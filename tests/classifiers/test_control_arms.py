"""Cells with control arms and cells of diagnoses, on the toy corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy_corpus as toy
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from dermaflux import params, paths
from dermaflux.classifiers import evaluate, train
from dermaflux.classifiers.data import samples
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError
from dermaflux.params import load
from dermaflux.validation import mixture_gate

ROOT = Path(__file__).parents[2]
ARMS = ["real", "mixture", "repeated", "augmented", "random_features"]
CELL = paths.CLASSIFIERS / "vit-0"


pytestmark = pytest.mark.usefixtures("workspace")


def parameters(top: dict[str, object] | None = None, **changes: object) -> params.Params:
    shipped = toy.parameters(**(top or {}))
    settings = params.Train.model_validate({**shipped.train.model_dump(), **changes})
    return shipped.model_copy(update={"train": settings})


def config(arm: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((CELL / arm / "config.json").read_text())
    return content


def test_controls_are_as_large_as_the_mixture_and_outlast_a_change_of_ratio(capsys) -> None:
    train.run(parameters(arms=ARMS, epochs=2), "vit", 0, mixture_gate.check)
    counts = {arm: [config(arm)[f"n_{kind}"] for kind in ("real", "synthetic")] for arm in ARMS}
    assert counts == {arm: [60, 30 if arm == "mixture" else 0] for arm in ARMS}
    shown = {arm: config(arm)["n_shown"] for arm in ARMS}
    assert shown == dict.fromkeys(ARMS[1:4], 90) | {"real": 60, "random_features": 60}
    weights = {arm: load_file(CELL / arm / "model.safetensors") for arm in ARMS}
    torch.manual_seed(derived_seed(0, "weights"))
    initial = network.build(config("real")).state_dict()
    moved = {
        arm: {name for name in initial if not torch.equal(initial[name], weights[arm][name])}
        for arm in ARMS
    }
    assert moved["random_features"] == {"head.weight", "head.bias"}
    assert all(len(moved[arm]) > 10 for arm in ARMS[:4])
    capsys.readouterr()
    train.run(parameters({"ratio": 0.9}, arms=ARMS, epochs=2), "vit", 0, mixture_gate.check)
    recalled = [line for line in capsys.readouterr().out.splitlines() if "trained before" in line]
    assert [line.split(":")[0] for line in recalled] == ["vit-0/real", "vit-0/random_features"]
    assert config("repeated")["n_shown"] == 60 + 54


def keys(run: params.Params) -> dict[str, str]:
    cell = train.Cell.open(run, "vit", 0, mixture_gate.check)
    return {arm: cell.key(arm) for arm in ARMS}


def test_a_key_depends_on_what_decides_the_arm_and_on_nothing_else(tmp_path) -> None:
    plain = keys(parameters(arms=ARMS))
    assert len(set(plain.values())) == 5
    at_zero = keys(parameters({"ratio": 0.0}, arms=ARMS))
    assert at_zero["real"] == at_zero["mixture"] == at_zero["repeated"] == plain["real"]
    assert at_zero["augmented"] != plain["augmented"]

    def changed(other: dict[str, str]) -> set[str]:
        return {arm for arm in ARMS if plain[arm] != other[arm]}

    assert changed(keys(parameters(arms=ARMS, augmentation="none"))) == set(ARMS) - {"augmented"}
    assert changed(keys(parameters({"ratio": 0.7}, arms=ARMS))) == set(ARMS[1:4])
    assert changed(keys(parameters(arms=ARMS, optimizer="adam"))) == set(ARMS)
    assert changed(keys(parameters(arms=ARMS[::-1], minimum_diagnosis_images=3))) == set()
    grown = parameters(
        arms=ARMS, seeds=[5, 0], architectures=["vit"], models={"vit": toy.TINY["vit"]}
    )
    assert changed(keys(grown)) == set()
    torch.manual_seed(1)
    net = network.build(config_of(parameters()))
    started = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.safetensors"
        network.save_weights(net.state_dict(), path)
        model = {**toy.TINY["vit"], "pretrained": True, "weights": str(path)}
        started.append(keys(parameters(arms=ARMS, models={**toy.TINY, "vit": model})))
    assert started[0] == started[1]  # whatever the path of the file
    assert changed(started[0]) == set(ARMS[:4])  # random features start at random all the same


def config_of(run: params.Params) -> dict[str, object]:
    return network.configure(run.train.models["vit"], toy.SIDE)


DIAGNOSES = ["angioma", "melanoma", "nevus"]


def test_diagnoses_are_classes_in_the_proportions_of_the_corpus(capsys) -> None:
    run = parameters({"real_fraction": 0.5}, labels="diagnosis", arms=ARMS[:3], epochs=2)
    train.run(run, "vit", 0, mixture_gate.check)
    printed = capsys.readouterr().out
    assert "3 diagnoses: angioma, melanoma, nevus; left out, training images: 0" in printed
    rows = table.metadata(paths.CORPUS, split="train")["diagnosis"].value_counts()
    drawn = [int(rows[name] * 0.5 + 0.5) for name in DIAGNOSES]
    real = config("real")
    assert (real["classes"], real["n_real"], real["threshold"]) == (DIAGNOSES, sum(drawn), None)
    added = [int(0.5 * sum(drawn) + 0.5) * count // sum(drawn) for count in drawn]
    assert config("mixture")["n_synthetic"] == sum(added)
    assert config("repeated")["n_shown"] == sum(drawn) + sum(added)
    for arm in ARMS[:3]:
        rows = pd.read_csv(CELL / arm / "validation.csv")
        assert list(rows.columns) == ["image_id", "label", *DIAGNOSES]
        scores = rows[DIAGNOSES].to_numpy()
        assert scores.sum(axis=1) == pytest.approx(np.ones(len(rows)))
        history = pd.read_csv(CELL / arm / "history.csv")["validation_auc"]
        expected = roc_auc_score(rows["label"], scores, multi_class="ovr", labels=DIAGNOSES)
        assert history[config(arm)["epoch"] - 1] == history.max() == pytest.approx(expected)
        assert config(arm)["temperature"] > 0
    evaluate.run(run, "vit", 0)


def test_a_share_of_real_images_can_ask_for_more_than_the_pool_holds() -> None:
    with pytest.raises(InputError, match="synthetic benign images but 29 are left of 30"):
        train.run(parameters({"real_fraction": 1.0}), "vit", 0, mixture_gate.check)


def test_synthetic_images_without_a_diagnosis_are_no_part_of_a_mixture_of_diagnoses() -> None:
    rows = [row | {"diagnosis": None} for row in toy.rows("train", "synthetic", 30, 30, 5)]
    table.write(rows, paths.SYNTHETIC, 64)
    with pytest.raises(InputError, match="none of the 60 .* leave mixture out of train.arms"):
        train.run(
            parameters({"real_fraction": 0.5}, labels="diagnosis"), "vit", 0, mixture_gate.check
        )


@pytest.mark.parametrize(
    ("split", "share", "message"),
    [
        ("train", None, "training split holds 0 malignant images but n_real 60 needs 30"),
        ("train", 0.1, "holds 0 malignant images, of which real_fraction 0.1"),
        ("validation", None, "validation split holds 0 malignant images of 45"),
        ("test", None, "test split holds 0 malignant images of 45"),
    ],
)
def test_a_split_without_malignant_images_is_named(split, share, message) -> None:
    for shard in table.shards(paths.CORPUS, split):
        shard.unlink()
    rows = toy.rows(split, "isic2019", 45, 0, 2)
    table.write_shard(rows, paths.CORPUS / table.shard_name(split, 0, 1))
    if split != "test":
        with pytest.raises(InputError, match=message):
            train.run(parameters({"real_fraction": share}), "vit", 0, mixture_gate.check)
        return
    with pytest.raises(InputError, match=message):  # which `evaluate` opens, no stage before it
        samples.load_split(paths.CORPUS, split, toy.SIDE)


@pytest.mark.parametrize("name", ["vit", "resnext", "densenet", "maxvit"])
def test_shipped_models_learn_and_can_be_frozen(name) -> None:
    shipped = load.load(ROOT / "params.yaml").train
    model = shipped.models[name]
    side = shipped.image_size
    net = network.build(network.configure(model, side, DIAGNOSES))
    network.freeze(net)
    logits = net(torch.zeros(2, 3, side, side))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    learning = [part for part, weight in net.named_parameters() if weight.grad is not None]
    last = {id(weight) for weight in net.get_classifier().parameters()}  # LeViT's holds a norm, too
    assert learning == [part for part, weight in net.named_parameters() if id(weight) in last]
    assert 2 <= len(learning) <= 4
    assert sum(weight.numel() for weight in net.parameters()) < 1_000_000
