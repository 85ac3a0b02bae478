"""The stage `pretrain` on the toy corpus, and what `train` makes of its weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pretraining_runs as runs
import pytest
import timm
import torch
import toy_corpus as toy
from PIL import Image
from safetensors.torch import load_file
from timm.optim import param_groups_layer_decay

from dermaflux import paths
from dermaflux.classifiers import pretrain, train
from dermaflux.classifiers.data import pretraining_set
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes import registry
from dermaflux.classifiers.recipes.mae import pretraining
from dermaflux.classifiers.train import loop, optimizer
from dermaflux.core import table
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.files import write_json
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError
from dermaflux.params import load
from dermaflux.tracking import runs as tracking
from dermaflux.validation import mixture_gate

pytestmark = pytest.mark.usefixtures("workspace")


def test_a_recipe_that_learns_from_labels_leaves_an_empty_folder_without_reading() -> None:
    (Path("corpus") / "train-00000-of-00001.parquet").write_bytes(b"damaged")
    pretrain.run(toy.parameters())
    assert [path.name for path in paths.PRETRAINED.iterdir()] == ["pretrain.json"]
    report = json.loads(paths.PRETRAIN_REPORT.read_text())
    assert report == {
        "recipe": "supervised",
        "summary": "None: the recipe supervised does not pre-train.",
    }
    code = "import sys, dermaflux.classifiers.pretrain; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"False\n"


def pretraining_runs() -> list[tuple[dict[str, str], set[str]]]:
    """Parameters and inputs of every run of the stage."""
    client = tracking.connect()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return [
        (run.data.params, {name for name in run.data.tags if name.startswith("input.")})
        for run in client.search_runs(ids, "tags.stage = 'pretrain'")
    ]


def training_inputs() -> dict[str, set[str]]:
    """Arm -> what its training run was given."""
    client = tracking.connect()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    logged = client.search_runs(ids, "tags.stage = 'train' and tags.`mlflow.parentRunId` != ''")
    return {
        run.data.params["arm"]: {name for name in run.data.tags if name.startswith("input.")}
        for run in logged
    }


def test_the_encoder_starts_classifiers_and_scratch_does_without(capsys, monkeypatch) -> None:
    params = runs.parameters(
        arms=["real", "scratch", "random_features"], layer_decay=0.75, epochs=1
    )
    with pytest.raises(InputError, match="not a file; run the stage pretrain of that model"):
        train.run(params, "vit", 0, mixture_gate.check)
    pretrain.run(params)
    assert "6 steps on 130 real and 59 synthetic images" in capsys.readouterr().out
    (logged, used), *_ = pretraining_runs()
    described = {"recipe": "mae", "image_size": "32", "model.name": "vit_tiny_patch16_224"}
    assert described.items() <= logged.items()
    assert used == {f"input.{path}" for path in ("corpus", "synthetic", "reports/rejected.json")}
    report = json.loads(paths.PRETRAIN_REPORT.read_text())
    assert report["images"] == {"real": 130, "synthetic": 59, "rejected": 1}
    curve = json.loads((paths.PRETRAIN_FIGURES / "curve.json").read_text())
    assert [row["step"] for row in curve] == list(range(7))
    assert curve[-1]["validation_loss"] == report["validation_loss"] < curve[0]["validation_loss"]
    probe = report["linear_probe"]
    assert (probe["training_images"], probe["validation_images"]) == (130, 45)
    for name in ("mae", "random", "difference"):
        assert probe[name]["auc_low"] <= probe[name]["auc"] <= probe[name]["auc_high"]
    with Image.open(paths.PRETRAIN_FIGURES / "grid.png") as grid:
        assert grid.size == (3 * (toy.SIDE + 2) - 2, 8 * (toy.SIDE + 2) - 2)
    weights = load_file(paths.PRETRAINED_WEIGHTS)
    opened = timm.create_model(f"local-dir:{paths.PRETRAINED}", pretrained=True).state_dict()
    assert opened.keys() == weights.keys()
    assert all(torch.equal(opened[name], weights[name]) for name in weights)

    cell = train.Cell.open(params, "vit", 0, mixture_gate.check)
    starts = {arm: cell.start(arm) for arm in params.train.arms}
    assert starts == {"real": paths.PRETRAINED_WEIGHTS, "scratch": None, "random_features": None}
    before = {arm: cell.key(arm) for arm in params.train.arms}
    assert len(set(before.values())) == 3
    net = network.build(cell.config, starts["real"])
    assert torch.equal(net.blocks[0].attn.qkv.weight, weights["blocks.0.attn.qkv.weight"])

    without = runs.parameters(arms=params.train.arms, epochs=1).train
    same = {arm: replace(cell, settings=without).key(arm) for arm in before}
    assert {arm for arm in before if before[arm] != same[arm]} == {"real"}
    fit, decays = loop.fit, list[float | None]()
    monkeypatch.setattr(
        loop,
        "fit",
        lambda *given, **named: decays.append(given[2].layer_decay) or fit(*given, **named),
    )
    train.run(params, "vit", 0, mixture_gate.check)
    assert decays == [0.75, None, None]  # random layers learn at the full rate
    inputs = training_inputs()
    assert {arm for arm in inputs if "input.models/pretrained" in inputs[arm]} == {"real"}
    configs = {
        arm: json.loads((paths.CLASSIFIERS / "vit-0" / arm / "config.json").read_text())
        for arm in params.train.arms
    }
    started = {arm: config["pretrained"] for arm, config in configs.items()}
    assert started == {"real": True, "scratch": False, "random_features": False}
    known = {arm: (c.get("start_weights"), c.get("pretraining")) for arm, c in configs.items()}
    digest = sha256(paths.PRETRAINED_WEIGHTS.read_bytes())
    assert known == dict.fromkeys(known, (None, None)) | {"real": (digest, report["images"])}
    network.save_weights(
        {**weights, "cls_token": weights["cls_token"] + 1}, paths.PRETRAINED_WEIGHTS
    )
    after = {arm: cell.key(arm) for arm in params.train.arms}
    assert {arm for arm in before if before[arm] != after[arm]} == {"real"}


@pytest.mark.slow
def test_a_killed_run_ends_bit_equal(tmp_path) -> None:
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, runs.__file__, str(tmp_path / "killed")], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    state = Checkpoint(tmp_path / "killed").load()
    assert state is not None
    assert state["step"] == 4
    resumed = runs.train(runs.parameters(), Checkpoint(tmp_path / "killed"))
    whole = runs.train(runs.parameters(), Checkpoint(tmp_path / "whole"))
    assert resumed.curves == whole.curves
    expected = whole.model.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items()
    )


def test_only_training_images_and_accepted_synthetic_ones_are_learned_from() -> None:
    corpus = table.metadata(paths.CORPUS, ["image_id", "split"])
    training = set(corpus[corpus["split"] == "train"]["image_id"])
    pool = set(table.metadata(paths.SYNTHETIC, ["image_id"])["image_id"])
    accepted = pool - {"synthetic/train-0000"}
    chosen = {name: pretraining_set.choose(name) for name in ("real", "synthetic", "both")}
    assert set(chosen["real"].image_ids) == training
    assert set(chosen["synthetic"].image_ids) == accepted
    assert chosen["both"].image_ids == chosen["real"].image_ids + chosen["synthetic"].image_ids
    decoded = table.pixels(paths.SYNTHETIC, chosen["both"].image_ids[-1:], toy.SIDE)
    pixels = np.asarray(chosen["both"].pixels(toy.SIDE)[-1:])
    assert np.array_equal(pixels[0], next(iter(decoded.values())))
    write_json(paths.REJECTED, {"rejected": sorted(pool)})
    with pytest.raises(
        InputError, match="'synthetic' but 0 of the 60 images in synthetic are left"
    ):
        pretraining_set.choose("synthetic")
    write_json(paths.REJECTED, {"rejected": ["other"]})
    with pytest.raises(InputError, match="of another pool"):
        pretraining_set.choose("both")


@pytest.mark.parametrize(
    ("limit", "benign", "malignant"), [(1, 1, 1), (26, 16, 10), (129, 79, 50), (10**6, 80, 50)]
)
def test_the_probe_learns_from_a_share_of_each_class(limit, benign, malignant) -> None:
    chosen = pretraining_set.labelled(toy.SIDE, limit, 0)
    assert np.bincount(chosen.labels).tolist() == [benign, malignant]
    assert chosen.image_ids == sorted(set(chosen.image_ids))
    largest = pretraining_set.labelled(toy.SIDE, 10**6, 0)
    assert {*chosen.image_ids} <= {*largest.image_ids}


def test_a_corpus_of_one_class_is_refused_before_training(tmp_path, monkeypatch) -> None:
    rows = [*toy.rows("train", "isic2019", 40, 0, 0), *toy.rows("validation", "isic2019", 9, 9, 1)]
    table.write(rows, paths.CORPUS, 64)
    monkeypatch.setattr(pretraining, "fit", lambda *_: pytest.fail("it trained"))
    with pytest.raises(InputError, match="holds 0 malignant images of 40, and the linear probe"):
        runs.train(runs.parameters({"images": "real"}), Checkpoint(tmp_path / "saved"))


def test_what_is_measured_and_shown_is_spread_over_all_datasets(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pretraining, "_MEASURED", 4)
    monkeypatch.setattr(pretraining, "_SHOWN", 2)
    trained = runs.train(runs.parameters({"epochs": 1, "images": "real"}), Checkpoint(tmp_path))
    validation = np.asarray(trained.validation[1].pixels)
    assert np.array_equal(np.asarray(trained.held_out._images), validation[[0, 15, 29, 44]])
    assert np.array_equal(trained.pictures()[[0, 3]], validation[[0, 44]])


def test_a_key_depends_on_what_decides_the_weights_and_on_nothing_else(monkeypatch) -> None:
    images = pretraining_set.choose("real")
    plain = pretrain.key(runs.parameters(), images)
    assert pretrain.key(runs.parameters({"probe_images": 7}), images) == plain
    raw = runs.parameters().model_dump(by_alias=True)
    raw["evaluate"]["bootstrap_samples"] = 333
    assert pretrain.key(load.parse(raw), images) == plain
    assert pretrain.key(runs.parameters({"mask_ratio": 0.5}), images) != plain
    for name in ("torch", "timm", "transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{name}.__version__", "0.0")
            assert pretrain.key(runs.parameters(), images) != plain
    configure = network.configure
    monkeypatch.setattr(
        network, "configure", lambda *given: {**configure(*given), "mean": [0.1, 0.2, 0.3]}
    )
    assert pretrain.key(runs.parameters(), images) != plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ratio": 0.0}, "pretrain.mask_ratio is 0.0 but should be greater than 0"),
        ({"mask_ratio": 1.0}, "pretrain.mask_ratio is 1.0 but should be less than 1"),
        ({"mask_ratio": 0.95}, "mask_ratio 0.95 hides 16 of 16 patches"),
        ({"decoder_heads": 3}, "decoder_heads 3 does not divide decoder_width 16; .* such as 2"),
        ({"crop_area": [0.0, 1.0]}, "crop_area starts at 0"),
        ({"architecture": "other"}, "pretrain.architecture 'other' has no entry in train.models"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        pretrain.run(runs.parameters(changes))
    assert not paths.PRETRAINED.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "supervised"}, "is what pre-training writes but train.recipe is 'supervised'"),
        (
            {
                "recipe": "supervised",
                "models": {"vit": {**runs.STARTED, "weights": f"./{runs.WEIGHTS}"}},
            },
            "is what pre-training writes but train.recipe is 'supervised'",
        ),
        ({"models": {"vit": runs.ENCODER}, "arms": ["scratch"]}, "'vit' has no pretrained weights"),
        ({"layer_decay": 0.0}, "train.layer_decay is 0.0 but should be greater than 0"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        runs.parameters(**changes)


@pytest.mark.parametrize("student", [False, True])
def test_another_model_that_starts_from_the_encoder_must_have_its_sizes(student) -> None:
    wider = {**runs.STARTED, "options": {**runs.STARTED["options"], "embed_dim": 32}}
    models = {"vit": runs.STARTED, "wider": wider}
    trained = ["vit"] if student else ["vit", "wider"]
    raw = runs.parameters(models=models, architectures=trained).model_dump(by_alias=True)
    raw["distill"]["students"] = ["wider"] * student
    params = load.parse(raw)
    with pytest.raises(InputError, match=r"train.models.wider starts from .* cls_token is"):
        registry.pretraining("mae").check(params)


def test_layer_decay_scales_rates_as_timm_groups_them(monkeypatch) -> None:
    params = runs.parameters(layer_decay=0.5, weight_decay=0.1)
    model = params.train.models["vit"]
    deeper = model.model_copy(update={"options": {**model.options, "depth": 3}})
    net = network.build(network.configure(deeper, toy.SIDE))
    made = optimizer.create(params.train, net, 0.4)
    names = {id(weight): name for name, weight in net.named_parameters()}
    found = {
        names[id(weight)]: (group["lr_scale"], group["weight_decay"])
        for group in made.param_groups
        for weight in group["params"]
    }
    # Layers from the first: tokens and patches, three blocks, the head.
    assert found["patch_embed.proj.weight"] == (0.5**4, 0.1)
    assert found["pos_embed"] == found["cls_token"] == (0.5**4, 0.0)
    assert [found[f"blocks.{n}.mlp.fc1.weight"] for n in range(3)] == [
        (0.5 ** (3 - n), 0.1) for n in range(3)
    ]
    assert found["head.weight"] == (1.0, 0.1)
    assert found["head.bias"] == (1.0, 0.0)
    assert found["norm.weight"] == (0.5, 0.0)  # timm counts it to the last block
    theirs = param_groups_layer_decay(net, 0.1, net.no_weight_decay(), layer_decay=0.5)
    assert found == {
        names[id(weight)]: (group["lr_scale"], group["weight_decay"])
        for group in theirs
        for weight in group["params"]
    }
    rates = {}
    running: Any = object.__new__(loop._Training)
    running.optimizer, running.settings, running.model, running.steps = (
        made,
        params.train,
        model,
        5,
    )
    for step in (0, 7):  # of 20 with a warm-up of 5
        running._set_rate(step)
        rates[step] = [group["lr"] / group["lr_scale"] for group in made.param_groups]
    assert rates[0] == pytest.approx([model.learning_rate / 5] * len(rates[0]))
    assert rates[7] == pytest.approx([rates[7][0]] * len(rates[7]))
    assert 0.9 * model.learning_rate < rates[7][0] < model.learning_rate


def test_demo_parameters_hold_an_encoder_that_fits() -> None:
    raw = load.load(Path(__file__).parents[2] / "params.yaml").model_dump(by_alias=True)
    raw["train"] |= {"recipe": "mae", "architectures": ["vit_mae"]}
    raw["promote"]["architecture"] = "vit_mae"
    registry.pretraining("mae").check(load.parse(raw))
