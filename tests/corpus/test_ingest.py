from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from ingested import quarantined, settings
from layouts import isic2020, kaggle
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode, decode_cache
from dermaflux.corpus.decoding.decode import CorpusImage
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Problem


def test_counts_add_up_and_each_loss_has_its_reason(data: Path) -> None:
    on_disk = [
        os.path.relpath(path, data)
        for path in data.rglob("*.*")
        if path.suffix in (".jpg", ".png", ".gif") and "holiday" not in path.parts
    ]
    ingest.run(settings())
    report = json.loads(paths.INGEST_REPORT.read_text())
    rows, lost = table.metadata(paths.CORPUS), quarantined()
    counts = report["images"]
    assert counts["in"] == counts["kept"] + counts["quarantined"]
    assert (counts["kept"], counts["quarantined"]) == (len(rows), len(lost))
    assert sum(source["in"] for source in report["sources"].values()) == counts["in"]
    assert sum(scale["in"] for scale in report["scales"].values()) == counts["in"]
    assert sum(report["quarantine"]["rule"].values()) == counts["quarantined"]
    assert counts["in"] == len(on_disk)  # every file once; here every CSV row has its file
    assert report["unread"] == {"holiday": {"images": 1, "why": "no adapter reads it"}}
    reasons = {Path(place).name: row["rule"] for place, row in lost.items()}
    benign = "kaggle2/train/Benign/"
    expected = {
        "truncated.jpg": "damaged",
        "end-missing.jpg": "damaged",
        "text.jpg": "damaged",
        "empty.jpg": "damaged",
        "bomb.png": "too-large",
        "gif.gif": "format",
        "broken-link.jpg": "unreadable",
        "small.jpg": "too-small",
        "twice.png": "repeated-id",
        "lost.jpg": "outside-layout",
    }
    assert {name: reasons[name] for name in expected} == expected
    assert lost[benign + "small.jpg"]["stage"] == "decode"
    assert "127" in lost[benign + "small.jpg"]["reason"]
    assert report["quarantine"]["rule"]["no-meaning"] == 1
    assert report["quarantine"]["rule"]["indeterminate"] == 7
    assert report["kept"]["test"]["kaggle1"] == {
        "benign": {"128": 4},
        "malignant": {"128": 3, "256": 1},
    }


def test_copies_leave_training_by_the_rules(data: Path) -> None:
    ingest.run(settings())
    lost = {row["image_id"]: row for row in quarantined().values()}
    leaked = [name for name, row in lost.items() if row["stage"] == "leak"]
    assert leaked == ["isic2020/ISIC_1", "isic2020/ISIC_6"]  # the copy, and its patient's other
    assert "test image kaggle1/test/malignant/melanoma_0" in lost["isic2020/ISIC_1"]["reason"]
    assert lost["kaggle2/train/Benign/7"]["rule"] == "duplicate"
    assert lost["isic2019/ISIC_0000004"]["rule"] == "label-conflict"
    assert lost["kaggle2/train/Malignant/8"]["rule"] == "label-conflict"
    ingest.run(settings(duplicates="keep"))
    again = {row["image_id"]: row["rule"] for row in quarantined().values()}
    assert set(lost) - set(again) == {
        "kaggle2/train/Benign/7",
        "kaggle2/train/Malignant/8",
        "isic2019/ISIC_0000004",
    }


def test_no_group_is_shared_between_splits(data: Path) -> None:
    ingest.run(settings(duplicates="keep", validation_fraction=0.4, indeterminate="malignant"))
    rows = table.metadata(paths.CORPUS)
    assert set(rows["split"]) == {"train", "validation", "test"}
    for key in ("lesion_id", "patient_id", "duplicate_group", "sha256"):
        places = rows[rows[key].notna()].groupby(key)["split"].nunique()
        assert len(places)
        assert places.max() == 1, key
    for split in table.SPLITS:
        names = list(rows.loc[rows["split"] == split, "image_id"])
        assert names == sorted(names)


def test_any_number_of_workers_writes_the_same_bytes(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for workers in ("1", "2"):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", workers)
        monkeypatch.setattr(decode_cache, "BATCH", 7 * int(workers))
        ingest.run(settings())
        files = [*sorted(paths.CORPUS.iterdir()), paths.QUARANTINE, paths.INGEST_REPORT]
        outputs.append({path: path.read_bytes() for path in files})
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 5
    assert not any(str(data).encode() in content for content in outputs[0].values())


def test_a_killed_run_resumes_and_ends_with_the_same_bytes(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.run(settings())
    expected = [path.read_bytes() for path in sorted(paths.CORPUS.iterdir())]
    for path in (*paths.CORPUS.iterdir(), paths.INGEST_REPORT):
        path.unlink()
    monkeypatch.setattr(decode_cache, "BATCH", 8)
    add, added = decode_cache.Spool.add, []

    def killed(self: decode_cache.Spool, batch: list[CorpusImage | Problem]) -> None:
        if len(added) == 3:
            self._file.write(b"half a picture")
            raise KeyboardInterrupt
        added.append(len(batch))
        add(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(decode_cache.Spool, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest.run(settings())
    assert not paths.INGEST_REPORT.exists()
    decoded: list[int] = []
    real = decode.decode_files
    monkeypatch.setattr(
        decode_cache, "decode_files", lambda batch: decoded.append(len(batch)) or real(batch)
    )
    ingest.run(settings())
    assert [path.read_bytes() for path in sorted(paths.CORPUS.iterdir())] == expected
    report = json.loads(paths.INGEST_REPORT.read_text())
    without_meaning = ("no-meaning", "repeated-id", "outside-layout")
    refused = sum(report["quarantine"]["rule"][rule] for rule in without_meaning)
    assert sum(decoded) == report["images"]["in"] - refused - 24
    assert not any(Path(".dermaflux/checkpoints/ingest").glob("*/"))


def test_shards_open_as_an_image_dataset(data: Path, tmp_path: Path) -> None:
    import datasets

    ingest.run(settings())
    opened = datasets.load_dataset(
        "parquet", data_dir=str(paths.CORPUS), cache_dir=str(tmp_path / "cache")
    )
    assert set(opened) == {"train", "validation", "test"}
    row = next(row for row in opened["test"] if row["image_id"].endswith("malignant/melanoma_0"))
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == (256, 256) == (row["scale"], row["scale"])
    assert (row["width"], row["height"]) == (300, 300)
    assert row["duplicate_group"] == "isic2020/ISIC_1"
    encoded = dict(table.images(paths.CORPUS))
    for name, digest in table.metadata(paths.CORPUS)[["image_id", "sha256"]].itertuples(
        index=False
    ):
        assert sha256(encoded[name]) == digest


def test_an_empty_class_is_refused_with_its_counts(workspace: Path) -> None:
    isic2020(workspace / "isic2020", {f"ISIC_{n}": (f"IP_{n}", 0) for n in range(3)})
    with pytest.raises(InputError, match=r"3 benign and 0 malignant .*malignant images"):
        ingest.run(settings())
    assert not paths.CORPUS.exists()
    assert not paths.QUARANTINE.exists()
    assert not any(Path(".dermaflux/checkpoints/ingest").glob("*/"))


def test_published_scale_and_buckets(workspace: Path) -> None:
    sizes = [127, 128, 255, 256, 511, 512, 6000]
    assert [decode.bucket(side) for side in sizes] == [128, 128, 128, 256, 256, 512, 512]
    kaggle(workspace / "kaggle2", 1, True, 0)
    ingest.run(settings(policy="as_published"))
    rows = table.metadata(paths.CORPUS)
    assert set(rows["scale"]) == {256}
    assert set(rows["width"]) == {150}


def test_reasons_repeat_nothing_but_their_own_row(data: Path) -> None:
    ingest.run(settings())
    assert Counter(row["source"] for row in quarantined().values())["kaggle2"] >= 9
    assert all(row["reason"] and "\n" not in row["reason"] for row in quarantined().values())
