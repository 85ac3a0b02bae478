from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from dermaflux.captions.caption import SCHEMA
from dermaflux.captions.text import lengths, summary
from dermaflux.core import table
from dermaflux.generators.tiny_flux.vocabulary import t5_tokenizer

DESCRIPTIONS = (
    "It is symmetrical, with a smooth border, a uniform brown.",
    "It is asymmetrical, with a jagged border, brown, black and red.",
)


def test_token_lengths_are_those_of_the_tokenizer_one_by_one():
    captions = ["The border is smooth.", "The border", "is " * 40 + "smooth", "smooth"]
    tokenizer = t5_tokenizer(captions)
    counts = lengths.in_tokens(tokenizer, captions)
    assert counts == [len(tokenizer(text).input_ids) for text in captions]
    figures = lengths.figures(counts, limit=16)
    assert lengths.figures(counts)["histogram"] == {"16": 3, "48": 1}
    assert figures["histogram"] == {"16": 4}
    assert (figures["longest"], figures["cut"], figures["shortest"]) == (
        max(counts),
        1,
        min(counts),
    )
    many = np.random.default_rng(0).integers(1, 300, 5000).tolist()
    figures = lengths.figures(many)
    assert sum(figures["histogram"].values()) == 5000
    p95 = figures["p95"]
    assert sum(length <= p95 for length in many) >= 4750 > sum(length < p95 for length in many)
    drawing = lengths.bar_chart(lengths.figures(counts, limit=32)).splitlines()
    assert drawing[0].endswith("1 of 4 exceed 32 and are cut there")
    assert [line.split()[-1] for line in drawing[1:]] == ["3", "1"]


def test_figures_are_written_beside_the_table_and_count_its_flags(tmp_path):
    rows = [
        {
            "image_id": f"x/{number}",
            "caption": DESCRIPTIONS[number % 2],
            "captioner": "llama",
            "label": "benign",
            "asymmetry": (0.02, 0.3)[number % 2],
            "border_irregularity": (0.3, 0.01)[number % 2],
            "colours": (1, 3)[number // 2 % 2],
            "flags": {0: "refusal", 1: "no border,truncated"}.get(number),
            "held_out": number == 3,
        }
        for number in range(42)
    ]  # fmt: skip
    table.write_shard(rows, tmp_path / table.shard_name("captions", 0, 1), SCHEMA)
    figures = summary.write(tmp_path)
    assert json.loads((tmp_path / summary.FILE).read_text()) == figures
    assert (figures["captions"], figures["flagged"], figures["held_out"]) == (42, 2, 1)
    faults = {name: count for name, count in figures["faults"].items() if count}
    assert faults == {"refusal": 1, "no border": 1, "truncated": 1}
    agreement = {name: values["kappa"] for name, values in figures["agreement"].items()}
    # Asymmetry as measured, border the other way round, colours unrelated; flagged ones left out.
    assert agreement == {"asymmetry": 1.0, "border_irregularity": -1.0, "colours": 0.0}
    rows = [row | {"captioner": "measured"} for row in rows]
    assert "agreement" not in summary.summarise(
        pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()
    )
