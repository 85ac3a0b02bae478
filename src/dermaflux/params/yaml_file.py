"""The one reader of YAML files that people write: params.yaml, profiles and grids.

A document is looked through event by event before anything is built from it, since a few kB of
nested aliases (`b: [*a, *a]`) or brackets can stand for more than any memory or stack holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermaflux.errors import InputError, one_line, quoted

_LARGEST_FILE = 500_000  # bytes; the largest profile has 9,000
_MOST_VALUES = 20_000
_DEEPEST = 30
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}


def read(path: Path) -> Any:
    """The document in a YAML file; raise `InputError` for a file that holds none.

    Raises `FileNotFoundError` when there is no such file: what that means, the caller knows.
    """
    return parse(_text(path), str(path))


def parse(text: str, name: str) -> Any:
    """The document in a text; `name` stands in the messages of an `InputError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        _refuse_explosive(name, text)
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise _not_yaml(name, error) from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        # Of what a value stands for: a 13th month, a number of 5,000 digits.
        raise InputError(
            f"{name} holds an invalid number or date ({one_line(error, 200)}); correct it, "
            "or put it in quotes"
        ) from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise InputError(f"{path} is a folder and not a YAML file; move it away") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{quoted(str(path))} cannot be read ({error}); correct that") from None
    if len(content) > _LARGEST_FILE:
        raise InputError(
            f"{path} has more than {_LARGEST_FILE:,} bytes, too many for a file of parameters; "
            "start again from a file in profiles/ or grids/"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8 text (line {line}, byte {content[error.start]:#04x}); save it "
            "with that encoding"
        ) from None


def _refuse_explosive(name: str, text: str) -> None:
    """Raise `InputError` for a document that is nested too deeply or stands for too many values."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        NodeEvent,
        ScalarEvent,
    )

    sizes: dict[str, int] = {}  # values that an anchor stands for
    opened: list[tuple[str | None, int]] = []  # anchor, and the values before the collection
    values = 0
    for event in YAML(typ="safe").parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise InputError(
                    f"{name}, line {line}: *{one_line(event.anchor, 100)} has no value before this "
                    "line; write the value in its place"
                )
            values += sizes[event.anchor]
        elif isinstance(event, NodeEvent):
            tag = getattr(event, "tag", None)
            if tag is not None and str(tag) not in _PLAIN_TAGS:
                raise InputError(
                    f"{name}, line {line}: the tag {quoted(str(tag))} has no meaning here; leave "
                    "it out"
                )
            values += 1
        if isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, values))
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - before + 1
        elif isinstance(event, ScalarEvent) and event.anchor is not None:
            sizes[event.anchor] = 1
        if len(opened) > _DEEPEST or values > _MOST_VALUES:
            what = f"nested over {_DEEPEST} deep" if len(opened) > _DEEPEST else "too large"
            raise InputError(
                f"{name}, line {line}: the document is {what} (it may stand for at most "
                f"{_MOST_VALUES:,} values, aliases written out); start again from a file in "
                "profiles/ or grids/"
            )


def _not_yaml(name: str, error: Exception) -> InputError:
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return InputError(
        f"{name} is not valid YAML ({where}{one_line(problem, 200)}); correct that line"
    )
