from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from layouts import jpeg, random_image
from PIL import Image

from dermaflux.core.images import square
from dermaflux.corpus.decoding import decode
from dermaflux.corpus.decoding.decode import CorpusImage, Rule
from dermaflux.sources.adapter import Problem

RULE = Rule(None, 95)


def test_no_file_cut_short_is_accepted() -> None:
    for options in ({}, {"progressive": True}):
        whole = jpeg(random_image(9), **options)
        assert isinstance(decode.decode(whole, RULE), CorpusImage)
        for length in range(0, len(whole) - 2, max(1, len(whole) // 60)):
            assert isinstance(decode.decode(whole[:length], RULE), Problem), length


def test_corpus_image_is_the_centre_of_the_original() -> None:
    image = random_image(11, 700, 520)
    result = decode.decode(jpeg(image, 97, subsampling=0), RULE)
    assert isinstance(result, CorpusImage)
    assert (result.width, result.height, result.scale) == (700, 520, 512)
    stored = Image.open(io.BytesIO(result.encoded))
    assert stored.size == (512, 512)
    assert stored.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # 4:4:4
    reference = image.resize((689, 512), Image.Resampling.LANCZOS).crop((88, 0, 600, 512))
    error = np.abs(np.asarray(stored, float) - np.asarray(reference, float)).mean()
    assert error < 2.5


def test_reduced_jpeg_decoding_keeps_size_and_look() -> None:
    image = random_image(12, 3000, 2400)
    content = jpeg(image, 95)
    result = decode.decode(content, RULE)
    assert isinstance(result, CorpusImage)
    assert (result.width, result.height) == (3000, 2400)
    whole = square(Image.open(io.BytesIO(content)).convert("RGB"), 512)
    stored = np.asarray(Image.open(io.BytesIO(result.encoded)), float)
    assert np.abs(stored - np.asarray(whole, float)).mean() < 1.5


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_orientation_is_applied_to_pixels_and_size() -> None:
    image = random_image(14, 300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise by the viewer
    result = decode.decode(encoded(image, "JPEG", quality=97, exif=exif), RULE)
    assert isinstance(result, CorpusImage)
    assert (result.width, result.height) == (200, 300)
    stored = np.asarray(Image.open(io.BytesIO(result.encoded)), float)
    upright = square(image.rotate(-90, expand=True), 128)
    assert np.abs(stored - np.asarray(upright, float)).mean() < 3


def test_a_new_skin_tone_or_hash_runs_no_stage_but_ingest() -> None:
    """Stages depend on the folders they import, so others may import no more than the matcher."""
    room = Path(decode.__file__).parents[1]
    others = [path for path in room.parent.rglob("*.py") if room not in path.parents]
    assert len(others) > 100
    imports = {
        line.split()[1]
        for path in others
        for line in path.read_text().splitlines()
        if line.lstrip().startswith("from dermaflux.corpus")
    }
    assert {name for name in imports if not name.startswith("dermaflux.corpus.duplicates")} == set()
