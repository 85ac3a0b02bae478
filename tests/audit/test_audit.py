"""The audit on rendered lesions: planted copies are rejected, and nothing else."""

from __future__ import annotations

import io
import json
import math
import statistics
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from drawn_lesions import lesion, row
from PIL import Image, ImageOps

from dermaflux import paths
from dermaflux.audit import audit, features, trunks
from dermaflux.audit.fidelity import mmd
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import load
from dermaflux.tracking import runs

SIDE = 64
PIXELS = trunks.pixels()
COPIES = ("re-encoded", "mirrored", "turned")


def copy(image: Image.Image, how: str) -> Image.Image:
    if how == "re-encoded":
        file = io.BytesIO()
        image.resize((50, 50)).save(file, "JPEG", quality=60)
        return Image.open(file).resize((SIDE, SIDE))
    return ImageOps.mirror(image) if how == "mirrored" else image.rotate(90)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    corpus, synthetic, number = [], [], 0
    for label in ("benign", "malignant"):
        for split, count in (("train", 60), ("validation", 15), ("synthetic", 20)):
            for _ in range(count):
                image = lesion(number, label, SIDE)
                number += 1
                if split == "synthetic":
                    synthetic.append(row(image, f"synthetic/{number:04d}", label, "train"))
                else:
                    corpus.append(row(image, f"isic2019/{number:04d}", label, split))
    for index, how in enumerate(COPIES):
        image = copy(lesion(index, "benign", SIDE), how)
        synthetic.append(row(image, f"synthetic/copy-{how}", "benign", "train"))
    table.write(corpus, paths.CORPUS, 64)
    table.write(synthetic, paths.SYNTHETIC, 64)
    return tmp_path


def run(**changes) -> dict:
    shipped = load.load(Path(__file__).parents[2] / "params.yaml")
    audit.run(shipped.model_copy(update={"audit": shipped.audit.model_copy(update=changes)}))
    return {
        name: value
        for path in (paths.AUDIT_REPORT, paths.REJECTED)
        for name, value in json.loads(path.read_text()).items()
    }


def test_planted_copies_are_rejected_and_nothing_else(workspace, capsys) -> None:
    report = run()
    said = "audit: 3 of 43 synthetic images rejected (0 copies, 0 too near, 3 both), KID "
    assert said in capsys.readouterr().out
    assert report["rejected"] == sorted(f"synthetic/copy-{how}" for how in COPIES)
    assert report["memorised_count"] == 3
    assert report["images"] == 43
    assert report["held_out"]["flagged_count"] == 0
    pairs = pd.read_csv(paths.AUDIT_FIGURES / "nearest.csv").set_index("image_id")
    for index, how in enumerate(COPIES):
        pair = pairs.loc[f"synthetic/copy-{how}"]
        assert pair["nearest_id"] == f"isic2019/{index + 1:04d}"
        assert pair["rejected"]
        assert pair["reason"] == "copy and too near"
    with Image.open(paths.AUDIT_FIGURES / "nearest.png") as sheet:
        assert sheet.size[0] > 8 * 100

    client = runs.connect()
    experiment = client.get_experiment_by_name("generator")
    logged = client.search_runs([experiment.experiment_id])[0]
    assert logged.data.metrics["memorised_count"] == 3
    assert logged.data.tags["output.reports/audit.json"] == runs.dvc_hash(paths.AUDIT_REPORT)

    first = paths.AUDIT_REPORT.read_bytes(), (paths.AUDIT_FIGURES / "nearest.png").read_bytes()
    run()
    again = paths.AUDIT_REPORT.read_bytes(), (paths.AUDIT_FIGURES / "nearest.png").read_bytes()
    assert again == first


def test_a_pool_of_one_class_or_of_none_is_compared_with_what_it_was_asked_for(workspace) -> None:
    settings = load.load(Path(__file__).parents[2] / "params.yaml").audit
    rows = table.metadata(paths.SYNTHETIC)
    encoded = dict(table.images(paths.SYNTHETIC))

    def examined(name: str, kept: pd.DataFrame) -> dict:
        records = kept.astype(object).where(kept.notna(), None).to_dict("records")
        images = [{"bytes": encoded[record["image_id"]], "path": None} for record in records]
        pool = [{**record, "image": image} for record, image in zip(records, images, strict=True)]
        table.write(pool, workspace / name, 64)
        return audit.examine(paths.CORPUS, workspace / name, settings)[0]

    both = examined("both", rows)
    benign = examined("benign", rows[rows["label"] == "benign"])
    assert benign["classes"] == {"benign": both["classes"]["benign"]}
    # The mean of two independent estimates, each with 95 % of a normal distribution.
    parts = [both["classes"][name] for name in ("benign", "malignant")]
    assert both["kid"] == pytest.approx(statistics.mean(part["kid"] for part in parts))
    half = math.hypot(*(part["kid_error"] for part in parts)) / 2 * NormalDist().inv_cdf(0.975)
    limits = (both["kid"] - half, both["kid"] + half)
    assert (both["kid_low"], both["kid_high"]) == pytest.approx(limits, rel=1e-3)
    unconditional = examined("none", rows.assign(label="indeterminate"))
    assert unconditional["rejected"] == both["rejected"]
    assert [*unconditional["classes"]] == ["indeterminate"]
    pixels = (
        features.extract(
            folder, table.metadata(folder, split="train").sort_values("image_id"), "train", PIXELS
        ).points
        for folder in (paths.SYNTHETIC, paths.CORPUS)
    )
    assert unconditional["kid"] == pytest.approx(mmd.kid(*pixels, seed=0)[0].mean, rel=1e-4)


def test_symmetries_are_those_of_the_square() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    symmetries = features.symmetries(image)[0]
    assert np.array_equal(symmetries[0], image[0])
    assert len({symmetry.tobytes() for symmetry in symmetries}) == 8


def test_too_few_images_of_a_class(workspace) -> None:
    """Of the pool: its figures are not given and the rest stands. Of training: one sentence."""

    def kept(folder: Path, rows: pd.DataFrame) -> Path:
        encoded = dict(table.images(folder))
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        images = [{"bytes": encoded[each["image_id"]], "path": None} for each in records]
        pairs = zip(records, images, strict=True)
        table.write([{**each, "image": image} for each, image in pairs], workspace / "few", 64)
        return workspace / "few"

    settings = load.load(Path(__file__).parents[2] / "params.yaml").audit
    pool = table.metadata(paths.SYNTHETIC)
    one = kept(paths.SYNTHETIC, pool[pool["image_id"] == "synthetic/copy-mirrored"])
    report, _, _ = audit.examine(paths.CORPUS, one, settings)
    assert report["rejected"] == ["synthetic/copy-mirrored"]
    assert report["kid"] is None
    assert report["classes"]["benign"]["reason"].endswith("there are 1 and 60")
    assert report["fidelity"]["train"]["memorised"]["value"] == 1
    logged = audit._numbers(report)
    assert logged["memorised_count"] == 1
    assert "kid" not in logged
    rows = table.metadata(paths.CORPUS)
    few = kept(paths.CORPUS, rows[(rows["split"] != "train") | (rows["label"] == "benign")])
    with pytest.raises(InputError, match="0 malignant images in split train but the audit needs 4"):
        audit.examine(few, paths.SYNTHETIC, settings)
