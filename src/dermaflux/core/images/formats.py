"""What the first bytes of a file say it is; file names are ignored.

JPEG (with JFIF, EXIF or several pictures, MPO) and PNG are decoded. Whatever else people keep
beside their photographs is named, with the command that converts it: docs/data.md says why it is
not decoded here.
"""

from __future__ import annotations

import re
from typing import Literal

from dermaflux.errors import quoted


class ImageError(Exception):
    """Why the bytes of a file are not a usable image."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        """`damaged`, `format` or `too-large`."""
        self.reason = reason
        """One sentence with the limit and the fix."""


_MAGICK = "convert it to PNG, for example with `magick photo.{0} photo.png`"
_RAW = "develop it and export it as JPEG or PNG"
_DICOM = "convert it to PNG, for example with `dcm2img +on photo.dcm photo.png` of DCMTK"
_JPEG_2000 = "convert it to PNG, for example with `opj_decompress -i photo.jp2 -o photo.png`"
_JPEG_XL = "convert it to PNG, for example with `djxl photo.jxl photo.png`"
_HEIF = "convert it to PNG, for example with `heif-convert photo.heic photo.png`"
_AVIF = "convert it to PNG, for example with `avifdec photo.avif photo.png`"
_UNPACK = "unpack it"
_STILL = "export single pictures of it as PNG"

_Named = tuple[tuple[bytes, str, str], ...]
"""First bytes, name, and what to do; the first that fits counts."""

_IMAGES: _Named = (
    (b"GIF8", "GIF", _MAGICK.format("gif")),
    (b"II*\0\x10\0\0\0CR", "a Canon raw file (CR2)", _RAW),
    (b"II*\0", "TIFF or a camera's raw file (DNG, NEF, ARW)", _MAGICK.format("tif")),
    (b"MM\0*", "TIFF or a camera's raw file (DNG, NEF, ARW)", _MAGICK.format("tif")),
    (b"II+\0", "TIFF", _MAGICK.format("tif")),
    (b"MM\0+", "TIFF", _MAGICK.format("tif")),
    (b"II\xbc\x01", "JPEG XR", "convert it to PNG, for example with `JxrDecApp`"),
    (b"IIRO", "an Olympus raw file (ORF)", _RAW),
    (b"IIRS", "an Olympus raw file (ORF)", _RAW),
    (b"MMOR", "an Olympus raw file (ORF)", _RAW),
    (b"IIU\0", "a Panasonic raw file (RW2)", _RAW),
    (b"FUJIFILMCCD-RAW", "a Fujifilm raw file (RAF)", _RAW),
    (b"FOVb", "a Sigma raw file (X3F)", _RAW),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _JPEG_2000),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _JPEG_2000),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", _JPEG_XL),
    (b"\xff\x0a", "JPEG XL", _JPEG_XL),
    (b"\xff\xd8\xff\xf7", "JPEG-LS", _MAGICK.format("jls")),
    (b"8BPS", "Photoshop (PSD)", _MAGICK.format("psd[0]")),
    (b"gimp xcf", "GIMP (XCF)", _MAGICK.format("xcf")),
    (b"\0\0\1\0", "an icon (ICO)", _MAGICK.format("ico")),
    (b"\x76\x2f\x31\x01", "OpenEXR", _MAGICK.format("exr")),
    (b"SIMPLE  =", "FITS", _MAGICK.format("fits")),
    (b"DDS ", "DDS", _MAGICK.format("dds")),
    (b"qoif", "QOI", _MAGICK.format("qoi")),
)
_OTHERS: _Named = (
    (b"%PDF", "PDF", "take the pictures out of it, for example with `pdfimages -all x.pdf x`"),
    (b"%!PS", "PostScript", _MAGICK.format("eps")),
    (b"\xc5\xd0\xd3\xc6", "PostScript", _MAGICK.format("eps")),
    (b"\x8aMNG", "MNG", _STILL),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _STILL),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "replace it"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "an Office document", "export its pictures as JPEG or PNG"),
    (b"\x89HDF\r\n", "HDF5", "export its pictures as JPEG or PNG"),
    (b"\x93NUMPY", "a NumPy array", "save its picture as PNG"),
    (b"PAR1", "a Parquet table", "export its pictures as JPEG or PNG"),
)

_BRANDS = {
    b"avif": ("AVIF", _AVIF),
    b"avis": ("AVIF", _AVIF),
    **{
        brand: ("HEIC", _HEIF)
        for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
    },
    b"mif1": ("HEIF", _HEIF),
    b"msf1": ("HEIF", _HEIF),
    b"jp2 ": ("JPEG 2000", _JPEG_2000),
    b"jpx ": ("JPEG 2000", _JPEG_2000),
    b"crx ": ("a Canon raw file (CR3)", _RAW),
}
"""Brands of the ISO base media format (ISO/IEC 14496-12), the special ones before the general."""

_WEB_PAGE = re.compile(rb"<(!doctype html|html|head|body|meta|script|title|!--)", re.IGNORECASE)
_PAINT = re.compile(rb"P[1-7fF][\s#]")
# Without its preamble it begins with an element of group 2 or 8, in little endian.
_BARE_DICOM = re.compile(rb"[\x02\x08]\0[\0-\x20]\0[A-Z]{2}")
_POINTERS = (b"version https://git-lfs.github.com/spec", b"version http://git-media.io")
_AGAIN = "download it again"
_START = 1024  # bytes within which text says what it is
_QUOTED = 60  # bytes of a text that is not an image, to recognise a server's message by


def kind(content: bytes) -> Literal["JPEG", "PNG"]:
    """The format of the bytes of one file; raises `ImageError` for one that is not decoded."""
    if content.startswith(b"\xff\xd8\xff") and not content.startswith(b"\xff\xd8\xff\xf7"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    raise _refusal(content)


def _refusal(content: bytes) -> ImageError:
    if not content:
        return ImageError("damaged", f"the file is empty; {_AGAIN}")
    if not content.strip(b"\0"):
        return ImageError("damaged", f"the file holds zeros only; {_AGAIN}")
    named = _other_image(content) or _no_image(content)
    if named is not None:
        return ImageError("format", f"the file is {named[0]}; {named[1]}")
    if content.startswith(b"\0\x05\x16\x07"):
        reason = "the file is what macOS keeps beside a photograph (AppleDouble), not an image"
        return ImageError("format", f"{reason}; delete it")
    if content.startswith(b"\x89PNG"):
        reason = "the PNG was changed by a transfer as text"
        return ImageError("damaged", f"{reason}; {_AGAIN}")
    return _text(content) or ImageError(
        "damaged", "the file is neither JPEG nor PNG; convert or replace it"
    )


def is_image(head: bytes) -> bool:
    """Whether a file whose first 256 bytes are `head` is a still image, decoded here or not."""
    decoded = head.startswith((b"\xff\xd8\xff", b"\x89PNG"))
    return decoded or _other_image(head) is not None


def _other_image(content: bytes) -> tuple[str, str] | None:
    """Name of an image format that is not decoded, and what to do."""
    if named := _first_bytes(content, _IMAGES):
        return named
    if content[128:132] == b"DICM" or _BARE_DICOM.match(content):
        return "DICOM", _DICOM
    if content[4:8] == b"ftyp":
        box = content[8 : min(max(int.from_bytes(content[:4], "big"), 16), 256)]
        brands = [box[:4], *(box[start : start + 4] for start in range(8, len(box), 4))]
        return next((named for brand, named in _BRANDS.items() if brand in brands), None)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WebP", "convert it to PNG, for example with `dwebp photo.webp -o photo.png`"
    # Text may begin with BM, too: the header's size follows at byte 14.
    if content.startswith(b"BM") and content[14:18] in [
        bytes([size, 0, 0, 0]) for size in (12, 16, 40, 52, 56, 64, 108, 124)
    ]:
        return "BMP", _MAGICK.format("bmp")
    return None


def _no_image(content: bytes) -> tuple[str, str] | None:
    """Name of a format that holds no still image or several, and what to do."""
    if content[4:8] == b"ftyp":
        return "a video (MP4 or QuickTime)", _STILL
    if content.startswith(b"RIFF"):
        return "sound or video (RIFF)", _STILL
    if _PAINT.match(content):
        return "a portable anymap (PPM)", _MAGICK.format("ppm")
    return _first_bytes(content, _OTHERS)


def _first_bytes(content: bytes, formats: _Named) -> tuple[str, str] | None:
    return next(((name, fix) for magic, name, fix in formats if content.startswith(magic)), None)


def _text(content: bytes) -> ImageError | None:
    """What a text is that lies in an image's place; None for bytes that are no text."""
    start = content[:_START].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(_POINTERS):
        reason = "the file is a Git LFS pointer, not the image; run `git lfs pull`"
    elif b"/annex/objects/" in start[:200]:
        reason = "the file is a git-annex pointer, not the image; run `git annex get`"
    elif b"<svg" in start.lower():
        return ImageError("format", "the file is SVG, a drawing; replace it by a photograph")
    elif _WEB_PAGE.match(start):
        reason = f"the file is a web page, so the download failed; {_AGAIN}"
    elif start.startswith(b"data:image/") or start.startswith((b"/9j/", b"iVBORw0KGgo")):
        reason = "the file is an image in base64; decode it, for example with `base64 -d`"
    elif _is_text(start):
        first = quoted(start[:_QUOTED].decode("utf-8", "ignore"))
        reason = f"the file is text, not an image ({first}); {_AGAIN}"
    else:
        return None
    return ImageError("damaged", reason)


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two where the examined part ends.
        text = start[: error.start].decode("utf-8") if error.start > len(start) - 4 else ""
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
