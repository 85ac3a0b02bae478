"""The `imported` captioner: captions written elsewhere, matched to the images of the corpus.

For the captions DermaFlux released (one JSON file per dataset, keys not documented) and any JSON,
JSON Lines or CSV file with ids and texts. Images without a caption and captions without an image
are counted and named. Reads files, writes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dermaflux.errors import InputError

ID_FIELDS = (
    *("image_id", "image", "image_name", "image_path", "img_id", "img", "img_path", "isic_id"),
    *("file_name", "filename", "file", "path", "name", "id", "key"),
)
TEXT_FIELDS = (
    *("caption", "description", "text", "generated_caption", "response", "answer", "output"),
    *("prompt", "captions", "descriptions"),
)
"""Names tried in this order, whatever their case; then the contents decide."""
DATASETS = (
    *("mednode", "hiba", "derm12345", "isic2019", "isic2020", "milk10k", "padufes20"),
    *("kaggle1", "kaggle2", "ddi", "isic2024"),
)
"""A file with such a name holds captions of that dataset only, in this corpus or not."""
_FILE_NAMES = {"pad20": "padufes20", "pad": "padufes20", "pad_ufes_20": "padufes20"}
"""Released files that are named differently from the dataset's folder."""
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_FILES = {".json", ".jsonl", ".csv", ""}
_SAMPLED = 500  # records that decide which field is which
_MINIMUM_WORDS = 4  # of a text, on average; a column of diagnoses has fewer
_LISTED = 3

Record = Mapping[str, Any]
_Parts = tuple[str, ...]


@dataclass
class CaptionMatch:
    """Captions by image, and what did not match."""

    captions: dict[str, str] = field(default_factory=dict)
    """image_id -> text."""
    images_without: list[str] = field(default_factory=list)
    """image_ids that no caption refers to."""
    captions_without: list[str] = field(default_factory=list)
    """Ids in the files that match no image of the corpus."""
    ambiguous: list[str] = field(default_factory=list)
    """Ids in the files that match several images; none of them gets the caption."""
    repeated: list[str] = field(default_factory=list)
    """Ids that match an image which already has a caption; the first one is used."""

    def summary(self) -> str:
        """One line with every count and the first names."""
        counts = {
            "images without a caption": self.images_without,
            "captions without an image": self.captions_without,
            "captions that fit several images": self.ambiguous,
            "captions for an image that has one": self.repeated,
        }
        parts = [f"{len(self.captions)} captions matched"]
        for what, ids in counts.items():
            examples = ", ".join(ids[:_LISTED])
            parts.append(f"{len(ids)} {what}" + (f" (such as {examples})" if ids else ""))
        return "; ".join(parts)


def read(path: Path, image_ids: Iterable[str]) -> CaptionMatch:
    """Captions of a file, or of every file of a folder, for these images.

    An id in a file is an image_id, the id or file name that the dataset published, or a path that
    ends in one. A file named after a dataset applies to that dataset only. Raises `InputError` when
    a file or its schema cannot be read or when it matches none of the images.
    """
    corpus_ids = sorted(image_ids)
    whole_index = _index(corpus_ids)
    sources = {image_id.split("/")[0] for image_id in corpus_ids} | set(DATASETS)
    match = CaptionMatch()
    for file in _files(path):
        source = _FILE_NAMES.get(file.stem.lower(), file.stem.lower())
        index = (
            _index([image_id for image_id in corpus_ids if image_id.startswith(f"{source}/")])
            if source in sources
            else whole_index
        )
        for name, text in _pairs(file, index):
            _assign(match, name, text, index)
    if not match.captions:
        raise InputError(
            f"{path} matches none of the {len(corpus_ids)} images of the corpus; its ids look like "
            f"{', '.join(match.captions_without[:_LISTED]) or 'nothing'}, the corpus's like "
            f"{', '.join(corpus_ids[:1])}; rename them to the corpus's image_id"
        )
    match.images_without = [image_id for image_id in corpus_ids if image_id not in match.captions]
    return match


def _assign(match: CaptionMatch, name: str, text: str, index: dict[_Parts, str | None]) -> None:
    image_id, ambiguous = _look_up(name, index)
    if image_id is None:
        (match.ambiguous if ambiguous else match.captions_without).append(name)
    elif image_id in match.captions:
        match.repeated.append(name)
    else:
        match.captions[image_id] = text


def _parts(name: str) -> _Parts:
    """`a\\b/c.jpg` -> ("a", "b", "c"), in lower case."""
    path = PurePosixPath(name.replace("\\", "/").strip().lower())
    if path.suffix in _IMAGES:
        path = path.with_suffix("")
    return tuple(part for part in path.parts if part not in ("/", ".", ".."))


def _index(image_ids: Iterable[str]) -> dict[_Parts, str | None]:
    """Every ending of every id -> the image, or None where several images share it."""
    index: dict[_Parts, str | None] = {}
    for image_id in image_ids:
        parts = _parts(image_id)
        for start in range(len(parts)):
            ending = parts[start:]
            index[ending] = None if ending in index else image_id
    return index


def _look_up(name: str, index: dict[_Parts, str | None]) -> tuple[str | None, bool]:
    """The image with the longest matching ending, and whether several images share it."""
    parts = _parts(name)
    for start in range(len(parts)):
        if parts[start:] in index:
            image_id = index[parts[start:]]
            return image_id, image_id is None
    return None, False


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.is_file()]
        files = [file for file in files if file.suffix.lower() in _FILES and file.name[0] != "."]
        if not files:
            raise InputError(f"{path} holds no .json, .jsonl or .csv file; put the captions there")
        return files
    if not path.is_file():
        raise InputError(f"caption.imported names {path}, which does not exist; name a file")
    return [path]


def _pairs(file: Path, index: dict[_Parts, str | None]) -> Iterator[tuple[str, str]]:
    """(id, text) of every record of a file."""
    records = _records(file)
    if not records:
        raise InputError(f"{file} holds no records; put captions there or remove it")
    sample = records[:_SAMPLED]
    fields = list(dict.fromkeys(name for record in sample for name in record))
    identity = _id_field(sample, fields, index)
    text = _text_field(sample, [name for name in fields if name != identity])
    if identity is None or text is None:
        lacks = "id" if identity is None else "text"
        raise InputError(
            f"{file} has no field that could be the {lacks} of an image; its fields are "
            f"{', '.join(map(repr, fields))}; rename them to 'image_id' and 'caption'"
        )
    for record in records:
        if record.get(identity) is not None:
            yield str(record[identity]), _text(record.get(text))


def _id_field(
    sample: list[Record], fields: list[str], index: dict[_Parts, str | None]
) -> str | None:
    """The field that matches most images; of equals the commonest name; else a common name."""
    order = sorted(fields, key=lambda name: _rank(name, ID_FIELDS))
    hits = {
        name: sum(_look_up(str(record.get(name, "")), index)[0] is not None for record in sample)
        for name in order
    }
    best = max(order, key=lambda name: hits[name], default=None)
    if best is not None and hits[best]:
        return best
    return next((name for name in order if name.lower() in ID_FIELDS), None)


def _text_field(sample: list[Record], fields: list[str]) -> str | None:
    """A field with a common name that holds sentences, else the one with most words."""
    words = {
        name: sum(len(_text(record.get(name)).split()) for record in sample) / len(sample)
        for name in fields
    }
    order = sorted(fields, key=lambda name: (_rank(name, TEXT_FIELDS), -words[name]))
    return next((name for name in order if words[name] >= _MINIMUM_WORDS), None)


def _rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(name.lower()) if name.lower() in known else len(known)


def _text(value: Any) -> str:
    """A text on one line, as generators read it; several texts are joined."""
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    return " ".join(value.split()) if isinstance(value, str) else ""


def _records(file: Path) -> list[Record]:
    try:
        # Excel and PowerShell write a byte order mark.
        content = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".csv":
            return list(csv.DictReader(io.StringIO(content, newline=""), restkey="_"))
        if file.suffix.lower() == ".jsonl":
            return [_record(json.loads(line), file) for line in content.split("\n") if line.strip()]
        return _json_records(json.loads(content), file)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error}); save it again as UTF-8") from None


def _json_records(content: Any, file: Path) -> list[Record]:
    if isinstance(content, list):
        return [_record(record, file) for record in content]
    if isinstance(content, dict):
        values = list(content.values())
        if values and all(isinstance(value, str) for value in values):
            return [{"image_id": name, "caption": text} for name, text in content.items()]
        if values and all(isinstance(value, dict) for value in values):
            return [{"key": name, **fields} for name, fields in content.items()]
        lists = [value for value in values if isinstance(value, list) and value]
        if len(lists) == 1 and isinstance(lists[0][0], dict):
            return _json_records(lists[0], file)
        if values and all(isinstance(value, list) for value in values):
            return [{"image_id": name, "caption": texts} for name, texts in content.items()]
        kind = f"an object with the keys {', '.join(map(repr, list(content)[:8]))}"
    else:
        kind = f"a {type(content).__name__}"
    raise InputError(f"{file} holds {kind}; give a list of records, or an object of id and text")


def _record(value: Any, file: Path) -> Record:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return {"image_id": value[0], "caption": value[1]}
    raise InputError(
        f"{file} holds a record that is {str(value)[:60]!r}; give objects with an id and a text"
    )
