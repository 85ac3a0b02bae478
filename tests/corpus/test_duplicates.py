from __future__ import annotations

import io

import numpy as np
import pytest
from layouts import jpeg, picture
from PIL import Image
from scipy.fft import dctn

from dermaflux.corpus import duplicates


def thumbnail(image: Image.Image) -> np.ndarray:
    side = (duplicates.SIDE, duplicates.SIDE)
    return np.asarray(image.convert("L").resize(side, Image.Resampling.LANCZOS))


def reopened(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image, quality))).convert("RGB")


def test_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    for seed in range(20):
        small = thumbnail(picture(seed))
        half = small.astype(float).reshape(32, 2, 32, 2).mean(axis=(1, 3))
        coefficients = dctn(half)
        order = sorted((u + v, u, v) for u in range(16) for v in range(16))[1:65]
        bits = "".join(str(int(coefficients[u, v] > 0)) for _, u, v in order)
        assert duplicates.perceptual_hash(small) == int(bits, 2)


def test_a_plain_picture_is_no_copy_of_another_plain_picture() -> None:
    plain = np.stack([np.full((64, 64), value, dtype=np.uint8) for value in (0, 90)])
    assert duplicates.perceptual_hash(plain[0]) == duplicates.perceptual_hash(plain[1]) == 0
    assert duplicates.correlation(plain[:1], plain[1:]).tolist() == [0.0]
    assert duplicates.equal_pairs(["a", "b", "a", "a"]) == [(0, 2), (0, 3)]


@pytest.mark.parametrize("distance", [0, 1, 4, 8, 13])
@pytest.mark.parametrize("count", [0, 1, 900])
def test_banding_equals_brute_force(distance: int, count: int) -> None:
    random = np.random.default_rng(distance)
    centres = random.integers(0, 2**64, max(count // 9, 1), dtype=np.uint64)
    flips = random.integers(0, 64, (count, 9), dtype=np.uint64)
    masks = np.bitwise_or.reduce(np.uint64(1) << flips, axis=1) if count else np.zeros(0, np.uint64)
    hashes = random.choice(centres, count) ^ masks
    hashes[: count // 30] = hashes[0] if count else 0  # a run of equal hashes
    expected = [
        (i, j)
        for i in range(count)
        for j in (i + 1 + np.nonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= distance)[0])
    ]
    assert [tuple(pair) for pair in duplicates.candidate_pairs(hashes, distance)] == expected
    assert count < 900 or expected


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_banding_is_exact_for_every_number_of_bands(
    bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_equal_bands", lambda count, distance: bands)
    test_banding_equals_brute_force(4, 900)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: reopened(image, 50),
        lambda image: reopened(image.resize((96, 96), Image.Resampling.BILINEAR), 75),
        lambda image: image.resize((512, 300), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: min(255, int(value * 1.1))),
        lambda image: image.crop((3, 3, image.width - 3, image.height - 3)),
    ],
    ids=["recompressed", "small", "squashed", "brighter", "cropped"],
)
def test_copies_are_confirmed_and_others_are_not(change) -> None:
    originals = [picture(seed, 200, 180) for seed in range(30)]
    first = np.stack([thumbnail(image) for image in originals])
    second = np.stack([thumbnail(change(image)) for image in originals])
    hashes = [[duplicates.perceptual_hash(one) for one in side] for side in (first, second)]
    distances = [(a ^ b).bit_count() for a, b in zip(*hashes, strict=True)]
    assert max(distances) <= 8
    assert duplicates.correlation(first, second).min() > 0.6
    assert duplicates.correlation(first, np.roll(second, 1, axis=0)).max() < 0.4
