"""Pairs of images whose signatures are close, without comparing all with all. Pure.

Locality-sensitive hashing (Indyk and Motwani 1998; bit sampling): each of 48 keys reads 22 signs,
and only signatures that agree in a whole key are compared in full. A copy that flips 6 % of the
coarse signs agrees in at least one with probability 1 - (1 - 0.94^22)^48 > 0.9999, one that flips
10 % with 0.993. Of half a million images, about 500 are compared with a given one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.corpus.duplicates.signatures import KEY_BITS, KEYS, SIGNS, Signatures

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

MAXIMUM_DISTANCE = 0.25
"""Share of signs that may differ. It passes a few pairs of other lesions per million, which fine
detail then rejects; `benchmarks/leak_guard.py` measures what it loses."""
_EXPANDED = 1 << 14  # comparisons held in memory at a time


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs to be verified, each in the framing and orientation where the signs agree best."""

    pairs: Array
    """int64 (P, 2): an image of the index, and one that was looked up."""
    turns: Array
    """uint8 (P, 2): orientation of each, see `signatures.turned`."""
    windows: Array
    """uint8 (P,): framing of the second."""
    distances: Array
    """int64 (P,): signs that differ, of 345."""


class Index:
    """Signatures sorted by each of their keys. About 900 bytes per image and 200 MB.

    Of equal signatures only the first, unless `every`: where the indexed images are looked up
    themselves, the others still match it, and n equal images make n comparisons, not n^2.
    """

    def __init__(self, indexed: Signatures, every: bool = False) -> None:
        import numpy as np

        rows = np.ascontiguousarray(indexed.signs)
        _, first = np.unique(rows.view(f"V{rows.shape[1] * 8}"), return_index=True)
        first = np.arange(len(rows)) if every else np.sort(first)
        self.image, self.turn, self.signs = (
            column[first] for column in (indexed.image, indexed.turn, indexed.signs)
        )
        keys = indexed.keys[first]
        self._order = np.empty(keys.shape[::-1], dtype=np.int32)
        self._values: list[Array] = []
        self._starts: list[Array] = []
        # Most keys looked up are in no image, which a small table answers faster than a search.
        self._present = np.zeros((KEYS, 1 << KEY_BITS), dtype=bool)
        for key in range(KEYS):
            column = keys[:, key]
            self._order[key] = np.argsort(column, kind="stable")
            values, starts = np.unique(column[self._order[key]], return_index=True)
            self._values.append(values)
            self._starts.append(np.append(starts, len(column)).astype(np.int32))
            self._present[key][values] = True

    def _collisions(self, keys: Array) -> Iterator[tuple[Array, Array]]:
        """Rows of the index and of the queries, keys uint32 (Q, KEYS), that share a key."""
        import numpy as np

        for key in range(KEYS):
            column = keys[:, key].astype(np.intp)
            queries = np.nonzero(self._present[key].take(column))[0]
            wanted = column[queries].astype(np.uint32)
            order = np.argsort(wanted)  # a search in ascending order stays in the caches
            queries, value = queries[order], np.searchsorted(self._values[key], wanted[order])
            start = self._starts[key].take(value)
            sizes = self._starts[key].take(value + 1) - start
            ends = np.cumsum(sizes)
            done = 0
            while done < len(queries):
                base = ends[done - 1] if done else 0
                upto = max(int(np.searchsorted(ends, base + _EXPANDED, side="right")), done + 1)
                size = sizes[done:upto]
                inside = np.arange(ends[upto - 1] - base) - np.repeat(
                    ends[done:upto] - size - base, size
                )
                inside += np.repeat(start[done:upto], size)
                yield self._order[key].take(inside), np.repeat(queries[done:upto], size)
                done = upto

    def close(self, queries: Signatures, maximum: float = MAXIMUM_DISTANCE) -> Candidates:
        """Every pair of different images that share a key and differ in at most `maximum`."""
        import numpy as np

        limit = int(maximum * SIGNS)
        each_word = np.ones(self.signs.shape[1], dtype=np.float32)
        rows = [np.empty((0, 3), dtype=np.int64)]
        for indexed, query in self._collisions(queries.keys):
            # `take` gathers rows several times faster than indexing, and a product adds up small
            # rows several times faster than `sum`; both are most of this stage's time.
            differing = self.signs.take(indexed, 0) ^ queries.signs.take(query, 0)
            distance = np.bitwise_count(differing) @ each_word
            close = np.nonzero(distance <= limit)[0]
            indexed, query, distance = indexed[close], query[close], distance[close]
            other = self.image[indexed] != queries.image[query]
            indexed, query, distance = indexed[other], query[other], distance[other]
            rows.append(np.stack([indexed, query, distance.astype(np.int64)], axis=1))
        indexed, query, distance = np.concatenate(rows).T
        order = np.lexsort((query, distance, queries.image[query], indexed))
        indexed, query, distance = indexed[order], query[order], distance[order]
        pairs = np.stack([self.image[indexed], queries.image[query]], axis=1)
        best = np.ones(len(pairs), dtype=bool)
        best[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        indexed, query = indexed[best], query[best]
        return Candidates(
            pairs[best],
            np.stack([self.turn[indexed], queries.turn[query]], axis=1),
            queries.window[query],
            distance[best],
        )
