"""No validation or test image, nor its lesion or a copy of it, reaches anything that is trained.

On a made corpus with lesions seen several times, copies within training and copies of test images,
as `ingest` splits it. Whoever reads training images has a line in `READERS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ingested import settings
from layouts import isic2019, kaggle, save
from PIL import Image

from dermaflux import paths
from dermaflux.classifiers import selector
from dermaflux.classifiers.data import pretraining_set, training_set
from dermaflux.core import table
from dermaflux.corpus import ingest
from dermaflux.generators.data import images as generator_images
from dermaflux.params import Params, load

Reader = Callable[[Params], set[str]]


def of_the_generator(params: Params) -> set[str]:
    """image_ids that `finetune` trains on."""
    chosen = generator_images.read(params.finetune, params.seed, paths.CORPUS, None)
    return {sample.image_id for sample in chosen.samples}


def of_classifiers(*arms: str, **changes: object) -> Reader:
    """image_ids that the arms of a cell train on; the gate, which would refuse a leak, is open."""

    def read(params: Params) -> set[str]:
        cell = training_set.load(params, 0, lambda *_: None, arms)
        return {name for arm in arms for name in cell.of(arm).image_ids}

    return read


def of_further_images(params: Params) -> set[str]:
    """image_ids of the arms beyond n_real; the synthetic images that they replace are not drawn."""
    counts = table.metadata(paths.CORPUS, ["label"], "train")["label"].value_counts()
    train = params.train.model_copy(update={"curve": [0.5, counts.min() / 2]})
    few = params.model_copy(
        update={"n_real": 4, "ratio": counts.min() / 2 - 1, "real_fraction": None, "train": train}
    )
    arms = ["real", "more_real", *few.curve_sizes()]
    cell = training_set.load(few, 0, lambda *_: None, arms)
    assert cell.shortages == {}
    return {name for arm in arms for name in cell.of(arm).image_ids}


def of_pretraining(params: Params) -> set[str]:
    """Images that a masked autoencoder is trained on."""
    return set(pretraining_set.choose("real").image_ids)


def of_the_probe(params: Params) -> set[str]:
    """Images that the linear probe learns from."""
    return set(pretraining_set.labelled(params.train.image_size, 1000, params.seed).image_ids)


def of_the_selector(params: Params) -> set[str]:
    """Images that the classifier is trained on which chooses synthetic ones."""
    return set(selector.images(params, params.train.seeds[0], lambda *_: None).corpus.image_ids)


READERS: dict[str, Reader] = {
    "generator": of_the_generator,
    "pre-training": of_pretraining,
    "linear probe": of_the_probe,
    "teacher": of_classifiers("real", "repeated"),
    "student": of_classifiers("real", "no_teacher"),
    "further real images": of_further_images,
    "selector": of_the_selector,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with `corpus/`."""
    folder = tmp_path_factory.mktemp("leakage")
    (folder / ".dvc").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        names = [f"ISIC_{number:07d}" for number in range(48)]
        classes = ["NV", "MEL", "BKL", "BCC"]
        data = folder / "data"
        isic2019(
            data / "isic2019",
            {name: (classes[n % 4], f"HAM_{n // 8}x{n % 4}") for n, name in enumerate(names)},
            {f"ISIC_{9000 + n:07d}": name for n, name in enumerate(["NV", "MEL"])},
        )
        kaggle(data / "kaggle1/melanoma_cancer_dataset", 4, False, 0)
        inputs = data / "isic2019/ISIC_2019_Training_Input"
        pictures = data / "kaggle1/melanoma_cancer_dataset"
        for number, copy in ((0, "test/benign/0.jpg"), (5, "test/malignant/9.jpg")):
            save(Image.open(inputs / f"{names[number]}.jpg"), pictures / copy, 60)
        for number in range(8, 24):
            kind = ("benign", "malignant")[number % 2]
            copied = Image.open(inputs / f"{names[number]}.jpg")
            save(copied, pictures / f"train/{kind}/{900 + number}.jpg", 60)
        ingest.run(parameters())
    return folder


def parameters() -> Params:
    """Every training image, and no synthetic one."""
    raw = settings(duplicates="keep", validation_fraction=0.3).model_dump(by_alias=True)
    raw["finetune"] |= {"maximum_images": 1000, "scales": [128, 256, 512]}
    raw["train"] |= {"image_size": 32}
    return load.parse({**raw, "real_fraction": 1.0, "ratio": 0})


def leaks(read: Reader) -> list[str]:
    """What training images share with held-out ones: ids, bytes, lesions and groups of copies."""
    rows = table.metadata(paths.CORPUS)
    trained = rows["image_id"].isin(list(read(parameters())))
    held_out = rows["split"].isin(["validation", "test"])
    assert trained.sum() > 20
    shared = []
    for column in ("image_id", "sha256", "lesion_id", "duplicate_group"):
        seen, unseen = (set(rows.loc[part, column].dropna()) for part in (trained, held_out))
        assert seen, f"no training image has a {column}, so this would prove nothing"
        shared += [f"{column} {value}" for value in sorted(seen & unseen)]
    return shared


@pytest.mark.parametrize("name", READERS)
def test_nothing_held_out_is_trained_on(name: str, corpus: Path, monkeypatch) -> None:
    monkeypatch.chdir(corpus)
    rows = table.metadata(paths.CORPUS)
    for split in ("validation", "test"):
        assert (rows["split"] == split).sum() > 2
    assert rows["duplicate_group"].value_counts().max() > 1
    assert leaks(READERS[name]) == []


@pytest.mark.parametrize("name", READERS)
def test_a_moved_row_is_noticed(name: str, corpus: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copytree(corpus / paths.CORPUS, paths.CORPUS)
    shards = [shard for split in table.SPLITS for shard in table.shards(paths.CORPUS, split)]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    moved = next(
        row
        for row in rows
        if row["split"] == "validation"
        and sum(row["lesion_id"] == other["lesion_id"] for other in rows) > 1
    )
    moved["split"] = "train"
    shutil.rmtree(paths.CORPUS)
    table.write(rows, paths.CORPUS, 64)
    assert f"lesion_id {moved['lesion_id']}" in leaks(READERS[name])
