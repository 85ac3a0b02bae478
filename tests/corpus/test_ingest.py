from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from ingested import quarantined, settings
from layouts import isic2020, kaggle
from PIL import Image

from dermaflux import paths
from dermaflux.core import code_digest, table
from dermaflux.core.hashing import sha256
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode, decode_cache
from dermaflux.corpus.decoding.decode import CorpusImage
from dermaflux.errors import InputError
from dermaflux.sources import discovery
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
    assert report["unread"] == {"holiday": {"images": 1, "why": discovery.NO_ADAPTER}}
    assert "ingest.own" in discovery.NO_ADAPTER
    rules = {Path(location).name: row["rule"] for location, row in lost.items()}
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
    assert {name: rules[name] for name in expected} == expected
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
        splits = rows[rows[key].notna()].groupby(key)["split"].nunique()
        assert len(splits)
        assert splits.max() == 1, key
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


def interrupt_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `ingest` and stop it in the middle of writing a batch."""
    add, finished = decode_cache.DecodeCache.add, []

    def interrupted(self: decode_cache.DecodeCache, batch: list[CorpusImage | Problem]) -> None:
        if len(finished) == batches:
            self._file.write(b"half an image")
            raise KeyboardInterrupt
        finished.append(batch)
        add(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(decode_cache.DecodeCache, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest.run(settings())


def edit_the_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the digest be that of a copy of the package with one constant changed."""
    for room in code_digest.STAGE_CODE["ingest"]:
        shutil.copytree(code_digest._PACKAGE / room, folder / room)
    path = folder / "corpus/decoding/skin_tone.py"
    path.write_text(path.read_text().replace("_SPREAD = 20.0", "_SPREAD = 20.5"))
    monkeypatch.setattr(code_digest, "_PACKAGE", folder)
    monkeypatch.setattr(decode_cache, "stage_digest", code_digest.stage_digest.__wrapped__)


@pytest.mark.parametrize("edited", [False, True])
def test_a_killed_run_resumes_under_the_same_code_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    ingest.run(settings())
    expected = [path.read_bytes() for path in sorted(paths.CORPUS.iterdir())]
    for path in (*paths.CORPUS.iterdir(), paths.INGEST_REPORT):
        path.unlink()
    monkeypatch.setattr(decode_cache, "BATCH", 8)
    interrupt_after(3, monkeypatch)
    assert not paths.INGEST_REPORT.exists()
    if edited:
        edit_the_code(tmp_path / "dermaflux", monkeypatch)
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
    assert sum(decoded) == report["images"]["in"] - refused - (0 if edited else 3 * 8)
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
    assert quarantined() == {}  # written all the same
    assert not any(Path(".dermaflux/checkpoints/ingest").glob("*/"))


def test_published_scale_and_buckets(workspace: Path) -> None:
    sizes = [127, 128, 255, 256, 511, 512, 6000]
    assert [decode.bucket(side) for side in sizes] == [128, 128, 128, 256, 256, 512, 512]
    kaggle(workspace / "kaggle2", 1, True, 0)
    ingest.run(settings(policy="as_published"))
    rows = table.metadata(paths.CORPUS)
    assert set(rows["scale"]) == {256}
    assert set(rows["width"]) == {150}


REASONS = {
    "damaged": "download it again|convert or replace it",
    "duplicate": "it shows the same image as {other}, which is kept",
    "format": "the file is GIF; convert it to PNG, for example with `magick photo.gif photo.png`",
    "indeterminate": "actinic keratosis is neither .*; ingest.indeterminate decides",
    "label-conflict": "copies of one image carry two labels: .*{id} is (benign|malignant)",
    "no-meaning": "class UNK is neither benign nor malignant",
    "outside-layout": "the published layout has no labelled image in this place",
    "repeated-id": "{folder}/twice.jpg has the same name; rename one of the files",
    "test-leak": "it (shares its|is tied through) .* test image {other}",
    "too-large": "20000 x 20000|above the limit of 100 megapixels; store it at a smaller size",
    "too-small": "200 x 127 is below ingest.minimum_side 128; lower that parameter to keep it",
    "unreadable": r"the file cannot be read \(No such file or directory\); check it",
}


def test_each_reason_states_its_row_the_limit_and_the_fix(data: Path) -> None:
    ingest.run(settings())
    lost = quarantined()
    assert {row["rule"] for row in lost.values()} == set(REASONS)
    kept = set(table.metadata(paths.CORPUS)["image_id"])
    for location, row in lost.items():
        pattern = REASONS[row["rule"]].format(
            id=row["image_id"], other="(?P<other>[^ ,]+)", folder=os.path.dirname(location)
        )
        match = re.search(pattern, row["reason"])
        assert match, (row["rule"], row["reason"])
        if "other" in match.groupdict():
            assert match["other"] in kept - {row["image_id"]}, row["reason"]
