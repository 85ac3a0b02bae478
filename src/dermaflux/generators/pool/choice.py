"""A pool chosen from candidates: what their rows say, and how the kept ones become shards.

Candidates are sampled as a larger pool would be, scored as they are sampled, and wait as shards in
the checkpoint; so what was killed goes on after its last batch, in any number of processes. Beside
the pool stand, in `table.candidates`, the rows of all of them without their images: to sample an
image again in its batch takes the prompts and seeds of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.tensor_cache import reserve
from dermaflux.generators.pool import selection

if TYPE_CHECKING:
    from dermaflux.generators.pool.selector import Selector


@dataclass(frozen=True)
class Choice:
    """How the images of one pool are chosen."""

    selector: Selector
    images: int
    """Of the pool."""
    candidates: int
    """For each image of the pool."""

    def columns(self, pixels: Pixels) -> dict[str, Any]:
        """What the row of a candidate says beside what it would say without choosing."""
        return {
            "uncertainty": self.selector(pixels),
            "candidates": self.candidates,
            "selector": self.selector.digest,
        }

    def require_room(self, folder: Path, sampled: int, side: int) -> None:
        """Raise `InputError` where the disk of `folder` cannot hold candidates and pool.

        `sampled`: candidates that are there; `side` in pixels, of which PNG takes hardly more.
        """
        missing = self.images * (self.candidates + 1) - sampled
        reserve(
            folder,
            missing * 3 * side**2,
            f"free some space, or lower synthesize.candidates {self.candidates} or "
            f"synthesize.images {self.images:,}",
        )

    def write(
        self, shards: Sequence[Path], classes: Sequence[str], shard_images: int, folder: Path
    ) -> dict[str, Any]:
        """Write the kept of all candidates, which `shards` hold in order, into `folder`.

        `classes` (N,): what each is asked to show. Returns what counts.json says of the choice.
        """
        scores = _list_candidates(shards, table.candidates(folder))
        kept = selection.keep(classes, scores, self.images)
        rows = _rows(shards, set(kept))
        count = -(-self.images // shard_images)
        for number in range(count):
            path = folder / table.shard_name("train", number, count)
            table.write_shard(list(islice(rows, shard_images)), path, table.CHOSEN_SCHEMA)
        uncertainty = {
            "kept": float(np.mean([scores[index] for index in kept])),
            "candidates": float(np.mean(scores)),
        }
        return {"candidates": len(scores), "uncertainty": uncertainty}


def _list_candidates(shards: Sequence[Path], folder: Path) -> list[float]:
    """Write the rows of all candidates without their images; return the uncertainty of each."""
    folder.mkdir()
    scores: list[float] = []
    # Without images no shard reaches a limit, so there is one.
    with closing(table.ShardWriter(folder, "train", 1, table.CHOSEN_SCHEMA)) as writer:
        for path in shards:
            columns = [name for name in table.CHOSEN_SCHEMA.names if name != "image"]
            for row in pq.read_table(path, columns=columns).to_pylist():
                writer.add(row)
                scores.append(row["uncertainty"])
    return scores


def _rows(shards: Sequence[Path], kept: set[int]) -> Iterator[dict[str, Any]]:
    """Rows of the kept candidates; memory holds one shard."""
    first = 0
    for path in shards:
        rows = pq.read_table(path)
        mask = pa.array([first + n in kept for n in range(rows.num_rows)], pa.bool_())
        yield from rows.filter(mask).to_pylist()
        first += rows.num_rows
