"""Pairs of pictures whose signatures are close, found without comparing all with all. Pure.

Locality-sensitive hashing (Indyk and Motwani 1998; bit sampling): each of 48 keys reads 22 signs,
and only signatures that agree in a whole key are compared in full. A copy that flips 6 % of the
coarse signs agrees in at least one with probability 1 - (1 - 0.94^22)^48 > 0.9999, one that flips
10 % with 0.993. A picture meets about 500 of half a million others in this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.corpus.duplicates.signatures import KEY_BITS, KEYS, SIGNS, Signatures

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

MAXIMUM_DISTANCE = 0.25
"""Share of signs that may differ. It passes a few pairs of other lesions per million, which detail
then tells apart; `benchmarks/leak_guard.py` measures what it loses."""
_EXPANDED = 1 << 14  # comparisons held in memory at a time


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs to be looked at, each in the framing and orientation where the signs agree best."""

    pairs: Array
    """int64 (P, 2): a picture of the index, and one that was looked up."""
    turns: Array
    """uint8 (P, 2): orientation of each, see `signatures.turned`."""
    windows: Array
    """uint8 (P,): framing of the second."""
    distances: Array
    """int64 (P,): signs that differ, of 345."""


class Index:
    """Signatures sorted by each of their keys. About 900 bytes a picture and 200 MB."""

    def __init__(self, stored: Signatures) -> None:
        import numpy as np

        # One of several equal ones: the others will find it, and do not square the work.
        rows = np.ascontiguousarray(stored.signs)
        _, alone = np.unique(rows.view(f"V{rows.shape[1] * 8}"), return_index=True)
        alone.sort()
        self.picture, self.turn, self.signs = (
            column[alone] for column in (stored.picture, stored.turn, stored.signs)
        )
        keys = stored.keys[alone]
        self._order = np.empty(keys.shape[::-1], dtype=np.int32)
        self._values: list[Array] = []
        self._starts: list[Array] = []
        # Most keys looked up are in no picture, which one small table tells faster than a search.
        self._present = np.zeros((KEYS, 1 << KEY_BITS), dtype=bool)
        for key in range(KEYS):
            column = keys[:, key]
            self._order[key] = np.argsort(column, kind="stable")
            values, starts = np.unique(column[self._order[key]], return_index=True)
            self._values.append(values)
            self._starts.append(np.append(starts, len(column)).astype(np.int32))
            self._present[key][values] = True

    def _meetings(self, keys: Array) -> Iterator[tuple[Array, Array]]:
        """Positions in the index and in what is looked up, uint32 (M, KEYS), that share a key."""
        import numpy as np

        for key in range(KEYS):
            column = keys[:, key].astype(np.intp)
            asked = np.nonzero(self._present[key].take(column))[0]
            wanted = column[asked].astype(np.uint32)
            order = np.argsort(wanted)  # a search in ascending order stays in the caches
            asked, place = asked[order], np.searchsorted(self._values[key], wanted[order])
            start = self._starts[key].take(place)
            sizes = self._starts[key].take(place + 1) - start
            ends = np.cumsum(sizes)
            done = 0
            while done < len(asked):
                base = ends[done - 1] if done else 0
                upto = max(int(np.searchsorted(ends, base + _EXPANDED, side="right")), done + 1)
                size = sizes[done:upto]
                inside = np.arange(ends[upto - 1] - base) - np.repeat(
                    ends[done:upto] - size - base, size
                )
                inside += np.repeat(start[done:upto], size)
                yield self._order[key].take(inside), np.repeat(asked[done:upto], size)
                done = upto

    def close(self, asked: Signatures, maximum: float = MAXIMUM_DISTANCE) -> Candidates:
        """Every pair of different pictures that share a key and differ in at most `maximum`."""
        import numpy as np

        limit = int(maximum * SIGNS)
        each_word = np.ones(self.signs.shape[1], dtype=np.float32)
        rows = [np.empty((0, 3), dtype=np.int64)]
        for stored, question in self._meetings(asked.keys):
            # `take` gathers rows several times faster than indexing, and a product adds up small
            # rows several times faster than `sum`; both are most of this stage's time.
            differing = self.signs.take(stored, 0) ^ asked.signs.take(question, 0)
            distance = np.bitwise_count(differing) @ each_word
            close = np.nonzero(distance <= limit)[0]
            stored, question, distance = stored[close], question[close], distance[close]
            other = self.picture[stored] != asked.picture[question]
            stored, question, distance = stored[other], question[other], distance[other]
            rows.append(np.stack([stored, question, distance.astype(np.int64)], axis=1))
        stored, question, distance = np.concatenate(rows).T
        order = np.lexsort((question, distance, asked.picture[question], stored))
        stored, question, distance = stored[order], question[order], distance[order]
        pairs = np.stack([self.picture[stored], asked.picture[question]], axis=1)
        best = np.ones(len(pairs), dtype=bool)
        best[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        stored, question = stored[best], question[best]
        return Candidates(
            pairs[best],
            np.stack([self.turn[stored], asked.turn[question]], axis=1),
            asked.window[question],
            distance[best],
        )
