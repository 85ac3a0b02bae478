from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_registry as small

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import RELEASED_BACKBONE, Params
from dermaflux.registry import candidates, promote, registry
from dermaflux.tracking import runs as tracking


def test_promoted_unchanged_challenger_then_better(unpromoted: Params) -> None:
    client = tracking.connect()
    name = unpromoted.promote.model_name

    promote.run(unpromoted)
    report = small.report()
    assert report["decision"] == "promoted"
    assert report["champion_before"] is None
    assert report["champion"]["cell"] == "vit-0"  # type: ignore[index]
    assert report["champion"]["arm"] == "mixture"  # type: ignore[index]
    first = client.get_model_version_by_alias(name, "champion")
    assert first.tags["reason"] == report["reason"]
    assert str(report["reason"]) in first.description
    assert "Not a medical device" in first.description
    best = paths.CLASSIFIERS / "vit-0" / "mixture"
    assert first.tags["output_hash"] == tracking.dvc_hash(best)
    assert first.tags["data_hash"] == tracking.dvc_hash(paths.CORPUS)

    promote.run(unpromoted)
    assert small.report()["decision"] == "unchanged"
    assert small.versions(unpromoted) == 1

    # One changed prediction: another candidate, hardly another AUC. It is registered once.
    small.classifier("vit-0", "mixture", noise=1.01, seed=2)
    for _ in range(2):
        promote.run(unpromoted)
        report = small.report()
        assert report["decision"] == "kept"
        assert "contains zero" in str(report["reason"])
        assert small.versions(unpromoted) == 2
    assert client.get_model_version_by_alias(name, "champion").version == first.version
    challenger = client.get_model_version_by_alias(name, "challenger")
    assert challenger.tags["decision"] == "kept"
    assert challenger.tags["reason"] == report["reason"]
    decision = client.get_registered_model(name).tags["last_decision"]
    assert decision == f"kept: {report['reason']}"

    small.classifier("vit-0", "mixture", noise=0.05, seed=3)
    promote.run(unpromoted)
    report = small.report()
    assert report["decision"] == "promoted"
    assert report["difference"]["low"] > 0  # type: ignore[index]
    assert report["sensitivity_difference"]["estimate"] >= 0  # type: ignore[index]
    assert small.versions(unpromoted) == 3
    model = client.get_registered_model(name)
    assert {alias: str(number) for alias, number in model.aliases.items()} == {"champion": "3"}
    runs = client.search_runs([tracking.experiment_id(client, "classifier")])
    decisions = sorted(run.data.tags["decision"] for run in runs)
    assert decisions == ["kept", "kept", "promoted", "promoted", "unchanged"]


def test_a_better_auc_is_not_enough_when_sensitivity_falls(unpromoted: Params) -> None:
    """The champion detects a quarter of the lesions with certainty and guesses the rest; the
    candidate ranks every lesion above all benign images but five, one too many at 90 %.
    """
    rng = np.random.default_rng(0)
    numbers = np.arange(small.IMAGES)
    malignant = numbers % 2 == 1
    champion = rng.normal(size=small.IMAGES) + np.where(numbers % 8 == 1, 6.0, 0.0)
    candidate = np.where(malignant, 1.0, -1.0) + 0.01 * rng.normal(size=small.IMAGES)
    candidate[np.flatnonzero(~malignant)[:5]] = 3.0
    shutil.rmtree(paths.CLASSIFIERS)
    settings = unpromoted.train.model_copy(update={"arms": ["real"]})
    params = unpromoted.model_copy(update={"train": settings})
    small.with_logits("vit-0", "real", champion, seed=1)
    promote.run(params)
    small.with_logits("vit-0", "real", candidate, seed=2)
    promote.run(params)
    report = small.report()
    assert report["decision"] == "kept", report["reason"]
    assert report["difference"]["low"] > 0  # type: ignore[index]
    assert "sensitivity at 90% specificity would fall by" in str(report["reason"])
    lenient = params.promote.model_copy(update={"sensitivity_tolerance": 0.99})
    promote.run(params.model_copy(update={"promote": lenient}))
    # The version registered as challenger becomes the champion; no new one is created.
    assert small.report()["decision"] == "promoted"
    assert small.versions(params) == 2


def test_a_champion_of_other_validation_images_is_evaluated_again(unpromoted: Params) -> None:
    promote.run(unpromoted)
    small.corpus(first=1000)
    for arm, seed in (("real", 4), ("mixture", 5)):
        small.classifier("vit-0", arm, noise=0.05, first=1000, seed=seed)
    split = candidates.validation_split(unpromoted)
    present = registry.champion(tracking.connect(), unpromoted.promote.model_name)
    assert present is not None
    again = candidates.rescore(present.folder(), split)
    assert again.index.equals(split.index)
    promote.run(unpromoted)
    report = small.report()
    # Random weights cannot win against predictions that are almost the truth.
    assert report["decision"] == "promoted"
    before = report["champion_before"]["validation_auc"]  # type: ignore[index]
    assert before == pytest.approx(candidates.auc(again))


def test_report_has_the_same_bytes_in_another_store(
    unpromoted: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    promote.run(unpromoted)
    first = paths.PROMOTE_REPORT.read_bytes()
    shutil.copy(empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    promote.run(unpromoted)
    assert paths.PROMOTE_REPORT.read_bytes() == first


@pytest.mark.slow
def test_two_workers_that_promote_at_once_register_one_champion(
    unpromoted: Params, tmp_path: Path
) -> None:
    text = small.PARAMETERS.read_text().replace("seeds: [0, 1, 2]", "seeds: [0]")
    text = text.replace(RELEASED_BACKBONE, "tiny")
    text = re.sub(r"  arms: \[.*?\]", "  arms: [real, mixture]", text)
    environment = {**os.environ, "DVC_ROOT": str(tmp_path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    code = "import sys; sys.argv[1:] = ['promote']; from dermaflux.cli import main; main()"
    copies = [tmp_path / ".dvc" / "tmp" / name for name in ("one", "two")]
    workers = []
    for copy in copies:
        copy.mkdir(parents=True)
        for folder in (paths.CORPUS, paths.CLASSIFIERS):
            shutil.copytree(folder, copy / folder)
        (copy / "params.yaml").write_text(text)
        workers.append(subprocess.Popen([sys.executable, "-c", code], cwd=copy, env=environment))
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    reports = [json.loads((copy / paths.PROMOTE_REPORT).read_text()) for copy in copies]
    assert sorted(report["decision"] for report in reports) == ["promoted", "unchanged"]
    assert small.versions(unpromoted) == 1


def test_candidates_are_ordered_by_auc_then_name(unpromoted: Params) -> None:
    tied = small.classifier("vit-0", "real", noise=1.0, seed=2)
    arms = ["real", "mixture", "random_features"]
    params = unpromoted.model_copy(
        update={"train": unpromoted.train.model_copy(update={"arms": arms})}
    )
    ranked = candidates.candidates(params)
    assert [candidate.arm for candidate in ranked] == ["mixture", "real"]
    assert ranked[0].auc == ranked[1].auc
    (tied / "validation.csv").write_text("image_id,label\n")
    with pytest.raises(InputError, match=r"validation\.csv is damaged \(it has no 'probability'\)"):
        candidates.candidates(params)
    (tied / "validation.csv").unlink()
    with pytest.raises(InputError, match=r"validation\.csv is missing"):
        candidates.candidates(params)


def test_diagnoses_are_not_candidates(unpromoted: Params) -> None:
    train = unpromoted.train.model_copy(update={"labels": "diagnosis"})
    promote.run(unpromoted.model_copy(update={"train": train}))
    report = small.report()
    assert report["decision"] == "skipped"
    assert report["champion"] is None
    assert "set train.labels to malignancy" in str(report["reason"])
    assert not tracking.connect().search_registered_models()


def test_lineage_of_a_mixture_names_its_inputs(
    unpromoted: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = paths.CLASSIFIERS / "vit-0" / "mixture"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_real": 8, "n_synthetic": 4}))
    for folder in (paths.GENERATOR, paths.SYNTHETIC):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)
    monkeypatch.setenv("DVC_EXP_NAME", "ratio-sweep")
    promote.run(unpromoted)
    tags = tracking.connect().get_model_version_by_alias("lesion-vit", "champion").tags
    assert tags["generator_hash"] == tracking.dvc_hash(paths.GENERATOR)
    assert tags["synthetic_hash"] == tracking.dvc_hash(paths.SYNTHETIC)
    assert tags["DVC_EXP_NAME"] == "ratio-sweep"
    assert (tags["arm"], tags["seed"], tags["n_synthetic"]) == ("mixture", "0", "4")
    present = registry.require_champion(tracking.connect(), "lesion-vit")
    card = (present.folder().parents[1] / registry.CARD).read_text()
    for text in (
        "Not a medical device",
        tags["data_hash"],
        tags["generator_hash"],
        "| source rare | 5 | 0 | too few images |",
        "| source toy | 35 | 40 | ",
        "| ROC-AUC | ",
        "| toy, CC0 | ",
        "not skin lesions",
    ):
        assert text in card
