"""The one exception a user's mistake raises, and how messages quote what they were given."""

from __future__ import annotations

import errno
import os
import re
import reprlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

_MAXIMUM_CHARACTERS = 200
_LONGEST_SENTENCE = 1000
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
_ADDRESS_VARIABLE = re.compile(r"(?i)(?:^|_)(?:URI|URL|DSN|PROXY)$")
_ADDRESS_USER_INFO = re.compile(
    r"(?s)[\s'\"]*(?!sqlite|file:)(?:[A-Za-z][\w+.-]*:?//?|[A-Za-z][\w+.-]*:(?=[^@]*:)|/*)(.+)@"
)
"""Of a variable that is an address as a whole: also with a blank or a quote in the password, and
where the scheme or a part of `://` was forgotten."""
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:PASSWORD|TOKEN|SECRET|KEY)$")
_SHORTEST_SECRET = 6  # characters: a shorter value would also be found inside ordinary words


def redacted(text: str) -> str:
    """A text without passwords and keys, for messages, logs, reports, tags and parameters.

    Hidden are the user info of every address, parameters such as `token=` and `password=`, and,
    wherever they occur, the values of environment variables that hold secrets: those whose names
    end in PASSWORD, TOKEN, SECRET or KEY, and passwords in addresses such as MLFLOW_TRACKING_URI.
    """
    for secret in _secrets():
        text = text.replace(secret, f"{_HIDDEN}@" if secret[-1] == "@" else _HIDDEN)
    text = _USER_INFO.sub(f"{_HIDDEN}@", text)
    text = _NAMED_SECRET.sub(rf"\1\2{_HIDDEN}", text)
    return _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)


def _secrets() -> list[str]:
    """Secrets of the environment as they are written there and decoded, the longest first."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            found.add(value)
        for user_info in _user_infos(name, value) if "@" in value else ():
            _, _, password = user_info.partition(":")
            found |= {password, unquote(password)}
            if password:  # with its @ also a password too short to be looked for by itself
                found.add(f"{user_info}@")
    long = {text for text in found if len(text) >= _SHORTEST_SECRET}
    # As `quoted`, a library that mends an address and `one_line` write them.
    long |= {
        form
        for text in long
        for form in (repr(text)[1:-1], quote(text, "/?#:@"), " ".join(text.split()))
    }
    return sorted(long, key=len, reverse=True)


def _user_infos(name: str, value: str) -> Iterator[str]:
    for found in _USER_INFO.findall(value):
        yield found.removesuffix("@")
    if _ADDRESS_VARIABLE.search(name) and (whole := _ADDRESS_USER_INFO.match(value)):
        yield whole[1]


class InputError(Exception):
    """Bad input. The message is one sentence holding the value, the limit and the fix.

    It is `redacted`, since the value may be an address with a password, and what does not print is
    an escape: libraries put bytes of a damaged file into their messages.
    """

    def __init__(self, message: str = "") -> None:
        text = redacted(message)
        super().__init__(text if text.isprintable() else _escaped(text))


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
    line = _escaped(line)
    return line if len(line) <= most else one_line(line, most)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_FULL = ("no space left on device", "disk quota exceeded", "database or disk is full")
"""How libraries that raise no `OSError` say so, in lower case."""
_WRITTEN_BY_STAGES = ("corpus", "captions", "models", "synthetic", "reports")
_MACHINE = {
    errno.EACCES: "this user may not read or write it; change its permissions or name another",
    errno.EPERM: "this user may not change it; change its permissions or name another",
    errno.EROFS: "its disk is mounted read-only; name another, or mount it for writing",
    errno.EISDIR: "it is a folder and a file is needed; name a file",
    errno.ENOTDIR: "a part of the path is a file and a folder is needed; correct the path",
    errno.ENAMETOOLONG: "a part of the path is longer than its disk can store; shorten it",
    errno.ELOOP: "its links lead in a circle; remove them",
    errno.EIO: "its disk cannot read or write it; check the disk",
    errno.ESTALE: "the network folder with it was lost; mount it again",
    errno.EFBIG: "its disk stores no file of this size; name another disk",
    errno.ETXTBSY: "another program uses it; end that",
    errno.EBUSY: "another program uses it; end that",
}
"""What of the machine, and not of this program, stops a stage."""


def sentence_for(error: BaseException) -> str | None:
    """One printable sentence for a failure that lies in the input or the machine; None for ours.

    A full disk is recognised wherever in the chain of exceptions it stands, since libraries wrap
    it. A file that is missing is the machine's only where a person or a stage names it.
    """
    if isinstance(error, InputError):
        return one_line(error)
    chain = list(causes(error))
    for cause in chain:
        number = cause.errno if isinstance(cause, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or any(
            words in str(cause)[:5000].lower() for words in _FULL
        ):
            return _full_disk(next((_name(part) for part in chain if _name(part)), None))
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "this process may open no further file; raise the limit, such as `ulimit -n 4096`"
    name = _name(error)
    if name is None:
        return None
    if error.errno == errno.ENOENT and _named_by_a_person(name):
        return one_line(f"{quoted(name)} does not exist; correct the name")
    if error.errno == errno.ENOENT and Path(name).parts[:1] in [(x,) for x in _WRITTEN_BY_STAGES]:
        return one_line(f"{quoted(name)} is missing; run `dvc repro`, whose stages write it")
    reason = _MACHINE.get(error.errno)
    return one_line(f"{quoted(name)} cannot be used: {reason}") if reason else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and, one after the other, those that led to it: libraries wrap what tells most."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _name(error: BaseException) -> str | None:
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) and name else None


def _full_disk(name: str | None) -> str:
    """Writing names no file, so the working directory's disk stands for it."""
    place = Path(name or ".").absolute()
    folder = next((part for part in (place, *place.parents) if part.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free / 1e9
    where = f"of {quoted(name)} " if name else ""
    return one_line(
        f"the disk {where}is full or its quota is used up ({folder} has {free:,.2f} GB free); free "
        "some space and run the same command again"
    )


def _named_by_a_person(name: str) -> bool:
    path = Path(name).absolute()
    named = {Path(argument).absolute() for argument in sys.argv[2:] if argument}
    return not named.isdisjoint((path, *path.parents))
