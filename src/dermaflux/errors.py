"""The one exception a user's mistake raises, and how its message quotes what it was given."""

from __future__ import annotations

import reprlib

_MAXIMUM_CHARACTERS = 200
_LONGEST_SENTENCE = 1000


class InputError(Exception):
    """Bad input. The message is one sentence holding the value, the limit and the fix."""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = _MAXIMUM_CHARACTERS
_short.maxlevel = 3


def quoted(value: object) -> str:
    """A value from outside as an error message quotes it: `repr`, at most 200 characters.

    Control characters, terminal escapes and line breaks are shown as escapes, so that a file name
    or a table's cell can neither move the cursor nor hide the rest of the sentence. Nested values
    are shown three levels deep, so that one which repeats itself a billion times costs nothing.
    """
    try:
        text = _short.repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        return f"a value of type {type(value).__name__}"
    half = (_MAXIMUM_CHARACTERS - 3) // 2
    return text if len(text) <= _MAXIMUM_CHARACTERS else f"{text[:half]}...{text[-half:]}"


def one_line(text: object, most: int = _LONGEST_SENTENCE) -> str:
    """Text as one printable line of at most `most` characters, its middle left out.

    Runs of white space become one space, all else that does not print its escape, such as `\\x1b`.
    """
    line = " ".join(str(text).split())
    if len(line) > most:
        half = (most - 5) // 2
        line = f"{line[:half]} ... {line[-half:]}"
    if line.isprintable():
        return line
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return line if len(line) <= most else one_line(line, most)
