"""Copies that a distance misses: cropped, shifted, recoloured or written over. Pure.

The matcher of the leak guard (`corpus.duplicates`) judges pairs of a training image and a synthetic
one, in any of the square's eight orientations: the correlation of their fine detail says whether
both show one photograph. Three searches propose the pairs, each in time that grows with the number
of images and not of pairs, except for the distances that the audit has anyway:

- signatures of either image under 23 framings, for what was cropped;
- signatures of the middle of the training image and of parts of the synthetic one up to 8 of 64
  pixels beside its middle, for what was shifted, whatever fills the rest;
- the nearest training images by distance, for what was written over, which changes signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from dermaflux.audit.features import symmetries
from dermaflux.core.arrays import Array
from dermaflux.corpus.duplicates import search
from dermaflux.corpus.duplicates.lsh import Index
from dermaflux.corpus.duplicates.signatures import SIDE, Signatures, signatures
from dermaflux.corpus.duplicates.verify import correlation

_REACH = 8  # pixels of a thumbnail
_STEPS = range(-_REACH, _REACH + 1)
# Signatures bear a shift of one pixel: every second place of a chessboard has it in reach.
_SHIFTS = [(x, y) for x in _STEPS for y in _STEPS if (x + y) % 2 == 0 and (x, y) != (0, 0)]

_PAIRS = 64  # queries compared at a time

_Scored = tuple[Array, Array, Array]
"""Rows of training images and of queries, int64 (P,), and the correlation of each pair."""


def most_similar(
    training: Array, queries: Array, nearest: Array, orientation: Array
) -> tuple[Array, Array]:
    """Row (M,) of the training image that a query is most like, and their correlation (M,).

    `training` (N, 64, 64) and `queries` (M, 64, 64) are grey uint8 thumbnails; `nearest` (M, k) are
    rows of training images to compare in any case, each with the query in that one of its eight
    `features.symmetries`, `orientation` (M, k). Row -1 and correlation 0 where no pair is proposed.
    The number of threads, one per core, changes only the time.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    middles = part_of(training, 0, 0)
    blocks = range(0, len(queries), search.BLOCK)
    with threadpool_limits(1):  # the threads below share the cores already
        of_training = search.build_index(len(training), training.__getitem__)
        of_middles = search.build_index(len(middles), middles.__getitem__)
        of_queries = search.build_index(len(queries), queries.__getitem__, every=True)

        def query_block(first: int) -> list[_Scored]:
            part = slice(first, first + search.BLOCK)
            found = [
                _near(training, queries[part], nearest[part], orientation[part]),
                _search(of_training, training, queries[part], _every_framing),
                *_shifted(of_middles, middles, queries[part]),
            ]
            return [(row, query + first, score) for row, query, score in found]

        def training_block(first: int) -> list[_Scored]:
            part = training[first : first + search.BLOCK]
            query, row, score = _search(of_queries, queries, part, _every_framing)
            return [(row + first, query, score)]

        tasks = [
            *(delayed(query_block)(first) for first in blocks),
            *(delayed(training_block)(first) for first in range(0, len(training), search.BLOCK)),
        ]
        found = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(tasks)
        return _best((scored for several in found for scored in several), len(queries))


def correlations(training: Array, queries: Array, nearest: Array, orientation: Array) -> Array:
    """Correlation (M, k) of each query with the training images `nearest`, as in `most_similar`."""
    scores = np.empty(nearest.shape)
    for first in range(0, len(queries), _PAIRS):
        part = slice(first, first + _PAIRS)
        of_part = _near(training, queries[part], nearest[part], orientation[part])[2]
        scores[part] = of_part.reshape(-1, nearest.shape[1])
    return scores


def _best(found: Iterator[_Scored], count: int) -> tuple[Array, Array]:
    """Of each query the training image with the highest correlation; of equal ones the first."""
    rows, best = np.full(count, -1), np.zeros(count)
    for row, query, score in found:
        order = np.lexsort((-row, score))  # the best is written last
        top_row, top = rows.copy(), best.copy()
        top_row[query[order]], top[query[order]] = row[order], score[order]
        better = (top > best) | ((top == best) & (top_row < rows))
        rows[better], best[better] = top_row[better], top[better]
    return rows, best


def _shifted(index: Index, middles: Array, queries: Array) -> Iterator[_Scored]:
    """Pairs in which some part of the query shows the middle of the training image."""
    for x, y in _SHIFTS:
        yield _search(index, middles, part_of(queries, x, y), _every_turn)


def _every_framing(images: Array, first: int) -> Signatures:
    return signatures(images, first, every_framing=True)


def _every_turn(images: Array, first: int) -> Signatures:
    return signatures(images, first, every_framing=False, every_turn=True)


def _search(
    index: Index, indexed: Array, looked_up: Array, describe: Callable[[Array, int], Signatures]
) -> _Scored:
    """Rows of the indexed images and of those that are looked up, and their correlations."""
    count = len(indexed)

    def thumbnails(rows: Array) -> Array:
        return looked_up[rows - count] if rows[0] >= count else indexed[rows]

    candidates = index.close(describe(looked_up, count))
    scores = search.scores(candidates, thumbnails)
    return candidates.pairs[:, 0], candidates.pairs[:, 1] - count, scores


def part_of(images: Array, x: int, y: int) -> Array:
    """The part of images (N, 64, 64) that is x pixels right and y below the middle, enlarged.

    Without a margin of 8 pixels when x and y are 0. uint8 (N, 64, 64).
    """
    rows, columns = (slice(_REACH + by, SIDE - _REACH + by) for by in (y, x))
    enlarging = _enlarging()
    part = enlarging @ images[:, rows, columns].astype(np.float32) @ enlarging.T
    pixels: Array = np.rint(part).astype(np.uint8)
    return pixels


@cache
def _enlarging() -> Array:
    """Linear interpolation of a line without its margins to the full side: float32 (64, 48)."""
    inner = SIDE - 2 * _REACH
    at = np.clip((np.arange(SIDE) + 0.5) * inner / SIDE - 0.5, 0, inner - 1)
    weights = 1 - np.abs(at[:, None] - np.arange(inner))
    matrix: Array = np.clip(weights, 0, 1).astype(np.float32)
    return matrix


def _near(training: Array, queries: Array, nearest: Array, orientation: Array) -> _Scored:
    """Every pair of a query, in the orientation given, and a training image near to it."""
    oriented = symmetries(queries[..., None])[..., 0]
    of_pair = np.repeat(np.arange(len(queries)), nearest.shape[1])
    rows = nearest.reshape(-1)
    scores = correlation(training[rows], oriented[of_pair, orientation.reshape(-1)])
    return rows, of_pair, scores
