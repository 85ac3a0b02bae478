"""Time of the pages of `dermaflux browse` on a table the size of the paper's.

Makes corpus/, captions/, synthetic/, the quarantine table and the audit's neighbours with 508,344
rows in all, whose images are 512 small lesions over and over; builds the index, serves it and times
pages over HTTP as a browser asks for them, one after the other: until the answer is there, and the
server's own time on a core, which other programs on the machine hardly change. Writes JSON:
`python benchmarks/browse.py --output benchmarks/results/browse.json`.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from dermaflux import paths
from dermaflux.browse import index
from dermaflux.browse.rows import NEAREST
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.core.hashing import sha256

ROWS = 508_344
SYNTHETIC, QUARANTINED, SIDE = 50_000, 10_000, 48
# Weights of the sources: the counts of docs/data.md.
SOURCES = {
    "mednode": 170, "hiba": 1553, "derm12345": 12345, "isic2019": 31522, "isic2020": 33126,
    "milk10k": 10480, "padufes20": 2298, "kaggle1": 10605, "kaggle2": 13879, "ddi": 656,
    "isic2024": 401059,
}  # fmt: skip
TONES = (None, "I-II", "III-IV", "V-VI", "I", "II", "III", "IV", "V", "VI")
WORDS = (
    ("symmetrical", "slightly asymmetrical", "asymmetrical along both axes"),
    ("regular", "regular with a few small notches", "irregular and notched", "ill-defined"),
    ("one color", "two colors", "three colors", "four colors", "five colors"),
    ("light brown", "dark brown", "black", "blue-gray", "red", "white"),
    ("light brown", "dark brown", "black", "blue-gray", "red", "white"),
)
PAGES = {
    "first page": "",
    "filter: source": "source=isic2020",
    "filter: label": "label=malignant",
    "filter: split": "split=test",
    "filter: skin tone": "skin_tone=V-VI",
    "filter: duplicate group": "duplicate_group=isic2024~2F0123450",
    "filter: quarantine rule": "quarantine_rule=duplicate",
    "filter: quarantine reason": "quarantine_reason__contains=below",
    "filter: audit verdict": "audit_verdict=rejected:+copy",
    "filter: four columns": "source=isic2024&label=malignant&split=test&skin_tone=VI",
    "filter: rare in common": "source=isic2024&label=malignant",
    "search: one word": "_search=notched",
    "search: three words": "_search=notched+blue-gray+malignant",
    "sort: audit ratio": "_sort=audit_ratio&kind=synthetic",
    "sort: group size": "_sort_desc=group_size",
    "last page": "_next=508300",
}


def lesions(count: int = 512) -> list[bytes]:
    """Small JPEG files, each of other bytes."""
    draw, files = np.random.default_rng(0), []
    for _ in range(count):
        pixels = draw.integers(0, 30, (SIDE, SIDE, 3)) + draw.integers(90, 200, 3)
        pixels[12:-12, 12:-12] -= draw.integers(20, 60, 3)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    return files


def caption(draw: random.Random, label: str) -> str:
    """A sentence like those of `caption.captioner: measured`."""
    shape, border, count, first, second = (draw.choice(words) for words in WORDS)
    return (
        f"This is an image containing a {label} lesion. The shape of the mole is {shape}. The "
        f"border is {border}. The coloration varies over {count}, mainly {first}, with {second}."
    )


def rows(count: int, files: list[bytes], draw: random.Random) -> Iterator[dict[str, Any]]:
    """Real rows: each twentieth with the one before it in a duplicate group."""
    digests = [sha256(file) for file in files]
    total = sum(SOURCES.values())
    for source, weight in SOURCES.items():
        for number in range(round(count * weight / total)):
            name, which = f"{source}/{number:07d}", draw.randrange(len(files))
            group = f"{source}/{number // 2 * 2:07d}" if number % 40 < 2 else None
            yield {
                "image": {"bytes": files[which], "path": None},
                **{"image_id": name, "source": source, "licence": "CC-BY-NC"},
                "label": "malignant" if draw.random() < 0.05 else "benign",
                "diagnosis": draw.choice(("nevus", "melanoma", "keratosis")),
                "split": draw.choices(table.SPLITS, (80, 8, 12))[0],
                "skin_tone": draw.choices(TONES, (60, 10, 10, 10, 2, 2, 2, 2, 1, 1))[0],
                **{"width": SIDE, "height": SIDE, "scale": SIDE, "sha256": digests[which]},
                **{"duplicate_group": group, "modality": "dermoscopic"},
            }


def pool(files: list[bytes], draw: random.Random) -> Iterator[dict[str, Any]]:
    """Synthetic rows with their provenance."""
    for number in range(SYNTHETIC):
        label, file = draw.choice(("benign", "malignant")), draw.choice(files)
        yield {
            "image": {"bytes": file, "path": None},
            "image_id": f"synthetic/{number:06d}",
            **{"source": "synthetic", "licence": "CC0", "label": label, "split": "train"},
            **{"width": SIDE, "height": SIDE, "scale": SIDE, "sha256": sha256(file)},
            **{"generator": "flux_lora", "prompt": caption(draw, label), "seed": number},
            **{"weights": "0" * 64, "sampler_settings": '{"steps": 16}', "batch": number // 16},
        }


def write_tables() -> None:
    """Everything that the page reads, in the working directory."""
    draw, files = random.Random(0), lesions()
    wanted = ROWS - SYNTHETIC - QUARANTINED
    real = list(itertools.islice(rows(wanted + len(SOURCES), files, draw), wanted))
    real.sort(key=lambda row: str(row["image_id"]))
    table.write(real, paths.CORPUS, 64)
    table.write(pool(files, draw), paths.SYNTHETIC, 64)
    texts = [{"image_id": row["image_id"], "caption": caption(draw, row["label"])} for row in real]
    paths.CAPTIONS.mkdir()
    schema = pa.schema([("image_id", pa.string()), ("caption", pa.string())])
    table.write_shard(texts, paths.CAPTIONS / "captions-00000-of-00001.parquet", schema)
    NEAREST.parent.mkdir(parents=True)
    with paths.QUARANTINE.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["source", "location", "image_id", "stage", "rule", "reason"])
        for number, row in enumerate(real[:: len(real) // QUARANTINED][:QUARANTINED]):
            small = "90 x 80 is below ingest.minimum_side 128; lower that parameter to keep it"
            same = f"it shows the same image as {row['image_id']}, which is kept"
            rule, reason = ("too-small", small) if number % 3 else ("duplicate", same)
            name = f"{row['source']}/left-out-{number}"
            lines.writerow([row["source"], f"{name}.jpg", name, "decode", rule, reason])
    with NEAREST.open("w", newline="") as file:
        lines = csv.writer(file)
        names = "image_id,label,nearest_id,distance,ratio,original_id,correlation,reason,rejected"
        lines.writerow(names.split(","))
        for number in range(SYNTHETIC):
            near, reason = draw.choice(real)["image_id"], "" if number % 500 else "copy"
            found = [near, draw.uniform(5, 30), draw.uniform(0.3, 1.3), near, draw.random(), reason]
            lines.writerow([f"synthetic/{number:06d}", "benign", *found, bool(reason)])


def server(port: int) -> subprocess.Popen[bytes]:
    """`dermaflux browse` of the working directory, once it answers."""
    start = "from dermaflux.cli import main; main()"
    command = [sys.executable, "-c", start, "browse", "--no-open", "--port", str(port)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while running.poll() is None:
        try:
            fetch(port, "")
            return running
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def fetch(port: int, query: str) -> bytes:
    """One page of the table of images, as HTML."""
    address = f"http://127.0.0.1:{port}/{index.DATABASE}/{index.IMAGES}?{query}"
    with urllib.request.urlopen(address, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and slowest, in milliseconds."""
    return {
        "median_ms": round(statistics.median(seconds) * 1000, 1),
        "slowest_ms": round(max(seconds) * 1000, 1),
    }


def over_http(port: int, repeats: int, process: int) -> dict[str, Any]:
    """Time until the HTML of each page is there, and that of the server's process on a core."""
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    cores: dict[str, list[float]] = {name: [] for name in PAGES}
    for _ in range(repeats):
        for name, query in PAGES.items():
            start, used = time.perf_counter(), used_seconds(process)
            fetch(port, query)
            times[name].append(time.perf_counter() - start)
            cores[name].append(used_seconds(process) - used)
    return {
        name: {**summary(times[name]), "core_ms": summary(cores[name])["median_ms"]}
        for name in PAGES
    }


def used_seconds(process: int) -> float:
    """Seconds that the threads of a process have had a core."""
    used = psutil.Process(process).cpu_times()
    return float(used.user + used.system)


def in_browser(port: int, repeats: int) -> dict[str, Any] | None:
    """Time until Chromium has loaded a page with the thumbnails in view; None without Chromium."""
    program = shutil.which("chromium")
    if program is None:
        return None
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {"first page": [], "filter: skin tone": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(repeats):
            page = browser.new_page()
            for name, seconds in times.items():
                address = f"http://127.0.0.1:{port}/{index.DATABASE}/{index.IMAGES}?{PAGES[name]}"
                start = time.perf_counter()
                page.goto(address, wait_until="load")
                seconds.append(time.perf_counter() - start)
            page.close()
        browser.close()
    return {name: summary(seconds) for name, seconds in times.items()}


def main() -> None:
    """Write the tables, build the index, time the pages, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the tables here, or use those in it")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    output = options.output and options.output.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if not paths.CORPUS.is_dir():
            write_tables()
        shutil.rmtree(Path(".dermaflux"), ignore_errors=True)
        start = time.perf_counter()
        database = index.open_index()
        built = time.perf_counter() - start
        start = time.perf_counter()
        index.open_index()
        found = time.perf_counter() - start
        running = server(options.port)
        try:
            figures = {
                "rows": rows_of(options.port),
                "index_build_seconds": round(built, 1),
                "index_found_seconds": round(found, 2),
                "index_megabytes": round(database.stat().st_size / 1e6),
                "http": over_http(options.port, options.repeats, running.pid),
                "browser": in_browser(options.port, options.repeats),
                "cores": os.cpu_count(),
                "load_average": round(os.getloadavg()[0], 1),
            }
        finally:
            running.terminate()
            running.wait()
    for name, value in figures.items():
        print(f"{name}: {value}")
    if output:
        write_json(output, figures)


def rows_of(port: int) -> int:
    """Rows that the first page says there are."""
    return int(fetch(port, "").split(b"<h3>")[1].split(b" row")[0].replace(b",", b""))


if __name__ == "__main__":
    main()
