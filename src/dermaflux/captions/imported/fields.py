"""Which field of a file's entries names the image, and which is the caption. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dermaflux.captions.imported.entries import Entry, NoCaptionsError, one_line
from dermaflux.captions.imported.names import Names
from dermaflux.errors import quoted

ID, TEXT = "image_id", "caption"
"""The names that errors recommend, and that formats without names get."""
_IDS = (
    *("image_id", "image", "image_name", "image_path", "image_file", "img_id", "img", "img_path"),
    *("isic_id", "file_name", "filename", "file_path", "filepath", "file", "path", "images"),
    *("name", "id", "key", "custom_id", "url", "image_url"),
)
_TEXTS: tuple[tuple[str, ...], ...] = (
    ("caption", "captions", "image_caption", "generated_caption", "caption_text", "text_caption"),
    ("description", "descriptions", "image_description", "text", "texts", "txt"),
    ("response", "answer", "output", "completion", "generated_text", "assistant"),
    ("prompt", "prompts", "sentence", "sentences", "comment", "report", "findings", "title"),
)
"""Of the fields of a file, those of the first group that is there and not empty are captions."""
_SAMPLED = 500  # entries that decide which field is which
_MINIMUM_WORDS = 4  # of a text, on average; a column of diagnoses has fewer
_SHOWN = 12
# Scripts without blanks between words; about two letters make a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().casefold())


def is_field_name(name: str) -> bool:
    """Whether a column of that name is an image's or a caption's by its name alone."""
    return _plain(name) in _IDS or any(_plain(name) in group for group in _TEXTS)


def is_image_name(name: str) -> bool:
    """Whether a column of that name is an image's by its name alone."""
    return _plain(name) in _IDS


def text_field_of(names: Sequence[str]) -> str | None:
    """The first of some names that means a caption in any file."""
    return next((name for name in names if _plain(name) in (*_TEXTS[0], *_TEXTS[1])), None)


def image_and_text(entries: Sequence[Entry], file: Path, names: Names) -> tuple[str, str]:
    """The names of both fields. Raises `NoCaptionsError` when there is none or more than one."""
    sample = entries[:_SAMPLED]
    fields = list(dict.fromkeys(name for entry in sample for name in entry.fields))
    identity = _id_field(sample, fields, names)
    texts = _text_fields(sample, [name for name in fields if name != identity])
    if identity is None or not texts:
        lacks = "id" if identity is None else "text"
        raise NoCaptionsError(
            f"captions file {quoted(str(file))} has no field that could be the {lacks} of an "
            f"image; its fields are {_list(fields)}; rename them to {ID!r} and {TEXT!r}"
        )
    if len(texts) > 1:
        raise NoCaptionsError(
            f"captions file {quoted(str(file))} has {len(texts)} fields that could be the caption, "
            f"{_list(texts)}; rename the right one to {TEXT!r}"
        )
    return identity, texts[0]


def own_fields(entry: Entry, identity: str, text: str, names: Names) -> tuple[str, str]:
    """The names of both fields in one entry, which may call them otherwise than most do."""
    if entry.misfit is not None:  # a torn row of a table, whose fields are not what they are called
        return identity, text
    if identity not in entry.fields:
        found = _id_field([entry], list(entry.fields), names)
        identity = found if found is not None else identity
    if text not in entry.fields:
        text = text_field_of(list(entry.fields)) or text
    return identity, text


def _id_field(sample: Sequence[Entry], fields: Sequence[str], names: Names) -> str | None:
    """The field that names most images; of equals the commonest name; else a common name."""
    order = sorted(fields, key=_rank)
    hits = {
        name: sum(names.find(image_name(entry.fields.get(name)))[0] is not None for entry in sample)
        for name in order
    }
    best = max(order, key=lambda name: hits[name], default=None)
    if best is not None and hits[best]:
        return best
    return next((name for name in order if _plain(name) in _IDS), None)


def _rank(name: str) -> int:
    return _IDS.index(_plain(name)) if _plain(name) in _IDS else len(_IDS)


def image_name(value: object) -> str:
    """What a field says about its image: a name, a path, or the first of a list of them."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        keys = ("path", "file_name", "url", "image_id", "id")
        value = next((value[key] for key in keys if value.get(key)), None)
    return str(value) if isinstance(value, str | int | float) else ""


def _text_fields(sample: Sequence[Entry], fields: Sequence[str]) -> list[str]:
    """The field of captions, or all that could be it."""
    words = {
        name: sum(_words(one_line(entry.fields.get(name))) for entry in sample) / len(sample)
        for name in fields
    }
    for group in _TEXTS:
        named = [name for name in fields if _plain(name) in group and words[name]]
        if named:
            break
    else:
        named = [name for name in fields if words[name] >= _MINIMUM_WORDS]
    long = [name for name in named if words[name] >= _MINIMUM_WORDS]
    return _different(sample, long or named)


def _different(sample: Sequence[Entry], fields: Sequence[str]) -> list[str]:
    """Without the fields that repeat another word for word."""
    columns = {name: tuple(one_line(entry.fields.get(name)) for entry in sample) for name in fields}
    first = {column: name for name, column in reversed(columns.items())}
    return [name for name in fields if first[columns[name]] == name]


def _words(text: str) -> float:
    return len(text.split()) + len(_UNSPACED.findall(text)) / 2


def _list(fields: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in fields[:_SHOWN])
    return f"{shown} and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else shown
