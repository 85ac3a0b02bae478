"""Images of the report as data URIs: files as they are, and montages of a table's images (JPEG).

Nothing here depends on time, machine or a random number, so equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.core import table
from dermaflux.core.files import reading
from dermaflux.core.hashing import rank
from dermaflux.core.images import decode_image

if TYPE_CHECKING:
    from PIL.Image import Image

_TILE = 128
_MAXIMUM_BYTES = 400_000
_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


def data_uri(content: bytes, suffix: str) -> str:
    """Bytes of an image file as the value of a `src` attribute; `suffix` is .png, .jpg or .svg."""
    return f"data:{_MIME[suffix]};base64,{base64.b64encode(content).decode()}"


def file_uri(path: Path, width: int = 1100) -> str | None:
    """An image file; as JPEG of at most `width` pixels when it is large. None without the file."""
    from PIL.Image import Resampling

    if not path.is_file():
        return None
    content = path.read_bytes()
    with reading(path, "`dvc repro`"):
        image = decode_image(content)
    if image.width <= width and len(content) < _MAXIMUM_BYTES:
        return data_uri(content, path.suffix)
    if image.width > width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Resampling.LANCZOS)
    return jpeg_uri(image)


def jpeg_uri(image: Image) -> str:
    """An image as a JPEG in the value of a `src` attribute."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85, subsampling=0)
    return data_uri(file.getvalue(), ".jpg")


def sample(image_ids: Sequence[str], count: int) -> list[str]:
    """The `count` ids of smallest SHA-256: a fixed, arbitrary choice that favours nothing."""
    return sorted(image_ids, key=rank)[:count]


def montage(folder: Path, image_ids: Sequence[str], columns: int) -> str | None:
    """Images of a table folder as one image of 128-pixel tiles; None without images."""
    from PIL import Image

    if not image_ids:
        return None
    tiles = table.pixels(folder, image_ids, _TILE)
    rows = -(-len(image_ids) // columns)
    grid = Image.new("RGB", (columns * _TILE, rows * _TILE), "white")
    for index, name in enumerate(image_ids):
        row, column = divmod(index, columns)
        grid.paste(Image.fromarray(tiles[name]), (column * _TILE, row * _TILE))
    return jpeg_uri(grid)
