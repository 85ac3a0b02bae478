"""What the columns of a team's own CSV file say of an image. Reads rows, opens no file."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from dermaflux.core import vocabulary
from dermaflux.errors import InputError, quoted
from dermaflux.params import OwnDataset
from dermaflux.params.label_words import label_word
from dermaflux.sources.adapter import Facts, Problem
from dermaflux.sources.folder import labels_of
from dermaflux.sources.reading.tables import OptionalValues, Row, bad_value, licence_of, stated

_ARCHIVE_ID = re.compile(r"I[PL]_\d{7}")  # shared between datasets, so never prefixed
_LISTED = 12
"""Words that a sentence names, the commonest first."""


def counts_from_zero(ids: Iterable[str]) -> bool:
    """Whether 0 is an id like any other in a column: where the numbers beside it are counted, too.

    That is, all ids are whole numbers and one of them is below 10. Beside ``P07`` or ``104233``,
    0 is what a database gives a row without an id. Where it is in doubt, rows with 0 count as one
    patient: that costs images, which reports/leaks.csv names, and never hides a leak.
    """
    known = [value for text in set(ids) if (value := vocabulary.identifier(text))]
    single_digit = any(len(value.lstrip("0")) == 1 for value in known)
    return single_digit and all(value.isdecimal() for value in known)


def one_spelling(ids: Iterable[str]) -> dict[str, str]:
    """Ids of a column -> one spelling of each, where they differ as people type them.

    ``P01``, ``p01`` and ``P 01`` are one patient, as are ``007`` and ``7``, and two Unicode forms
    of a name. Two patients taken for one cost nothing; one taken for two hides a leak.
    """
    spellings: dict[str, str] = {}
    known = sorted({value for value in map(_identifier, ids) if value})
    return {value: spellings.setdefault(_id_key(value), value) for value in known}


def _identifier(text: str) -> str | None:
    return vocabulary.identifier(text, zero=True)


def _id_key(value: str) -> str:
    key = "".join(unicodedata.normalize("NFC", value).casefold().split())
    return (key.lstrip("0") or "0") if key.isdecimal() else key


def listed(words: Counter[str]) -> str:
    """Words and how often they occur, as a sentence names them."""
    named = [f"{quoted(word)} {count}" for word, count in words.most_common(_LISTED)]
    more = len(words) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _example(labels: Counter[str]) -> str:
    """Two words as `labels` would hold them; what they mean is for the reader to say."""
    return ", ".join(f"{quoted(word)}: ..." for word, _ in labels.most_common(2))


class OwnValues:
    """Facts of each row, by the columns that the parameters name.

    Raises `InputError` when the label of no row is known, or the part of none.
    """

    def __init__(self, own: OwnDataset, rows: Sequence[Row], file: str) -> None:
        assert own.columns is not None  # `OwnDataset` requires it beside a CSV file
        self._name, self._columns = own.name, own.columns
        self._labels = {label_word(word): label for word, label in labels_of(own).items()}
        self._ids = {
            column: partial(
                vocabulary.identifier, zero=counts_from_zero(row.values[column] for row in rows)
            )
            for column in (own.columns.patient_id, own.columns.lesion_id)
            if column
        }
        self._spellings = {
            column: one_spelling(row.values[column] for row in rows) for column in self._ids
        }
        labels = Counter(text for row in rows if (text := self._label_text(row)))
        if labels and not any(label_word(text) in self._labels for text in labels):
            raise InputError(
                f"{file}: ingest.own {own.name!r} knows no word of the column "
                f"{quoted(own.columns.label)}: {listed(labels)}; say in labels whether each is "
                f"benign, malignant or indeterminate, such as labels: {{{_example(labels)}}}"
            )
        column = own.columns.split
        parts = Counter(text for row in rows if column and (text := stated(row, column)))
        if parts and not any(map(vocabulary.part, parts)):
            raise InputError(
                f"{file}: no word of the column {quoted(column)} is a part: {listed(parts)}; write "
                f"train, validation or test, or leave split out of ingest.own {own.name!r} columns"
            )

    def _label_text(self, row: Row) -> str:
        """The label's cell; empty for a placeholder, unless the parameters give it a meaning."""
        text = row.values[self._columns.label]
        return text if label_word(text) in self._labels else stated(row, self._columns.label)

    def _id(self, optional: OptionalValues, row: Row, column: str | None) -> str | None:
        """An id that is unique across datasets."""
        value = optional.read(row, column, self._ids[column]) if column else None
        value = self._spellings[column].get(value, value) if column and value else value
        return value if not value or _ARCHIVE_ID.fullmatch(value) else f"{self._name}:{value}"

    def facts(self, row: Row) -> Facts:
        """What a row says of its image."""
        columns, optional = self._columns, OptionalValues()
        text, problem = self._label_text(row), None
        label = self._labels.get(label_word(text)) if text else None
        if not text:
            problem = Problem("no-label", f"{row.location} has no {columns.label}; fill it in")
        elif label is None:
            problem = bad_value(row, columns.label, "map it in ingest.own labels")
            optional.unread.append((columns.label, text))
        licence = None
        if columns.licence:
            licence, unknown = licence_of(row, columns.licence, optional)
            problem = problem or unknown
        part: vocabulary.Part | None = optional.read(row, columns.split, vocabulary.part)
        if columns.split and not part and stated(row, columns.split):
            # Never left out as other values are: a test image must not get into training.
            limit = "it must be train, validation or test; write one of them"
            problem = problem or bad_value(row, columns.split, limit)
        return Facts(
            label=label,
            diagnosis=optional.read(row, columns.diagnosis, vocabulary.diagnosis),
            patient_id=self._id(optional, row, columns.patient_id),
            lesion_id=self._id(optional, row, columns.lesion_id),
            skin_tone=optional.read(row, columns.skin_tone, vocabulary.fitzpatrick),
            licence=licence,
            problem=problem,
            split=part,
            unread=tuple(optional.unread),
        )
