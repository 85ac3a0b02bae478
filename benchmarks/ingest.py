"""How fast `ingest` is beside the obvious alternatives, and how it behaves at full size.

    python benchmarks/ingest.py                  side by side: 12-megapixel and 224-pixel JPEGs
    python benchmarks/ingest.py --large 508344   one dataset of that many tiles, then DVC

Everything is rendered into a temporary folder (--scratch says where) and removed. Results go to
benchmarks/results/ as JSON. The alternatives do less: they decode, resize and save, and look for no
duplicates, no leaks and no damage.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from dermaflux import paths
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode_cache
from dermaflux.params import Params, load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LARGE, SMALL = (4000, 3000), (224, 224)


def picture(number: int, width: int, height: int) -> Image.Image:
    """Skin with a blob and grain, a different one for each number; enlarged from 1/16 of it."""
    random = np.random.default_rng(number)
    side = (max(height // 16, 24), max(width // 16, 24))
    y, x = np.mgrid[0 : side[0], 0 : side[1]]
    middle = np.array(side) * random.uniform(0.35, 0.65, 2)
    spread = min(side) * random.uniform(0.15, 0.3, 2)
    blob = np.exp(-((((y - middle[0]) / spread[0]) ** 2 + ((x - middle[1]) / spread[1]) ** 2) ** 2))
    skin, mole = random.integers(150, 230, 3), random.integers(20, 120, 3)
    pixels = skin + (mole - skin) * blob[..., None] + random.normal(0, 9, (*side, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    grain = random.integers(-6, 7, (256, 256, 1), dtype=np.int16)
    tiles = np.tile(grain, (-(-height // 256), -(-width // 256), 1))[:height, :width]
    return Image.fromarray((np.asarray(image, np.int16) + tiles).clip(0, 255).astype(np.uint8))


def render(folder: Path, numbers: range, size: tuple[int, int] | None) -> None:
    """JPEG files named by their numbers; tiles of 61 to 239 pixels when no size is given."""
    for number in numbers:
        if size is None:
            side = int(np.random.default_rng([1, number]).triangular(61, 131, 239))
        width, height = size or (side, side)
        picture(number, width, height).save(folder / f"ISIC_{number:07d}.jpg", quality=90)


def rendered(folder: Path, count: int, size: tuple[int, int] | None) -> None:
    """`render` on all cores."""
    folder.mkdir(parents=True)
    step = max(1, min(500, count // 8))
    chunks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    folder = folder.absolute()  # processes keep the working directory they started in
    Parallel(n_jobs=-1)(delayed(render)(folder, chunk, size) for chunk in chunks)


def isic2020(root: Path, count: int, size: tuple[int, int]) -> None:
    """`count` images in the layout of ISIC 2020."""
    rendered(root / "train", count, size)
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
    rows = [f"ISIC_{n:07d},IP_{n},,,,unknown,{'benign' if n % 9 else 'malignant'},{int(not n % 9)}"
            for n in range(count)]  # fmt: skip
    text = "\n".join([header + "benign_malignant,target", *rows])
    (root / "ISIC_2020_Training_GroundTruth.csv").write_text(text)


def isic2024(root: Path, count: int) -> None:
    """`count` tiles in the layout of the ISIC 2024 challenge site, one in a thousand malignant."""
    rendered(root / "ISIC_2024_Training_Input", count, None)
    truth, about = ["isic_id,malignant"], ["isic_id,patient_id,lesion_id,iddx_1,copyright_license"]
    for n in range(count):
        truth.append(f"ISIC_{n:07d},{float(n % 1000 == 0)}")
        about.append(
            f"ISIC_{n:07d},IP_{n // 385:07d},,{'Malignant' if n % 1000 == 0 else 'Benign'},CC-BY"
        )
    (root / "ISIC_2024_Training_GroundTruth.csv").write_text("\n".join(truth))
    (root / "ISIC_2024_Training_Supplement.csv").write_text("\n".join(about))
    (root / "ISIC_2024_Training_Input" / "metadata.csv").write_text("\n".join(about))


def parameters(**changes: object) -> Params:
    """The demo's parameters with the data of this benchmark."""
    from ruamel.yaml import YAML

    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["data"], raw["ingest"] = "data", {**raw["ingest"], **changes}
    return load.parse(raw)


def resize_and_save(task: tuple[Path, Path, int]) -> None:
    """What everyone writes first: open, resize, save."""
    source, target, side = task
    image = Image.open(source).convert("RGB")
    image.resize((side, side), Image.Resampling.LANCZOS).save(target, quality=95)


def with_pillow(files: list[Path], side: int) -> None:
    """Pillow in a pool of processes."""
    target = Path("with_pillow")
    target.mkdir()
    with Pool() as pool:
        tasks = [(path, target / path.name, side) for path in files]
        for _ in pool.imap(resize_and_save, tasks, chunksize=8):
            pass


def resized_rows(batch: dict[str, list[Any]], side: int) -> dict[str, list[Any]]:
    """The function given to `datasets.map`."""
    images = [image.convert("RGB") for image in batch["image"]]
    return {"image": [image.resize((side, side), Image.Resampling.LANCZOS) for image in images]}


def with_datasets(folder: Path, side: int) -> None:
    """`datasets`: imagefolder, map over all cores, Parquet."""
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir="with_datasets"
    )
    found = found.map(
        resized_rows, batched=True, batch_size=32, num_proc=os.cpu_count(),
        fn_kwargs={"side": side},
    )  # fmt: skip
    found.to_parquet("with_datasets.parquet")


def ingested(**changes: object) -> dict[str, float]:
    """Time and memory of `ingest`, with the seconds of its decoding alone: what others do too."""
    fill, seconds = decode_cache._fill, []

    def timed_fill(*arguments: Any) -> None:
        begin = time.perf_counter()
        fill(*arguments)
        seconds.append(time.perf_counter() - begin)

    decode_cache._fill = timed_fill
    try:
        found = timed(lambda: ingest.run(parameters(**changes)))
    finally:
        decode_cache._fill = fill
    return {**found, "decode_seconds": round(sum(seconds), 2)}


class Memory:
    """Largest memory of this process and its children together, in bytes, sampled."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.2):
            total = 0
            for process in (own := psutil.Process(), *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self.peak = max(self.peak, total)


def timed(what: Callable[[], object]) -> dict[str, float]:
    """Wall time in s and peak memory in MB of a call."""
    with Memory() as memory:
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            what()
        seconds = time.perf_counter() - begin
    return {"seconds": round(seconds, 2), "peak_mb": round(memory.peak / 1e6)}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "pillow": Image.__version__,
    }


@contextlib.contextmanager
def workplace(scratch: Path | None) -> Iterator[Path]:
    """An empty folder to work in, its own project root."""
    folder, before = Path(tempfile.mkdtemp(dir=scratch)), Path.cwd()
    os.chdir(folder)
    Path(".dvc").mkdir()
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


def side_by_side(scratch: Path | None, large: int, small: int) -> dict[str, Any]:
    """Seconds for the same files by each way, after a round that imports and starts processes."""
    found: dict[str, Any] = {}
    rounds = (("", 18, SMALL, 128), ("12 Mpx", large, LARGE, 512), ("224 px", small, SMALL, 128))
    for name, count, size, side in rounds:
        with workplace(scratch):
            isic2020(Path("data/isic2020"), count, size)
            folder = Path("data/isic2020/train")
            files = sorted(folder.iterdir())
            ways: dict[str, Callable[[], dict[str, float]]] = {
                "dermaflux ingest": ingested,
                "Pillow pool": lambda: timed(lambda: with_pillow(files, side)),  # noqa: B023
                "datasets map": lambda: timed(lambda: with_datasets(folder, side)),  # noqa: B023
            }
            figures = {}
            for way, function in ways.items():
                figures[way] = function()
                figures[way]["images_per_s"] = round(count / figures[way]["seconds"], 1)
            ours = figures["dermaflux ingest"]["seconds"]
            for way in figures:
                figures[way]["times_ours"] = round(figures[way]["seconds"] / ours, 2)
            if not name:
                continue
            found[name] = {"images": count, "megabytes": megabytes(files), **figures}
            print(table_of(name, count, figures))
    return found


def megabytes(files: list[Path]) -> int:
    """Size of files together, in 10^6 bytes."""
    return round(sum(path.stat().st_size for path in files) / 1e6)


def table_of(name: str, count: int, figures: dict[str, dict[str, float]]) -> str:
    """The figures as text."""
    lines = [f"{count} JPEGs of {name}"]
    for way, one in figures.items():
        lines.append(
            f"  {way:18} {one['seconds']:8.2f} s {one['images_per_s']:8.1f} images/s "
            f"{one['peak_mb']:6.0f} MB peak {one['times_ours']:6.2f} x ours"
        )
    decoding = figures["dermaflux ingest"]["decode_seconds"]
    lines.append(f"  of ours, {decoding:.2f} s are decoding and resizing, which is all others do")
    return "\n".join(lines)


def at_full_size(scratch: Path | None, count: int) -> dict[str, Any]:
    """Ingest of `count` tiles, then the corpus through DVC in a repository of its own."""
    with workplace(scratch):
        rendering = timed(lambda: isic2024(Path("data/isic2024"), count))
        found: dict[str, Any] = {"images": count, "render": rendering}
        print(f"rendered in {rendering['seconds']:.0f} s", flush=True)
        found["ingest"] = ingested(sources=["isic2024"])
        report = json.loads(paths.INGEST_REPORT.read_text())
        found |= {"kept": report["images"]["kept"], "policies": report["policies"]}
        shards = sorted(paths.CORPUS.iterdir())
        sizes = [round(path.stat().st_size / 1e6, 1) for path in shards]
        found["shards"] = {
            "count": len(shards),
            "megabytes": round(sum(sizes), 1),
            "largest": max(sizes),
        }
        print(f"ingest {found['ingest']}, kept {found['kept']}, shards {found['shards']}")
        shutil.rmtree(".dvc")
        found["dvc"] = with_dvc()
        print(f"dvc {found['dvc']}")
    return found


def with_dvc() -> dict[str, float]:
    """Seconds of `dvc add`, `push` and `checkout` of corpus/, in a fresh repository."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    for name in ("DVC_ROOT", "PYTHONPATH"):
        environment.pop(name, None)

    def dvc(*words: str) -> None:
        command = [sys.executable, "-m", "dvc", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"dvc {' '.join(words)} failed: {done.stderr}")

    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("init", "--quiet")
    dvc("remote", "add", "--default", "store", str(Path("store").absolute()))
    seconds = {}
    for name, words in (("add", ["add", "corpus"]), ("push", ["push"])):
        begin = time.perf_counter()
        dvc(*words)
        seconds[name] = round(time.perf_counter() - begin, 2)
    shutil.rmtree("corpus")
    begin = time.perf_counter()
    dvc("checkout")
    seconds["checkout"] = round(time.perf_counter() - begin, 2)
    return seconds


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--large", type=int, metavar="N", help="tiles of the full-size run")
    parser.add_argument("--images", type=int, nargs=2, default=(96, 8000), metavar="N",
                        help="12-megapixel and 224-pixel images side by side")  # fmt: skip
    parser.add_argument("--scratch", type=Path, help="folder for the temporary files")
    options = parser.parse_args()
    if options.large:
        name, found = f"ingest-{options.large}", at_full_size(options.scratch, options.large)
    else:
        name, found = "ingest-side-by-side", side_by_side(options.scratch, *options.images)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **found}, indent=1) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
