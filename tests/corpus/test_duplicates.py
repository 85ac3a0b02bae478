from __future__ import annotations

import io

import numpy as np
import pytest
from layouts import jpeg, random_image
from PIL import Image
from scipy.fft import dctn

from dermaflux.corpus.decoding.perceptual_hash import perceptual_hash
from dermaflux.corpus.duplicates import lsh, search, signatures, verify
from dermaflux.corpus.duplicates.signatures import SIDE

LANCZOS = Image.Resampling.LANCZOS
T = Image.Transpose


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), LANCZOS))


def reopened(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image, quality))).convert("RGB")


def cut(image: Image.Image, *shares: float) -> Image.Image:
    left, top, right, bottom = shares
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.crop(tuple(round(edge) for edge in box))


def copies(thumbnails: np.ndarray, **settings) -> list[search.BlockMatches]:
    return list(search.copies(len(thumbnails), lambda rows: thumbnails[rows], **settings))


def pairs(blocks: list[search.BlockMatches]) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for block in blocks for pair in block.pairs().tolist()}


def test_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    for seed in range(20):
        small = thumbnail(random_image(seed))
        half = small.astype(float).reshape(32, 2, 32, 2).mean(axis=(1, 3))
        coefficients = dctn(half)
        order = sorted((u + v, u, v) for u in range(16) for v in range(16))[1:65]
        bits = "".join(str(int(coefficients[u, v] > 0)) for _, u, v in order)
        assert perceptual_hash(small) == int(bits, 2)


def test_signs_are_those_of_a_dct_of_the_turned_image() -> None:
    """The pixels are turned and transformed here; the package only permutes coefficients."""
    thumbnails = np.stack([thumbnail(random_image(seed)) for seed in range(12)])
    wanted = [(u, v) for u in range(24) for v in range(24) if 6 <= u + v <= 26]
    upright = signatures.signatures(thumbnails, 0, every_framing=False)
    assert sorted(upright.image) == list(range(12))
    for row, turn in enumerate(upright.turn):
        turned = signatures.turned(thumbnails[upright.image[row]][None].astype(float), turn)[0]
        fine = dctn(np.kron(turned, np.ones((8, 8))), norm="ortho")  # pixels are areas
        bits = np.array([fine[frequency] for frequency in wanted])
        signs = np.unpackbits(upright.signs[row : row + 1].view(np.uint8))[: len(wanted)]
        clear = np.abs(bits) > 0.01 * np.abs(bits).max()
        assert ((bits > 0) == signs.astype(bool))[clear].all()


def test_an_image_has_one_signature_whichever_way_it_is_turned() -> None:
    thumbnails = np.stack([thumbnail(random_image(seed)) for seed in range(30)])
    upright = signatures.signatures(thumbnails, 0, every_framing=False)
    signs = dict(zip(upright.image.tolist(), upright.signs.tolist(), strict=True))
    for turn in range(8):
        turned = signatures.signatures(signatures.turned(thumbnails, turn), 0, every_framing=False)
        for name, other in zip(turned.image.tolist(), turned.signs.tolist(), strict=True):
            differing = sum((a ^ b).bit_count() for a, b in zip(signs[name], other, strict=True))
            assert differing <= 2  # coefficients that are 0 but for rounding


def test_plain_images_are_not_copies_of_each_other() -> None:
    plain = np.stack([np.full((SIDE, SIDE), value, dtype=np.uint8) for value in (0, 90, 90)])
    assert perceptual_hash(plain[0]) == perceptual_hash(plain[1]) == 0
    assert verify.correlation(plain[:1], plain[1:2]).tolist() == [0.0]
    assert not pairs(copies(plain))
    assert not pairs(copies(plain[:0]))
    assert search.equal_pairs(["a", "b", "a", "a"]) == [(0, 2), (0, 3)]


def random_signatures(count: int, keys: int) -> signatures.Signatures:
    """Signatures of random images, every third of which almost equals the one before it."""
    random = np.random.default_rng(count)
    signs = random.integers(0, 2**64, (count, signatures.WORDS), dtype=np.uint64)
    signs[2::3] = signs[1::3][: len(signs[2::3])]
    signs[2::6, 0] ^= np.uint64(0b1011)
    few = random.integers(0, keys, (count, signatures.KEYS)).astype(np.uint32)
    zero = np.zeros(count, dtype=np.uint8)
    return signatures.Signatures(np.arange(count), zero, zero, signs, few)


@pytest.mark.parametrize("expanded", [7, 1 << 14])
@pytest.mark.parametrize("maximum", [0.0, 0.02, 0.51])
def test_the_index_equals_comparing_all_with_all(
    maximum: float, expanded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsh, "_EXPANDED", expanded)
    indexed = random_signatures(240, 2000)
    close = lsh.Index(indexed).close(indexed, maximum)
    expected = set()
    for a in range(240):
        first = min(np.nonzero((indexed.signs == indexed.signs[a]).all(axis=1))[0])
        for b in range(240):
            differing = int(np.bitwise_count(indexed.signs[a] ^ indexed.signs[b]).sum())
            share_a_key = (indexed.keys[a] == indexed.keys[b]).any()
            if a == first and a != b and share_a_key and differing <= maximum * signatures.SIGNS:
                expected.add((a, b, differing))
    assert set(zip(*close.pairs.T.tolist(), close.distances.tolist(), strict=True)) == expected
    assert len(close.pairs) == len(expected) > 0


CHANGES = {
    "recompressed": lambda image: reopened(image, 50),
    "small": lambda image: reopened(image.resize((128, 128), LANCZOS), 75),
    "squashed": lambda image: image.resize((512, 300), Image.Resampling.BICUBIC),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.1))),
    "redder": lambda image: image.convert("RGB", (1.1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0.85, 0)),
    "centre": lambda image: cut(image, 0.1, 0.1, 0.1, 0.1),
    "uneven": lambda image: cut(image, 0.04, 0.01, 0.02, 0.05),
    "turned": lambda image: image.transpose(T.ROTATE_90),
    "mirrored": lambda image: reopened(image.transpose(T.FLIP_LEFT_RIGHT), 75),
    "all": lambda image: reopened(
        cut(image, 0.05, 0.05, 0.05, 0.05).resize((128, 128), LANCZOS).transpose(T.TRANSVERSE), 50
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_others_are_not(change: str) -> None:
    originals = [random_image(seed, 200, 180) for seed in range(30)]
    changed = [CHANGES[change](image) for image in originals]
    joined = pairs(copies(np.stack([thumbnail(image) for image in originals + changed])))
    assert joined <= {(item, item + 30) for item in range(30)}
    assert len(joined) >= (27 if change == "uneven" else 30)


def test_two_images_are_enough() -> None:
    image = thumbnail(random_image(4))
    assert pairs(copies(np.stack([image, image[::-1].T]))) == {(0, 1)}
    assert not pairs(copies(np.stack([image, thumbnail(random_image(5))])))
    assert not pairs(copies(image[None]))


def test_neither_threads_nor_blocks_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [random_image(seed, 200, 180) for seed in range(20)]
    turned = [image.transpose(T.ROTATE_270) for image in images]
    thumbnails = np.stack([thumbnail(image) for image in images + turned])
    one_block = copies(thumbnails, workers=1)
    monkeypatch.setattr(search, "BLOCK", 7)
    one_thread, threads = copies(thumbnails, workers=1), copies(thumbnails, workers=3)
    for a, b in zip(one_thread, threads, strict=True):
        assert np.array_equal(a.candidates.pairs, b.candidates.pairs)
        assert np.array_equal(a.scores, b.scores)
    assert pairs(one_block) == pairs(one_thread) == {(item, item + 20) for item in range(20)}
    assert sum(block.images for block in one_thread) == 40


def test_many_equal_images_do_not_square_the_work() -> None:
    blocks = copies(np.stack([thumbnail(random_image(1))] * 500 + [thumbnail(random_image(2))]))
    assert sum(len(block.scores) for block in blocks) < 1000
    assert {second for _, second in pairs(blocks)} == set(range(1, 500))
