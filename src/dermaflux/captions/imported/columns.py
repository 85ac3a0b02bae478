"""Tables that were written to JSON by column, as pandas and Hugging Face do, as records. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermaflux.captions.imported.fields import is_image_name, text_field_of


def columns_as_records(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Records of a table by column; None for any other object.

    `{"image": {"0": ...}, "caption": {"0": ...}}` is pandas' `to_json()`, with lists it is
    `to_dict("list")` or a batch of `datasets`, and `{"columns": [...], "data": [[...], ...]}` is
    `to_json(orient="split")`.
    """
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list):
        texts = [name for name in names if isinstance(name, str)]
        whole = all(isinstance(row, list) and len(row) == len(names) for row in rows)
        fits = whole and len(texts) == len(names) and _is_table(texts)
        return [dict(zip(texts, row, strict=True)) for row in rows] if fits else None
    columns = list(value.values())
    if not _is_table(list(value)):
        return None
    if all(isinstance(column, dict) for column in columns):
        numbers = list(columns[0])
        if any(list(column) != numbers for column in columns):
            return None
        columns = [list(column.values()) for column in columns]
    elif not all(isinstance(column, list) for column in columns):
        return None
    if len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_table(names: list[str]) -> bool:
    return any(map(is_image_name, names)) and text_field_of(names) is not None
