"""What a promise about a table is, and the promises that more than one table makes.

A promise becomes one expectation of Great Expectations. What concerns more than one row or table
(a lesion in two splits, an image without a caption) is first derived as a column, so that a failure
names rows. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

GROUPS = {"lesion_id": "lesion", "patient_id": "patient", "duplicate_group": "duplicate group"}
"""Columns whose images must stay on one side of a border, and what they are called."""


class Promise(NamedTuple):
    """One expectation."""

    name: str
    """How errors and reports call it, unique in its suite."""
    asks: str
    """The sentence Data Docs show."""
    kind: str
    """Class of `great_expectations.expectations`."""
    arguments: dict[str, Any]
    where: Mapping[str, str] | None = None
    """Only rows with these values are looked at, when given."""
    stops: bool = True
    """Whether a failure stops the pipeline; else it is a warning, counted in the report."""


def columns(names: Iterable[str]) -> Promise:
    """The table has these columns and no others."""
    return Promise(
        "columns",
        "the table has the columns of its contract and those derived from them, and no others",
        "ExpectTableColumnsToMatchSet",
        {"column_set": list(names), "exact_match": True},
    )


def present(names: Iterable[str]) -> Iterator[Promise]:
    """No row lacks a value of any of these columns."""
    for column in names:
        yield Promise(
            f"{column} present",
            f"every row has a value of {column}",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
        )


def unique(name: str, column: str) -> Promise:
    """No value of the column occurs twice."""
    return Promise(
        name, f"no {column} occurs twice", "ExpectColumnValuesToBeUnique", {"column": column}
    )


def among(name: str, column: str, values: Sequence[object], asks: str | None = None) -> Promise:
    """Every value of the column, where there is one, is one of `values`."""
    return Promise(
        name,
        asks or f"every {column} is one of {', '.join(map(str, values))}",
        "ExpectColumnValuesToBeInSet",
        {"column": column, "value_set": list(values)},
    )


def none_of(name: str, column: str, asks: str) -> Promise:
    """A derived column of short texts is empty everywhere; a text says what is wrong with a row."""
    return Promise(name, asks, "ExpectColumnValuesToBeNull", {"column": column})


def few_of(name: str, column: str, most: float, asks: str) -> Promise:
    """As `none_of`, but up to the share `most` of all rows may have a text."""
    arguments = {"column": column, "mostly": 1.0 - most}
    return Promise(name, asks, "ExpectColumnValuesToBeNull", arguments)


def between(name: str, column: str, low: float | None, high: float | None, asks: str) -> Promise:
    """Every value of the column lies in [low, high]."""
    limits = {"min_value": low, "max_value": high}
    given = {key: value for key, value in limits.items() if value is not None}
    return Promise(name, asks, "ExpectColumnValuesToBeBetween", {"column": column, **given})


def mean_between(
    name: str, column: str, low: float, high: float, asks: str, where: Mapping[str, str]
) -> Promise:
    """The mean of a column over the rows `where` lies in [low, high]."""
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Promise(name, asks, "ExpectColumnMeanToBeBetween", arguments, where)


def splits_of_groups(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """For each row the splits its group occurs in, as ``test and train``; null without a group."""
    import numpy as np
    import pandas as pd

    groups = pd.factorize(frame[column])[0]
    splits, names = pd.factorize(frame["split"], sort=True)
    known = (groups >= 0) & (splits >= 0)
    occurs = np.zeros((groups.max(initial=-1) + 1, len(names)), dtype=bool)
    occurs[groups[known], splits[known]] = True
    mask = occurs @ (1 << np.arange(len(names)))
    texts = np.array(
        [
            " and ".join(str(name) for bit, name in enumerate(names) if code >> bit & 1) or None
            for code in range(1 << len(names))
        ],
        dtype=object,
    )
    out = np.full(len(frame), None, dtype=object)
    out[known] = texts[mask[groups[known]]]
    return pd.Series(out, index=frame.index, dtype="str")
