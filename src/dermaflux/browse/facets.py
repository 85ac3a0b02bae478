"""Counts beside the table: how many images of each label, source and so on a filter has.

Datasette would group all images once per column, for every page. Here one query serves all columns,
and where the filter concerns these columns alone it reads the few hundred lines of the table
`counts`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from datasette.database import QueryInterrupted
from datasette.facets import Facet
from datasette.filters import Filters
from datasette.utils import path_with_added_args, path_with_removed_args

from dermaflux.browse.index import FACETS, IMAGES

_OTHER_FILTERS = ("_search", "_where", "_through")
_LONGEST = 15
"""Values shown of a column, commonest first."""


class CountedFacet(Facet):  # type: ignore[misc]
    """The columns `FACETS` of the table `images`."""

    type = "column"

    async def facet_results(self) -> tuple[list[dict[str, Any]], list[str]]:
        """(columns with their counted values, columns that were not counted in time)."""
        if self.table != IMAGES:
            return [], []
        pairs = self.get_querystring_pairs()
        filters = [pair for pair in pairs if not pair[0].startswith("_") or "__" in pair[0]]
        others = any(key.startswith(_OTHER_FILTERS) for key, _ in pairs)
        if not others and {key.split("__")[0] for key, _ in filters} <= set(FACETS):
            where, values = Filters(sorted(filters)).build_where_clauses("counts")
            clause = f"where {' and '.join(where)}" if where else ""
            sql, number = f"select * from counts {clause}", "images"  # nosec # values are bound
        elif "_next" in dict(pairs):
            # Of a later page Datasette hands over the rows that follow, and not all of the filter.
            return [], []
        else:
            sql, values, number = self.sql, self.params, "1"
        columns = ", ".join(FACETS)
        grouped = f"select {columns}, sum({number}) from ({sql}) group by {columns}"  # nosec # FACETS
        limit = self.ds.setting("facet_time_limit_ms")
        try:
            found = await self.ds.execute(
                self.database, grouped, values, truncate=False, custom_time_limit=limit
            )
        except QueryInterrupted:
            return [], list(FACETS)
        rows = [tuple(row) for row in found.rows]
        facets = [self._facet(index, name, rows, pairs) for index, name in enumerate(FACETS)]
        return [facet for facet in facets if facet["results"]], []

    def _facet(
        self, index: int, name: str, rows: list[tuple[Any, ...]], pairs: list[tuple[str, str]]
    ) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        for row in rows:
            if row[index] is not None:
                counts[row[index]] += row[-1]
        results = [
            self._value(name, value, count, (name, value) in pairs)
            for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        return {
            "name": name,
            "type": "column",
            "hideable": False,
            "toggle_url": "",
            "results": results[:_LONGEST],
            "truncated": len(results) > _LONGEST,
        }

    def _value(self, name: str, value: str, count: int, selected: bool) -> dict[str, Any]:
        change = path_with_removed_args if selected else path_with_added_args
        path = change(self.request, {name: value, "_next": None} if not selected else {name: value})
        return {
            "value": value,
            "label": value,
            "count": count,
            "selected": selected,
            "toggle_url": self.ds.absolute_url(self.request, self.ds.urls.path(path)),
        }
