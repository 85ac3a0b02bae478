from __future__ import annotations

import io

import numpy as np
from layouts import jpeg, picture
from PIL import Image

from dermaflux.core.images import square
from dermaflux.corpus.decoding import decode
from dermaflux.corpus.decoding.decode import CorpusImage, Rule
from dermaflux.sources.adapter import Problem

RULE = Rule(None, 95)


def test_no_file_cut_short_is_accepted() -> None:
    for options in ({}, {"progressive": True}):
        whole = jpeg(picture(9), **options)
        assert isinstance(decode.decode(whole, RULE), CorpusImage)
        for length in range(0, len(whole) - 2, max(1, len(whole) // 60)):
            assert isinstance(decode.decode(whole[:length], RULE), Problem), length


def test_corpus_picture_is_the_centre_of_the_original() -> None:
    image = picture(11, 700, 520)
    found = decode.decode(jpeg(image, 97, subsampling=0), RULE)
    assert isinstance(found, CorpusImage)
    assert (found.width, found.height, found.scale) == (700, 520, 512)
    stored = Image.open(io.BytesIO(found.encoded))
    assert stored.size == (512, 512)
    assert stored.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # 4:4:4
    reference = image.resize((689, 512), Image.Resampling.LANCZOS).crop((88, 0, 600, 512))
    error = np.abs(np.asarray(stored, float) - np.asarray(reference, float)).mean()
    assert error < 2.5


def test_reduced_jpeg_decoding_keeps_size_and_look() -> None:
    image = picture(12, 3000, 2400)
    content = jpeg(image, 95)
    found = decode.decode(content, RULE)
    assert isinstance(found, CorpusImage)
    assert (found.width, found.height) == (3000, 2400)
    whole = square(Image.open(io.BytesIO(content)).convert("RGB"), 512)
    stored = np.asarray(Image.open(io.BytesIO(found.encoded)), float)
    assert np.abs(stored - np.asarray(whole, float)).mean() < 1.5


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_orientation_is_applied_to_pixels_and_size() -> None:
    image = picture(14, 300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise by the viewer
    found = decode.decode(encoded(image, "JPEG", quality=97, exif=exif), RULE)
    assert isinstance(found, CorpusImage)
    assert (found.width, found.height) == (200, 300)
    stored = np.asarray(Image.open(io.BytesIO(found.encoded)), float)
    upright = square(image.rotate(-90, expand=True), 128)
    assert np.abs(stored - np.asarray(upright, float)).mean() < 3
