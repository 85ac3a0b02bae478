"""Samples shards of images, alone or shared between processes, and puts them in place together.

Unfinished work is in the checkpoint: a part for each sampled batch, then the shard in its final
form. Processes share nothing but these files, so a killed one loses the batch it was sampling, and
results do not depend on how many there are.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.distributed import Processes
from dermaflux.errors import InputError
from dermaflux.generators.pool.plan import SamplingBatch, Shard
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log

if TYPE_CHECKING:
    import pyarrow as pa

_POLL_SECONDS = 0.5

MakeBatch = Callable[[SamplingBatch], Pixels]
"""Samples the images of a batch, uint8 (B, H, W, 3)."""
MakeRow = Callable[[int, Pixels, int], dict[str, Any]]
"""(index, pixels, batch number) -> row of the table."""


def shard_file(saved: Checkpoint, shard: Shard) -> Path:
    """Where a finished shard waits for the others."""
    return saved.file(f"shard-{shard.number:05d}.parquet")


@contextmanager
def present(saved: Checkpoint, processes: Processes) -> Iterator[None]:
    """Keep the file lock that tells the main process that this one is alive.

    The system releases it however the process ends.
    """
    from filelock import FileLock

    with FileLock(saved.file(f"process-{processes.rank}.lock")):
        yield


def sample_share(
    shards: Sequence[Shard],
    saved: Checkpoint,
    processes: Processes,
    make_batch: MakeBatch,
    make_row: MakeRow,
    log: Log,
    schema: pa.Schema = table.SCHEMA,
) -> None:
    """Finish every shard of this process that is not finished yet; rows have `schema`."""
    from filelock import FileLock

    share = [shards[number] for number in processes.share(len(shards))]
    unfinished = [shard for shard in share if not table.is_whole(shard_file(saved, shard))]
    images = sum(len(shard.members) for shard in share)
    done = images - sum(len(shard.members) for shard in unfinished)
    started, before = time.monotonic(), done
    with progress("synthesize", images, done) as advance:
        for shard in unfinished:
            # Processes of a killed call may still be sampling it.
            with FileLock(saved.file(f"shard-{shard.number:05d}.lock")):
                if not shard_file(saved, shard).exists():
                    _finish(shard, saved, make_batch, make_row, log, advance, schema)
            done += len(shard.members)
            speed = (done - before) / (time.monotonic() - started)
            print(
                f"synthesize: {done:,} of {images:,} images of process {processes.rank + 1} of "
                f"{processes.world}, {speed:.3g} images/s, {(images - done) / speed / 60:,.1f} "
                "minutes left",
                flush=True,
            )


def _finish(
    shard: Shard,
    saved: Checkpoint,
    make_batch: MakeBatch,
    make_row: MakeRow,
    log: Log,
    advance: Callable[..., None],
    schema: pa.Schema,
) -> None:
    """Sample the batches that no part holds, write the shard, discard its parts."""
    import torch

    rows: dict[int, dict[str, Any]] = {}
    parts = []
    for batch in shard.batches:
        part = saved.part(f"batch-{batch.number:06d}")
        parts.append(part)
        state = part.load("images")
        if state is None or len(state["images"]) != len(batch.members):
            began = time.perf_counter()
            images = make_batch(batch)
            part.save({"images": torch.from_numpy(images)})
            speed = len(batch.members) / (time.perf_counter() - began)
            log.metrics({"images_per_second": speed}, batch.number)
        else:
            images = state["images"].numpy()
        for index, pixels in zip(batch.members, images, strict=True):
            rows[index] = make_row(index, pixels, batch.number)
        advance(len(batch.members))
    table.write_shard([rows[index] for index in shard.members], shard_file(saved, shard), schema)
    for part in parts:
        part.discard()


def wait(shards: Sequence[Shard], saved: Checkpoint, processes: Processes) -> None:
    """Return when the other processes have finished their shards.

    Raises `InputError` when one of them has ended before that.
    """
    from filelock import FileLock, Timeout

    for rank in range(processes.world):
        lock = FileLock(saved.file(f"process-{rank}.lock"))
        share = shards[rank :: processes.world]
        while not _finished(share, saved):
            try:
                with lock.acquire(timeout=_POLL_SECONDS):
                    ended = not _finished(share, saved)
            except Timeout:
                continue
            if ended:
                raise InputError(
                    f"process {rank + 1} of {processes.world} ended before its shards were "
                    "finished; see what it printed, and run the stage again to continue"
                )


def _finished(shards: Sequence[Shard], saved: Checkpoint) -> bool:
    return all(shard_file(saved, shard).exists() for shard in shards)


def assemble(shards: Sequence[Shard], saved: Checkpoint, folder: Path) -> None:
    """Give the finished shards their names in `folder`."""
    for shard in shards:
        source = shard_file(saved, shard)
        target = folder / table.shard_name("train", shard.number, len(shards))
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
