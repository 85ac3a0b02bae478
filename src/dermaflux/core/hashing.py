"""Content hashes, which identify cache entries, latents, captions and models."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(content: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def rank(*parts: object) -> bytes:
    """Sort key that looks random but depends on the parts alone: sha256 of "part/part/..."."""
    return hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()


def folder_digest(folder: Path) -> str:
    """SHA-256 hex digest over all file names and contents, whatever the folder's path."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
