from __future__ import annotations

import shutil
from pathlib import Path

from dermaflux.core.hashing import folder_digest


def test_names_and_contents_decide_and_the_place_does_not(tmp_path: Path) -> None:
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
