from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np

from dermaflux.core.hashing import folder_digest, rank, sha256


def test_names_and_contents_decide_and_the_path_does_not(tmp_path: Path) -> None:
    first = tmp_path / "first"
    (first / "sub").mkdir(parents=True)
    (first / "sub" / "a.bin").write_bytes(b"weights")
    digest = folder_digest(first)
    shutil.copytree(first, tmp_path / "second")
    assert folder_digest(tmp_path / "second") == digest
    (tmp_path / "second" / "sub" / "a.bin").rename(tmp_path / "second" / "sub" / "b.bin")
    assert folder_digest(tmp_path / "second") != digest
    (first / "sub" / "a.bin").write_bytes(b"others")
    assert folder_digest(first) != digest


def test_sha256_is_that_of_the_standard() -> None:
    # FIPS 180-4, the example of one block.
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_ranks_are_fixed_and_order_names_at_random() -> None:
    assert rank(3, "split", "isic/7") == hashlib.sha256(b"3/split/isic/7").digest()
    names = [f"isic/{number:04d}" for number in range(2000)]
    orders = [sorted(names, key=lambda name, seed=seed: rank(seed, name)) for seed in (0, 1)]
    for order in orders:
        positions = [order.index(name) for name in names]
        # Independent of the name's number and of the other seed: |r| of 2,000 pairs is below 0.1.
        assert abs(np.corrcoef(positions, np.arange(2000))[0, 1]) < 0.1
    assert sum(a == b for a, b in zip(*orders, strict=True)) < 10
