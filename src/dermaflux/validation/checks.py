"""A check of a table, and the checks that more than one table uses.

A check becomes one expectation of Great Expectations. What concerns more than one row or table (a
lesion in two splits, an image without a caption) is first derived as a column, so that a failure
names rows. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

GROUPS = {"lesion_id": "lesion", "patient_id": "patient", "duplicate_group": "duplicate group"}
"""Columns whose groups of images must stay in one split, and what a group is called."""


class Check(NamedTuple):
    """One expectation."""

    name: str
    """Name in errors and reports, unique in its suite."""
    description: str
    """The sentence that Data Docs show."""
    expectation: str
    """Class of `great_expectations.expectations`."""
    arguments: dict[str, Any]
    row_condition: Mapping[str, str] | None = None
    """Column -> value of the rows that are checked; None checks all rows."""
    blocking: bool = True
    """Whether a failure stops the pipeline; else it is a warning, counted in the report."""


def columns(names: Iterable[str]) -> Check:
    """The table has these columns and no others."""
    return Check(
        "columns",
        "the table has the columns of its contract and those derived from them, and no others",
        "ExpectTableColumnsToMatchSet",
        {"column_set": list(names), "exact_match": True},
    )


def present(names: Iterable[str]) -> Iterator[Check]:
    """No row lacks a value in any of these columns."""
    for column in names:
        yield Check(
            f"{column} present",
            f"every row has a value of {column}",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
        )


def unique(name: str, column: str) -> Check:
    """No value of the column occurs twice."""
    return Check(
        name, f"no {column} occurs twice", "ExpectColumnValuesToBeUnique", {"column": column}
    )


def among(
    name: str, column: str, values: Sequence[object], description: str | None = None
) -> Check:
    """Every value of the column, where there is one, is one of `values`."""
    return Check(
        name,
        description or f"every {column} is one of {', '.join(map(str, values))}",
        "ExpectColumnValuesToBeInSet",
        {"column": column, "value_set": list(values)},
    )


def none_of(name: str, column: str, description: str) -> Check:
    """A derived column is empty; a text in it says what is wrong with the row."""
    return Check(name, description, "ExpectColumnValuesToBeNull", {"column": column})


def few_of(name: str, column: str, limit: float, description: str) -> Check:
    """Like `none_of`, but up to the fraction `limit` of all rows may have a text."""
    arguments = {"column": column, "mostly": 1.0 - limit}
    return Check(name, description, "ExpectColumnValuesToBeNull", arguments)


def between(
    name: str, column: str, low: float | None, high: float | None, description: str
) -> Check:
    """Every value of the column lies in [low, high]."""
    limits = {"min_value": low, "max_value": high}
    set_limits = {key: value for key, value in limits.items() if value is not None}
    arguments = {"column": column, **set_limits}
    return Check(name, description, "ExpectColumnValuesToBeBetween", arguments)


def mean_between(
    name: str,
    column: str,
    low: float,
    high: float,
    description: str,
    row_condition: Mapping[str, str],
) -> Check:
    """The mean of a column over the rows of `row_condition` lies in [low, high]."""
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Check(name, description, "ExpectColumnMeanToBeBetween", arguments, row_condition)


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
