"""How long does grouping a corpus's copies take, and how much memory, from 50,000 images to all?

Makes synthetic thumbnails that cluster as real ones do: each is a real picture in a random
orientation, mixed 0.36 : 0.64 with four others, so that the covariance of their frequencies stays
and many are alike without being copies (without real data, rendered blobs on textured skin
take their place). One in fifty is then a copy of another, turned, cut by up to 5 % on each side,
made brighter and noisier. Times start at thumbnails on disk and end at group names; a process of
its own for each size gives the peak memory.

    python benchmarks/grouping.py [--real ../shared/real/data] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux.corpus.duplicates import search
from dermaflux.corpus.duplicates.signatures import SIDE, turned
from dermaflux.corpus.splitting import splits

COUNTS = (50_000, 100_000, 250_000, 508_344)
COPIES = 50  # one copy in so many images
CHUNK = 4096
Array = np.ndarray[Any, Any]


def library(real: Path | None) -> Array:
    """Grey thumbnails, float32 (M, 64, 64), that the corpus is mixed from."""
    if real is not None:
        from leak_guard import photographs, thumbnail  # the benchmark beside this one
        from PIL import Image

        pictures = [thumbnail(Image.open(path)) for path in photographs(real)]
        return np.stack(pictures).astype(np.float32)
    random = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) + 1 / SIDE
    noise = np.fft.rfft2(random.standard_normal((2000, SIDE, SIDE))) / frequency
    skin = 170 + 0.5 * np.fft.irfft2(noise, s=(SIDE, SIDE))
    x = np.linspace(-1, 1, SIDE)
    centre, size = (
        random.normal(0, 0.15, (2, 2000, 1, 1)),
        random.uniform(0.2, 0.7, (2, 2000, 1, 1)),
    )
    radius = np.hypot((x - centre[0]) / size[0], (x[:, None] - centre[1]) / size[1])
    return (skin - 80 / (1 + np.exp(8 * (radius - 1)))).clip(0, 255).astype(np.float32)


def write_thumbnails(path: Path, count: int, pictures: Array) -> Array:
    """Write uint8 (count, 64, 64) to `path`; return the planted pairs int64 (P, 2)."""
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE))
    mean = pictures.mean(axis=0)
    for start in range(0, count, CHUNK):
        random = np.random.default_rng([7, start])
        size = min(CHUNK, count - start)

        def drawn(size: int = size, random: np.random.Generator = random) -> Array:
            chosen = pictures[random.integers(0, len(pictures), size)] - mean
            turns = random.integers(0, 8, size)
            for turn in range(8):
                chosen[turns == turn] = turned(chosen[turns == turn], turn)
            return chosen

        mixed = 0.6 * drawn()
        for _ in range(4):
            mixed += 0.4 * random.choice((-1, 1), (size, 1, 1)) * drawn()
        out[start : start + size] = (mixed + mean).clip(0, 255)
        for copy in range(COPIES - 1, size, COPIES):
            out[start + copy] = _copy(out[start + copy - COPIES + 1], random)
    local = [
        (start + copy - COPIES + 1, start + copy)
        for start in range(0, count, CHUNK)
        for copy in range(COPIES - 1, min(CHUNK, count - start), COPIES)
    ]
    out.flush()
    return np.array(local)


def _copy(picture: Array, random: np.random.Generator) -> Array:
    from scipy.ndimage import affine_transform

    cut = random.uniform(0, 0.05, 4) * SIDE
    scale = (SIDE - cut[:2] - cut[2:]) / SIDE
    part = affine_transform(picture.astype(float), scale, cut[:2], order=1, mode="nearest")
    part = part * random.uniform(0.85, 1.15) + random.normal(0, 2, part.shape)
    return turned(part.clip(0, 255)[None], int(random.integers(8)))[0]


def measure(path: Path, planted: Path, count: int) -> dict[str, float]:
    """Group the first `count` thumbnails: seconds, peak MiB, planted pairs joined."""
    file, offset = os.open(path, os.O_RDONLY), path.stat().st_size % (SIDE * SIDE)

    def thumbnails(chosen: Array) -> Array:  # read as the stage reads them from its cache
        rows = [os.pread(file, SIDE * SIDE, offset + int(i) * SIDE * SIDE) for i in chosen]
        return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, SIDE, SIDE)

    before, before_cpu = time.perf_counter(), time.process_time()
    candidates, edges = 0, [np.empty((0, 2), dtype=np.int64)]
    for block in search.copies(count, thumbnails):
        candidates += len(block.scores)
        edges.append(block.pairs())
    joined = np.concatenate(edges)
    names = splits.groups([f"{item:06d}" for item in range(count)], joined)
    seconds, cpu = time.perf_counter() - before, time.process_time() - before_cpu
    pairs = np.load(planted)
    pairs = pairs[pairs[:, 1] < count]
    hits = sum(names[a] is not None and names[a] == names[b] for a, b in pairs)
    known = {tuple(pair) for pair in pairs.tolist()}
    others = {(min(a, b), max(a, b)) for a, b in joined.tolist()} - known
    return {
        "images": count,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": _peak_mib(),
        "candidates": candidates,
        "planted": len(pairs),
        "planted_found": hits / len(pairs),
        "other_pairs": len(others),
    }


def _peak_mib() -> int:
    """Peak resident memory of this process; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if "VmHWM" in line)


def main() -> None:
    """Make the thumbnails once, measure each size in a process of its own, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="data folder with real images")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder the thumbnails stay in for the next run")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(Path(given.one[0]), Path(given.one[1]), int(given.one[2]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        path, planted = place / "thumbnails.npy", place / "planted.npy"
        if not planted.exists():
            np.save(planted, write_thumbnails(path, max(given.counts), library(given.real)))
        for count in given.counts:
            command = [sys.executable, __file__, "--one", str(path), str(planted), str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "machine": f"{os.cpu_count()} CPU cores",
        "pictures": "real images, mixed" if given.real else "rendered, mixed",
        "rows": rows,
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
