"""Lineage: hashes of the inputs that were used, the run that trained, the detector's sample."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_registry as small

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.registry import candidates, lineage, ood
from dermaflux.tracking import runs

FOLDER = paths.CLASSIFIERS / "vit-0" / "mixture"


def tags(params: Params) -> dict[str, str]:
    return lineage.tags(runs.connect(), params, "vit-0", "mixture", FOLDER)


def test_the_training_run_is_the_one_that_logged_these_bytes(unpromoted: Params) -> None:
    assert "train_run_id" not in tags(unpromoted)
    ids = {}
    for output in (FOLDER, FOLDER.parent):  # `train` logs the cell, an older version each arm
        with runs.start(mlflow_runs.TRAINING, "train", {}, []) as log:
            log.outputs(output)
            ids[output] = log.run_id
    assert tags(unpromoted)["train_run_id"] == ids[FOLDER]
    small.classifier("vit-0", "real", noise=3.0, seed=9)  # now the cell's hash differs
    assert tags(unpromoted)["train_run_id"] == ids[FOLDER]
    small.classifier("vit-0", "mixture", noise=3.0, seed=9)
    assert "train_run_id" not in tags(unpromoted)


def test_hashes_are_of_the_inputs_that_were_used(unpromoted: Params) -> None:
    for folder in (paths.GENERATOR, paths.SYNTHETIC):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)
    without = tags(unpromoted)
    assert without["data_hash"] == runs.dvc_hash(paths.CORPUS)
    assert without["output_hash"] == runs.dvc_hash(FOLDER)
    assert not {"synthetic_hash", "generator_hash"} & without.keys()
    config = json.loads((FOLDER / "config.json").read_text())
    (FOLDER / "config.json").write_text(json.dumps({**config, "n_synthetic": 4}))
    assert tags(unpromoted)["synthetic_hash"] == runs.dvc_hash(paths.SYNTHETIC)


def configured(arm: str, **changes: object) -> None:
    path = FOLDER.parent / arm / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ({"pretraining": {"real": 4, "synthetic": 0}}, {}, {"pretrained_hash"}),
        (
            {"pretraining": {"real": 4, "synthetic": 2}, "start_weights": "abc"},
            {},
            {"pretrained_hash", "start_weights", "synthetic_hash"},
        ),
        ({"start_weights": "abc"}, {}, {"start_weights"}),  # the hub's
        ({"teacher": {"cell": "vit-0/real"}}, {}, set()),
        ({"teacher": {"cell": "vit-0/real"}}, {"n_synthetic": 2}, {"synthetic_hash"}),
        (
            {"teacher": {"cell": "vit-0/real"}},
            {"pretraining": {"real": 0, "synthetic": 2}},
            {"synthetic_hash"},
        ),
    ],
)
def test_what_pre_training_and_teacher_saw_is_part_of_the_lineage(
    student: dict[str, object],
    teacher: dict[str, object],
    expected: set[str],
    unpromoted: Params,
) -> None:
    hashed = {"synthetic_hash": paths.SYNTHETIC, "pretrained_hash": paths.PRETRAINED}
    for folder in hashed.values():
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)
    configured("mixture", **student)
    configured("real", **teacher)
    found = tags(unpromoted)
    assert found.keys() & {*hashed, "start_weights"} == expected
    assert all(found[name] == runs.dvc_hash(hashed[name]) for name in expected & hashed.keys())


def test_the_card_counts_training_images_by_source_and_licence(unpromoted: Params) -> None:
    split = candidates.validation_split(unpromoted)
    facts = lineage.card_facts(unpromoted, "vit-0/mixture", FOLDER, split, {}, "the only one")
    rows = table.metadata(paths.CORPUS, ["source", "split"])
    training = rows[rows["split"] == "train"]["source"]
    assert facts.sources == {
        f"{source}, CC0": int((training == source).sum()) for source in ("rare", "toy")
    }
    assert facts.validation is split


def test_the_detector_uses_the_first_images_by_hash(
    unpromoted: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermaflux.classifiers.model import network

    monkeypatch.setattr(lineage, "_IMAGES", 40)
    detector = lineage.fit_ood_detector(FOLDER, unpromoted)
    model, config = network.load(FOLDER)
    views = []
    for split in ("train", "validation"):
        rows = table.metadata(paths.CORPUS, ["image_id", "sha256"], split)
        first = rows.sort_values("sha256")["image_id"].head(40)
        pixels = dict(table.decoded(paths.CORPUS, first, split, small.SIDE))
        images = np.stack([pixels[name] for name in first])
        views.append(ood.views(model, config, images))
    assert detector.means[1] == pytest.approx(views[0][1].mean(axis=0))
    quantile = unpromoted.promote.in_distribution_quantile
    # Of the 40 validation images at most 1 % are flagged: none.
    assert detector.is_ood(views[1]).sum() == round(40 * (1 - quantile))
