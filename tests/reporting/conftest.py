"""A small workspace in which every stage before `report` has run, with made-up figures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import made_up_evaluations
import numpy as np
import pytest
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import write_json, write_text
from dermaflux.core.hashing import sha256
from dermaflux.params import Params, load
from dermaflux.params.arms import ARMS

PARAMETERS = Path(__file__).parents[2] / "params.yaml"


def _image(index: int, label: str) -> bytes:
    rng = np.random.default_rng(index)
    pixels = np.full((128, 128, 3), (214, 170, 150), np.uint8)
    pixels[30:98, 30:98] = (120, 70, 50) if label == "benign" else (60, 35, 40)
    pixels = (pixels + rng.integers(0, 20, pixels.shape)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _rows(source: str, split: str, counts: dict[str, int], start: int) -> list[dict[str, object]]:
    rows = []
    for label, count in counts.items():
        for number in range(count):
            name = f"{source}/{split}-{label}-{number:03d}"
            encoded = _image(start + len(rows), label)
            rows.append(
                {
                    "image": {"bytes": encoded, "path": f"{name}.jpg"},
                    "image_id": name,
                    "source": source,
                    "label": label,
                    "split": split,
                    "scale": 128,
                    "width": 140,
                    "height": 150,
                    "sha256": sha256(encoded),
                }
            )
    return rows


def _ingest_report() -> None:
    """The report of `ingest` on the corpus below: three quarantined records beside 60 images."""
    rows = [
        ("isic2019", "a.jpg", "isic2019/a", "decode", "damaged", "image file is truncated"),
        ("kaggle1", "b.jpg", "kaggle1/b", "decode", "damaged", "not an image"),
        ("kaggle2", "c.jpg", "kaggle2/c", "decode", "too-small", "shorter side 90 is below 128"),
    ]
    with paths.QUARANTINE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "location", "image_id", "stage", "rule", "reason"])
        writer.writerows(rows)
    half = {"benign": {"128": 6}, "malignant": {"128": 6}}
    sources = {
        "isic2019": {"in": 37, "quarantined": 1, "kept": 36},
        "kaggle1": {"in": 25, "quarantined": 1, "kept": 24},
        "kaggle2": {"in": 1, "quarantined": 1, "kept": 0},
    }
    described = {
        name: {
            "title": name.upper(),
            "licence": "CC0",
            "citation": f"{name} 2020",
            "url": "https://d",
        }
        for name in sources
    }
    write_json(
        paths.INGEST_REPORT,
        {
            "images": {"in": 63, "quarantined": 3, "kept": 60},
            "kept": {
                "train": {"isic2019": {"benign": {"128": 30}, "malignant": {"128": 6}}},
                "validation": {"kaggle1": half},
                "test": {"kaggle1": half},
            },
            "sources": {name: described[name] | sources[name] for name in sources},
            "licences": {"CC0": 60},
            "scales": {
                "128": {"in": 61, "quarantined": 1, "kept": 60},
                "none": {"in": 2, "quarantined": 2, "kept": 0},
            },
            "quarantine": {"rule": {"damaged": 2, "too-small": 1}},
            "policy": "clean",
            "policies": {
                "clean": {"training": {"128": 48}, "test": {"128": 12}},
                "as_published": {"training": {"256": 13, "512": 37}, "test": {"256": 12}},
            },
            "paper": {
                "training": {"128": 400_901, "256": 22_140, "512": 85_303},
                "residue": {"128": 158},
            },
            "unread": {"ddi": {"images": 37, "why": "no adapter reads it"}},
        },
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Chdir into a workspace of 60 real and 8 synthetic images; its parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    shipped = load.load(PARAMETERS).model_dump(by_alias=True)
    quick = {**shipped["evaluate"], "bootstrap_samples": 100}
    arms = [arm for arm in ARMS if arm not in ("no_teacher", "scratch")]
    train = {**shipped["train"], "arms": arms, "curve": []}
    params = load.parse({**shipped, "n_real": 240, "ratio": 1, "evaluate": quick, "train": train})
    rows = _rows("isic2019", "train", {"benign": 30, "malignant": 6}, 0)
    rows += _rows("kaggle1", "validation", {"benign": 6, "malignant": 6}, 100)
    rows += _rows("kaggle1", "test", {"benign": 6, "malignant": 6}, 200)
    table.write(sorted(rows, key=lambda row: str(row["image_id"])), paths.CORPUS, 64)
    table.write(
        _rows("synthetic", "train", {"benign": 4, "malignant": 4}, 300), paths.SYNTHETIC, 64
    )
    paths.REPORTS.mkdir()
    _ingest_report()
    write_json(paths.REJECTED, {"rejected": ["synthetic/train-benign-000"]})
    write_json(paths.AUDIT_REPORT, {"memorised_count": 1, "kid": 0.12})
    write_json(paths.VALIDATION_REPORT, {"success": True, "evaluated": 30, "failed": 0})
    candidate = {"cell": "vit-1", "arm": "mixture", "validation_auc": 0.87}
    write_json(
        paths.PROMOTE_REPORT,
        {
            "decision": "promoted",
            "reason": "vit-1/mixture is best with validation AUC 0.8700, and there was no champion",
            "candidate": candidate,
            "champion": candidate,
            "champion_before": None,
        },
    )
    write_text(
        paths.GENERATOR / "loss.csv",
        "step,loss\n" + "".join(f"{step},{1 / (1 + step):.4f}\n" for step in range(40)),
    )
    write_text(
        paths.GENERATOR / "validation_loss.csv",
        "step,validation_loss\n0,0.5\n40,0.25\n",
    )
    write_json(
        paths.GENERATOR / "finetune.json",
        {"rank": 16, "trainable_parameters": 114688, "dtype": "fp32", "validation_images": 16},
    )
    made_up_evaluations.malignancy(params)
    return params
