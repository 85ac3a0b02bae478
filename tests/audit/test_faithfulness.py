"""The four groups of drawn lesions as the audit reads them: planted repeats, and bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_lesions import lesion, row
from PIL import Image, ImageOps

from dermaflux.audit import features, trunks
from dermaflux.audit.faithfulness import groups
from dermaflux.audit.image_sets import AuditedImages, ImageSet
from dermaflux.captions.lesion.measured import measure
from dermaflux.captions.rows import SCHEMA
from dermaflux.captions.text.description import describe
from dermaflux.core import table
from dermaflux.params import Audit

SIDE, TRUNK = 64, trunks.pixels()
COLUMNS = ["image_id", "sha256", "label", "diagnosis", "source", "skin_tone", "scale", "prompt",
           "duplicate_group"]  # fmt: skip


def drawn(first: int, count: int, folder: str, split: str, label: str = "benign") -> list[dict]:
    rows = []
    for number in range(first, first + count):
        image = lesion(number, label, SIDE)
        found = row(image, f"{folder}/{number:04d}", label, split)
        found["prompt"] = describe(measure(np.asarray(image)), label, found["image_id"])
        rows.append(found | {"scale": SIDE, "skin_tone": ("I-II", "V-VI")[number % 2]})
    return rows


def read(folder: Path, split: str) -> ImageSet:
    rows = pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    if any(folder.glob(f"{split}-*.parquet")):
        rows = table.metadata(folder, COLUMNS, split).sort_values("image_id").reset_index(drop=True)
    return ImageSet(folder, rows, split)


def examined(corpus: Path, pool: Path, captions: Path, **settings: object) -> groups.Examined:
    training = read(corpus, "train")
    nobody = training._replace(rows=training.rows[:0])
    images = AuditedImages(read(pool, "train"), training, nobody, read(corpus, "test"), 0)
    return groups.Examined(
        images,
        features.extract_all(images, TRUNK),
        np.arange(len(images.pool.rows)) % len(training.rows),
        Audit(duplicate_correlation=0.55, **settings),
        captions,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    real = [*drawn(0, 12, "isic2019", "train"), *drawn(20, 14, "isic2019", "test")]
    pool = drawn(50, 14, "synthetic", "train")
    # One lesion again, mirrored and re-encoded.
    file = io.BytesIO()
    ImageOps.mirror(lesion(50, "benign", SIDE)).save(file, "JPEG", quality=70)
    copy = row(Image.open(file), "synthetic/copy", "benign", "train")
    pool.append(copy | {"prompt": "The border is smooth.", "scale": SIDE})
    table.write(real, folder / "corpus", 64)
    table.write(pool, folder / "pool", 64)
    captions = []
    for each in real:
        found = measure(np.asarray(Image.open(io.BytesIO(each["image"]["bytes"]))))
        values = {"asymmetry": found.asymmetry, "border_irregularity": found.border_irregularity,
                  "colours": found.colours and len(found.colours)}  # fmt: skip
        caption = describe(found, each["label"], each["image_id"])
        captions.append({"image_id": each["image_id"], "caption": caption, **values})
    (folder / "captions").mkdir()
    table.write_shard(captions, folder / "captions" / "captions-00000-of-00001.parquet", SCHEMA)
    return folder


def test_repeats_of_the_pool_are_found_and_every_group_is_there(folder: Path) -> None:
    given = examined(folder / "corpus", folder / "pool", folder / "captions")
    report = groups.report(given, folder)
    repeats = report["artefacts"]["repeats"]
    assert (repeats["count"], repeats["identical"], repeats["images"]) == (2, 0, 15)
    # Prompts of the pool and captions of the test split describe what was measured of them.
    for kind in ("synthetic", "real"):
        colours = report["control"][kind]["all"]["colours"]
        assert colours["value"] > 0.8, kind
    assert report["control"]["real"]["reference"] == "test"
    assert report["artefacts"]["side"] == SIDE
    assert report["artefacts"]["resized_reference_images"] == 0
    # What 15 images cannot say has its reason, and the rest stands.
    assert "there are 15 and 12" in report["separability"]["train"]["auc"]["reason"]
    assert "there are 15 and 12" in report["artefacts"]["marks"]["border"]["reason"]
    assert report["coverage"]["skin_tone"]["hit"]["of"] == 14
    assert not (folder / "separability.png").exists()
    json.dumps(report, allow_nan=False)


def test_what_is_not_there_is_said_in_its_place(folder: Path, tmp_path: Path) -> None:
    bare = [{**each, "prompt": None} for each in drawn(50, 1, "synthetic", "train", "malignant")]
    table.write(bare, tmp_path / "pool", 64)
    table.write(drawn(0, 12, "isic2019", "train"), tmp_path / "corpus", 64)
    given = examined(tmp_path / "corpus", tmp_path / "pool", tmp_path / "captions")
    report = groups.report(given)
    assert report["control"]["reason"] == "the images of the pool have no prompts"
    assert report["artefacts"]["repeats"]["reason"] == "needs 2 images, and there are 1"
    assert "there are 1 and 0" in report["separability"]["train"]["auc"]["reason"]
    off = groups.report(examined(tmp_path / "corpus", folder / "pool", tmp_path, control_images=0))
    assert off["control"]["reason"] == "audit.control_images is 0"
    model = {"image_text": "ViT-X", "image_text_weights": "none"}
    control = groups.report(
        examined(tmp_path / "corpus", folder / "pool", tmp_path / "captions", **model)
    )["control"]
    assert control["real"]["reason"] == "the corpus has no captions; run the stage caption"
    assert "'none' is not a file" in control["image_text"]["synthetic"]["reason"]
    assert control["synthetic"]["all"]["colours"]["value"] is not None
    json.dumps([report, off, control], allow_nan=False)
