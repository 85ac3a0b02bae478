"""One caption as a file holds it, before it is known which image it belongs to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError, quoted


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of a file of captions."""

    where: str
    """Its place in the file: `line 7`, `record 7`."""
    fields: Mapping[str, Any]
    """By name, in the file's order."""
    misfit: tuple[int, int] | None = None
    """Of a row of a table, how many fields it and its header have, where these differ."""


WHOLE_FILE = "its record"
"""The place of a record that is alone in its file."""


class NoCaptionsError(InputError):
    """A file can be read but holds no captions."""


def decoded(content: bytes, file: Path) -> tuple[str, str | None]:
    """Text of a file, and the name of its encoding where that is a guess.

    UTF-8, UTF-16 or UTF-32 with or without a byte order mark; otherwise Windows-1252, as long as
    few characters lie outside ASCII: Chinese, Japanese and Cyrillic code pages would be read as
    wrong letters. Raises `InputError` for any other encoding.
    """
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding), None
    except UnicodeDecodeError:
        pass
    foreign = sum(byte > 0x7F for byte in content)
    try:
        if foreign * 8 > len(content) or b"\0" in content:
            raise ValueError
        return content.decode("cp1252"), "Windows-1252"
    except ValueError:
        raise InputError(
            f"captions file {quoted(str(file))} is text in neither UTF-8, UTF-16 nor Windows-1252; "
            "save it again as UTF-8"
        ) from None


def one_line(value: Any) -> str:
    """A text on one line, as generators read it; several texts are joined; "" for no text."""
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    return " ".join(value.split()) if isinstance(value, str) else ""


def lost_in(value: Any) -> str | None:
    """What of a caption is no text that `one_line` keeps and a table can store; None for nothing.

    No value at all, null or NaN, is an empty caption.
    """
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            if re.search("[\ud800-\udfff]", part):  # JSON can write them, UTF-8 can not
                return f"half a character ({quoted(part)})"
        elif not (part is None or (isinstance(part, float) and math.isnan(part))):
            return quoted(part)
    return None
