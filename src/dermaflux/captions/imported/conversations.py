"""Training records of vision-language models as flat records: the answer is the caption. Pure.

Message lists as LLaVA (`conversations` of `from` and `value`), OpenAI (`messages` of `role` and
`content`), OpenAI's batch answers (`response.body.choices`) and Gemini (`contents` of `role` and
`parts`) write them; the image is named beside them, in `metadata` or in the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dermaflux.captions.imported.fields import TEXT

_LISTS = ("conversations", "conversation", "messages", "contents", "choices")
_ROLES = ("role", "from", "speaker")
_CONTENTS = ("content", "value", "text", "parts", "message")
_ANSWERS = frozenset(("assistant", "gpt", "model", "bot", "chatbot", "llava"))
_NESTED = ("metadata", "meta", "info", "response", "body", "data")
_IMAGES = ("image_url", "image", "url", "path", "file_name", "filename", "fileUri", "fileData")
_TAG = re.compile(r"<img>\s*(.*?)\s*</img>", re.DOTALL)
_IN_QUESTION = "image named in the messages"
_DEPTH = 6  # of objects inside one message


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record and of its metadata, with a conversation replaced by its caption."""
    fields: dict[str, Any] = {}
    for name, value in _fields(record, 0):
        fields.setdefault(name, value)
    turns = _turns(fields)
    answers = [text for turn in turns if _role(turn) in _ANSWERS for text in _texts(turn)]
    if not answers:
        return fields
    asked = [name for turn in turns if _role(turn) not in _ANSWERS for name in _images(turn, 0)]
    # A field that happens to be called as a caption would compete with the answer.
    others = {name: value for name, value in fields.items() if name not in (*_LISTS, TEXT)}
    return {**others, **({_IN_QUESTION: asked[0]} if asked else {}), TEXT: answers}


def is_conversation(record: Mapping[str, Any]) -> bool:
    """Whether a record holds messages, an answer among them."""
    return any(_role(turn) in _ANSWERS for turn in _turns(dict(_fields(record, 0))))


def _turns(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    lists = [fields[name] for name in _LISTS if isinstance(fields.get(name), list)]
    return [turn for turns in lists for turn in turns if isinstance(turn, dict)]


def _fields(record: Mapping[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    """Fields of a record, then those of the objects inside it that only group fields."""
    groups = [name for name in _NESTED if isinstance(record.get(name), dict) and depth < _DEPTH]
    yield from ((name, value) for name, value in record.items() if name not in groups)
    for name in groups:
        yield from _fields(record[name], depth + 1)


def _role(turn: Mapping[str, Any]) -> str:
    inner = turn.get("message")
    if isinstance(inner, dict):
        return _role(inner)
    return next((str(turn[name]).lower() for name in _ROLES if name in turn), "")


def _texts(turn: Mapping[str, Any]) -> Iterator[str]:
    """Texts of a message, whose content is a text, a list of parts, or a message again."""
    for name in _CONTENTS:
        content = turn.get(name)
        if isinstance(content, str):
            yield content
        elif isinstance(content, dict) and name == "message":
            yield from _texts(content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    yield from _texts(part)
                elif isinstance(part, str):
                    yield part


def _images(value: Any, depth: int) -> Iterator[str]:
    """Names of images in a question; an image given as bytes has none."""
    if depth > _DEPTH:
        return
    if isinstance(value, str):
        yield from _TAG.findall(value)
    elif isinstance(value, list):
        for part in value:
            yield from _images(part, depth + 1)
    elif isinstance(value, dict):
        for name, part in value.items():
            if name in _IMAGES and isinstance(part, str):
                if not part.startswith("data:"):
                    yield part
            else:
                yield from _images(part, depth + 1)
