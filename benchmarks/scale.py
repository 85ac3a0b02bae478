"""What 10,000 to 10 million images take, from the measured rates in `benchmarks/results`.

Reads the results of `ingest`, `grouping`, `validation`, `captions` and `flux_memory`; computes the
tables of docs/scale.md and writes them there. A figure of the size that was measured stands as it
is; every other one is marked `~` and projected in proportion to images, and to processes or GPUs
as if they lost nothing.

    python benchmarks/scale.py --docs docs/scale.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import flux_memory

from dermaflux.core.files import read_json

RESULTS = Path(__file__).parent / "results"
SIZES = (10_000, 100_000, 508_344, 10_000_000)
GPUS = (1, 8, 64)
SIDES = {128: 400_901, 256: 22_140, 512: 85_303}
"""The paper's images by side in pixels; other sizes of corpus have the same mix."""
MIB = 1.048576e-3  # GB
LATENT_CHANNELS, LATENT_SCALE, BF16 = 16, 8, 2
LARGE_CARD = "141 GB (H200)"


def results(name: str) -> Any:
    """A file of `benchmarks/results`."""
    return read_json(RESULTS / f"{name}.json", "the benchmark of that name")


def amount(value: float) -> str:
    """Two significant digits below 10, whole numbers above."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def hours(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{amount(seconds / length)} {unit}"
    return f"{amount(seconds)} s"


def size(gigabytes: float) -> str:
    """GB in the unit that suits them."""
    if gigabytes >= 1000:
        return f"{amount(gigabytes / 1000)} TB"
    return f"{amount(gigabytes)} GB" if gigabytes >= 1 else f"{amount(gigabytes * 1000)} MB"


def projected(values: Iterable[tuple[int, str]], measured: Sequence[int]) -> list[str]:
    """Cells by number of images, those that were not measured marked."""
    return [text if images in measured else f"~ {text}" for images, text in values]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine_rows() -> list[list[str]]:
    """Stages without a GPU on the two cores of the measurements."""
    ingest, validation = results("ingest-508344"), results("validation")
    grouping = {row["images"]: row for row in results("grouping")["rows"]}
    most = max(grouping)
    whole = ingest["images"]
    seconds, peak = ingest["ingest"]["seconds"], ingest["ingest"]["peak_mb"]
    validate = sum(v for k, v in validation["seconds"].items() if k != "import great_expectations")
    start = validation["seconds"]["import great_expectations"]
    shards = ingest["shards"]["megabytes"] / ingest["kept"]

    def line(name: str, cells: Iterable[str], measured: Sequence[int] = (whole,)) -> list[str]:
        return [name, *projected(zip(SIZES, cells, strict=True), measured)]

    def grouped(images: int, key: str, scale: float, least: float = 0) -> float:
        if images in grouping:
            return float(grouping[images][key]) * scale
        return max(least, float(grouping[most][key]) * scale * images / most)

    fewest = grouping[min(grouping)]["peak_mib"] * MIB
    photographs = results("ingest-side-by-side")["12 Mpx"]["dermaflux ingest"]["images_per_s"]

    return [
        line("`ingest` of tiles", (hours(seconds * n / whole) for n in SIZES)),
        line("`ingest` of 12-megapixel photographs", (hours(n / photographs) for n in SIZES), ()),
        line("`ingest`, memory", (size(peak / 1000 * max(1, n / whole)) for n in SIZES)),
        line(
            "`ingest`: the search for copies",
            (hours(grouped(n, "seconds", 1)) for n in SIZES),
            list(grouping),
        ),
        line(
            "`ingest`: its memory",
            (size(grouped(n, "peak_mib", MIB, fewest)) for n in SIZES),
            list(grouping),
        ),
        line("`validate`", (hours(start + validate * n / validation["rows"]) for n in SIZES)),
        line(
            "`validate`, memory",
            (
                size(validation["peak_memory_mib"] * MIB * max(1, n / validation["rows"]))
                for n in SIZES
            ),
        ),
        line(
            "`corpus/` on disk, tiles of 128 pixels", (size(shards * n / 1000) for n in SIZES), ()
        ),
        *(
            line(f"`dvc {name}` of the corpus", (hours(s * n / whole) for n in SIZES))
            for name, s in ingest["dvc"].items()
        ),
    ]


def caption_rows() -> list[list[str]]:
    """Requests and the time that the client alone takes for them."""
    rate = min(run["images_per_second"] for run in results("captions")["runs"])
    return [
        ["requests, one for each image", *(f"{n:,}" for n in SIZES)],
        ["client's own time", *projected(((n, hours(n / rate)) for n in SIZES), ())],
    ]


def latent_bytes(images: int) -> float:
    """Posterior mean and deviation in bf16 of a corpus with the paper's mix of sides."""
    each = {side: 2 * LATENT_CHANNELS * (side // LATENT_SCALE) ** 2 * BF16 for side in SIDES}
    share = images / sum(SIDES.values())
    return share * sum(count * each[side] for side, count in SIDES.items())


def generator_rows() -> list[list[str]]:
    """Fine-tuning FLUX.1-dev for the paper's five epochs, and its caches."""
    found = results("flux_memory")
    whole = sum(SIDES.values())
    rows = []
    for padding, run in found["run"].items():
        for gpus in GPUS:
            cells = (hours(3600 * run["hours_text_cached"] * n / whole / gpus) for n in SIZES)
            rows.append([f"`{padding}`, {gpus} GPU{'s' * (gpus > 1)}", *(f"~ {c}" for c in cells)])
        text = (size(1000 * run["text_cache_terabytes"] * n / whole) for n in SIZES)
        rows.append([f"`{padding}`, text cache", *(f"~ {cell}" for cell in text)])
    latents = (size(latent_bytes(n) / 1e9) for n in SIZES)
    peak = max(
        row[padding]["peak_gib"]
        for row in found["rows"]
        for padding in found["run"]
        if row["card"] == LARGE_CARD and row["text_cache"]
    )
    rows.append(["latents on disk", *(f"~ {cell}" for cell in latents)])
    rows.append(["memory of a GPU, GiB", *(f"~ {peak:.0f}" for _ in SIZES)])
    return rows


def tables() -> dict[str, str]:
    """Name -> table of docs/scale.md."""
    head = ["images", *(f"{n:,}" for n in SIZES)]
    return {
        "machine": table(head, machine_rows()),
        "captions": table(head, caption_rows()),
        "generator": table(head, generator_rows()),
    }


def main() -> None:
    """Print the tables, and write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path)
    docs = parser.parse_args().docs
    print("\n\n".join(tables().values()))
    if docs:
        page = flux_memory.written(docs.read_text(encoding="utf-8"), tables(), "scale")
        docs.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
