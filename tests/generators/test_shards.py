"""Shards of the pool, with a sampler that paints its index: nothing here loads a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermaflux.core import table
from dermaflux.core.checkpoints import checkpoint
from dermaflux.core.distributed import SINGLE, Processes
from dermaflux.core.images import encode_png
from dermaflux.errors import InputError
from dermaflux.generators.pool import plan, shards
from dermaflux.generators.pool.plan import SamplingBatch
from dermaflux.tracking.runs import Silent

GROUPS = [(128, 16), (128, 32), (128, 16), (128, 16), (128, 32), (128, 16)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Painter:
    """Samples images of one grey level, their index, and remembers which batches it was asked."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.batches: list[int] = []
        self._fails_at = fails_at

    def __call__(self, batch: SamplingBatch) -> np.ndarray[Any, Any]:
        if batch.number == self._fails_at:
            raise KeyboardInterrupt
        self.batches.append(batch.number)
        return np.stack([np.full((8, 8, 3), index, np.uint8) for index in batch.members])


def row(index: int, pixels: np.ndarray[Any, Any], batch: int) -> dict[str, Any]:
    assert (pixels == index).all()
    return {
        "image": {"bytes": encode_png(pixels), "path": None}, "image_id": f"synthetic/{index}",
        "split": "train", "batch": batch,
    }  # fmt: skip


def test_a_stopped_share_loses_no_finished_batch(checkout: Path) -> None:
    pool = plan.shards(GROUPS, 4, 2)
    assert [[batch.members for batch in shard.batches] for shard in pool] == [
        [(0, 2), (3,), (1,)], [(5,), (4,)],
    ]  # fmt: skip
    with checkpoint("synthesize", "a") as saved:
        first = Painter(fails_at=2)
        with pytest.raises(KeyboardInterrupt):
            shards.sample_share(pool, saved, SINGLE, first, row, Silent())
        second = Painter()
        shards.sample_share(pool, saved, SINGLE, second, row, Silent())
        assert (first.batches, second.batches) == ([0, 1], [2, 3, 4])
        third = Painter()
        shards.sample_share(pool, saved, SINGLE, third, row, Silent())
        assert third.batches == []
        folder = checkout / "synthetic"
        folder.mkdir()
        shards.assemble(pool, saved, folder)
    assert [path.name for path in table.shards(folder)] == [
        "train-00000-of-00002.parquet", "train-00001-of-00002.parquet",
    ]  # fmt: skip
    rows = table.metadata(folder, ["image_id", "batch"])
    assert rows["image_id"].tolist() == [f"synthetic/{index}" for index in range(6)]
    assert rows["batch"].tolist() == [0, 2, 0, 1, 4, 3]


def test_processes_share_the_shards_and_a_dead_one_is_named(checkout: Path) -> None:
    pool = plan.shards(GROUPS, 2, 2)
    with checkpoint("synthesize", "b") as saved:
        painters = [Painter(), Painter()]
        shards.sample_share(pool, saved, Processes(0, 2), painters[0], row, Silent())
        with pytest.raises(InputError, match="process 2 of 2 ended before its shards"):
            shards.wait(pool, saved, Processes(0, 2))
        shards.sample_share(pool, saved, Processes(1, 2), painters[1], row, Silent())
        shards.wait(pool, saved, Processes(0, 2))
    numbers = [number for painter in painters for number in painter.batches]
    assert sorted(numbers) == [batch.number for shard in pool for batch in shard.batches]
    assert not set(painters[0].batches) & set(painters[1].batches)
