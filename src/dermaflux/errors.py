"""The one exception a user's mistake raises, and how its message quotes what it was given."""

from __future__ import annotations

import os
import re
import reprlib
from urllib.parse import unquote

_MAXIMUM_CHARACTERS = 200
_HIDDEN = "***"
_USER_INFO = re.compile(
    r"(?<=://)(?:[^\s/?#'\"<>]{1,500}"  # user, user:password; the last @ before the path ends it
    # A password with an unescaped / ? or #; a port is no password.
    r"|[^\s/?#:@'\"<>]{0,500}:(?!\d{1,5}(?:[/?#]|$))[^\s'\"<>]{0,500})@"
)
_NAMED_SECRET = re.compile(
    r"(?i)((?:\b|_)(?:password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|signature"
    r"|credential|odbc_connect)|[?&;](?:key|auth|code|sig))(=|%3d)[^\s&;,'\")]+"
)
_AUTHORIZATION = re.compile(
    r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\"]+"
)
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:PASSWORD|TOKEN|SECRET|KEY)$")
_SHORTEST_SECRET = 6  # characters: a shorter value would also be found inside ordinary words


def redacted(text: str) -> str:
    """A text without passwords and keys, for messages, logs, reports, tags and parameters.

    Hidden are the user info of every address, parameters such as `token=` and `password=`, and,
    wherever they occur, the values of environment variables that hold secrets: those whose names
    end in PASSWORD, TOKEN, SECRET or KEY, and passwords in addresses such as MLFLOW_TRACKING_URI.
    """
    for secret in _secrets():
        text = text.replace(secret, _HIDDEN)
    text = _USER_INFO.sub(f"{_HIDDEN}@", text)
    text = _NAMED_SECRET.sub(rf"\1\2{_HIDDEN}", text)
    return _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)


def _secrets() -> list[str]:
    """Secrets of the environment as they are written there and decoded, the longest first."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            found.add(value)
        for user_info in _USER_INFO.findall(value) if "@" in value else ():
            _, _, password = user_info.removesuffix("@").partition(":")
            found |= {password, unquote(password)}
    return sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)


class InputError(Exception):
    """Bad input. The message is one sentence holding the value, the limit and the fix.

    It is `redacted`, since the value may be an address with a password.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class _Short(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        # Before it is shortened: half a password is a password, too.
        return super().repr_str(redacted(x), level)


_short = _Short()
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
