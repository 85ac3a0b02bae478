"""How tables write the names of image files. Pure.

With or without suffix, as paths of another machine, in another Unicode form or letter case, or as a
spreadsheet has rewritten them.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Container
from urllib.parse import unquote, urlsplit

COMMON_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
)
"""Lower-case suffixes that nobody uses as a part of a name."""

READABLE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png"))
"""Lower-case suffixes of JPEG and PNG. Cameras and scanners store other formats beside these."""

_OTHER_SUFFIXES = (
    "jif pjpeg pjp apng dib heic heics heif heifs hif avif avifs dcm dicom dic jp2 j2k jpf jpx jpm "
    "j2c jpc jxl psd svg eps tga pcx ppm pgm pbm pnm ico raw cr2 cr3 crw nef nrw arw srf sr2 dng "
    "orf rw2 raf pef srw x3f"
)

IMAGE_SUFFIXES = COMMON_SUFFIXES | {f".{suffix}" for suffix in _OTHER_SUFFIXES.split()}
"""Lower-case suffixes that make a file an image to be accounted for, readable or not."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_AROUND = " \t\r\n\u00a0\ufeff\u200b'\"`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
"""Blanks, marks without width, and quotes that may surround a name."""
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?[eE][+-]?\d+")
_NUMBER = re.compile(r"(\d+)(?:[.,]0+)?", re.ASCII)

Parts = tuple[str, ...]
Reading = Callable[[str], str | None]


def without_suffix(name: str, suffixes: Container[str] = IMAGE_SUFFIXES) -> str:
    """An image's name or path without its suffix, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def suffix_of(name: str) -> str:
    """The lower-case suffix of an image's name; empty where it has none."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix in IMAGE_SUFFIXES else ""


def row_name(value: str, suffixes: Container[str] = COMMON_SUFFIXES) -> str:
    """The name in a CSV file's cell, as a file's path below its folder has it.

    Of the rarer suffixes only those in `suffixes` end a name: ``scan.raw`` may be one.
    """
    return without_suffix(value.replace("\\", "/").removeprefix("./"), suffixes)


def is_rounded(value: str) -> bool:
    """Whether a spreadsheet has replaced a long number by its first digits, as in 1.23E+12."""
    return _ROUNDED.fullmatch(row_name(value.strip(_AROUND))) is not None


def parts(name: str) -> Parts:
    """Folders and name, without the marks, addresses and steps that say nothing about a file."""
    name = name.strip(_AROUND)
    if _URL.match(name):
        try:
            address = urlsplit(name)
        except ValueError:  # brackets that are no IPv6 address
            return (name,)
        name = unquote(f"{address.netloc}{address.path}")
    steps = [sys.intern(step.strip()) for step in name.replace("\\", "/").split("/")]
    return tuple(step for step in steps if step not in ("", ".", ".."))


def plain(name: str) -> str:
    """A name without its Unicode form, letter case, escapes, wide blanks and image suffixes."""
    name = " ".join(composed(unquote(name)).casefold().split())
    while (shorter := without_suffix(name)) != name:
        name = shorter
    return name


def image_key(value: str) -> str:
    """What two CSV files of one dataset have in common where they name one image."""
    path = parts(value)
    return plain(path[-1]) if path else ""


def composed(name: str) -> str:
    """A name in the Unicode form in which most systems write it (NFC)."""
    return unicodedata.normalize("NFC", name)


def _number(name: str) -> str | None:
    """The digits of a whole number that a table may have written as ``101.0``."""
    number = _NUMBER.fullmatch(plain(name))
    return number.group(1) if number else None


def without_zeros(name: str) -> str | None:
    """The same without leading zeros, which spreadsheets drop."""
    number = _number(name)
    return None if number is None else number.lstrip("0") or "0"


def letters_and_digits(name: str) -> str:
    """What names have in common that differ in case, blanks and punctuation only."""
    return re.sub(r"[\W_]+", "", name.casefold())


READINGS: tuple[Reading, ...] = (
    str,
    composed,
    plain,
    _number,
    without_zeros,
)
"""How a file name may be written in a CSV file, strictest first; None where it cannot be."""
