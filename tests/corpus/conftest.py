"""A working directory for `ingest`, and datasets with copies between them and damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import isic2019, isic2020, jpeg, kaggle, png_claiming, random_image, save
from PIL import Image


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory that is a project root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    (tmp_path / ".dvc").mkdir()
    return tmp_path / "data"


@pytest.fixture
def data(workspace: Path) -> Path:
    """All four datasets, with copies between them and a battery of damaged files."""
    classes = ["NV", "MEL", "BKL", "AK"] * 6
    train = {f"ISIC_{n:07d}": (name, f"HAM_{n // 2 % 3}x{name}") for n, name in enumerate(classes)}
    test = {f"ISIC_{9000 + n:07d}": name for n, name in enumerate(["NV", "MEL", "UNK", "AK"])}
    isic2019(workspace / "isic2019", train, test)
    isic2020(workspace / "isic2020", {f"ISIC_{n}": (f"IP_{n % 5}", n % 2) for n in range(10)})
    kaggle(workspace / "kaggle1/melanoma_cancer_dataset", 4, False, 0)
    kaggle(workspace / "kaggle2", 4, True, 100)
    inputs = workspace / "isic2019/ISIC_2019_Training_Input"
    # ISIC_1 of 2020 is in the test part of kaggle1, so patient IP_1 must leave training.
    copy = Image.open(workspace / "isic2020/train/ISIC_1.jpg").resize((300, 300))
    save(copy, workspace / "kaggle1/melanoma_cancer_dataset/test/malignant/melanoma_0.jpg", 70)
    # Two copies in training, and two whose labels contradict each other.
    save(Image.open(inputs / "ISIC_0000000.jpg"), workspace / "kaggle2/train/Benign/7.jpg", 60)
    save(Image.open(inputs / "ISIC_0000004.jpg"), workspace / "kaggle2/train/Malignant/8.jpg", 60)
    damage(workspace / "kaggle2/train/Benign")
    save(random_image(7), workspace / "holiday/one.jpg")
    return workspace


def damage(folder: Path) -> None:
    whole = jpeg(random_image(501))
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "end-missing.jpg").write_bytes(whole[:-400])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(png_claiming(20_000, 20_000))
    (folder / "broken-link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "gif.gif").write_bytes(b"GIF89a")
    save(random_image(502, 200, 127), folder / "small.jpg")
    save(random_image(503), folder / "twice.jpg")
    save(random_image(504), folder / "twice.png")
    save(random_image(505), folder.parent / "elsewhere/lost.jpg")
