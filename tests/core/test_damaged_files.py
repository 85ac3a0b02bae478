"""Every file that a stage wrote, really damaged: one sentence with the file and who writes it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import one_of_each
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toy_corpus
from one_of_each import CELL, FOLDER, SHARD, TEST, cells
from safetensors.torch import save_file

from dermaflux import paths
from dermaflux.captions.vlm.answer_cache import AnswerCache
from dermaflux.captions.vlm.client import Request, Response
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.files import read_csv
from dermaflux.core.table import seal
from dermaflux.core.tensor_cache import TensorCache
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.generators.pool import shards as pool
from dermaflux.registry import candidates, ood
from dermaflux.reporting import counts, report
from dermaflux.statistics import seed_means
from dermaflux.training.state import Settings, TrainingState
from dermaflux.validation import validate


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_of_each.build(tmp_path_factory.mktemp("whole"))


def every_image() -> list[str]:
    return [image_id for image_id, _ in table.images(paths.CORPUS)]


REPRO = "`dvc repro`, or `dvc pull`"
READERS: dict[str, tuple[str, Callable[[], object], str]] = {
    "corpus": (str(SHARD), lambda: table.metadata(paths.CORPUS), "ingest"),
    "images": (str(SHARD), every_image, "ingest"),
    "captions": (
        "captions/captions-00000-of-00001.parquet",
        lambda: table.metadata(paths.CAPTIONS, ["image_id", "caption"]),
        "caption",
    ),
    "pool": (
        "synthetic/train-00000-of-00001.parquet",
        lambda: table.metadata(paths.SYNTHETIC, ["label"]),
        "synthesize",
    ),
    "contract": (str(TEST), lambda: table.columns(paths.CORPUS), "ingest"),
    "audit": ("reports/rejected.json", training_set.rejected_images, "dermaflux audit"),
    "ingest report": ("reports/ingest.json", counts.corpus, "dvc repro ingest"),
    "promote report": (
        "reports/promote.json", lambda: report.read_json(paths.PROMOTE_REPORT), "dvc repro",
    ),
    "figures": (
        "captions/figures.json", lambda: validate._caption_figures(paths.CAPTIONS), "caption",
    ),
    "evaluation": (f"reports/evaluate/{CELL}.json", cells, "`dvc repro`"),
    "predictions": (
        f"reports/evaluate/{CELL}/predictions.csv", lambda: seed_means.read(CELL), REPRO,
    ),
    "validation": (
        f"{FOLDER}/validation.csv", lambda: candidates.predictions(FOLDER), REPRO,
    ),
    "config": (f"{FOLDER}/config.json", lambda: network.load(FOLDER), REPRO),
    "weights": (f"{FOLDER}/model.safetensors", lambda: network.load(FOLDER), REPRO),
    "detector": ("ood.safetensors", lambda: ood.read(Path("ood.safetensors")), "dvc repro promote"),
    "pin": (
        f"{paths.BACKBONE}/{pipeline.PIN}", lambda: pipeline.reference(paths.BACKBONE), "backbone",
    ),
    "loss": (
        f"{paths.GENERATOR}/loss.csv",
        lambda: read_csv(paths.GENERATOR / "loss.csv", "finetune", ("step", "loss")),
        "finetune",
    ),
}  # fmt: skip


def other_content(path: Path) -> None:
    """A whole file of the kind, with other things in it."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"x": [1]}), path)
    elif path.suffix == ".safetensors":
        save_file({"x": torch.zeros(1)}, path)
    elif path.suffix == ".csv":
        path.write_text("x,y\n1,2\n")
    else:
        path.write_text("[1, 2]\n")


def other_values(path: Path) -> None:
    """The keys or columns of the kind, with values of another type."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path)
        pq.write_table(rows.slice(0, 0), path)
    elif path.suffix == ".safetensors":
        save_file({"mean.0": torch.zeros(1, dtype=torch.int8)}, path)
    elif path.suffix == ".csv":
        header, *rest = path.read_text().splitlines()
        path.write_text("\n".join([header, *(line.rpartition(",")[0] + ",x" for line in rest), ""]))
    else:
        path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), 7)))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(b"\0" * 5000),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "pickle": lambda path: torch.save({"a": 1}, path),
    "deep": lambda path: path.write_bytes(b'{"a":' * 50_000),
    "other content": other_content,
    "other values": other_values,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "escape": lambda path: path.write_bytes(b'{"\x1b[2J": \x1b]0;x\x07'),
}
ACCEPTED = {
    *((kind, "other values") for kind in ("promote report", "pin", "figures")),
    *((kind, "folder") for kind in ("promote report", "figures")),
}
"""Values that are shown and decide nothing; reports that may be absent, as no file is."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_one_sentence(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, damage: str
) -> None:
    root = shutil.copytree(whole, tmp_path / "x")
    monkeypatch.chdir(root)
    name, read, stage = READERS[kind]
    if damage == "truncated" and kind != "ingest report":
        read()  # as it was written
    DAMAGES[damage](Path(name))
    if (kind, damage) in ACCEPTED:
        return
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert name in text, text
    assert stage in text, text
    assert text.isprintable()
    assert len(text) <= 1000


def rewrite(rows: pa.Table) -> None:
    """Replace a shard's rows with a program that keeps the metadata of the file."""
    metadata = pq.read_metadata(SHARD).metadata
    with pq.ParquetWriter(SHARD, rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({seal.KEY: metadata[seal.KEY]})


def change(row: int, **values: Any) -> None:
    rows = pq.read_table(SHARD)
    items = rows.to_pylist()
    items[row] |= values
    rewrite(pa.Table.from_pylist(items, schema=rows.schema))


EDITS: dict[str, tuple[Callable[[], object], str]] = {
    "label": (
        lambda: change(5, label="benign"),
        "row 6 ('toy/train-0005') is not as it was written, as column label shows",
    ),
    "split": (lambda: change(0, split="test"), "row 1 ('toy/train-0000')"),
    "patient": (lambda: change(2, lesion_id=None), "column lesion_id"),
    "hash": (lambda: change(2, sha256="0" * 64), "column sha256"),
    "twice": (
        lambda: change(3, image_id="toy/train-0002"), "row 4 ('toy/train-0002')",
    ),
    "row added": (
        lambda: rewrite(pa.concat_tables([pq.read_table(SHARD)] * 2)), "rows were added",
    ),
    "row lost": (
        lambda: rewrite(pq.read_table(SHARD).slice(0, 5)), "rows were added or taken",
    ),
    "rows sorted": (
        lambda: rewrite(pq.read_table(SHARD).sort_by([("label", "descending")])), "row 1",
    ),
    "pyarrow": (
        lambda: pq.write_table(pq.read_table(SHARD), SHARD), "edited, or made by another program",
    ),
    "pandas": (
        lambda: pd.read_parquet(SHARD).to_parquet(SHARD), "edited, or made by another program",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_row_is_found_wherever_the_column_is_read(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "x"))
    edited, expected = EDITS[edit]
    edited()
    with pytest.raises(InputError, match="edited") as caught:
        table.metadata(paths.CORPUS)
    assert expected in str(caught.value)
    assert "run that stage again" in str(caught.value)


def test_a_replaced_picture_is_found_where_its_bytes_are_read(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "x"))
    other = dict(table.images(paths.CORPUS))["toy/train-0001"]
    change(0, image={"bytes": other, "path": None})
    table.metadata(paths.CORPUS)  # the columns are as they were
    expected = "image 'toy/train-0000' of corpus/.* has other bytes than its sha256 .* stage ingest"
    with pytest.raises(InputError, match=expected):
        list(table.images(paths.CORPUS))
    with pytest.raises(InputError, match=expected):
        list(table.decoded(paths.CORPUS, ["toy/train-0000"]))
    assert len(list(table.decoded(paths.CORPUS, ["toy/train-0001"]))) == 1


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoint:
    (tmp_path / "key").mkdir()
    return Checkpoint(tmp_path / "key")


STATES: dict[str, Callable[[Path], object]] = {
    **{name: DAMAGES[name] for name in ("empty", "truncated", "zeros", "noise", "deep")},
    "pickle": lambda path: path.write_bytes(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."),
    "foreign": lambda path: torch.save({"other": 1}, path),
    "no state": lambda path: torch.save([1, 2], path),
    "object": lambda path: torch.save({"weights": os.system}, path),
}


def training(saved: Checkpoint, size: int = 3) -> TrainingState:
    weights = {"w": torch.nn.Parameter(torch.zeros(size))}
    settings = Settings(10, 0.1, 0, 1.0, 5)
    return TrainingState("test", weights, settings, saved, main=True)


@pytest.mark.parametrize("damage", [*STATES, "other model"])
def test_a_damaged_checkpoint_is_told_of_and_the_work_starts_over(
    saved: Checkpoint, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = training(saved, 4 if damage == "other model" else 3)
    first.step = 5
    first.append("training", {"step": 1.0, "loss": 2.0})
    first.save()
    first.close()
    path = saved.file("state.pt")
    if damage in STATES:
        STATES[damage](path)
    again = training(saved)
    again.load()
    assert again.step == 0
    assert again.curves().training == []
    assert not path.exists()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "is damaged" in lines[0]
    assert "starts over" in lines[0]
    again.save()  # and what is written then is read again
    again.close()
    assert saved.load() is not None


def test_a_damaged_shard_of_unfinished_work_is_made_again(
    saved: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = pool.Shard(0, range(2), ())
    path = pool.shard_file(saved, shard)
    for damage in ("empty", "truncated", "other content", "other values"):
        table.write_shard(toy_corpus.rows("train", "synthetic", 1, 1, 0), path)
        assert table.is_whole(path)
        DAMAGES[damage](path)
        assert not table.is_whole(path), damage
        assert not path.exists()
        assert "made again" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["truncated", "zeros", "noise", "other columns"])
def test_a_damaged_cache_of_answers_is_kept_aside_and_a_new_one_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    file = tmp_path / "answers.sqlite"
    cache = AnswerCache(file, "m", {})
    for number in range(200):
        cache.add(Request("p", b"", str(number)), Response("x" * 500, 1, 1, "stop"))
    cache.close()
    if damage == "other columns":
        file.unlink()
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE answers (a, b)")
        database.close()
    else:
        DAMAGES[damage](file)
    cache = AnswerCache(file, "m", {})
    request = Request("p", b"", "new")
    assert cache.get(cache.key(request)) is None
    cache.add(request, Response("y", 1, 1, "stop"))
    assert cache.means()[0] == 1
    cache.close()
    assert (tmp_path / "answers.sqlite.damaged").is_file()
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["empty", "truncated", "zeros", "noise", "other content"])
def test_a_damaged_shard_of_a_tensor_cache_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    with TensorCache(tmp_path).writer() as writer:
        writer.add(b"k" * 32, {"x": torch.ones(100)})
    DAMAGES[damage](next(tmp_path.glob("*.safetensors")))
    cache = TensorCache(tmp_path)
    assert cache.missing([b"k" * 32]) == [0]
    assert "is damaged" in capsys.readouterr().out
