"""Writes the phantom corpus: eleven datasets as published, and what is known about them.

Reads nothing. Writes the data folder: one folder per dataset, ``phantom.json`` (Bayes AUC,
attribute distributions, counts, planted duplicates and damage) and ``phantom.csv`` (the true
attributes of each image). Command: ``dermaflux phantom data``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core.files import atomic_folder, write_json, write_text
from dermaflux.errors import InputError
from dermaflux.launch import worker_options
from dermaflux.phantom import archives, challenge, kaggle, recent_challenges
from dermaflux.phantom.layout import Layout, PlannedImage, table
from dermaflux.phantom.lesion import ATTRIBUTES, bayes_auc
from dermaflux.progress import progress

if TYPE_CHECKING:
    from dermaflux.core.arrays import Pixels

_BATCH = 12  # images a worker renders at a time


def layouts() -> dict[str, Layout]:
    """The plan of every dataset, without rendering anything."""
    isic2019, isic2020 = challenge.isic2019(), challenge.isic2020()
    kaggle1 = kaggle.kaggle1(isic2020)
    return {
        "mednode": archives.mednode(),
        "hiba": archives.hiba(),
        "derm12345": archives.derm12345(),
        "isic2019": isic2019,
        "isic2020": isic2020,
        "milk10k": recent_challenges.milk10k(),
        "padufes20": archives.padufes20(),
        "kaggle1": kaggle1,
        "kaggle2": kaggle.kaggle2(kaggle1, isic2019),
        "ddi": archives.ddi(),
        "isic2024": recent_challenges.isic2024(),
    }


def encode(pixels: Pixels, suffix: str, quality: int) -> bytes:
    """Encode uint8 (H, W, 3) as ``.jpg`` or ``.png``.

    libjpeg-turbo's default integer DCT gives the same bytes with and without SIMD. PNG is written
    here without compression, since deflate output differs between zlib builds.
    """
    if suffix == ".png":
        return _png(pixels)
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _png(pixels: Pixels) -> bytes:
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    stored = [b"\x78\x01"]
    for start in range(0, len(raw), 0xFFFF):
        block = raw[start : start + 0xFFFF]
        last = start + 0xFFFF >= len(raw)
        stored.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    stored.append(struct.pack(">I", zlib.adler32(raw)))

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", b"".join(stored)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def content(image: PlannedImage) -> bytes | None:
    """The bytes of the file; None when it is planned to be missing."""
    from dermaflux.phantom.render import render

    if image.damage == "no file":
        return None
    if image.damage == "not an image":
        return b"404: the requested image could not be found\n"
    pixels = render(image.lesion, *image.size)
    encoded = encode(pixels, Path(image.path).suffix, image.quality)
    return encoded[: len(encoded) * 3 // 5] if image.damage == "truncated" else encoded


def _write_batch(folder: Path, images: Sequence[PlannedImage]) -> int:
    for image in images:
        encoded = content(image)
        if encoded is not None:
            (folder / image.path).write_bytes(encoded)
    return len(images)


def write_images(folder: Path, images: Sequence[PlannedImage], jobs: int) -> None:
    """Render the images below `folder`; as `write`."""
    from joblib import Parallel, delayed

    for path in sorted({(folder / image.path).parent for image in images}):
        path.mkdir(parents=True, exist_ok=True)
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    with progress("phantom images", len(images)) as advance:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", **worker_options())
        for count in parallel(delayed(_write_batch)(folder, batch) for batch in batches):
            advance(count)


def _facts(plan: dict[str, Layout]) -> dict[str, Any]:
    """Facts about the corpus that tests and readers can check against."""
    planned = [p for layout in plan.values() for p in layout.images]
    files = [p for p in planned if p.damage != "no file"]
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (source, split, label), count in Counter(
        (p.source, p.split, p.label) for p in files
    ).items():
        counts.setdefault(source, {}).setdefault(split, {})[label] = count
    return {
        "images": len(files),
        "counts": counts,
        "bayes_auc": bayes_auc(),
        "attributes_percent": ATTRIBUTES,
        "duplicates": [
            {"kind": kind, "paths": list(paths)}
            for layout in plan.values()
            for kind, *paths in layout.duplicates
        ],
        "damaged": {p.path: p.damage for p in planned if p.damage},
        "undersized": [p.path for p in files if min(p.size) < 128],
    }


def truth(images: Iterable[PlannedImage]) -> str:
    """CSV text with the true attributes of each image; `label` is the class it was drawn from."""
    rows = [
        [
            p.path,
            p.lesion.key,
            p.lesion.view,
            p.lesion.label,
            p.lesion.asymmetry,
            p.lesion.border,
            len(p.lesion.colours),
            "|".join(p.lesion.colours),
            p.lesion.tone,
            p.lesion.pattern,
        ]
        for p in images
        if p.damage != "no file"
    ]
    header = "path,lesion,view,label,asymmetry,border,colours,colour_names,tone,pattern"
    return table(header, rows)


def write(folder: Path, jobs: int = -1) -> None:
    """Render the corpus into `folder`, with `jobs` processes, -1 for one per core.

    A phantom corpus there is replaced; any other content raises `InputError`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the phantom corpus")
    if folder.exists() and any(folder.iterdir()) and not (folder / "phantom.json").exists():
        raise InputError(
            f"{folder} holds files that are not a phantom corpus; name a new or empty folder"
        )
    plan = layouts()
    images = [p for layout in plan.values() for p in layout.images]
    with atomic_folder(folder) as partial:
        write_images(partial, images, jobs)
        for layout in plan.values():
            for name, text in layout.files.items():
                write_text(partial / name, text)
        write_text(partial / "phantom.csv", truth(images))
        write_json(partial / "phantom.json", _facts(plan))
