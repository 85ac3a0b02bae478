"""Which images of a corpus are copies of each other, in any orientation and slightly cropped.

Signatures propose pairs (`signatures`, `lsh`), fine detail decides (`verify`), block by block over
all cores, so that memory holds the index and a few blocks. Reads no files: the caller supplies the
thumbnails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.corpus.duplicates.lsh import MAXIMUM_DISTANCE, Candidates, Index
from dermaflux.corpus.duplicates.signatures import Signatures, framed, signatures
from dermaflux.corpus.duplicates.verify import MINIMUM_CORRELATION, correlation

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

BLOCK = 512
"""Images looked up at a time; about 150 MB per core. Blocks do not depend on the cores."""
_BATCH = 256  # pairs compared at a time


@dataclass(frozen=True, slots=True)
class BlockMatches:
    """Candidate pairs of one block of images."""

    images: int
    """Images of the block."""
    candidates: Candidates
    scores: Array
    """float64 (P,): correlation of each candidate pair."""

    def pairs(self, minimum: float = MINIMUM_CORRELATION) -> Array:
        """int64 (Q, 2): the pairs that show one photograph."""
        return self.candidates.pairs[self.scores >= minimum]


def scores(candidates: Candidates, thumbnails: Callable[[Array], Array]) -> Array:
    """Correlation (P,) of candidate pairs, each image framed and turned as its signature was.

    `thumbnails` maps int indices (M,) to uint8 (M, 64, 64), and is called from several threads.
    """
    import numpy as np

    correlations = np.zeros(len(candidates.pairs))
    for start in range(0, len(correlations), _BATCH):
        part = slice(start, start + _BATCH)
        windows, turns = candidates.windows[part], candidates.turns[part]
        first, second = (thumbnails(candidates.pairs[part, side]) for side in (0, 1))
        whole = framed(first, np.zeros_like(windows), turns[:, 0])
        correlations[part] = correlation(whole, framed(second, windows, turns[:, 1]))
    return correlations


def build_index(
    count: int, thumbnails: Callable[[Array], Array], workers: int = -1, every: bool = False
) -> Index:
    """Index of images 0 to count - 1; `workers` threads, -1 for one per core.

    Of images with equal signatures only the first, unless `every`.
    """
    import numpy as np
    from joblib import Parallel, delayed

    def block(first: int) -> Signatures:
        chosen = np.arange(first, min(first + BLOCK, count))
        return signatures(thumbnails(chosen), first, every_framing=False)

    tasks = (delayed(block)(first) for first in range(0, count, BLOCK))
    parts = Parallel(n_jobs=workers, prefer="threads")(tasks)
    names = ("image", "window", "turn", "signs", "keys")
    joined = Signatures(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
    return Index(joined, every)


def copies(
    count: int,
    thumbnails: Callable[[Array], Array],
    maximum_distance: float = MAXIMUM_DISTANCE,
    workers: int = -1,
) -> Iterator[BlockMatches]:
    """Candidate pairs among images 0 to count - 1 with their scores, block by block in order.

    The number of threads changes only the time. A pair may come twice, once from each side.
    """
    import numpy as np
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    if count < 2:
        return
    with threadpool_limits(1):  # the threads below share the cores already
        index = build_index(count, thumbnails, workers)

        def block(first: int) -> BlockMatches:
            chosen = np.arange(first, min(first + BLOCK, count))
            queries = signatures(thumbnails(chosen), first, every_framing=True)
            candidates = index.close(queries, maximum_distance)
            return BlockMatches(len(chosen), candidates, scores(candidates, thumbnails))

        tasks = (delayed(block)(first) for first in range(0, count, BLOCK))
        yield from Parallel(n_jobs=workers, prefer="threads", return_as="generator")(tasks)


def equal_pairs(digests: Sequence[str]) -> list[tuple[int, int]]:
    """Each later position of a digest, paired with its first: byte-equal images, plain or not."""
    first: dict[str, int] = {}
    return [(first[d], i) for i, d in enumerate(digests) if first.setdefault(d, i) != i]
