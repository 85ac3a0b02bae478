"""Images of the report: what a browser decodes from the data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.reporting import images


def decoded(uri: str | None, media_type: str) -> np.ndarray:
    head, _, content = (uri or "").partition(",")
    assert head == f"data:{media_type};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_a_montage_shows_each_image_in_its_tile(workspace: Params) -> None:
    names = table.metadata(paths.CORPUS, ["image_id"], "test")["image_id"].to_list()[4:9]
    montage = decoded(images.montage(paths.CORPUS, names, 3), "image/jpeg").astype(int)
    assert montage.shape == (256, 384, 3)
    stored = table.pixels(paths.CORPUS, names, 128)
    for index, name in enumerate(names):
        top, left = 128 * (index // 3), 128 * (index % 3)
        tile = montage[top : top + 128, left : left + 128]
        assert np.abs(tile - stored[name]).mean() < 3  # JPEG; benign and malignant differ by 10
    assert (montage[128:, 256:] > 250).all()
    assert images.montage(paths.CORPUS, [], 3) is None


def test_a_file_is_embedded_as_it_is_unless_it_is_large(tmp_path: Path) -> None:
    small, wide = tmp_path / "small.png", tmp_path / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    Image.fromarray(pixels).save(small)
    assert (decoded(images.file_uri(small), "image/png") == pixels).all()
    Image.new("RGB", (300, 80), (10, 200, 30)).save(wide)
    shrunk = decoded(images.file_uri(wide, width=150), "image/jpeg")
    assert shrunk.shape == (40, 150, 3)
    assert np.abs(shrunk.astype(int) - (10, 200, 30)).max() < 8
    assert images.file_uri(tmp_path / "absent.png") is None


def test_a_sample_depends_on_the_names_alone() -> None:
    names = [f"image-{number}" for number in range(50)]
    sample = images.sample(names, 10)
    assert sample == images.sample(names[::-1], 10)
    assert set(images.sample(names[:30], 10)) >= set(sample) & set(names[:30])
    assert sample != names[:10]
