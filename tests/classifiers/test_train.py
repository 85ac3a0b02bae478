"""A whole cell on a toy corpus: what it writes, what it reads, what it logs and what it reuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import toy_corpus as toy

from dermaflux import paths
from dermaflux.classifiers import evaluate, train
from dermaflux.classifiers.data import samples
from dermaflux.classifiers.model import network
from dermaflux.classifiers.train import loop
from dermaflux.core import code_digest, table
from dermaflux.core.checkpoints import Checkpoint, checkpoint
from dermaflux.errors import InputError
from dermaflux.params import Train
from dermaflux.tracking import runs as tracking
from dermaflux.tracking.runs import Silent
from dermaflux.validation import mixture_gate
from dermaflux.validation.mixture_suite import HELD_OUT

CELL = paths.CLASSIFIERS / "vit-0"
DAMAGED = "deserialize|[Tt]hrift|corrupt|decompress"


def logged_runs() -> list[dict[str, str]]:
    client = tracking.connect()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    children = client.search_runs(ids, "tags.`mlflow.parentRunId` != ''")
    return [{**run.data.params, **run.data.tags} for run in children]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class OwnCellOnly(Train):
    """Refuses to be asked which other cells there are."""

    def __getattribute__(self, name: str) -> object:
        assert name not in ("architectures", "seeds"), f"train.{name} decides no cell"
        return super().__getattribute__(name)


def test_a_cell_is_complete_and_loads_to_the_probabilities_it_recorded(workspace) -> None:
    shipped = toy.parameters()
    settings = {**dict(shipped.train), "models": {"vit": shipped.train.models["vit"]}}
    alone = shipped.model_copy(update={"train": OwnCellOnly.model_construct(**settings)})
    train.run(alone, "vit", 0, mixture_gate.check)
    assert sorted(path.name for path in CELL.parent.iterdir()) == ["vit-0"]
    for arm, synthetic in (("real", 0), ("mixture", 30)):
        model, config = network.load(CELL / arm)
        assert (config["n_real"], config["n_synthetic"]) == (60, synthetic)
        rows, validation = samples.load_split(paths.CORPUS, "validation", toy.SIDE)
        recorded = pd.read_csv(CELL / arm / "validation.csv")
        scores = network.probabilities(model, config, validation.pixels, batch=7)
        assert list(recorded["image_id"]) == list(rows["image_id"])
        assert list(recorded["label"]) == list(rows["label"])
        assert recorded["probability"].to_numpy() == pytest.approx(scores, abs=1e-6)
        history = pd.read_csv(CELL / arm / "history.csv")
        assert list(history["epoch"]) == [1, 2, 3, 4]
        assert config["epoch"] == history["validation_auc"].idxmax() + 1


def overwrite(shard: Path, spared: tuple[str, ...]) -> None:
    """Fill every column of a Parquet file except `spared` with bytes that no reader decodes."""
    with pq.ParquetFile(shard) as file:
        metadata = file.metadata
    with shard.open("r+b") as file:
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(number)
                if chunk.path_in_schema.split(".")[0] in spared:
                    continue
                file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                file.write(b"\xff" * chunk.total_compressed_size)


def test_training_decodes_nothing_of_the_test_split_but_names_and_hashes(workspace) -> None:
    train.run(toy.parameters(), "vit", 0, mixture_gate.check)
    expected = contents(CELL)
    shutil.rmtree(workspace / "models")
    shutil.rmtree(workspace / ".dermaflux")
    for shard in table.shards(paths.CORPUS, "test"):
        overwrite(shard, (*HELD_OUT, "split"))  # every shard is held to its split
    assert not {"image", "label", "diagnosis"} & set(HELD_OUT)
    train.run(toy.parameters(), "vit", 0, mixture_gate.check)
    assert contents(CELL) == expected
    for column in ("image", "label", "diagnosis"):  # the check would notice
        with pytest.raises(InputError, match=DAMAGED):
            table.metadata(paths.CORPUS, [column], "test")
    with pytest.raises(InputError, match=DAMAGED):
        evaluate.run(toy.parameters(), "vit", 0)


def test_another_ratio_trains_only_the_mixture(workspace, capsys) -> None:
    train.run(toy.parameters(), "vit", 0, mixture_gate.check)
    first = contents(CELL / "real")
    train.run(toy.parameters(ratio=0.9), "vit", 0, mixture_gate.check)
    assert contents(CELL / "real") == first
    assert "vit-0/real: trained before" in capsys.readouterr().out
    runs = logged_runs()
    assert sorted((run["arm"], run["ratio"]) for run in runs) == [
        ("mixture", "0.5"),
        ("mixture", "0.9"),
        ("real", "0.0"),
    ]
    hashes = {run["arm"]: run[f"output.{CELL.as_posix()}/{run['arm']}"] for run in runs}
    assert hashes["real"] == tracking.dvc_hash(CELL / "real")


def test_edited_code_starts_a_killed_training_anew(workspace, monkeypatch, capsys) -> None:
    package = workspace / "package"
    shutil.copytree(code_digest._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "_PACKAGE", package)
    monkeypatch.setattr(loop, "_SAVING_SHARE", 1.0)
    save = Checkpoint.save

    def interrupted(self: Checkpoint, state: dict[str, object]) -> None:
        save(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupted)

    def attempt() -> str:
        """Train until the next epoch has been saved; what was printed."""
        code_digest.stage_digest.cache_clear()
        cell = train.Cell.open(toy.parameters(), "vit", 0, mixture_gate.check)
        with (
            checkpoint("train", cell.key("real")) as saved,
            pytest.raises(KeyboardInterrupt),
        ):
            cell.fit("real", saved, Silent())
        return capsys.readouterr().out

    assert "continues" not in attempt()
    assert "continues after epoch 1 of 4" in attempt()
    with (package / "classifiers" / "recipes" / "classification" / "loss.py").open("a") as file:
        file.write("# edited\n")
    assert "continues" not in attempt()
    with (package / "registry" / "promote.py").open("a") as file:
        file.write("# edited\n")
    assert "continues after epoch 1 of 4" in attempt(), "which decides no weight"
    code_digest.stage_digest.cache_clear()


def test_a_changed_parameter_or_image_is_never_recalled(workspace, capsys) -> None:
    train.run(toy.parameters(ratio=0.0), "vit", 0, mixture_gate.check)
    first = contents(CELL / "real")
    assert "vit-0/mixture: trained before" in capsys.readouterr().out  # ratio 0 is the real arm
    shipped = toy.parameters(ratio=0.0)
    changed = shipped.train.model_copy(update={"weight_decay": 0.3})
    train.run(shipped.model_copy(update={"train": changed}), "vit", 0, mixture_gate.check)
    assert "trained before on" not in capsys.readouterr().out.split("vit-0/mixture")[0]
    assert contents(CELL / "real")["model.safetensors"] != first["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"n_real": 120}, ("120", "60", "50", "100")),
        ({"ratio": 1.0}, ("30", "29", "rejected 1")),
    ],
)
def test_too_few_images_are_reported_before_any_work(workspace, changes, numbers) -> None:
    with pytest.raises(InputError) as error:
        train.run(toy.parameters(**changes), "vit", 0, mixture_gate.check)
    assert all(number in str(error.value) for number in numbers)
    assert not paths.CLASSIFIERS.exists()
    assert not (workspace / "mlruns").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "vit_tiny_patch99"}, "no model 'vit_tiny_patch99'"),
        ({"options": {"img_size": 64}}, "64 .* differs from train.image_size 32"),
        ({"options": {"deptth": 2}}, "deptth"),
    ],
)
def test_models_that_cannot_be_built(workspace, model, message) -> None:
    parameters = toy.parameters()
    changed = parameters.train.models["vit"].model_copy(update=model)
    settings = parameters.train.model_copy(update={"models": {"vit": changed}})
    with pytest.raises(InputError, match=message):
        train.run(parameters.model_copy(update={"train": settings}), "vit", 0, mixture_gate.check)


def test_a_folder_without_weights_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"name": "vit_tiny_patch16_224"}))
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        network.load(tmp_path)
