"""Images of the page: one row's bytes from its shard, a thumbnail of it, or why there is none.

Reads shards and, for what was left out, files of the data folder. Of a shard it reads the row group
of 100 that holds the row, and keeps the last ones, since a page shows neighbouring rows.
"""

from __future__ import annotations

import html
import io
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core.hashing import sha256
from dermaflux.core.images import ImageError, Limits, decode_image, upright
from dermaflux.errors import InputError, quoted
from dermaflux.params.load import read

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL, LARGEST_SIDE = 112, 1024
"""Longer sides in pixels, of an image in the table and of one that was left out on its own page."""
_QUARANTINED = Limits(pixels=100_000_000, seconds=10.0)
_KEPT_BYTES = 256_000_000
_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Place:
    """Where the pixels of a row are."""

    image_id: str | None
    file: str
    """A shard, relative to the working directory; else a file below the data folder."""
    row_group: int | None
    position: int | None


@dataclass(frozen=True)
class Picture:
    """What a browser is sent."""

    content: bytes
    content_type: str


_Stored = tuple[str, bytes, str | None]
"""image_id, bytes and sha256."""


class NoImage(Exception):
    """An image that cannot be shown; the message is one sentence."""


class Images:
    """Images by their places. Safe to use from several threads."""

    def __init__(self, data: Path) -> None:
        """`data`: the folder whose files the quarantine table names."""
        self._data = data.resolve()
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], list[_Stored]] = OrderedDict()

    def full(self, place: Place | None) -> Picture:
        """The stored file of a row; one that was left out is decoded and at most 1024 pixels wide.

        Raises `NoImage` when it is damaged or gone.
        """
        if place is not None and place.row_group is not None:
            content = self._stored(place)
            kind = next((kind for start, kind in _TYPES.items() if content.startswith(start)), None)
            if kind is None:
                raise NoImage(f"this image of {place.file} is neither JPEG nor PNG")
            return Picture(content, kind)
        return _jpeg(self._left_out(place), LARGEST_SIDE)

    def thumbnail(self, place: Place | None) -> Picture:
        """JPEG of at most 112 pixels a side, or a drawing that says why there is none."""
        try:
            if place is not None and place.row_group is not None:
                return _jpeg(_decoded(self._stored(place), place), THUMBNAIL)
            return _jpeg(self._left_out(place), THUMBNAIL)
        except NoImage as problem:
            return drawn(str(problem), THUMBNAIL)

    def provenance(self, place: Place) -> dict[str, Any]:
        """Every column of a row but its image. Raises `NoImage` when it cannot be read."""
        try:
            with pq.ParquetFile(place.file) as file:
                names = [name for name in file.schema_arrow.names if name != "image"]
                rows = file.read_row_group(place.row_group, columns=names)
                found: dict[str, Any] = rows.slice(place.position, 1).to_pylist()[0]
        except (OSError, pa.ArrowException, IndexError):
            raise _gone(place) from None
        if found["image_id"] != place.image_id:
            raise _gone(place)
        return found

    def _stored(self, place: Place) -> bytes:
        """Bytes of an image in a shard, which are those that its row's `sha256` names."""
        key = (place.file, int(place.row_group or 0))
        with self._lock:  # thumbnails of a page are asked for at once: one of them reads
            group = self._groups.pop(key, None) or _read_group(place)
            self._groups[key] = group
            while _size(self._groups.values()) > _KEPT_BYTES and len(self._groups) > 1:
                self._groups.popitem(last=False)
        if int(place.position or 0) >= len(group):
            raise _gone(place)
        image_id, content, digest = group[int(place.position or 0)]
        if image_id != place.image_id:
            raise _gone(place)
        if digest is not None and sha256(content) != digest:
            raise NoImage(f"this image of {place.file} has other bytes than its sha256 says")
        return content

    def _left_out(self, place: Place | None) -> Image.Image:
        if place is None:
            raise NoImage("the quarantine table names no file")
        path = (self._data / place.file).resolve()
        if not path.is_relative_to(self._data):
            raise NoImage(f"{quoted(place.file)} is not below the data folder")
        if not path.is_file():
            raise NoImage(f"{quoted(place.file)} is not a file of the data folder")
        try:
            return upright(path.read_bytes(), _QUARANTINED).image
        except OSError:
            raise NoImage(f"{quoted(place.file)} cannot be read") from None
        except ImageError as error:
            raise NoImage(error.reason) from None


def _gone(place: Place) -> NoImage:
    return NoImage(f"{place.file} changed or is damaged; start `dermaflux browse` again")


def _read_group(place: Place) -> list[_Stored]:
    names = ("image_id", "image.bytes", "sha256")
    try:
        with pq.ParquetFile(place.file) as file:
            rows = file.read_row_group(place.row_group, columns=list(names))
            images = [(image or {}).get("bytes") or b"" for image in rows["image"].to_pylist()]
            ids, digests = rows["image_id"].to_pylist(), rows["sha256"].to_pylist()
    except (OSError, pa.ArrowException, IndexError, KeyError):
        raise _gone(place) from None
    return list(zip(ids, images, digests, strict=True))


def _size(groups: Iterable[list[_Stored]]) -> int:
    return sum(len(content) for group in groups for _, content, _ in group)


def _decoded(content: bytes, place: Place) -> Image.Image:
    try:
        return decode_image(content)
    except (ImageError, OSError, ValueError):
        raise NoImage(f"this image of {place.file} is damaged") from None


def _jpeg(image: Image.Image, side: int) -> Picture:
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Picture(file.getvalue(), "image/jpeg")


def drawn(text: str, side: int) -> Picture:
    """A square drawing that says a sentence."""
    lines = textwrap.wrap(text, side // 7)
    spans = "".join(
        f'<tspan x="4" dy="1.2em">{html.escape(line)}</tspan>' for line in lines[: side // 12]
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}">'
        '<rect width="100%" height="100%" fill="#eee"/>'
        f'<text font-family="sans-serif" font-size="11" fill="#333">{spans}</text></svg>'
    )
    return Picture(svg.encode(), "image/svg+xml")


def data_folder() -> tuple[Path, str | None]:
    """The parameter `data`, and why it is a guess where params.yaml does not say it."""
    try:
        data = read().get("data")
        if isinstance(data, str):
            return Path(data), None
        problem = f"params.yaml names no data folder but {quoted(data)}; set data to its path"
    except InputError as error:
        problem = str(error)
    return Path("data"), f"Images that were left out are looked for in data/: {problem}"
