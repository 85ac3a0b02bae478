"""Cells of students on the toy corpus: what they learn from, what they write, who takes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_corpus as toy
from ruamel.yaml import YAML
from safetensors.torch import load_file

from dermaflux import paths
from dermaflux.classifiers import distill, evaluate, train
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.model import network, pretrained
from dermaflux.core import table
from dermaflux.core.checkpoints import checkpoint
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.params import Params, load
from dermaflux.reporting import classifier_section
from dermaflux.tracking import runs as tracking
from dermaflux.tracking.runs import Silent
from dermaflux.validation import mixture_gate

ROOT = Path(__file__).parents[2]
TEACHER = paths.CLASSIFIERS / "vit-0"
STUDENT = paths.CLASSIFIERS / "resnext-0"
ARMS = ["real", "mixture", "no_teacher"]
GATE = mixture_gate.check


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A workspace with a teacher and its student."""
    folder: Path = tmp_path_factory.mktemp("trained")
    (folder / ".dvc").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        toy.write()
        train.run(parameters(), "vit", 0, GATE)
        distill.run(parameters(), "resnext", 0, GATE)
    return folder


def parameters(
    train: dict[str, Any] | None = None, top: dict[str, Any] | None = None, **section: Any
) -> Params:
    """A `vit` as the teacher of a `resnext`."""
    shipped = toy.parameters().model_dump(by_alias=True)
    values = {"architectures": ["vit"], "epochs": 2, "augmentation": "flips", **(train or {})}
    shipped["train"] |= values
    shipped["distill"] |= {"students": ["resnext"], **section}
    return load.parse({**shipped, **(top or {})})


def config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def training_runs() -> dict[str, dict[str, str]]:
    """Arm -> parameters and tags of the runs of students."""
    client = tracking.connect()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    logged = client.search_runs(ids, "params.architecture = 'resnext' and tags.stage = 'distill'")
    children = [run for run in logged if "mlflow.parentRunId" in run.data.tags]
    return {run.data.params["arm"]: {**run.data.params, **run.data.tags} for run in children}


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_and_without_one_as_any_classifier(
    trained, monkeypatch
) -> None:
    monkeypatch.chdir(trained)
    weights = pretrained.digest(TEACHER / "mixture/model.safetensors")
    for arm, synthetic in zip(ARMS, (0, 30, 30), strict=True):
        written = config(STUDENT / arm)
        assert (written["n_real"], written["n_synthetic"]) == (60, synthetic)
        taught = {"cell": "vit-0/mixture", "weights": weights, "alpha": 0.5, "temperature": 4.0}
        assert written.get("teacher") == (None if arm == "no_teacher" else taught)
    logged = training_runs()
    assert logged.keys() == {*ARMS}
    teacher_hash = tracking.dvc_hash(TEACHER / "mixture")
    for arm in ("real", "mixture"):
        assert logged[arm]["teacher.weights"] == weights
        assert logged[arm]["teacher"] == "vit"
        assert logged[arm][f"input.{TEACHER / 'mixture'}"] == teacher_hash
    assert not {"teacher.weights", "teacher"} & logged["no_teacher"].keys()

    states = {arm: load_file(STUDENT / arm / "model.safetensors") for arm in ARMS}
    plain = train.Cell.open(parameters(students=[]), "resnext", 0, GATE)
    with checkpoint("train", plain.key("mixture")) as saved:
        supervised = plain.fit("mixture", saved, Silent()).weights
    assert all(torch.equal(states["no_teacher"][name], supervised[name]) for name in supervised)
    assert not torch.equal(states["mixture"]["fc.weight"], supervised["fc.weight"])


def keys(cell: distill.StudentCell, run: Params) -> dict[str, str]:
    """Arm -> its key with the images of an opened cell and other parameters."""
    other = replace(cell, params=run, settings=run.training("resnext"))
    return {arm: other.key(arm) for arm in run.distill.arms}


def write_teacher(
    arm: str = "mixture", seed: int = 0, side: int = toy.SIDE, **changes: Any
) -> None:
    """A teacher with random weights."""
    described = network.configure(parameters().train.models["vit"], side) | changes
    torch.manual_seed(seed)
    folder = TEACHER / arm
    folder.mkdir(parents=True, exist_ok=True)
    network.save_weights(network.build(described).state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", described)


def test_a_key_depends_on_the_teacher_where_there_is_one(workspace) -> None:
    for arm in ("mixture", "real"):
        write_teacher(arm)
    cell = distill.StudentCell.open(parameters(), "resnext", 0, GATE)
    plain = keys(cell, parameters())
    assert plain == {arm: cell.key(arm) for arm in ARMS}
    assert len(set(plain.values())) == 3

    def changed(other: dict[str, str]) -> set[str]:
        return {arm for arm in ARMS if plain[arm] != other[arm]}

    assert changed(keys(cell, parameters(alpha=0.4))) == {"real", "mixture"}
    assert changed(keys(cell, parameters(temperature=2.0))) == {"real", "mixture"}
    assert changed(keys(cell, parameters({"arms": ["real"]}))) == {"real", "mixture"}  # its teacher
    assert changed(keys(cell, parameters(epochs=3))) == {*ARMS}
    assert changed(keys(cell, parameters(batch=8))) == {*ARMS}
    assert changed(keys(cell, parameters(epochs=2, batch=16))) == set()  # as in train
    more = parameters(
        students=["resnext", "vit2"], train={"models": {**toy.TINY, "vit2": toy.TINY["vit"]}}
    )
    assert changed(keys(cell, more)) == set()
    write_teacher(seed=1)
    assert changed(keys(cell, parameters())) == {"real", "mixture"}


def test_students_change_no_cell_of_train(workspace) -> None:
    without, beside = (
        train.Cell.open(parameters(students=names), "vit", 0, GATE) for names in ([], ["resnext"])
    )
    for arm in ("real", "mixture"):
        assert without.key(arm) == beside.key(arm)


def write_larger_teacher() -> None:
    write_teacher(side=64)


def write_teacher_of_diagnoses() -> None:
    write_teacher(classes=["angioma", "melanoma", "nevus"], threshold=None)


@pytest.mark.parametrize(
    ("prepare", "changes", "expected"),
    [
        (None, {}, "the teacher models/classifiers/vit-0/mixture is not there; run"),
        (write_larger_teacher, {}, "reads images of 64 pixels and train.image_size of its"),
        (write_teacher_of_diagnoses, {}, "3 classes apart, .*, and its students 2, "),
        (write_teacher, {"students": []}, "student 'resnext' is not one of distill.students"),
        (
            write_teacher,
            {
                "train": {
                    "models": {**toy.TINY, "resnext": {"name": "resnxt", "learning_rate": 1e-3}}
                }
            },
            "resnxt",
        ),
    ],
)
def test_what_cannot_be_distilled_is_one_sentence_before_any_image(
    prepare: Callable[[], None] | None,
    changes: dict[str, Any],
    expected: str,
    workspace,
    monkeypatch,
) -> None:
    if prepare is not None:
        prepare()
    monkeypatch.setattr(table, "images", lambda *_: pytest.fail("images were read"))
    with pytest.raises(InputError, match=expected) as caught:
        distill.run(parameters(**changes), "resnext", 0, GATE)
    assert "\n" not in str(caught.value)


def test_finding_the_classes_prints_nothing_and_drawing_images_prints_them_once(
    workspace, capsys
) -> None:
    params = parameters({"labels": "diagnosis", "arms": ["real"]}, {"real_fraction": 0.5})
    rows = table.metadata(paths.CORPUS, ["label", "diagnosis"], "train")
    classes = training_set.find_classes(params, rows)
    assert classes == ("angioma", "melanoma", "nevus")
    assert capsys.readouterr().out == ""
    assert training_set.load(params, 0, GATE, ["real"]).classes == classes
    assert capsys.readouterr().out.count("3 diagnoses: angioma, melanoma, nevus; left out") == 1


def test_train_leaves_students_to_distill(workspace) -> None:
    with pytest.raises(InputError, match="`dermaflux distill --architecture resnext --seed 0`"):
        train.run(parameters(), "resnext", 0, GATE)
    assert not STUDENT.exists()


def stages(folder: Path, students: list[str]) -> dict[str, Any]:
    """Every stage of dvc.yaml as DVC resolves it, with the values of its parameters, by name."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo
    from dvc.stage.serialize import to_pipeline_file

    yaml = YAML(typ="safe")
    raw = yaml.load(ROOT / "params.yaml")
    raw["distill"]["students"] = students
    folder.mkdir()
    yaml.dump(raw, folder / "params.yaml")
    shutil.copy(ROOT / "dvc.yaml", folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        return {
            stage.name: {
                **to_pipeline_file(stage)[stage.name],
                "params": [
                    dep.read_params() for dep in stage.deps if isinstance(dep, ParamsDependency)
                ],
            }
            for stage in repo.index.stages
        }


def test_dvc_runs_students_where_there_are_any_and_no_cell_of_train_again(tmp_path) -> None:
    without = stages(tmp_path / "without", [])
    beside = stages(tmp_path / "beside", ["densenet"])
    changed = {name for name, stage in without.items() if beside[name] != stage}
    assert changed == {"promote", "report"}
    added = [
        f"{stage}@densenet-{seed}"
        for stage in ("distill", "evaluate_students")
        for seed in range(3)
    ]
    assert sorted(beside.keys() - without.keys()) == added
    student = beside["distill@densenet-1"]
    assert "models/classifiers/vit-1" in student["deps"]
    assert student["outs"] == ["models/classifiers/densenet-1"]
    assert "models/classifiers/densenet-1" in beside["evaluate_students@densenet-1"]["deps"]
    more = stages(tmp_path / "more", ["densenet", "maxvit"])
    assert {name for name, stage in beside.items() if more[name] != stage} == changed


@pytest.mark.slow
def test_a_student_is_evaluated_reported_promoted_and_exported_like_any_other(
    trained, monkeypatch, capsys
) -> None:
    from dermaflux.registry import export_onnx, predict, promote

    shipped = toy.parameters()
    chosen = {"promote": {**shipped.promote.model_dump(), "architecture": "resnext"}}
    run = parameters(top=chosen)
    monkeypatch.chdir(trained)
    for architecture in run.architectures():
        evaluate.run(run, architecture, 0)
    results = classifier_section.build(run, None)
    compared = {(row.architecture, row.arm, row.against) for row in results["effects"]}
    assert compared == {
        ("vit", "mixture", "real"),
        ("resnext", "mixture", "real"),
        ("resnext", "mixture", "no_teacher"),
    }
    promote.run(run)
    champion = json.loads(paths.PROMOTE_REPORT.read_text())["champion"]
    assert champion["cell"] == "resnext-0"
    encoded = toy.picture(np.random.default_rng(0), True)
    Path("lesion.png").write_bytes(encoded)
    capsys.readouterr()
    predict.run(run, [Path("lesion.png")])
    assert "lesion.png" in capsys.readouterr().out
    export_onnx.run(run, Path("student.onnx"), "resnext-0/no_teacher")
    assert Path("student.onnx").stat().st_size > 1000
