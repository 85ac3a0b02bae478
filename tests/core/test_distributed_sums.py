"""Two real processes: sums in buckets against one sum of everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from dermaflux.core.distributed import SINGLE, agreed

WORKER = """
import sys, torch
import torch.distributed as dist
from dermaflux.core.distributed import Processes, agreed

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
processes = Processes(rank, 2)
draw = torch.Generator().manual_seed(rank)
shapes = [(64, 3), (1,), (), (500, 7), (31,), (4, 3, 3, 3), (2, 2)]
gradients = [torch.randn(shape, generator=draw) for shape in shapes]
gradients[3] = gradients[3].t()  # not contiguous
gradients[5] = gradients[5].to(memory_format=torch.channels_last)
gradients[6] = gradients[6].bfloat16()
whole = torch.cat([gradient.flatten() for gradient in gradients[:6]])
dist.all_reduce(whole)
last = gradients[6].clone()
dist.all_reduce(last)

sizes = []
reduce = dist.all_reduce
def counted(tensor):
    sizes.append(tensor.nbytes)
    reduce(tensor)
dist.all_reduce = counted
strides = [gradient.stride() for gradient in gradients]
processes.sum_gradients(iter(gradients), bucket_bytes=1000)
assert [gradient.stride() for gradient in gradients] == strides
assert torch.equal(torch.cat([gradient.flatten() for gradient in gradients[:6]]), whole)
assert torch.equal(gradients[6], last)
# (64, 3) + (1,) + () | (500, 7) | (31,) + (4, 3, 3, 3) | the bfloat16 one, in bytes
assert sizes == [776, 14000, 556, 8], sizes

assert processes.collect(torch.tensor([rank + 0.25, rank + 10.0])) == [0.25, 1.25, 10.0, 11.0]
assert processes.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
assert list(processes.share(5)) == [[0, 2, 4], [1, 3]][rank]
assert agreed(processes, ["same", 3])
assert not agreed(processes, ["same", rank])
assert processes.main == (rank == 0)
processes.wait()
dist.destroy_process_group()
"""


def test_sums_in_buckets_are_bit_for_bit_those_of_one_exchange(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meeting")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors


def test_one_process_exchanges_nothing() -> None:
    gradient = torch.tensor([1.0, 2.0])
    SINGLE.sum_gradients([gradient])
    assert gradient.tolist() == [1.0, 2.0]
    assert SINGLE.collect(torch.tensor([3.0])) == [3.0]
    assert SINGLE.gather("x") == ["x"]
    assert agreed(SINGLE, [1])
