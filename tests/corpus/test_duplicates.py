from __future__ import annotations

import io

import numpy as np
import pytest
from layouts import jpeg, picture
from PIL import Image
from scipy.fft import dctn

from dermaflux.corpus.decoding.perceptual_hash import SIDE, perceptual_hash
from dermaflux.corpus.duplicates import lsh, search, signatures, verify

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


def found(pictures: np.ndarray, **settings) -> list[search.Found]:
    return list(search.copies(len(pictures), lambda chosen: pictures[chosen], **settings))


def pairs(blocks: list[search.Found]) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for block in blocks for pair in block.pairs().tolist()}


def test_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    for seed in range(20):
        small = thumbnail(picture(seed))
        half = small.astype(float).reshape(32, 2, 32, 2).mean(axis=(1, 3))
        coefficients = dctn(half)
        order = sorted((u + v, u, v) for u in range(16) for v in range(16))[1:65]
        bits = "".join(str(int(coefficients[u, v] > 0)) for _, u, v in order)
        assert perceptual_hash(small) == int(bits, 2)


def test_signs_are_those_of_a_dct_of_the_turned_picture() -> None:
    """The pixels are turned and transformed here; the package only permutes coefficients."""
    pictures = np.stack([thumbnail(picture(seed)) for seed in range(12)])
    wanted = [(u, v) for u in range(24) for v in range(24) if 6 <= u + v <= 26]
    found = signatures.signatures(pictures, 0, every_framing=False)
    assert sorted(found.picture) == list(range(12))
    for row, turn in enumerate(found.turn):
        turned = signatures.turned(pictures[found.picture[row]][None].astype(float), turn)[0]
        fine = dctn(np.kron(turned, np.ones((8, 8))), norm="ortho")  # pixels are areas
        bits = np.array([fine[place] for place in wanted])
        signs = np.unpackbits(found.signs[row : row + 1].view(np.uint8))[: len(wanted)]
        clear = np.abs(bits) > 0.01 * np.abs(bits).max()
        assert ((bits > 0) == signs.astype(bool))[clear].all()


def test_a_picture_has_one_signature_whichever_way_it_is_turned() -> None:
    pictures = np.stack([thumbnail(picture(seed)) for seed in range(30)])
    upright = signatures.signatures(pictures, 0, every_framing=False)
    signs = dict(zip(upright.picture.tolist(), upright.signs.tolist(), strict=True))
    for turn in range(8):
        turned = signatures.signatures(signatures.turned(pictures, turn), 0, every_framing=False)
        for name, other in zip(turned.picture.tolist(), turned.signs.tolist(), strict=True):
            differing = sum((a ^ b).bit_count() for a, b in zip(signs[name], other, strict=True))
            assert differing <= 2  # coefficients that are 0 but for rounding


def test_plain_pictures_are_no_copies_of_each_other() -> None:
    plain = np.stack([np.full((SIDE, SIDE), value, dtype=np.uint8) for value in (0, 90, 90)])
    assert perceptual_hash(plain[0]) == perceptual_hash(plain[1]) == 0
    assert verify.correlation(plain[:1], plain[1:2]).tolist() == [0.0]
    assert not pairs(found(plain))
    assert not pairs(found(plain[:0]))
    assert search.equal_pairs(["a", "b", "a", "a"]) == [(0, 2), (0, 3)]


def random_signatures(count: int, keys: int) -> signatures.Signatures:
    """Signatures of random pictures, of which every third almost equals the one before."""
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
    stored = random_signatures(240, 2000)
    close = lsh.Index(stored).close(stored, maximum)
    expected = set()
    for one in range(240):
        first = min(np.nonzero((stored.signs == stored.signs[one]).all(axis=1))[0])
        for two in range(240):
            differing = int(np.bitwise_count(stored.signs[one] ^ stored.signs[two]).sum())
            meets = (stored.keys[one] == stored.keys[two]).any()
            if one == first and one != two and meets and differing <= maximum * signatures.SIGNS:
                expected.add((one, two, differing))
    got = zip(*close.pairs.T.tolist(), close.distances.tolist(), strict=True)
    assert set(got) == expected
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
    originals = [picture(seed, 200, 180) for seed in range(30)]
    copies = [CHANGES[change](image) for image in originals]
    pictures = np.stack([thumbnail(image) for image in originals + copies])
    joined = pairs(found(pictures))
    assert joined <= {(item, item + 30) for item in range(30)}
    assert len(joined) >= (27 if change == "uneven" else 30)


def test_two_pictures_are_enough() -> None:
    one = thumbnail(picture(4))
    assert pairs(found(np.stack([one, one[::-1].T]))) == {(0, 1)}
    assert not pairs(found(np.stack([one, thumbnail(picture(5))])))
    assert not pairs(found(one[None]))


def test_neither_threads_nor_blocks_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(seed, 200, 180) for seed in range(20)]
    turned = [image.transpose(T.ROTATE_270) for image in images]
    pictures = np.stack([thumbnail(image) for image in images + turned])
    one = found(pictures, workers=1)
    monkeypatch.setattr(search, "BLOCK", 7)
    few, many = found(pictures, workers=1), found(pictures, workers=3)
    for a, b in zip(few, many, strict=True):
        assert np.array_equal(a.candidates.pairs, b.candidates.pairs)
        assert np.array_equal(a.scores, b.scores)
    assert pairs(one) == pairs(few) == {(item, item + 20) for item in range(20)}
    assert sum(block.looked_at for block in few) == 40


def test_many_equal_pictures_do_not_square_the_work() -> None:
    pictures = np.stack([thumbnail(picture(1))] * 500 + [thumbnail(picture(2))])
    blocks = found(pictures)
    assert sum(len(block.scores) for block in blocks) < 1000
    assert {two for _, two in pairs(blocks)} == set(range(1, 500))
