"""How a photograph was held: the orientation that EXIF or XMP metadata states. Pure, no Pillow.

One number is read from the metadata and nothing else is parsed: entries of a hostile block can
point to the same megabytes thousands of times, which makes a general parser copy them as often.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

_TAG = 0x0112
_HEADER = re.compile(rb"(?:Exif\0\0){0,2}(II\*\0|MM\0\*|II\0\*|MM\*\0)", re.DOTALL)
_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Integer types of TIFF 6.0, section 2, and EXIF 2.3 that are at least 16 bits wide."""
_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([1-8])(?![0-9])""")


def orientation(info: Mapping[str | tuple[int, int], Any]) -> int:
    """EXIF orientation, 1 to 8, of an image's metadata as Pillow holds it in `Image.info`.

    1 is upright, 5 and above swap width and height. It is 1, too, where the block is damaged or
    the value is anything but one integer from 1 to 8, as web browsers read it. XMP counts where
    EXIF says nothing.
    """
    block = info.get("exif")
    if block is None:
        block = _hexadecimal(info.get("Raw profile type exif"))
    stated = _stated(block) if isinstance(block, bytes) else None
    if stated is None:
        found = _XMP.search(_xmp(info))
        stated = int(found[1]) if found else 1
    return stated if 1 <= stated <= 8 else 1


def _stated(block: bytes) -> int | None:
    """The value in an EXIF block; None where it has none, 0 where it is not one integer."""
    header = _HEADER.match(block)
    if header is None:
        return None
    tiff = block[header.start(1) :]
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for number in range(entries):
            at = directory + 2 + 12 * number
            tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, at)
            if tag == _TAG:
                code = _INTEGERS.get(kind)
                if code is None or count != 1:
                    return 0
                return int(struct.unpack_from(f"{order}{code}", tiff, at + 8)[0])
    except struct.error:  # the block ends early
        pass
    return None


def _hexadecimal(text: object) -> bytes | None:
    """The EXIF block that ImageMagick writes into PNG: after three lines, in hexadecimal."""
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None


def _xmp(info: Mapping[str | tuple[int, int], Any]) -> bytes:
    text = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    return text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
