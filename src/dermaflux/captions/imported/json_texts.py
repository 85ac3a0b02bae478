"""JSON and JSON Lines as entries: records, objects of id and text, COCO, message lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermaflux.captions.imported.columns import columns_as_records
from dermaflux.captions.imported.conversations import flat, is_conversation
from dermaflux.captions.imported.entries import WHOLE_FILE, Entry, NoCaptionsError
from dermaflux.captions.imported.fields import ID, TEXT, text_field_of
from dermaflux.errors import InputError, quoted

_COCO = ("images", "annotations")
_SHOWN = 8


class _Repeated(ValueError):
    """An object names one key twice with different values."""


def json_entries(content: str, file: Path) -> list[Entry]:
    """Entries of one JSON value, or of JSON Lines whatever the file is called."""
    try:
        value = json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        first = content.lstrip().split("\n", 1)[0]
        lines = error.msg == "Extra data" and file.suffix.lower() != ".json" and _is_whole(first)
        if lines or _is_object(first):
            return json_lines_entries(content, file)
        raise _unreadable(file, f"at line {error.lineno}", error) from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, "as JSON", error) from None
    return _of_value(value, file)


def json_lines_entries(content: str, file: Path) -> list[Entry]:
    """Entries of JSON Lines. Raises `InputError` naming the line that is damaged."""
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if lines and lines[0][1].lstrip().startswith("[") and not _is_whole(lines[0][1]):
        return json_entries(content, file)  # an array over several lines, wrongly named
    entries = []
    for number, line in lines:
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise _unreadable(file, f"at line {number}", error) from None
        if number == lines[0][0] == lines[-1][0] and _wraps(value):
            return _of_value(value, file)
        entries.append(_entry(value, file, f"line {number}"))
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # `json` would keep the last of two captions with one id without a word.
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result and result[name] != value:
            raise _Repeated(f"the key {quoted(name)} is there twice with different values")
        result[name] = value
    return result


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_object(line: str) -> bool:
    return line.lstrip().startswith("{") and _is_whole(line)


def _wraps(value: Any) -> bool:
    """Whether a line is a whole file: a list of records."""
    return isinstance(value, list) and not _is_pair(value)


def _unreadable(file: Path, place: str, error: Exception) -> InputError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    if isinstance(error, RecursionError):
        what = "it is nested too deeply"
    return InputError(
        f"captions file {quoted(str(file))} cannot be read {place} ({what[:200]}); correct or "
        "complete it, or remove that record"
    )


def _of_value(value: Any, file: Path) -> list[Entry]:
    if isinstance(value, list):
        return [_entry(record, file, f"record {n}") for n, record in enumerate(value, 1)]
    if isinstance(value, dict):
        return _of_object(value, file)
    raise _no_captions(file, f"a {type(value).__name__}")


def _of_object(value: dict[str, Any], file: Path) -> list[Entry]:
    values = list(value.values())
    if all(isinstance(value.get(name), list) for name in _COCO):
        return _coco(value, file)
    if isinstance(value.get(text_field_of(list(value)) or ""), str) or is_conversation(value):
        return [Entry(WHOLE_FILE, flat(value))]
    if values and all(isinstance(text, str) for text in values):
        return _keyed(value, lambda text: {TEXT: text})
    records = columns_as_records(value)
    if records is not None:
        return _of_value(records, file)
    if values and all(isinstance(fields, dict) for fields in values):
        return _keyed(value, flat)
    lists = [part for part in values if isinstance(part, list) and part]
    if len(lists) == 1 and isinstance(lists[0][0], dict):
        return _of_value(lists[0], file)
    if values and all(isinstance(texts, list | str) for texts in values):
        return _keyed(value, lambda texts: {TEXT: texts})
    raise _no_captions(
        file, f"an object with the keys {', '.join(map(quoted, list(value)[:_SHOWN]))}"
    )


def _keyed(value: Mapping[str, Any], fields: Any) -> list[Entry]:
    return [
        Entry(f"record {number}", {"key": name, **fields(part)})
        for number, (name, part) in enumerate(value.items(), 1)
    ]


def _coco(value: Mapping[str, Any], file: Path) -> list[Entry]:
    """Annotations of COCO's layout, each with the file name of its image."""
    images = {
        str(image["id"]): image.get("file_name") for image in value["images"] if _has_id(image)
    }
    entries = []
    for number, record in enumerate(value["annotations"], 1):
        entry = _entry(record, file, f"annotation {number}")
        number_in_file = str(entry.fields.get(ID))
        # The number of no image must not be taken for an image of the corpus that is called so.
        name = images.get(number_in_file, f"image {number_in_file} of no file_name")
        entries.append(Entry(entry.where, {**entry.fields, ID: name} if name else entry.fields))
    return entries


def _has_id(image: Any) -> bool:
    return isinstance(image, dict) and isinstance(image.get("id"), str | int)


def _entry(value: Any, file: Path, where: str) -> Entry:
    if isinstance(value, dict):
        return Entry(where, flat(value))
    if _is_pair(value):
        return Entry(where, {ID: value[0], TEXT: value[1]})
    raise InputError(
        f"captions file {quoted(str(file))} has at {where} {quoted(value)}; give objects with an "
        "id and a text"
    )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    )


def _no_captions(file: Path, what: str) -> NoCaptionsError:
    return NoCaptionsError(
        f"captions file {quoted(str(file))} holds {what}; give a list of records, or an object of "
        "id and text"
    )
