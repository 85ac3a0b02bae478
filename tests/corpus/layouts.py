"""Small datasets in their published layouts, made of pictures that no two of which are alike."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


def picture(seed: int, width: int = 160, height: int = 140) -> Image.Image:
    """A picture with structure at every size, a different one for each seed."""
    random = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48):
        coarse = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        layer = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        canvas += np.asarray(layer, dtype=float) / 5
    return Image.fromarray(canvas.astype(np.uint8))


def save(image: Image.Image, path: Path, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    return path


def jpeg(image: Image.Image, quality: int = 90, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def one_hot(chosen: str, spelling: tuple[str, str] = ("0.0", "1.0")) -> str:
    return ",".join(spelling[name == chosen] for name in CLASSES)


def isic2019(root: Path, train: dict[str, tuple[str, str]], test: dict[str, str]) -> None:
    """`train`: name -> (class, lesion id); `test`: name -> class (and weights)."""
    for number, name in enumerate(train):
        save(picture(1000 + number), root / f"ISIC_2019_Training_Input/{name}.jpg")
    for number, name in enumerate(test):
        save(picture(2000 + number), root / f"ISIC_2019_Test_Input/{name}.jpg")
    header = "image," + ",".join(CLASSES)
    rows = [f"{name},{one_hot(chosen)}" for name, (chosen, _) in train.items()]
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join([header, *rows]))
    about = [f"{name},55,anterior torso,{lesion},female" for name, (_, lesion) in train.items()]
    (root / "ISIC_2019_Training_Metadata.csv").write_text(
        "\n".join(["image,age_approx,anatom_site_general,lesion_id,sex", *about])
    )
    rows = [f"{name},{one_hot(chosen, ('0', '1'))},1.0,0.0" for name, chosen in test.items()]
    (root / "ISIC_2019_Test_GroundTruth.csv").write_text(
        "\n".join([header + ",score_weight,validation_weight", *rows])
    )


def isic2020(root: Path, images: dict[str, tuple[str, int]]) -> None:
    """`images`: name -> (patient, target); the older ground truth, without lesion ids."""
    for number, name in enumerate(images):
        save(picture(3000 + number), root / f"train/{name}.jpg")
    rows = [
        f"{name},{patient},male,45.0,torso,unknown,{('benign', 'malignant')[target]},{target}"
        for name, (patient, target) in images.items()
    ]
    header = (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,"
        "diagnosis,benign_malignant,target"
    )
    (root / "ISIC_2020_Training_GroundTruth.csv").write_text("\n".join([header, *rows]))


def kaggle(root: Path, per_folder: int, capitalised: bool, first_seed: int) -> None:
    """Class folders with equal file names in both classes."""
    seed = first_seed
    for split in ("train", "test"):
        for label in ("benign", "malignant"):
            folder = root / split / (label.capitalize() if capitalised else label)
            for number in range(per_folder):
                save(picture(seed, 150, 150), folder / f"melanoma_{number}.jpg")
                seed += 1


def png_claiming(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header promises a huge picture."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000)))):
        check = zlib.crc32(kind + body)
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
    return content
