"""Files that can be read but hold what cannot be: found by the one that reads them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import one_of_each
import pandas as pd
import pytest
import toy_corpus
from one_of_each import CELL, FOLDER, SHARD, TEST, cells
from safetensors.torch import load_file

from dermaflux import paths
from dermaflux.classifiers import evaluate
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.files import write_json, write_text
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.reporting import classifier_section, images
from dermaflux.statistics import seed_means


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_of_each.build(tmp_path_factory.mktemp("whole"))


def config(**values: Any) -> Callable[[], object]:
    path = FOLDER / "config.json"
    return lambda: write_json(path, json.loads(path.read_text()) | values)


def lines(path: Path, kept: Callable[[str], str | None]) -> None:
    found = [kept(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line}\n" for line in found if line is not None))


def no_number() -> None:
    path = FOLDER / "model.safetensors"
    network.save_weights({k: v * float("nan") for k, v in load_file(path).items()}, path)


CURVE = paths.EVALUATIONS / CELL / "roc" / "real.csv"


def draw() -> object:
    return classifier_section._curves(cells(), "roc", ["real"])


def rank() -> object:
    return evaluate._validation(FOLDER, CLASSES)


def average() -> object:
    return seed_means.means(toy_corpus.parameters(), cells())


def drawn(*rows: str) -> Callable[[], object]:
    return lambda: write_text(CURVE, "".join(f"{row}\n" for row in rows))


VALIDATION = FOLDER / "validation.csv"
VALUES: dict[str, tuple[Callable[[], object], Callable[[], object], str]] = {
    **{
        f"{name} {value}": (
            config(**{name: value}), lambda: network.load(FOLDER), f"config.json .*its {name} is"
        )
        for name, value in (
            ("image_size", 7), ("mean", []), ("std", [0, 1, 1]), ("temperature", 0),
            ("temperature", "x"), ("threshold", None), ("classes", ["a", "a"]), ("classes", []),
        )
    },
    "weights": (no_number, lambda: network.load(FOLDER), "model.safetensors .*not finite"),
    "one class": (
        lambda: lines(VALIDATION, lambda line: None if "malignant" in line else line),
        rank, "validation.csv is damaged .it holds other labels",
    ),
    "other labels": (
        lambda: lines(VALIDATION, lambda line: line.replace("malignant", "odd")), rank, "other lab",
    ),
    "no rows": (
        lambda: lines(VALIDATION, lambda line: line if "image_id" in line else None),
        rank, "no rows",
    ),
    "empty curve": (drawn("fpr,tpr"), draw, "roc/real.csv is damaged .it has no rows"),
    "curve of another kind": (drawn("a,b", "1,2"), draw, "is damaged .it has no 'fpr'"),
    "evaluation without figures": (lambda: None, average, f"{CELL}.json is damaged .*'threshold'"),
    "fewer predictions": (
        lambda: write_json(
            paths.EVALUATIONS / f"{CELL}.json", {"real": {}, "mixture": {}, "test": {"images": 9}}
        ),
        average, "predictions for 3 test images, but its figures are of 9",
    ),
    "picture": (
        lambda: Path("grid.png").write_bytes(b"GIF89a"), lambda: images.file_uri(Path("grid.png")),
        "grid.png is damaged",
    ),
    "audit of another pool": (
        lambda: None,
        lambda: training_set.require_same_pool(pd.DataFrame({"image_id": ["a"]}), ["\x1b"]),
        r"rejects the image '\\x1b'.*another pool; run `dermaflux audit`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_values_that_cannot_be_are_one_sentence(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "x"))
    damage, read, expected = VALUES[case]
    damage()
    with pytest.raises(InputError, match=expected):
        read()


TWO = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
MIXES: dict[str, tuple[Callable[[], object], str]] = {
    "test as training": (
        lambda: shutil.copy(TEST, SHARD), "holds rows of split 'test', so it was copied",
    ),
    "test beside training": (
        lambda: (SHARD.rename(SHARD.with_name(TWO[0])), TEST.rename(TEST.with_name(TWO[1]))),
        "holds rows of split 'test', so it was copied",
    ),
    "one of two": (lambda: SHARD.rename(SHARD.with_name(TWO[0])), "holds 1 files train-"),
    "of two runs": (lambda: shutil.copy(SHARD, SHARD.with_name(TWO[1])), "holds 2 files train-"),
    "a copy": (
        lambda: shutil.copy(SHARD, SHARD.with_name("train-\x1b[2J.parquet")), r"train-\x1b[2J.parq",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mix", MIXES)
def test_a_shard_too_many_or_too_few_is_found(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mix: str
) -> None:
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "x"))
    SHARD.with_name("._train-00000-of-00001.parquet").write_bytes(b"of a Mac")
    table.metadata(paths.CORPUS, ["label"], "train")
    mixed, expected = MIXES[mix]
    mixed()
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        table.metadata(paths.CORPUS, ["label"], "train")
    assert "stage ingest" in str(caught.value)
