"""The phantom corpus: its statistics against sampling, its bytes against other CPUs, its traps."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from without_simd import without_simd

from dermaflux import phantom
from dermaflux.errors import InputError
from dermaflux.phantom import folder as corpus_folder
from dermaflux.phantom.lesion import ATTRIBUTES
from dermaflux.tracking.runs import dvc_hash

ROOT = Path(__file__).parents[2]
SAMPLE = """
import hashlib, json
from numpy._core._multiarray_umath import __cpu_features__
from dermaflux.phantom import draw, render
from dermaflux.phantom.folder import encode
digest = hashlib.sha256()
for index, (height, width) in enumerate([(128, 128), (97, 150), (224, 224), (301, 180)] * 6):
    digest.update(encode(render(draw(index, "test"), height, width), ".jpg", 85))
print(json.dumps([digest.hexdigest(), [k for k, on in __cpu_features__.items() if on]]))
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_bayes_auc_agrees_with_sampling() -> None:
    from sklearn.metrics import roc_auc_score

    lesions = [phantom.draw(index, "test") for index in range(12_000)]
    score = [float(phantom.likelihood_ratio(lesion)) for lesion in lesions]
    truth = [lesion.label == "malignant" for lesion in lesions]
    assert roc_auc_score(truth, score) == pytest.approx(phantom.bayes_auc(), abs=0.01)
    assert 0.88 < phantom.bayes_auc() < 0.93
    for (name, law), levels in zip(
        ATTRIBUTES.items(),
        zip(*((x.asymmetry, x.border, len(x.colours) - 1) for x in lesions), strict=True),
        strict=True,
    ):
        for label, percents in law.items():
            counts = Counter(v for v, x in zip(levels, lesions, strict=True) if x.label == label)
            shares = [100 * counts[k] / counts.total() for k in range(len(percents))]
            assert shares == pytest.approx(percents, abs=2), (name, label)


def test_streams_are_independent_and_a_label_only_conditions() -> None:
    first, second = (
        [phantom.draw(i, stream) for i in range(400)] for stream in ("corpus", "backbone")
    )
    agree = sum(a.asymmetry == b.asymmetry for a, b in zip(first, second, strict=True))
    assert 0.2 < agree / 400 < 0.5
    assert {lesion.key for lesion in first}.isdisjoint(lesion.key for lesion in second)
    for lesion in first[:50]:
        index = int(lesion.key.split("/")[1])
        assert phantom.draw(index, "corpus", lesion.label) == lesion
        assert len(set(lesion.colours)) == len(lesion.colours)


def test_every_attribute_is_measurable_in_pixels() -> None:
    """Means over lesions, measured by other methods, rise from each level to the next."""
    from scipy import ndimage
    from skimage import color, filters, measure

    outline: dict[int, list[float]] = {k: [] for k in range(4)}
    mirrored: dict[int, list[float]] = {k: [] for k in range(3)}
    variety: dict[int, list[float]] = {k: [] for k in range(1, 6)}
    for index in range(240):
        lesion = phantom.draw(index, "test")
        lab = color.rgb2lab(phantom.render(lesion, 128, 128))
        y, x = np.mgrid[:128, :128] - 63.5
        disc = np.hypot(y, x) < 58
        skin = np.median(lab[disc & (np.hypot(y, x) > 50)], axis=0)
        distance = np.linalg.norm(ndimage.median_filter(lab, (5, 5, 1)) - skin, axis=-1) * disc
        parts, _ = ndimage.label(distance > filters.threshold_otsu(distance[disc]))
        mask = ndimage.binary_fill_holes(parts == np.bincount(parts[parts > 0]).argmax())
        shape = measure.regionprops(mask.astype(int))[0]
        outline[lesion.border].append(shape.perimeter / np.sqrt(4 * np.pi * shape.area))
        cy, cx = shape.centroid
        upright = ndimage.affine_transform(  # principal axes along the grid, centroid in the middle
            mask.astype(float),
            (turn := _rotation(shape.orientation)),
            offset=np.array([cy, cx]) - turn @ np.array([63.5, 63.5]),
            order=1,
        )
        folds = [np.abs(upright - np.flip(upright, axis)).sum() for axis in (0, 1)]
        mirrored[lesion.asymmetry].append(max(folds) / (2 * shape.area))
        palette = np.round(lab[ndimage.binary_erosion(mask, iterations=2)] / 16).astype(int)
        if len(palette):
            shares = np.unique(palette, axis=0, return_counts=True)[1] / len(palette)
            variety[len(lesion.colours)].append(float(np.exp(-(shares * np.log(shares)).sum())))
    for measured in (outline, mirrored, variety):
        means = [float(np.mean(values)) for values in measured.values()]
        assert means == sorted(means), means
        assert means[-1] > 1.15 * means[0], means


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_same_bytes_without_simd() -> None:
    environment = without_simd()
    plain, features = json.loads(python(SAMPLE))
    reduced, remaining = json.loads(python(SAMPLE, **environment))
    assert reduced == plain
    assert set(environment["NPY_DISABLE_CPU_FEATURES"].split()) <= set(features) - set(remaining)


def test_same_bytes_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {name: corpus_folder.layouts()[name] for name in ("mednode", "ddi")}
    monkeypatch.setattr(corpus_folder, "layouts", lambda: plan)
    for jobs in (1, 2):
        phantom.write(tmp_path / str(jobs), jobs)
    assert dvc_hash(tmp_path / "1") == dvc_hash(tmp_path / "2")
    with Image.open(tmp_path / "1/ddi/ddidiversedermatologyimages/000001.png") as image:
        first = plan["ddi"].images[0]
        assert np.array_equal(np.asarray(image), phantom.render(first.lesion, *first.size))


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photograph.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not a phantom corpus"):
        phantom.write(tmp_path)
    assert (tmp_path / "photograph.jpg").read_bytes() == b"mine"


def test_plan_has_the_stated_shape() -> None:
    plan = corpus_folder.layouts()
    files = [p for layout in plan.values() for p in layout.images if p.damage != "no file"]
    assert len(plan) == 11
    assert 2400 <= len(files) <= 2600
    assert len({p.path for p in files}) == len(files)
    binary = [p for p in files if p.source in {"isic2019", "isic2020", "kaggle1", "kaggle2"}]
    test = Counter(p.label for p in binary if p.split == "test")
    train = Counter(p.label for p in binary if p.split == "train")
    assert test["malignant"] == test["benign"]  # so the pooled test set has the Bayes AUC of one
    assert 450 <= test.total() <= 550
    assert 0.1 < train["malignant"] / train.total() < 0.17
    assert train["malignant"] >= 170
    sides = [min(p.size) for p in files]
    assert all(sum(low <= s < high for s in sides) >= 10 for low, high in
               ((1, 128), (128, 256), (256, 512), (512, 2048)))  # fmt: skip
    archive = [set(re.findall(r"ISIC_\d{7}", " ".join(p.path for p in layout.images)))
               for layout in plan.values()]  # fmt: skip
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(archive, 2))
    kinds = Counter(kind for layout in plan.values() for kind, *_ in layout.duplicates)
    assert min(kinds.values()) >= 6, kinds


@pytest.mark.slow
def test_whole_corpus_has_the_hash_in_git(rendered_corpus: Path) -> None:
    pointer = ROOT / "data.dvc"
    if pointer.exists():  # absent only before the first `dvc add data`
        match = re.search(r"md5: ([0-9a-f]{32}\.dir)", pointer.read_text())
        assert match is not None
        assert dvc_hash(rendered_corpus) == match[1]
    known = json.loads((rendered_corpus / "phantom.json").read_text())
    images = [p for p in rendered_corpus.rglob("*") if p.suffix in {".jpg", ".png"}]
    counted = [n for d in known["counts"].values() for s in d.values() for n in s.values()]
    assert len(images) == sum(counted) == known["images"]
    assert sum(p.stat().st_size for p in rendered_corpus.rglob("*") if p.is_file()) < 40e6


@pytest.mark.slow
def test_planted_damage_is_there(rendered_corpus: Path) -> None:
    known = json.loads((rendered_corpus / "phantom.json").read_text())
    by_kind = {kind: rendered_corpus / path for path, kind in known["damaged"].items()}
    with pytest.raises(OSError, match="truncated"), Image.open(by_kind["truncated"]) as image:
        image.load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(by_kind["not an image"])
    truth = (rendered_corpus / "isic2019/ISIC_2019_Training_GroundTruth.csv").read_text()
    assert by_kind["no file"].stem in truth
    assert not by_kind["no file"].exists()
    rows = (rendered_corpus / "isic2020/ISIC_2020_Training_GroundTruth_v2.csv").read_text()
    assert by_kind["no row"].exists()
    assert by_kind["no row"].stem not in rows
    for path in known["undersized"]:
        with Image.open(rendered_corpus / path) as image:
            assert min(image.size) < 128


@pytest.mark.slow
def test_planted_duplicates_look_alike(rendered_corpus: Path) -> None:
    known = json.loads((rendered_corpus / "phantom.json").read_text())

    def small(path: str) -> np.ndarray:
        with Image.open(rendered_corpus / path) as image:
            return np.asarray(image.convert("RGB").resize((32, 32)), dtype=float)

    pairs = [entry["paths"] for entry in known["duplicates"]]
    same = [np.abs(small(a) - small(b)).mean() for a, b in pairs]
    other = [np.abs(small(a) - small(d)).mean() for (a, _), (_, d) in itertools.pairwise(pairs)]
    assert max(same) < min(other)
    content = [[(rendered_corpus / path).read_bytes() for path in pair] for pair in pairs]
    assert any(a == b for a, b in content)
    assert any(a != b for a, b in content)
    with (rendered_corpus / "isic2020/ISIC_2020_Training_Duplicates.csv").open() as file:
        listed = [(row["image_name_1"], row["image_name_2"]) for row in csv.DictReader(file)]
    kind = "ISIC 2020 duplicate list"
    planted = [entry["paths"] for entry in known["duplicates"] if entry["kind"] == kind]
    assert [(Path(a).stem, Path(b).stem) for a, b in planted] == listed
