"""A bank of the user's own prompts: a CSV file that `synthesize.prompt_file` names.

Columns `prompt` and `label` (benign or malignant), `diagnosis`, or both; UTF-8, commas, a header.
Reads that file alone; writes nothing.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from dermaflux.captions.text.label import label_sentence
from dermaflux.captions.text.prompt_bank import By, Prompt, PromptBank
from dermaflux.core import vocabulary
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted

COLUMNS = ("prompt", "label", "diagnosis")
_LARGEST_FILE = 100_000_000  # bytes; VAP-Diffusion's 10,015 descriptions take about 5 million
_LONGEST_PROMPT = 4000  # characters; 512 tokens, where FLUX cuts, are about 2,400


@dataclass(frozen=True)
class OwnPrompt:
    """A row of the file."""

    line: int
    """Of the file, counted from 1."""
    text: str
    """As written, on one line."""
    label: str | None
    """None where the file has no such column."""
    diagnosis: str | None
    """Harmonised as `ingest` does; None where the file says none."""


def read(path: Path) -> list[OwnPrompt]:
    """The prompts of a file in its order.

    Raises `InputError` for a file that cannot be read, a header without the columns it needs, and
    a row with an empty prompt, an unknown label or another number of values than the header has.
    """
    rows = _rows(path)
    _, header = rows[0]
    names = [name.strip().lower() for name in header]
    unknown = [name for name in names if name not in COLUMNS]
    if "prompt" not in names or len(names) == 1 or unknown or len(set(names)) < len(names):
        raise InputError(
            f"the header of {path} is {quoted(','.join(header))} but must name the column prompt "
            "and one or both of label and diagnosis, separated by commas, and no other; correct "
            "the first line"
        )
    prompts = [_own(path, line, names, cells) for line, cells in rows[1:]]
    if not prompts:
        raise InputError(f"{path} has a header and no prompt; add a row for each, or name another")
    return prompts


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of the header and of each row that is not blank."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(
            f"synthesize.prompt_file {quoted(str(path))} cannot be read "
            f"({error.strerror or error}); correct the path"
        ) from None
    if len(content) > _LARGEST_FILE:
        raise InputError(
            f"{path} has more than {_LARGEST_FILE:,} bytes, too many for a file of prompts; keep "
            "fewer"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8 text (line {line}, byte {content[error.start]:#04x}); save it "
            "with that encoding"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {error}; put a prompt with commas or line breaks in "
            'double quotes, and write a quote inside it as ""'
        ) from None
    if not rows:
        raise InputError(f"{path} is empty; write the header prompt,label and a row for each")
    return rows


def _own(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> OwnPrompt:
    where = f"{path}, line {line}"
    if len(cells) != len(names):
        raise InputError(
            f"{where} has {len(cells)} values and the header {len(names)}; put a prompt with "
            "commas in double quotes"
        )
    row = dict(zip(names, cells, strict=True))
    text = " ".join(row["prompt"].split())
    if not text or len(text) > _LONGEST_PROMPT:
        limit = f"has {len(text):,} characters of 1 to {_LONGEST_PROMPT:,}"
        raise InputError(f"{where}: the prompt {limit}; write one of that length")
    label = row["label"].strip().lower() if "label" in row else None
    if label is not None and label not in CLASSES:
        raise InputError(
            f"{where}: the label {quoted(row['label'])} is not one of {', '.join(CLASSES)}; "
            "write one of these"
        )
    return OwnPrompt(line, text, label, vocabulary.diagnosis(row.get("diagnosis", "")))


def bank(
    prompts: Sequence[OwnPrompt],
    by: By,
    classes: Iterable[str],
    labels: Mapping[str, Set[str]],
    path: Path,
) -> PromptBank:
    """The prompts of each of the `classes`, which are values of the column `by`.

    `labels`: diagnosis -> labels of its training images, which give a prompt its label where the
    file has no column for it. Raises `InputError` for a class without a prompt, a row without its
    class, and a diagnosis that no training image has, or none with that label.
    """
    found: dict[str, list[Prompt]] = {name: [] for name in classes}
    for own in prompts:
        prompt = _prompt(own, by, labels, path)
        name = prompt.label if by == "label" else prompt.diagnosis
        if name in found:
            found[name].append(prompt)
    for name, held in found.items():
        if not held:
            raise InputError(
                f"{path} has no prompt of the class {quoted(name)} among its {len(prompts):,}; add "
                "one, or leave the class out of synthesize.proportions"
            )
    return PromptBank({name: tuple(held) for name, held in found.items()})


def _prompt(own: OwnPrompt, by: By, labels: Mapping[str, Set[str]], path: Path) -> Prompt:
    where, asked = f"{path}, line {own.line}", own.label if by == "label" else own.diagnosis
    if asked is None:
        conditions = "malignancy" if by == "label" else "diagnosis"
        raise InputError(
            f"{where} has no {by} but synthesize.conditions {conditions!r} asks for one; add it, "
            "or set conditions to what the file has"
        )
    known = labels.get(own.diagnosis or "", set())
    if own.diagnosis is not None and not known:
        close = difflib.get_close_matches(own.diagnosis, labels, n=3)
        fix = f"write {' or '.join(close)}" if close else "correct it, or leave it out"
        raise InputError(
            f"{where}: no training image has the diagnosis {quoted(own.diagnosis)}; {fix}"
        )
    if own.label is not None:
        if known and own.label not in known:
            raise InputError(
                f"{where}: all training images of {own.diagnosis} are {min(known)} but the prompt "
                f"is said to be {own.label}; correct one of the two"
            )
        return Prompt(own.text, own.label, own.diagnosis)
    if len(known) > 1:
        raise InputError(
            f"{where}: training images of {own.diagnosis} are benign and malignant, so a prompt "
            "needs a label of its own; add the column label"
        )
    return Prompt(own.text, min(known), own.diagnosis)


def refuse_test_descriptions(
    prompts: Sequence[OwnPrompt], training: Iterable[str], test: Iterable[str], path: Path
) -> None:
    """Raise `InputError` where a prompt describes a test image.

    It does if it is, but for case, white space and the sentence of the class, the caption of a test
    image (`test`) and of no training image (`training`). Sentences that both have are no one's:
    `measured` captions are made of a few hundred.
    """
    described = set(map(description, test)) - set(map(description, training)) - {""}
    held = [own for own in prompts if description(own.text) in described]
    if held:
        raise InputError(
            f"{path} holds {len(held):,} of {len(prompts):,} prompts that are captions of test "
            f"images and of no training image, such as line {held[0].line}: "
            f"{quoted(held[0].text)}; images sampled from these would carry the test split into "
            "training, so remove them"
        )


def description(text: str) -> str:
    """A text in lower case, with single spaces, without the sentence of a class before it."""
    plain = " ".join(text.lower().split())
    for label in CLASSES:
        plain = plain.removeprefix(label_sentence(label).lower()).strip()
    return plain
