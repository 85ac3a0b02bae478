"""Arguments of a page's address that Datasette cannot use, each with a sentence. Pure.

Datasette answers a wrong argument with a page that holds nothing else, and takes an unknown column
for a text. Here such arguments are left out and named on the page, and the rest of it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from datasette.filters import Filters

from dermaflux.errors import quoted

_LARGEST_PAGE = 1000
_LISTS = ("in", "notin")
_LOOKUPS = {key for key, _, _ in Filters([]).lookups()}


def usable(query: str, columns: Sequence[str], sortable: Sequence[str]) -> tuple[str, list[str]]:
    """The query string without what cannot be used, and why not, one sentence each.

    `columns` of the table, and those that it may be sorted by.
    """
    kept: list[tuple[str, str]] = []
    problems = []
    for key, value in parse_qsl(query, keep_blank_values=True):
        problem = _problem(key, value, columns, sortable, dict(kept))
        if problem is None:
            kept.append((key, value))
        else:
            problems.append(f"{quoted(f'{key}={value}')} is left out: {problem}.")
    return urlencode(kept), problems


def _problem(
    key: str,
    value: str,
    columns: Sequence[str],
    sortable: Sequence[str],
    kept: Mapping[str, str],
) -> str | None:
    if "\0" in key or "\0" in value:
        return "no table contains the character NUL"
    if not key.startswith("_"):
        return _filter_problem(key, value, columns)
    named = {"_col": columns, "_nocol": columns, "_facet": columns}
    named |= {"_sort": sortable, "_sort_desc": sortable}
    if key in named and value not in named[key] and (value or not key.startswith("_sort")):
        what = "the table cannot be sorted by it" if named[key] is sortable else "no column has it"
        return f"{what}; there are {', '.join(named[key])}"
    if key in ("_sort", "_sort_desc") and {"_sort", "_sort_desc"} & kept.keys():
        return "the table can be sorted by one column only"
    if key == "_size" and value != "max":
        whole = value.isascii() and value.isdigit() and len(value) <= 4
        if not whole or not 0 < int(value) <= _LARGEST_PAGE:
            return f"a page has 1 to {_LARGEST_PAGE} rows"
    if key == "_filter_column" and value and value not in columns:
        return f"no column has that name; there are {', '.join(columns)}"
    if key in ("_through", "_timelimit", "_fts_table", "_fts_pk") or key.startswith("_search_"):
        return "these tables do not support it"
    return None


def _filter_problem(key: str, value: str, columns: Sequence[str]) -> str | None:
    """What is wrong with a filter such as `label=benign` or `scale__gt=128`."""
    column, _, lookup = key.partition("__")
    if column not in columns:
        return f"no column has that name; there are {', '.join(columns)}"
    if lookup and lookup not in _LOOKUPS:
        return f"no comparison has that name; there are {', '.join(sorted(_LOOKUPS))}"
    if lookup in _LISTS and value.startswith("["):
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            return "a list of values is written as a,b or as a JSON list"
        if not all(isinstance(item, str | int | float) for item in items):
            return "a list holds only texts and numbers"
    return None
