"""Time of the Great Expectations suites on a table the size of the eleven datasets.

Makes a metadata table (no pixels) with the sources, splits, lesions and patients of the published
counts, then runs the stage `validate` on it, part by part, and the suite `mixture` at the paper's
size. Writes JSON: `python benchmarks/validation.py --output benchmarks/results/validation.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux import paths
from dermaflux.captions.caption import SCHEMA as CAPTION_SCHEMA
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.params.load import load
from dermaflux.validation import caption_suite, corpus_suite, data_docs, mixture_suite, validate

ROOT = Path(__file__).parents[1]
# Images, scale, malignant share; ../shared-free: the counts are those of docs/data.md.
SOURCES = {
    "mednode": (170, 512, 0.41), "hiba": (1553, 512, 0.48), "derm12345": (12345, 512, 0.1),
    "isic2019": (31522, 512, 0.35), "isic2020": (33126, 512, 0.018), "milk10k": (10480, 512, 0.7),
    "padufes20": (2298, 512, 0.5), "kaggle1": (10605, 256, 0.48), "kaggle2": (13879, 256, 0.47),
    "ddi": (656, 256, 0.26), "isic2024": (401059, 128, 0.001),
}  # fmt: skip


def corpus(images: int) -> pd.DataFrame:
    """A table of `images` rows that passes its checks; lesions of 2, patients of 40 images."""
    total = sum(count for count, _, _ in SOURCES.values())
    parts = []
    for source, (count, scale, share) in SOURCES.items():
        rows = np.arange(max(40, round(count * images / total)))
        patients = rows // 40
        split = np.array(table.SPLITS)[np.minimum(patients % 10, 9) // 4 % 3]
        part = pd.DataFrame({"image_id": [f"{source}/ISIC_{row:07d}" for row in rows]})
        part = part.assign(source=source, licence="CC-BY-NC", modality="dermoscopic", scale=scale)
        part["label"] = np.where(rows * 619 % 1000 < share * 1000, "malignant", "benign")
        part["lesion_id"] = [f"{source}_{row // 2}" for row in rows]
        part["patient_id"] = [f"{source}_{patient}" for patient in patients]
        part["duplicate_group"] = [f"{source}/{row // 2}" if row % 40 < 2 else None for row in rows]
        part["skin_tone"] = np.where(rows % 3, None, "II")
        part["skin_tone_origin"] = np.where(rows % 3, None, "published")
        part["width"], part["height"], part["split"] = scale + 20, scale + 5, split
        part["phash"] = [f"{row:016x}" for row in rows]
        part["sha256"] = [f"{source:>32}{row:032x}" for row in rows]
        parts.append(part)
    return pd.concat(parts, ignore_index=True).reindex(columns=list(table.METADATA))


def captions(frame: pd.DataFrame) -> pd.DataFrame:
    """One caption of ordinary length per image."""
    return pd.DataFrame(
        {
            "image_id": frame["image_id"],
            "caption": "This is an image containing a " + frame["label"] + " lesion. " + "x" * 150,
            "captioner": "measured",
            "label": frame["label"],
            "asymmetry": 0.1,
            "border_irregularity": 0.1,
            "colours": 2,
            "diameter_fraction": 0.4,
            "flags": None,
            "prompt_tokens": None,
            "completion_tokens": None,
            "held_out": False,
        }
    )


def write(frame: pd.DataFrame, texts: pd.DataFrame) -> None:
    """corpus/ and captions/ in the working directory, 50,000 rows a shard."""
    for folder, rows, schema in (
        (paths.CORPUS, frame, table.SCHEMA.remove(0)),
        (paths.CAPTIONS, texts, CAPTION_SCHEMA),
    ):
        folder.mkdir()
        for start in range(0, len(rows), 50_000):
            part = pa.Table.from_pandas(
                rows[start : start + 50_000], schema=schema, preserve_index=False
            )
            pq.write_table(part, folder / f"train-{start:09d}.parquet", compression="zstd")


class Clock:
    """Seconds of named steps, and what a busy machine does not change: of the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a step."""
        began, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.processor[name] = round(time.process_time() - worked, 2)


def measure(params: Params) -> dict[str, object]:
    """Seconds of each part of the stage on corpus/ and captions/ of the working directory."""
    clock = Clock()
    with clock("import great_expectations"):
        context = validate._context()
    with clock("read metadata"):
        real, texts = validate._metadata(paths.CORPUS), validate._metadata(paths.CAPTIONS)
    with clock("derive columns"):
        frames = {
            "corpus": corpus_suite.with_derived_columns(real, texts),
            "captions": caption_suite.with_derived_columns(texts, real),
        }
    suites = {
        "corpus": corpus_suite.checks(params, real["source"].unique()),
        "captions": caption_suite.checks(params),
    }
    passed, failing = {}, []
    for name, frame in frames.items():
        with clock(f"suite {name}"):
            result = validate._validate(context, name, suites[name], frame)
        passed[name] = len(result.results)
        failing += [failure["name"] for failure in validate._failures(name, result, suites[name])]
    with clock("Data Docs"):
        data_docs.write(context, Path("docs"))
    few = real[real["split"] == "train"]
    columns = list(mixture_suite.MIXTURE)
    drawn = pd.concat(
        [few[few["label"] == label][: params.n_real // 2] for label in ("benign", "malignant")]
    )
    with clock("suite mixture"):
        held_out = real.loc[real["split"] != "train", columns]
        mixture = mixture_suite.with_derived_columns(
            drawn[columns], drawn[columns][:0], held_out, []
        )
        validate.check("mixture", mixture, mixture_suite.checks(params, "real", False))
    seconds = clock.seconds
    return {
        "rows": len(real),
        "expectations": passed,
        "failing": failing,
        "seconds": seconds,
        "processor_seconds": clock.processor,
        "seconds_suites_with_derivation": round(
            seconds["derive columns"] + seconds["suite corpus"] + seconds["suite captions"], 2
        ),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def main() -> None:
    """Make the tables in a temporary folder, measure, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=508_344)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    output = arguments.output and arguments.output.resolve()
    params = load(ROOT / "params.yaml")
    limits = {split: (0.0, 1.0) for split in table.SPLITS}
    section = params.validate_.model_copy(update={"malignant_fraction": limits})
    params = params.model_copy(update={"validate_": section, "n_real": 2500})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        frame = corpus(arguments.images)
        write(frame, captions(frame))
        del frame
        report = measure(params)
        os.chdir(ROOT)
    print(json.dumps(report, indent=1))
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
