from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pytest
from ingested import quarantined, settings
from layouts import isic2019 as write_isic2019
from layouts import isic2020, kaggle, random_image, save
from PIL import Image

from dermaflux import paths
from dermaflux.audit import audit
from dermaflux.classifiers.data import samples, subset
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus import ingest
from dermaflux.corpus.splitting import policies
from dermaflux.generators.data import images as training_images
from dermaflux.params import Audit
from dermaflux.sources import paper_counts
from dermaflux.sources.discovery import SOURCES
from dermaflux.sources.published import isic2019

CLEAN = policies.policy("clean", settings().ingest)


@pytest.fixture
def known(workspace: Path) -> Path:
    """Four datasets whose counts under either policy can be added up by hand."""
    classes = ["NV", "MEL", "BKL", "AK", "BCC", "AK"]
    train = {f"ISIC_{n:07d}": (name, f"HAM_{n}") for n, name in enumerate(classes)}
    test = {f"ISIC_{9000 + n:07d}": name for n, name in enumerate(["NV", "MEL", "UNK", "AK"])}
    write_isic2019(workspace / "isic2019", train, test)  # 160 x 140 pixels
    isic2020(workspace / "isic2020", {f"ISIC_{n}": (f"IP_{n}", n % 2) for n in range(4)})
    kaggle(workspace / "kaggle1/melanoma_cancer_dataset", 2, False, 0)  # 150 x 150 pixels
    kaggle(workspace / "kaggle2", 2, True, 100)
    benign = workspace / "kaggle2/train/Benign"
    tested = workspace / "kaggle1/melanoma_cancer_dataset/test/benign/melanoma_0.jpg"
    save(random_image(900, 100, 100), benign / "small.jpg")
    save(Image.open(tested), benign / "leak.jpg", 70)
    save(Image.open(workspace / "isic2020/train/ISIC_0.jpg"), benign / "copy.jpg", 70)
    (benign / "damaged.jpg").write_bytes(b"no image")
    return workspace


COUNTS = {
    # 3 + 1 of 6 ISIC 2019 (2 AK), 4 ISIC 2020, 4 + 4 Kaggle; small, leak and copy leave.
    "clean": {
        "training": {"128": 4 + 4 + 4 + 4},
        "test": {"128": 2 + 4 + 4},
        "labels": {"benign": 13, "malignant": 13},
        "left_out": {"indeterminate": 3, "too-small": 1, "test-leak": 1, "duplicate": 1},
    },
    "as_published": {
        "training": {"512": 6 + 4, "256": 4 + 7},
        "test": {"512": 3, "256": 4 + 4},
        "labels": {"benign": 16, "malignant": 13, "indeterminate": 3},
        "left_out": {},
    },
}


@pytest.mark.parametrize("name", policies.NAMES)
def test_both_policies_are_counted_whichever_is_written(known: Path, name: str) -> None:
    ingest.run(settings(policy=name))
    report = json.loads(paths.INGEST_REPORT.read_text())
    assert report["policy"] == name
    assert report["policies"] == COUNTS
    rows = table.metadata(paths.CORPUS)
    assert rows["label"].value_counts().to_dict() == COUNTS[name]["labels"]
    trained = rows[rows["split"] != "test"]["scale"].astype(str).value_counts().to_dict()
    assert trained == COUNTS[name]["training"]
    assert report["images"]["kept"] == len(rows)
    leaks = paths.LEAKS.read_text().splitlines()[1:]
    leak = "kaggle2/train/Benign/leak,train,kaggle1/test/benign/melanoma_0,duplicate group"
    assert [row.replace("validation", "train") for row in leaks] == [leak] * (name == "clean")
    lost = {row["rule"] for row in quarantined().values()}
    always = {"no-meaning", "damaged"}
    assert lost == always | set(COUNTS[name]["left_out"])
    assert sum(report["paper"]["training"].values()) == 508_344


def test_the_papers_exceptions_come_from_what_the_sources_declare() -> None:
    hiba = replace(isic2019.SOURCE, name="hiba", indeterminate_dropped_in_paper=True)
    derm = replace(isic2019.SOURCE, name="derm12345", test_in_paper=True, published_scale=512)
    paper = policies.AS_PUBLISHED
    assert [paper.label(source, "indeterminate") for source in (hiba, derm)] == [
        None,
        "indeterminate",
    ]
    assert CLEAN.label(derm, "indeterminate") is None
    assert replace(CLEAN, indeterminate="malignant").label(hiba, "indeterminate") == "malignant"
    assert [p.held_out(derm, "test") for p in (paper, CLEAN)] == [False, True]
    assert [p.held_out(hiba, "test") for p in (paper, CLEAN)] == [True, True]
    assert not paper.held_out(derm, "train")
    assert [p.scale(derm, 200) for p in (paper, CLEAN)] == [512, 128]
    assert paper.label(hiba, "benign") == CLEAN.label(hiba, "benign") == "benign"


def test_the_papers_counts_come_out_of_what_the_datasets_published() -> None:
    paper, images = policies.AS_PUBLISHED, Counter[int]()
    of_the_paper = [source for source in SOURCES.values() if source.published_scale]
    for source in of_the_paper:
        for split, counts in source.counts.items():
            if not paper.held_out(source, split):
                unclear = (
                    counts.indeterminate if paper.label(source, "indeterminate") is None else 0
                )
                images[paper.scale(source, 1000)] += counts.images - counts.meaningless - unclear
    assert images == {s: n + paper_counts.RESIDUE.get(s, 0) for s, n in paper_counts.PAPER.items()}


def test_only_chosen_licences_stay(known: Path) -> None:
    ingest.run(settings(licences=["CC0"]))
    rows = table.metadata(paths.CORPUS)
    assert set(rows["licence"]) == {"CC0"}
    assert set(rows["source"]) == {"kaggle1", "kaggle2"}
    report = json.loads(paths.INGEST_REPORT.read_text())
    assert report["quarantine"]["rule"]["licence"] == 9 + 4  # UNK of ISIC 2019 has no meaning
    assert report["licences"] == {"CC0": len(rows)}


def test_indeterminate_images_reach_no_model(known: Path, tmp_path: Path) -> None:
    ingest.run(settings(policy="as_published"))
    rows = table.metadata(paths.CORPUS)
    unclear = set(rows.loc[rows["label"] == "indeterminate", "image_id"])
    assert len(unclear) == 3
    for split in ("train", "test"):
        loaded, images = samples.load_split(paths.CORPUS, split, 16)
        assert unclear.isdisjoint(loaded["image_id"])
        assert len(images.labels) == len(loaded)
    training = rows[rows["split"] == "train"]
    fewest = int(training["label"].value_counts()[["benign", "malignant"]].min())
    assert unclear.isdisjoint(subset.draw(training, subset.balanced(2 * fewest), 0))
    texts = rows[["image_id", "label"]].assign(caption="a lesion", split="train")
    columns = pa.schema(
        [*((name, pa.string()) for name in (*texts.columns, "flags")), ("held_out", pa.bool_())]
    )
    table.write(texts.to_dict("records"), tmp_path / "captions", 1, columns)
    captioned = training_images.captioned(paths.CORPUS, tmp_path / "captions")
    assert unclear.isdisjoint(captioned["image_id"])
    assert len(captioned) == len(training) - len(unclear & set(training["image_id"]))


def test_indeterminate_images_are_no_reference_of_the_audit(known: Path, tmp_path: Path) -> None:
    """Copies of all training images: each is nearest to its original, if that is a reference."""
    ingest.run(settings(policy="as_published", validation_fraction=0.1))
    rows = table.metadata(paths.CORPUS, split="train")
    unclear = set(rows.loc[rows["label"] == "indeterminate", "image_id"])
    assert unclear
    pool = [
        {"image_id": name, "image": {"bytes": encoded}, "label": label, "split": "train"}
        for (name, encoded), label in zip(
            table.images(paths.CORPUS, split="train"), cycle(CLASSES), strict=False
        )
    ]
    table.write(pool, tmp_path / "pool", 64)
    _, pairs, _ = audit.examine(paths.CORPUS, tmp_path / "pool", Audit())
    assert len(pairs) == len(rows)
    assert set(pairs.loc[pairs["image_id"] != pairs["nearest_id"], "image_id"]) == unclear
