from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dermaflux.core import tensor_cache
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.errors import InputError


def entry(number: int, size: int = 4) -> dict[str, torch.Tensor]:
    mean = torch.full((16, size, size), float(number))
    return {"mean": mean, "std": (mean + 0.5).bfloat16()}


def fill(cache: TensorCache, numbers: range) -> None:
    with cache.writer() as writer:
        for number in numbers:
            writer.add(key("image", number), entry(number, 4 + number % 2))


def holds(cache: TensorCache, numbers: range) -> None:
    for number in numbers:
        stored = cache.read([key("image", number)])
        for name, expected in entry(number, 4 + number % 2).items():
            assert torch.equal(stored[name][0], expected)


def test_entries_come_back_by_key_whatever_their_order_and_shape(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, shard_bytes=10_000)
    fill(cache, range(50))
    assert len(list(tmp_path.iterdir())) > 4
    holds(cache, range(50))
    holds(TensorCache(tmp_path), range(49, -1, -1))
    both = cache.read([key("image", 8), key("image", 2), key("image", 8)])
    assert both["mean"][:, 0, 0, 0].tolist() == [8.0, 2.0, 8.0]
    assert any(key("image", number)[-1] == 0 for number in range(1000, 2000)), "a known trap"
    fill(cache, range(1000, 2000))
    holds(cache, range(1000, 2000))
    both["mean"].zero_()
    holds(TensorCache(tmp_path), range(50))
    wanted = [key("image", number) for number in (60, 3, 60, 49, 50)]
    assert cache.missing(wanted) == [0, 4]
    with pytest.raises(KeyError):
        cache.read([key("image", 50)])
    assert cache.missing([]) == []


_WRITER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_tensor_cache import TensorCache, entry, key
cache = TensorCache(Path(sys.argv[2]), shard_bytes=10_000)
first, last, fatal = map(int, sys.argv[3:])
with cache.writer() as writer:
    for number in range(first, last):
        writer.add(key("image", number), entry(number, 4 + number % 2))
        if number == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def write(folder: Path, first: int, last: int, fatal: int = -1) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).parent)
    arguments = [_WRITER, here, str(folder), str(first), str(last), str(fatal)]
    return subprocess.Popen([sys.executable, "-c", *arguments])


def test_a_killed_writer_loses_only_unfinished_shards_and_two_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    # Shards of either shape close after 7 or 5 entries.
    killed, other = write(tmp_path, 0, 60, 47), write(tmp_path, 60, 100)
    assert killed.wait(120) == -signal.SIGKILL
    assert other.wait(120) == 0
    cache = TensorCache(tmp_path)
    missing = cache.missing([key("image", number) for number in range(100)])
    assert set(range(48, 60)) <= set(missing) <= set(range(34, 60))
    again = write(tmp_path, 0, 60)
    fill(cache, range(40, 60))
    assert again.wait(120) == 0
    cache.refresh()
    holds(cache, range(100))


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_shard_is_named_and_computed_again(
    tmp_path: Path, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(TensorCache(tmp_path, shard_bytes=10_000), range(50))
    victim = sorted(tmp_path.iterdir())[2]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    cache = TensorCache(tmp_path)
    assert f"{victim} is damaged" in capsys.readouterr().out
    lost = cache.missing([key("image", number) for number in range(50)])
    assert 0 < len(lost) < 10
    fill(cache, range(50))
    holds(cache, range(50))


def test_what_a_killed_process_left_is_removed_but_not_what_a_live_one_writes(
    tmp_path: Path,
) -> None:
    for name, age in (("old", 7200), ("new", 0)):
        path = tmp_path / f"{name}.machine-1.partial"
        path.write_bytes(b"half")
        modified = path.stat().st_mtime - age
        os.utime(path, (modified, modified))
    TensorCache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.machine-1.partial"]


_MEMORY = """
import sys, torch
from pathlib import Path
from dermaflux.core.tensor_cache import TensorCache, key
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3
count = int(sys.argv[2])
torch.zeros(1)
import safetensors.torch
before = anonymous()
cache = TensorCache(Path(sys.argv[1]), shard_bytes=4_000_000)
with cache.writer() as writer:
    for number in range(count):
        part = torch.full((16, 8, 8), float(number))
        writer.add(key(number), {"mean": part, "std": part})
total = sum(float(cache.read([key(n)])["mean"][0, 0, 0, 0]) for n in range(count))
assert total == count * (count - 1) / 2
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_entries(tmp_path: Path) -> None:
    grown = []
    for count in (1000, 20_000):
        arguments = [sys.executable, "-c", _MEMORY, str(tmp_path / str(count)), str(count)]
        grown.append(float(subprocess.check_output(arguments).decode()))
    written = sum(path.stat().st_size for path in (tmp_path / "20000").iterdir()) / 1e6
    print(f"anonymous memory in MB: {grown}, on disk {written:.0f} MB")
    assert written > 160
    assert grown[1] - grown[0] < 20


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000)
    monkeypatch.setattr(tensor_cache.shutil, "disk_usage", lambda folder: usage)
    reserve(tmp_path / "cache", 3_000_000_000, "free some")
    assert (tmp_path / "cache").is_dir()
    with pytest.raises(InputError, match=r"cache needs 3.1 GB but .* 3.0 GB free; free some$"):
        reserve(tmp_path / "cache", 3_100_000_000, "free some")


def test_a_shard_is_written_once_it_reaches_its_size(tmp_path: Path) -> None:
    with TensorCache(tmp_path, shard_bytes=10_000).writer() as writer:
        for number in range(0, 26, 2):  # 1,536 bytes each
            writer.add(key("image", number), entry(number))
            assert len(list(tmp_path.glob("*.safetensors"))) == (number // 2 + 1) // 7
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
